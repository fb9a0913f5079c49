//! A leader that is thought to be dead: followed at once when it is, left alone when it is not.

use openraft::async_runtime::watch::WatchReceiver;

use super::cluster::{Cluster, eventually, partition_of};
use crate::succession::succeed;

fn leader_and_term(cluster: &Cluster, node: u64, partition: u32) -> (Option<u64>, u64) {
    let raft = cluster.node(node).partitions()[partition as usize - 1].raft().clone();
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    (metrics.current_leader, metrics.current_term)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_one_follower_that_thinks_the_leader_dead_then_nobody_is_deposed() {
    let cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let follower = cluster.follower(partition).await;
    let before = leader_and_term(&cluster, leader, partition);

    let raft = cluster.node(follower).partitions()[partition as usize - 1].raft().clone();
    succeed(raft, follower, partition, leader).await;

    assert_eq!(leader_and_term(&cluster, leader, partition), before);
    assert_eq!(leader_and_term(&cluster, follower, partition), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_dead_leader_when_its_followers_know_then_one_of_them_leads() {
    let mut cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    cluster.kill(leader);
    for node in cluster.running() {
        let raft = cluster.node(node).partitions()[partition as usize - 1].raft().clone();
        tokio::spawn(succeed(raft, node, partition, leader));
    }
    eventually("another one leads", || {
        cluster.running().into_iter().all(|node| {
            leader_and_term(&cluster, node, partition).0.is_some_and(|now| now != leader)
        })
    })
    .await;
}
