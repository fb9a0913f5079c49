//! What only says what is committed waits for an entry that says it too.
//!
//! Raft asks with every commit for a request without entries. That costs the two nodes as much as an entry does
//! without its sync, and the next entry says the same. So while entries follow each other such a
//! request is kept back for a moment, and never sent when another one comes: raft takes an answer for
//! that of all requests up to the entry that it confirms.
//!
//! Pure: the shell brings the time and sends.

use std::time::Duration;

use tokio::time::Instant;

/// Entries that come as soon as this after each other are taken to go on coming.
const FOLLOWS: Duration = Duration::from_millis(2);
/// How long a request waits for the next one.
const PATIENCE: Duration = Duration::from_millis(2);

/// The requests of one stream, in their order.
pub(super) struct Pace<R> {
    /// When the last entries came.
    last: Option<Instant>,
    /// They came soon after those before.
    is_quick: bool,
    kept_back: Option<R>,
    until: Instant,
}

impl<R> Pace<R> {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: None, is_quick: false, kept_back: None, until: now }
    }

    /// Takes a request; gives what is to be sent now. With `awaited` somebody else waits for what is
    /// committed.
    pub(super) fn take(
        &mut self,
        now: Instant,
        request: R,
        has_entries: bool,
        awaited: bool,
    ) -> Option<R> {
        let quick = self.last.is_some_and(|last| now.duration_since(last) < FOLLOWS);
        if has_entries {
            self.is_quick = quick;
            self.last = Some(now);
        } else if quick && self.is_quick && !awaited {
            // One that is kept back already says less, and has waited longer.
            if self.kept_back.is_none() {
                self.until = now + PATIENCE;
            }
            self.kept_back = Some(request);
            return None;
        }
        self.kept_back = None;
        Some(request)
    }

    /// Until when something is kept back.
    pub(super) fn until(&self) -> Option<Instant> {
        self.kept_back.as_ref().map(|_| self.until)
    }

    /// What is kept back, to be sent now.
    pub(super) fn give(&mut self) -> Option<R> {
        self.kept_back.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(500);

    /// A stream on which entries follow each other: each request is its number.
    fn quick() -> (Pace<u32>, Instant) {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        assert_eq!(pace.take(begun, 1, true, false), Some(1));
        assert_eq!(pace.take(begun + STEP, 2, true, false), Some(2));
        (pace, begun + STEP)
    }

    #[test]
    fn given_entries_that_follow_each_other_then_a_commit_between_them_is_not_sent() {
        let (mut pace, now) = quick();
        assert_eq!(pace.take(now + STEP, 3, false, false), None);
        assert_eq!(pace.take(now + 2 * STEP, 4, true, false), Some(4));
        assert_eq!((pace.until(), pace.give()), (None, None), "the entry said it");
    }

    #[test]
    fn given_nothing_that_follows_then_the_last_commit_is_sent_after_the_first_ones_patience() {
        let (mut pace, now) = quick();
        assert_eq!(pace.take(now, 3, false, false), None);
        assert_eq!(pace.take(now + STEP, 4, false, false), None);
        assert_eq!(pace.until(), Some(now + PATIENCE));
        assert_eq!((pace.give(), pace.give(), pace.until()), (Some(4), None, None));
    }

    #[test]
    fn given_an_entry_now_and_then_then_its_commit_is_sent_at_once() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        assert_eq!(pace.take(begun, 1, false, false), Some(1), "nothing has come yet");
        for number in 2..10 {
            let now = begun + number * FOLLOWS;
            assert_eq!(pace.take(now, number, true, false), Some(number));
            assert_eq!(pace.take(now, 100, false, false), Some(100));
        }
        let (mut pace, now) = quick();
        assert_eq!(pace.take(now + FOLLOWS, 3, false, false), Some(3), "they have ceased to come");
    }

    #[test]
    fn given_somebody_who_waits_for_it_then_a_commit_is_sent_at_once_and_says_what_was_kept_back() {
        let (mut pace, now) = quick();
        assert_eq!(pace.take(now, 3, false, false), None);
        assert_eq!(pace.take(now, 4, false, true), Some(4));
        assert_eq!(pace.give(), None);
    }
}
