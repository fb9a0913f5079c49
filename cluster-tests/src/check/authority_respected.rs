//! From the moment at which an administrator is told that a client may have an event no more, until it
//! is granted again, at most one instance reaches the handler: the one that was in flight.

use std::collections::BTreeMap;

use crate::history::Entry;
use crate::oracle::Expectations;

/// Handler calls of clients that were known not to be allowed.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    // How many instances have come since it was revoked.
    let mut revoked: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        match entry {
            Entry::Authority { client, event, granted: false, known: true } => {
                revoked.insert((client, event), 0);
            }
            Entry::Authority { client, event, granted: true, .. } => {
                revoked.remove(&(&**client, &**event));
            }
            Entry::HandlerStarted { by, handled } => {
                if let Some(came) = revoked.get_mut(&(&*by.name, &*handled.event)) {
                    *came += 1;
                    if *came > 1 {
                        let (event, id) = (&handled.event, handled.instance_id);
                        violations.push(format!("{event} {id} came to {} while revoked", by.name));
                    }
                }
            }
            Entry::Raised { .. }
            | Entry::Acknowledged { .. }
            | Entry::Rejected { .. }
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
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{ended, started};

    fn authority(granted: bool, known: bool) -> Entry {
        Entry::Authority { client: "ann".to_owned(), event: "e".to_owned(), granted, known }
    }

    #[test]
    fn what_was_in_flight_may_come_and_nothing_after_it_until_it_is_granted() {
        let mut entries = vec![authority(false, false), started(0, 6, 0), ended(0, 6)];
        entries.extend([authority(false, true), started(0, 7, 1), ended(0, 7)]);
        assert!(check(&entries, &Expectations::default()).is_empty());
        entries.push(started(0, 8, 2));
        assert_eq!(check(&entries, &Expectations::default()).len(), 1);
        entries.pop();
        entries.extend([authority(true, false), started(0, 8, 2)]);
        assert!(check(&entries, &Expectations::default()).is_empty());
    }
}
