//! Stop and start: what was applied before is there after, from whichever source it is restored.

use std::path::Path;

use ackord_machine::site::{Digest, InstanceId};
use ackord_store::{GroupId, Store, StoreOptions};
use futures_util::future::join_all;

use super::fixture::{Publisher, hashes, options, until};
use crate::{Node, NodeOptions, StartError};

/// Starts, lets `act` work, stops; returns the states' hashes.
async fn session(options: NodeOptions, act: impl AsyncFnOnce(&Node)) -> Vec<Digest> {
    let node = Node::start(options).unwrap();
    act(&node).await;
    let hashes = hashes(&node);
    node.shutdown();
    hashes
}

async fn raise_many(node: &Node, count: usize, bytes: usize) {
    let mut publisher = Publisher::attach(node, "plant", 50).await;
    let pending: Vec<_> = (0..count).map(|_| publisher.send(bytes).unwrap()).collect();
    assert!(join_all(pending).await.iter().all(Result::is_ok));
}

async fn populate(node: &Node) {
    drop(Publisher::create(node, "plant", 50).await);
    drop(Publisher::create(node, "office", 50).await);
    raise_many(node, 200, 100).await;
}

/// Waits until the directory knows the node as it is, which the node itself sees to.
async fn announced(node: &Node) {
    let known = || node.cluster().nodes.iter().any(|node| !node.row.info.version.is_empty());
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(5));
    while !known() {
        looks.tick().await;
    }
}

fn with_store(dir: &Path, act: impl FnOnce(&Store)) {
    let store = Store::open(StoreOptions::small(dir)).unwrap();
    act(&store);
    store.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_stopped_node_when_started_from_the_checkpoint_then_the_state_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let before = session(options(dir.path()), async |node| {
        populate(node).await;
        announced(node).await;
    })
    .await;
    let applied = std::cell::Cell::new(0);
    let after = session(options(dir.path()), async |node| {
        applied.set(node.counters().commands_applied);
    })
    .await;
    assert_eq!(before, after);
    assert_eq!(applied.get(), 0, "nothing but raft's own entries is applied again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_no_checkpoint_when_started_from_the_log_alone_then_replay_equals_live() {
    let dir = tempfile::tempdir().unwrap();
    let before = session(options(dir.path()), populate).await;
    with_store(dir.path(), |store| {
        for group in [GroupId(1), GroupId(2)] {
            store.checkpoint(group).reset().unwrap();
        }
    });
    let after = session(options(dir.path()), async |_| {}).await;
    assert_eq!(before, after);
}

/// Raises until the log was purged.
async fn fill_until_purged(node: &Node) {
    drop(Publisher::create(node, "plant", 50).await);
    let mut rounds = 0;
    while node.counters().purges == 0 {
        raise_many(node, 200, 1000).await;
        rounds += 1;
        assert!(rounds < 200, "no purge: {:?}", node.counters());
    }
    assert!(node.counters().snapshots_built >= 2);
    raise_many(node, 20, 100).await;
}

fn snapshotting(dir: &Path) -> NodeOptions {
    NodeOptions { snapshot_log_bytes_min: 256 << 10, partitions: 1, ..options(dir) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_purged_log_when_started_then_checkpoint_or_snapshot_give_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let before = session(snapshotting(dir.path()), fill_until_purged).await;
    let group = GroupId(1);
    with_store(dir.path(), |store| {
        assert!(store.log_state(group).purged.is_some());
        assert_eq!(store.snapshots(group).list().unwrap().len(), 2);
    });
    assert_eq!(before, session(snapshotting(dir.path()), async |_| {}).await);

    with_store(dir.path(), |store| store.checkpoint(group).reset().unwrap());
    assert_eq!(before, session(snapshotting(dir.path()), async |_| {}).await, "newest snapshot");

    with_store(dir.path(), |store| {
        let newest = store.snapshots(group).list().unwrap().remove(0);
        spoil(dir.path(), &newest.id);
        store.checkpoint(group).reset().unwrap();
    });
    assert_eq!(before, session(snapshotting(dir.path()), async |_| {}).await, "older snapshot");
}

/// Flips a byte in the middle of every file whose name has the snapshot's, in hexadecimal.
fn spoil(dir: &Path, id: &str) {
    let id: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut spoilt = 0;
    let mut left = vec![dir.to_path_buf()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.to_string_lossy().contains(&id) {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 0, "no file of snapshot {id}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_purged_log_and_neither_checkpoint_nor_snapshot_when_started_then_it_refuses() {
    let dir = tempfile::tempdir().unwrap();
    session(snapshotting(dir.path()), fill_until_purged).await;
    with_store(dir.path(), |store| {
        for snapshot in store.snapshots(GroupId(1)).list().unwrap() {
            spoil(dir.path(), &snapshot.id);
        }
        store.checkpoint(GroupId(1)).reset().unwrap();
    });
    let refused = Node::start(snapshotting(dir.path())).map(drop);
    assert!(matches!(refused, Err(StartError::Restore { partition: 1, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_dropped_without_shutdown_when_its_files_are_started_then_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let node = Node::start(options(dir.path())).unwrap();
    populate(&node).await;
    let before = hashes(&node);
    copy_dir(dir.path(), copy.path());
    drop(node);
    let after = session(options(copy.path()), async |_| {}).await;
    assert_eq!(before, after);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_many_restarts_when_events_go_on_then_ids_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    session(options(dir.path()), async |node| drop(Publisher::create(node, "plant", 50).await))
        .await;
    for round in 1..=4_u64 {
        session(options(dir.path()), async |node| {
            raise_many(node, 10, 50).await;
            let publisher = Publisher::attach(node, "plant", 50).await;
            assert_eq!(publisher.retained().1, InstanceId(10 * round));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_another_number_of_partitions_when_started_then_it_refuses() {
    let dir = tempfile::tempdir().unwrap();
    session(options(dir.path()), async |_| {}).await;
    let refused = Node::start(NodeOptions { partitions: 3, ..options(dir.path()) }).map(drop);
    assert!(matches!(refused, Err(StartError::Partitions { found: 2, wanted: 3 })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_changes_when_the_interval_passes_then_a_checkpoint_is_written_without_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    session(options(dir.path()), async |node| {
        drop(Publisher::create(node, "plant", 50).await);
        until(|| node.counters().checkpoints > 0).await;
    })
    .await;
}
