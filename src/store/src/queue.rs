//! The writer's queue: bounded in requests and bytes, in one order for all groups.
//!
//! Room is reserved before a group's lock is taken and filled after, so nobody waits for room
//! with a lock in hand, and the order of a group's requests is the order of its lock.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;
use crate::group::Recent;
use crate::record::Meta;
use crate::types::{Done, GroupId, Mark};

/// What the writer is asked to make durable.
pub(crate) enum Request {
    Append {
        entries: Vec<Recent>,
        drops_all: bool,
    },
    Meta {
        meta: Meta,
        /// The engine may forget what is below this slot.
        compact_to: Option<u64>,
        is_vote: bool,
    },
    Remove,
}

pub(crate) struct Queued {
    pub group: GroupId,
    pub sequence: u64,
    pub request: Request,
    /// The end of the group's log after it.
    pub last: Option<Mark>,
    pub bytes: u64,
    pub done: Done,
}

#[derive(Default)]
struct Inner {
    waiting: Vec<Queued>,
    /// Reserved, whether filled yet or not, and not yet made durable.
    bytes: u64,
    count: usize,
    state: State,
}

#[derive(Default, Clone)]
enum State {
    #[default]
    Open,
    Closing,
    Failed(StoreError),
}

pub(crate) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    freed: Condvar,
    bytes_max: u64,
    count_max: usize,
}

/// What the writer gets.
pub(crate) enum Taken {
    Batch(Vec<Queued>),
    Nothing,
    Closed,
}

impl Queue {
    pub fn new(bytes_max: u64, count_max: usize) -> Queue {
        Queue {
            inner: Mutex::default(),
            filled: Condvar::new(),
            freed: Condvar::new(),
            bytes_max,
            count_max,
        }
    }

    /// A single request may exceed the bytes when it is alone.
    fn has_room(&self, inner: &Inner, bytes: u64) -> bool {
        inner.count == 0
            || (inner.count < self.count_max && inner.bytes.saturating_add(bytes) <= self.bytes_max)
    }

    pub fn would_take(&self, bytes: u64) -> bool {
        self.has_room(&self.inner.lock(), bytes)
    }

    /// Requests for which room is taken.
    pub fn waiting(&self) -> usize {
        self.inner.lock().count
    }

    /// Waits for room and takes it.
    pub fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        loop {
            match &inner.state {
                State::Open => {}
                State::Closing => return Err(StoreError::Closed),
                State::Failed(error) => return Err(error.clone()),
            }
            if self.has_room(&inner, bytes) {
                inner.bytes += bytes;
                inner.count += 1;
                return Ok(());
            }
            self.freed.wait(&mut inner);
        }
    }

    /// Gives back what was reserved or taken.
    pub fn release(&self, count: usize, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        inner.count = inner.count.saturating_sub(count);
        self.freed.notify_all();
        if inner.count == 0 {
            // The writer may be waiting for the last reservation, to close.
            self.filled.notify_all();
        }
    }

    /// Fills reserved room. When the store failed meanwhile the request is answered so.
    pub fn push(&self, queued: Queued) {
        let mut inner = self.inner.lock();
        if let State::Failed(error) = &inner.state {
            let error = error.clone();
            drop(inner);
            (queued.done)(Err(error));
            return;
        }
        inner.waiting.push(queued);
        self.filled.notify_one();
    }

    /// Takes what waits, up to `bytes_max` but at least one; waits at most `patience`.
    pub fn take(&self, bytes_max: u64, patience: Duration) -> Taken {
        let deadline = Instant::now() + patience;
        let mut inner = self.inner.lock();
        while inner.waiting.is_empty() {
            match inner.state {
                State::Open => {}
                // A reservation not filled yet will be: close only when there is none.
                State::Closing if inner.count > 0 => {}
                State::Closing | State::Failed(_) => return Taken::Closed,
            }
            if self.filled.wait_until(&mut inner, deadline).timed_out() {
                return Taken::Nothing;
            }
        }
        let mut bytes = 0;
        let fitting = inner.waiting.iter().take_while(|queued| {
            let fits = bytes == 0 || bytes + queued.bytes <= bytes_max;
            bytes += queued.bytes;
            fits
        });
        let count = fitting.count();
        if count == inner.waiting.len() {
            return Taken::Batch(std::mem::take(&mut inner.waiting));
        }
        let rest = inner.waiting.split_off(count);
        Taken::Batch(std::mem::replace(&mut inner.waiting, rest))
    }

    /// Refuses new requests; those already there are still written.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        if matches!(inner.state, State::Open) {
            inner.state = State::Closing;
        }
        self.freed.notify_all();
        self.filled.notify_all();
    }

    /// Refuses everything from now on and returns what was waiting.
    pub fn fail(&self, error: StoreError) -> Vec<Queued> {
        let mut inner = self.inner.lock();
        inner.state = State::Failed(error);
        self.freed.notify_all();
        self.filled.notify_all();
        std::mem::take(&mut inner.waiting)
    }
}
