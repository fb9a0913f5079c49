//! What codes mean and what to do about them: of problems and refusals, of closed sessions, and how
//! commands end. Offline: nothing is asked.
//!
//! Invariant: every code of [`ackord_wire::code`], every close number and every exit status has an
//! explanation; a new code does not compile without one.

mod codes;

use ackord_wire::code::{CLOSE_CODES, CloseCode, Code};

use crate::exit::Exit;

/// A code and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// As it is written: a code, a close number, or an exit status.
    pub name: String,
    /// What kind it is.
    pub kind: Kind,
    /// What happened.
    pub means: &'static str,
    /// What to do now.
    pub act: &'static str,
}

/// Where a code is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In a problem document, a frame, or a line of `raise`.
    Code {
        /// The HTTP status that goes with it.
        status: u16,
        /// Whether the same request may succeed later without a change.
        retry: bool,
        /// The number by which a session is closed for it.
        close: Option<CloseCode>,
    },
    /// In a line of `raise` only: the command itself gave up.
    Line,
    /// The close number of a WebSocket.
    Close(CloseCode),
    /// The exit status of a command.
    Exit,
}

/// Every topic: codes, close numbers, exit statuses.
pub fn all() -> Vec<Topic> {
    let codes = Code::ALL.iter().map(|code| of_code(*code));
    let lines = codes::LINES.iter().map(|(name, means, act)| Topic {
        name: (*name).to_owned(),
        kind: Kind::Line,
        means,
        act,
    });
    let closes = CLOSE_CODES.iter().map(|close| of_close(*close));
    let exits = Exit::ALL.iter().map(|exit| of_exit(*exit));
    codes.chain(lines).chain(closes).chain(exits).collect()
}

/// What this name means: a code, a close number, an exit status, or an HTTP status with all the
/// codes that go with it. Empty for a name that means nothing.
pub fn find(name: &str) -> Vec<Topic> {
    let name = name.trim().to_ascii_lowercase();
    let mut found: Vec<Topic> = all().into_iter().filter(|topic| topic.name == name).collect();
    if found.is_empty() {
        let of_status = |topic: &Topic| matches!(topic.kind, Kind::Code { status, .. } if status.to_string() == name);
        found = all().into_iter().filter(of_status).collect();
    }
    found
}

/// Whether this is a code that can be explained.
pub fn is_known(code: &str) -> bool {
    let named = |known: &Code| known.as_str() == code;
    Code::ALL.iter().any(named) || codes::LINES.iter().any(|(name, ..)| *name == code)
}

/// The name that is nearest to one that means nothing, if one is near.
pub fn nearest(name: &str) -> Option<String> {
    let name = name.trim().to_ascii_lowercase();
    let near = all().into_iter().map(|topic| (distance(&name, &topic.name), topic.name));
    // What shares a third of its letters by chance is not near.
    let near = near.filter(|(distance, known)| distance * 3 <= known.len().max(3));
    near.min().map(|(_, known)| known)
}

fn of_code(code: Code) -> Topic {
    let (means, act) = codes::of(code);
    let close = CLOSE_CODES.iter().copied().find(|close| close.code == code);
    let kind = Kind::Code { status: code.status(), retry: code.retryable(), close };
    Topic { name: code.as_str().to_owned(), kind, means, act }
}

fn of_close(close: CloseCode) -> Topic {
    let (means, act) = codes::of(close.code);
    Topic { name: close.number.to_string(), kind: Kind::Close(close), means, act }
}

fn of_exit(exit: Exit) -> Topic {
    let (means, act) = codes::of_exit(exit);
    Topic { name: exit.number().to_string(), kind: Kind::Exit, means, act }
}

/// Insertions, removals and replacements that make one text the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_close_number_and_exit_status_is_explained_in_words_of_its_own() {
        let all = all();
        for code in Code::ALL {
            assert!(all.iter().any(|topic| topic.name == code.as_str()), "{code}");
        }
        for close in CLOSE_CODES {
            assert!(all.iter().any(|topic| topic.name == close.number.to_string()), "{close:?}");
        }
        for topic in &all {
            assert!(topic.means.len() > 10 && topic.act.len() > 5, "{topic:?}");
            assert!(topic.means.ends_with('.') && topic.act.ends_with('.'), "{topic:?}");
        }
        let names: BTreeSet<&str> = all.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "no name means two things");
        let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| codes::of(*code).0).collect();
        assert_eq!(texts.len(), Code::ALL.len(), "no two codes mean the same");
    }

    #[test]
    fn a_name_is_found_however_it_is_written_and_a_wrong_one_has_a_neighbour() {
        assert_eq!(find(" Busy ").len(), 1);
        assert_eq!(find("4503")[0].name, "4503");
        assert!(find("503").iter().any(|topic| topic.name == "unavailable"));
        assert_eq!(find("4")[0].kind, Kind::Exit);
        assert_eq!(find("nonsense"), []);
        assert_eq!(nearest("buzy").as_deref(), Some("busy"));
        assert_eq!(nearest("out-of-seqence").as_deref(), Some("out-of-sequence"));
        assert_eq!(nearest("xylophone"), None);
    }
}
