//! One timer queue for all sessions of an arbiter.
//!
//! A session keeps at most one entry. A later deadline does not move the entry: it fires early,
//! the session finds nothing due and arms it anew. So the frequent case (sent, acknowledged, sent)
//! touches the queue about once per timeout instead of once per delivery.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use crate::notice::Notice;

/// The timers of one arbiter.
pub(crate) struct Timers {
    queue: Rc<RefCell<DelayQueue<Rc<Notice>>>>,
    task: JoinHandle<()>,
    origin: Instant,
}

/// A session's entry in the queue and its deadline; `None` when it has none. Kept in the notice,
/// because a fired entry's key may be given to another session before this one has looked.
pub(crate) type Timer = Cell<Option<(Key, u64)>>;

impl Timers {
    /// Starts the arbiter's timer task. `origin` is the zero of all deadlines.
    pub fn start(origin: Instant) -> Self {
        let queue: Rc<RefCell<DelayQueue<Rc<Notice>>>> = Rc::default();
        let due = queue.clone();
        let task = actix_rt::spawn(async move {
            loop {
                let fired = poll_fn(|context| {
                    // An empty queue is never done: it wakes this task at its next entry.
                    match due.borrow_mut().poll_expired(context) {
                        Poll::Ready(Some(expired)) => Poll::Ready(Some(expired.into_inner())),
                        Poll::Ready(None) | Poll::Pending => Poll::Pending,
                    }
                })
                .await;
                if let Some(notice) = fired {
                    notice.timer.set(None);
                    notice.mark_time();
                }
            }
        });
        Self { queue, task, origin }
    }

    /// Makes the notice marked at the deadline, or earlier.
    pub fn arm(&self, notice: &Rc<Notice>, deadline_ms: u64) {
        let at = self.origin + Duration::from_millis(deadline_ms);
        let key = match notice.timer.take() {
            Some((key, armed_ms)) if armed_ms <= deadline_ms => {
                return notice.timer.set(Some((key, armed_ms)));
            }
            Some((key, _)) => {
                self.queue.borrow_mut().reset_at(&key, at);
                key
            }
            None => self.queue.borrow_mut().insert_at(notice.clone(), at),
        };
        notice.timer.set(Some((key, deadline_ms)));
    }

    /// Removes the session's entry.
    pub fn disarm(&self, notice: &Notice) {
        if let Some((key, _)) = notice.timer.take() {
            self.queue.borrow_mut().remove(&key);
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.task.abort();
    }
}
