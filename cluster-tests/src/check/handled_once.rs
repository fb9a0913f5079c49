//! A subscriber handles an instance once. Only a kill may repeat one: the last of its event, as
//! long as the broker had not confirmed it. A subscriber that is forgotten starts anew.

use std::collections::BTreeMap;

use crate::history::Entry;
use crate::oracle::Expectations;

#[derive(Default)]
struct Lane {
    /// How often each instance was handled successfully or may have been.
    handled: BTreeMap<u64, u32>,
    /// The last instance, and whether a kill hit the subscriber since.
    last: Option<(u64, bool)>,
}

/// Instances that a handler saw again without a reason.
pub fn check(entries: &[Entry], expectations: &Expectations) -> Vec<String> {
    let mut lanes: BTreeMap<(&str, &str, u64, u32), Lane> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        match entry {
            Entry::HandlerStarted { by, handled } => {
                let key = (&*by.name, &*handled.event, handled.incarnation, handled.generation);
                let lane = lanes.entry(key).or_default();
                let id = handled.instance_id;
                let excused = lane.last == Some((id, true));
                let times = lane.handled.entry(id).or_default();
                if *times > 0 && !excused {
                    violations.push(format!("{} {id} came again to {}", handled.event, by.name));
                }
                *times += 1;
                lane.last = Some((id, false));
            }
            Entry::HandlerEnded { by, event, instance_id, success } => {
                for (key, lane) in &mut lanes {
                    if (key.0, key.1) == (&*by.name, &**event) && !success {
                        lane.handled.remove(instance_id);
                    }
                }
            }
            Entry::Killed { by } if expectations.forgetful.contains(&by.name) => {
                lanes.retain(|key, _| key.0 != by.name);
            }
            Entry::Killed { by } => {
                for (key, lane) in &mut lanes {
                    if key.0 == by.name {
                        lane.last = lane.last.map(|(id, _)| (id, true));
                    }
                }
            }
            Entry::Committed { by, event, instance_id } => {
                // The broker never sends again what it has confirmed: a kill excuses nothing.
                for (key, lane) in &mut lanes {
                    let this = (key.0, key.1) == (&*by.name, &**event);
                    if this && lane.last.is_some_and(|(id, _)| id <= *instance_id) {
                        lane.last = None;
                    }
                }
            }
            Entry::Raised { .. }
            | Entry::Acknowledged { .. }
            | Entry::Rejected { .. }
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
    fn a_repeat_without_a_kill_is_found() {
        let entries = [started(0, 7, 0), ended(0, 7), started(0, 7, 0)];
        assert_eq!(check(&entries, &Expectations::default()).len(), 1);
    }

    #[test]
    fn a_kill_may_repeat_the_last_one_only_and_once() {
        let mut entries = vec![started(0, 6, 0), ended(0, 6), started(0, 7, 1), killed(0)];
        entries.push(started(1, 7, 1));
        assert!(check(&entries, &Expectations::default()).is_empty());
        entries.push(started(1, 7, 1));
        assert_eq!(check(&entries, &Expectations::default()).len(), 1);
        let earlier = [started(0, 6, 0), started(0, 7, 1), killed(0), started(1, 6, 0)];
        assert_eq!(check(&earlier, &Expectations::default()).len(), 1);
    }

    #[test]
    fn a_kill_excuses_nothing_that_was_confirmed() {
        let entries = [started(0, 7, 1), ended(0, 7), committed(0, 7), killed(0), started(1, 7, 1)];
        assert_eq!(check(&entries, &Expectations::default()).len(), 1);
    }
}
