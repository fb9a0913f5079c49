//! What the disk can do to a broker: forget what was not synced, fail, fill up, rot.
//!
//! The gate runs a few rounds of each; `ACKORD_TEST_ROUNDS=N` asks for N, and each test prints its
//! figures (`-- --nocapture`), which is where the tables of the documentation come from.

mod damage;
mod failing;
mod full;
mod golden;
mod load;
mod power_cut;

/// Rounds of a test: as asked for, or what the gate can afford.
fn rounds(gate: u64) -> u64 {
    std::env::var("ACKORD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(gate)
}
