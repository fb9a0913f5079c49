//! More changes than the checkpoint takes at once, or at all.

use futures_util::future::join_all;

use super::fixture::{Publisher, hashes, options, until};
use crate::{Node, NodeOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_more_changes_than_a_batch_takes_when_stopped_and_started_then_the_state_is_the_same()
{
    let dir = tempfile::tempdir().unwrap();
    // No checkpoint before the one at the end.
    let interval = std::time::Duration::from_secs(3600);
    let options = || NodeOptions {
        partitions: 1,
        checkpoint_interval: interval,
        checkpoint_rows_max: usize::MAX,
        ..options(dir.path())
    };
    let node = Node::start(options()).unwrap();
    for site in ["a", "b", "c", "d", "e", "f", "g"] {
        let mut publisher = Publisher::create(&node, site, 1000).await;
        let pending: Vec<_> = (0..1000).map(|_| publisher.send(2000).unwrap()).collect();
        assert!(join_all(pending).await.iter().all(Result::is_ok));
    }
    let before = hashes(&node);
    assert_eq!(node.counters().checkpoints, 0);
    node.shutdown();
    assert!(node.counters().checkpoint_rows > 14_000);
    let node = Node::start(options()).unwrap();
    assert_eq!(before, hashes(&node));
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_changes_faster_than_they_are_written_when_it_calms_then_the_state_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let options = || NodeOptions { checkpoint_rows_max: 4, ..options(dir.path()) };
    let node = Node::start(options()).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 100).await;
    let pending: Vec<_> = (0..1000).map(|_| publisher.send(10).unwrap()).collect();
    assert!(join_all(pending).await.iter().all(Result::is_ok));
    until(|| node.counters().checkpoint_rebuilds > 0).await;
    let before = hashes(&node);
    node.shutdown();
    let node = Node::start(options()).unwrap();
    assert_eq!(before, hashes(&node));
    node.shutdown();
}
