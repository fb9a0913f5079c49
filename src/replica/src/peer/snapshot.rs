//! Whole states for members that the log cannot reach any more, in pieces.
//!
//! `begin ─▶ here are n bytes already ─▶ piece at n ─▶ ... ─▶ end: verify, install`
//!
//! Invariants: one piece is under way at a time, which is the flow control; what arrived stays on
//! disk, so that the next attempt goes on behind it, also after a restart of either side; nothing
//! is installed before the whole file has been read back and verified.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ackord_store::{SnapshotReader, SnapshotReceiver, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::PeerLinks;
use super::link::CallError;
use super::wire::{Answer, Call, Vote};
use crate::partition::Partition;
use crate::snapshot::{SnapshotFile, meta_of};
use crate::types::{RaftVote, Snapshot, SnapshotMeta};

/// Bytes of one piece.
pub(super) const PIECE_BYTES: u64 = 1 << 20;
/// How long one piece may take, with its write on the other side.
const PIECE_LIMIT: Duration = Duration::from_secs(5);
/// How long verifying and installing may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// How long a broken transfer is taken up again without a byte more getting through. After that raft
/// decides anew, with a newer snapshot if there is one.
const RESUME_LIMIT: Duration = Duration::from_secs(10);
/// Between two attempts to take it up.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// Sends a snapshot to the end and has it installed, over broken connections if need be. Returns
/// the newest vote known there.
pub(super) async fn send(
    links: &PeerLinks,
    group: u32,
    vote: RaftVote,
    file: SnapshotFile,
) -> Result<RaftVote, CallError> {
    let local = |error: String| CallError::unreachable(format!("reading a snapshot: {error}"));
    let SnapshotFile { home, id } = file;
    let opening = {
        let id = id.clone();
        blocking(move || home.open(&id)).await.map_err(|error| local(error.to_string()))?
    };
    let Some(reader) = opening else { return Err(local(format!("{id} is gone"))) };
    // It stays readable when newer ones replace it.
    let sending = Sending { links, group, id, reader: Arc::new(reader) };
    let mut reached = 0;
    let mut moved = Instant::now();
    loop {
        let mut offset = 0;
        let error = match sending.attempt(&vote, &mut offset).await {
            Err(error @ (CallError::Unreachable(_) | CallError::Timeout(_))) => error,
            ended => return ended,
        };
        if offset > reached {
            (reached, moved) = (offset, Instant::now());
        }
        if moved.elapsed() > RESUME_LIMIT {
            return Err(error);
        }
        tracing::info!(group, peer = links.peer, offset, %error, "a snapshot is taken up again");
        tokio::time::sleep(RESUME_PAUSE).await;
    }
}

/// A snapshot on its way.
struct Sending<'a> {
    links: &'a PeerLinks,
    group: u32,
    id: String,
    reader: Arc<SnapshotReader>,
}

impl Sending<'_> {
    /// Goes on where the other side is, to the end. `offset` says how far it got.
    async fn attempt(&self, vote: &RaftVote, offset: &mut u64) -> Result<RaftVote, CallError> {
        let (group, bulk) = (self.group, self.links.bulk());
        let begin = Call::SnapshotBegin { group, id: self.id.clone() };
        *offset = received(bulk.call(begin, PIECE_LIMIT).await?)?;
        tracing::info!(group, peer = self.links.peer, id = self.id, offset, "sending a snapshot");
        loop {
            let (from, at) = (self.reader.clone(), *offset);
            let bytes = blocking(move || from.read_raw(at, PIECE_BYTES))
                .await
                .map_err(|error| CallError::Refused(format!("reading a snapshot: {error}")))?;
            if bytes.is_empty() {
                break;
            }
            let piece = Call::SnapshotPiece { group, id: self.id.clone(), offset: at, bytes };
            *offset = received(bulk.call(piece, PIECE_LIMIT).await?)?;
        }
        let end = Call::SnapshotEnd { group, id: self.id.clone(), vote: Vote::of(vote) };
        match bulk.call(end, INSTALL_LIMIT).await? {
            Answer::Installed(vote) => Ok(vote.raft()),
            Answer::Clock { .. }
            | Answer::Pulse { .. }
            | Answer::Voted(_)
            | Answer::Transferred(_)
            | Answer::ReadIndex(_)
            | Answer::Received(_)
            | Answer::Refused(_) => Err(CallError::confused()),
        }
    }
}

fn received(answer: Answer) -> Result<u64, CallError> {
    match answer {
        Answer::Received(bytes) => Ok(bytes),
        Answer::Clock { .. }
        | Answer::Pulse { .. }
        | Answer::Voted(_)
        | Answer::Transferred(_)
        | Answer::ReadIndex(_)
        | Answer::Installed(_)
        | Answer::Refused(_) => Err(CallError::confused()),
    }
}

/// What one group is receiving: one snapshot at a time.
#[derive(Default)]
pub(super) struct Receiving {
    current: Mutex<Option<(String, SnapshotReceiver)>>,
}

impl Receiving {
    /// Says where to go on. Another snapshot that was coming is given up.
    pub(super) async fn begin(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        id: String,
    ) -> io::Result<u64> {
        let (receiving, partition) = (self.clone(), partition.clone());
        blocking(move || {
            let mut current = receiving.current.lock();
            *current = None;
            let home = partition.shared.store.snapshots(partition.group);
            if let Some(whole) = home.open(&id)? {
                return Ok(whole.info().bytes);
            }
            let receiver = home.receive(&id)?;
            let received = receiver.received();
            *current = Some((id, receiver));
            Ok(received)
        })
        .await
    }

    /// Takes the next piece and says how much is there now.
    pub(super) async fn piece(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        id: String,
        offset: u64,
        bytes: Bytes,
    ) -> io::Result<u64> {
        let (receiving, partition) = (self.clone(), partition.clone());
        blocking(move || {
            let mut current = receiving.current.lock();
            match current.as_mut().filter(|(coming, _)| *coming == id) {
                Some((_, receiver)) => {
                    receiver.write(offset, &bytes)?;
                    partition.shared.counters.snapshot_bytes_received.add(bytes.len() as u64);
                    Ok(receiver.received())
                }
                None => Err(StoreError::Invalid(format!("snapshot {id} is not being received"))),
            }
        })
        .await
    }

    /// Verifies the whole and lets raft install it.
    pub(super) async fn end(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        id: String,
        vote: Vote,
    ) -> io::Result<Vote> {
        let home = partition.shared.store.snapshots(partition.group);
        let info = {
            let (receiving, home, id) = (self.clone(), home.clone(), id.clone());
            blocking(move || {
                let current = receiving.current.lock().take();
                if let Some((coming, receiver)) = current
                    && coming == id
                {
                    return receiver.finish();
                }
                match home.open(&id)? {
                    Some(whole) => Ok(whole.info().clone()),
                    None => Err(StoreError::Invalid(format!("snapshot {id} is not here"))),
                }
            })
            .await?
        };
        let meta = meta_of(&info)?;
        let Some(raft) = partition.raft.get() else {
            return Err(io::Error::other("the group has not started"));
        };
        let snapshot = Snapshot {
            meta: SnapshotMeta { last_log_id: meta.last, last_membership: meta.membership },
            snapshot: SnapshotFile { home, id },
        };
        let response = raft
            .install_full_snapshot(vote.raft(), snapshot)
            .await
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Vote::of(&response.vote))
    }
}

/// Runs what waits for the disk away from the threads that raft runs on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> io::Result<T> {
    match crate::blocking::blocking(work).await {
        Ok(result) => result.map_err(io::Error::other),
        Err(error) => Err(io::Error::other(error)),
    }
}
