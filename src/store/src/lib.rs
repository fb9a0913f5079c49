//! What the disk keeps: raft logs and votes, the high-water file, checkpoints, snapshots.
//!
//! Everything is opaque bytes. The crate knows groups, log positions and durability, and
//! deliberately neither consensus nor what an entry means.
//!
//! ```text
//! requests of all groups -> queue -> one writer thread -> one write + one sync -> answers
//! ```
//!
//! - [`Store`]: the shared log and the votes, behind one writer.
//! - [`Checkpoint`]: the applied state as rows; a cache that may always be rebuilt.
//! - [`Snapshots`]: whole states in plain files; what other nodes receive.
//! - [`Store::recover`]: says what a damaged directory has lost, and opens it when told to.
//!
//! A data directory:
//! ```text
//! LOCK            held by the process that has it open
//! format          version and salt; written last at creation
//! high-water      what was durable once, so that a lost end is noticed
//! log/            the engine's files, *.raftlog and *.rewrite
//! spare/          zeroed files for the next rotations
//! cut/            torn tails kept aside
//! checkpoint/     sled; checkpoint.seal after a graceful close
//! snapshots/G/    the snapshots of group G
//! ```

mod caught;
mod checkpoint;
mod codec;
mod durable;
mod durations;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod high_water;
mod janitor;
mod log;
mod open;
mod options;
mod queue;
mod record;
mod recover;
mod shared;
mod snapshot;
mod store;
mod types;
mod usage;
mod writer;

pub use caught::catches_panics;
pub use checkpoint::{CHECKPOINT_BATCH_BYTES_MAX, CHECKPOINT_KEY_BYTES_MAX, Checkpoint, Loaded};
pub use durable::replace_file;
pub use durations::{DURATION_BOUNDS_US, DurationCounts, Durations};
pub use error::{Damage, OpenError, StoreError};
pub use options::{FatalHook, StoreOptions, WriterTurns};
pub use recover::{GroupReport, RecoverMode, RecoveryReport};
pub use shared::StoreCounters;
pub use snapshot::{SnapshotInfo, SnapshotReader, SnapshotReceiver, SnapshotWriter, Snapshots};
pub use store::Store;
pub use types::{Done, Entry, GroupId, Identity, LogState, Mark};
pub use usage::DiskUsage;
