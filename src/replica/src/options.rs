//! What a node may be told, with defaults that suit one node on a small machine.
//!
//! Every queue and every interval of this crate has its bound here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::Limits;

use crate::error::StartError;
use crate::ground::Ground;
use crate::peer::{MESSAGE_BYTES_MAX, PeerOptions};

/// Most partitions of a node.
pub const PARTITIONS_MAX: u32 = 4096;

/// What happens when the node can no longer be trusted: a failed write or sync, a panic on a
/// thread that keeps the log or the state, a log that contradicts the state.
#[derive(Clone)]
pub enum OnFatal {
    /// Log the reason and abort the process. The only choice outside tests.
    Abort,
    /// Call this instead; the node answers everything with `Unavailable` or `Unknown` from then on.
    Call(Arc<dyn Fn(&str) + Send + Sync>),
}

impl fmt::Debug for OnFatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abort => f.write_str("Abort"),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// How a [`crate::Node`] is started. Build with [`NodeOptions::new`] and change fields.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The data directory; made when absent.
    pub dir: PathBuf,
    /// Number of partitions, fixed by the first start of the data directory.
    pub partitions: u32,
    /// Limits that every partition shall have; proposed by its leader where they differ.
    pub limits: Limits,
    /// Threads of the raft runtime.
    pub threads: usize,
    /// Commands that may wait in a partition's queue; one more is `Busy`.
    pub queue_commands_max: usize,
    /// Bytes of commands that may wait in a partition's queue; more are `Busy`.
    pub queue_bytes_max: usize,
    /// Commands that one log entry may carry.
    pub entry_commands_max: usize,
    /// Bytes of commands after which a log entry takes no further one.
    pub entry_bytes_max: usize,
    /// Entries of a partition that may be on their way at the same time.
    pub entries_in_flight_max: usize,
    /// Rows that one tick may remove.
    pub tick_rows_max: u32,
    /// Changed rows are written to the checkpoint at least this often.
    pub checkpoint_interval: Duration,
    /// So many changed rows are written without waiting for the interval. Eight times as many are
    /// too many to be taken down: the partition then changes faster than it can be written.
    pub checkpoint_rows_max: usize,
    /// A snapshot is taken when the log since the last one outgrows the larger of this and the
    /// state, bytes.
    pub snapshot_log_bytes_min: u64,
    /// Bytes of state of all partitions together; above it raises are refused.
    pub state_bytes_max: u64,
    /// Free bytes of the disk below which raises are refused.
    pub disk_reserve_bytes: u64,
    /// Size of one log file; files are written in advance, so this is also the least a node takes.
    pub log_file_bytes: u64,
    /// The log is compacted when its files outgrow this, bytes.
    pub log_purge_bytes: u64,
    /// How long a start waits for its partitions to be led and caught up.
    pub start_timeout: Duration,
    /// How to talk to the other nodes of a cluster; `None` for a node that is alone.
    pub peers: Option<PeerOptions>,
    /// What a failure that must stop the node does.
    pub on_fatal: OnFatal,
    /// What the node stands on; `None`: the system. For [`crate::Node::start_here`] only.
    pub ground: Option<Ground>,
}

impl NodeOptions {
    /// Defaults, with everything under `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            partitions: 16,
            limits: Limits::default(),
            threads: std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)),
            queue_commands_max: 16_384,
            queue_bytes_max: 16 << 20,
            entry_commands_max: 4096,
            entry_bytes_max: 1 << 20,
            entries_in_flight_max: 2,
            tick_rows_max: 1024,
            checkpoint_interval: Duration::from_secs(2),
            checkpoint_rows_max: 8192,
            snapshot_log_bytes_min: 64 << 20,
            state_bytes_max: 4 << 30,
            disk_reserve_bytes: 512 << 20,
            log_file_bytes: 32 << 20,
            log_purge_bytes: 256 << 20,
            start_timeout: Duration::from_secs(300),
            peers: None,
            on_fatal: OnFatal::Abort,
            ground: None,
        }
    }

    /// Changed rows of a partition that are taken down for its next checkpoint.
    pub(crate) fn changed_rows_max(&self) -> usize {
        self.checkpoint_rows_max.saturating_mul(8)
    }

    /// Checks that the options make sense together.
    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let bad = |field, detail: String| Err(StartError::Options { field, detail });
        if self.partitions == 0 || self.partitions > PARTITIONS_MAX {
            return bad("partitions", format!("1..={PARTITIONS_MAX}, was {}", self.partitions));
        }
        if self.threads == 0 {
            return bad("threads", "at least 1, was 0".into());
        }
        if self.queue_commands_max == 0 {
            return bad("queue_commands_max", "at least 1, was 0".into());
        }
        if self.entry_commands_max == 0 {
            return bad("entry_commands_max", "at least 1, was 0".into());
        }
        if self.entries_in_flight_max == 0 {
            return bad("entries_in_flight_max", "at least 1, was 0".into());
        }
        if self.tick_rows_max == 0 {
            return bad("tick_rows_max", "at least 1, was 0".into());
        }
        if self.entry_bytes_max > self.queue_bytes_max {
            return bad(
                "entry_bytes_max",
                format!(
                    "at most queue_bytes_max {}, was {}",
                    self.queue_bytes_max, self.entry_bytes_max
                ),
            );
        }
        let Some(peers) = &self.peers else { return Ok(()) };
        // A batch takes one more command after the bound, and its outcomes come back in one message.
        if self.entry_bytes_max > MESSAGE_BYTES_MAX / 4 {
            return bad(
                "entry_bytes_max",
                format!(
                    "at most {} with peers, was {}",
                    MESSAGE_BYTES_MAX / 4,
                    self.entry_bytes_max
                ),
            );
        }
        peers.validate()
    }
}
