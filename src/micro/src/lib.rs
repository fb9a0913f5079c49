//! The hot paths of the broker as small pieces of work that can be measured one by one.
//!
//! `world ─▶ HotPath: ready (not measured), round, round, … ─▶ time | instructions ─▶ baseline`
//!
//! - [`paths`]: every path that computes only. The program counts their
//!   instructions and compares them with `instructions.toml`; `benches/time.rs` takes their time,
//!   and that of the log's disk.
//! - [`callgrind`]: counts what one path executes.
//! - [`baseline`]: what was counted before, and what has become dearer since.
//!
//! Invariants: a round does the same work however many went before it; nothing that is measured
//! depends on a clock, on randomness or on another thread.
//!
//! Deliberately absent: actors, sockets and Raft; what they cost is in the figures of `ackord bench`.

pub mod baseline;
pub mod callgrind;
mod deciding;
mod delivering;
mod frames;
#[cfg(test)]
mod tests;
mod world;

/// A piece of work that is measured.
pub trait HotPath {
    /// Prepares the next rounds; how many there are until it must be called again. Not measured.
    fn ready(&mut self) -> usize;
    /// Does the work once.
    fn round(&mut self);
}

/// A path by its name.
pub struct NamedPath {
    /// What the reports and the baseline call it.
    pub name: &'static str,
    /// Prepares it.
    pub prepare: fn() -> Box<dyn HotPath>,
}

/// Every path, in the order of the reports.
pub fn paths() -> Vec<NamedPath> {
    let path = |name, prepare| NamedPath { name, prepare };
    vec![
        path("decode_raise_json", frames::decode_raise_json),
        path("decode_raise_cbor", frames::decode_raise_cbor),
        path("encode_accepted_json", frames::encode_accepted_json),
        path("encode_accepted_cbor", frames::encode_accepted_cbor),
        path("encode_event_json", frames::encode_event_json),
        path("encode_event_cbor", frames::encode_event_cbor),
        path("decode_ack_json", frames::decode_ack_json),
        path("decode_ack_cbor", frames::decode_ack_cbor),
        path("encode_batch_64", deciding::encode_batch_64),
        path("decode_batch_64", deciding::decode_batch_64),
        path("apply_raise", deciding::apply_raise),
        path("apply_advance", deciding::apply_advance),
        path("lane_step", delivering::lane_step),
        path("fan_out_1000", delivering::fan_out_1000),
    ]
}

/// Rounds between two calls of [`HotPath::ready`], where a path does not have its own number.
const ROUNDS: usize = 256;

/// A path whose rounds need no preparation.
struct Repeated<F>(F);

impl<F: FnMut()> HotPath for Repeated<F> {
    fn ready(&mut self) -> usize {
        ROUNDS
    }

    fn round(&mut self) {
        (self.0)();
    }
}
