//! What endpoints see: frames of the WebSocket protocol in JSON and CBOR, problem types, limits.
//!
//! A frame is a map with one entry, its kind: `{"ack":{"subscription":3,"instance_id":17}}`.
//! Unknown fields are ignored, unknown kinds are a protocol violation: a peer speaks only what
//! the negotiated version has. Public codes are retired, never reused.
//!
//! Deliberately absent: I/O, and any type of the broker's insides.

pub mod cbor;
pub mod code;
pub mod codec;
pub mod frame;
pub mod govern;
pub mod letter;
pub mod limits;
pub mod payload;
pub mod problem;
pub mod push;
pub mod resource;
pub mod shared;
pub mod stream;
pub mod structure;
pub mod trace;

pub use code::{CloseCode, Code};
pub use codec::{Codec, DecodeError};
pub use frame::{ClientFrame, ClientMessage, ServiceFrame, ServiceMessage};
pub use payload::Payload;
pub use problem::Problem;
pub use shared::{EventBody, SharedEvent, SharedEvents};
pub use trace::TraceContext;
