//! Latencies in HDR histograms, microseconds: of a whole run, and second by second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::report::{Latency, Second};

/// Longest latency that is told apart, microseconds: ten minutes.
const MAX_US: u64 = 600_000_000;
/// Significant digits.
const DIGITS: u8 = 3;

/// A recorder of latencies.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Histogram<u64>);

impl Recorder {
    pub(crate) fn new() -> Self {
        // The bounds are constants that the histogram accepts.
        Self(Histogram::new_with_bounds(1, MAX_US, DIGITS).expect("the bounds are valid"))
    }

    /// Records one; longer than the bound counts as the bound.
    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_US);
        self.0.saturating_record(us.clamp(1, MAX_US));
    }

    /// Adds another recorder's.
    pub(crate) fn add(&mut self, other: &Self) {
        // Equal bounds: nothing can be out of range.
        let _ = self.0.add(&other.0);
    }

    /// The distribution.
    pub(crate) fn report(&self) -> Latency {
        let at = |quantile: f64| self.0.value_at_quantile(quantile);
        Latency {
            count: self.0.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
        }
    }
}

/// Significant digits of a second.
const SECOND_DIGITS: u8 = 2;
/// Seconds that are told apart; what is later counts to the last: a day.
const SECONDS_MAX: usize = 86_400;

/// A run second by second.
#[derive(Debug)]
pub(crate) struct Timeline {
    from: Instant,
    seconds: Mutex<Vec<Slot>>,
}

#[derive(Debug)]
struct Slot {
    latency: Histogram<u32>,
    rss_bytes: Option<u64>,
}

impl Timeline {
    /// Of the time after `from`.
    pub(crate) fn new(from: Instant) -> Self {
        Self { from, seconds: Mutex::default() }
    }

    /// Notes what came of an event at `now`.
    pub(crate) fn record(&self, now: Instant, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_US);
        self.at(now, |slot| slot.latency.saturating_record(us.clamp(1, MAX_US)));
    }

    /// Notes how much memory the nodes have at `now`.
    pub(crate) fn memory(&self, now: Instant, rss_bytes: Option<u64>) {
        self.at(now, |slot| slot.rss_bytes = rss_bytes);
    }

    fn at(&self, now: Instant, note: impl FnOnce(&mut Slot)) {
        let Some(since) = now.checked_duration_since(self.from) else { return };
        let second = usize::try_from(since.as_secs()).unwrap_or(SECONDS_MAX).min(SECONDS_MAX - 1);
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        while seconds.len() <= second {
            // The bounds are constants that the histogram accepts.
            let latency = Histogram::new_with_bounds(1, MAX_US, SECOND_DIGITS);
            let latency = latency.expect("the bounds are valid");
            seconds.push(Slot { latency, rss_bytes: None });
        }
        note(&mut seconds[second]);
    }

    /// The seconds.
    pub(crate) fn report(&self) -> Vec<Second> {
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let told = seconds.iter().map(|Slot { latency, rss_bytes }| {
            let at =
                |quantile: f64| (!latency.is_empty()).then(|| latency.value_at_quantile(quantile));
            Second {
                events: latency.len(),
                p50_us: at(0.5),
                p99_us: at(0.99),
                rss_bytes: *rss_bytes,
            }
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_tells_seconds_apart_and_says_nothing_of_one_without_events() {
        let from = Instant::now();
        let timeline = Timeline::new(from);
        let at = |ms: u64| from + Duration::from_millis(ms);
        timeline.record(at(100), Duration::from_millis(5));
        timeline.record(at(2999), Duration::from_millis(7));
        timeline.memory(at(2000), Some(9));
        let told = timeline.report();
        assert_eq!(told.iter().map(|second| second.events).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!((told[1].p99_us, told[2].rss_bytes), (None, Some(9)));
        assert!((4_900..=5_100).contains(&told[0].p50_us.unwrap()), "{told:?}");
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut recorder = Recorder::new();
        (1..=1000).for_each(|ms| recorder.record(Duration::from_millis(ms)));
        recorder.record(Duration::from_secs(10_000));
        let report = recorder.report();
        assert_eq!(report.count, 1001);
        assert!((495_000..=505_000).contains(&report.p50_us), "{report:?}");
        assert!(report.max_us >= 599_000_000, "{report:?}");
    }
}
