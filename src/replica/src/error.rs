//! Why a proposal or a start failed. Deliberately without detail that only a log needs.

use thiserror::Error;

/// What happened to a proposal or a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ProposeError {
    /// The partition's queue of proposals is full; nothing was proposed.
    #[error("the partition is busy")]
    Busy,
    /// The partition's state is as large as it may be; nothing was proposed. Only for raises.
    #[error("the partition's state is at its capacity")]
    OverCapacity,
    /// The disk is down to its reserve; nothing was proposed. Only for raises.
    #[error("the disk is down to its reserve")]
    DiskFull,
    /// No leader of the partition is known or can be reached, or the node is stopping; nothing was
    /// proposed.
    #[error("the partition has no leader that can be reached")]
    Unavailable,
    /// The proposal was handed on and its fate is not known: it may be applied later. Only
    /// commands with a deduplication identity may be proposed again.
    #[error("the fate of the proposal is unknown")]
    Unknown,
}

impl ProposeError {
    /// Whether the same command may succeed later without anyone changing anything.
    /// For [`ProposeError::Unknown`] only under the command's deduplication identity.
    pub fn retryable(self) -> bool {
        match self {
            Self::Busy
            | Self::OverCapacity
            | Self::DiskFull
            | Self::Unavailable
            | Self::Unknown => true,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The options contradict each other.
    #[error("invalid option {field}: {detail}")]
    Options {
        /// The option.
        field: &'static str,
        /// What is allowed and what was given.
        detail: String,
    },
    /// The data directory was made for another number of partitions.
    #[error("the data directory holds {found} partitions, {wanted} are configured")]
    Partitions {
        /// As the directory says.
        found: u32,
        /// As the options say.
        wanted: u32,
    },
    /// This node has an empty disk and a cluster that it should found exists already.
    #[error(
        "node {node} at {address} belongs to a cluster already: an empty node cannot found another"
    )]
    Lost {
        /// The member that answered.
        node: u64,
        /// Where.
        address: String,
    },
    /// What the disk keeps could not be opened, or it is damaged.
    #[error("cannot open the store: {0}")]
    Store(String),
    /// A partition could not be rebuilt from checkpoint, snapshots and log.
    #[error("partition {partition} cannot be restored: {detail}")]
    Restore {
        /// The partition.
        partition: u32,
        /// What is missing or damaged.
        detail: String,
    },
    /// A partition did not become ready in time.
    #[error("partition {partition} did not become ready: {detail}")]
    NotReady {
        /// The partition.
        partition: u32,
        /// What it waited for.
        detail: String,
    },
    /// Threads or the runtime could not be started.
    #[error("cannot start threads: {0}")]
    Threads(#[from] std::io::Error),
}

impl StartError {
    /// Whether starting again, as things are, may succeed.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotReady { .. } | Self::Threads(_) => true,
            Self::Options { .. }
            | Self::Partitions { .. }
            | Self::Lost { .. }
            | Self::Store(_)
            | Self::Restore { .. } => false,
        }
    }
}
