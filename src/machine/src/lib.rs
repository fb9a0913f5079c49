//! Every decision of the broker, as data in and data out.
//!
//! - [`site`]: what the broker nodes agree on. A replicated [`site::Command`] is judged by
//!   [`site::decide`] against a [`site::State`]; the verdict's writes are absorbed by
//!   [`site::State::absorb`]. The same log gives the same state on every node, bit for bit.
//! - [`session`]: what one connection does: delivery lanes of a client, the publish window of a
//!   service.
//!
//! Deliberately absent: clocks, randomness, I/O, threads, async, hash maps whose order leaks.
//! Time, randomness and identity arrive as arguments.

pub mod session;
pub mod site;
