//! The canonical text of a set of subscriptions and its hash: client and broker compare these.
//!
//! The rule is part of the public protocol; endpoints implement it on their own. It knows what was
//! asked for, not what it came to. A line of an ordered subscription ends with its attempts, as
//! before there were other modes.

use sha2::{Digest as _, Sha256};

use crate::site::{Digest, EventName, Mode, Quality, Start};

/// One subscription as the hash knows it: name, start, ack_timeout_ms, max_attempts, quality.
pub type SetItem<'a> = (&'a EventName, Start, Option<u32>, Option<u32>, Quality);

/// One line of the text: `event \t start \t ack_timeout_ms or - \t max_attempts or - \n`, where the
/// mode is not ordered, or what is given up is kept, with `\t mode \t window or - \t flush_ms or -` and,
/// where it is, `\t dead-letter` before its end.
fn line((name, start, ack_timeout_ms, max, quality): SetItem<'_>) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let start = match start {
        Start::Earliest => "earliest",
        Start::Latest => "latest",
    };
    let (window, flush_ms) = (number(quality.window), number(quality.flush_ms));
    let quality = match (quality.mode, quality.dead_letter) {
        (Mode::Ordered, false) => String::new(),
        (mode, false) => format!("\t{}\t{window}\t{flush_ms}", mode.as_str()),
        (mode, true) => format!("\t{}\t{window}\t{flush_ms}\tdead-letter", mode.as_str()),
    };
    format!("{name}\t{start}\t{}\t{}{quality}\n", number(ack_timeout_ms), number(max))
}

/// The text of a set, its lines sorted bytewise.
pub fn set_text<'a>(items: impl Iterator<Item = SetItem<'a>>) -> String {
    let mut lines: Vec<String> = items.map(line).collect();
    lines.sort_unstable();
    lines.concat()
}

/// The SHA-256 of [`set_text`].
pub fn set_hash<'a>(items: impl Iterator<Item = SetItem<'a>>) -> Digest {
    Digest(Sha256::digest(set_text(items).as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_two_subscriptions_in_any_order_then_the_text_is_the_same() {
        let (a, b) = (EventName::from("a"), EventName::from("b"));
        let twoway = Quality { mode: Mode::Twoway, window: Some(20), ..Quality::default() };
        let items = [
            (&b, Start::Latest, Some(5000), Some(3), twoway),
            (&a, Start::Earliest, None, None, Quality::default()),
        ];
        let text = "a\tearliest\t-\t-\nb\tlatest\t5000\t3\ttwoway\t20\t-\n";
        assert_eq!(set_text(items.into_iter()), text);
        assert_eq!(set_text(items.into_iter().rev()), text);
        let kept = Quality { dead_letter: true, ..Quality::default() };
        let text = "a\tearliest\t-\t3\tordered\t-\t-\tdead-letter\n";
        assert_eq!(set_text([(&a, Start::Earliest, None, Some(3), kept)].into_iter()), text);
    }
}
