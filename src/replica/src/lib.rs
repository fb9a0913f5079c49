//! How nodes agree: raft groups over one shared log, the applied state, and the way to change it.
//!
//! `try_propose ─▶ queue ─▶ batch (stamped, coalesced) ─▶ raft ─▶ log, synced ─▶ apply ─▶ outcomes, effects`
//!
//! openraft stays inside this crate. What is agreed on is decided by `ackord_machine::site`; what
//! the disk keeps is `ackord_store`'s. Nothing here interprets a command.

mod counters;
mod error;
mod handle;
mod node;
mod options;
mod watch;

pub use counters::NodeCounters;
pub use error::{ProposeError, StartError};
pub use handle::{PartitionHandle, Pending};
pub use node::Node;
pub use options::{NodeOptions, OnFatal};
pub use watch::EffectWatch;
