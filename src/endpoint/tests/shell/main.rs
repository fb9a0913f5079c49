//! The endpoints over real sockets, against a broker that a test directs.
#![allow(clippy::unwrap_used)]

mod broker;
mod client;
mod modes;
mod service;
mod told;
