//! The Rust SDK of Ackord: [`ServiceEndpoint`] raises events, [`ClientEndpoint`] handles them.
//!
//! Layers, from the inside out: pure machines ([`publish`], [`subscribe`], [`reconnect`]) decide
//! everything and touch neither clock, network nor disk; stores ([`spl`], [`cpl`]) make decisions
//! durable; the two endpoints put both on a tokio task and a WebSocket.
//!
//! Deliberately absent: any type of the broker beyond its wire format, and any thread or task per
//! event on the way from `raise` to the socket.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cpl;
pub mod entropy;
#[doc(hidden)]
pub mod fuzz;
pub mod publish;
pub mod reconnect;
pub mod spl;
pub mod subscribe;

mod alarm;
mod disk;
mod error;
mod event;
#[cfg(test)]
mod faults;
pub mod level;
mod link;
mod log;
mod notice;
mod options;
mod pushes;

mod client;
mod service;

pub use ackord_wire::frame::{Mode, Position, Start};
pub use ackord_wire::push;
pub use ackord_wire::structure::{Category, Structure};
pub use ackord_wire::{Code, Codec, Payload, TraceContext};

pub use client::{ClientBuilder, ClientEndpoint};
pub use cpl::ClientPersistence;
pub use error::{Error, RaiseError};
pub use event::{Delivery, Event, Flow, HandlerError, Outcome, Subscription};
pub use level::{ClientLevel, ServiceLevel};
pub use notice::{ClientNotice, RenewReason, ResetReason, ServiceNotice};
pub use pushes::{PushError, Pushes};
pub use service::{Raised, ServiceBuilder, ServiceEndpoint};
pub use spl::ServicePersistence;
