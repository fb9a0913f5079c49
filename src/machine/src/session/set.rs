//! The canonical text of a set of subscriptions and its hash: client and broker compare these.
//!
//! The rule is part of the public protocol; endpoints implement it on their own. It knows what was
//! asked for, not what it came to.

use sha2::{Digest as _, Sha256};

use crate::site::{Digest, EventName, Start};

/// One line of the text: `event \t start \t ack_timeout_ms or - \t max_attempts or - \n`.
fn line(name: &EventName, start: Start, ack_timeout_ms: Option<u32>, max: Option<u32>) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let start = match start {
        Start::Earliest => "earliest",
        Start::Latest => "latest",
    };
    format!("{name}\t{start}\t{}\t{}\n", number(ack_timeout_ms), number(max))
}

/// The text of a set, its lines sorted bytewise.
pub fn set_text<'a>(
    items: impl Iterator<Item = (&'a EventName, Start, Option<u32>, Option<u32>)>,
) -> String {
    let mut lines: Vec<String> =
        items.map(|(name, start, timeout, max)| line(name, start, timeout, max)).collect();
    lines.sort_unstable();
    lines.concat()
}

/// The SHA-256 of [`set_text`].
pub fn set_hash<'a>(
    items: impl Iterator<Item = (&'a EventName, Start, Option<u32>, Option<u32>)>,
) -> Digest {
    Digest(Sha256::digest(set_text(items).as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_two_subscriptions_in_any_order_then_the_text_is_the_same() {
        let (a, b) = (EventName::from("a"), EventName::from("b"));
        let items = [(&b, Start::Latest, Some(5000), Some(3)), (&a, Start::Earliest, None, None)];
        let text = "a\tearliest\t-\t-\nb\tlatest\t5000\t3\n";
        assert_eq!(set_text(items.into_iter()), text);
        assert_eq!(set_text(items.into_iter().rev()), text);
    }
}
