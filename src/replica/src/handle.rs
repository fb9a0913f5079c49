//! What the rest of the broker holds of a partition: propose, read, watch.
//!
//! A handle never blocks and never waits for a disk. Reads see the state as applied on this node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ackord_machine::site::{Command, Outcome, Stamp, State};
use openraft::ReadPolicy;
use tokio::sync::oneshot;

use crate::error::ProposeError;
use crate::partition::Partition;
use crate::queue::is_raise;
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
    /// when the node is stopping. Nothing was proposed then.
    pub fn try_propose(&self, command: Command) -> Result<Pending, ProposeError> {
        let partition = &*self.inner;
        let counters = &partition.shared.counters;
        if partition.stopped() {
            return Err(ProposeError::Unavailable);
        }
        if is_raise(&command) {
            if partition.over_capacity() {
                counters.refused_over_capacity.add(1);
                return Err(ProposeError::OverCapacity);
            }
            if !partition.shared.store.admits() {
                counters.refused_disk_full.add(1);
                return Err(ProposeError::DiskFull);
            }
        }
        let (waiter, outcome) = oneshot::channel();
        match partition.queue.push(command, waiter) {
            Ok(()) => {
                counters.commands_proposed.add(1);
                Ok(Pending { outcome })
            }
            Err(error) => {
                if error == ProposeError::Busy {
                    counters.refused_busy.add(1);
                }
                Err(error)
            }
        }
    }

    /// Looks at the state as applied on this node. `f` must be short and must not call `read` of
    /// the same partition again: applying waits for it.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.inner.applied.read().state)
    }

    /// After it, [`PartitionHandle::read`] sees everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `Unavailable` when this cannot be confirmed now.
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        let Some(raft) = self.inner.raft.get() else { return Err(ProposeError::Unavailable) };
        // Never a lease: a paused leader cannot know that its lease is over.
        match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(partition = self.inner.number, %error, "a read is not confirmed");
                Err(ProposeError::Unavailable)
            }
        }
    }

    /// The log's time now, estimated: never behind the state's clock and never going back.
    pub fn now(&self) -> Stamp {
        self.inner.clock.now()
    }

    #[cfg(test)]
    pub(crate) fn raft(&self) -> crate::types::Raft {
        self.inner.raft.get().expect("it is set before a handle is given out").clone()
    }

    /// Watches what changes from now on. Make the watch first, then read.
    pub fn watch(&self) -> EffectWatch {
        self.inner.effects.watch()
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
