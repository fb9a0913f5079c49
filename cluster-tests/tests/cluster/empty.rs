//! Nodes that come back with an empty disk: they found no second cluster and never vote.

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;
use cluster_tests::wait;
use reqwest::Method;

use cluster_tests::load::Load;

/// The exit status for a wrong configuration.
const CONFIGURATION: Option<i32> = Some(78);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_empty_disk_is_refused_while_the_others_serve() {
    let mut seed = Seed::of_test("cluster", "a_node_with_an_empty_disk");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    // The first one would found the cluster; the others would take its offer.
    let victim = [1, seed.between(2, 4) as usize][seed.between(0, 2) as usize];
    cluster.kill(victim);
    cluster.wipe(victim).expect("the disk is emptied");
    cluster.start_node(victim).await.expect("the node starts");
    assert_eq!(cluster.ended(victim).await.expect("it ran"), CONFIGURATION);
    let said = cluster.log(victim);
    assert!(said.contains("cluster.join"), "it says what to do: {said}");
    load.flows(10).await;
    load.finish(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_of_empty_disks_founds_no_second_cluster() {
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    for node in cluster.nodes() {
        cluster.kill(node);
    }
    for node in [1, 2] {
        cluster.wipe(node).expect("the disk is emptied");
        cluster.start_node(node).await.expect("the node starts");
    }
    // They look for each other, and for the third node that is not there.
    wait::until_true("the first node to wait", async || cluster.log(1).contains("waiting")).await;
    // Who asks is told so, and not kept waiting.
    wait::until_true("the first node to say that it lives", async || {
        let lives = cluster.admin(1).call(Method::GET, "/healthz/live", None).await;
        lives.is_ok_and(|lives| lives["status"] == "ok")
    })
    .await;
    let ready = cluster.admin(1).call(Method::GET, "/healthz/ready", None).await;
    let problem = format!("{:?}", ready.expect_err("it is not ready"));
    assert!(problem.contains("Unavailable"), "{problem}");
    cluster.start_node(3).await.expect("the node starts");
    for node in [1, 2] {
        assert_eq!(cluster.ended(node).await.expect("it ran"), CONFIGURATION, "node {node}");
    }
    assert!(!cluster.admin(3).is_ready().await, "it has no majority");
}
