//! Reads that are confirmed against a majority, shared by all who wait for one.
//!
//! Invariants: of each partition one is under way at a time, and it serves everybody who asked
//! before it began. So the leader is asked at most twice for however many there are, and whoever
//! makes many wait makes nobody wait longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackord_replica::PartitionHandle;
use parking_lot::Mutex;

/// Until a read that was not confirmed is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// The reads of one partition.
#[derive(Default)]
struct Turns {
    /// How many have begun.
    begun: AtomicU64,
    /// The last one that was confirmed. Locked by the one that is under way.
    confirmed: tokio::sync::Mutex<u64>,
}

impl Turns {
    /// Waits until a read has been confirmed that began after the call.
    async fn confirm(&self, read: impl AsyncFn() -> bool) {
        let before = self.begun.load(Ordering::Acquire);
        let mut confirmed = self.confirmed.lock().await;
        if *confirmed > before {
            return;
        }
        let turn = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        while !read().await {
            tokio::time::sleep(RETRY).await;
        }
        *confirmed = turn;
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Confirmations {
    partitions: Mutex<HashMap<u32, Arc<Turns>>>,
}

impl Confirmations {
    /// Waits until reads of the partition see everything that was acknowledged before the call.
    pub async fn confirm(&self, partition: &PartitionHandle) {
        let turns = self.partitions.lock().entry(partition.number()).or_default().clone();
        turns.confirm(async || partition.linearize().await.is_ok()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn however_many_ask_two_reads_serve_them() {
        let (turns, reads, leave) = (Turns::default(), AtomicUsize::new(0), Semaphore::new(0));
        let read = async || {
            reads.fetch_add(1, Ordering::SeqCst);
            leave.acquire().await.is_ok_and(|permit| {
                permit.forget();
                true
            })
        };
        let first = turns.confirm(read);
        let others = join_all((0..1000).map(|_| turns.confirm(read)));
        let go = async {
            while reads.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            leave.add_permits(10);
        };
        tokio::join!(first, others, go);
        assert!(reads.load(Ordering::SeqCst) <= 2, "{reads:?}");
    }

    #[tokio::test]
    async fn a_read_that_began_before_the_question_does_not_answer_it() {
        let (turns, reads) = (Turns::default(), AtomicUsize::new(0));
        let read = async || {
            reads.fetch_add(1, Ordering::SeqCst);
            true
        };
        turns.confirm(read).await;
        turns.confirm(read).await;
        assert_eq!(reads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_question_that_is_given_up_leaves_the_turn_to_the_next() {
        let turns = Turns::default();
        let never = turns.confirm(async || {
            std::future::pending::<()>().await;
            true
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), never).await.is_err());
        turns.confirm(async || true).await;
    }
}
