//! Commit order is raise order: the ids that a service's calls got increase with the calls.

use std::collections::BTreeMap;

use crate::history::{Call, Entry};
use crate::oracle::Expectations;

/// Calls of an ordered service whose id is not above that of an earlier call.
pub fn check(entries: &[Entry], expectations: &Expectations) -> Vec<String> {
    let mut service_of: BTreeMap<Call, &str> = BTreeMap::new();
    let mut id_of: BTreeMap<Call, u64> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Raised { call, service, .. } => {
                service_of.insert(*call, service);
            }
            Entry::Acknowledged { call, instance_id: Some(id), ignored: false, .. } => {
                id_of.insert(*call, *id);
            }
            Entry::Acknowledged { .. }
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
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for (call, id) in id_of {
        let Some(service) = service_of.get(&call) else { continue };
        if !expectations.ordered_services.contains(*service) {
            continue;
        }
        let before = highest.entry(service).or_default();
        if id <= *before {
            violations.push(format!("{service}: {call:?} got {id} after {before}"));
        }
        *before = (*before).max(id);
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{acknowledged, raised};

    #[test]
    fn ids_against_the_raise_order_are_found() {
        let ordered_services = ["s".to_owned()].into();
        let expectations = Expectations { ordered_services, ..Expectations::default() };
        let fine = [raised(0), raised(1), acknowledged(1, 8), acknowledged(0, 7)];
        assert!(check(&fine, &expectations).is_empty());
        let swapped = [raised(0), raised(1), acknowledged(0, 8), acknowledged(1, 7)];
        assert_eq!(check(&swapped, &expectations).len(), 1);
    }
}
