//! Once a newer session of an account was opened, an older one is over: nothing that is raised
//! afterwards reaches it, nothing that it raises afterwards is stored, and nothing that it handles
//! afterwards moves a cursor.
//!
//! A session is told by its life. Who handles in two lives at once is one account on two connections;
//! a service names its life in what it raises as.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Call, Entry, Subscriber};
use crate::oracle::Expectations;

/// The service as which an account raises in a life.
pub fn service_of(by: &Subscriber) -> String {
    format!("{}#{}", by.name, by.life)
}

/// The account and the life of a service that names both.
fn session_of(service: &str) -> Option<Subscriber> {
    let (name, life) = service.rsplit_once('#')?;
    Some(Subscriber { name: name.to_owned(), life: life.parse().ok()? })
}

/// Which sessions were opened so far.
#[derive(Default)]
struct Opened<'a> {
    /// How often those of each life were.
    times: BTreeMap<&'a Subscriber, u32>,
    /// The newest life of each account, and when its first session was opened.
    newest: BTreeMap<&'a str, (u32, usize)>,
}

impl<'a> Opened<'a> {
    fn open(&mut self, by: &'a Subscriber, at: usize) {
        *self.times.entry(by).or_default() += 1;
        let known = self.newest.entry(&by.name).or_insert((by.life, at));
        if by.life > known.0 {
            *known = (by.life, at);
        }
    }

    /// Since when a life is over. One that was opened again may be the newest after all.
    fn over_since(&self, by: &Subscriber) -> Option<usize> {
        let (life, at) = *self.newest.get(&*by.name)?;
        (by.life < life && self.times.get(by) == Some(&1)).then_some(at)
    }
}

/// What an older session did although a newer one was open.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let mut raised: BTreeMap<Call, usize> = BTreeMap::new();
    let mut raised_of: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Entry::Raised { call, .. } = entry {
            raised.insert(*call, at);
        }
        // It may be known later than its instance is delivered.
        if let Entry::Acknowledged { call, instance_id: Some(id), .. } = entry {
            raised_of.extend(raised.get(call).map(|at| (*id, *at)));
        }
    }
    let mut opened = Opened::default();
    let mut late_calls: BTreeMap<Call, Subscriber> = BTreeMap::new();
    let mut late: BTreeSet<(&Subscriber, &str, u64)> = BTreeSet::new();
    let mut violations = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        match entry {
            Entry::Opened { by } => opened.open(by, at),
            Entry::Raised { call, service, .. } => {
                let by = session_of(service).filter(|by| opened.over_since(by).is_some());
                late_calls.extend(by.map(|by| (*call, by)));
            }
            Entry::Acknowledged { call, .. } => {
                let by = late_calls.get(call).filter(|by| opened.over_since(by).is_some());
                violations.extend(by.map(|by| format!("{call:?} of {by:?} was stored too late")));
            }
            Entry::HandlerStarted { by, handled } => {
                let id = handled.instance_id;
                let begun = raised_of.get(&id);
                if opened.over_since(by).is_some_and(|over| begun.is_some_and(|at| *at > over)) {
                    violations.push(format!("{id}, raised too late, came to {by:?}"));
                }
            }
            Entry::HandlerEnded { by, event, instance_id, success: true } => {
                if opened.over_since(by).is_some() {
                    late.insert((by, event, *instance_id));
                }
            }
            Entry::Committed { by, event, instance_id } => {
                let handled_late = late.contains(&(by, &**event, *instance_id));
                if handled_late && opened.over_since(by).is_some() {
                    violations
                        .push(format!("{event} {instance_id} was committed to {by:?} too late"));
                }
            }
            Entry::HandlerEnded { .. }
            | Entry::Rejected { .. }
            | Entry::Killed { .. }
            | Entry::Authority { .. }
            | Entry::Administration(_)
            | Entry::Measured { .. }
            | Entry::Hashed { .. } => {}
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{acknowledged, ann, committed, ended, raised, started};

    fn opened(life: u32) -> Entry {
        Entry::Opened { by: ann(life) }
    }

    fn wrong(entries: &[Entry]) -> usize {
        check(entries, &Expectations::default()).len()
    }

    #[test]
    fn what_an_older_session_gets_or_commits_too_late_is_found() {
        let mut entries = vec![opened(0), raised(1), acknowledged(1, 7), started(0, 7, 1)];
        entries.extend([opened(1), started(1, 7, 1), ended(1, 7), committed(1, 7)]);
        assert_eq!(wrong(&entries), 0);
        entries.extend([ended(0, 7), committed(0, 7)]);
        assert_eq!(wrong(&entries), 1, "a cursor");
        entries.extend([raised(10), started(0, 8, 10), acknowledged(10, 8)]);
        assert_eq!(wrong(&entries), 2, "a delivery");
        let at = entries.len() - 3;
        entries.insert(at, opened(0));
        assert_eq!(wrong(&entries), 1, "it was opened again");
    }

    #[test]
    fn what_an_older_session_stores_too_late_is_found() {
        let by = |call, life| Entry::Raised {
            call: Call(call),
            service: service_of(&ann(life)),
            event: "e".to_owned(),
            args: None,
        };
        let mut entries = vec![opened(0), by(1, 0), opened(1), acknowledged(1, 7)];
        assert_eq!(wrong(&entries), 0, "it may have been stored before");
        entries.extend([by(4, 1), acknowledged(4, 8), by(6, 0)]);
        assert_eq!(wrong(&entries), 0, "it may be raised");
        entries.push(acknowledged(6, 9));
        assert_eq!(wrong(&entries), 1, "and not stored");
    }
}
