//! A rolling restart in which some nodes are held back to the oldest peer protocol that this release
//! speaks (`compat_version`), as they are while a cluster changes from one release to the next.

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;

use cluster_tests::load::Load;

/// The oldest peer protocol that this release speaks.
const OLDEST: u8 = 1;
/// The exit status for a wrong configuration.
const CONFIGURATION: Option<i32> = Some(78);

fn held_back(version: u8) -> String {
    format!("compat_version = {version}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_from_the_oldest_protocol_to_the_newest_loses_nothing() {
    let mut seed = Seed::of_test("cluster", "from_the_oldest_protocol");
    let mut cluster = Cluster::prepare(3).expect("a cluster");
    for node in cluster.nodes() {
        cluster.configure(node, &held_back(OLDEST)).expect("a configuration");
    }
    cluster.start_all().await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    // Up, one node after the other, and down again.
    for version in [String::new(), held_back(OLDEST)] {
        for node in cluster.nodes() {
            load.flows(seed.between(5, 20)).await;
            load.longest_waits();
            assert_eq!(cluster.stop(node).await.expect("the node runs"), Some(0));
            cluster.configure(node, &version).expect("a configuration");
            cluster.start_node(node).await.expect("the node starts again");
            cluster.until_ready(node).await;
            load.flows(10).await;
            println!(
                "node {node} restarted with {version:?}: longest wait {}",
                load.longest_waits()
            );
        }
    }
    // A protocol that the release does not speak is an error, not a guess.
    for version in [OLDEST - 1, u8::MAX] {
        assert_eq!(cluster.stop(1).await.expect("the node runs"), Some(0));
        cluster.configure(1, &held_back(version)).expect("a configuration");
        cluster.start_node(1).await.expect("it starts");
        assert_eq!(cluster.ended(1).await.expect("it ran"), CONFIGURATION, "{version}");
        cluster.configure(1, "").expect("a configuration");
        cluster.start_node(1).await.expect("the node starts again");
        cluster.until_ready(1).await;
    }
    load.finish(&mut cluster).await;
}
