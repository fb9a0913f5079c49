//! Confirmations that go with the next event instead of alone.
//!
//! Each message to a peer costs this node and the peer a turn of the kernel's network, and what confirms a
//! cursor asks for nothing. So while events come to a session in a steady stream, a confirmation is
//! kept until the next event, for [`crate::BrokerOptions::confirmation_delay`] at most. One of an event that
//! came alone, or from a backlog, is told at once.
//!
//! Invariants: a session stands in the list at most once; nothing is kept longer than the delay and
//! one [`STEP`]; while nothing is kept, nothing wakes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::notice::Notice;

/// Between two looks at what is kept.
const STEP: Duration = Duration::from_millis(20);
/// Messages of one session that are kept; with one more they all go.
pub(crate) const KEPT_MAX: usize = 8;

/// How much a message matters now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Its receiver waits for it.
    Now,
    /// The same, and it is one of a stream.
    Event,
    /// It may wait for the next event.
    Confirmation,
}

/// Whether events come to a session one by one, in quick succession.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    /// When the last one was said.
    event_ms: Option<u64>,
    /// The session has its turn because something was raised. What it says in a turn for another reason
    /// was there before: a backlog.
    woken: bool,
    steady: bool,
}

impl Rhythm {
    /// The session has its turn, because something was raised or for another reason.
    pub fn turn(&mut self, woken: bool) {
        self.woken = woken;
    }

    /// The session says something.
    pub fn said(&mut self, urgency: Urgency, now_ms: impl FnOnce() -> u64, delay_ms: u64) {
        match urgency {
            Urgency::Now | Urgency::Confirmation => {}
            Urgency::Event => {
                let now_ms = now_ms();
                let soon =
                    self.event_ms.is_some_and(|before| now_ms.saturating_sub(before) < delay_ms);
                self.steady = soon && self.woken;
                self.event_ms = Some(now_ms);
            }
        }
    }

    /// Whether the next event is likely to come before the delay is over.
    pub fn is_steady(&self) -> bool {
        self.steady
    }
}

/// When a session's oldest kept message is due, and whether it stands in the list.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    due_ms: Cell<Option<u64>>,
    listed: Cell<bool>,
}

impl Kept {
    /// Nothing is kept any more.
    pub fn clear(&self) {
        self.due_ms.set(None);
    }

    /// Whether something has been kept for long enough.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.due_ms.get().is_some_and(|due_ms| due_ms <= now_ms)
    }
}

/// The sessions of one arbiter that keep something.
pub(crate) struct Corks {
    list: Rc<RefCell<Vec<Rc<Notice>>>>,
    filled: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Corks {
    /// Starts the arbiter's task. `origin` is the zero of all times.
    pub fn start(origin: Instant) -> Self {
        let (list, filled) = (Rc::<RefCell<Vec<Rc<Notice>>>>::default(), Rc::new(Notify::new()));
        let (kept, wake) = (list.clone(), filled.clone());
        let task = actix_rt::spawn(async move {
            loop {
                if kept.borrow().is_empty() {
                    *kept.borrow_mut() = Vec::new();
                    wake.notified().await;
                }
                tokio::time::sleep(STEP).await;
                let now_ms = origin.elapsed().as_millis() as u64;
                kept.borrow_mut().retain(|notice| {
                    let stays = !notice.kept.is_due(now_ms) && notice.kept.due_ms.get().is_some();
                    notice.kept.listed.set(stays);
                    if notice.kept.is_due(now_ms) {
                        notice.mark_time();
                    }
                    stays
                });
            }
        });
        Self { list, filled, task }
    }

    /// The session keeps something, at the latest until then unless it does already.
    pub fn keep(&self, notice: &Rc<Notice>, due_ms: u64) {
        if notice.kept.due_ms.get().is_none() {
            notice.kept.due_ms.set(Some(due_ms));
        }
        if !notice.kept.listed.replace(true) {
            let mut list = self.list.borrow_mut();
            list.push(notice.clone());
            if list.len() == 1 {
                self.filled.notify_one();
            }
        }
    }
}

impl Drop for Corks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(rhythm: &mut Rhythm, now_ms: u64) -> bool {
        rhythm.turn(true);
        rhythm.said(Urgency::Event, || now_ms, 100);
        rhythm.is_steady()
    }

    #[test]
    fn given_events_one_by_one_when_they_come_soon_then_the_stream_is_steady() {
        let mut rhythm = Rhythm::default();
        assert!(!event(&mut rhythm, 1000), "the first");
        assert!(event(&mut rhythm, 1099));
        assert!(event(&mut rhythm, 1140));
        assert!(!event(&mut rhythm, 1240), "a delay later");
        assert!(!rhythm.is_steady());
    }

    #[test]
    fn given_an_event_that_was_there_before_then_the_stream_is_a_backlog() {
        let mut rhythm = Rhythm::default();
        event(&mut rhythm, 1000);
        assert!(event(&mut rhythm, 1010));
        rhythm.turn(false);
        rhythm.said(Urgency::Confirmation, || 1020, 100);
        assert!(rhythm.is_steady(), "until it is known that an event waited");
        rhythm.said(Urgency::Event, || 1020, 100);
        assert!(!rhythm.is_steady());
        assert!(event(&mut rhythm, 1030), "raised later");
    }

    #[test]
    fn without_a_delay_no_stream_is_steady() {
        let mut rhythm = Rhythm::default();
        for _ in 0..3 {
            rhythm.turn(true);
            rhythm.said(Urgency::Event, || 1000, 0);
            assert!(!rhythm.is_steady());
        }
    }
}
