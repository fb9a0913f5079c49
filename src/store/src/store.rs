//! The store's handle. This first version keeps everything in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Damage, Done, Entry, GroupId, Identity, LogState, Mark, OpenError, StoreError, StoreOptions,
};

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
struct Group {
    state: LogState,
    entries: BTreeMap<u64, Entry>,
    checkpoint: Option<(Bytes, BTreeMap<Bytes, Bytes>)>,
    snapshots: Vec<(SnapshotInfo, Vec<Bytes>)>,
}

struct Inner {
    groups: Mutex<BTreeMap<GroupId, Group>>,
    appended: AtomicU64,
}

/// The open data directory of one node. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// How [`Store::recover`] treats what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverMode {
    /// Look and report; change nothing.
    Inspect,
    /// Make the directory open again with what is left. What is lost is lost.
    AcceptLoss,
}

/// What one group keeps and loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The last entry known to have been durable.
    pub durable: Option<Mark>,
    /// The last entry that can be kept.
    pub kept: Option<Mark>,
    /// The last purged entry.
    pub purged: Option<Mark>,
}

/// What [`Store::recover`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// What is wrong; empty when the directory opens as it is.
    pub findings: Vec<Damage>,
    /// Per group, what is kept.
    pub groups: Vec<GroupReport>,
    /// Whether the directory was changed.
    pub changed: bool,
}

impl Store {
    /// Opens a data directory, creating it when missing, and verifies everything in its log.
    pub fn open(_options: StoreOptions) -> Result<Store, OpenError> {
        Ok(Store {
            inner: Arc::new(Inner {
                groups: Mutex::default(),
                appended: AtomicU64::new(0),
            }),
        })
    }
    /// Says what is wrong with a directory no process has open and, when asked, makes it open again.
    pub fn recover(_dir: &Path, _mode: RecoverMode) -> Result<RecoveryReport, OpenError> {
        Ok(RecoveryReport {
            findings: Vec::new(),
            groups: Vec::new(),
            changed: false,
        })
    }
    /// Whose directory this is.
    pub fn identity(&self) -> Identity {
        Identity {
            cluster: [0; 16],
            node: 1,
        }
    }
    /// The groups that have anything in the log.
    pub fn groups(&self) -> Vec<GroupId> {
        self.inner.groups.lock().keys().copied().collect()
    }
    /// What a group's log looks like, unsynced appends included.
    pub fn log_state(&self, group: GroupId) -> LogState {
        self.inner
            .groups
            .lock()
            .entry(group)
            .or_default()
            .state
            .clone()
    }
    /// Appends entries; they are readable when this returns and `done` is called once they are
    /// durable. Waits while the writer's queue is full.
    pub fn append(&self, group: GroupId, entries: Vec<Entry>, done: Done) {
        self.inner
            .appended
            .fetch_add(entries.len() as u64, Ordering::Relaxed);
        {
            let mut groups = self.inner.groups.lock();
            let g = groups.entry(group).or_default();
            for e in entries {
                g.state.last = Some(e.mark);
                g.entries.split_off(&e.mark.index);
                g.entries.insert(e.mark.index, e);
            }
        }
        done(Ok(()));
    }
    /// Whether an append would be taken without waiting.
    pub fn has_room(&self) -> bool {
        true
    }
    /// Saves a vote; `done` is called once it is in the log and in the high-water file.
    pub fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        self.inner
            .groups
            .lock()
            .entry(group)
            .or_default()
            .state
            .vote = Some(vote);
        done(Ok(()));
    }
    /// Remembers how far the log is committed. A hint, written along with something else.
    pub fn save_committed(&self, group: GroupId, committed: Option<Mark>) {
        self.inner
            .groups
            .lock()
            .entry(group)
            .or_default()
            .state
            .committed = committed;
    }
    /// Saves a few opaque bytes for a group.
    pub fn save_extra(&self, group: GroupId, extra: Bytes, done: Done) {
        self.inner
            .groups
            .lock()
            .entry(group)
            .or_default()
            .state
            .extra = Some(extra);
        done(Ok(()));
    }
    /// Removes every entry from `index` on.
    pub fn truncate_from(&self, group: GroupId, index: u64, done: Done) {
        {
            let mut groups = self.inner.groups.lock();
            let g = groups.entry(group).or_default();
            g.entries.split_off(&index);
            g.state.last = g
                .entries
                .values()
                .next_back()
                .map(|e| e.mark)
                .or(g.state.purged);
        }
        done(Ok(()));
    }
    /// Removes every entry up to and including `mark`; when the log ends before it, or has
    /// another entry there, the whole log is dropped and goes on after `mark`.
    pub fn purge_to(&self, group: GroupId, mark: Mark, done: Done) {
        {
            let mut groups = self.inner.groups.lock();
            let g = groups.entry(group).or_default();
            g.entries = g.entries.split_off(&(mark.index + 1));
            g.state.purged = Some(mark);
            g.state.last = g
                .entries
                .values()
                .next_back()
                .map(|e| e.mark)
                .or(g.state.purged);
        }
        done(Ok(()));
    }
    /// Reads entries of `range`, at least one and then as many as fit into `bytes_max`.
    pub fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut left = bytes_max;
        let mut out = Vec::new();
        for e in self
            .inner
            .groups
            .lock()
            .entry(group)
            .or_default()
            .entries
            .range(range)
            .map(|(_, e)| e)
        {
            if !out.is_empty() && e.data.len() as u64 > left {
                break;
            }
            left = left.saturating_sub(e.data.len() as u64);
            out.push(e.clone());
        }
        Ok(out)
    }
    /// What the store has done so far.
    pub fn counters(&self) -> StoreCounters {
        StoreCounters {
            entries: self.inner.appended.load(Ordering::Relaxed),
            ..StoreCounters::default()
        }
    }
    /// Groups that should be checkpointed and purged because they hold back old log files.
    pub fn take_laggards(&self) -> Vec<GroupId> {
        Vec::new()
    }
    /// Bytes left on the disk, as of the last look.
    pub fn free_bytes(&self) -> u64 {
        u64::MAX
    }
    /// Whether the disk has more left than the reserve: if not, admit nothing new.
    pub fn admits(&self) -> bool {
        true
    }
    /// Why the store failed, if it did.
    pub fn fatal(&self) -> Option<Arc<str>> {
        None
    }
    /// Finishes everything queued, then writes the high-water file last. Idempotent.
    pub fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// The checkpoint of a group.
    pub fn checkpoint(&self, group: GroupId) -> Checkpoint {
        Checkpoint {
            store: self.clone(),
            group,
        }
    }
    /// The snapshots of a group.
    pub fn snapshots(&self, group: GroupId) -> Snapshots {
        Snapshots {
            store: self.clone(),
            group,
        }
    }
}

/// The checkpoint of one group: a cache of snapshot and log, never trusted alone.
#[derive(Clone)]
pub struct Checkpoint {
    store: Store,
    group: GroupId,
}

/// A verified checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What was given to the last [`Checkpoint::write`].
    pub meta: Bytes,
    /// Every row.
    pub rows: Vec<(Bytes, Bytes)>,
}

impl Checkpoint {
    /// Reads and verifies the whole checkpoint. `None`: there is none. An error: rebuild from
    /// snapshot and log, after [`Self::reset`].
    pub fn load(&self) -> Result<Option<Loaded>, StoreError> {
        let groups = self.store.inner.groups.lock();
        Ok(groups
            .get(&self.group)
            .and_then(|g| g.checkpoint.as_ref())
            .map(|(meta, rows)| Loaded {
                meta: meta.clone(),
                rows: rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            }))
    }
    /// Writes one atomic batch, durable on return. Bounded by [`CHECKPOINT_BATCH_BYTES_MAX`].
    pub fn write(
        &self,
        meta: Bytes,
        puts: Vec<(Bytes, Bytes)>,
        deletes: Vec<Bytes>,
    ) -> Result<(), StoreError> {
        self.fill(puts)?;
        let mut groups = self.store.inner.groups.lock();
        let c = groups
            .entry(self.group)
            .or_default()
            .checkpoint
            .get_or_insert_default();
        for d in deletes {
            c.1.remove(&d);
        }
        c.0 = meta;
        Ok(())
    }
    /// Adds rows to a checkpoint that was reset and has no meta yet, in batches of any number;
    /// nothing of it counts before the [`Self::write`] that follows.
    pub fn fill(&self, puts: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        let mut groups = self.store.inner.groups.lock();
        groups
            .entry(self.group)
            .or_default()
            .checkpoint
            .get_or_insert_default()
            .1
            .extend(puts);
        Ok(())
    }
    /// Forgets the group's checkpoint, durably.
    pub fn reset(&self) -> Result<(), StoreError> {
        self.store
            .inner
            .groups
            .lock()
            .entry(self.group)
            .or_default()
            .checkpoint = None;
        Ok(())
    }
}

/// The most bytes of keys and values of one checkpoint batch.
pub const CHECKPOINT_BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The snapshots of one group.
#[derive(Clone)]
pub struct Snapshots {
    store: Store,
    group: GroupId,
}

/// A snapshot that was read back and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The name its creator gave it.
    pub id: String,
    /// What its creator said about it.
    pub meta: Bytes,
    /// How many records it has.
    pub records: u64,
    /// The size of its file, which is what is sent to others.
    pub bytes: u64,
}

impl Snapshots {
    /// Begins a snapshot.
    pub fn create(&self, id: &str) -> Result<SnapshotWriter, StoreError> {
        Ok(SnapshotWriter {
            store: self.store.clone(),
            group: self.group,
            id: id.to_owned(),
            records: Vec::new(),
        })
    }
    /// The verified snapshots, newest first.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, StoreError> {
        let groups = self.store.inner.groups.lock();
        Ok(groups
            .get(&self.group)
            .map(|g| g.snapshots.iter().rev().map(|s| s.0.clone()).collect())
            .unwrap_or_default())
    }
    /// Opens a verified snapshot for reading. `None`: there is none of that name.
    pub fn open(&self, id: &str) -> Result<Option<SnapshotReader>, StoreError> {
        let groups = self.store.inner.groups.lock();
        Ok(groups
            .get(&self.group)
            .and_then(|g| g.snapshots.iter().find(|s| s.0.id == id))
            .map(|s| SnapshotReader {
                info: s.0.clone(),
                records: s.1.clone().into_iter(),
            }))
    }
    /// Begins or resumes receiving a snapshot from another node.
    pub fn receive(&self, id: &str) -> Result<SnapshotReceiver, StoreError> {
        Ok(SnapshotReceiver {
            id: id.to_owned(),
            bytes: Vec::new(),
        })
    }
}

/// A snapshot being written. Dropped without [`Self::finish`] it leaves nothing.
pub struct SnapshotWriter {
    store: Store,
    group: GroupId,
    id: String,
    records: Vec<Bytes>,
}

impl SnapshotWriter {
    /// Adds a record.
    pub fn put(&mut self, record: &[u8]) -> Result<(), StoreError> {
        self.records.push(Bytes::copy_from_slice(record));
        Ok(())
    }
    /// Makes it durable, reads it back, and drops all but the newest two.
    pub fn finish(self, meta: &[u8]) -> Result<SnapshotInfo, StoreError> {
        let info = SnapshotInfo {
            id: self.id,
            meta: Bytes::copy_from_slice(meta),
            records: self.records.len() as u64,
            bytes: 0,
        };
        let mut groups = self.store.inner.groups.lock();
        groups
            .entry(self.group)
            .or_default()
            .snapshots
            .push((info.clone(), self.records));
        Ok(info)
    }
}

/// An open snapshot.
pub struct SnapshotReader {
    info: SnapshotInfo,
    records: std::vec::IntoIter<Bytes>,
}

impl SnapshotReader {
    /// What it is.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }
    /// The next record; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.records.next())
    }
    /// Raw bytes of the file, for sending it to another node: at most `bytes_max` from `offset`,
    /// empty at the end.
    pub fn read_raw(&self, _offset: u64, _bytes_max: u64) -> Result<Bytes, StoreError> {
        Ok(Bytes::new())
    }
}

/// A snapshot being received. What arrived stays when it is dropped, so it can be resumed.
pub struct SnapshotReceiver {
    id: String,
    bytes: Vec<u8>,
}

impl SnapshotReceiver {
    /// How many bytes are here: the offset to go on from.
    pub fn received(&self) -> u64 {
        self.bytes.len() as u64
    }
    /// Takes the bytes at `offset`, which must be [`Self::received`]; 0 starts over.
    pub fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    /// Verifies it and makes it durable; a snapshot that does not verify is removed.
    pub fn finish(self) -> Result<SnapshotInfo, StoreError> {
        Err(StoreError::Damaged(self.id))
    }
}
