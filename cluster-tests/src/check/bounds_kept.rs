//! Nothing is ever found beyond its bound: instances of a queue, memory of a node.

use crate::history::Entry;
use crate::oracle::Expectations;

/// What was found beyond its bound.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let beyond = entries.iter().filter_map(|entry| match entry {
        Entry::Measured { what, found, bound } if found > bound => {
            Some(format!("{what} is {found}, beyond {bound}"))
        }
        Entry::Raised { .. }
        | Entry::Acknowledged { .. }
        | Entry::Rejected { .. }
        | Entry::HandlerStarted { .. }
        | Entry::HandlerEnded { .. }
        | Entry::Committed { .. }
        | Entry::Killed { .. }
        | Entry::Authority { .. }
        | Entry::Administration(_)
        | Entry::Opened { .. }
        | Entry::Measured { .. }
        | Entry::Hashed { .. } => None,
    });
    beyond.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_its_bound_is_found() {
        let measured = |found| Entry::Measured { what: "a queue".to_owned(), found, bound: 30 };
        assert!(check(&[measured(0), measured(30)], &Expectations::default()).is_empty());
        assert_eq!(check(&[measured(31)], &Expectations::default()).len(), 1);
    }
}
