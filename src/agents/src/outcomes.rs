//! What a session waits for, in the order in which it asked.
//!
//! A partition answers in the order of proposals, so only the first is polled: one waker per
//! session whatever its window, and a batch of answers is one wake.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ackord_machine::session::{Failed, Token};
use ackord_machine::site::Outcome;
use ackord_replica::{PartitionHandle, Pending, ProposeError};
use futures_util::Stream;
use tokio::time::Instant;

use crate::translate;

enum Waiting {
    Proposal(Pending),
    Linearize(Pin<Box<dyn Future<Output = Result<(), ProposeError>>>>),
}

impl Waiting {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Outcome, Failed>> {
        let answer = match self {
            Self::Proposal(pending) => Pin::new(pending).poll(context),
            Self::Linearize(read) => read.as_mut().poll(context).map_ok(|()| Outcome::Done),
        };
        answer.map_err(translate::failed)
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Token, Instant, Waiting)>,
    waker: Option<Waker>,
}

/// The asking side: what the agent holds.
#[derive(Clone, Default)]
pub(crate) struct Outcomes(Rc<RefCell<Queue>>);

/// One answer.
pub(crate) struct Answer {
    pub token: Token,
    /// When it was asked for.
    pub since: Instant,
    pub result: Result<Outcome, Failed>,
}

impl Outcomes {
    /// Waits for a proposal that was asked for then.
    pub fn push(&self, token: Token, pending: Pending, since: Instant) {
        self.add(token, since, Waiting::Proposal(pending));
    }

    /// Waits until reads of the partition are linearizable.
    pub fn linearize(&self, token: Token, partition: PartitionHandle) {
        let read = async move { partition.linearize().await };
        self.add(token, Instant::now(), Waiting::Linearize(Box::pin(read)));
    }

    fn add(&self, token: Token, since: Instant, waiting: Waiting) {
        let mut queue = self.0.borrow_mut();
        queue.waiting.push_back((token, since, waiting));
        if queue.waiting.len() == 1
            && let Some(waker) = queue.waker.take()
        {
            waker.wake();
        }
    }

    /// The answering side: a stream that never ends.
    pub fn answers(&self) -> Answers {
        Answers(self.0.clone())
    }
}

/// See [`Outcomes::answers`].
pub(crate) struct Answers(Rc<RefCell<Queue>>);

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        let mut queue = self.0.borrow_mut();
        let Some((token, since, waiting)) = queue.waiting.front_mut() else {
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let (token, since) = (*token, *since);
        waiting.poll(context).map(|result| {
            queue.waiting.pop_front();
            Some(Answer { token, since, result })
        })
    }
}
