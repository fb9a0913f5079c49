//! The command-line contract of `docs/cli.md`, with the real binary: what scripts rely on.
//!
//! Every command that waits for something has a time limit of its own on its command line, so no
//! scenario can wait for ever.

// A scenario that cannot go on has nothing better to do than to panic.
#![allow(clippy::unwrap_used)]

mod administration;
mod answers;
mod brokers;
mod clusters;
mod configuration;
mod contexts;
mod demos;
mod every;
mod help;
mod keeping;
mod logs;
mod looking;
mod raising;
mod secured;
mod spans;
mod subscribing;
mod support;
mod tour;
