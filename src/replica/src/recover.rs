//! Mending the data directory of a stopped node, beyond what the store can do by itself.
//!
//! `the store's log ─▶ bases: checkpoint, snapshots ─▶ the furthest counts ─▶ marked: renew`
//!
//! The log that is left may end before what checkpoint or snapshots have applied: that was
//! committed and is kept, the log then goes on behind it. Whatever was lost, instance ids may be
//! given out again; so the directory is marked before it is changed, and the next start gives
//! every site a new incarnation before it serves.

use std::io;
use std::path::Path;
use std::sync::mpsc;

use ackord_machine::site::decode_row;
use ackord_store::{
    Damage, GroupId, GroupReport, LogState, Mark, OpenError, RecoverMode, RecoveryReport, Store,
    StoreError, StoreOptions,
};

use crate::checkpoint::Meta;
use crate::restore::beyond;
use crate::snapshot;
use crate::types::{RaftLogId, decode_versioned, mark_of};

/// There while sites are still to get new incarnations.
const RENEW_FILE: &str = "renew";

/// Whether a recovery asked for new incarnations.
pub(crate) fn is_renewal_due(dir: &Path) -> bool {
    dir.join(RENEW_FILE).exists()
}

/// All sites have new incarnations, durably.
pub(crate) fn renewed(dir: &Path) -> io::Result<()> {
    std::fs::remove_file(dir.join(RENEW_FILE))?;
    std::fs::File::open(dir)?.sync_all()
}

fn ask_for_renewal(dir: &Path) -> io::Result<()> {
    std::fs::File::create(dir.join(RENEW_FILE))?.sync_all()?;
    std::fs::File::open(dir)?.sync_all()
}

/// Says what is wrong with the data directory of a stopped node and, when asked, makes the node
/// start on it again with what is left.
///
/// # Errors
/// When the directory is in use or cannot be read or written; damage is in the report.
pub fn recover(dir: &Path, mode: RecoverMode) -> Result<RecoveryReport, OpenError> {
    let mut report = Store::recover(dir, RecoverMode::Inspect)?;
    let accepted = mode == RecoverMode::AcceptLoss && report.hopeless.is_none();
    if !report.findings.is_empty() {
        if !accepted {
            return Ok(report);
        }
        ask_for_renewal(dir).map_err(|error| failed(&error))?;
        report = Store::recover(dir, mode)?;
    } else if !dir.join("format").exists() {
        return Ok(report);
    }
    let store = Store::open(StoreOptions::new(dir))?;
    let settled = settle(&store, dir, accepted, &mut report);
    let closed = store.close();
    settled.and(closed).map_err(|error| failed(&error))?;
    Ok(report)
}

/// Compares every log with what was made of it. A base beyond the end of its log is a finding, and
/// taken where the log then goes on when the loss is accepted.
fn settle(
    store: &Store,
    dir: &Path,
    accepted: bool,
    report: &mut RecoveryReport,
) -> Result<(), StoreError> {
    let mut unreachable = Vec::new();
    for group in store.groups() {
        let log = store.log_state(group);
        let base = furthest(store, group)?;
        if beyond(&log, base.as_ref()) {
            let mark = base.as_ref().map(mark_of);
            if accepted {
                if !is_renewal_due(dir) {
                    ask_for_renewal(dir).map_err(|error| StoreError::Io {
                        what: "mark the recovery".into(),
                        reason: error.to_string(),
                    })?;
                }
                if let Some(mark) = mark {
                    wait(|done| store.purge_to(group, mark, done))?;
                }
                report.changed = true;
            }
            report.findings.push(ahead(group, &log, mark));
            keep(report, group, mark);
        } else if let Some(purged) = log.purged
            && base.is_none_or(|base| base.index() < purged.index)
        {
            unreachable.push(group);
            report.findings.push(Damage {
                place: "checkpoint".into(),
                finding: "neither it nor a snapshot reaches the beginning of the log".into(),
                group: Some(group),
                expected: Some(purged),
                found: base.as_ref().map(mark_of),
            });
        }
    }
    if !unreachable.is_empty() {
        let list: Vec<String> = unreachable.iter().map(ToString::to_string).collect();
        report.hopeless = Some(format!(
            "nothing is left of the state of partition {}: restore the node from a backup",
            list.join(", ")
        ));
    }
    Ok(())
}

fn ahead(group: GroupId, log: &LogState, base: Option<Mark>) -> Damage {
    Damage {
        place: "log".into(),
        finding: "it ends before what was applied of it".into(),
        group: Some(group),
        expected: base,
        found: log.last,
    }
}

/// What the base has counts as kept.
fn keep(report: &mut RecoveryReport, group: GroupId, base: Option<Mark>) {
    match report.groups.iter_mut().find(|known| known.group == group) {
        Some(known) => {
            let index = |mark: Option<Mark>| mark.map(|mark| mark.index);
            if index(known.kept) < index(base) {
                known.kept = base;
            }
        }
        None => {
            report.groups.push(GroupReport { group, durable: base, kept: base, purged: base });
        }
    }
}

/// The last entry that a verified checkpoint or snapshot of the group has applied.
fn furthest(store: &Store, group: GroupId) -> Result<Option<RaftLogId>, StoreError> {
    let mut sound = true;
    let loaded = store.checkpoint(group).load_with(|_, row| sound &= decode_row(&row).is_ok());
    let checkpoint = match loaded {
        Ok(meta) => meta.and_then(|meta| decode_versioned::<Meta>(&meta, "checkpoint").ok()),
        Err(StoreError::Damaged(_)) => None,
        Err(error) => return Err(error),
    };
    let checkpoint = checkpoint.filter(|meta| sound && meta.complete).and_then(|meta| meta.last);
    let snapshots = store.snapshots(group).list()?;
    let snapshots = snapshots.iter().filter_map(|info| snapshot::meta_of(info).ok()?.last);
    Ok(snapshots.chain(checkpoint).max_by_key(RaftLogId::index))
}

fn wait(request: impl FnOnce(ackord_store::Done)) -> Result<(), StoreError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    request(Box::new(move |result| {
        // The receiver waits below and takes one message.
        let _ = sender.send(result);
    }));
    receiver.recv().unwrap_or(Err(StoreError::Closed))
}

fn failed(error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Io { what: "settle the recovery".into(), reason: error.to_string() }
}
