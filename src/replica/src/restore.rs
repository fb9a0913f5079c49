//! How a partition comes back at a start: checkpoint, else newest snapshot, else the older one,
//! else nothing; the log since then is raft's to apply.
//!
//! Invariants: what is restored begins where the log can go on from it, and it is never ahead of
//! what the log holds: that would mean that the log lost acknowledged entries.

use ackord_machine::site::{State, Write, decode_row};
use ackord_store::{GroupId, LogState, Store, StoreError};

use crate::checkpoint::Meta;
use crate::error::StartError;
use crate::partition::Applied;
use crate::snapshot;
use crate::types::{RaftLogId, decode_versioned, log_id_of};

/// Where a restored state came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The checkpoint: it is as the state.
    Checkpoint,
    /// A snapshot: the checkpoint has to be written anew.
    Snapshot,
    /// Nothing was there: the log is whole.
    Nothing,
}

/// A partition's state as far as it was kept outside the log.
pub(crate) struct Restored {
    pub(crate) applied: Applied,
    pub(crate) source: Source,
    /// [`Applied::log_bytes`] of the newest snapshot.
    pub(crate) snapshot_log_bytes: u64,
}

/// Restores one partition.
pub(crate) fn restore(store: &Store, group: GroupId) -> Result<Restored, StartError> {
    let log = store.log_state(group);
    let failed = |detail: String| StartError::Restore { partition: group.0, detail };
    let snapshots = store.snapshots(group);
    let list = snapshots.list().map_err(|error| failed(error.to_string()))?;
    let newest = list.first().and_then(|info| snapshot::meta_of(info).ok());
    let snapshot_log_bytes = newest.as_ref().map_or(0, |meta| meta.log_bytes);
    let restored = |applied, source| Restored { applied, source, snapshot_log_bytes };

    if let Some(applied) = from_checkpoint(store, group)? {
        let installing = newest.as_ref().is_some_and(|meta| beyond(&log, meta.last.as_ref()));
        if beyond(&log, applied.last.as_ref()) && !installing {
            let (at, end) = (text(applied.last), text(log.last.map(log_id_of)));
            return Err(failed(format!(
                "the checkpoint has applied {at}, but the log ends at {end}: acknowledged entries are missing"
            )));
        }
        if continues(store, group, &log, applied.last.as_ref()) {
            return Ok(restored(applied, Source::Checkpoint));
        }
        tracing::warn!(%group, applied = text(applied.last), "the checkpoint does not fit the log");
        discard(store, group)?;
    }
    for info in &list {
        let opened = snapshots.open(&info.id).map_err(|error| failed(error.to_string()))?;
        let Some(mut reader) = opened else { continue };
        match snapshot::load(&mut reader) {
            Ok(applied) if continues(store, group, &log, applied.last.as_ref()) => {
                tracing::info!(%group, snapshot = info.id, "restored from a snapshot");
                return Ok(restored(applied, Source::Snapshot));
            }
            Ok(applied) => {
                tracing::warn!(%group, applied = text(applied.last), "a snapshot does not fit the log");
            }
            Err(error) => {
                tracing::warn!(%group, snapshot = info.id, %error, "a snapshot is unusable")
            }
        }
    }
    match log.purged {
        None => Ok(restored(Applied::default(), Source::Nothing)),
        Some(purged) => Err(failed(format!(
            "the log begins after {purged} and neither the checkpoint nor a snapshot reaches it"
        ))),
    }
}

fn text(id: Option<RaftLogId>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
}

/// Whether `last` is behind the end of the log.
pub(crate) fn beyond(log: &LogState, last: Option<&RaftLogId>) -> bool {
    last.map(RaftLogId::index) > log.last.map(|mark| mark.index)
}

/// Whether the log goes on where `last` ends, with the same entry there.
fn continues(store: &Store, group: GroupId, log: &LogState, last: Option<&RaftLogId>) -> bool {
    let Some(last) = last else { return log.purged.is_none() };
    if let Some(purged) = log.purged {
        if last.index() < purged.index {
            return false;
        }
        if last.index() == purged.index {
            return log_id_of(purged) == *last;
        }
    }
    if beyond(log, Some(last)) {
        // A snapshot was being installed: raft purges up to it.
        return true;
    }
    match store.read(group, last.index()..last.index() + 1, u64::MAX) {
        Ok(entries) => entries.first().is_some_and(|entry| log_id_of(entry.mark) == *last),
        Err(error) => {
            tracing::warn!(%group, %error, "cannot read the log entry that was applied last");
            false
        }
    }
}

/// The state that the checkpoint holds, if there is one that counts.
fn from_checkpoint(store: &Store, group: GroupId) -> Result<Option<Applied>, StartError> {
    let mut state = State::new();
    let mut malformed = None;
    let loaded = store.checkpoint(group).load_with(|_, row| match decode_row(&row) {
        Ok(row) => state.absorb(&Write::Put(row)),
        Err(error) => malformed = Some(error.to_string()),
    });
    let reason = match (loaded, malformed) {
        (Ok(None), _) => return Ok(None),
        (Ok(Some(meta)), None) => match decode_versioned::<Meta>(&meta, "checkpoint") {
            Ok(meta) if meta.complete => return Ok(Some(applied_from(meta, state))),
            Ok(_) => "it was not finished".to_owned(),
            Err(error) => error.to_string(),
        },
        (Ok(Some(_)), Some(what)) | (Err(StoreError::Damaged(what)), _) => what,
        (Err(error), _) => {
            return Err(StartError::Restore { partition: group.0, detail: error.to_string() });
        }
    };
    tracing::warn!(%group, reason, "the checkpoint is discarded");
    discard(store, group)?;
    Ok(None)
}

fn applied_from(meta: Meta, state: State) -> Applied {
    Applied {
        state,
        last: meta.last,
        membership: meta.membership,
        log_bytes: meta.log_bytes,
        ..Applied::default()
    }
}

fn discard(store: &Store, group: GroupId) -> Result<(), StartError> {
    store
        .checkpoint(group)
        .reset()
        .map_err(|error| StartError::Restore { partition: group.0, detail: error.to_string() })
}
