//! openraft's log storage over one group of the store's shared log.
//!
//! Invariants: entries are readable when `append` returns and reported as flushed only after the
//! sync that covers them; a vote is durable when `save_vote` returns; a failed write is the node's
//! end before anyone is told of it. All ordering is the store's one writer.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ackord_store::{Done, GroupId, Store, StoreError};
use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use crate::fatal::Fatal;
use crate::types::{
    RaftEntry, RaftLogId, RaftVote, TypeConfig, decode_entry, decode_versioned, encode_entry,
    encode_versioned, log_id_of, mark_of,
};

/// Bytes of entries read from the store at once while entries are applied.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Stands between the store's report of a sync and raft, for tests that delay it.
pub(crate) type SyncHook = Arc<dyn Fn(Done) -> Done + Send + Sync>;

/// How far a group's own log is durable. Stated as index + 1, so that 0 is "nothing".
#[derive(Default)]
pub(crate) struct Durable {
    next: AtomicU64,
}

impl Durable {
    /// Whether the entry at `index` is durable on this node.
    pub(crate) fn covers(&self, index: u64) -> bool {
        index < self.next.load(Ordering::Acquire)
    }

    /// As if everything were durable.
    #[cfg(test)]
    pub(crate) fn everything() -> Self {
        Self { next: AtomicU64::new(u64::MAX) }
    }

    fn reach(&self, next: u64) {
        self.next.fetch_max(next, Ordering::AcqRel);
    }

    fn fall(&self, next: u64) {
        self.next.fetch_min(next, Ordering::AcqRel);
    }
}

/// One group's log. Clones are the same log.
#[derive(Clone)]
pub(crate) struct LogStorage {
    store: Store,
    group: GroupId,
    fatal: Fatal,
    durable: Arc<Durable>,
    on_sync: Option<SyncHook>,
}

impl LogStorage {
    pub(crate) fn new(
        store: Store,
        group: GroupId,
        fatal: Fatal,
        on_sync: Option<SyncHook>,
    ) -> Self {
        let durable = Arc::new(Durable::default());
        if let Some(last) = store.log_state(group).last {
            durable.reach(last.index + 1);
        }
        Self { store, group, fatal, durable, on_sync }
    }

    pub(crate) fn durable(&self) -> Arc<Durable> {
        self.durable.clone()
    }

    fn failed(&self, what: &str, error: StoreError) -> io::Error {
        failed(&self.fatal, self.group, what, error)
    }

    /// Waits for a request that raft wants to be durable before it goes on.
    async fn durably(&self, what: &str, request: impl FnOnce(Done)) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        request(Box::new(move |result| {
            // Raft has gone when nobody listens; the request is carried out all the same.
            let _ = sender.send(result);
        }));
        match receiver.await {
            Ok(result) => result.map_err(|error| self.failed(what, error)),
            Err(_) => Err(self.failed(what, StoreError::Closed)),
        }
    }

    /// The part of `range` that the log holds.
    fn held(&self, range: &Range<u64>) -> Range<u64> {
        let state = self.store.log_state(self.group);
        let first = state.purged.map_or(0, |mark| mark.index + 1);
        let end = state.last.map_or(0, |mark| mark.index + 1);
        range.start.max(first)..range.end.min(end)
    }

    /// Entries from the beginning of `range`, as many as fit into `bytes_max` but at least one,
    /// unless the log holds none of it.
    fn read(&self, mut range: Range<u64>, bytes_max: u64) -> io::Result<Vec<RaftEntry>> {
        loop {
            let held = self.held(&range);
            if held.is_empty() {
                return Ok(Vec::new());
            }
            let start = held.start;
            match self.store.read(self.group, held, bytes_max) {
                Ok(entries) => return entries.iter().map(decode_entry).collect(),
                // The log does not begin at 0 although nothing was purged. No group of ours is
                // like that, and applying refuses to skip an entry.
                Err(StoreError::NoSuchEntry { index, .. }) if index == start => {
                    range.start = start + 1;
                }
                // Purged or cut off between the two calls: what is held has become less.
                Err(StoreError::Purged { .. } | StoreError::NoSuchEntry { .. }) => {}
                Err(error) => return Err(self.failed("reading the log", error)),
            }
        }
    }
}

/// The end of the node, unless it is only being closed.
fn failed(fatal: &Fatal, group: GroupId, what: &str, error: StoreError) -> io::Error {
    if !matches!(error, StoreError::Closed) {
        fatal.raise(&format!("{what} of group {group}: {error}"));
    }
    io::Error::other(error)
}

fn range_of(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStorage {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<RaftEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut range = range_of(&range);
        let mut entries = Vec::new();
        loop {
            let more = self.read(range.clone(), READ_BYTES_MAX)?;
            let Some(last) = more.last() else { return Ok(entries) };
            range.start = last.log_id.index() + 1;
            entries.extend(more);
        }
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        let vote = self.store.log_state(self.group).vote;
        vote.map(|bytes| decode_versioned(&bytes, "vote")).transpose()
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start..end, READ_BYTES_MAX)
    }

    // After a restart this covers the log since the checkpoint: never all of it in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let reader = self.clone();
        stream::unfold(
            (reader, range_of(&range), Vec::new().into_iter()),
            |(reader, mut range, mut ready): (_, _, std::vec::IntoIter<RaftEntry>)| async move {
                if let Some(entry) = ready.next() {
                    return Some((Ok(entry), (reader, range, ready)));
                }
                match reader.read(range.clone(), READ_BYTES_MAX) {
                    Ok(entries) => {
                        range.start = entries.last()?.log_id.index() + 1;
                        ready = entries.into_iter();
                        Some((Ok(ready.next()?), (reader, range, ready)))
                    }
                    Err(error) => Some((Err(error), (reader, 0..0, ready))),
                }
            },
        )
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.store.log_state(self.group);
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id_of),
            last_log_id: state.last.map(log_id_of),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let vote = encode_versioned(vote)?;
        self.durably("saving the vote", |done| self.store.save_vote(self.group, vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.store.save_committed(self.group, committed.as_ref().map(mark_of));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.store.log_state(self.group).committed.map(log_id_of))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> =
            entries.into_iter().map(|entry| encode_entry(&entry)).collect::<io::Result<_>>()?;
        let Some(last) = entries.last() else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let next = last.mark.index + 1;
        // Without the store: it must not be dropped by its own thread.
        let (durable, fatal, group) = (self.durable.clone(), self.fatal.clone(), self.group);
        let mut done: Done = Box::new(move |result| match result {
            Ok(()) => {
                durable.reach(next);
                callback.io_completed(Ok(()));
            }
            Err(error) => {
                let error = failed(&fatal, group, "appending to the log", error);
                callback.io_completed(Err(error));
            }
        });
        if let Some(hook) = &self.on_sync {
            done = hook(done);
        }
        self.store.append(self.group, entries, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let next = last.map_or(0, |last| last.index() + 1);
        // Before and after: an append that was on its way may still report in between.
        self.durable.fall(next);
        self.durably("truncating the log", |done| self.store.truncate_from(self.group, next, done))
            .await?;
        self.durable.fall(next);
        Ok(())
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        let mark = mark_of(&upto);
        self.durably("purging the log", |done| self.store.purge_to(self.group, mark, done)).await?;
        self.durable.reach(mark.index + 1);
        Ok(())
    }
}

/// What an entry adds to the log's size, as far as snapshots are concerned.
pub(crate) fn entry_bytes(entry: &RaftEntry) -> u64 {
    /// Header, checksums and index of an entry on disk, roughly.
    const ENTRY_OVERHEAD_BYTES: u64 = 64;
    let body = match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len() as u64,
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    body + ENTRY_OVERHEAD_BYTES
}
