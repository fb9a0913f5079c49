//! Events over plain HTTP: a stream of Server-Sent Events, or one event for each request (long
//! poll), and their acknowledgements.
//!
//! `GET …/events ─▶ who? ─▶ open a session ─▶ subscribed ─▶ head ─▶ Events (body) ◀─ outbox ◀─ session`
//! `GET …/next ─▶ who? ─▶ Broker::next ─▶ 200 one event | 204`
//! `POST …/ack ─▶ token ─▶ Broker::acknowledge ─▶ committed`
//!
//! A stream is the session of a client like one over a WebSocket; the front speaks for a peer
//! that cannot: it says hello, subscribes, answers pings by what left for the peer, and for a guest
//! acknowledges what was written. A stateful client acknowledges by request, at any node.
//!
//! Invariants:
//! - A guest's events are acknowledged to its session only once they have left for the peer; at
//!   most [`UNSENT_MAX`] wait for that.
//! - What a resumed stream says of what was missed is known, or left out.
//! - An ack token says nothing that its bearer could change, and ends with its session and with the
//!   token that the session was opened with.

mod ack;
mod ask;
mod body;
mod frame;
mod next;
mod open;
pub mod position;
pub mod proof;
mod resume;

pub use ack::acknowledge;
pub use next::next;
pub use open::stream;

/// Events of a stream that may wait to be taken by the peer's socket.
pub const UNSENT_MAX: usize = 16;
