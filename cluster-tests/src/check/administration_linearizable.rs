//! Each thing that an administrator changes is as one register: whoever asks for it after a change
//! was acknowledged, or was seen, gets that change or a later one; what was refused is never shown, and
//! what is of unknown outcome may come about at any time, or never.

use std::collections::BTreeMap;

use crate::history::{Administration, Call, Entry};
use crate::oracle::Expectations;

/// What is told about a violation: what happened within so many entries of it.
const AROUND: At = 60;

/// A moment: the place of an entry.
type At = usize;

/// What something was changed into; `None` when it was removed.
type Value<'a> = Option<&'a str>;

struct Change<'a> {
    value: Value<'a>,
    begun: At,
    /// When it had come about at the latest, as far as that is known.
    done: Option<At>,
    refused: bool,
}

struct Shown<'a> {
    value: Value<'a>,
    begun: At,
    ended: At,
}

#[derive(Default)]
struct Register<'a> {
    changes: Vec<Change<'a>>,
    shown: Vec<Shown<'a>>,
}

impl Register<'_> {
    /// A change that only one can have made, and that was seen, has come about.
    fn learn(&mut self) {
        for shown in &self.shown {
            let same = |change: &&mut Change| change.value == shown.value && !change.refused;
            let mut same: Vec<&mut Change> = self.changes.iter_mut().filter(same).collect();
            if let ([one], true) = (same.as_mut_slice(), shown.value.is_some()) {
                one.done = Some(one.done.map_or(shown.ended, |done| done.min(shown.ended)));
            }
        }
    }

    /// What happened around this, in words.
    fn around(&self, shown: &Shown<'_>) -> String {
        let near = |begun: At, ended: Option<At>| {
            begun < shown.ended + AROUND && ended.is_none_or(|ended| ended + AROUND > shown.begun)
        };
        let mut told = Vec::new();
        for change in &self.changes {
            let same = change.value == shown.value;
            if same || change.begun + AROUND > shown.begun && near(change.begun, change.done) {
                let fate = match (change.refused, change.done) {
                    (true, _) => "refused".to_owned(),
                    (false, Some(done)) => format!("known at {done}"),
                    (false, None) => "of unknown outcome".to_owned(),
                };
                told.push((change.begun, format!("changed into {:?}, {fate}", change.value)));
            }
        }
        for other in &self.shown {
            if other.value == shown.value || near(other.begun, Some(other.ended)) {
                told.push((other.begun, format!("shown as {:?} at {}", other.value, other.ended)));
            }
        }
        told.sort();
        let told: Vec<_> = told.into_iter().map(|(at, what)| format!("{at}: {what}")).collect();
        told.join("; ")
    }

    /// Whether this may have been shown.
    fn allows(&self, shown: &Shown<'_>) -> bool {
        // What is certainly over: changes that began after another one had come about.
        let known = self.changes.iter().filter(|change| !change.refused);
        let newest = known.filter(|change| change.done.is_some_and(|done| done < shown.begun));
        let newest = newest.map(|change| change.begun).max();
        let current = |done: Option<At>| match (newest, done) {
            (Some(newest), Some(done)) => done >= newest,
            (None, _) | (Some(_), None) => true,
        };
        let first = shown.value.is_none() && newest.is_none();
        first
            || self.changes.iter().any(|change| {
                let made = change.value == shown.value && !change.refused;
                made && change.begun < shown.ended && current(change.done)
            })
    }
}

/// Answers that are older than what was known, or that nobody brought about.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let mut registers: BTreeMap<&str, Register> = BTreeMap::new();
    let mut acts: BTreeMap<Call, (&str, At)> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Entry::Administration(administration) = entry else { continue };
        match administration {
            Administration::Asked { act, what, value } => {
                let changes = &mut registers.entry(what).or_default().changes;
                acts.insert(*act, (what, changes.len()));
                let (value, done) = (value.as_deref(), None);
                changes.push(Change { value, begun: at, done, refused: false });
            }
            Administration::Answered { act, done } => {
                let Some((what, place)) = acts.get(act) else { continue };
                let change = registers.get_mut(what).and_then(|one| one.changes.get_mut(*place));
                if let Some(change) = change {
                    change.done = done.then_some(at);
                    change.refused = !done;
                }
            }
            Administration::Looked { act, what } => {
                acts.insert(*act, (what, at));
            }
            Administration::Shown { act, value } => {
                let Some((what, begun)) = acts.get(act) else { continue };
                let shown = Shown { value: value.as_deref(), begun: *begun, ended: at };
                registers.entry(what).or_default().shown.push(shown);
            }
        }
    }
    let mut violations = Vec::new();
    for (what, register) in &mut registers {
        register.learn();
        let wrong = register.shown.iter().filter(|shown| !register.allows(shown));
        violations.extend(wrong.map(|shown| {
            let (value, begun, ended) = (shown.value, shown.begun, shown.ended);
            let around = register.around(shown);
            format!(
                "{what} was {value:?} from {begun} to {ended}, which is older or nobody's; {around}"
            )
        }));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::{answered, asked, looked, shown};

    fn wrong(entries: &[Entry]) -> usize {
        check(entries, &Expectations::default()).len()
    }

    #[test]
    fn what_is_shown_is_what_was_acknowledged_last_or_later() {
        let mut entries = vec![asked(1, Some("a")), answered(1, true), looked(2)];
        entries.extend([asked(3, Some("b")), shown(2, Some("a")), answered(3, true)]);
        entries.extend([looked(4), shown(4, Some("b"))]);
        assert_eq!(wrong(&entries), 0);
        entries.extend([looked(5), shown(5, Some("a"))]);
        assert_eq!(wrong(&entries), 1, "older than what was acknowledged");
        entries.extend([looked(6), shown(6, None)]);
        assert_eq!(wrong(&entries), 2, "it was never removed");
    }

    #[test]
    fn what_was_refused_or_asked_by_nobody_is_never_shown() {
        let mut entries = vec![looked(1), shown(1, None), asked(2, Some("a")), answered(2, false)];
        assert_eq!(wrong(&entries), 0);
        entries.extend([looked(3), shown(3, Some("a"))]);
        assert_eq!(wrong(&entries), 1);
        entries.extend([looked(4), shown(4, Some("c"))]);
        assert_eq!(wrong(&entries), 2);
    }

    #[test]
    fn what_is_of_unknown_outcome_may_come_late_and_stays_once_it_was_seen() {
        let mut entries = vec![asked(1, Some("a")), answered(1, true), asked(2, Some("b"))];
        entries.extend([looked(3), shown(3, Some("a")), looked(4), shown(4, Some("b"))]);
        assert_eq!(wrong(&entries), 0);
        let mut back = entries.clone();
        back.extend([looked(5), shown(5, Some("a"))]);
        assert_eq!(wrong(&back), 1, "it was seen before");
        entries.extend([asked(6, None), answered(6, true), looked(7), shown(7, None)]);
        assert_eq!(wrong(&entries), 0);
        entries.extend([looked(8), shown(8, Some("b"))]);
        assert_eq!(wrong(&entries), 1, "what was seen before it was removed is gone");
    }
}
