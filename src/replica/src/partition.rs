//! One partition on this node: its applied state, and what the parts around it share.
//!
//! Invariants: state, last applied entry, membership and what changed since the checkpoint change together
//! under one lock, so whoever holds it sees a consistent cut; effects and outcomes leave only
//! after the lock is released, so whoever is woken can read what woke them.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ackord_machine::session::{CUT_OFF_MS, STALE_MS};
use ackord_machine::site::{
    Batch, Command, DecodeError, Digest, Effect, Limits, Outcome, Site, State, apply, decode_batch,
};
use ackord_store::{GroupId, Store};
use arc_swap::ArcSwap;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, EntryPayload};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::changes::Changes;
use crate::checkpoint::{CheckpointSignal, Pace};
use crate::clock::Clock;
use crate::confirmed::Confirmed;
use crate::counters::Counters;
use crate::error::ProposeError;
use crate::fatal::Fatal;
use crate::listeners::Listeners;
use crate::log::{Durable, entry_bytes};
use crate::options::NodeOptions;
use crate::peer::Peers;
use crate::proposer::InFlight;
use crate::queue::{Origin, Queue, Wake, is_raise};
use crate::sources::Sources;
use crate::time::Time;
use crate::types::{NodeId, Outcomes, Raft, RaftEntry, RaftLogId, StoredMembership};
use crate::watch::Effects;

/// How long a snapshot that had to be put off is not tried again.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);

/// Between two tries of a proposal of the node itself.
const PROPOSE_PAUSE: Duration = Duration::from_millis(100);

/// Whether applying insists that no entry is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// Always, but for openraft's storage suite.
    Required,
    /// The suite applies entries with gaps between them.
    #[cfg(test)]
    AsGiven,
}

/// What all partitions of a node share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) options: NodeOptions,
    /// The limits that partitions shall have now; at first those of the options.
    pub(crate) limits: ArcSwap<Limits>,
    pub(crate) store: Store,
    pub(crate) fatal: Fatal,
    pub(crate) counters: Counters,
    /// Whether the start is over, see [`crate::Node::started`].
    pub(crate) started: AtomicBool,
    /// When it was asked here that this node be drained or leave.
    pub(crate) told_to_go: Mutex<Option<Instant>>,
    /// [`State::bytes`] of all partitions.
    pub(crate) state_bytes: AtomicU64,
    pub(crate) checkpoints: CheckpointSignal,
    pub(crate) time: Arc<Time>,
    /// Held while a snapshot is written.
    pub(crate) snapshotting: Mutex<()>,
    pub(crate) continuity: Continuity,
    /// The other nodes; `None` on a node that is alone.
    pub(crate) peers: Option<Arc<Peers>>,
}

impl Shared {
    /// Whether this node's clock is further from what most have than nodes may be apart: it does
    /// not lead then.
    pub(crate) fn clock_is_off(&self) -> bool {
        self.options.peers.as_ref().is_some_and(|peers| {
            u128::from(self.time.ahead_ms().unsigned_abs()) > peers.clock_skew_max.as_millis()
        })
    }

    /// For how long this node's disk has not answered, milliseconds, where other nodes could do
    /// better: on one that is alone everybody waits.
    pub(crate) fn disk_hangs_ms(&self) -> u64 {
        match self.options.peers {
            Some(_) => self.store.waits_for_disk().as_millis() as u64,
            None => 0,
        }
    }

    /// Whether this node should not lead now: its clock is off, or its disk hangs.
    pub(crate) fn stands_aside(&self) -> bool {
        self.clock_is_off() || self.disk_hangs_ms() >= CUT_OFF_MS
    }
}

/// The state as applied here, with everything that must stay consistent with it.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) state: State,
    /// The last applied entry.
    pub(crate) last: Option<RaftLogId>,
    pub(crate) membership: StoredMembership,
    /// Bytes of log applied since the partition exists: a snapshot is due by its growth.
    pub(crate) log_bytes: u64,
    /// What the checkpoint has not.
    pub(crate) changes: Changes,
}

/// A partition's copies of state that are read on hot paths without its lock.
pub(crate) struct Gauges {
    pub(crate) over_capacity: AtomicBool,
    /// Milliseconds of log time when something expires; `u64::MAX` for never.
    pub(crate) next_due: AtomicU64,
    /// Whether the partition's limits are not those configured.
    pub(crate) limits_differ: AtomicBool,
    /// The seed of new incarnations that the partition's sites are still to get; 0 for none.
    pub(crate) renewal: AtomicU64,
    /// When a leader last sent something that found this node with all that is committed or
    /// further than before, milliseconds of the node's monotonic clock.
    pub(crate) heard_ms: AtomicU64,
    /// How far this node was then.
    pub(crate) heard_next: AtomicU64,
    /// Milliseconds without a leader's confirmation, as last looked at.
    pub(crate) stale_ms: AtomicU64,
    /// The node that leads and is to go on leading, although the directory would have another one; 0
    /// for none.
    pub(crate) stays: AtomicU64,
    /// [`State::bytes`].
    pub(crate) state_bytes: AtomicU64,
    /// [`Applied::log_bytes`] now.
    pub(crate) log_bytes: AtomicU64,
    /// [`Applied::log_bytes`] of the newest snapshot.
    pub(crate) snapshot_log_bytes: AtomicU64,
    /// Rows of the cut that is being written to the checkpoint.
    pub(crate) cut_rows: AtomicU64,
}

pub(crate) struct Partition {
    pub(crate) number: u32,
    pub(crate) group: GroupId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) applied: RwLock<Applied>,
    pub(crate) effects: Effects,
    /// The index of the entry that is applied next, for who waits for one.
    applied_next: watch::Sender<u64>,
    pub(crate) clock: Clock,
    pub(crate) queue: Queue,
    pub(crate) in_flight: InFlight,
    /// Where its commands come from.
    pub(crate) sources: Sources,
    /// Whether others wait for what is committed here.
    pub(crate) listeners: Arc<Listeners>,
    /// Since when others follow this node.
    pub(crate) confirmed: Arc<Confirmed>,
    left: watch::Sender<bool>,
    pub(crate) gauges: Gauges,
    pub(crate) durable: Arc<Durable>,
    pub(crate) checkpoint: Mutex<Pace>,
    /// Whether a snapshot was asked for and is not done.
    pub(crate) snapshot_pending: AtomicBool,
    /// Until when no snapshot is tried after one that had to be put off.
    snapshot_not_before: Mutex<Option<Instant>>,
    /// Set once, before anything is proposed.
    pub(crate) raft: OnceLock<Raft>,
    /// Whether everything that was durable at the start has been applied.
    pub(crate) caught_up: AtomicBool,
    /// The hash of the state after the entry in which a comparison was last asked for.
    pub(crate) compared: Mutex<Option<(u64, Digest)>>,
}

impl Partition {
    pub(crate) fn new(
        number: u32,
        shared: Arc<Shared>,
        applied: Applied,
        durable: Arc<Durable>,
    ) -> Self {
        let options = &shared.options;
        let partition = Self {
            number,
            group: GroupId(number),
            applied: RwLock::default(),
            effects: Effects::default(),
            applied_next: watch::Sender::new(0),
            clock: Clock::new(shared.time.clone()),
            queue: Queue::new(options.queue_commands_max, options.queue_bytes_max),
            in_flight: InFlight::default(),
            sources: Sources::default(),
            listeners: Arc::default(),
            confirmed: Arc::default(),
            left: watch::Sender::new(false),
            gauges: Gauges {
                over_capacity: AtomicBool::new(false),
                next_due: AtomicU64::new(u64::MAX),
                limits_differ: AtomicBool::new(false),
                renewal: AtomicU64::new(0),
                heard_ms: AtomicU64::new(0),
                heard_next: AtomicU64::new(0),
                stale_ms: AtomicU64::new(0),
                stays: AtomicU64::new(0),
                state_bytes: AtomicU64::new(0),
                log_bytes: AtomicU64::new(0),
                snapshot_log_bytes: AtomicU64::new(0),
                cut_rows: AtomicU64::new(0),
            },
            durable,
            checkpoint: Mutex::default(),
            snapshot_pending: AtomicBool::new(false),
            snapshot_not_before: Mutex::default(),
            raft: OnceLock::new(),
            caught_up: AtomicBool::new(false),
            compared: Mutex::default(),
            shared,
        };
        partition.observe(&applied);
        partition.announce(applied.last);
        *partition.applied.write() = applied;
        partition
    }

    /// Whether a snapshot or anything else replaced the state: hot-path copies follow it.
    pub(crate) fn observe(&self, applied: &Applied) {
        let state = &applied.state;
        let gauges = &self.gauges;
        gauges.over_capacity.store(state.over_capacity(), Ordering::Relaxed);
        gauges.next_due.store(state.next_due().map_or(u64::MAX, |due| due.0), Ordering::Relaxed);
        gauges
            .limits_differ
            .store(*state.limits() != **self.shared.limits.load(), Ordering::Relaxed);
        let were = gauges.state_bytes.swap(state.bytes(), Ordering::Relaxed);
        // Wraps around where a state has shrunk, and comes out right.
        let more = state.bytes().wrapping_sub(were);
        self.shared.state_bytes.fetch_add(more, Ordering::Relaxed);
        gauges.log_bytes.store(applied.log_bytes, Ordering::Relaxed);
        self.clock.applied(state.clock());
    }

    /// Wakes who waits for an entry; after the lock is released, like effects.
    pub(crate) fn announce(&self, last: Option<RaftLogId>) {
        let next = last.map_or(0, |last| last.index() + 1);
        self.applied_next
            .send_if_modified(|known| std::mem::replace(known, next.max(*known)) < next);
    }

    /// The index of the entry that is applied next.
    pub(crate) fn applied_next(&self) -> u64 {
        *self.applied_next.borrow()
    }

    /// Waits until all entries below `next` are applied here. False when that takes longer than
    /// `limit`.
    pub(crate) async fn wait_applied(&self, next: u64, limit: Duration) -> bool {
        let mut applied = self.applied_next.subscribe();
        let reached = applied.wait_for(|applied| *applied >= next);
        matches!(timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Queues a command for the next entry if there is room for what it does.
    pub(crate) fn admit(
        &self,
        command: Command,
        origin: Origin,
        wake: Wake,
    ) -> Result<oneshot::Receiver<Result<Outcome, ProposeError>>, ProposeError> {
        let counters = &self.shared.counters;
        if self.stopped() {
            return Err(ProposeError::Unavailable);
        }
        if is_raise(&command) {
            if self.over_capacity() {
                counters.refused_over_capacity.add(1);
                return Err(ProposeError::OverCapacity);
            }
            if !self.shared.store.admits() {
                counters.refused_disk_full.add(1);
                return Err(ProposeError::DiskFull);
            }
        }
        let peers = self.shared.peers.as_ref();
        let command = if peers.is_none_or(|peers| peers.know_traces()) {
            command
        } else {
            // An older node could not read the entry.
            command.untraced()
        };
        let (waiter, outcome) = oneshot::channel();
        match self.queue.push(command, waiter, (origin, wake)) {
            Ok(()) => {
                counters.commands_proposed.add(1);
                Ok(outcome)
            }
            Err(error) => {
                if error == ProposeError::Busy {
                    counters.refused_busy.add(1);
                }
                Err(error)
            }
        }
    }

    /// Proposes until the fate is known or the limit has passed. Only for commands that may be
    /// decided twice.
    pub(crate) async fn propose_until(
        &self,
        command: Command,
        limit: Duration,
    ) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + limit;
        loop {
            let error = match self.admit(command.clone(), Origin::Here, Wake::Now) {
                Ok(outcome) => match timeout(limit, outcome).await {
                    Ok(Ok(Ok(outcome))) => return Ok(outcome),
                    Ok(Ok(Err(error))) => error,
                    Ok(Err(_)) | Err(_) => ProposeError::Unknown,
                },
                Err(error) => error,
            };
            if Instant::now() + PROPOSE_PAUSE >= deadline || self.stopped() {
                return Err(error);
            }
            tokio::time::sleep(PROPOSE_PAUSE).await;
        }
    }

    /// The leader and where it is, when it is known and another node.
    pub(crate) fn leader_elsewhere(&self) -> Option<(NodeId, BasicNode)> {
        let metrics = self.raft.get()?.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.filter(|leader| *leader != self.shared.node)?;
        let node = metrics.membership_config.membership().get_node(&leader)?.clone();
        Some((leader, node))
    }

    /// Applies one committed entry. A malformed batch changes nothing, on every node alike; one of
    /// another version stops the node. Whom it wakes is for the caller to publish, after whoever waits
    /// for an outcome has it: who is woken for both wakes once.
    pub(crate) fn apply(&self, entry: &RaftEntry) -> io::Result<(Outcomes, Vec<Effect>)> {
        let batch = match &entry.payload {
            EntryPayload::Normal(proposal) => match decode_batch(&proposal.0) {
                Ok(batch) => Some(batch),
                // Skipping what another version wrote would lose it here and nowhere else.
                Err(error @ DecodeError::Version { .. }) => return Err(io::Error::other(error)),
                Err(error) => {
                    tracing::error!(partition = self.number, %error, "a log entry is malformed");
                    None
                }
            },
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        };
        let rows_max = self.shared.options.changed_rows_max();
        let begun = Instant::now();
        let (outcomes, effects, departures) = {
            let mut applied = self.applied.write();
            self.assert_next(&applied, entry)?;
            let (outcomes, effects) = match &batch {
                Some(batch) => {
                    let result = apply(&mut applied.state, batch);
                    self.note_renewal(batch);
                    if batch.commands.contains(&Command::Compare) {
                        let hash = applied.state.hash();
                        *self.compared.lock() = Some((entry.log_id.index(), hash));
                    }
                    let were = applied.changes.rows();
                    applied.changes.note(result.dirty, rows_max);
                    self.shared.checkpoints.changed(were, applied.changes.rows());
                    (result.outcomes, result.effects)
                }
                None => {
                    applied.changes.note(Vec::new(), rows_max);
                    (Vec::new(), Vec::new())
                }
            };
            if let EntryPayload::Membership(membership) = &entry.payload {
                applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                let leading = self.raft.get().is_some_and(|raft| raft.is_leader());
                self.set_ticking(&applied, leading);
            }
            applied.last = Some(entry.log_id);
            applied.log_bytes += entry_bytes(entry);
            self.observe(&applied);
            (outcomes, effects, applied.state.take_departures())
        };
        self.shared.counters.applied(begun.elapsed(), &outcomes, departures);
        self.announce(Some(entry.log_id));
        Ok((Outcomes(outcomes), effects))
    }

    /// The sites got the incarnations that this start wanted them to have.
    fn note_renewal(&self, batch: &Batch) {
        let wanted = self.gauges.renewal.load(Ordering::Relaxed);
        let is_it =
            |command: &Command| matches!(command, Command::Renew { seed } if *seed == wanted);
        if wanted != 0 && batch.commands.iter().any(is_it) {
            self.gauges.renewal.store(0, Ordering::Relaxed);
        }
    }

    /// An entry is applied once, in order and without a gap, whatever was restored before.
    fn assert_next(&self, applied: &Applied, entry: &RaftEntry) -> io::Result<()> {
        let next = applied.last.map_or(0, |last| last.index() + 1);
        let index = entry.log_id.index();
        let follows = match self.shared.continuity {
            Continuity::Required => index == next,
            #[cfg(test)]
            Continuity::AsGiven => index >= next,
        };
        if follows {
            return Ok(());
        }
        let text =
            format!("partition {}: entry {} where {next} comes next", self.number, entry.log_id);
        Err(io::Error::other(text))
    }

    pub(crate) fn publish(&self, effects: &[Effect]) {
        self.effects.publish(effects);
    }

    /// A group that has this node as its only member and leader needs no heartbeats and no
    /// election timer: sixteen idle groups would wake eight hundred times a second for nothing.
    /// Called under the lock, so that the last word is about the last membership.
    fn set_ticking(&self, applied: &Applied, leading: bool) {
        let membership = applied.membership.membership();
        let votes_alone = membership.voter_ids().eq([self.shared.node]);
        self.clock.set_alone(votes_alone);
        let alone = votes_alone && membership.learner_ids().next().is_none();
        if let Some(raft) = self.raft.get() {
            raft.runtime_config().tick(!(alone && leading));
        }
    }

    /// Called when this node came to lead the group or ceased to.
    pub(crate) fn leads(&self, leading: bool) {
        self.clock.set_leading(leading);
        self.set_ticking(&self.applied.read(), leading);
        self.queue.wake.notify_one();
    }

    /// A leader sent something, and has committed so much. It confirms a node that has applied
    /// that, or at least gets on: one whose disk hangs hears and does nothing.
    pub(crate) fn heard_leader(&self, committed_next: u64) {
        let next = self.applied_next();
        let moved = self.gauges.heard_next.swap(next, Ordering::Relaxed) != next;
        if moved || next >= committed_next {
            self.gauges.heard_ms.store(self.shared.time.monotonic_ms(), Ordering::Relaxed);
        }
    }

    /// Looks how long ago a leader confirmed this node; sessions are woken when that comes to mean
    /// something else.
    pub(crate) fn look_at_staleness(&self) {
        let Some(raft) = self.raft.get() else { return };
        let now = self.shared.time.monotonic_ms();
        let heard = now.saturating_sub(self.gauges.heard_ms.load(Ordering::Relaxed));
        let stale_ms = if raft.is_leader() {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters = metrics.membership_config.membership().get_joint_config();
            match self.confirmed.since((self.shared.node, &metrics.vote), voters) {
                Some(since) => since.elapsed().as_millis() as u64,
                None => heard,
            }
        } else {
            heard
        };
        // Whoever needs the disk of this node is served better elsewhere.
        let hangs_ms = self.shared.disk_hangs_ms();
        let stale_ms = if hangs_ms >= CUT_OFF_MS { stale_ms.max(hangs_ms) } else { stale_ms };
        let kind = |ms: u64| (ms >= STALE_MS, ms >= CUT_OFF_MS);
        let before = self.gauges.stale_ms.swap(stale_ms, Ordering::Relaxed);
        if kind(before) != kind(stale_ms) {
            let partition = self.number;
            tracing::debug!(partition, stale_ms, "what a leader confirms has changed");
            let sites: Vec<Effect> = {
                let applied = self.applied.read();
                let site = |site: &Site| Effect::Site { site: site.name().clone() };
                applied.state.sites().map(site).collect()
            };
            self.publish(&sites);
        }
    }

    /// This partition, or all of the node together, hold as much as they may.
    pub(crate) fn over_capacity(&self) -> bool {
        let shared = &self.shared;
        self.gauges.over_capacity.load(Ordering::Relaxed)
            || shared.state_bytes.load(Ordering::Relaxed) >= shared.options.state_bytes_max
    }

    /// Whether a snapshot may be tried again.
    pub(crate) fn may_snapshot(&self) -> bool {
        self.snapshot_not_before.lock().is_none_or(|at| at <= Instant::now())
    }

    /// A snapshot had to be put off: it is not tried again at once.
    pub(crate) fn put_off_snapshot(&self) {
        *self.snapshot_not_before.lock() = Some(Instant::now() + SNAPSHOT_RETRY);
    }

    /// Log bytes after which a snapshot is due have been applied.
    pub(crate) fn snapshot_due(&self) -> bool {
        let gauges = &self.gauges;
        let grown = gauges
            .log_bytes
            .load(Ordering::Relaxed)
            .saturating_sub(gauges.snapshot_log_bytes.load(Ordering::Relaxed));
        let least = self.shared.options.snapshot_log_bytes_min;
        grown > least.max(gauges.state_bytes.load(Ordering::Relaxed))
    }

    /// Nothing is or will be proposed any more.
    pub(crate) fn stopped(&self) -> bool {
        self.shared.fatal.raised()
    }

    /// Raft is about to stop here: nothing more is given to it.
    pub(crate) fn leave(&self) {
        self.left.send_replace(true);
    }

    /// Whether raft is about to stop here, or has stopped.
    pub(crate) fn has_left(&self) -> bool {
        *self.left.borrow()
    }

    /// Waits until raft is about to stop here.
    pub(crate) async fn left(&self) {
        let mut left = self.left.subscribe();
        // The sender lives as long as the partition.
        let _ = left.wait_for(|left| *left).await;
    }
}

/// The outcome of the command that answers for the one at `index`.
pub(crate) fn outcome_of(
    outcomes: &[Outcome],
    survivors: &[usize],
    index: usize,
) -> Option<Outcome> {
    survivors.get(index).and_then(|survivor| outcomes.get(*survivor)).cloned()
}
