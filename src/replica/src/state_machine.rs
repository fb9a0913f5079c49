//! openraft's state machine over a [`Partition`].
//!
//! Applying is in memory; durability is the log's. What is applied becomes part of a checkpoint
//! and of snapshots later and elsewhere.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::partition::Partition;
use crate::snapshot::{self, SnapshotFile};
use crate::types::{RaftLogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// See the module.
pub(crate) struct StateMachine {
    pub(crate) partition: Arc<Partition>,
}

impl StateMachine {
    /// What openraft is told is also the node's end: it stops on it.
    fn failed(&self, what: &str, error: io::Error) -> io::Error {
        let number = self.partition.number;
        self.partition.shared.fatal.raise(&format!("{what} of partition {number}: {error}"));
        error
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        let applied = self.partition.applied.read();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) =
                item.map_err(|error| self.failed("reading for apply", error))?;
            let (outcomes, effects) =
                self.partition.apply(&entry).map_err(|error| self.failed("applying", error))?;
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
            self.partition.publish(&effects);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let source = if force { Source::Now } else { Source::Newest };
        Some(SnapshotBuilder { partition: self.partition.clone(), source })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { partition: self.partition.clone(), source: Source::Now }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<(), io::Error> {
        let partition = self.partition.clone();
        let meta = meta.clone();
        blocking(move || snapshot::install(&partition, &meta, &file))
            .await
            .map_err(|error| self.failed("installing a snapshot", error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let partition = self.partition.clone();
        blocking(move || snapshot::newest(&partition)).await
    }
}

/// What raft is given when it asks for a snapshot.
enum Source {
    /// The newest one, which was written before raft was asked to ask: a failure to write it is
    /// not raft's concern.
    Newest,
    /// One of the state as it is now.
    Now,
}

/// Hands raft a snapshot while entries go on being applied.
pub(crate) struct SnapshotBuilder {
    partition: Arc<Partition>,
    source: Source,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let partition = self.partition.clone();
        let taken = match self.source {
            Source::Newest => {
                blocking(move || match snapshot::newest(&partition)? {
                    Some(snapshot) => Ok((snapshot, snapshot::purgeable(&partition)?)),
                    None => Ok((snapshot::build(&partition)?, None)),
                })
                .await
            }
            Source::Now => blocking(move || Ok((snapshot::build(&partition)?, None))).await,
        };
        let number = self.partition.number;
        let (snapshot, upto) = taken.inspect_err(|error| {
            // openraft stops the group on it, so the node cannot go on either.
            self.partition.shared.fatal.raise(&format!("snapshot of partition {number}: {error}"));
        })?;
        if let Some(upto) = upto {
            snapshot::purge(&self.partition, upto).await;
        }
        Ok(snapshot)
    }
}

/// Runs what waits for the disk away from the threads that raft runs on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match crate::blocking::blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}
