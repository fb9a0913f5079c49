//! The vocabulary of the store: groups, positions in a log, entries, what a log looks like.
//!
//! Everything here is opaque to the store but its order: it compares marks and counts bytes,
//! and never looks into votes, entries or metadata.

use bytes::Bytes;

use crate::error::StoreError;

/// One raft group of this node. Group 0 is an ordinary group here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The position and origin of one log entry: who proposed it, in which term, at which index.
///
/// Ordered by term, then proposer, then index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The node id of that leader.
    pub node: u64,
    /// The position in the log.
    pub index: u64,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "T{}-N{}-{}", self.term, self.node, self.index)
    }
}

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub mark: Mark,
    /// What it says; opaque here.
    pub data: Bytes,
}

/// Who this data directory belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, a random number drawn once.
    pub cluster: [u8; 16],
    /// The node inside the cluster.
    pub node: u64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.cluster {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "/{}", self.node)
    }
}

/// What a group's log looks like now, unsynced appends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The vote last saved.
    pub vote: Option<Bytes>,
    /// The commit position last saved. A hint: it may be older than what was told, never newer.
    pub committed: Option<Mark>,
    /// Everything up to and including this entry is gone from the log.
    pub purged: Option<Mark>,
    /// The last entry; equals `purged` when the log holds no entry.
    pub last: Option<Mark>,
    /// What [`crate::Store::save_extra`] saved last.
    pub extra: Option<Bytes>,
}

/// Called once, on the writer thread, when the request is durable or has failed. Must be quick
/// and must not call back into a method of the store that waits.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
