//! Where a client stands, as an opaque text: the `id` of a stream's events and the `after` of a
//! guest's next question.
//!
//! Version byte, then postcard, in base64url. It names the positions of *every* subscription of the
//! stream, because a browser gives back only the last one it read. Whatever cannot be read is
//! `None`, never an error: the stream then says so.

use ackord_machine::site::limits::EVENTS_MAX;
use ackord_machine::site::{EventKey, Generation, Incarnation, InstanceId, Position};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
/// Subscriptions in one text.
const ITEMS_MAX: usize = EVENTS_MAX;
/// Longest text worth reading: each item is at most three numbers of ten bytes.
const TEXT_CHARS_MAX: usize = (ITEMS_MAX + 1) * 40;

/// The positions of a stream's subscriptions, all in one life of the site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    pub incarnation: Incarnation,
    items: Vec<(EventKey, Generation, InstanceId)>,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    incarnation: u64,
    items: Vec<(u32, u32, u64)>,
}

impl Positions {
    pub fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, items: Vec::new() }
    }

    /// Reads a text.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > TEXT_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (encoded, rest): (Encoded, _) = postcard::take_from_bytes(rest).ok()?;
        if !rest.is_empty() || encoded.items.len() > ITEMS_MAX {
            return None;
        }
        let mut positions = Self::new(Incarnation(encoded.incarnation));
        for (event, generation, instance) in encoded.items {
            positions.set(EventKey(event), Generation(generation), InstanceId(instance));
        }
        Some(positions)
    }

    /// The text.
    pub fn text(&self) -> String {
        let items = self.items.iter().map(|(event, generation, id)| (event.0, generation.0, id.0));
        let encoded = Encoded { incarnation: self.incarnation.0, items: items.collect() };
        let start = vec![VERSION];
        // Numbers into a Vec: neither can fail.
        let bytes = postcard::to_extend(&encoded, start).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Where a subscription stands.
    pub fn of(&self, event: EventKey) -> Option<Position> {
        let (_, generation, instance) = self.items.iter().find(|(known, _, _)| *known == event)?;
        let (incarnation, generation, instance) = (self.incarnation, *generation, *instance);
        Some(Position { incarnation, generation, instance })
    }

    /// A subscription stands here now.
    pub fn set(&mut self, event: EventKey, generation: Generation, instance: InstanceId) {
        match self.items.iter_mut().find(|(known, _, _)| *known == event) {
            Some(item) => *item = (event, generation, instance),
            None => self.items.push((event, generation, instance)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions() -> Positions {
        let mut positions = Positions::new(Incarnation((1 << 53) - 1));
        positions.set(EventKey(2), Generation(0), InstanceId(1208));
        positions.set(EventKey(9), Generation(3), InstanceId((1 << 53) - 1));
        positions.set(EventKey(2), Generation(0), InstanceId(1209));
        positions
    }

    #[test]
    fn what_is_written_is_read() {
        let text = positions().text();
        assert_eq!(Positions::read(&text), Some(positions()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        let mut largest = Positions::new(Incarnation(u64::MAX));
        for event in 0..ITEMS_MAX as u32 {
            largest.set(EventKey(u32::MAX - event), Generation(u32::MAX), InstanceId(u64::MAX));
        }
        assert_eq!(Positions::read(&largest.text()), Some(largest));
    }

    #[test]
    fn what_is_anything_else_is_not() {
        let text = positions().text();
        for end in 0..text.len() {
            assert_eq!(Positions::read(&text[..end]), None, "{end}");
        }
        for wrong in ["", "17", "AQ", "gibberish!", &format!("{text}AA"), &"A".repeat(100_000)] {
            assert_eq!(Positions::read(wrong), None, "{wrong}");
        }
    }
}
