//! Once the broker has confirmed a cursor, nothing up to it reaches that subscriber's handler.

use std::collections::BTreeMap;

use crate::history::Entry;
use crate::oracle::Expectations;

/// Handler calls with what had been confirmed before.
pub fn check(entries: &[Entry], expectations: &Expectations) -> Vec<String> {
    let mut confirmed: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        match entry {
            Entry::Committed { by, event, instance_id } => {
                let cursor = confirmed.entry((&by.name, event)).or_default();
                *cursor = (*cursor).max(*instance_id);
            }
            Entry::HandlerStarted { by, handled } => {
                let cursor = confirmed.get(&(by.name.as_str(), handled.event.as_str()));
                // A higher generation is an administrator's wish to see instances again.
                if handled.generation == 0 && cursor.is_some_and(|at| handled.instance_id <= *at) {
                    let id = handled.instance_id;
                    let (event, name) = (&handled.event, &by.name);
                    violations.push(format!("{event} {id} came to {name} after it was confirmed"));
                }
            }
            // It was confirmed to nobody but itself.
            Entry::Killed { by } if expectations.forgetful.contains(&by.name) => {
                confirmed.retain(|(name, _), _| *name != by.name);
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
    use crate::check::forge::{committed, ended, killed, started};

    #[test]
    fn a_confirmed_instance_that_comes_again_is_found() {
        let mut entries = vec![started(0, 7, 0), ended(0, 7), committed(0, 7), killed(0)];
        entries.push(started(1, 8, 1));
        assert!(check(&entries, &Expectations::default()).is_empty());
        entries.push(started(1, 7, 0));
        assert_eq!(check(&entries, &Expectations::default()).len(), 1);
    }
}
