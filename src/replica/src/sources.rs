//! Where a group's commands come from: the lead goes to the node that brings nearly all of them.
//!
//! `own and forwarded commands ─▶ counts ─▶ once a second: nearly all of one node? ─▶ Draw`
//!
//! A command of a node that leads saves the way to the leader and back, which costs half as much
//! again as all the rest. Invariants: a little load draws nobody, and what comes from everywhere
//! leaves the lead where the directory wants it; a lead that was drawn stays for [`KEEP`] after the
//! last load, so that one that comes and goes does not move it each time.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::NodeId;

/// How long is counted before it is judged.
const WINDOW: Duration = Duration::from_secs(1);
/// Commands per second that are worth moving the lead for.
const COMMANDS_MIN: u64 = 500;
/// How long a lead that was drawn stays without load.
const KEEP: Duration = Duration::from_secs(60);

/// Commands by the node that brought them, since they were last taken.
#[derive(Default)]
pub(crate) struct Sources {
    counts: Mutex<BTreeMap<NodeId, u64>>,
}

impl Sources {
    /// A node brought so many.
    pub(crate) fn add(&self, node: NodeId, commands: usize) {
        if commands > 0 {
            *self.counts.lock().entry(node).or_default() += commands as u64;
        }
    }

    /// Those since the last time.
    pub(crate) fn take(&self) -> BTreeMap<NodeId, u64> {
        std::mem::take(&mut *self.counts.lock())
    }
}

/// Which node draws the lead. A node that follows sees its own commands only, so it knows when it
/// comes to lead that it was drawn.
#[derive(Debug, Default)]
pub(crate) struct Draw {
    begun: Option<Instant>,
    counts: BTreeMap<NodeId, u64>,
    /// To whom, and until when without further load.
    to: Option<(NodeId, Instant)>,
}

impl Draw {
    /// Takes what was counted since the last look; says which node draws.
    pub(crate) fn look(&mut self, now: Instant, counts: BTreeMap<NodeId, u64>) -> Option<NodeId> {
        for (node, count) in counts {
            *self.counts.entry(node).or_default() += count;
        }
        let begun = *self.begun.get_or_insert(now);
        let passed = now.saturating_duration_since(begun);
        if passed >= WINDOW {
            self.begun = Some(now);
            self.judge(now, passed);
        }
        self.to = self.to.filter(|(_, until)| now < *until);
        self.to.map(|(node, _)| node)
    }

    fn judge(&mut self, now: Instant, passed: Duration) {
        let counts = std::mem::take(&mut self.counts);
        let all: u64 = counts.values().sum();
        if u128::from(all) * 1000 < u128::from(COMMANDS_MIN) * passed.as_millis() {
            return;
        }
        let until = now + KEEP;
        let most = counts.iter().max_by_key(|(_, count)| **count);
        let share = |node| counts.get(&node).copied().unwrap_or(0);
        self.to = match (most, self.to) {
            (Some((node, count)), _) if count * 4 >= all * 3 => Some((*node, until)),
            (_, Some((node, _))) if share(node) * 2 >= all => Some((node, until)),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks five times in a second, at the end of which a window is over.
    fn second(draw: &mut Draw, now: &mut Instant, each: &[(NodeId, u64)]) -> Option<NodeId> {
        for _ in 0..5 {
            *now += WINDOW / 5;
            draw.look(*now, each.iter().copied().collect());
        }
        draw.look(*now, BTreeMap::new())
    }

    fn begun() -> (Draw, Instant) {
        let (mut draw, now) = (Draw::default(), Instant::now());
        assert_eq!(draw.look(now, BTreeMap::new()), None);
        (draw, now)
    }

    #[test]
    fn given_much_of_one_node_then_it_draws_and_a_little_does_not() {
        let (mut draw, mut now) = begun();
        assert_eq!(second(&mut draw, &mut now, &[(2, 99)]), None, "495 in a second");
        assert_eq!(second(&mut draw, &mut now, &[(2, 74), (1, 26)]), None, "not nearly all");
        assert_eq!(second(&mut draw, &mut now, &[(2, 75), (1, 25)]), Some(2));
    }

    #[test]
    fn given_a_node_that_draws_then_half_of_the_load_keeps_it_and_less_does_not() {
        let (mut draw, mut now) = begun();
        assert_eq!(second(&mut draw, &mut now, &[(2, 100)]), Some(2));
        assert_eq!(second(&mut draw, &mut now, &[(2, 100), (1, 100)]), Some(2));
        assert_eq!(second(&mut draw, &mut now, &[(2, 100), (1, 60), (3, 60)]), None);
        assert_eq!(second(&mut draw, &mut now, &[(2, 100)]), Some(2));
        assert_eq!(second(&mut draw, &mut now, &[(3, 100)]), Some(3), "another one's load");
    }

    #[test]
    fn given_no_load_any_more_then_it_stays_for_a_while_and_not_for_ever() {
        let (mut draw, mut now) = begun();
        assert_eq!(second(&mut draw, &mut now, &[(2, 100)]), Some(2));
        let seconds = KEEP.as_secs();
        for _ in 1..seconds {
            assert_eq!(second(&mut draw, &mut now, &[(1, 10)]), Some(2));
        }
        assert_eq!(second(&mut draw, &mut now, &[(1, 10)]), None);
    }

    #[test]
    fn given_commands_then_each_is_taken_once() {
        let sources = Sources::default();
        sources.add(1, 3);
        sources.add(2, 1);
        sources.add(1, 2);
        sources.add(3, 0);
        assert_eq!(sources.take(), BTreeMap::from([(1, 5), (2, 1)]));
        assert_eq!(sources.take(), BTreeMap::new());
    }
}
