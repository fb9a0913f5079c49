//! Proposals of a node that does not lead go to the leader in one hop, and outcomes come back.
//!
//! ```text
//! proposer: take ─▶ Forwarder ═ one stream per leader, in order ═▶ accept ─▶ the leader's queue
//!   waiters ◀─ applied here too ◀─ reader ◀════════ outcomes ◀═════════════ applied there
//! ```
//!
//! Invariants: nothing is sent twice, and nothing that came from another node is sent on. What
//! never left is `Unavailable`; what left and was not answered is `Unknown`. An outcome is given
//! only after this node has applied what it speaks of, so that who was answered can read it here;
//! when that takes too long the fate is `Unknown` to the caller, who asks again under the same
//! identity.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::{Batch, Command, Outcome, Stamp, decode_batch, encode_batch};
use futures_util::{StreamExt, future, stream};
use openraft::BasicNode;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use super::link::{CallError, PATH_FORWARD};
use super::wire::{Fate, Forward, Forwarded};
use super::{PeerLinks, Peers};
use crate::error::ProposeError;
use crate::partition::Partition;
use crate::proposer::Flight;
use crate::queue::{Origin, Waiter, Wake};
use crate::types::NodeId;

/// Batches of one stream that may be unanswered.
pub(super) const FORWARDS_IN_FLIGHT_MAX: usize = 16;
/// How often a reader looks whether an answer is overdue.
const FORWARD_LOOK: Duration = Duration::from_millis(250);
/// How long opening a stream to the leader may take.
const OPEN_LIMIT: Duration = Duration::from_millis(500);
/// How long this node may take to apply what the leader has.
const APPLY_LIMIT: Duration = Duration::from_secs(5);

/// The sending side: one per partition, used by its proposer only.
pub(crate) struct Forwarder {
    partition: Arc<Partition>,
    peers: Arc<Peers>,
    current: Option<Outgoing>,
}

/// A stream to one leader.
struct Outgoing {
    leader: NodeId,
    address: String,
    sender: mpsc::Sender<Forward>,
    sent: Arc<Mutex<Sent>>,
    number: u64,
}

/// What was sent and not answered.
#[derive(Default)]
struct Sent {
    /// The reader has ended: nothing more will be answered.
    closed: bool,
    batches: VecDeque<SentBatch>,
}

struct SentBatch {
    number: u64,
    at: Instant,
    waiters: Vec<Waiter>,
    /// Keeps its place among the entries that are on their way.
    _flight: Flight,
}

impl Forwarder {
    pub(crate) fn new(partition: Arc<Partition>, peers: Arc<Peers>) -> Self {
        Self { partition, peers, current: None }
    }

    /// Sends commands to the leader.
    pub(crate) async fn send(
        &mut self,
        leader: NodeId,
        node: &BasicNode,
        commands: Vec<Command>,
        waiters: Vec<Waiter>,
    ) {
        if let Err(error) = self.ensure_open(leader, node).await {
            tracing::debug!(partition = self.partition.number, leader, %error, "no way to the leader");
            return refuse(waiters, ProposeError::Unavailable);
        }
        // What was queued before it was known that the leader is older.
        let commands: Vec<Command> = if self.peers.know_traces() {
            commands
        } else {
            commands.into_iter().map(Command::untraced).collect()
        };
        let Some(outgoing) = &mut self.current else {
            return refuse(waiters, ProposeError::Unavailable);
        };
        outgoing.number += 1;
        let number = outgoing.number;
        let batch = encode_batch(&Batch { stamp: Stamp(0), commands });
        let forward = Forward { group: self.partition.number, number, batch };
        let mut sent = outgoing.sent.lock();
        // Under the lock: whoever closes it answers what is in it, and nothing gets in later.
        if sent.closed || outgoing.sender.try_send(forward).is_err() {
            drop(sent);
            return refuse(waiters, ProposeError::Unavailable);
        }
        self.partition.shared.counters.entries_forwarded.add(1);
        sent.batches.push_back(SentBatch {
            number,
            at: Instant::now(),
            _flight: Flight::new(self.partition.clone(), waiters.len()),
            waiters,
        });
    }

    async fn ensure_open(&mut self, leader: NodeId, node: &BasicNode) -> Result<(), CallError> {
        if let Some(current) = &self.current
            && current.leader == leader
            && current.address == node.addr
            && !current.sent.lock().closed
        {
            return Ok(());
        }
        self.current = None;
        let links = self.peers.links(leader, node);
        let connection = links.main.connection(OPEN_LIMIT).await?;
        let (sender, receiver) = mpsc::channel(FORWARDS_IN_FLIGHT_MAX);
        let messages = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        let answers = connection.stream(PATH_FORWARD, messages, OPEN_LIMIT).await?;
        let sent = Arc::<Mutex<Sent>>::default();
        tokio::spawn(read(self.partition.clone(), links, answers, sent.clone()));
        self.current =
            Some(Outgoing { leader, address: node.addr.clone(), sender, sent, number: 0 });
        Ok(())
    }
}

/// Nothing of it was proposed, or nobody knows.
pub(crate) fn refuse(waiters: Vec<Waiter>, error: ProposeError) {
    for waiter in waiters {
        // Nobody may be listening any more.
        let _ = waiter.send(Err(error));
    }
}

/// Takes the answers of one stream until it ends; what is unanswered then is unknown. It outlives
/// its forwarder's interest in that leader while there is something to be answered.
async fn read(
    partition: Arc<Partition>,
    _links: Arc<PeerLinks>,
    mut answers: Streaming<Forwarded>,
    sent: Arc<Mutex<Sent>>,
) {
    let options = partition.shared.options.peers.as_ref();
    let limit = options.map_or(APPLY_LIMIT, |peers| peers.answer_limit);
    loop {
        match timeout(FORWARD_LOOK, answers.next()).await {
            Ok(Some(Ok(forwarded))) => {
                let batch = sent.lock().batches.pop_front();
                match batch.filter(|batch| batch.number == forwarded.number) {
                    Some(batch) => settle(&partition, batch, forwarded).await,
                    None => break,
                }
            }
            Ok(Some(Err(_)) | None) => break,
            Err(_) => {
                let oldest = sent.lock().batches.front().map(|batch| batch.at);
                if oldest.is_some_and(|at| at.elapsed() > limit) {
                    break;
                }
            }
        }
    }
    let left = {
        let mut sent = sent.lock();
        sent.closed = true;
        std::mem::take(&mut sent.batches)
    };
    for batch in left {
        refuse(batch.waiters, ProposeError::Unknown);
    }
}

/// Gives each waiter its answer once this node has applied it too.
async fn settle(partition: &Arc<Partition>, batch: SentBatch, forwarded: Forwarded) {
    let decided = forwarded.results.iter().any(Result::is_ok);
    let applied = !decided || partition.wait_applied(forwarded.applied_next, APPLY_LIMIT).await;
    let mut results = forwarded.results.into_iter();
    for waiter in batch.waiters {
        let result = match results.next() {
            Some(Ok(outcome)) if applied => Ok(outcome),
            Some(Ok(_)) | None => Err(ProposeError::Unknown),
            Some(Err(fate)) => Err(fate.into()),
        };
        let _ = waiter.send(result);
    }
}

/// The leader's side: queues a node's commands now; the future waits for what becomes of them.
pub(super) fn accept(
    partition: Option<Arc<Partition>>,
    from: NodeId,
    forward: Forward,
) -> impl Future<Output = Forwarded> + Send {
    let number = forward.number;
    let pending = partition.as_ref().and_then(|partition| {
        let batch = decode_batch(&forward.batch).ok()?;
        partition.sources.add(from, batch.commands.len());
        partition.listeners.note();
        Some(enqueue(partition, batch.commands))
    });
    async move {
        let (Some(partition), Some(pending)) = (partition, pending) else {
            // Shorter than what was sent: the rest is unknown there, which is safe.
            return Forwarded { number, applied_next: 0, results: Vec::new() };
        };
        let results = future::join_all(pending.into_iter().map(|pending| async {
            match pending {
                Ok(outcome) => outcome.await.unwrap_or(Err(ProposeError::Unknown)),
                Err(error) => Err(error),
            }
        }))
        .await;
        let results = results.into_iter().map(|result| result.map_err(Fate::from)).collect();
        Forwarded { number, applied_next: partition.applied_next(), results }
    }
}

/// As [`accept`], without a wire.
#[cfg(test)]
pub(crate) fn accept_commands(
    partition: &Arc<Partition>,
    commands: Vec<Command>,
) -> impl Future<Output = (Vec<Result<Outcome, ProposeError>>, u64)> + Send + use<> {
    let batch = encode_batch(&Batch { stamp: Stamp(0), commands });
    let forward = Forward { group: partition.number, number: 1, batch };
    let accepted = accept(Some(partition.clone()), partition.shared.node + 1, forward);
    async move {
        let Forwarded { applied_next, results, .. } = accepted.await;
        let results = results.into_iter().map(|result| result.map_err(ProposeError::from));
        (results.collect(), applied_next)
    }
}

type Queued = Result<oneshot::Receiver<Result<Outcome, ProposeError>>, ProposeError>;

fn enqueue(partition: &Partition, commands: Vec<Command>) -> Vec<Queued> {
    let leads = partition.raft.get().is_some_and(crate::types::Raft::is_leader);
    commands
        .into_iter()
        .map(|command| {
            if !leads {
                return Err(ProposeError::Unavailable);
            }
            partition.admit(command, Origin::Peer, Wake::Now)
        })
        .collect()
}
