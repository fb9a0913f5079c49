//! A private event reaches the client that it is for, and nobody else. What is private says so itself:
//! its arguments have a field `to`.

use serde_json::Value;

use crate::history::Entry;
use crate::oracle::Expectations;

/// Handler calls with what is for somebody else.
pub fn check(entries: &[Entry], _: &Expectations) -> Vec<String> {
    let wrong = |entry: &Entry| {
        let Entry::HandlerStarted { by, handled } = entry else { return None };
        let args: Value = serde_json::from_str(handled.args.as_deref()?).ok()?;
        let to = args["to"].as_str().filter(|to| *to != by.name)?;
        let (event, id) = (&handled.event, handled.instance_id);
        Some(format!("{event} {id} is for {to} and came to {}", by.name))
    };
    entries.iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::forge::started;

    #[test]
    fn a_letter_to_somebody_else_is_found() {
        let letter = |to: &str| {
            let mut entry = started(0, 7, 0);
            if let Entry::HandlerStarted { handled, .. } = &mut entry {
                handled.args = Some(format!(r#"{{"to":"{to}"}}"#));
            }
            entry
        };
        let entries = [started(0, 6, 0), letter("ann")];
        assert!(check(&entries, &Expectations::default()).is_empty());
        assert_eq!(check(&[letter("bob")], &Expectations::default()).len(), 1);
    }
}
