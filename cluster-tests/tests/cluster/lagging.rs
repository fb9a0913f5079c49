//! A node that was away for so long that the others have purged what it lacks.

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;

use cluster_tests::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_past_the_purge_catches_up_by_snapshot_while_the_others_serve() {
    let mut seed = Seed::of_test("cluster", "a_node_that_slept");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let sleeper = seed.between(1, 4) as usize;
    cluster.kill(sleeper);
    load.flows_past_a_purge(&cluster).await;
    load.longest_waits();
    cluster.start_node(sleeper).await.expect("the node starts again");
    cluster.until_ready(sleeper).await;
    load.flows(10).await;
    let sent = cluster.nodes().any(|node| cluster.log(node).contains("sending a snapshot"));
    assert!(sent, "nobody sent node {sleeper} a snapshot");
    println!("longest wait while node {sleeper} caught up: {}", load.longest_waits());
    load.finish(&mut cluster).await;
}
