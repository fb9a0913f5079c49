//! Who serves each session: thin actors around the pure machines of `ackord_machine::session`.
//!
//! `frames ─▶ ClientAgent | ServiceAgent ─▶ session machine ─▶ propose ─▶ partition ─▶ outcome ─▶ frames`
//! `question ─▶ attach unless attached ─▶ look, wait for a wake, look ─▶ the next event` (long poll)
//! `partition ─▶ EffectWatch ─▶ SiteHub ─▶ only the interested agents`
//!
//! `Keeper ─▶ PushAgent ─▶ callback | datagram` (push subscriptions, where their partition is led)
//!
//! `publish, deliver ─▶ spans ─▶ collector` (where one is configured)
//!
//! `live, trace ─▶ asked ─▶ every node ─▶ every arbiter: what only they know`
//!
//! The front ([`Connection`]) sees bytes only: it hands over a stream of inbound frames and the
//! sending half of a bounded outbox. Everything of a session lives on the arbiter that opened it.
//!
//! Deliberately absent: serving HTTP or sockets, and every decision (those are in `ackord_machine`).

mod agent;
mod arbiter;
mod asked;
mod batch;
mod broker;
mod cache;
mod client;
mod confirm;
mod connection;
mod cork;
mod exactly_once;
mod hub;
mod keyed;
pub mod live;
pub mod metrics;
mod notice;
mod options;
mod outbox;
mod outcomes;
mod polling;
mod proposals;
mod push;
mod record;
mod seat;
mod service;
mod share;
mod shell;
mod spans;
mod tickets;
mod timers;
pub mod token;
pub mod trace;
pub mod translate;
mod usage;

pub use ackord_replica::{ClusterView, GroupView, NodeView};
pub use batch::{Fate, KeyedEvent};
pub use broker::{Broker, Refused};
pub use connection::{Connection, Inbound, Outbound, Receipt, Transport};
pub use options::BrokerOptions;
pub use outbox::{Outbox, Room, Said, outbox};
pub use polling::{Ask, Asker, Handed, Turn};
pub use push::{AllowList, Malformed, PushOptions, check_authorities};
pub use spans::{RequestSpan, SpanOptions, Spans};
pub use tickets::Redeemed;
pub use usage::Full;

pub use ackord_machine::site::Principal;
