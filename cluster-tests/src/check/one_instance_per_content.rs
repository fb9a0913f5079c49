//! Where every raise has content of its own, each content is one instance: nothing that was sent
//! again, by whatever life of whatever process, was stored twice.

use std::collections::BTreeMap;

use crate::history::Entry;
use crate::oracle::Expectations;

/// Contents of the expectations' `unique_events` that were handled under two ids.
pub fn check(entries: &[Entry], expectations: &Expectations) -> Vec<String> {
    let mut id_of: BTreeMap<(&str, Option<&str>), u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        let Entry::HandlerStarted { handled, .. } = entry else { continue };
        if !expectations.unique_events.contains(&handled.event) {
            continue;
        }
        let (content, id) = ((&*handled.event, handled.args.as_deref()), handled.instance_id);
        if let Some(other) = id_of.insert(content, id).filter(|other| *other != id) {
            violations.push(format!("{content:?} is both {other} and {id}"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{killed, started};

    #[test]
    fn one_content_under_two_ids_is_found() {
        let unique_events = ["e".to_owned()].into();
        let expectations = Expectations { unique_events, ..Expectations::default() };
        let fine = [started(0, 7, 1), killed(0), started(1, 7, 1), started(1, 8, 2)];
        assert!(check(&fine, &expectations).is_empty());
        let twice = [started(0, 7, 1), started(0, 8, 1)];
        assert_eq!(check(&twice, &expectations).len(), 1);
    }
}
