//! What confirms a read.

use futures_util::poll;
use tokio::time::Instant;

use super::cluster::{Cluster, eventually, linearize, partition_of, within};
use super::replication::publisher;
use crate::ProposeError;

/// Both followers have the entry and their answers are on their way. Then nobody hears anybody any more, a
/// read begins, and the two answers come, with a commit between them: raft counts the second one for
/// what it has told that follower since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_late_answers_to_what_was_sent_before_a_read_then_they_do_not_confirm_it() {
    let cluster = Cluster::start(3, |options| options).await;
    let partition = partition_of(&cluster, "plant");
    let leader = cluster.leader(partition).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let at = publisher.at.clone();
    linearize(&at).await;
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();

    let before = cluster.last_log(leader, partition);
    followers.iter().for_each(|id| cluster.syncs(*id).close());
    let raised = publisher.send(8).unwrap();
    let has = |id: u64| cluster.last_log(id, partition);
    let written = || {
        let held = followers.iter().all(|id| cluster.syncs(*id).waiting() > 0);
        held && has(leader) > before && followers.iter().all(|id| has(*id) == has(leader))
    };
    eventually("both have written it", written).await;
    (1..=3).for_each(|id| cluster.proxy(id).deafen(true));
    let deaf = Instant::now();
    let mut read = Box::pin(at.linearize());
    assert!(poll!(&mut read).is_pending());

    cluster.syncs(followers[0]).open();
    within("the commit", raised).await.unwrap();
    let last = cluster.proxy(followers[1]);
    let told = last.kept();
    eventually("the other one to be told", || last.kept() > told + 1).await;
    cluster.syncs(followers[1]).open();
    assert_eq!(within("the end of the read", read).await, Err(ProposeError::Unavailable));
    let since = deaf.elapsed().as_millis() as u64;
    assert!(!cluster.leads(leader, partition) || at.stale_now_ms() + 1 >= since);

    (1..=3).for_each(|id| cluster.proxy(id).deafen(false));
    linearize(&at).await;
}
