//! Since when a majority is known to follow a leader.
//!
//! `request sent ─▶ its answer ─▶ that member followed when it was sent ─▶ a majority did ─▶ reads, staleness`
//!
//! Raft keeps such a record too, by log ids: there an answer counts for each request up to the entry that it
//! confirms, also for one without entries that was made since and is not answered, or never sent. A
//! leader that was suspended for seconds and finds answers from before would pass for one that is followed now.
//! So here an answer counts for its own request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::types::{NodeId, RaftVote};

/// When the latest request to each member that it answered as a follower was sent. One per partition.
#[derive(Default)]
pub(crate) struct Confirmed {
    members: Mutex<BTreeMap<NodeId, (RaftVote, Instant)>>,
    changed: Notify,
}

impl Confirmed {
    /// `member` has answered what the leader of `vote` sent it at `sent`, as its follower.
    pub(crate) fn note(&self, member: NodeId, vote: RaftVote, sent: Instant) {
        let mut members = self.members.lock();
        let known = members.entry(member).or_insert((vote, sent));
        if vote > known.0 || (vote == known.0 && sent > known.1) {
            *known = (vote, sent);
        }
        drop(members);
        self.changed.notify_waiters();
    }

    /// The latest moment at which majorities of all of `voters` followed `leader` as that of `vote`.
    /// `None` when they have not yet. A leader follows itself at any time.
    pub(crate) fn since(
        &self,
        (leader, vote): (NodeId, &RaftVote),
        voters: &[BTreeSet<NodeId>],
    ) -> Option<Instant> {
        let now = Instant::now();
        let members = self.members.lock();
        let followed = |member: &NodeId| match members.get(member) {
            _ if *member == leader => Some(now),
            Some((followed, at)) if followed == vote => Some(*at),
            _ => None,
        };
        let of_majority = |voters: &BTreeSet<NodeId>| {
            let mut at: Vec<_> = voters.iter().map(followed).collect();
            at.sort_unstable_by(|a, b| b.cmp(a));
            at.get(voters.len() / 2).copied().flatten()
        };
        // `None` is the least.
        voters.iter().map(of_majority).min().flatten()
    }

    /// Waits, at most so long, until [`Confirmed::since`] is not before `moment`; whether it is so. What was
    /// sent at that very moment counts: a clock may stand still meanwhile.
    pub(crate) async fn wait(
        &self,
        leading: (NodeId, &RaftVote),
        voters: &[BTreeSet<NodeId>],
        moment: Instant,
        limit: Duration,
    ) -> bool {
        let confirmed = async {
            loop {
                let changed = self.changed.notified();
                if self.since(leading, voters).is_some_and(|since| since >= moment) {
                    return;
                }
                changed.await;
            }
        };
        timeout(limit, confirmed).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn vote(term: u64) -> RaftVote {
        RaftVote::new_committed(term, 1)
    }

    fn three() -> [BTreeSet<NodeId>; 1] {
        [BTreeSet::from([1, 2, 3])]
    }

    #[test]
    fn given_answers_then_the_majoritys_latest_request_counts_whatever_the_order_of_answers() {
        let (confirmed, begun) = (Confirmed::default(), Instant::now() - 10 * SECOND);
        let since = |voters: &[BTreeSet<NodeId>]| confirmed.since((1, &vote(4)), voters);
        assert_eq!(since(&three()), None, "nobody has answered");
        confirmed.note(2, vote(4), begun + 2 * SECOND);
        assert_eq!(since(&three()), Some(begun + 2 * SECOND), "with the leader they are two");
        confirmed.note(2, vote(4), begun + SECOND);
        assert_eq!(since(&three()), Some(begun + 2 * SECOND), "it came later and says less");
        confirmed.note(3, vote(4), begun + 3 * SECOND);
        assert_eq!(since(&three()), Some(begun + 3 * SECOND));
        let five = [BTreeSet::from([1, 2, 3, 4, 5])];
        assert_eq!(since(&five), Some(begun + 2 * SECOND), "the third of five");
        let joint = [BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 4, 5])];
        assert_eq!(since(&joint), None, "of the second three only the leader");
        confirmed.note(5, vote(4), begun);
        assert_eq!(since(&joint), Some(begun), "both have to");
    }

    #[test]
    fn given_answers_to_another_vote_then_they_do_not_count() {
        let (confirmed, begun) = (Confirmed::default(), Instant::now());
        confirmed.note(2, vote(3), begun);
        assert_eq!(confirmed.since((1, &vote(4)), &three()), None);
        confirmed.note(2, vote(4), begun);
        confirmed.note(2, vote(3), begun + SECOND);
        assert_eq!(confirmed.since((1, &vote(4)), &three()), Some(begun));
    }

    #[test]
    fn given_a_leader_that_does_not_vote_then_the_others_have_to() {
        let (confirmed, begun) = (Confirmed::default(), Instant::now());
        confirmed.note(2, vote(4), begun);
        let others = [BTreeSet::from([2, 3, 4])];
        assert_eq!(confirmed.since((1, &vote(4)), &others), None);
        confirmed.note(3, vote(4), begun + SECOND);
        assert_eq!(confirmed.since((1, &vote(4)), &others), Some(begun));
    }

    #[tokio::test]
    async fn given_somebody_who_waits_then_the_answer_to_a_later_request_ends_it() {
        let (confirmed, vote, voters) = (Confirmed::default(), vote(4), three());
        let asked = Instant::now();
        let waiting = confirmed.wait((1, &vote), &voters, asked, 10 * SECOND);
        let answering = async {
            tokio::task::yield_now().await;
            confirmed.note(2, vote, asked - Duration::from_nanos(1));
            tokio::task::yield_now().await;
            confirmed.note(3, vote, asked);
        };
        assert!(tokio::join!(waiting, answering).0);
        let soon = Duration::from_millis(1);
        assert!(!confirmed.wait((1, &vote), &voters, asked + SECOND, soon).await);
    }
}
