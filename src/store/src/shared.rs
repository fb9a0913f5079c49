//! What the handle and the threads of an open store share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::codec::Salt;
use crate::error::StoreError;
use crate::group::Group;
use crate::high_water::HighWater;
use crate::log::files::{Health, LogFiles};
use crate::options::StoreOptions;
use crate::queue::Queue;
use crate::snapshot::SnapshotInfo;
use crate::types::{GroupId, Identity, Mark};

/// What the store has done since it was opened. Only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Syncs of the log.
    pub syncs: u64,
    /// Writes to the log, each one batch.
    pub writes: u64,
    /// Bytes written to the log.
    pub bytes: u64,
    /// Entries appended.
    pub entries: u64,
    /// Requests (appends, votes, truncations, purges) made durable.
    pub requests: u64,
    /// Writes of the high-water file.
    pub high_water_writes: u64,
    /// Reads that had to go to the disk.
    pub cold_reads: u64,
    /// Checkpoint batches made durable.
    pub checkpoint_writes: u64,
    /// Snapshots written or received, and verified.
    pub snapshots: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub writes: AtomicU64,
    pub entries: AtomicU64,
    pub requests: AtomicU64,
    pub cold_reads: AtomicU64,
    pub checkpoint_writes: AtomicU64,
    pub snapshots: AtomicU64,
}

pub(crate) struct Shared {
    pub dir: PathBuf,
    pub options: StoreOptions,
    pub identity: Identity,
    pub salt: Salt,
    pub queue: Queue,
    pub groups: RwLock<BTreeMap<GroupId, Arc<Mutex<Group>>>>,
    pub sequence: AtomicU64,
    /// The number of the last durable write.
    pub written: AtomicU64,
    /// Held while the file is written and synced: not for threads that must not wait.
    pub water: Arc<Mutex<HighWater>>,
    high_water_writes: Arc<AtomicU64>,
    /// Whether some group's log is committed further than the high-water file knows.
    pub committed_changed: AtomicBool,
    pub files: Arc<LogFiles>,
    /// Bytes of recent entries over all groups.
    pub recent_bytes: AtomicU64,
    pub counters: Counters,
    pub free_bytes: AtomicU64,
    pub laggards: Mutex<BTreeSet<GroupId>>,
    /// Snapshot files that were read and verified.
    pub snapshots: Mutex<BTreeMap<PathBuf, SnapshotInfo>>,
    pub stopping: Mutex<bool>,
    pub stopped: Condvar,
    /// What the log writer is in the middle of: since when, or nothing.
    writing: Mutex<Option<Instant>>,
    fatal: OnceLock<Arc<str>>,
}

impl Shared {
    pub fn new(
        options: StoreOptions,
        (identity, salt): (Identity, Salt),
        groups: BTreeMap<GroupId, Group>,
        (sequence, written): (u64, u64),
        water: Arc<Mutex<HighWater>>,
        files: Arc<LogFiles>,
    ) -> Shared {
        let cells =
            groups.into_iter().map(|(id, group)| (id, Arc::new(Mutex::new(group)))).collect();
        let high_water_writes = water.lock().writes.clone();
        Shared {
            dir: options.dir.clone(),
            identity,
            salt,
            queue: Queue::new(options.queue_bytes_max, options.queue_count_max),
            groups: RwLock::new(cells),
            sequence: AtomicU64::new(sequence),
            written: AtomicU64::new(written),
            high_water_writes,
            committed_changed: AtomicBool::new(false),
            water,
            files,
            recent_bytes: AtomicU64::new(0),
            counters: Counters::default(),
            free_bytes: AtomicU64::new(u64::MAX),
            laggards: Mutex::default(),
            snapshots: Mutex::default(),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
            writing: Mutex::new(None),
            fatal: OnceLock::new(),
            options,
        }
    }

    /// The log writer begins to write or sync, or has done so.
    pub fn set_writing(&self, writes: bool) {
        *self.writing.lock() = writes.then(Instant::now);
    }

    /// For how long the log writer has been waiting for the disk.
    pub fn waits_for(&self) -> Duration {
        self.writing.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How far each group's log is committed, as far as was said.
    pub fn committed(&self) -> Vec<(GroupId, Option<Mark>)> {
        let groups = self.groups.read();
        groups.iter().map(|(id, cell)| (*id, cell.lock().committed)).collect()
    }

    pub fn health(&self) -> &Health {
        &self.files.health
    }

    pub fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn fatal(&self) -> Option<Arc<str>> {
        self.fatal.get().cloned()
    }

    /// Fails the store: nothing is acknowledged any more. The first reason counts.
    pub fn fail(&self, reason: &str) {
        let mut is_first = false;
        let kept = self.fatal.get_or_init(|| {
            is_first = true;
            Arc::from(reason)
        });
        let error = StoreError::Fatal(kept.clone());
        for queued in self.queue.fail(error.clone()) {
            (queued.done)(Err(error.clone()));
        }
        if is_first {
            tracing::error!(reason, "the store failed, the node must stop");
            if let Some(hook) = &self.options.on_fatal {
                hook(reason);
            }
        }
    }

    /// Whether a simulation has killed the process that has this store.
    pub fn is_gone(&self) -> bool {
        self.options.turns.as_ref().is_some_and(|turns| turns.gone())
    }

    /// Lets go of recent durable entries above the bound: first of the groups that hold more
    /// than their share.
    pub fn evict_recent(&self) {
        let excess = || {
            let held = self.recent_bytes.load(Ordering::Relaxed);
            held.saturating_sub(self.options.recent_bytes_max)
        };
        if excess() == 0 {
            return;
        }
        let cells: Vec<Arc<Mutex<Group>>> = self.groups.read().values().cloned().collect();
        let share = self.options.recent_bytes_max / (cells.len() as u64).max(1);
        for kept in [share, 0] {
            for cell in &cells {
                let mut group = cell.lock();
                let wanted = excess().min(group.held_bytes.saturating_sub(kept));
                let freed = group.evict(wanted);
                self.recent_bytes.fetch_sub(freed, Ordering::Relaxed);
            }
        }
    }

    /// How many writes of a group's checkpoint were durable, as far as is known.
    pub fn checkpoint_writes(&self, group: GroupId) -> u64 {
        let high = self.water.lock();
        let facts = high.water.groups.get(&group);
        facts.map_or(0, |facts| facts.checkpoint)
    }

    pub fn raise_checkpoint(&self, group: GroupId, writes: u64) {
        let mut high = self.water.lock();
        high.water.groups.entry(group).or_default().checkpoint = writes;
        high.dirty = true;
    }

    /// Says durably that a group's checkpoint may be gone.
    pub fn lower_checkpoint(&self, group: GroupId) -> std::io::Result<()> {
        let mut high = self.water.lock();
        match high.water.groups.get_mut(&group) {
            Some(facts) if facts.checkpoint > 0 => facts.checkpoint = 0,
            Some(_) | None => return Ok(()),
        }
        high.write_both()
    }

    pub fn snapshot_counters(&self) -> StoreCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreCounters {
            syncs: load(&self.health().syncs),
            writes: load(&self.counters.writes),
            bytes: load(&self.health().bytes),
            entries: load(&self.counters.entries),
            requests: load(&self.counters.requests),
            high_water_writes: load(&self.high_water_writes),
            cold_reads: load(&self.counters.cold_reads),
            checkpoint_writes: load(&self.counters.checkpoint_writes),
            snapshots: load(&self.counters.snapshots),
        }
    }
}
