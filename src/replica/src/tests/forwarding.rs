//! Proposals and reads on a node that does not lead.

use ackord_machine::site::{Decision, InstanceId, Outcome, Raised};
use futures_util::future::join_all;

use super::cluster::{Cluster, eventually, linearize, partition_of, persist, within};
use super::fixture::{Publisher, options};
use super::proposals::Gate;
use super::replication::{publisher, through};
use crate::{Node, NodeOptions, ProposeError, peer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_follower_when_proposing_then_outcomes_come_in_order_and_are_readable_there() {
    let cluster = Cluster::start(3, |options| options).await;
    let follower = cluster.follower(partition_of(&cluster, "plant")).await;
    let mut publisher = publisher(&cluster, follower, "plant").await;
    let before = cluster.node(follower).counters().entries_forwarded;
    let pending: Vec<_> = (0..500).map(|_| publisher.send(64).unwrap()).collect();
    for (index, outcome) in join_all(pending).await.into_iter().enumerate() {
        let stored = Decision::Stored(InstanceId(index as u64 + 1));
        assert_eq!(outcome, Ok(Outcome::Raised(Raised { duplicate: false, decision: stored })));
    }
    // Without any wait: what was answered here is applied here.
    assert_eq!(publisher.retained(), (500, InstanceId(500)));
    let sent = cluster.node(follower).counters().entries_forwarded - before;
    assert!((1..250).contains(&sent), "{sent} batches for 500 commands");
    for _ in 0..20 {
        let (_, head) = publisher.retained();
        publisher.send(8).unwrap().await.unwrap();
        assert_eq!(publisher.retained().1, InstanceId(head.0 + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_leader_that_dies_with_a_proposal_when_waiting_then_its_fate_is_unknown() {
    let mut cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let follower = cluster.follower(partition).await;
    let mut publisher = publisher(&cluster, follower, "plant").await;
    // The leader takes proposals, but nobody stores what it appends: its links to the others are
    // cut, the follower's link to it is not.
    let others = cluster.running().into_iter().filter(|id| *id != leader);
    others.for_each(|id| cluster.proxy(id).cut());
    let command = publisher.raise(8);
    let pending = publisher.at.try_propose(command.clone()).unwrap();
    eventually("the leader has it", || {
        cluster.last_log(leader, partition) > cluster.last_log(follower, partition)
    })
    .await;
    cluster.kill(leader);
    assert_eq!(within("an answer", pending).await, Err(ProposeError::Unknown));
    // Under the same identity it is decided once, whether or not the first attempt survived.
    for id in cluster.running() {
        cluster.reopen(id);
    }
    let Outcome::Raised(Raised { decision, .. }) = persist(&publisher.at, command.clone()).await
    else {
        panic!("a raise is decided");
    };
    let again = persist(&publisher.at, command).await;
    assert_eq!(again, Outcome::Raised(Raised { duplicate: true, decision }));
    assert_eq!(publisher.retained(), (1, InstanceId(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_no_way_to_the_leader_when_proposing_then_nothing_was_proposed() {
    let cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let follower = cluster.follower(partition).await;
    let mut publisher = publisher(&cluster, follower, "plant").await;
    let (before, _) = publisher.retained();
    cluster.proxy(leader).cut();
    let mut known = 0;
    let refused = async {
        while known < 3 {
            match publisher.send(8).unwrap().await {
                Err(ProposeError::Unavailable) => known += 1,
                // Only what was on its way when the link was cut.
                Err(ProposeError::Unknown) => assert_eq!(known, 0),
                other => panic!("{other:?} without a link"),
            }
        }
    };
    within("refusals", refused).await;
    // The leader's own links are not cut: it goes on leading.
    assert!(cluster.leads(leader, partition));
    cluster.reopen(leader);
    linearize(&publisher.at).await;
    assert_eq!(publisher.retained().0, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_full_queue_at_the_leader_when_forwarding_then_its_bounds_hold_and_busy_comes_back()
{
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let options =
        NodeOptions { queue_commands_max: 4, entries_in_flight_max: 1, ..options(dir.path()) };
    let node = Node::start_with(options, gate.hooks()).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 100).await;
    gate.close();
    let first = publisher.send(8).unwrap();
    eventually("an entry is on its way", || gate.waiting() > 0).await;
    let here = publisher.send(8).unwrap();
    let commands: Vec<_> = (0..6).map(|_| publisher.raise(8)).collect();
    let answer = peer::accept_commands(&publisher.at.partition(), commands);
    gate.open();
    assert!(first.await.is_ok() && here.await.is_ok());
    let (results, applied_next) = within("the answer", answer).await;
    let (taken, refused) = results.split_at(3);
    assert!(taken.iter().all(Result::is_ok), "{results:?}");
    assert!(refused.iter().all(|result| *result == Err(ProposeError::Busy)), "{results:?}");
    assert_eq!(applied_next, publisher.at.partition().applied_next());
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_an_acknowledgement_elsewhere_when_a_follower_reads_linearizably_then_it_sees_it() {
    let cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    for round in 1..=30 {
        let command = publisher.raise(8);
        persist(&publisher.at, command).await;
        for id in cluster.running() {
            let there = through(&cluster, id, publisher.clone());
            linearize(&there.at).await;
            assert_eq!(there.retained().1, InstanceId(round), "at node {id}");
        }
    }
}
