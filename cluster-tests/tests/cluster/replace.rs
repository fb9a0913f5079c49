//! A disk is lost: another node takes the place of the one whose disk it was, while the others serve.

use std::time::Instant;

use cluster_tests::cli::Tool;
use cluster_tests::cluster::{Cluster, READY};
use cluster_tests::seed::Seed;
use cluster_tests::wait;
use serde_json::Value;

use super::kills::GAP;
use super::scale::until_balanced;
use cluster_tests::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_lost_is_replaced_while_the_others_serve() {
    let mut seed = Seed::of_test("cluster", "whose_disk_is_lost");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    load.flows(seed.between(5, 40)).await;
    let lost = cluster.some(&mut seed, 1)[0];
    load.longest_waits();
    cluster.kill(lost);
    cluster.wipe(lost).expect("the disk is emptied");
    load.flows(10).await;
    load.check_waits(&format!("after node {lost} was lost"), GAP);
    let asked = cluster.running()[0];
    let since = Instant::now();
    // The operator's command waits for the node that is started meanwhile.
    let words = ["cluster", "replace", &lost.to_string()];
    let command = cluster.command(asked, &words).expect("the binary is built");
    let mut replacing = Tool::start(command, None, Box::new(|_| {})).expect("the tool starts");
    let table = cluster.operate(asked, &["cluster", "join"]).await;
    let members: Vec<String> = serde_json::from_value(table["join"].clone()).expect("addresses");
    let node = cluster.add(&members).expect("there is room");
    cluster.start_node(node).await.expect("the node starts");
    wait::until_for(READY, "the node to be replaced", async || replacing.has_ended().then_some(()))
        .await;
    assert_eq!(replacing.ended().await, Some(0), "{}", replacing.errors());
    let done: Value = replacing.lines().pop().expect("the tool writes what it did");
    assert_eq!(done["done"], true, "{done}");
    println!("node {lost} replaced by node {node} after {:?}", since.elapsed());
    until_balanced(&cluster).await;
    load.flows(10).await;
    load.check_waits(&format!("while node {node} took its place"), GAP);
    // It counts: another one may be lost now.
    let next = cluster.running().into_iter().find(|other| *other != node).expect("others");
    cluster.kill(next);
    load.flows(10).await;
    load.check_waits(&format!("after node {next} was killed"), GAP);
    cluster.start_node(next).await.expect("the node starts again");
    cluster.ready().await;
    load.finish(&mut cluster).await;
}
