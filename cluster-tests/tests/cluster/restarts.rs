//! All nodes restarted in order, one after the other.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;

use cluster_tests::load::Load;

/// How long an event may wait when a node stops in order.
const GAP: Duration = Duration::from_millis(500);

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
        load.check_waits(&format!("after node {node} has stopped"), GAP);
        cluster.start_node(node).await.expect("the node starts again");
        cluster.until_ready(node).await;
        load.flows(10).await;
        load.check_waits(&format!("until node {node} is back"), GAP);
    }
    load.finish(&mut cluster).await;
}
