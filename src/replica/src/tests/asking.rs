//! Questions of the layer above to other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::cluster::{Cluster, LIMIT, eventually, partition_of, persist};
use super::replication::publisher;
use crate::{ANSWER_BYTES_MAX, Answerer, AskError, Node, NodeOptions, PeerOptions};

fn question(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Says who it is, or does what the question says.
fn answer(node: &Node) {
    let id = node.id();
    let answerer: Answerer = Arc::new(move |question| {
        async move {
            match &question[..] {
                b"who" => Some(Bytes::from(id.to_string())),
                b"long" => Some(Bytes::from(vec![7; ANSWER_BYTES_MAX])),
                b"too long" => Some(Bytes::from(vec![7; ANSWER_BYTES_MAX + 1])),
                b"never" => std::future::pending().await,
                b"panic" => panic!("a question that breaks its answerer"),
                _ => None,
            }
        }
        .boxed()
    });
    node.answer(answerer).unwrap();
}

async fn answering(count: u64, adjust: fn(NodeOptions) -> NodeOptions) -> Cluster {
    let cluster = Cluster::start(count, adjust).await;
    cluster.running().into_iter().for_each(|id| answer(cluster.node(id)));
    let connected = |id| cluster.node(id).peers().links_up() as u64 == count - 1;
    let all = || cluster.running().into_iter().all(connected);
    eventually("all are connected", all).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_cluster_when_all_are_asked_then_each_answers_or_is_said_not_to() {
    let mut cluster = answering(3, |options| options).await;
    let node = cluster.node(1);
    let answers = node.ask_all(question("who"), LIMIT).await;
    assert_eq!(answers, [(2, Ok(question("2"))), (3, Ok(question("3")))]);
    let long = node.ask(2, question("long"), LIMIT).await.unwrap();
    assert_eq!(long.len(), ANSWER_BYTES_MAX);
    let bytes_max = ANSWER_BYTES_MAX;
    let too_long = AskError::TooLong { bytes: bytes_max + 1, bytes_max };
    assert_eq!(node.ask(2, question("too long"), LIMIT).await, Err(too_long));
    let long_question = Bytes::from(vec![0; crate::QUESTION_BYTES_MAX + 1]);
    let refused = node.ask(2, long_question, LIMIT).await;
    assert!(matches!(refused, Err(AskError::TooLong { .. })), "{refused:?}");
    assert_eq!(node.ask(2, question("?"), LIMIT).await, Err(AskError::Unsupported));
    assert!(matches!(node.ask(9, question("who"), LIMIT).await, Err(AskError::Unreachable(_))));
    // An answerer that breaks answers nothing, and the node goes on.
    assert_eq!(node.ask(2, question("panic"), LIMIT).await, Err(AskError::Failed));
    assert_eq!(node.ask(2, question("who"), LIMIT).await, Ok(question("2")));

    cluster.stop(3);
    let node = cluster.node(1);
    eventually("the end of node 3 is seen", || !node.peers().is_up(3)).await;
    let answers = node.ask_all(question("who"), Duration::from_secs(1)).await;
    assert_eq!(answers[0], (2, Ok(question("2"))));
    assert!(matches!(answers[1], (3, Err(AskError::Unreachable(_) | AskError::Timeout(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_that_does_not_answer_when_asked_then_the_deadline_counts_and_raft_goes_on() {
    let cluster = answering(3, |options| options).await;
    let leader = cluster.leader(partition_of(&cluster, "plant")).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let other = cluster.follower(partition_of(&cluster, "plant")).await;
    let node = cluster.node(leader);
    let deadline = Duration::from_millis(300);
    let asked = join_all((0..20).map(|_| node.ask(other, question("never"), deadline)));
    let work = async {
        for _ in 0..20 {
            let command = publisher.raise(8);
            persist(&publisher.at, command).await;
        }
    };
    let (answers, ()) = tokio::join!(asked, work);
    let busy = answers.iter().filter(|answer| **answer == Err(AskError::Busy)).count();
    assert_eq!(busy, 4, "{answers:?}");
    let ended = |answer: &&Result<Bytes, AskError>| {
        matches!(answer, Err(AskError::Timeout(_) | AskError::Failed))
    };
    assert_eq!(answers.iter().filter(ended).count(), 16, "{answers:?}");
    assert_eq!(publisher.retained().0, 20);
    // Nothing of it is left.
    eventually("there is room again", || node.peers().asking(other) == 0).await;
    assert!(node.ask(other, question("who"), LIMIT).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_of_an_older_release_when_asked_then_it_is_unsupported_and_stays_connected() {
    let older = |options: NodeOptions| {
        let peers = options.peers.map(|peers| PeerOptions { compat_version: Some(1), ..peers });
        NodeOptions { peers, ..options }
    };
    let cluster = answering(2, older).await;
    for _ in 0..3 {
        let answers = cluster.node(1).ask_all(question("who"), LIMIT).await;
        assert_eq!(answers, [(2, Err(AskError::Unsupported))]);
    }
    assert_eq!(cluster.node(1).peers().links_up(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_more_questions_than_a_node_works_on_when_asked_then_it_says_so() {
    let cluster = answering(6, |options| options).await;
    // Five nodes with sixteen questions each are more than the sixth takes.
    let asking = (2..=6).flat_map(|from| (0..16).map(move |_| from));
    let asking =
        asking.map(|from| cluster.node(from).ask(1, question("never"), Duration::from_secs(2)));
    let answers = join_all(asking).await;
    let busy = answers.iter().filter(|answer| **answer == Err(AskError::Busy)).count();
    assert_eq!(busy, 5 * 16 - 64);
}
