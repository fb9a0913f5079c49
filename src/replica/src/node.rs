//! A node: its store, its runtime and its partitions.

use std::sync::Arc;

use ackord_machine::site::SiteName;

use crate::counters::NodeCounters;
use crate::error::StartError;
use crate::handle::{Partition, PartitionHandle};
use crate::options::NodeOptions;

/// A running node. Dropping it without [`Node::shutdown`] is like killing the process: nothing
/// acknowledged is lost, the next start takes longer.
pub struct Node {
    partitions: Vec<Arc<Partition>>,
}

impl Node {
    /// Opens the data directory, restores every partition and waits until those that this node
    /// votes alone in are led and have applied all that was durable. Blocks; do not call it on an
    /// async runtime's thread.
    ///
    /// # Errors
    /// See [`StartError`]; the data directory is left as it was found.
    pub fn start(options: NodeOptions) -> Result<Self, StartError> {
        options.validate()?;
        Err(StartError::Store("not there yet".into()))
    }

    /// The partition that holds the site.
    pub fn partition_of(&self, _site: &SiteName) -> PartitionHandle {
        PartitionHandle::new(self.partitions[0].clone())
    }

    /// All partitions, by number.
    pub fn partitions(&self) -> Vec<PartitionHandle> {
        self.partitions.iter().cloned().map(PartitionHandle::new).collect()
    }

    /// Whether every partition has a leader and has applied what this node had made durable.
    pub fn ready(&self) -> bool {
        false
    }

    /// What the node did since it started.
    pub fn counters(&self) -> NodeCounters {
        NodeCounters::default()
    }

    /// Stops gracefully: no new proposals, waits for those accepted, writes a last checkpoint,
    /// closes the store. Idempotent. Blocks; do not call it on an async runtime's thread.
    pub fn shutdown(&self) {}
}
