//! Group commit: what queued up while an entry was on its way becomes the next one.
//!
//! `queue ─▶ take ─▶ coalesce ─▶ stamp ─▶ encode ─▶ raft ... applied ─▶ each waiter's outcome`
//!
//! On a node that does not lead, what was taken goes to the leader instead: see `peer::forward`.
//!
//! While an entry is on its way the next one waits until it is nearly as large: whoever was answered by
//! the last one is about to ask again, and a sync, a round of messages and a handful of wake-ups cost
//! the same for one command as for a hundred. With nothing on its way nothing waits.
//!
//! One task per partition. Invariants: commands of a partition enter the log in the order of their
//! proposals; every waiter gets its own or its survivor's outcome, or an error that says whether
//! the fate is known; the replica's own commands (ticks, limits) are proposed only while leading.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ackord_machine::site::{Batch, Command, Limits, Outcome, coalesce, encode_batch};
use openraft::error::ClientWriteError;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::ProposeError;
use crate::partition::{Partition, outcome_of};
use crate::peer::{Forwarder, refuse};
use crate::queue::{Origin, Waiter};
use crate::types::{Answer, Proposal, Raft, TypeConfig};

/// How long the replica waits before it proposes a command of its own again that came to nothing.
const OWN_RETRY: Duration = Duration::from_secs(1);
/// How often a node with peers looks whether an answer is overdue.
const OVERDUE_LOOK: Duration = Duration::from_millis(250);
/// The longest sleep until something expires: the wall clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Entries on their way, and when the replica's own commands may go again.
pub(crate) struct InFlight {
    entries: AtomicUsize,
    /// Commands in those entries.
    commands: AtomicUsize,
    started: Instant,
    /// Milliseconds since `started` before which no own command is proposed; `u64::MAX` while one
    /// is on its way.
    own_not_before: AtomicU64,
    /// On a node with peers: who waits for each entry, the oldest first.
    unanswered: Mutex<VecDeque<Unanswered>>,
}

/// Those who wait for an entry. Taken by whoever answers them, once.
type Waiters = Arc<Mutex<Vec<Waiter>>>;

struct Unanswered {
    since: Instant,
    waiters: Waiters,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            entries: AtomicUsize::new(0),
            commands: AtomicUsize::new(0),
            started: Instant::now(),
            own_not_before: AtomicU64::new(0),
            unanswered: Mutex::default(),
        }
    }
}

impl InFlight {
    pub(crate) fn count(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// How many commands are worth another entry now: with others on their way, three quarters of
    /// what those carry on average.
    fn worth(&self) -> usize {
        let entries = self.entries.load(Ordering::Acquire);
        let commands = self.commands.load(Ordering::Acquire);
        commands.checked_div(entries).map_or(1, |each| (each * 3).div_ceil(4))
    }

    fn sent(&self, waiters: &Waiters, since: Instant) {
        let unanswered = Unanswered { since, waiters: waiters.clone() };
        self.unanswered.lock().push_back(unanswered);
    }

    fn answered(&self, waiters: &Waiters) -> Vec<Waiter> {
        self.unanswered.lock().retain(|unanswered| !Arc::ptr_eq(&unanswered.waiters, waiters));
        std::mem::take(&mut *waiters.lock())
    }

    /// Who has waited longer than `limit`; `None` when no entry is as old as that.
    fn overdue(&self, limit: Duration) -> Option<Vec<Waiter>> {
        let unanswered = self.unanswered.lock();
        let old = unanswered.iter().take_while(|entry| entry.since.elapsed() > limit);
        old.map(|entry| std::mem::take(&mut *entry.waiters.lock())).reduce(|mut all, more| {
            all.extend(more);
            all
        })
    }

    fn own_wait(&self) -> Option<Duration> {
        let at = self.own_not_before.load(Ordering::Acquire);
        (at != u64::MAX).then(|| Duration::from_millis(at).saturating_sub(self.started.elapsed()))
    }

    fn own_sent(&self) {
        self.own_not_before.store(u64::MAX, Ordering::Release);
    }

    fn own_back(&self, pause: Duration) {
        let at = (self.started.elapsed() + pause).as_millis() as u64;
        self.own_not_before.store(at, Ordering::Release);
    }
}

/// One entry on its way; dropping it makes room for the next.
pub(crate) struct Flight {
    partition: Arc<Partition>,
    commands: usize,
}

impl Flight {
    /// Of so many commands.
    pub(crate) fn new(partition: Arc<Partition>, commands: usize) -> Self {
        partition.in_flight.commands.fetch_add(commands, Ordering::AcqRel);
        partition.in_flight.entries.fetch_add(1, Ordering::AcqRel);
        Self { partition, commands }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.partition.in_flight.entries.fetch_sub(1, Ordering::AcqRel);
        self.partition.in_flight.commands.fetch_sub(self.commands, Ordering::AcqRel);
        self.partition.queue.wake.notify_one();
    }
}

/// Whether an entry carries commands of the replica itself, which come before the others.
#[derive(Clone, Copy)]
struct Own {
    commands: usize,
}

/// The body of a partition's proposer task: until the queue is closed and empty.
pub(crate) async fn run(partition: Arc<Partition>, raft: Raft) {
    let peers = partition.shared.peers.clone();
    let mut forwarder = peers.map(|peers| Forwarder::new(partition.clone(), peers));
    loop {
        while takes_another(&partition) {
            let Some(entry) = gather(&partition, &raft) else { break };
            let elsewhere = forwarder
                .as_mut()
                .and_then(|forwarder| Some((forwarder, partition.leader_elsewhere()?)));
            match elsewhere {
                Some((forwarder, (leader, node))) => {
                    let (commands, waiters) = to_send(&partition, entry);
                    if !commands.is_empty() {
                        forwarder.send(leader, &node, commands, waiters).await;
                    }
                }
                None => propose(&partition, &raft, entry).await,
            }
        }
        if partition.queue.finished() {
            return;
        }
        let mut limit = sleep(&partition);
        if let Some(peers) = &partition.shared.options.peers {
            give_up_overdue(&partition, peers.answer_limit);
            if partition.in_flight.count() > 0 {
                limit = Some(limit.unwrap_or(OVERDUE_LOOK).min(OVERDUE_LOOK));
            }
        }
        match limit {
            // Woken early or not: what there is to do is looked at anew.
            Some(limit) => drop(tokio::time::timeout(limit, partition.queue.wake.notified()).await),
            None => partition.queue.wake.notified().await,
        }
    }
}

/// Whether another entry may go on its way, and what is queued is worth one.
fn takes_another(partition: &Partition) -> bool {
    partition.in_flight.count() < partition.shared.options.entries_in_flight_max
        && partition.queue.holds(partition.in_flight.worth())
}

/// A leader that has lost its majority cannot know what becomes of its entries: who waits is told so
/// after a while, and what waits behind them was not proposed. The entries stay under way.
fn give_up_overdue(partition: &Partition, limit: Duration) {
    let Some(overdue) = partition.in_flight.overdue(limit) else { return };
    refuse(overdue, ProposeError::Unknown);
    if !takes_another(partition) {
        let behind = partition.queue.take(usize::MAX, usize::MAX);
        let behind = behind.into_iter().map(|queued| queued.waiter).collect();
        refuse(behind, ProposeError::Unavailable);
    }
}

/// How long until something expires that a tick would remove; `None` to wait for a wake only.
fn sleep(partition: &Partition) -> Option<Duration> {
    let gauges = &partition.gauges;
    // Nothing of the replica's own goes before an entry is back, however long it is due.
    if !takes_another(partition) {
        return None;
    }
    let own = partition.in_flight.own_wait()?;
    let due = match gauges.next_due.load(Ordering::Relaxed) {
        u64::MAX => None,
        due => Some(Duration::from_millis(due.saturating_sub(partition.clock.now().0))),
    };
    let now =
        gauges.limits_differ.load(Ordering::Relaxed) || gauges.renewal.load(Ordering::Relaxed) != 0;
    let due = if now { Some(Duration::ZERO) } else { due };
    // Never zero: what is due by now became so just after it was looked at.
    due.map(|due| due.max(own).clamp(Duration::from_millis(1), SLEEP_MAX))
}

/// What one log entry will carry, with those who wait for it.
struct Entry {
    own: Own,
    commands: Vec<Command>,
    waiters: Vec<Waiter>,
    /// Where each of the waiters is.
    origins: Vec<Origin>,
}

fn gather(partition: &Partition, raft: &Raft) -> Option<Entry> {
    let options = &partition.shared.options;
    let mut commands = own_commands(partition, raft);
    let own = Own { commands: commands.len() };
    let queued = partition.queue.take(options.entry_commands_max, options.entry_bytes_max);
    let mut waiters = Vec::with_capacity(queued.len());
    let mut origins = Vec::with_capacity(queued.len());
    commands.reserve(queued.len());
    let here = queued.iter().filter(|queued| queued.origin == Origin::Here).count();
    partition.sources.add(partition.shared.node, here);
    for queued in queued {
        commands.push(queued.command);
        waiters.push(queued.waiter);
        origins.push(queued.origin);
    }
    (!commands.is_empty()).then_some(Entry { own, commands, waiters, origins })
}

/// What of an entry goes to the leader: neither the replica's own commands, which the leader has
/// too, nor what came from another node while this one still led.
fn to_send(partition: &Partition, entry: Entry) -> (Vec<Command>, Vec<Waiter>) {
    let Entry { own, commands, waiters, origins } = entry;
    if own.commands > 0 {
        partition.in_flight.own_back(OWN_RETRY);
    }
    let (mut sent, mut waiting) = (Vec::with_capacity(waiters.len()), Vec::new());
    let queued = commands.into_iter().skip(own.commands).zip(waiters).zip(origins);
    for ((command, waiter), origin) in queued {
        match origin {
            Origin::Here => {
                sent.push(command);
                waiting.push(waiter);
            }
            Origin::Peer => refuse(vec![waiter], ProposeError::Unavailable),
        }
    }
    (sent, waiting)
}

/// What the leader proposes by itself.
fn own_commands(partition: &Partition, raft: &Raft) -> Vec<Command> {
    let gauges = &partition.gauges;
    let limits = gauges.limits_differ.load(Ordering::Relaxed);
    let renewal = gauges.renewal.load(Ordering::Relaxed);
    let due = gauges.next_due.load(Ordering::Relaxed) <= partition.clock.now().0;
    let now = partition.in_flight.own_wait() == Some(Duration::ZERO);
    if !(limits || renewal != 0 || due) || !now {
        return Vec::new();
    }
    if !raft.is_leader() || partition.queue.finished() {
        partition.in_flight.own_back(OWN_RETRY);
        return Vec::new();
    }
    partition.in_flight.own_sent();
    let options = &partition.shared.options;
    let limits = limits.then(|| Command::SetLimits(Limits::clone(&partition.shared.limits.load())));
    let renewal = (renewal != 0).then_some(Command::Renew { seed: renewal });
    let tick = due.then_some(Command::Tick { limit: options.tick_rows_max });
    limits.into_iter().chain(renewal).chain(tick).collect()
}

async fn propose(partition: &Arc<Partition>, raft: &Raft, entry: Entry) {
    let Entry { own, commands, waiters, origins: _ } = entry;
    let count = commands.len();
    let (commands, survivors) = coalesce(commands);
    let counters = &partition.shared.counters;
    counters.entries_proposed.add(1);
    counters.commands_coalesced.add((count - commands.len()) as u64);
    let batch = Batch { stamp: partition.clock.now(), commands };
    let proposal = Proposal(encode_batch(&batch));
    let flight = Flight::new(partition.clone(), count);
    let waiters = Arc::new(Mutex::new(waiters));
    let begun = Instant::now();
    if partition.shared.peers.is_some() {
        partition.in_flight.sent(&waiters, begun);
    }
    let answer = Answer::new(move |result: ClientWriteResult<TypeConfig>| {
        if result.is_ok() {
            flight.partition.shared.counters.commit_times.note(begun.elapsed());
        }
        let waiters = flight.partition.in_flight.answered(&waiters);
        settle(&flight.partition, own, &survivors, waiters, result);
        drop(flight);
    });
    if let Err(error) = raft.client_write_ff(proposal, Some(answer)).await {
        // Raft stops only after the node's end or while the node is being closed; those who
        // waited were told that the fate is unknown when their senders were dropped.
        tracing::debug!(partition = partition.number, %error, "raft has stopped");
        partition.in_flight.own_back(OWN_RETRY);
    }
}

/// Tells every waiter what became of its command.
fn settle(
    partition: &Partition,
    own: Own,
    survivors: &[usize],
    waiters: Vec<Waiter>,
    result: ClientWriteResult<TypeConfig>,
) {
    match result {
        Ok(response) => {
            let outcomes = response.response().0.as_slice();
            settle_own(partition, own, survivors, outcomes);
            for (index, waiter) in waiters.into_iter().enumerate() {
                let outcome = outcome_of(outcomes, survivors, own.commands + index);
                // Nobody may be listening any more: the command is applied all the same.
                let _ = waiter.send(outcome.ok_or(ProposeError::Unknown));
            }
        }
        Err(error) => {
            tracing::debug!(partition = partition.number, %error, "an entry was not written");
            if own.commands > 0 {
                partition.in_flight.own_back(OWN_RETRY);
            }
            let fate = fate_of(&error);
            for waiter in waiters {
                let _ = waiter.send(Err(fate));
            }
        }
    }
}

/// What a proposer may conclude from raft's refusal.
fn fate_of(error: &ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(_)
        | ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_) => ProposeError::Unavailable,
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown,
    }
}

/// Own commands that changed nothing are not repeated at once.
fn settle_own(partition: &Partition, own: Own, survivors: &[usize], outcomes: &[Outcome]) {
    if own.commands == 0 {
        return;
    }
    let idle = (0..own.commands).any(|index| match outcome_of(outcomes, survivors, index) {
        Some(Outcome::Ticked { removed }) => removed == 0,
        Some(Outcome::Done) => false,
        Some(_) | None => true,
    });
    partition.in_flight.own_back(if idle { OWN_RETRY } else { Duration::ZERO });
}
