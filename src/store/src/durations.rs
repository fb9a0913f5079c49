//! How long something took, counted in a few buckets: cheap enough for every sync and every entry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, microseconds; what is longer is above all.
pub const DURATION_BOUNDS_US: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000];

/// Durations as they are counted. All counts only grow.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Durations as they were counted at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationCounts {
    /// How many were at most as long as each bound, and longer than the one before; the last ones
    /// were longer than all bounds.
    pub buckets: [u64; DURATION_BOUNDS_US.len() + 1],
    /// All of them together, microseconds.
    pub sum_us: u64,
}

impl Durations {
    /// Counts one.
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> DurationCounts {
        let mut counts = DurationCounts::default();
        for (count, bucket) in counts.buckets.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        counts.sum_us = self.sum_us.load(Ordering::Relaxed);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for us in [0, 50, 51, 5_000_000, 5_000_001] {
            durations.note(Duration::from_micros(us));
        }
        let counts = durations.counts();
        assert_eq!((counts.buckets[0], counts.buckets[1]), (2, 1));
        assert_eq!((counts.buckets[11], counts.buckets[12]), (1, 1));
        assert_eq!(counts.sum_us, 10_000_102);
    }
}
