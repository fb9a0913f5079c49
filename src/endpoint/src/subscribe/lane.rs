//! One subscription of a client: what was handled last, and what is being handled.

use std::collections::VecDeque;

use ackord_wire::frame::Position;

use crate::event::{Delivery, Subscription};

/// What a lane does.
#[derive(Clone, Debug, Default)]
pub(super) enum Work {
    /// Nothing.
    #[default]
    Idle,
    /// Has an instance that no handler has seen.
    Waiting(Delivery),
    /// A handler runs.
    Running {
        position: Position,
        attempt: u32,
        /// When the broker is told next that it does, milliseconds.
        working_ms: Option<u64>,
    },
    /// The handler has returned, the position is with the store.
    Saving(Position),
}

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub subscription: Subscription,
    /// The last handled instance, durable at CPL-2.
    pub last: Option<Position>,
    /// The subscription's number in this session.
    pub number: Option<u32>,
    /// The life that the broker's ids belong to now: incarnation and generation.
    pub life: Option<(u64, u32)>,
    /// What the application was told to be committed.
    pub committed: Option<Position>,
    pub work: Work,
    /// What came while a handler was busy with another instance.
    pub next: Option<Delivery>,
    /// Failures in a row of the same instance.
    pub failures: u32,
}

pub(super) fn life(position: &Position) -> (u64, u32) {
    (position.incarnation, position.generation)
}

impl Lane {
    pub fn new(subscription: Subscription, last: Option<Position>) -> Self {
        Self {
            subscription,
            last,
            number: None,
            life: None,
            committed: None,
            work: Work::Idle,
            next: None,
            failures: 0,
        }
    }

    /// Whether this instance was handled. Ids compare only within one life, and then by order:
    /// what lies below the last one was handled too, or can never come.
    pub fn handled(&self, position: &Position) -> bool {
        self.last.as_ref().is_some_and(|last| {
            life(last) == life(position) && position.instance_id <= last.instance_id
        })
    }

    /// Whether this very instance is being handled or saved.
    pub fn has_in_hand(&self, position: &Position) -> bool {
        match &self.work {
            Work::Idle | Work::Waiting(_) => false,
            Work::Running { position: running, .. } => running == position,
            Work::Saving(saving) => saving == position,
        }
    }

    /// The connection is gone: what no handler has seen will come again.
    pub fn forget_session(&mut self) {
        self.number = None;
        self.next = None;
        if matches!(self.work, Work::Waiting(_)) {
            self.work = Work::Idle;
        }
    }
}

/// Lanes with an instance that waits for a handler, in the order of arrival.
pub(super) type Ready = VecDeque<usize>;
