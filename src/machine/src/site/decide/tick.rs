//! Expiry: removes what is due, a bounded number of rows at a time.
//!
//! Nothing depends on a tick being prompt: what has expired is never selected for delivery. A
//! tick only gives the memory back and lets keys and request ids be used again.

use super::super::ids::{InstanceId, Stamp};
use super::super::outcome::{Effect, Outcome};
use super::super::row::RowKey;
use super::super::site::{Due, Site};
use super::super::state::State;
use super::Verdict;
use super::govern::token_ended;

pub(super) fn tick(state: &State, now: Stamp, limit: u32) -> Verdict {
    let mut verdict = Verdict::new(Outcome::Done);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    for (site, due) in state.due(now, limit) {
        let name = site.name().clone();
        match due {
            Due::Instance(id) => {
                verdict.delete(RowKey::Instance(name, *id));
                verdict.effects.extend(removed(site, *id));
            }
            Due::Key(service, key) => {
                verdict.delete(RowKey::Key(name, service.clone(), key.clone()));
            }
            Due::Request(id) => verdict.delete(RowKey::Request(name, *id)),
            Due::Ticket(id) => verdict.delete(RowKey::Ticket(name, id.clone())),
            Due::Token(id) => {
                verdict.delete(RowKey::Token(name, id.clone()));
                verdict.effects.push(token_ended(site));
            }
        }
    }
    // One write per row, and at most `limit` rows.
    let removed = u32::try_from(verdict.writes.len()).unwrap_or(u32::MAX);
    verdict.outcome = Outcome::Ticked { removed };
    verdict.effects.sort();
    verdict.effects.dedup();
    verdict
}

/// Whom the removal of an instance concerns: its addressee, or all who may watch the event.
pub(super) fn removed(site: &Site, id: InstanceId) -> Option<Effect> {
    let instance = site.instance(id)?;
    Some(match &instance.client {
        Some(client) => Effect::Client { site: site.name().clone(), client: client.clone() },
        None => Effect::Event { site: site.name().clone(), event: instance.event },
    })
}
