//! The log's time as this node sees it: stamps for new entries, and an estimate in between.
//!
//! Invariants: what is handed out never goes back and is never behind the state's clock. A leader
//! stamps by its wall clock; who follows goes on from the last stamp by its monotonic clock, so a
//! follower's wall clock never matters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ackord_machine::site::Stamp;

/// The clock of one partition.
pub(crate) struct Clock {
    started: Instant,
    /// The largest stamp handed out or applied.
    floor: AtomicU64,
    /// Last applied stamp minus monotonic milliseconds at that moment.
    offset: AtomicU64,
    leading: AtomicBool,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            floor: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            leading: AtomicBool::new(false),
        }
    }

    /// Whether this node stamps entries now.
    pub(crate) fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::Relaxed);
    }

    /// An entry with this stamp was applied.
    pub(crate) fn applied(&self, stamp: Stamp) {
        let since = self.monotonic_ms();
        self.offset.store(stamp.0.saturating_sub(since), Ordering::Relaxed);
        self.floor.fetch_max(stamp.0, Ordering::Relaxed);
    }

    /// The log's time now.
    pub(crate) fn now(&self) -> Stamp {
        let estimate = if self.leading.load(Ordering::Relaxed) {
            wall_ms()
        } else {
            self.offset.load(Ordering::Relaxed) + self.monotonic_ms()
        };
        Stamp(self.floor.fetch_max(estimate, Ordering::Relaxed).max(estimate))
    }

    fn monotonic_ms(&self) -> u64 {
        // 584 million years fit.
        self.started.elapsed().as_millis() as u64
    }
}

fn wall_ms() -> u64 {
    // A clock before 1970 counts as 1970: the floor keeps time from going back.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_stamp_from_the_future_when_leading_then_time_stands_still_but_never_goes_back() {
        let clock = Clock::new();
        clock.set_leading(true);
        let future = Stamp(wall_ms() + 3_600_000);
        clock.applied(future);
        assert_eq!(clock.now(), future);
        assert_eq!(clock.now(), future);
    }

    #[test]
    fn given_a_follower_when_asked_then_it_goes_on_from_the_last_stamp() {
        let clock = Clock::new();
        clock.applied(Stamp(1_000_000));
        let first = clock.now();
        assert!(first >= Stamp(1_000_000) && first < Stamp(1_060_000), "{first:?}");
        clock.applied(Stamp(5_000_000));
        assert!(clock.now() >= Stamp(5_000_000));
    }
}
