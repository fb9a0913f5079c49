//! A member that slept past the purge point is caught up by a snapshot, in pieces.

use std::time::Instant;

use ackord_store::GroupId;
use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;

use super::cluster::{Cluster, LIMIT, eventually, partition_of, within};
use super::fixture::Publisher;
use super::replication::publisher;
use crate::NodeOptions;

fn snapshotting(options: NodeOptions) -> NodeOptions {
    NodeOptions { snapshot_log_bytes_min: 256 << 10, partitions: 1, ..options }
}

/// Raises until the node has purged its log `more` times more.
async fn raise_until_purged(cluster: &Cluster, node: u64, publisher: &mut Publisher) {
    let before = cluster.node(node).counters().purges;
    let deadline = Instant::now() + LIMIT;
    while cluster.node(node).counters().purges < before + 2 {
        let pending: Vec<_> = (0..200).map(|_| publisher.send(2000).unwrap()).collect();
        assert!(join_all(pending).await.iter().all(Result::is_ok));
        assert!(Instant::now() < deadline, "no purge: {:?}", cluster.node(node).counters());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_member_behind_the_purge_point_when_it_is_back_then_a_snapshot_resumes_after_a_cut()
{
    let mut cluster = Cluster::start(3, snapshotting).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let sleeper = cluster.follower(partition).await;
    cluster.kill(sleeper);
    raise_until_purged(&cluster, leader, &mut publisher).await;

    // The state is some 2 MiB, so the connection is cut in the middle of it.
    cluster.proxy(sleeper).cut_once_after(1200 << 10);
    cluster.restart(sleeper);
    eventually("the snapshot is installed", || {
        cluster.node(sleeper).counters().snapshots_installed > 0
    })
    .await;
    assert_eq!(cluster.proxy(sleeper).cut_midway(), 1);
    // It serves meanwhile and after, and the late one follows the log again.
    publisher.send(8).unwrap().await.unwrap();
    cluster.equal_hashes().await;
    let received = cluster.node(sleeper).counters().snapshot_bytes_received;
    let snapshots = cluster.node(sleeper).store().snapshots(GroupId(partition));
    let whole = snapshots.list().unwrap()[0].bytes;
    // Another one may have followed, of about the same size. Had the first begun anew, a piece of it
    // would have come twice.
    let installed = cluster.node(sleeper).counters().snapshots_installed;
    let twice = received.saturating_sub(installed * whole);
    assert!(twice < 512 << 10, "{received} bytes for {installed} snapshots of {whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_snapshot_that_was_received_and_not_installed_then_it_is_not_taken_for_an_own_one()
{
    let cluster = Cluster::start(3, snapshotting).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let sleeper = cluster.follower(partition).await;
    cluster.proxy(sleeper).cut();
    raise_until_purged(&cluster, leader, &mut publisher).await;

    let home = |node: u64| cluster.node(node).store().snapshots(GroupId(partition));
    let ahead = home(leader).list().unwrap().remove(0);
    crate::snapshot::copy(&home(leader), &ahead.id, &home(sleeper)).unwrap();
    let applied = cluster.last_log(sleeper, partition);
    let at = cluster.node(sleeper).partitions().remove(partition as usize - 1);
    at.raft().trigger().snapshot().await.unwrap();
    let mut metrics = at.raft().metrics();
    let taken = metrics.wait_until(|metrics| metrics.snapshot.is_some());
    within("a snapshot is taken", taken).await.unwrap();
    let taken = metrics.borrow_watched().snapshot.map(|last| last.index());
    assert!(taken <= applied, "a snapshot up to {taken:?}, the log ends at {applied:?}");

    cluster.reopen(sleeper);
    cluster.ready().await;
    publisher.send(8).unwrap().await.unwrap();
    cluster.equal_hashes().await;
}
