//! Latencies in an HDR histogram, microseconds, three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::Latency;

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

#[cfg(test)]
mod tests {
    use super::*;

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
