//! Snapshots: the whole state of a partition in one verified file.
//!
//! A snapshot is made from the checkpoint, brought up to date first: only the checkpointer waits
//! meanwhile, applying goes on. When the checkpoint has fallen behind, it is made from memory:
//! applying waits while rows are gathered, about 0.2 microseconds each. Its records are chunks of `[length][row]...`. The log is purged
//! only up to the older of the two newest verified snapshots, so that one of them may be bad.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use ackord_machine::site::{Effect, Row, State, Write, decode_row, encode_row};
use ackord_store::{SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots, StoreError};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::changes::Changes;
use crate::checkpoint::{self, Meta};
use crate::partition::{Applied, Partition};
use crate::types::{RaftLogId, Snapshot, SnapshotMeta, decode_versioned, encode_versioned};

/// Rows are gathered into records of about this size.
const RECORD_BYTES: usize = 256 << 10;
/// Raw bytes copied at once when a snapshot comes from elsewhere.
const COPY_BYTES: u64 = 1 << 20;

/// A verified snapshot in a data directory.
pub(crate) struct SnapshotFile {
    pub(crate) home: Snapshots,
    pub(crate) id: String,
}

fn other(error: StoreError) -> io::Error {
    let kind = match &error {
        StoreError::NoSpace(_) => io::ErrorKind::StorageFull,
        StoreError::Busy
        | StoreError::Closed
        | StoreError::Fatal(_)
        | StoreError::Purged { .. }
        | StoreError::NoSuchEntry { .. }
        | StoreError::Invalid(_)
        | StoreError::Damaged(_)
        | StoreError::Io { .. } => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

pub(crate) fn meta_of(info: &SnapshotInfo) -> io::Result<Meta> {
    decode_versioned(&info.meta, "snapshot")
}

fn raft_snapshot(home: Snapshots, info: &SnapshotInfo) -> io::Result<Snapshot> {
    let meta = meta_of(info)?;
    Ok(Snapshot {
        meta: SnapshotMeta { last_log_id: meta.last, last_membership: meta.membership },
        snapshot: SnapshotFile { home, id: info.id.clone() },
    })
}

/// The verified snapshots of what was applied here, the newest first. One that was received is there
/// before raft installs it: taken for one of this node's own, raft would purge the log up to it, and
/// skip what was never applied.
fn held(partition: &Partition) -> io::Result<Vec<(SnapshotInfo, Meta)>> {
    let list = partition.shared.store.snapshots(partition.group).list().map_err(other)?;
    let applied = partition.applied.read().last;
    let mut held = Vec::with_capacity(list.len());
    for info in list {
        let meta = meta_of(&info)?;
        if meta.last <= applied {
            held.push((info, meta));
        }
    }
    Ok(held)
}

/// The newest verified snapshot of what was applied here.
pub(crate) fn newest(partition: &Partition) -> io::Result<Option<Snapshot>> {
    let home = partition.shared.store.snapshots(partition.group);
    let held = held(partition)?;
    held.first().map(|(info, _)| raft_snapshot(home, info)).transpose()
}

/// Writes a snapshot and then lets raft take it as its own. One at a time; a full disk only puts
/// it off, and so does a log that is behind what was applied.
pub(crate) fn start(partition: &Arc<Partition>, runtime: &tokio::runtime::Handle) {
    if partition.stopped() || !partition.may_snapshot() {
        return;
    }
    if partition.snapshot_pending.swap(true, Ordering::AcqRel) {
        return;
    }
    let partition = partition.clone();
    let handle = runtime.clone();
    crate::blocking::begin(runtime, move || {
        match build(&partition) {
            Ok(_) => {
                let taker = partition.clone();
                handle.spawn(async move {
                    if let Some(raft) = taker.raft.get()
                        && let Err(error) = raft.trigger().snapshot().await
                    {
                        tracing::warn!(partition = taker.number, %error, "raft takes no snapshot");
                    }
                });
            }
            Err(error) if put_off(&error) => {
                partition.put_off_snapshot();
                tracing::warn!(partition = partition.number, %error, "a snapshot is put off");
            }
            Err(error) => {
                let text = format!("snapshot of partition {}: {error}", partition.number);
                partition.shared.fatal.raise(&text);
            }
        }
        partition.snapshot_pending.store(false, Ordering::Release);
    });
}

/// Whether a snapshot is only late: no room, a log that is behind, or a node that is stopping.
fn put_off(error: &io::Error) -> bool {
    let closed = error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>());
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::WouldBlock)
        || matches!(closed, Some(StoreError::Closed))
}

/// A snapshot must not take what the disk keeps in reserve for the log: it would stop the node.
/// The state's size in memory is more than it takes in a file.
fn check_room(partition: &Partition) -> io::Result<()> {
    let shared = &partition.shared;
    let needed = partition.gauges.state_bytes.load(Ordering::Relaxed);
    let free = shared.store.free_bytes();
    if free.saturating_sub(needed) > shared.options.disk_reserve_bytes {
        return Ok(());
    }
    let detail = format!(
        "a snapshot of {needed} bytes leaves less than the reserve of {} of {free} that are free",
        shared.options.disk_reserve_bytes
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, detail))
}

/// Writes a snapshot of the state as applied now.
pub(crate) fn build(partition: &Arc<Partition>) -> io::Result<Snapshot> {
    // One at a time on a node: each would count on the same room.
    let _turn = partition.shared.snapshotting.lock();
    check_room(partition)?;
    let home = partition.shared.store.snapshots(partition.group);
    let id = new_id(partition);
    let written = from_checkpoint(partition, &home, &id)?;
    let (meta, writer) = match written {
        Some(written) => written,
        None => from_memory(partition, &home, &id)?,
    };
    let info = writer.finish(&encode_versioned(&meta)?)?;
    partition.gauges.snapshot_log_bytes.store(meta.log_bytes, Ordering::Relaxed);
    partition.shared.counters.snapshots_built.add(1);
    tracing::info!(partition = partition.number, id, bytes = info.bytes, "snapshot written");
    raft_snapshot(home, &info)
}

/// Never used twice, here or on another node.
fn new_id(partition: &Partition) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{}-{now}", partition.shared.node, partition.number)
}

fn check_durable(partition: &Partition, applied: &Applied) -> io::Result<()> {
    if checkpoint::durable(partition, applied) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the log is behind what was applied"))
}

/// The checkpoint's rows, brought up to date first. `None` when it is not sound or too much would
/// have to be brought up to date.
fn from_checkpoint(
    partition: &Partition,
    home: &Snapshots,
    id: &str,
) -> io::Result<Option<(Meta, RecordWriter)>> {
    let mut held = partition.checkpoint.lock();
    let few = {
        let applied = partition.applied.read();
        check_durable(partition, &applied)?;
        match &applied.changes {
            Changes::None | Changes::Applied => true,
            Changes::Rows(keys) => keys.len() <= 2 * partition.shared.options.checkpoint_rows_max,
            Changes::Lost => false,
        }
    };
    if !few || !checkpoint::write(partition, &mut held).map_err(other)? {
        return Ok(None);
    }
    let mut writer = RecordWriter::new(home.create(id).map_err(other)?);
    let mut failure = None;
    let loaded = partition.shared.store.checkpoint(partition.group).load_with(|_, row| {
        if failure.is_none() {
            failure = writer.put(&row).err();
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    match loaded {
        Ok(None) => Ok(None),
        Ok(Some(meta)) => {
            let meta: Meta = decode_versioned(&meta, "checkpoint")?;
            Ok(meta.complete.then_some((meta, writer)))
        }
        Err(StoreError::Damaged(what)) => {
            tracing::warn!(partition = partition.number, what, "the checkpoint is damaged");
            partition.applied.write().changes = Changes::Lost;
            Ok(None)
        }
        Err(error) => Err(other(error)),
    }
}

/// The rows in memory, gathered while applying waits and written while it goes on.
fn from_memory(
    partition: &Partition,
    home: &Snapshots,
    id: &str,
) -> io::Result<(Meta, RecordWriter)> {
    let (meta, rows) = {
        let applied = partition.applied.read();
        check_durable(partition, &applied)?;
        checkpoint::all_rows(&applied)
    };
    let mut writer = RecordWriter::new(home.create(id).map_err(other)?);
    rows.iter().try_for_each(|row| writer.put(&encode_row(row)))?;
    Ok((meta, writer))
}

/// Replaces the state by a snapshot that came from another node.
pub(crate) fn install(
    partition: &Partition,
    meta: &SnapshotMeta,
    file: &SnapshotFile,
) -> io::Result<()> {
    let home = partition.shared.store.snapshots(partition.group);
    let mut reader = match home.open(&file.id).map_err(other)? {
        Some(reader) => reader,
        None => {
            copy(&file.home, &file.id, &home)?;
            home.open(&file.id)
                .map_err(other)?
                .ok_or_else(|| io::Error::other("a snapshot that was received is gone"))?
        }
    };
    let applied = load(&mut reader)?;
    if applied.last != meta.last_log_id {
        return Err(io::Error::other("a snapshot is not what it was announced as"));
    }
    let mut pace = partition.checkpoint.lock();
    let effects = {
        let mut current = partition.applied.write();
        let sites = current.state.sites().chain(applied.state.sites());
        let effects: Vec<Effect> =
            sites.map(|site| Effect::Site { site: site.name().clone() }).collect();
        partition.observe(&applied);
        partition.gauges.snapshot_log_bytes.store(applied.log_bytes, Ordering::Relaxed);
        *current = applied;
        effects
    };
    if !checkpoint::rebuild(partition, &mut pace).map_err(other)? {
        tracing::info!(partition = partition.number, "stopping: no checkpoint of a snapshot");
    }
    partition.shared.counters.snapshots_installed.add(1);
    partition.announce(meta.last_log_id);
    partition.publish(&effects);
    Ok(())
}

pub(crate) fn copy(from: &Snapshots, id: &str, to: &Snapshots) -> io::Result<()> {
    let source = from
        .open(id)
        .map_err(other)?
        .ok_or_else(|| io::Error::other(format!("there is no snapshot {id}")))?;
    let mut receiver = to.receive(id).map_err(other)?;
    loop {
        let offset = receiver.received();
        let bytes = source.read_raw(offset, COPY_BYTES).map_err(other)?;
        if bytes.is_empty() {
            break;
        }
        receiver.write(offset, &bytes).map_err(other)?;
    }
    receiver.finish().map(drop).map_err(other)
}

/// The state that a snapshot holds.
pub(crate) fn load(reader: &mut SnapshotReader) -> io::Result<Applied> {
    let meta = meta_of(reader.info())?;
    let mut state = State::new();
    while let Some(record) = reader.next_record().map_err(other)? {
        for_each_row(record, |row| state.absorb(&Write::Put(row)))?;
    }
    Ok(Applied {
        state,
        last: meta.last,
        membership: meta.membership,
        log_bytes: meta.log_bytes,
        ..Applied::default()
    })
}

pub(crate) fn for_each_row(mut record: Bytes, mut take: impl FnMut(Row)) -> io::Result<()> {
    let bad =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("snapshot record: {what}"));
    while record.has_remaining() {
        let length = record.try_get_u32_le().map_err(|_| bad("cut short"))? as usize;
        if length > record.remaining() {
            return Err(bad("cut short"));
        }
        let row = record.split_to(length);
        take(decode_row(&row).map_err(|error| bad(&error.to_string()))?);
    }
    Ok(())
}

/// Gathers rows into records.
struct RecordWriter {
    writer: SnapshotWriter,
    record: BytesMut,
}

impl RecordWriter {
    fn new(writer: SnapshotWriter) -> Self {
        Self { writer, record: BytesMut::with_capacity(RECORD_BYTES) }
    }

    fn put(&mut self, row: &[u8]) -> io::Result<()> {
        let length = u32::try_from(row.len()).map_err(io::Error::other)?;
        self.record.put_u32_le(length);
        self.record.put_slice(row);
        if self.record.len() >= RECORD_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.put(&self.record).map_err(other)?;
        self.record.clear();
        Ok(())
    }

    fn finish(mut self, meta: &[u8]) -> io::Result<SnapshotInfo> {
        if !self.record.is_empty() {
            self.flush()?;
        }
        self.writer.finish(meta).map_err(other)
    }
}

/// The last entry of the older of the two newest verified snapshots of what was applied here.
pub(crate) fn purgeable(partition: &Partition) -> io::Result<Option<RaftLogId>> {
    let held = held(partition)?;
    Ok(held.get(1).and_then(|(_, meta)| meta.last))
}

/// Asks raft to purge the log up to `upto`; raft sees to it that its own snapshot covers it.
pub(crate) async fn purge(partition: &Partition, upto: RaftLogId) {
    let Some(raft) = partition.raft.get() else { return };
    match raft.trigger().purge_log(upto.index()).await {
        Ok(()) => partition.shared.counters.purges.add(1),
        Err(error) => tracing::warn!(partition = partition.number, %error, "cannot purge the log"),
    }
}
