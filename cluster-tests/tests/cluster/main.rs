//! Several nodes under load and faults: killed, paused, cut off, restarted in order, with an empty
//! disk. Whatever happens, everything acknowledged is handled once and in order, and all replicas
//! are the same in the end.
//!
//! The gate runs a few rounds of each; `ACKORD_TEST_ROUNDS=N` asks for N. Each test prints how long
//! a publisher had to wait at most (`-- --nocapture`).

mod addresses;
mod batches;
mod clock;
mod compat;
mod empty;
mod hanging;
mod kills;
mod lagging;
mod links;
mod lone_power;
mod operators;
mod pods;
mod push;
mod replace;
mod restarts;
mod resume;
mod revocation;
mod scale;
mod secured;
mod sessions;
mod streams;
mod takeover;
mod why;

/// Rounds of a test: as asked for, or what the gate can afford.
fn rounds(gate: usize) -> usize {
    std::env::var("ACKORD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(gate)
}
