//! What time it is, as most nodes of the cluster have it.
//!
//! `own wall clock, the others' as last heard ─▶ lower median ─▶ stamps`
//!
//! Clocks are kept as their distance to this process's monotonic clock, so that a wall clock that is
//! set while the node runs changes one value of several, its own. Invariant: with more than two
//! clocks heard of no single one decides.

use std::collections::BTreeMap;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ground::Wall;
use crate::types::NodeId;

/// How long a clock counts that was not heard of again.
const FRESH: Duration = Duration::from_secs(15);

/// The clocks that a node knows.
pub(crate) struct Time {
    wall: Wall,
    started: Instant,
    heard: Mutex<BTreeMap<NodeId, (Instant, i64)>>,
    /// The distances of the others' clocks that count.
    others: ArcSwap<Vec<i64>>,
}

impl Time {
    pub(crate) fn new(wall: Wall) -> Self {
        Self { wall, started: Instant::now(), heard: Mutex::default(), others: ArcSwap::default() }
    }

    /// Milliseconds since this was made.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        // 584 million years fit.
        self.started.elapsed().as_millis() as u64
    }

    /// Another node's wall clock is ahead of this one's by so much, now.
    pub(crate) fn heard(&self, node: NodeId, difference_ms: i64) {
        let distance = self.own().saturating_add(difference_ms);
        self.heard.lock().insert(node, (Instant::now(), distance));
        self.refresh();
    }

    /// Forgets what is old.
    pub(crate) fn refresh(&self) {
        let mut heard = self.heard.lock();
        heard.retain(|_, (at, _)| at.elapsed() < FRESH);
        let others = heard.values().map(|(_, distance)| *distance).collect();
        self.others.store(std::sync::Arc::new(others));
    }

    /// This node's own wall clock, milliseconds since 1970.
    pub(crate) fn own_ms(&self) -> u64 {
        self.wall.ms()
    }

    /// The time as most have it, milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let now = self.median().saturating_add_unsigned(self.monotonic_ms());
        u64::try_from(now).unwrap_or(0)
    }

    /// By how much this node's clock is ahead of what most have, milliseconds.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.own().saturating_sub(self.median())
    }

    fn own(&self) -> i64 {
        let (own, since) = (self.own_ms(), self.monotonic_ms());
        i64::try_from(own).unwrap_or(i64::MAX).saturating_sub_unsigned(since)
    }

    fn median(&self) -> i64 {
        let others = self.others.load();
        let mut all: Vec<i64> = others.iter().copied().chain([self.own()]).collect();
        all.sort_unstable();
        all[(all.len() - 1) / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn near(actual: i64, expected: i64) {
        assert!((actual - expected).abs() < 1000, "{actual}, expected about {expected}");
    }

    #[test]
    fn given_no_other_node_then_the_own_clock_counts() {
        let time = Time::new(Wall::default());
        near(time.now_ms() as i64, time.own_ms() as i64);
        assert_eq!(time.ahead_ms(), 0);
    }

    #[test]
    fn given_three_clocks_then_the_one_that_is_off_does_not_count_whosever_it_is() {
        let time = Time::new(Wall::default());
        time.heard(2, 10);
        time.heard(3, HOUR_MS);
        near(time.now_ms() as i64, time.own_ms() as i64);
        near(time.ahead_ms(), 0);
        // The others agree that this node's own clock is an hour late, or early.
        for off in [HOUR_MS, -HOUR_MS] {
            time.heard(2, off);
            time.heard(3, off + 5);
            near(time.now_ms() as i64, time.own_ms() as i64 + off);
            near(time.ahead_ms(), -off);
        }
    }

    #[test]
    fn given_two_clocks_then_the_one_that_is_behind_counts() {
        let time = Time::new(Wall::default());
        time.heard(2, HOUR_MS);
        near(time.now_ms() as i64, time.own_ms() as i64);
        time.heard(2, -HOUR_MS);
        near(time.now_ms() as i64, time.own_ms() as i64 - HOUR_MS);
    }
}
