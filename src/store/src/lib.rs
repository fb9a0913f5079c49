//! What the disk keeps: raft logs and votes, the high-water file, checkpoints, snapshots.
//!
//! Everything is opaque bytes. The crate knows groups, log positions and durability, and
//! deliberately neither consensus nor what an entry means.

mod error;
mod options;
mod store;
mod types;

pub use error::{Damage, OpenError, StoreError};
pub use options::{FatalHook, StoreOptions};
pub use store::*;
pub use types::{Done, Entry, GroupId, Identity, LogState, Mark};
