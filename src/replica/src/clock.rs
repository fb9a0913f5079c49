//! The log's time as this node sees it: stamps for new entries, and an estimate in between.
//!
//! Invariants: what is handed out never goes back and is never behind the state's clock. A leader
//! stamps by the time that most nodes have, or by its own clock when it votes alone; who follows goes
//! on from the last stamp by its monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ackord_machine::site::Stamp;

use crate::time::Time;

/// The clock of one partition.
pub(crate) struct Clock {
    time: Arc<Time>,
    /// The largest stamp handed out or applied.
    floor: AtomicU64,
    /// Last applied stamp minus monotonic milliseconds at that moment.
    offset: AtomicU64,
    leading: AtomicBool,
    /// Whether this node votes alone.
    alone: AtomicBool,
}

impl Clock {
    pub(crate) fn new(time: Arc<Time>) -> Self {
        Self {
            time,
            floor: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            leading: AtomicBool::new(false),
            alone: AtomicBool::new(false),
        }
    }

    /// Whether this node is the only voter.
    pub(crate) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
    }

    /// Whether this node stamps entries now.
    pub(crate) fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::Relaxed);
    }

    /// An entry with this stamp was applied.
    pub(crate) fn applied(&self, stamp: Stamp) {
        let since = self.time.monotonic_ms();
        self.offset.store(stamp.0.saturating_sub(since), Ordering::Relaxed);
        self.floor.fetch_max(stamp.0, Ordering::Relaxed);
    }

    /// The log's time now.
    pub(crate) fn now(&self) -> Stamp {
        let estimate = if !self.leading.load(Ordering::Relaxed) {
            self.offset.load(Ordering::Relaxed) + self.time.monotonic_ms()
        } else if self.alone.load(Ordering::Relaxed) {
            self.time.own_ms()
        } else {
            self.time.now_ms()
        };
        Stamp(self.floor.fetch_max(estimate, Ordering::Relaxed).max(estimate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_stamp_from_the_future_when_leading_then_time_stands_still_but_never_goes_back() {
        let clock = Clock::new(Arc::new(Time::new(crate::ground::Wall::default())));
        clock.set_leading(true);
        let future = Stamp(clock.time.own_ms() + 3_600_000);
        clock.applied(future);
        assert_eq!(clock.now(), future);
        assert_eq!(clock.now(), future);
    }

    #[test]
    fn given_a_follower_when_asked_then_it_goes_on_from_the_last_stamp() {
        let clock = Clock::new(Arc::new(Time::new(crate::ground::Wall::default())));
        clock.applied(Stamp(1_000_000));
        let first = clock.now();
        assert!(first >= Stamp(1_000_000) && first < Stamp(1_060_000), "{first:?}");
        clock.applied(Stamp(5_000_000));
        assert!(clock.now() >= Stamp(5_000_000));
    }
}
