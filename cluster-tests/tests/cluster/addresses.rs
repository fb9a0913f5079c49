//! Endpoints that stay while one node after the other is replaced, until none is left that they first knew.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::load::Load;
use cluster_tests::matrix::replace;

/// Within a keepalive, ten seconds here, a session whose endpoint knows too few nodes is closed.
const KEEPALIVE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_find_the_cluster_when_every_node_that_they_were_given_is_replaced() {
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    for lost in 1..=3 {
        cluster.kill(lost);
        load.flows(3).await;
        replace(&mut cluster, lost).await;
        cluster.lasts(KEEPALIVE).await;
    }
    load.flows(20).await;
    load.finish(&mut cluster).await;
}
