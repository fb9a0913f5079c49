//! The cursor of a subscription that the broker confirms never goes back, and is never confirmed where
//! no handler has been.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::Entry;
use crate::oracle::Expectations;

/// Confirmations below an earlier one, or of what was never handled.
pub fn check(entries: &[Entry], expectations: &Expectations) -> Vec<String> {
    let mut cursors: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut handled_ids: BTreeSet<(&str, &str, u64)> = BTreeSet::new();
    let mut violations = Vec::new();
    for entry in entries {
        match entry {
            Entry::HandlerStarted { by, handled } => {
                handled_ids.insert((&by.name, &handled.event, handled.instance_id));
            }
            Entry::Committed { by, event, instance_id } => {
                let (name, at) = (&by.name, *instance_id);
                let cursor = cursors.entry((name, event)).or_default();
                if at < *cursor {
                    violations.push(format!("{event}: {name} went from {cursor} back to {at}"));
                }
                *cursor = at;
                if at > 0 && !handled_ids.contains(&(&**name, &**event, at)) {
                    violations.push(format!("{event} {at} is confirmed to {name}, unhandled"));
                }
            }
            Entry::Killed { by } if expectations.forgetful.contains(&by.name) => {
                cursors.retain(|(name, _), _| *name != by.name);
            }
            Entry::Raised { .. }
            | Entry::Acknowledged { .. }
            | Entry::Rejected { .. }
            | Entry::HandlerEnded { .. }
            | Entry::Killed { .. }
            | Entry::Authority { .. }
            | Entry::Administration(_)
            | Entry::Opened { .. }
            | Entry::Measured { .. }
            | Entry::Hashed { .. } => {}
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{committed, ended, started};

    #[test]
    fn a_cursor_that_goes_back_or_ahead_of_the_handler_is_found() {
        let mut entries = vec![started(0, 7, 0), ended(0, 7), committed(0, 7)];
        entries.extend([started(0, 8, 1), ended(0, 8), committed(0, 8)]);
        assert!(check(&entries, &Expectations::default()).is_empty());
        entries.push(committed(0, 7));
        assert_eq!(check(&entries, &Expectations::default()).len(), 1);
        entries.push(committed(0, 9));
        assert_eq!(check(&entries, &Expectations::default()).len(), 2);
    }
}
