//! What a node did since it started, for metrics and benchmarks.

use std::sync::atomic::{AtomicU64, Ordering};

use ackord_store::StoreCounters;

/// A total that only grows.
#[derive(Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Totals since the node started; they never fall.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct NodeCounters {
            /// Syncs of the log.
            pub log_syncs: u64,
            /// Writes to the log.
            pub log_writes: u64,
            /// Bytes written to the log.
            pub log_bytes: u64,
            /// Entries appended to the log, of all kinds.
            pub log_entries: u64,
            /// Reads of log entries that had to go to the disk.
            pub log_cold_reads: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters as they are counted, shared by a node's partitions.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Total,)*
        }

        impl Counters {
            /// All totals now.
            pub(crate) fn snapshot(&self, store: StoreCounters) -> NodeCounters {
                NodeCounters {
                    log_syncs: store.syncs,
                    log_writes: store.writes,
                    log_bytes: store.bytes,
                    log_entries: store.entries,
                    log_cold_reads: store.cold_reads,
                    $($name: self.$name.get(),)*
                }
            }
        }
    };
}

counters!(
    /// Log entries proposed here.
    entries_proposed,
    /// Batches of commands sent to the leader on another node.
    entries_forwarded,
    /// Commands that were accepted into a queue.
    commands_proposed,
    /// Commands that were answered by another one of the same batch.
    commands_coalesced,
    /// Commands refused because a queue was full.
    refused_busy,
    /// Raises refused because of the state's size.
    refused_over_capacity,
    /// Raises refused because of the disk's reserve.
    refused_disk_full,
    /// Log entries applied.
    entries_applied,
    /// Commands applied.
    commands_applied,
    /// Checkpoints written.
    checkpoints,
    /// Rows written to or deleted from checkpoints.
    checkpoint_rows,
    /// Checkpoints that were discarded and written anew.
    checkpoint_rebuilds,
    /// Snapshots built.
    snapshots_built,
    /// Snapshots installed from another node.
    snapshots_installed,
    /// Bytes of snapshots received from other nodes.
    snapshot_bytes_received,
    /// Times a purge of a log was asked for.
    purges,
);
