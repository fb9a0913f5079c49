//! A node that was away for so long that the others have purged what it lacks.

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;

use cluster_tests::load::Load;

/// Events of each service while the node is away: several times the log that is kept.
const EVENTS: u64 = 200;
/// How often the node is away for them, at most.
const AWAY_MAX: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_past_the_purge_catches_up_by_snapshot_while_the_others_serve() {
    let mut seed = Seed::of_test("cluster", "a_node_that_slept");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let sleeper = seed.between(1, 4) as usize;
    let sent = |cluster: &Cluster| {
        cluster.nodes().any(|node| cluster.log(node).contains("sending a snapshot"))
    };
    // Away until the log that it lacks is purged: when that is so depends on how fast events come.
    for away in 1.. {
        assert!(away <= AWAY_MAX, "the log was not purged");
        cluster.kill(sleeper);
        load.flows(EVENTS).await;
        load.longest_waits();
        cluster.start_node(sleeper).await.expect("the node starts again");
        cluster.until_ready(sleeper).await;
        load.flows(10).await;
        if sent(&cluster) {
            let waits = load.longest_waits();
            println!("longest wait while node {sleeper} caught up the {away}. time: {waits}");
            break;
        }
    }
    load.finish(&mut cluster).await;
}
