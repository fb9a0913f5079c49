//! Every event that was acknowledged to its service is handled by each subscriber that had to.

use std::collections::BTreeSet;

use crate::history::Entry;
use crate::oracle::Expectations;

/// What was acknowledged and never handled, by the expectations' `complete`.
pub fn check(entries: &[Entry], expectations: &Expectations) -> Vec<String> {
    expectations.complete.iter().flat_map(|(event, name)| missing(entries, event, name)).collect()
}

fn missing(entries: &[Entry], event: &str, name: &str) -> Vec<String> {
    let mut calls = BTreeSet::new();
    let mut acknowledged = BTreeSet::new();
    let mut handled = BTreeSet::new();
    for entry in entries {
        match entry {
            Entry::Raised { call, event: of, .. } if of == event => {
                calls.insert(*call);
            }
            Entry::Acknowledged { call, instance_id: Some(id), ignored: false, .. }
                if calls.contains(call) =>
            {
                acknowledged.insert(*id);
            }
            Entry::HandlerStarted { by, handled: what }
                if by.name == name && what.event == event =>
            {
                handled.insert(what.instance_id);
            }
            Entry::Raised { .. }
            | Entry::Acknowledged { .. }
            | Entry::Rejected { .. }
            | Entry::HandlerStarted { .. }
            | Entry::HandlerEnded { .. }
            | Entry::Committed { .. }
            | Entry::Killed { .. }
            | Entry::Authority { .. }
            | Entry::Administration(_)
            | Entry::Opened { .. }
            | Entry::Measured { .. }
            | Entry::Hashed { .. } => {}
        }
    }
    let lost = acknowledged.difference(&handled);
    lost.map(|id| format!("{event} {id} was acknowledged and never handled by {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{acknowledged, ended, raised, started};

    #[test]
    fn a_lost_event_is_found() {
        let expectations = Expectations {
            complete: vec![("e".to_owned(), "ann".to_owned())],
            ..Expectations::default()
        };
        let mut entries = vec![raised(0), acknowledged(0, 7), raised(1), acknowledged(1, 8)];
        entries.extend([started(0, 7, 0), ended(0, 7)]);
        assert_eq!(check(&entries, &expectations).len(), 1);
        entries.push(started(0, 8, 1));
        assert!(check(&entries, &expectations).is_empty());
    }
}
