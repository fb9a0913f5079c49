//! The WebSocket endpoints: admission before the upgrade, then one reader and one writer per
//! socket.
//!
//! `upgrade ─▶ admit ─▶ 101 ─▶ Frames (owned by the session) ─▶ session ─▶ outbox ─▶ Writer`
//!
//! An idle socket holds no buffer: bytes are read into a buffer of the thread and copied only
//! when they are part of a message. The writer has a task, small because the HTTP connection's own
//! task ends with the upgrade; the reader is polled by the session. They share a [`link::Link`].

pub mod admit;
mod frames;
pub mod framing;
mod link;
mod upgrade;
mod writer;

pub use upgrade::upgrade;
