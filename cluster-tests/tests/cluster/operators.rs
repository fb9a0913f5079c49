//! What operators do at the wrong time: a drain while another node is down, a node at another address,
//! a node that goes on after it was removed, a disk that was copied.

use cluster_tests::cli::Tool;
use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;
use cluster_tests::wait;

use super::kills::GAP;
use cluster_tests::load::{Load, OUTCOME};

/// The exit status of what was not done in time.
const TIMEOUT: Option<i32> = Some(3);
/// What a node says that was removed.
const REMOVED: &str = "this node was removed from the cluster";
/// What is said to the second of two processes with one number.
const TWICE: &str = "runs already, as another process";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_needs_a_node_that_is_down_waits_and_stops_nothing() {
    let mut seed = Seed::of_test("cluster", "needs_a_node_that_is_down");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let nodes = cluster.some(&mut seed, 2);
    let (down, drained) = (nodes[0], nodes[1]);
    let asked = cluster.nodes().find(|node| !nodes.contains(node)).expect("a third one");
    cluster.kill(down);
    load.flows(5).await;
    load.longest_waits();
    let words = ["cluster", "drain", &drained.to_string(), "--max-time", "3s"];
    let command = cluster.command(asked, &words).expect("the binary is built");
    let mut draining = Tool::start(command, None, Box::new(|_| {})).expect("the tool starts");
    wait::until_for(OUTCOME, "the drain to end", async || draining.has_ended().then_some(())).await;
    assert_eq!(draining.ended().await, TIMEOUT, "{}", draining.errors());
    let said = draining.errors();
    assert!(said.contains(&format!("node {down} is down")), "{said}");
    load.flows(20).await;
    load.check_waits(&format!("while node {drained} drained and {down} was down"), GAP);
    let words = ["cluster", "undrain", &drained.to_string(), "--no-wait"];
    cluster.operate(asked, &words).await;
    cluster.start_node(down).await.expect("the node starts again");
    cluster.ready().await;
    load.finish(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_another_address_is_found_there_and_counts() {
    let mut seed = Seed::of_test("cluster", "a_node_at_another_address");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    for _ in 0..super::rounds(2) {
        let nodes = cluster.some(&mut seed, 2);
        let (moved, next) = (nodes[0], nodes[1]);
        assert_eq!(cluster.stop(moved).await.expect("it runs"), Some(0));
        cluster.move_node(moved).expect("there is room");
        load.flows(5).await;
        cluster.start_node(moved).await.expect("the node starts again");
        cluster.until_ready(moved).await;
        load.longest_waits();
        cluster.kill(next);
        load.flows(10).await;
        load.check_waits(&format!("after {moved} had moved and {next} was killed"), GAP);
        cluster.start_node(next).await.expect("the node starts again");
        cluster.ready().await;
    }
    load.finish(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_shut_out_and_a_copy_of_a_node_too() {
    let mut seed = Seed::of_test("cluster", "shut_out");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    // The second of two processes with one number is turned away, whichever it is.
    let node = cluster.some(&mut seed, 1)[0];
    assert_eq!(cluster.stop(node).await.expect("it runs"), Some(0));
    let copy = cluster.copy(node).expect("the disk is copied");
    cluster.start_node(node).await.expect("the node starts again");
    cluster.until_ready(node).await;
    cluster.start_node(copy).await.expect("the copy starts");
    wait::until_true("the copy to be told", async || cluster.log(copy).contains(TWICE)).await;
    load.flows(10).await;
    assert!(!cluster.admin(copy).is_ready().await, "the copy does not serve");
    cluster.kill(copy);
    // A node is removed while it runs.
    let asked = cluster.running().into_iter().find(|other| *other != node).expect("others");
    cluster.operate(asked, &["cluster", "remove", &node.to_string(), "--force"]).await;
    wait::until_true("the node to be told", async || cluster.log(node).contains(REMOVED)).await;
    let admin = cluster.admin(node);
    wait::until_true("the node not to be ready", async || !admin.is_ready().await).await;
    wait::until_true("the node to change nothing", async || {
        admin.put_user(load.site(), "probe-of-the-removed", &[]).await.is_err()
    })
    .await;
    load.flows(10).await;
    cluster.kill(node);
    load.finish(&mut cluster).await;
}
