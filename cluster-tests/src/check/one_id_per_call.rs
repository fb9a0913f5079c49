//! A call is stored as one instance, and an instance is one call.

use std::collections::BTreeMap;

use crate::history::{Call, Entry};
use crate::oracle::Expectations;

/// Calls acknowledged with two ids, and ids given to two calls.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let mut id_of: BTreeMap<Call, u64> = BTreeMap::new();
    let mut call_of: BTreeMap<u64, Call> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        let Entry::Acknowledged { call, instance_id: Some(id), ignored: false, .. } = entry else {
            continue;
        };
        if let Some(other) = id_of.insert(*call, *id).filter(|other| other != id) {
            violations.push(format!("{call:?} got {other} and {id}"));
        }
        if let Some(other) = call_of.insert(*id, *call).filter(|other| other != call) {
            violations.push(format!("{id} was given to {other:?} and {call:?}"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::acknowledged;

    #[test]
    fn two_ids_and_two_calls_are_found() {
        assert!(
            check(&[acknowledged(0, 7), acknowledged(1, 8)], &Expectations::default()).is_empty()
        );
        let two_ids = [acknowledged(0, 7), acknowledged(0, 8)];
        assert_eq!(check(&two_ids, &Expectations::default()).len(), 1);
        let two_calls = [acknowledged(0, 7), acknowledged(1, 7)];
        assert_eq!(check(&two_calls, &Expectations::default()).len(), 1);
    }
}
