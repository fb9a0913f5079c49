//! Three nodes: equal states, leaders that die, minorities, pipelining.

use std::time::Duration;

use ackord_machine::site::{InstanceId, Outcome};
use futures_util::future::join_all;

use super::cluster::{Cluster, eventually, linearize, partition_of, peer_options, persist, within};
use super::fixture::{Publisher, until};
use crate::{NodeOptions, PeerOptions, ProposeError};

/// Creates the site through a node, whoever leads.
pub(super) async fn publisher(cluster: &Cluster, through: u64, site: &str) -> Publisher {
    let at = cluster.node(through).partition_of(&site.into());
    linearize(&at).await;
    Publisher::create(cluster.node(through), site, 1000).await
}

/// The same store's publisher, through another node.
pub(super) fn through(cluster: &Cluster, node: u64, publisher: Publisher) -> Publisher {
    let at = cluster.node(node).partition_of(&publisher.site);
    Publisher { at, ..publisher }
}

async fn raise(publisher: &mut Publisher, count: usize) {
    for _ in 0..count {
        let command = publisher.raise(64);
        let outcome = persist(&publisher.at, command).await;
        assert!(matches!(outcome, Outcome::Raised(_)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_three_nodes_when_events_are_raised_then_all_hold_the_same_state() {
    let cluster = Cluster::start(3, |options| options).await;
    let leader = cluster.leader(partition_of(&cluster, "plant")).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let pending: Vec<_> = (0..300).map(|_| publisher.send(64).unwrap()).collect();
    assert!(join_all(pending).await.iter().all(Result::is_ok));
    cluster.equal_hashes().await;
    for id in cluster.running() {
        let publisher = through(&cluster, id, publisher.clone());
        assert_eq!(publisher.retained(), (300, InstanceId(300)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_leader_that_dies_when_raising_on_then_nothing_is_lost_and_it_catches_up() {
    let mut cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let survivor = cluster.follower(partition).await;
    let mut publisher = publisher(&cluster, survivor, "plant").await;
    raise(&mut publisher, 20).await;

    cluster.kill(leader);
    raise(&mut publisher, 20).await;
    let other = cluster.running().into_iter().find(|id| *id != survivor).unwrap();
    publisher = through(&cluster, other, publisher);
    raise(&mut publisher, 20).await;
    linearize(&publisher.at).await;
    assert_eq!(publisher.retained(), (60, InstanceId(60)));
    assert_ne!(cluster.leader(partition).await, leader);

    cluster.restart(leader);
    cluster.equal_hashes().await;
    publisher = through(&cluster, leader, publisher);
    assert_eq!(publisher.retained(), (60, InstanceId(60)));
    raise(&mut publisher, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_minority_when_proposing_then_nothing_is_acknowledged_or_read_and_it_leads_no_more()
{
    let mut cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    raise(&mut publisher, 5).await;
    for id in cluster.running() {
        if id != leader {
            cluster.kill(id);
        }
    }
    assert_eq!(publisher.at.linearize().await, Err(ProposeError::Unavailable));
    // Once its lease is over it takes nothing any more; what it took before stays unanswered.
    let refused = async {
        loop {
            let pending = publisher.send(8).unwrap();
            match tokio::time::timeout(Duration::from_millis(100), pending).await {
                Ok(Err(ProposeError::Unavailable)) => return,
                Ok(Err(_)) | Err(_) => {}
                Ok(Ok(outcome)) => panic!("{outcome:?} without a majority"),
            }
        }
    };
    within("a refusal", refused).await;
    assert_eq!(publisher.at.linearize().await, Err(ProposeError::Unavailable));
    assert_eq!(publisher.retained(), (5, InstanceId(5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_leader_cut_off_when_little_waits_behind_a_large_entry_then_it_is_answered_too() {
    let cluster = Cluster::start(3, |options| NodeOptions {
        peers: Some(PeerOptions { answer_limit: Duration::from_millis(300), ..peer_options() }),
        // So many that there is always room: what waits does so because it is too little.
        entries_in_flight_max: 64,
        ..options
    })
    .await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    for id in cluster.running().into_iter().filter(|id| *id != leader) {
        cluster.proxy(id).cut();
    }
    let mut pending: Vec<_> = (0..500).map(|_| publisher.send(8).unwrap()).collect();
    // Most are on their way once the queue has been emptied.
    until(|| publisher.at.partition().queue.len() < 100).await;
    pending.push(publisher.send(8).unwrap());
    let answers = within("answers", join_all(pending)).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_leader_cut_off_with_proposals_when_waiting_then_they_are_unknown_and_it_leads_no_more()
 {
    let cluster = Cluster::start(3, |options| NodeOptions {
        peers: Some(PeerOptions { answer_limit: Duration::from_millis(300), ..peer_options() }),
        ..options
    })
    .await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let others: Vec<_> = cluster.running().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.proxy(*id).cut();
    }
    // More than may be on their way: the rest waits behind them.
    let mut pending = Vec::new();
    for _ in 0..50 {
        pending.push(publisher.send(8).unwrap());
        tokio::task::yield_now().await;
    }
    let answers = within("answers", join_all(pending)).await;
    let unknown = answers.iter().filter(|answer| **answer == Err(ProposeError::Unknown)).count();
    let not_proposed =
        answers.iter().filter(|answer| **answer == Err(ProposeError::Unavailable)).count();
    assert!(unknown > 0, "{answers:?}");
    assert_eq!(unknown + not_proposed, answers.len(), "{answers:?}");
    for id in &others {
        cluster.reopen(*id);
    }
    cluster.equal_hashes().await;
    raise_next(&mut publisher).await;
}

/// A raise under a new number is decided: stored, or refused for the ones that are missing.
async fn raise_next(publisher: &mut Publisher) {
    let command = publisher.raise(8);
    persist(&publisher.at, command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_many_entries_when_replicating_then_several_appends_are_under_way_at_once() {
    let cluster =
        Cluster::start(3, |options| NodeOptions { entries_in_flight_max: 8, ..options }).await;
    let leader = cluster.leader(partition_of(&cluster, "plant")).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let mut rounds = 0;
    while cluster.node(leader).peers().appends_in_flight_peak() < 2 {
        let mut pending = Vec::new();
        for _ in 0..200 {
            pending.push(publisher.send(512).unwrap());
            tokio::task::yield_now().await;
        }
        assert!(join_all(pending).await.iter().all(Result::is_ok));
        rounds += 1;
        assert!(rounds < 50, "appends go one at a time");
    }
    cluster.equal_hashes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_graceful_stop_of_the_leader_when_raising_on_then_another_leads_already() {
    let mut cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let survivor = cluster.follower(partition).await;
    let mut publisher = publisher(&cluster, survivor, "plant").await;
    raise(&mut publisher, 5).await;
    cluster.stop(leader);
    // Nobody had to wait for an election: it is led the moment the node is gone.
    assert!(cluster.running().iter().any(|id| cluster.leads(*id, partition)));
    raise(&mut publisher, 5).await;
    assert_eq!(publisher.retained(), (10, InstanceId(10)));
    cluster.restart(leader);
    eventually("the stopped node is back", || cluster.node(leader).ready()).await;
    cluster.equal_hashes().await;
}
