//! One subscription of a client: what was handled last, and what is being handled.

use std::collections::{BTreeSet, VecDeque};

use ackord_wire::frame::{Mode, Position};

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
    /// How the broker delivers it: as asked for, unless somebody else asked for something else since.
    pub mode: Mode,
    /// It is or was twoway: ids come in any order, so what was handled is remembered one by one.
    pub one_by_one: bool,
    /// The last handled instance, durable at CPL-2.
    pub last: Option<Position>,
    /// The subscription's number in this session.
    pub number: Option<u32>,
    /// The life that the broker's ids belong to now: incarnation and generation.
    pub life: Option<(u64, u32)>,
    /// What the application was told to be committed.
    pub committed: Option<Position>,
    pub work: Work,
    /// What further handlers of a twoway subscription do.
    pub beside: Vec<Work>,
    /// What came while a handler was busy with another instance.
    pub next: Option<Delivery>,
    /// Failures in a row of the same instance.
    pub failures: u32,
    /// What waits for the handler, of a subscription that is not ordered.
    pub queue: VecDeque<Delivery>,
    /// Of one that is remembered one by one: what was handled above `last`, which is what the broker has committed.
    pub above: BTreeSet<u64>,
    /// The life that those ids belong to.
    above_life: (u64, u32),
    /// `last` is higher than the store knows.
    pub floor_rose: bool,
    /// The highest id that came in this life.
    pub received: u64,
}

pub(super) fn life(position: &Position) -> (u64, u32) {
    (position.incarnation, position.generation)
}

impl Lane {
    pub fn new(subscription: Subscription, last: Option<Position>) -> Self {
        let above_life = last.as_ref().map(life).unwrap_or_default();
        let beside = subscription.handlers_at_once() - 1;
        Self {
            mode: subscription.mode,
            one_by_one: subscription.mode == Mode::Twoway,
            subscription,
            last,
            number: None,
            life: None,
            committed: None,
            work: Work::Idle,
            beside: vec![Work::Idle; beside],
            next: None,
            failures: 0,
            queue: VecDeque::new(),
            above: BTreeSet::new(),
            above_life,
            floor_rose: false,
            received: 0,
        }
    }

    /// The ids that come belong to this life.
    pub fn begin_above(&mut self, now: (u64, u32)) {
        if self.above_life != now {
            self.above = BTreeSet::new();
            self.received = 0;
            self.above_life = now;
        }
    }

    /// An instance was handled; not all before it need to be.
    pub fn note_above(&mut self, position: &Position) {
        self.begin_above(life(position));
        self.above.insert(position.instance_id);
    }

    /// The broker says how it delivers from now on; it begins behind what is committed.
    pub fn deliver_as(&mut self, mode: Mode) {
        if self.mode != mode {
            self.next = None;
        }
        self.mode = mode;
        self.one_by_one |= mode == Mode::Twoway;
    }

    /// Whether one instance comes after the other was answered, and always did in this life.
    pub fn comes_singly(&self) -> bool {
        self.mode == Mode::Ordered && !self.one_by_one && self.received == 0
    }

    /// An instance was handled.
    pub fn note_handled(&mut self, position: Position) {
        if self.one_by_one {
            self.note_above(&position);
        } else {
            self.last = Some(position);
        }
    }

    /// Forgets what was handled; whether there was anything.
    pub fn forget_handled(&mut self) -> bool {
        let known = self.last.take().is_some() || !self.above.is_empty();
        self.above = BTreeSet::new();
        self.queue = VecDeque::new();
        self.received = 0;
        known
    }

    /// Whether this instance waits for the handler.
    pub fn is_waiting(&self, position: &Position) -> bool {
        let same = |delivery: &Delivery| delivery.position() == *position;
        let at_hand = std::iter::once(&self.work).chain(&self.beside).any(|work| match work {
            Work::Waiting(delivery) => same(delivery),
            Work::Idle | Work::Running { .. } | Work::Saving(_) => false,
        });
        // Of what is not acknowledged none comes twice, and there may be many.
        at_hand || self.mode.is_acknowledged() && self.queue.iter().any(same)
    }

    /// Whether an instance waits for a handler to be free.
    pub fn is_in_line(&self) -> bool {
        matches!(self.work, Work::Waiting(_))
    }

    /// Whether this instance was handled. Ids compare only within one life, and then by order:
    /// what lies below the last one was handled too, or can never come.
    pub fn handled(&self, position: &Position) -> bool {
        let above = self.above_life == life(position) && self.above.contains(&position.instance_id);
        above
            || self.last.as_ref().is_some_and(|last| {
                life(last) == life(position) && position.instance_id <= last.instance_id
            })
    }

    /// Whether this very instance is being handled or saved.
    pub fn has_in_hand(&self, position: &Position) -> bool {
        std::iter::once(&self.work).chain(&self.beside).any(|work| match work {
            Work::Idle | Work::Waiting(_) => false,
            Work::Running { position: running, .. } => running == position,
            Work::Saving(saving) => saving == position,
        })
    }

    /// The connection is gone: what no handler has seen will come again, where it is acknowledged.
    pub fn forget_session(&mut self) {
        self.number = None;
        self.next = None;
        if !self.mode.is_acknowledged() {
            return;
        }
        self.queue = VecDeque::new();
        for work in std::iter::once(&mut self.work).chain(&mut self.beside) {
            if matches!(work, Work::Waiting(_)) {
                *work = Work::Idle;
            }
        }
    }
}

/// Lanes with an instance that waits for a handler, in the order of arrival.
pub(super) type Ready = VecDeque<usize>;
