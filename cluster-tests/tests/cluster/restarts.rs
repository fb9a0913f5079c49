//! All nodes restarted in order, one after the other.

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;

use super::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_nodes_fails_no_publisher() {
    let mut seed = Seed::of_test("cluster", "a_rolling_restart");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    for node in cluster.nodes().chain(cluster.nodes()) {
        load.flows(seed.between(5, 40)).await;
        load.longest_waits();
        let code = cluster.stop(node).await.expect("the node runs");
        assert_eq!(code, Some(0), "node {node} stops in order");
        load.flows(10).await;
        println!("longest wait after node {node} has stopped: {}", load.longest_waits());
        cluster.start_node(node).await.expect("the node starts again");
        cluster.until_ready(node).await;
        load.flows(10).await;
        println!("longest wait until node {node} is back: {}", load.longest_waits());
    }
    load.finish(&mut cluster).await;
}
