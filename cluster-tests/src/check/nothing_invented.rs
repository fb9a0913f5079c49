//! What is handled was raised: same event, same arguments, under the id that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::Entry;
use crate::oracle::Expectations;

type Content<'a> = (&'a str, Option<&'a str>);

/// Handled instances that nobody raised, or that carry another event's content.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let mut raised: BTreeMap<u64, Content> = BTreeMap::new();
    let mut contents: BTreeSet<Content> = BTreeSet::new();
    let mut content_of: BTreeMap<u64, Content> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Raised { call, event, args, .. } => {
                raised.insert(call.0, (event, args.as_deref()));
                contents.insert((event, args.as_deref()));
            }
            Entry::Acknowledged { call, instance_id: Some(id), ignored: false, .. } => {
                content_of.extend(raised.get(&call.0).map(|content| (*id, *content)));
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
    let mut violations = Vec::new();
    for entry in entries {
        let Entry::HandlerStarted { handled, .. } = entry else { continue };
        let (id, content) = (handled.instance_id, (&*handled.event, handled.args.as_deref()));
        match content_of.get(&id) {
            Some(known) if *known != content => {
                violations.push(format!("{id} is {content:?} but was raised as {known:?}"));
            }
            None if !contents.contains(&content) => {
                violations.push(format!("nobody raised {id}: {content:?}"));
            }
            Some(_) | None => {}
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{acknowledged, raised, started};

    #[test]
    fn foreign_and_swapped_content_is_found() {
        let fine = [raised(0), started(0, 7, 0), acknowledged(0, 7)];
        assert!(check(&fine, &Expectations::default()).is_empty());
        let foreign = [raised(0), started(0, 7, 1)];
        assert_eq!(check(&foreign, &Expectations::default()).len(), 1);
        let swapped = [raised(0), raised(1), acknowledged(0, 7), started(0, 7, 1)];
        assert_eq!(check(&swapped, &Expectations::default()).len(), 1);
    }
}
