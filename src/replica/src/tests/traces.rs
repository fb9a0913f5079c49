//! Raises with a trace context, in clusters in which not all nodes know them.

use std::sync::atomic::{AtomicU64, Ordering};

use ackord_machine::site::{Command, Outcome, Raising, TraceContext};

use super::cluster::{Cluster, eventually, persist};
use super::replication::{publisher, through};
use crate::{NodeOptions, PeerOptions};

/// The last version of the peer protocol without them.
const BEFORE: u8 = 2;

/// The context of the newest instance, as each node has it, after a raise with one through each node.
async fn kept(cluster: &Cluster) -> Vec<bool> {
    let mut publisher = publisher(cluster, 1, "plant").await;
    let mut kept = Vec::new();
    for node in cluster.running() {
        publisher = through(cluster, node, publisher);
        let Command::Raise(mut raise) = publisher.raise(8) else { panic!("it is a raise") };
        let (trace_id, parent_id, state) = ([1; 16], [2; 8], "a=1".to_owned());
        let context = TraceContext { trace_id, parent_id, flags: 1, state };
        raise.event.trace = Some(Box::new(context.clone()));
        let outcome = persist(&publisher.at, Raising::Session(raise).into()).await;
        assert!(matches!(outcome, Outcome::Raised(_)), "{outcome:?}");
        let (_, head) = publisher.retained();
        for other in cluster.running() {
            let at = cluster.node(other).partition_of(&publisher.site);
            let applied =
                || at.read(|state| state.site("plant").is_some_and(|it| it.head() == head));
            eventually("every node has it", applied).await;
            kept.push(at.read(|state| {
                let instance = state.site("plant").and_then(|site| site.instance(head)).unwrap();
                assert!(instance.trace.as_deref().is_none_or(|trace| *trace == context));
                instance.trace.is_some()
            }));
        }
    }
    kept
}

fn held_back(options: NodeOptions) -> NodeOptions {
    let peers = options.peers.map(|peers| PeerOptions { compat_version: Some(BEFORE), ..peers });
    NodeOptions { peers, ..options }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_nodes_that_know_contexts_when_one_is_raised_through_any_of_them_then_all_keep_it() {
    let cluster = Cluster::start(2, |options| options).await;
    assert_eq!(kept(&cluster).await, [true; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_one_node_that_knows_no_contexts_when_one_is_raised_then_the_log_has_none() {
    static STARTED: AtomicU64 = AtomicU64::new(0);
    let cluster = Cluster::start(2, |options| match STARTED.fetch_add(1, Ordering::Relaxed) {
        0 => options,
        _ => held_back(options),
    })
    .await;
    assert_eq!(kept(&cluster).await, [false; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_held_back_with_nobody_around_when_a_context_is_raised_then_it_is_left_out() {
    let cluster = Cluster::start(1, held_back).await;
    assert_eq!(kept(&cluster).await, [false]);
}
