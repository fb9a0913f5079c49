//! Scenarios of the publish machine: no clock, no network, no disk.
#![allow(clippy::unwrap_used)]

mod broker;
mod random;
mod scenarios;
mod store;
mod world;
