//! What the rest of the broker holds of a partition: propose, read, watch.
//!
//! A handle never blocks and never waits for a disk. Reads see the state as applied on this node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use ackord_machine::site::{Command, Effect, Outcome, Stamp, State};
use tokio::sync::oneshot;

use crate::error::ProposeError;
use crate::partition::Partition;
use crate::queue::{Origin, Wake};
use crate::watch::EffectWatch;

/// A partition, as this node sees it. Cloning copies a pointer.
#[derive(Clone)]
pub struct PartitionHandle {
    inner: Arc<Partition>,
}

impl PartitionHandle {
    pub(crate) fn new(inner: Arc<Partition>) -> Self {
        Self { inner }
    }

    /// The partition's number, 1..=P. (Group 0 is kept for the directory of nodes.)
    pub fn number(&self) -> u32 {
        self.inner.number
    }

    /// Queues the command for the next log entry and returns at once.
    ///
    /// # Errors
    /// `Busy` when the queue is full; `OverCapacity` and `DiskFull` for raises only; `Unavailable`
    /// when the node is stopping. Nothing was proposed then. The same can come back later from the
    /// leader on another node.
    pub fn try_propose(&self, command: Command) -> Result<Pending, ProposeError> {
        self.inner.admit(command, Origin::Here, Wake::Now).map(|outcome| Pending { outcome })
    }

    /// As [`PartitionHandle::try_propose`], for a caller who has more to propose: what is queued is
    /// looked at when it calls [`PartitionHandle::go`], or earlier.
    ///
    /// # Errors
    /// As [`PartitionHandle::try_propose`].
    pub fn try_propose_later(&self, command: Command) -> Result<Pending, ProposeError> {
        self.inner.admit(command, Origin::Here, Wake::Later).map(|outcome| Pending { outcome })
    }

    /// What was queued may go.
    pub fn go(&self) {
        self.inner.queue.wake.notify_one();
    }

    /// Commands that wait for the next log entry.
    pub fn queued(&self) -> usize {
        self.inner.queue.len()
    }

    /// Milliseconds since a leader last confirmed to this node that it follows it, to a fifth of a
    /// second; 0 on a node that is alone. While it leads itself, since a majority last confirmed it.
    pub fn stale_ms(&self) -> u64 {
        self.inner.gauges.stale_ms.load(Ordering::Relaxed)
    }

    /// Whether this node leads the partition, as far as it knows.
    pub fn leads(&self) -> bool {
        self.inner.raft.get().is_some_and(|raft| raft.is_leader())
    }

    /// As [`PartitionHandle::stale_ms`], looked at now: what a process that was stopped for a while
    /// has not noticed yet is noticed by this.
    pub fn stale_now_ms(&self) -> u64 {
        self.inner.look_at_staleness();
        self.stale_ms()
    }

    /// Whether this node is known to be no member of its cluster any more: nothing can be proposed here,
    /// and never will be.
    pub fn is_out(&self) -> bool {
        self.inner.shared.peers.as_ref().is_some_and(|peers| peers.told_removed())
    }

    /// Looks at the state as applied on this node. `f` must be short and must not call `read` of
    /// the same partition again: applying waits for it.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.inner.applied.read().state)
    }

    /// After it, [`PartitionHandle::read`] sees everything that was acknowledged before the call,
    /// on whatever node.
    ///
    /// # Errors
    /// `Unavailable` when this cannot be confirmed now.
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        let partition = &self.inner;
        let read = match (&partition.shared.peers, partition.leader_elsewhere()) {
            (Some(peers), Some((leader, node))) => {
                let (links, partition) = (peers.links(leader, &node), partition.clone());
                let reading = Box::pin(async move { partition.linearize(Some(&links)).await });
                peers.run(reading).await.unwrap_or_else(|| Err("this node stops".to_owned()))
            }
            // In a box: whoever waits for it is deep enough.
            _ => Box::pin(partition.linearize(None)).await,
        };
        read.map_err(|why| {
            tracing::debug!(partition = partition.number, why, "a read is not confirmed");
            ProposeError::Unavailable
        })
    }

    /// The log's time now, estimated: never behind the state's clock and never going back.
    pub fn now(&self) -> Stamp {
        self.inner.clock.now()
    }

    #[cfg(test)]
    pub(crate) fn partition(&self) -> Arc<Partition> {
        self.inner.clone()
    }

    #[cfg(test)]
    pub(crate) fn raft(&self) -> crate::types::Raft {
        self.inner.raft.get().expect("it is set before a handle is given out").clone()
    }

    /// Watches what changes from now on. Make the watch first, then read.
    pub fn watch(&self) -> EffectWatch {
        self.inner.effects.watch()
    }

    /// As [`PartitionHandle::watch`], of the effects that `wanted` says. It is asked while an entry is
    /// applied, so it must not wait.
    pub fn watch_some(
        &self,
        wanted: impl Fn(&Effect) -> bool + Send + Sync + 'static,
    ) -> EffectWatch {
        self.inner.effects.watch_some(Box::new(wanted))
    }
}

/// The answer to a proposal. Dropping it does not cancel the command.
#[derive(Debug)]
#[must_use = "the outcome says what became of the command"]
pub struct Pending {
    outcome: oneshot::Receiver<Result<Outcome, ProposeError>>,
}

impl Future for Pending {
    type Output = Result<Outcome, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(ProposeError::Unknown)))
    }
}
