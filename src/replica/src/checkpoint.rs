//! The checkpoint of each partition: changed rows, written every few hundred milliseconds.
//!
//! `apply marks rows ─▶ signal ─▶ checkpointer thread: cut under the lock ─▶ encode ─▶ one batch`
//!
//! Invariants: a checkpoint that counts is a consistent cut: rows, last applied entry and
//! membership of one moment; it never holds more than this node's log holds durably; a cut too
//! large for one batch does not count until its last batch is written. It is a cache: on doubt it
//! is discarded and written anew. An idle node does not wake for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ackord_machine::site::{Row, RowKey, encode_key, encode_row};
use ackord_store::{Checkpoint, StoreError};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLockWriteGuard};
use serde::{Deserialize, Serialize};

use crate::partition::{Applied, Partition, Shared};
use crate::snapshot;
use crate::types::{RaftLogId, StoredMembership, encode_versioned};

/// Bytes after which a batch takes no further row. A row is far below the store's own bound.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Rows of one batch.
const BATCH_ROWS_MAX: usize = 16_384;
/// After a checkpoint that took long the next waits this many times as long, so that the log
/// keeps most of the disk.
const PAUSE_FACTOR: u32 = 4;
/// How long to wait after a full disk refused a checkpoint.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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

    /// A partition applied an entry; it now has `rows` changed rows.
    pub(crate) fn dirtied(&self, was_clean: bool, rows: usize) {
        if was_clean || rows >= self.rows_max {
            let mut asked = self.asked.lock();
            let news = !asked.dirty || (rows >= self.rows_max && !asked.urgent);
            asked.dirty = true;
            asked.urgent |= rows >= self.rows_max;
            if news {
                self.arrived.notify_one();
            }
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self, how: Stop) {
        self.asked.lock().stop = Some(how);
        self.arrived.notify_one();
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
        let mut left = false;
        for partition in partitions {
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
        pause = started.elapsed() * PAUSE_FACTOR;
        if left {
            pause = pause.max(RETRY_PAUSE);
            shared.checkpoints.dirtied(true, 0);
        }
    };
    match stop {
        Stop::Written => {
            for partition in partitions {
                let _held = partition.checkpoint.lock();
                write_or_fail(partition);
            }
        }
        Stop::Now => {}
    }
}

/// Writes a partition's checkpoint. False when there is something left to write.
fn pass(partition: &Partition) -> bool {
    // Not while a snapshot is being made from it: the next pass has this one's rows too.
    partition.checkpoint.try_lock().is_some_and(|_held| write_or_fail(partition))
}

/// As [`write`]; a failure other than a full disk is the node's end.
fn write_or_fail(partition: &Partition) -> bool {
    if partition.stopped() {
        return true;
    }
    match write(partition) {
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

/// Writes what changed since the last checkpoint. The caller holds the partition's checkpoint
/// lock. False when the log does not hold the newest entries durably yet.
pub(crate) fn write(partition: &Partition) -> Result<bool, StoreError> {
    let cut = {
        let mut applied = partition.applied.write();
        if applied.dirty.is_empty() && !applied.advanced {
            return Ok(true);
        }
        if let Some(last) = &applied.last
            && !partition.durable.covers(last.index())
        {
            return Ok(false);
        }
        let dirty = std::mem::take(&mut applied.dirty);
        applied.advanced = false;
        // Applying waits, readers do not.
        let applied = RwLockWriteGuard::downgrade(applied);
        let rows = dirty
            .into_iter()
            .map(|key| {
                let row = applied.state.row(&key);
                (key, row)
            })
            .collect();
        Cut { meta: Meta::of(&applied), rows }
    };
    let checkpoint = partition.shared.store.checkpoint(partition.group);
    let written = write_cut(&checkpoint, &cut);
    if let Err(error) = written {
        if !matches!(error, StoreError::Damaged(_)) {
            let mut applied = partition.applied.write();
            applied.dirty.extend(cut.rows.into_iter().map(|(key, _)| key));
            applied.advanced = true;
            return Err(error);
        }
        tracing::warn!(partition = partition.number, %error, "the checkpoint is damaged, writing it anew");
        rebuild(partition).map(drop)?;
    }
    partition.shared.counters.checkpoints.add(1);
    partition.shared.counters.checkpoint_rows.add(cut.rows.len() as u64);
    Ok(true)
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

/// Discards the checkpoint and writes the whole state. The caller holds the partition's
/// checkpoint lock. Applying waits while the rows are gathered: this is not the usual way.
/// Returns what it wrote.
pub(crate) fn rebuild(partition: &Partition) -> Result<(Meta, Vec<Row>), StoreError> {
    let checkpoint = partition.shared.store.checkpoint(partition.group);
    checkpoint.reset()?;
    let (meta, rows) = cut_all(partition);
    let (mut puts, mut bytes) = (Vec::new(), 0);
    for row in &rows {
        if bytes >= BATCH_BYTES_MAX || puts.len() >= BATCH_ROWS_MAX {
            checkpoint.fill(std::mem::take(&mut puts))?;
            bytes = 0;
        }
        let (key, row) = (encode_key(&row.key()), encode_row(row));
        bytes += key.len() + row.len();
        puts.push((key, row));
    }
    checkpoint.fill(puts)?;
    checkpoint.write(meta.encode()?, Vec::new(), Vec::new())?;
    partition.shared.counters.checkpoint_rebuilds.add(1);
    partition.shared.counters.checkpoint_rows.add(rows.len() as u64);
    Ok((meta, rows))
}

/// Every row of one moment, after which nothing counts as changed.
fn cut_all(partition: &Partition) -> (Meta, Vec<Row>) {
    let mut applied = partition.applied.write();
    applied.dirty.clear();
    applied.advanced = false;
    let applied = RwLockWriteGuard::downgrade(applied);
    (Meta::of(&applied), applied.state.rows().collect())
}
