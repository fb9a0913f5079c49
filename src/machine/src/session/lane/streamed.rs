//! The delivery of one subscription that nobody acknowledges: what the transport has taken is
//! delivered.
//!
//! ```text
//! oneway:   selected ─▶ unwritten (a few) ─▶ written ─▶ cursor
//! batch:    first one waits ─▶ flush timer ─▶ all that wait, in one frame ─▶ written ─▶ cursor
//! datagram: as oneway; what waits while the transport takes nothing is dropped
//! ```
//!
//! Invariants: nothing is sent twice in one session, and in order of ids; a bounded number of frames
//! is not written; the cursor is committed lazily, one commit at a time, not more often than every
//! [`COMMIT_MS`]. So a new session repeats what was written after the last commit, and what was
//! written to a connection that broke may never have arrived.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::site::quality::{BATCH_BYTES_MAX, BATCH_COUNT_MAX, UNWRITTEN_MAX};
use crate::site::{Instance, InstanceId, Mode, Quality, SubscriptionRow};

use super::super::Token;
use super::commit::Commit;
use super::{Counts, Head, InFlight, LaneState, Named, Sight, Step};

/// Milliseconds between two commits of a lane.
pub const COMMIT_MS: u64 = 100;
/// Batches that the transport has not taken yet: one that it is taking, one that waits behind it.
pub const BATCHES_UNWRITTEN_MAX: usize = 2;
/// Milliseconds that a datagram waits for room before it, and all that wait with it, are dropped.
pub const DATAGRAM_PATIENCE_MS: u64 = 20;
/// Instances that are counted when they are dropped.
const DROPPED_COUNT_MAX: u64 = 100_000;
/// Bytes that a delivery takes besides its names and arguments, in either encoding.
const FIELDS_BYTES: usize = 256;

/// See the module.
#[derive(Clone, Debug)]
pub struct Streamed {
    pub(super) head: Head,
    mode: Mode,
    flush_ms: u64,
    /// When what waits is flushed (batch) or dropped (datagram); `None` while nothing does.
    flush_at_ms: Option<u64>,
    /// What was sent and is not written: of each frame the last instance, and how many it has.
    unwritten: VecDeque<(InstanceId, u64)>,
    sent: InstanceId,
    written: InstanceId,
    /// When the last that was sent was.
    since_ms: u64,
    pub(super) commit: Commit,
    /// Not before this a commit is proposed.
    commit_ms: u64,
    counts: Counts,
}

impl Streamed {
    pub(super) fn new(head: Head, quality: Quality) -> Self {
        let cursor = head.cursor;
        Self {
            head,
            mode: quality.mode,
            flush_ms: u64::from(quality.flush_ms()),
            flush_at_ms: None,
            unwritten: VecDeque::new(),
            sent: cursor,
            written: cursor,
            since_ms: 0,
            commit: Commit::new(),
            commit_ms: 0,
            counts: Counts::default(),
        }
    }

    /// See [`super::Lane::done`].
    pub(super) fn done(&self) -> InstanceId {
        self.written
    }

    /// A new lane, of a subscription that is delivered up to here.
    pub(super) fn begin_behind(&mut self, done: InstanceId) {
        (self.written, self.sent) = (done, done);
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn set_flush(&mut self, quality: Quality) {
        self.flush_ms = u64::from(quality.flush_ms());
    }

    pub(super) fn state(&self) -> LaneState {
        match (self.unwritten.front(), self.commit.under_way()) {
            (Some((instance, _)), _) => LaneState::InFlight(*instance),
            (None, Some(instance)) => LaneState::Committing(instance),
            (None, None) if self.owes_commit() => LaneState::Committing(self.written),
            (None, None) if self.head.granted => LaneState::Idle,
            (None, None) => LaneState::Unauthorized,
        }
    }

    pub(super) fn in_flight(&self) -> Option<InFlight> {
        let (instance, _) = *self.unwritten.front()?;
        Some(InFlight { instance, attempt: 1, since_ms: self.since_ms })
    }

    /// Instances that the transport has not taken.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.iter().map(|(_, count)| *count as usize).sum()
    }

    pub(super) fn sent(&self) -> InstanceId {
        self.sent
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn owes_commit(&self) -> bool {
        self.written > self.head.cursor
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let free_at = self.commit.free_at().filter(|_| self.owes_commit());
        let commit = free_at.map(|at| at.max(self.commit_ms));
        // A batch that has no room waits for the transport.
        let flush = self.flush_at_ms.filter(|_| self.mode == Mode::Datagram || self.has_room());
        [commit, flush].into_iter().flatten().min()
    }

    pub(super) fn set_granted(&mut self, granted: bool, _now_ms: u64) -> bool {
        let changed = self.head.granted != granted;
        self.head.granted = granted;
        changed
    }

    /// See [`super::Lane::sync`].
    pub(super) fn sync(
        &mut self,
        row: &SubscriptionRow,
        ack_timeout_ms: u32,
    ) -> Option<InstanceId> {
        self.head.take(row, ack_timeout_ms);
        if row.generation != self.head.generation {
            self.head.generation = row.generation;
            self.head.cursor = row.cursor;
            self.unwritten = VecDeque::new();
            self.flush_at_ms = None;
            self.sent = row.cursor;
            self.written = row.cursor;
            self.commit.forget();
            return None;
        }
        self.head.cursor = self.head.cursor.max(row.cursor);
        self.sent = self.sent.max(row.cursor);
        self.written = self.written.max(row.cursor);
        None
    }

    fn has_room(&self) -> bool {
        let most = match self.mode {
            Mode::Batch => BATCHES_UNWRITTEN_MAX,
            Mode::Oneway | Mode::Datagram | Mode::Ordered | Mode::Twoway => UNWRITTEN_MAX,
        };
        self.unwritten.len() < most
    }

    /// See [`super::Lane::step`].
    pub(super) fn step(&mut self, sight: &Sight<'_>) -> Step {
        let now_ms = sight.now_ms;
        if self.owes_commit() && self.commit_ms <= now_ms && self.commit.is_free(now_ms) {
            return Step::Commit(self.written);
        }
        if sight.stale || !self.head.granted {
            self.flush_at_ms = None;
            return Step::Rest;
        }
        let Some(instance) = sight.next(self.head.event, self.sent) else {
            self.flush_at_ms = None;
            return Step::Rest;
        };
        match self.mode {
            Mode::Batch => self.flush(sight),
            Mode::Datagram if !self.has_room() => self.drop_waiting(sight),
            Mode::Oneway | Mode::Datagram | Mode::Ordered | Mode::Twoway => {
                self.flush_at_ms = None;
                if !self.has_room() {
                    return Step::Rest;
                }
                self.hand_over(instance.id, 1, now_ms);
                Step::Send { instance: instance.clone(), attempt: 1 }
            }
        }
    }

    fn hand_over(&mut self, last: InstanceId, count: u64, now_ms: u64) {
        self.unwritten.push_back((last, count));
        self.sent = last;
        self.since_ms = now_ms;
    }

    /// Something waits: it starts the timer, or is flushed with all that wait by now.
    fn flush(&mut self, sight: &Sight<'_>) -> Step {
        let at_ms = *self.flush_at_ms.get_or_insert(sight.now_ms + self.flush_ms);
        if at_ms > sight.now_ms || !self.has_room() {
            return Step::Rest;
        }
        let mut batch: Vec<Arc<Instance>> = Vec::new();
        let (mut bytes, mut last) = (0, self.sent);
        while batch.len() < BATCH_COUNT_MAX
            && let Some(instance) = sight.next(self.head.event, last)
        {
            bytes += self.encoded_bytes(instance);
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            last = instance.id;
            batch.push(instance.clone());
        }
        self.hand_over(last, batch.len() as u64, sight.now_ms);
        // What did not fit has waited as long: it follows at once.
        if sight.next(self.head.event, last).is_none() {
            self.flush_at_ms = None;
        }
        Step::Flush(batch)
    }

    /// Bytes of a delivery in the larger of the encodings.
    fn encoded_bytes(&self, instance: &Instance) -> usize {
        let names = self.head.name.as_str().len() + instance.service.as_str().len();
        let arguments = instance.arguments.as_ref();
        let base64 = |data: usize| data.div_ceil(3) * 4;
        let arguments = arguments.map_or(0, |it| it.content_type.len() + base64(it.data.len()));
        FIELDS_BYTES + names + arguments
    }

    /// The transport takes nothing: what waits is given some time, and then dropped.
    fn drop_waiting(&mut self, sight: &Sight<'_>) -> Step {
        let patience_ms = sight.now_ms + DATAGRAM_PATIENCE_MS;
        if *self.flush_at_ms.get_or_insert(patience_ms) > sight.now_ms {
            return Step::Rest;
        }
        self.flush_at_ms = None;
        let (event, receiver) = (self.head.event, sight.receiver);
        let waiting = sight.site.lag(event, self.sent, receiver, sight.stamp, DROPPED_COUNT_MAX);
        self.counts.dropped += waiting.count;
        self.sent = sight.site.head();
        Step::Rest
    }

    /// See [`super::Lane::on_written`].
    pub(super) fn on_written(&mut self, named: &Named) -> bool {
        if !self.head.is_named(named, named.instance) {
            return false;
        }
        while let Some((last, count)) = self.unwritten.front().copied()
            && last <= named.instance
        {
            self.unwritten.pop_front();
            self.counts.delivered += count;
            self.written = self.written.max(last);
        }
        if self.unwritten.is_empty() {
            // What was dropped behind it is over, too.
            self.written = self.written.max(self.sent);
        }
        true
    }

    pub(super) fn committing(&mut self, instance: InstanceId, token: Token, now_ms: u64) {
        self.commit.propose(instance, token);
        self.commit_ms = now_ms + COMMIT_MS;
    }

    pub(super) fn deliver(&mut self, instance: InstanceId, now_ms: u64) {
        self.head.cursor = self.head.cursor.max(instance);
        self.commit_ms = now_ms + COMMIT_MS;
    }
}
