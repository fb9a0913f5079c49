//! A subscription's handler sees strictly increasing ids within one life of its process, and goes
//! on in the next life at the last one or above it.

use std::collections::BTreeMap;

use crate::history::Entry;
use crate::oracle::Expectations;

/// Handler calls whose id is not above the one before.
pub fn check(entries: &[Entry], expectations: &Expectations) -> Vec<String> {
    let mut last: BTreeMap<(&str, &str, u64, u32), (u64, u32)> = BTreeMap::new();
    let mut failed: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        match entry {
            Entry::HandlerStarted { by, handled } => {
                let key = (&*by.name, &*handled.event, handled.incarnation, handled.generation);
                let id = handled.instance_id;
                let again = failed.remove(&(key.0, key.1)) == Some(id);
                if let Some((before, life)) = last.insert(key, (id, by.life)) {
                    let repeats = id == before && (again || life != by.life);
                    if id <= before && !repeats {
                        let (event, name) = (&handled.event, &by.name);
                        violations.push(format!("{event} {id} came to {name} after {before}"));
                    }
                }
            }
            Entry::HandlerEnded { by, event, instance_id, success: false } => {
                failed.insert((&by.name, event), *instance_id);
            }
            Entry::Killed { by } if expectations.forgetful.contains(&by.name) => {
                last.retain(|key, _| key.0 != by.name);
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
    use crate::check::forge::{ended, killed, started};

    #[test]
    fn a_step_back_is_found_and_a_repeat_after_a_kill_is_none() {
        let fine = [started(0, 7, 0), ended(0, 7), started(0, 8, 1), killed(0), started(1, 8, 1)];
        assert!(check(&fine, &Expectations::default()).is_empty());
        let back = [started(0, 8, 1), started(0, 7, 0)];
        assert_eq!(check(&back, &Expectations::default()).len(), 1);
        let back_in_a_new_life = [started(0, 8, 1), killed(0), started(1, 7, 0)];
        assert_eq!(check(&back_in_a_new_life, &Expectations::default()).len(), 1);
    }
}
