//! A handler of one subscription never runs twice at once.

use std::collections::BTreeMap;

use crate::history::Entry;
use crate::oracle::Expectations;

/// Handler calls that began while another of the same subscription ran.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let mut running: BTreeMap<(&str, u32, &str), u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        match entry {
            Entry::HandlerStarted { by, handled } => {
                let key = (&*by.name, by.life, &*handled.event);
                if let Some(other) = running.insert(key, handled.instance_id) {
                    let (event, id) = (&handled.event, handled.instance_id);
                    violations.push(format!("{event} {id} began at {} during {other}", by.name));
                }
            }
            Entry::HandlerEnded { by, event, .. } => {
                running.remove(&(&*by.name, by.life, &**event));
            }
            Entry::Killed { by } => running.retain(|key, _| key.0 != by.name),
            Entry::Raised { .. }
            | Entry::Acknowledged { .. }
            | Entry::Rejected { .. }
            | Entry::Committed { .. }
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
    use crate::check::forge::{ended, killed, started};

    #[test]
    fn an_overlap_is_found_and_a_new_life_is_none() {
        let fine = [started(0, 7, 0), ended(0, 7), started(0, 8, 1), killed(0), started(1, 8, 1)];
        assert!(check(&fine, &Expectations::default()).is_empty());
        let overlap = [started(0, 7, 0), started(0, 8, 1)];
        assert_eq!(check(&overlap, &Expectations::default()).len(), 1);
    }
}
