//! The handle of an open data directory: what the rest of the node calls.
//!
//! Requests change the group in memory under its lock and queue up for the writer in that
//! order; answers come from the writer thread. The threads end when the last handle is closed
//! or dropped.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::caught::caught;
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::durations::DurationCounts;
use crate::error::{OpenError, StoreError};
use crate::group::{Group, cost};
use crate::high_water::GROUPS_MAX;
use crate::janitor;
use crate::log::Engine;
use crate::log::reader::{Reader, fetch};
use crate::open;
use crate::options::StoreOptions;
use crate::queue::{Queued, Request};
use crate::record::{DIGEST_START, EXTRA_BYTES_MAX, EntryRecord, VOTE_BYTES_MAX};
use crate::shared::{Shared, StoreCounters};
use crate::snapshot::Snapshots;
use crate::types::{Done, Entry, GroupId, Identity, LogState, Mark};
use crate::usage::{self, DiskUsage};
use crate::writer::{Writer, compact_slot};

/// What a request without entries costs in the queue.
const META_COST_BYTES: u64 = 512;

/// The open data directory of one node. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    running: Arc<Running>,
}

/// Stops the store with the last handle.
struct Running(Arc<Core>);

/// What has to be stopped in order.
struct Core {
    shared: Arc<Shared>,
    reader: Reader,
    checkpoints: Arc<CheckpointStore>,
    parts: Mutex<Option<Parts>>,
}

struct Parts {
    writer: JoinHandle<()>,
    janitor: JoinHandle<()>,
    engine: Arc<Engine>,
    lock: File,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| OpenError::io("start a thread", &error))
}

impl Store {
    /// Opens a data directory, creating it when missing. Every entry in its log is read and
    /// verified, and the end of every log compared with the high-water file.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] lists what is wrong; the directory is left as it was and
    /// [`Store::recover`] says what can be kept.
    pub fn open(options: StoreOptions) -> Result<Store, OpenError> {
        let opened = open::open(&options)?;
        let shared = Arc::new(Shared::new(
            options,
            (opened.identity, opened.salt),
            opened.groups,
            (opened.last_sequence, opened.last_number),
            opened.water,
            opened.files,
        ));
        janitor::look_at_disk(&shared);
        let writer = Writer::new(
            shared.clone(),
            opened.engine.clone(),
            opened.last_number,
            opened.last_sequence,
        );
        let writer = spawn("store-write", move || writer.run())?;
        let janitor = {
            let (shared, engine) = (shared.clone(), opened.engine.clone());
            spawn("store-tidy", move || janitor::run(&shared, &engine))?
        };
        let checkpoints = Arc::new(CheckpointStore::new(shared.clone()));
        let store = Store {
            running: Arc::new(Running(Arc::new(Core {
                shared: shared.clone(),
                reader: opened.reader,
                checkpoints,
                parts: Mutex::new(Some(Parts {
                    writer,
                    janitor,
                    engine: opened.engine,
                    lock: opened.lock,
                })),
            }))),
            shared,
        };
        for group in opened.stale {
            store.compact_again(group);
        }
        Ok(store)
    }

    /// Whose directory this is.
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// Where it is.
    pub fn dir(&self) -> &std::path::Path {
        &self.shared.dir
    }

    /// The number of the last durable write: counted over all times the directory was open, so that
    /// it only ever grows, unless the directory is replaced by an older copy of itself.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// The groups the log knows.
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared.groups.read().keys().copied().collect()
    }

    /// What a group's log looks like, unsynced requests included.
    pub fn log_state(&self, group: GroupId) -> LogState {
        let cell = self.shared.groups.read().get(&group).cloned();
        cell.map(|cell| cell.lock().state()).unwrap_or_default()
    }

    fn cell(&self, group: GroupId) -> Result<Arc<Mutex<Group>>, StoreError> {
        if let Some(cell) = self.shared.groups.read().get(&group) {
            return Ok(cell.clone());
        }
        let mut groups = self.shared.groups.write();
        if groups.len() >= GROUPS_MAX {
            let text = format!("more than {GROUPS_MAX} groups");
            return Err(StoreError::Invalid(text));
        }
        let cell = groups.entry(group).or_insert_with(|| Arc::new(Mutex::new(Group::new())));
        Ok(cell.clone())
    }

    /// Appends entries behind the last one; entries that stand in the way are truncated first.
    /// They are readable when this returns; `done` is called once they are durable. Waits while
    /// the writer's queue is full ([`Store::has_room`]).
    pub fn append(&self, group: GroupId, entries: Vec<Entry>, done: Done) {
        let Some(first) = entries.first().map(|entry| entry.mark.index) else {
            done(Ok(()));
            return;
        };
        let last = self.log_state(group).last;
        if last.is_some_and(|last| last.index >= first) {
            self.truncate_from(group, first, Box::new(|_| ()));
        }
        let bytes = entries.iter().map(cost).sum();
        self.submit(group, bytes, done, |group_id, cell, sequence| {
            let appended = cell.append(group_id, sequence, entries)?;
            self.shared.recent_bytes.fetch_add(bytes, Ordering::Relaxed);
            Ok(Some(Request::Append { entries: appended.entries, drops_all: appended.drops_all }))
        });
    }

    /// Whether an append would be taken without waiting.
    pub fn has_room(&self) -> bool {
        self.shared.queue.would_take(0)
    }

    /// Saves a vote; `done` is called once it is in the log and in the high-water file.
    pub fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        if vote.len() > VOTE_BYTES_MAX {
            let text = format!("a vote of {} bytes", vote.len());
            done(Err(StoreError::Invalid(text)));
            return;
        }
        self.submit(group, META_COST_BYTES, done, |_, cell, sequence| {
            cell.meta.vote = Some(vote);
            cell.meta.sequence = sequence;
            Ok(Some(Request::Meta { meta: cell.meta.clone(), compact_to: None, is_vote: true }))
        });
    }

    /// Saves a few opaque bytes for a group.
    pub fn save_extra(&self, group: GroupId, extra: Bytes, done: Done) {
        if extra.len() > EXTRA_BYTES_MAX {
            let text = format!("an extra of {} bytes", extra.len());
            done(Err(StoreError::Invalid(text)));
            return;
        }
        self.submit(group, META_COST_BYTES, done, |_, cell, sequence| {
            cell.meta.extra = Some(extra);
            cell.meta.sequence = sequence;
            Ok(Some(meta_request(cell, None)))
        });
    }

    /// Remembers how far the log is committed: a hint, written when the high-water file is next
    /// refreshed. After a restart it may be older or gone. Never waits for the disk.
    pub fn save_committed(&self, group: GroupId, committed: Option<Mark>) {
        let cell = self.shared.groups.read().get(&group).cloned();
        let Some(cell) = cell else {
            return;
        };
        cell.lock().committed = committed;
        self.shared.committed_changed.store(true, Ordering::Release);
    }

    /// Removes every entry from `index` on. Removing what is not there is done at once.
    pub fn truncate_from(&self, group: GroupId, index: u64, done: Done) {
        self.submit_prepared(group, done, |cell, known| {
            let Some(last) = cell.last.filter(|last| last.index >= index) else {
                return Ok(Step::Nothing);
            };
            if let Some(purged) = cell.purged()
                && purged.index >= index
            {
                return Err(StoreError::Purged { group, purged });
            }
            debug_assert!(last.index >= index);
            let before = if index <= cell.first {
                None
            } else {
                match head_at(cell, index - 1, known) {
                    Some(head) => Some(head),
                    None => return Ok(Step::Look(index - 1)),
                }
            };
            let sequence = self.shared.next_sequence();
            let freed = cell.truncate(index, before, sequence);
            self.shared.recent_bytes.fetch_sub(freed, Ordering::Relaxed);
            Ok(Step::Go(sequence, meta_request(cell, None)))
        });
    }

    /// Removes every entry up to and including `mark`. When the log ends before it, or has
    /// another entry there, the whole log is dropped and goes on behind `mark`. Purging what is
    /// purged is done at once.
    pub fn purge_to(&self, group: GroupId, mark: Mark, done: Done) {
        self.submit_prepared(group, done, |cell, known| {
            if cell.purged().is_some_and(|purged| purged.index >= mark.index) {
                return Ok(Step::Nothing);
            }
            let is_within = cell.last.is_some_and(|last| last.index >= mark.index);
            let head = if !is_within {
                None
            } else if mark.index.saturating_add(1) == cell.first && cell.purged().is_none() {
                // The log never held anything before it: only the mark is new.
                Some((mark, DIGEST_START))
            } else if mark.index < cell.first {
                let text = format!("group {group} begins at {}", cell.first);
                return Err(StoreError::Invalid(text));
            } else {
                match head_at(cell, mark.index, known) {
                    Some(head) => Some(head),
                    None => return Ok(Step::Look(mark.index)),
                }
            };
            let sequence = self.shared.next_sequence();
            let freed = match head {
                Some((found, digest)) if found == mark => cell.purge(mark, digest, sequence),
                Some(_) | None => cell.reset(mark, sequence),
            };
            self.shared.recent_bytes.fetch_sub(freed, Ordering::Relaxed);
            let slot = compact_slot(mark.index);
            Ok(Step::Go(sequence, meta_request(cell, Some(slot))))
        });
    }

    /// Forgets a group: its vote, its log and its place in the high-water file. Its checkpoint
    /// and snapshots are the caller's to remove.
    pub fn remove_group(&self, group: GroupId, done: Done) {
        self.submit(group, META_COST_BYTES, done, |_, cell, _| {
            self.shared.recent_bytes.fetch_sub(cell.held_bytes, Ordering::Relaxed);
            let epoch = cell.epoch + 1;
            *cell = Group::new();
            cell.epoch = epoch;
            Ok(Some(Request::Remove))
        });
    }

    /// Asks the engine again to forget what is purged: it may have lost that with an old file.
    fn compact_again(&self, group: GroupId) {
        let done: Done = Box::new(|_| ());
        self.submit(group, META_COST_BYTES, done, |_, cell, sequence| {
            let slot = cell.purged().map(|mark| compact_slot(mark.index));
            cell.meta.sequence = sequence;
            Ok(Some(meta_request(cell, slot)))
        });
    }

    /// Reserves room, changes the group and queues the request, in the order of the group's lock.
    fn submit(
        &self,
        group: GroupId,
        bytes: u64,
        done: Done,
        change: impl FnOnce(GroupId, &mut Group, u64) -> Result<Option<Request>, StoreError>,
    ) {
        let cell = match self.shared.queue.reserve(bytes).and_then(|()| self.cell(group)) {
            Ok(cell) => cell,
            Err(error) => {
                done(Err(error));
                return;
            }
        };
        let mut locked = cell.lock();
        let sequence = self.shared.next_sequence();
        match change(group, &mut locked, sequence) {
            Ok(Some(request)) => self.push(&locked, group, sequence, request, bytes, done),
            Ok(None) => {
                drop(locked);
                self.shared.queue.release(1, bytes);
                done(Ok(()));
            }
            Err(error) => {
                drop(locked);
                self.shared.queue.release(1, bytes);
                done(Err(error));
            }
        }
    }

    fn push(
        &self,
        locked: &MutexGuard<'_, Group>,
        group: GroupId,
        sequence: u64,
        request: Request,
        bytes: u64,
        done: Done,
    ) {
        if let Some(turns) = &self.shared.options.turns {
            turns.queued();
        }
        self.shared.queue.push(Queued { group, sequence, request, last: locked.last, bytes, done });
    }

    /// As [`Self::submit`], for changes that may have to look at an entry on disk first, which
    /// is done without the lock.
    fn submit_prepared(
        &self,
        group: GroupId,
        done: Done,
        mut change: impl FnMut(&mut Group, Option<&EntryRecord>) -> Result<Step, StoreError>,
    ) {
        let outcome = self.shared.queue.reserve(META_COST_BYTES);
        let cell = match outcome.and_then(|()| self.cell(group)) {
            Ok(cell) => cell,
            Err(error) => {
                done(Err(error));
                return;
            }
        };
        let mut known: Option<(u64, EntryRecord)> = None;
        let result = loop {
            let mut locked = cell.lock();
            let usable = known.as_ref().filter(|(epoch, _)| *epoch == locked.epoch);
            match change(&mut locked, usable.map(|(_, record)| record)) {
                Ok(Step::Go(sequence, request)) => {
                    self.push(&locked, group, sequence, request, META_COST_BYTES, done);
                    return;
                }
                Ok(Step::Nothing) => break Ok(()),
                Ok(Step::Look(index)) => {
                    let epoch = locked.epoch;
                    drop(locked);
                    match self.cold(group, (index, index + 1), 0) {
                        Ok(records) => {
                            known = records.into_iter().next().map(|record| (epoch, record));
                        }
                        Err(error) => break Err(error),
                    }
                }
                Err(error) => break Err(error),
            }
        };
        self.shared.queue.release(1, META_COST_BYTES);
        done(result);
    }

    /// Reads entries of the disk, on the reader's thread.
    fn cold(
        &self,
        group: GroupId,
        range: (u64, u64),
        bytes_max: u64,
    ) -> Result<Vec<EntryRecord>, StoreError> {
        let salt = self.shared.salt;
        let counter = &self.shared.counters.cold_reads;
        counter.fetch_add(1, Ordering::Relaxed);
        self.running.0.reader.run(move |engine| fetch(engine, salt, group, range, bytes_max))?
    }

    /// Reads entries of `range`: at least one, then as many as fit into `bytes_max`. Entries of
    /// unfinished appends are read like any other. Where a log that was never purged begins
    /// later than the range, so does what is read.
    ///
    /// # Errors
    /// [`StoreError::Purged`] when the range begins too early, [`StoreError::NoSuchEntry`] when
    /// it begins or ends too late.
    pub fn read(
        &self,
        group: GroupId,
        mut range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let missing = |index| StoreError::NoSuchEntry { group, index };
        let cell = self.shared.groups.read().get(&group).cloned();
        let cell = cell.ok_or_else(|| missing(range.start))?;
        loop {
            let (epoch, cold_end) = {
                let locked = cell.lock();
                if let Some(purged) = locked.purged().filter(|mark| mark.index >= range.start) {
                    return Err(StoreError::Purged { group, purged });
                }
                let end = locked.last.map_or(0, |last| last.index.saturating_add(1));
                if range.end > end || locked.is_empty() {
                    return Err(missing(end.max(range.start)));
                }
                // Only a log that was never purged has nothing before its first entry.
                range.start = range.start.max(locked.first);
                if range.is_empty() {
                    return Ok(Vec::new());
                }
                if locked.recent_from() <= range.start {
                    return Ok(take_recent(&locked, range, bytes_max, Vec::new()));
                }
                (locked.epoch, locked.recent_from().min(range.end))
            };
            let found = self.cold(group, (range.start, cold_end), bytes_max);
            let locked = cell.lock();
            if locked.epoch != epoch {
                continue;
            }
            let entries: Vec<Entry> = found?
                .into_iter()
                .map(|record| Entry { mark: record.mark, data: record.data })
                .collect();
            let reached = range.start + entries.len() as u64;
            if reached < cold_end || reached < locked.recent_from() {
                return Ok(entries);
            }
            return Ok(take_recent(&locked, reached..range.end, bytes_max, entries));
        }
    }

    /// What the store has done so far.
    pub fn counters(&self) -> StoreCounters {
        self.shared.snapshot_counters()
    }

    /// How long the syncs of the log took so far.
    pub fn sync_times(&self) -> DurationCounts {
        self.shared.health().sync_times.counts()
    }

    /// Requests to the log that are not durable yet.
    pub fn waiting(&self) -> usize {
        self.shared.queue.waiting()
    }

    /// For how long the disk has not answered what is being written to the log now; zero when
    /// nothing is.
    pub fn waits_for_disk(&self) -> Duration {
        self.shared.waits_for()
    }

    /// Groups that hold back old log files and should be checkpointed and purged; named once.
    pub fn take_laggards(&self) -> Vec<GroupId> {
        let mut laggards = self.shared.laggards.lock();
        std::mem::take(&mut *laggards).into_iter().collect()
    }

    /// Bytes left on the disk, as of the last look, at most half a second ago.
    pub fn free_bytes(&self) -> u64 {
        self.shared.free_bytes.load(Ordering::Relaxed)
    }

    /// Whether the disk has more left than the reserve. When not: take no new events, but go on
    /// acknowledging, reading and purging.
    pub fn admits(&self) -> bool {
        self.free_bytes() > self.shared.options.reserve_bytes
    }

    /// How full the disk is, and with what. Walks the directory: not for a thread that must not wait.
    ///
    /// # Errors
    /// When the disk does not say how much of it is left.
    pub fn disk_usage(&self) -> std::io::Result<DiskUsage> {
        usage::look(&self.shared.dir, self.shared.options.reserve_bytes)
    }

    /// Why the store failed, if it did. Then the process must stop.
    pub fn fatal(&self) -> Option<Arc<str>> {
        self.shared.fatal()
    }

    /// The checkpoint of a group.
    pub fn checkpoint(&self, group: GroupId) -> Checkpoint {
        Checkpoint::new(self.running.0.checkpoints.clone(), group)
    }

    /// The snapshots of a group.
    pub fn snapshots(&self, group: GroupId) -> Snapshots {
        Snapshots::new(self.shared.clone(), group)
    }

    /// Makes everything queued durable, ends the threads and writes the high-water file last.
    /// Later requests are refused. Must not be called from a `done`.
    ///
    /// # Errors
    /// When the store had failed or fails doing this: then the next open is as after a crash.
    pub fn close(&self) -> Result<(), StoreError> {
        self.running.0.stop()
    }

    /// Makes the next sync of the log fail, to test what happens then.
    #[doc(hidden)]
    pub fn inject_sync_failure(&self) {
        let flag = &self.shared.health().fail_next_sync;
        flag.store(true, Ordering::Release);
    }
}

/// What a prepared change found.
enum Step {
    Go(u64, Request),
    Nothing,
    /// The entry at this index must be read first.
    Look(u64),
}

fn meta_request(cell: &Group, compact_to: Option<u64>) -> Request {
    Request::Meta { meta: cell.meta.clone(), compact_to, is_vote: false }
}

/// Mark and digest of an entry, from memory or from what was read.
fn head_at(cell: &Group, index: u64, known: Option<&EntryRecord>) -> Option<(Mark, u32)> {
    if let Some(recent) = cell.recent_at(index) {
        return Some((recent.entry.mark, recent.digest));
    }
    let record = known.filter(|record| record.mark.index == index)?;
    Some((record.mark, record.digest))
}

fn take_recent(
    locked: &Group,
    range: Range<u64>,
    bytes_max: u64,
    mut entries: Vec<Entry>,
) -> Vec<Entry> {
    let mut bytes: u64 = entries.iter().map(|entry| entry.data.len() as u64).sum();
    for index in range {
        let Some(recent) = locked.recent_at(index) else {
            break;
        };
        bytes += recent.entry.data.len() as u64;
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(recent.entry.clone());
    }
    entries
}

impl Core {
    fn stop(&self) -> Result<(), StoreError> {
        let Some(parts) = self.parts.lock().take() else {
            return self.outcome();
        };
        self.shared.queue.close();
        join(parts.writer);
        *self.shared.stopping.lock() = true;
        self.shared.stopped.notify_all();
        join(parts.janitor);
        self.reader.stop();
        self.checkpoints.close();
        let engine = parts.engine;
        // Dropping the engine shortens and syncs its last files, and panics when it cannot.
        if caught(|| drop(engine)).is_none() {
            self.shared.fail("closing the log failed");
        }
        if let Some(failure) = self.shared.health().failure() {
            self.shared.fail(&failure);
        }
        self.outcome()?;
        if self.shared.is_gone() {
            return Ok(());
        }
        let committed = self.shared.committed();
        let mut high = self.shared.water.lock();
        high.note_committed(&committed);
        high.water.clean = true;
        let written = high.write_both();
        drop(parts.lock);
        written.map_err(|error| StoreError::io("write the high-water file", &error))
    }

    fn outcome(&self) -> Result<(), StoreError> {
        match self.shared.fatal() {
            Some(reason) => Err(StoreError::Fatal(reason)),
            None => Ok(()),
        }
    }
}

impl Core {
    /// Whether this is one of the threads that stopping waits for.
    fn is_own_thread(&self) -> bool {
        let current = std::thread::current().id();
        self.parts.lock().as_ref().is_some_and(|parts| {
            parts.writer.thread().id() == current || parts.janitor.thread().id() == current
        })
    }

    fn stop_at_drop(&self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the store was not closed gracefully");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.0.is_own_thread() {
            self.0.stop_at_drop();
            return;
        }
        // An answer owned the last handle: the writer cannot wait for itself.
        let core = self.0.clone();
        if let Err(error) = spawn("store-close", move || core.stop_at_drop()) {
            tracing::error!(%error, "the store was not closed gracefully");
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the store panicked");
    }
}
