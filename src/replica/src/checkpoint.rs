//! The checkpoint of each partition: changed rows, written every two seconds.
//!
//! `apply marks rows ─▶ signal ─▶ checkpointer thread: cut under the lock ─▶ encode ─▶ one batch`
//!
//! Invariants: a checkpoint that counts is a consistent cut: rows, last applied entry and
//! membership of one moment; it never holds more than this node's log holds durably; a cut too
//! large for one batch does not count until its last batch is written. It is a cache: on doubt it
//! is discarded and written anew. It takes only a share of a core, so a partition may change
//! faster than it is written; then it falls behind and snapshot and log do its work. An idle node
//! does not wake for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ackord_machine::site::{Row, RowKey, encode_key, encode_row};
use ackord_store::{Checkpoint, StoreError};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLockWriteGuard};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::changes::Changes;
use crate::partition::{Applied, Partition, Shared};
use crate::snapshot;
use crate::types::{RaftLogId, StoredMembership, encode_versioned};

/// Bytes after which a batch takes no further row: with one more still within the store's bound.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Rows of one batch. The database copies a node of its tree for each row and forgets none of the copies before the
/// batch ends: 16,384 rows took 60 MiB for that, and the allocator kept them.
/// The price: a larger cut does not count while it is being written, and who starts then has snapshot and log.
const BATCH_ROWS_MAX: usize = 1024;
/// After a checkpoint that took long the next waits this many times as long: writing checkpoints takes
/// a twentieth of a core at most, and the log keeps most of the disk. A state that turns over faster
/// than that is not chased.
const PAUSE_FACTOR: u32 = 19;
/// The same for writing a whole state anew.
const REBUILD_PAUSE_FACTOR: u32 = 10;
/// How long to wait at least before writing a whole state anew again.
const REBUILD_PAUSE_MIN: Duration = Duration::from_secs(5);
/// How long to wait when something was left to write.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Rows that a graceful stop writes; with more, replaying the log at the start is faster.
const STOP_ROWS_MAX: usize = 16_384;

/// Bytes of log between two looks, at least [`RETRY_PAUSE`] apart, up to which a partition counts
/// as calm.
const CALM_LOG_BYTES_MAX: u64 = 256 << 10;

/// When a partition's whole state may be written anew: after it calmed down, for what is written
/// before would be old at once, and not too often. Its lock is held while the checkpoint is
/// written, and while a snapshot is made from it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    rebuild_not_before: Option<Instant>,
    log_bytes_seen: u64,
}

impl Pace {
    fn allows_rebuild(&mut self, log_bytes: u64) -> bool {
        let grown = log_bytes.saturating_sub(self.log_bytes_seen);
        self.log_bytes_seen = log_bytes;
        grown <= CALM_LOG_BYTES_MAX && self.rebuild_not_before.is_none_or(|at| at <= Instant::now())
    }

    fn rebuilt_in(&mut self, duration: Duration) {
        let pause = (duration * REBUILD_PAUSE_FACTOR).max(REBUILD_PAUSE_MIN);
        self.rebuild_not_before = Some(Instant::now() + pause);
    }
}

/// What a checkpoint or a snapshot says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Whether the rows are those of the moment below; not so between the batches of a large cut.
    pub(crate) complete: bool,
    /// The last entry applied.
    pub(crate) last: Option<RaftLogId>,
    /// The membership as of `last`.
    pub(crate) membership: StoredMembership,
    /// See [`Applied::log_bytes`].
    pub(crate) log_bytes: u64,
}

impl Meta {
    pub(crate) fn of(applied: &Applied) -> Self {
        Self {
            complete: true,
            last: applied.last,
            membership: applied.membership.clone(),
            log_bytes: applied.log_bytes,
        }
    }

    fn encode(&self) -> Result<Bytes, StoreError> {
        encode_versioned(self).map_err(|error| StoreError::Invalid(error.to_string()))
    }
}

/// Wakes the checkpointer thread.
#[derive(Default)]
pub(crate) struct CheckpointSignal {
    asked: Mutex<Asked>,
    arrived: Condvar,
    rows_max: usize,
}

#[derive(Default)]
struct Asked {
    dirty: bool,
    urgent: bool,
    stop: Option<Stop>,
}

/// How the checkpointer thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// After it wrote everything that is left.
    Written,
    /// As it is: the log has what is missing.
    Now,
}

impl CheckpointSignal {
    pub(crate) fn new(rows_max: usize) -> Self {
        Self { rows_max, ..Self::default() }
    }

    /// A partition applied an entry: it had `before` changed rows and has `now`.
    pub(crate) fn changed(&self, before: usize, now: usize) {
        let urgent = before < self.rows_max && now >= self.rows_max;
        if before == 0 && now > 0 || urgent {
            self.ask(urgent);
        }
    }

    fn ask(&self, urgent: bool) {
        let mut asked = self.asked.lock();
        asked.dirty = true;
        asked.urgent |= urgent;
        self.arrived.notify_one();
    }

    /// Ends the thread.
    pub(crate) fn stop(&self, how: Stop) {
        self.asked.lock().stop = Some(how);
        self.arrived.notify_one();
    }

    fn stopping(&self) -> bool {
        self.asked.lock().stop.is_some()
    }

    /// Waits until there is something to write and `interval` has passed or a partition has many
    /// rows, but at least `pause`. Says how to stop when asked to.
    fn wait(&self, interval: Duration, pause: Duration) -> Option<Stop> {
        let mut asked = self.asked.lock();
        let started = Instant::now();
        loop {
            if asked.stop.is_some() {
                return asked.stop;
            }
            let least = if asked.urgent { pause } else { interval.max(pause) };
            let waited = started.elapsed();
            if !asked.dirty {
                self.arrived.wait(&mut asked);
            } else if waited < least {
                self.arrived.wait_for(&mut asked, least - waited);
            } else {
                asked.dirty = false;
                asked.urgent = false;
                return None;
            }
        }
    }
}

/// The body of the checkpointer thread.
pub(crate) fn run(
    shared: &Arc<Shared>,
    partitions: &[Arc<Partition>],
    runtime: &tokio::runtime::Handle,
) {
    shared.fatal.guard_thread();
    let mut pause = Duration::ZERO;
    let stop = loop {
        if let Some(stop) = shared.checkpoints.wait(shared.options.checkpoint_interval, pause) {
            break stop;
        }
        let started = Instant::now();
        let left = round(shared, partitions, runtime);
        pause = started.elapsed() * PAUSE_FACTOR;
        if left {
            pause = pause.max(RETRY_PAUSE);
            shared.checkpoints.ask(false);
        }
    };
    match stop {
        Stop::Written => write_last(partitions),
        Stop::Now => {}
    }
}

/// The checkpointer of a node that is started on somebody else's runtime: a task of that, whose
/// time it keeps.
pub(crate) async fn run_here(shared: Arc<Shared>, partitions: Vec<Arc<Partition>>) {
    let runtime = tokio::runtime::Handle::current();
    loop {
        tokio::time::sleep(shared.options.checkpoint_interval).await;
        if shared.checkpoints.stopping() {
            return;
        }
        let (shared, partitions) = (shared.clone(), partitions.clone());
        let runtime = runtime.clone();
        let written = blocking(move || round(&shared, &partitions, &runtime)).await;
        if written.is_err() {
            return tracing::error!("the checkpointer panicked");
        }
    }
}

/// Writes what is due of every partition. True when something is left.
fn round(shared: &Shared, partitions: &[Arc<Partition>], runtime: &tokio::runtime::Handle) -> bool {
    let mut left = false;
    for partition in partitions {
        if shared.checkpoints.stopping() {
            break;
        }
        left |= !pass(partition);
        if partition.snapshot_due() {
            snapshot::start(partition, runtime);
        }
    }
    for group in shared.store.take_laggards() {
        if let Some(partition) = partitions.iter().find(|partition| partition.group == group) {
            snapshot::start(partition, runtime);
        }
    }
    left
}

/// The checkpoints of a graceful stop, those with the fewest changes first.
fn write_last(partitions: &[Arc<Partition>]) {
    let mut ordered: Vec<_> = partitions
        .iter()
        .map(|partition| (partition.applied.read().changes.rows(), partition))
        .collect();
    ordered.sort_by_key(|(rows, _)| *rows);
    let mut left = STOP_ROWS_MAX;
    for (rows, partition) in ordered {
        let Some(after) = left.checked_sub(rows) else { return };
        left = after;
        let mut pace = partition.checkpoint.lock();
        let lost = matches!(partition.applied.read().changes, Changes::Lost);
        if !lost {
            write_or_fail(partition, &mut pace);
        }
    }
}

/// Writes a partition's checkpoint. False when there is something left to write.
fn pass(partition: &Partition) -> bool {
    // Not while a snapshot is being made from it: the next pass has this one's rows too.
    partition.checkpoint.try_lock().is_some_and(|mut pace| write_or_fail(partition, &mut pace))
}

/// As [`write`]; a failure other than a full disk is the node's end.
fn write_or_fail(partition: &Partition, pace: &mut Pace) -> bool {
    if partition.stopped() {
        return true;
    }
    match write(partition, pace) {
        Ok(done) => done,
        Err(StoreError::NoSpace(what)) => {
            tracing::warn!(partition = partition.number, what, "no space for a checkpoint");
            false
        }
        Err(StoreError::Closed) => true,
        Err(error) => {
            let text = format!("checkpoint of partition {}: {error}", partition.number);
            partition.shared.fatal.raise(&text);
            true
        }
    }
}

/// Rows of one moment, ready to be encoded: cloning them copies little, instances are shared.
struct Cut {
    meta: Meta,
    rows: Vec<(RowKey, Option<Row>)>,
}

/// Writes what changed since the last checkpoint. False when there is something left: the log does
/// not hold the newest entries durably yet, or the whole state has to be written and was lately.
pub(crate) fn write(partition: &Partition, pace: &mut Pace) -> Result<bool, StoreError> {
    let cut = {
        let mut applied = partition.applied.write();
        match &applied.changes {
            Changes::None => return Ok(true),
            Changes::Applied | Changes::Rows(_) | Changes::Lost => {}
        }
        if !durable(partition, &applied) {
            return Ok(false);
        }
        let keys = match std::mem::take(&mut applied.changes) {
            Changes::None | Changes::Applied => HashSet::new(),
            Changes::Rows(keys) => keys,
            Changes::Lost => {
                applied.changes = Changes::Lost;
                drop(applied);
                return rebuild_at_pace(partition, pace);
            }
        };
        partition.gauges.cut_rows.store(keys.len() as u64, Ordering::Relaxed);
        // Applying waits, readers do not.
        let applied = RwLockWriteGuard::downgrade(applied);
        let row_of = |key| {
            let row = applied.state.row(&key);
            (key, row)
        };
        Cut { meta: Meta::of(&applied), rows: keys.into_iter().map(row_of).collect() }
    };
    let written = write_cut(&partition.shared.store.checkpoint(partition.group), &cut);
    partition.gauges.cut_rows.store(0, Ordering::Relaxed);
    match written {
        Ok(()) => {
            partition.shared.counters.checkpoints.add(1);
            partition.shared.counters.checkpoint_rows.add(cut.rows.len() as u64);
            Ok(true)
        }
        Err(StoreError::Damaged(what)) => {
            tracing::warn!(partition = partition.number, what, "the checkpoint is damaged");
            partition.applied.write().changes = Changes::Lost;
            rebuild_at_pace(partition, pace)
        }
        Err(error) => {
            let keys: HashSet<_> = cut.rows.into_iter().map(|(key, _)| key).collect();
            let changes = if keys.is_empty() { Changes::Applied } else { Changes::Rows(keys) };
            let rows_max = partition.shared.options.changed_rows_max();
            partition.applied.write().changes.put_back(changes, rows_max);
            Err(error)
        }
    }
}

/// Whether this node's log holds what was applied.
pub(crate) fn durable(partition: &Partition, applied: &Applied) -> bool {
    applied.last.is_none_or(|last| partition.durable.covers(last.index()))
}

fn write_cut(checkpoint: &Checkpoint, cut: &Cut) -> Result<(), StoreError> {
    let complete = cut.meta.encode()?;
    let partial = Meta::default().encode()?;
    let (mut puts, mut deletes, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (key, row) in &cut.rows {
        if bytes >= BATCH_BYTES_MAX || puts.len() + deletes.len() >= BATCH_ROWS_MAX {
            checkpoint.write(
                partial.clone(),
                std::mem::take(&mut puts),
                std::mem::take(&mut deletes),
            )?;
            bytes = 0;
        }
        let key = encode_key(key);
        bytes += key.len();
        match row {
            Some(row) => {
                let row = encode_row(row);
                bytes += row.len();
                puts.push((key, row));
            }
            None => deletes.push(key),
        }
    }
    checkpoint.write(complete, puts, deletes)
}

fn rebuild_at_pace(partition: &Partition, pace: &mut Pace) -> Result<bool, StoreError> {
    let log_bytes = partition.gauges.log_bytes.load(Ordering::Relaxed);
    if partition.shared.checkpoints.stopping() || !pace.allows_rebuild(log_bytes) {
        return Ok(false);
    }
    rebuild(partition, pace)
}

/// Discards the checkpoint and writes the whole state. Applying waits while the rows are gathered.
/// False when it was given up because the node stops.
pub(crate) fn rebuild(partition: &Partition, pace: &mut Pace) -> Result<bool, StoreError> {
    let started = Instant::now();
    let cut = {
        let mut applied = partition.applied.write();
        applied.changes = Changes::None;
        all_rows(&RwLockWriteGuard::downgrade(applied))
    };
    let written = write_all(partition, &cut);
    if !matches!(written, Ok(true)) {
        partition.applied.write().changes = Changes::Lost;
    }
    pace.rebuilt_in(started.elapsed());
    partition.shared.counters.checkpoint_rebuilds.add(1);
    written
}

fn write_all(partition: &Partition, (meta, rows): &(Meta, Vec<Row>)) -> Result<bool, StoreError> {
    let checkpoint = partition.shared.store.checkpoint(partition.group);
    checkpoint.reset()?;
    let (mut puts, mut bytes) = (Vec::new(), 0);
    for row in rows {
        if bytes >= BATCH_BYTES_MAX || puts.len() >= BATCH_ROWS_MAX {
            if partition.shared.checkpoints.stopping() {
                return Ok(false);
            }
            checkpoint.fill(std::mem::take(&mut puts))?;
            bytes = 0;
        }
        let (key, row) = (encode_key(&row.key()), encode_row(row));
        bytes += key.len() + row.len();
        puts.push((key, row));
    }
    checkpoint.fill(puts)?;
    checkpoint.write(meta.encode()?, Vec::new(), Vec::new())?;
    partition.shared.counters.checkpoint_rows.add(rows.len() as u64);
    Ok(true)
}

/// Every row of one moment.
pub(crate) fn all_rows(applied: &Applied) -> (Meta, Vec<Row>) {
    (Meta::of(applied), applied.state.rows().collect())
}
