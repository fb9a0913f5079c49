//! Putting a site back from a backup, part by part.
//!
//! Invariant: a site is either not there or whole. Its own row is what makes it exist, and comes with
//! the last part; until then its rows are invisible, and the first part of another attempt removes
//! them.

use super::super::command::Restore;
use super::super::outcome::{Outcome, Refusal};
use super::super::row::{Row, ServiceRow};
use super::super::state::State;
use super::super::validate::invalid;
use super::Verdict;

pub(super) fn restore(state: &State, restore: &Restore) -> Result<Verdict, Refusal> {
    let Restore { site: name, first, rows } = restore;
    if let Some(index) = rows.iter().position(|row| row.site() != Some(name)) {
        let field = format!("rows[{index}]");
        return Err(Refusal::Invalid(invalid(&field, "a row of another site".to_owned())));
    }
    let last = rows.iter().find_map(|row| match row {
        Row::Site(row) => Some(row),
        _ => None,
    });
    if let Some(there) = state.site(name.as_str()) {
        // The last part again: its fate was not known.
        return match (&there.row, last) {
            (Some(there), Some(row)) if there == row => Ok(Verdict::new(Outcome::Done)),
            _ => Err(Refusal::AlreadyExists),
        };
    }
    let mut verdict = Verdict::new(Outcome::Done);
    if *first {
        for key in state.hidden_rows(name) {
            verdict.delete(key);
        }
    }
    for row in rows {
        verdict.put(match row {
            // Its session ended with the cluster that was backed up.
            Row::Service(row) => Row::Service(ServiceRow { at: None, ..row.clone() }),
            row => row.clone(),
        });
    }
    Ok(verdict)
}
