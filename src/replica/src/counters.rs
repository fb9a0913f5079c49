//! What a node did since it started, for metrics and benchmarks.

/// Totals since the node started; they never fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// `fdatasync` calls of the log.
    pub log_syncs: u64,
    /// Writes to the log.
    pub log_writes: u64,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Log entries proposed here.
    pub entries_proposed: u64,
    /// Commands that were accepted into a queue.
    pub commands_proposed: u64,
    /// Commands that were answered by a later one of the same batch.
    pub commands_coalesced: u64,
    /// Commands refused because a queue was full.
    pub refused_busy: u64,
    /// Raises refused because of the state's size.
    pub refused_over_capacity: u64,
    /// Raises refused because of the disk's reserve.
    pub refused_disk_full: u64,
    /// Log entries applied.
    pub entries_applied: u64,
    /// Commands applied.
    pub commands_applied: u64,
    /// Checkpoint batches written.
    pub checkpoints: u64,
    /// Rows written to or deleted from checkpoints.
    pub checkpoint_rows: u64,
    /// Snapshots built.
    pub snapshots_built: u64,
    /// Snapshots installed from another node.
    pub snapshots_installed: u64,
    /// Times the log was purged.
    pub purges: u64,
}
