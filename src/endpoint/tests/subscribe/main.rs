//! Scenarios of the subscribe machine: no clock, no network, no disk.
#![allow(clippy::unwrap_used)]

mod broker;
mod random;
mod scenarios;
mod world;
