//! What a node did since it started, for metrics and benchmarks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackord_machine::site::{Decision, Departures, Outcome};
use ackord_store::{Durations, StoreCounters};

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

impl Counters {
    /// An entry was applied.
    pub(crate) fn applied(&self, took: Duration, outcomes: &[Outcome], departures: Departures) {
        self.apply_times.note(took);
        self.entries_applied.add(1);
        self.commands_applied.add(outcomes.len() as u64);
        let (mut stored, mut duplicates) = (0, 0);
        for outcome in outcomes {
            if let Outcome::Raised(raised) = outcome {
                duplicates += u64::from(raised.duplicate);
                let is_stored = matches!(raised.decision, Decision::Stored(_));
                stored += u64::from(is_stored && !raised.duplicate);
            }
        }
        self.events_applied.add(stored);
        self.duplicates_suppressed.add(duplicates);
        let Departures { superseded, evicted, expired, acknowledged, removed } = departures;
        self.superseded.add(superseded);
        self.evicted.add(evicted);
        self.expired.add(expired);
        self.acknowledged.add(acknowledged);
        self.removed.add(removed);
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
            /// From proposing an entry here until it was applied here.
            pub(crate) commit_times: Durations,
            /// Applying an entry.
            pub(crate) apply_times: Durations,
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
    /// Instances stored by applied commands.
    events_applied,
    /// Raises that applied commands found to have been decided before.
    duplicates_suppressed,
    /// Instances that newer ones of their Replacing event took the place of.
    superseded,
    /// Instances that went because their queue was full.
    evicted,
    /// Instances whose lifetime was over.
    expired,
    /// Private instances that their addressees acknowledged.
    acknowledged,
    /// Instances that went with their service, addressee, event or queue.
    removed,
    /// Times a group came to have another leader than before, as this node saw it.
    leader_changes,
    /// Terms that groups went on to, as this node saw it.
    term_changes,
    /// Changes of groups begun here: nodes that follow were added, moved or removed.
    moves_of_nodes,
    /// Changes of groups begun here: votes were given or taken.
    moves_of_votes,
    /// Changes of groups begun here: the lead was handed to another node.
    moves_of_lead,
);
