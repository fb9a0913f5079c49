//! Putting a site back from a backup, part by part.
//!
//! Invariant: a site is either not there or whole, with the rows of one attempt. Its own row is what
//! makes it exist, and comes with the last part; until then its rows are invisible, and the first
//! part of another attempt, or the creation of the site, removes them. An attempt puts its parts in
//! order, each once: only the newest attempt and the part that comes next are taken.

use super::super::command::Restore;
use super::super::outcome::{Outcome, Refusal};
use super::super::row::{AttemptRow, Row, ServiceRow};
use super::super::state::State;
use super::super::validate::{check_account, invalid};
use super::Verdict;
use super::admin::conflict;

pub(super) fn restore(state: &State, restore: &Restore) -> Result<Verdict, Refusal> {
    let Restore { site: name, attempt, part, rows } = restore;
    check_account("site", name.as_str()).map_err(Refusal::Invalid)?;
    let foreign = |row: &Row| row.site() != Some(name) || matches!(row, Row::Attempt(_));
    if let Some(index) = rows.iter().position(foreign) {
        let field = format!("rows[{index}]");
        return Err(Refusal::Invalid(invalid(&field, "not a row of the site".to_owned())));
    }
    let known = state.attempt(name).filter(|known| known.id == *attempt);
    if known.is_some_and(|known| *part < known.next) {
        // The part again: its fate was not known.
        return Ok(Verdict::new(Outcome::Done));
    }
    if state.site(name.as_str()).is_some() {
        return Err(Refusal::AlreadyExists);
    }
    let mut verdict = Verdict::new(Outcome::Done);
    match (known, *part) {
        (None, 0) => {
            for key in state.hidden_rows(name) {
                verdict.delete(key);
            }
        }
        (None, _) => {
            let detail = "this attempt to restore the site is over: another one has begun, or the \
                          site was created meanwhile";
            return Err(conflict(detail));
        }
        (Some(known), part) if part != known.next => {
            let detail = format!("part {} is next of this attempt, was {part}", known.next);
            return Err(conflict(detail));
        }
        (Some(_), _) => {}
    }
    for row in rows {
        verdict.put(match row {
            // Its session ended with the cluster that was backed up.
            Row::Service(row) => Row::Service(ServiceRow { at: None, ..row.clone() }),
            row => row.clone(),
        });
    }
    let next = part.saturating_add(1);
    verdict.put(Row::Attempt(AttemptRow { site: name.clone(), id: *attempt, next }));
    Ok(verdict)
}
