//! How nodes agree: raft groups over one shared log, the applied state, and the way to change it.
//!
//! `try_propose ─▶ queue ─▶ batch (stamped, coalesced) ─▶ raft ─▶ log, synced ─▶ apply ─▶ outcomes, effects`
//!
//! On a node that does not lead, `queue ─▶ peer::Forwarder ─▶ the leader's queue`; see `peer`.
//!
//! openraft and tonic stay inside this crate. What is agreed on is decided by `ackord_machine::site`; what
//! the disk keeps is `ackord_store`'s. Nothing here interprets a command.

mod blocking;
mod changes;
mod checkpoint;
mod clock;
mod confirmed;
mod counters;
mod error;
mod fatal;
mod figures;
mod founding;
#[doc(hidden)]
pub mod fuzz;
mod ground;
mod handle;
mod handover;
mod keeper;
mod leadership;
mod listeners;
mod log;
mod mover;
mod node;
mod options;
mod partition;
mod peer;
mod placement;
mod proposer;
mod queue;
mod reading;
mod recover;
mod restore;
mod runtime;
mod share;
mod snapshot;
mod sources;
mod starting;
mod state_machine;
mod succession;
#[cfg(test)]
mod tests;
mod time;
mod types;
mod view;
mod watch;

pub use ackord_store::{DURATION_BOUNDS_US, DiskUsage, DurationCounts};
pub use counters::NodeCounters;
pub use error::{ProposeError, StartError};
pub use figures::{Condition, Figures, GroupFigures, Role};
pub use ground::{Ground, Listener, Net, Wire, WriterTurns};
pub use handle::{PartitionHandle, Pending};
pub use node::Node;
pub use options::{NodeOptions, OnFatal};
pub use peer::{ANSWER_BYTES_MAX, Answerer, AskError, PeerOptions, PeerTls, QUESTION_BYTES_MAX};
pub use recover::recover;
pub use view::{ClusterView, GroupView, NodeView};
pub use watch::EffectWatch;
