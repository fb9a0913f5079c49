//! Every decoder of Ackord as a function of bytes: whatever they are, it may not panic, loop or
//! take memory beyond them, and what it understands must mean the same when it is written again.
//!
//! [`TARGETS`] is the table. The gate runs each over its corpus and over seeded mutations of it
//! (`tests/corpus.rs`); `cargo-fuzz/` has a binary for each, for as long as one likes. An input that
//! broke one stays in `corpus/<target>/` for ever.
//!
//! Decoders that are private to a crate are reached through its hidden module `fuzz`, which seals
//! checksums so that what is behind them is reached too.

pub mod commands;
pub mod frames;
pub mod mutate;
pub mod seeds;

/// A decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of its corpus and of its binary.
    pub name: &'static str,
    /// May not panic.
    pub run: fn(&[u8]),
}

/// Runs the target of this name.
///
/// # Panics
/// When there is none, or when the input breaks it.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(data);
}

macro_rules! targets {
    ($($name:ident => $run:path,)*) => {
        /// All of them, by name.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $run }),*];
    };
}

targets! {
    batch_lines => ackord_gateway::fuzz::batch_lines,
    cbor => frames::cbor,
    checkpoint_pieces => ackord_store::fuzz::checkpoint_pieces,
    cloudevents => ackord_gateway::fuzz::cloudevents,
    commands => commands::commands,
    cpl_file => ackord_endpoint::fuzz::cpl_file,
    envelope => ackord_replica::fuzz::envelope,
    frames_cbor => frames::frames_cbor,
    frames_json => frames::frames_json,
    greeting => ackord_replica::fuzz::greeting,
    high_water => ackord_store::fuzz::high_water,
    jwt => ackord_gateway::fuzz::jwt,
    log_batch => ackord_store::fuzz::log_batch,
    log_entry => ackord_replica::fuzz::log_entry,
    log_records => ackord_store::fuzz::log_records,
    request_head => ackord_gateway::fuzz::request_head,
    rows => commands::rows,
    snapshot_file => ackord_store::fuzz::snapshot_file,
    snapshot_record => ackord_replica::fuzz::snapshot_record,
    spl_file => ackord_endpoint::fuzz::spl_file,
    tokens => ackord_gateway::fuzz::tokens,
    websocket => ackord_gateway::fuzz::websocket,
}
