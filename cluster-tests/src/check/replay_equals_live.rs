//! After one entry all replicas of a group have one state, whether they were there when it came or have
//! read it again from their disks.

use std::collections::BTreeMap;

use crate::history::Entry;
use crate::oracle::Expectations;

/// Replicas whose state is another one than that of the first one after the same entry.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let mut first: BTreeMap<(usize, u64), (&str, &str)> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        let Entry::Hashed { replica, group, index, hash } = entry else { continue };
        let (before, known) = first.entry((*group, *index)).or_insert((replica, hash));
        if hash != known {
            let which = format!("group {group} after entry {index}");
            violations.push(format!("{which} is {known} at {before} and {hash} at {replica}"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_comes_back_with_another_state_is_found() {
        let hashed = |replica: &str, index, hash: &str| {
            let (replica, hash) = (replica.to_owned(), hash.to_owned());
            Entry::Hashed { replica, group: 1, index, hash }
        };
        let mut entries = vec![hashed("node 1", 7, "a"), hashed("node 2", 7, "a")];
        entries.extend([hashed("node 1, replayed", 7, "a"), hashed("node 2, replayed", 8, "b")]);
        assert!(check(&entries, &Expectations::default()).is_empty());
        entries.push(hashed("node 3, replayed", 7, "b"));
        assert_eq!(check(&entries, &Expectations::default()).len(), 1);
    }
}
