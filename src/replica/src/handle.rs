//! What the rest of the broker holds of a partition: propose, read, watch.
//!
//! A handle never blocks and never waits for a disk. Reads see the state as applied on this node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ackord_machine::site::{Command, Outcome, Stamp, State};
use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::error::ProposeError;
use crate::watch::{EffectWatch, Effects};

/// A partition, as this node sees it. Cloning copies a pointer.
#[derive(Clone)]
pub struct PartitionHandle {
    inner: Arc<Partition>,
}

pub(crate) struct Partition {
    pub(crate) number: u32,
    pub(crate) state: RwLock<State>,
    pub(crate) effects: Effects,
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
    pub fn try_propose(&self, _command: Command) -> Result<Pending, ProposeError> {
        Err(ProposeError::Unavailable)
    }

    /// Looks at the state as applied on this node. `f` must be short and must not call `read` of
    /// the same partition again: applying waits for it.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.inner.state.read())
    }

    /// After it, [`PartitionHandle::read`] sees everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `Unavailable` when this cannot be confirmed now.
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        Err(ProposeError::Unavailable)
    }

    /// The log's time now, estimated: never behind the state's clock and never going back.
    pub fn now(&self) -> Stamp {
        self.inner.state.read().clock()
    }

    /// Watches what changes from now on. Make the watch first, then read.
    pub fn watch(&self) -> EffectWatch {
        self.inner.effects.watch()
    }
}

/// The answer to a proposal. Dropping it does not cancel the command.
#[derive(Debug)]
pub struct Pending {
    pub(crate) outcome: oneshot::Receiver<Result<Outcome, ProposeError>>,
}

impl Future for Pending {
    type Output = Result<Outcome, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(ProposeError::Unknown)))
    }
}
