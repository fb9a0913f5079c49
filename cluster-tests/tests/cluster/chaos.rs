//! Faults of all kinds at once, in random order: a node dies while another one is paused and the
//! links of a third one are one-way.

use std::collections::BTreeSet;

use cluster_tests::cluster::Cluster;
use cluster_tests::mesh::OUTSIDE;
use cluster_tests::seed::Seed;

use cluster_tests::load::Load;

/// Faults from one calm to the next.
const FAULTS: u64 = 12;

/// One step into trouble, or out of it.
async fn step(cluster: &mut Cluster, paused: &mut BTreeSet<usize>, seed: &mut Seed) {
    let size = cluster.size() as u64;
    let node = seed.between(1, size + 1) as usize;
    let other = seed.between(0, size + 1) as usize;
    match seed.between(0, 10) {
        0 | 1 => {
            if cluster.runs(node) {
                cluster.kill(node);
                paused.remove(&node);
                print!(" kill {node},");
            }
        }
        2 => {
            if cluster.runs(node) && paused.insert(node) {
                cluster.pause(node).expect("the node runs");
                print!(" pause {node},");
            }
        }
        3 => {
            if paused.remove(&node) {
                cluster.resume(node).expect("the node runs");
                print!(" resume {node},");
            }
        }
        4 | 5 => {
            if !cluster.runs(node) {
                cluster.start_node(node).await.expect("the node starts");
                print!(" start {node},");
            }
        }
        6 if other != node => {
            cluster.mesh().set_blocked(node, other, true);
            print!(" block {node} to {other},");
        }
        7 if other != node => {
            cluster.mesh().set_blocked(other, node, true);
            print!(" block {other} to {node},");
        }
        8 => {
            cluster.mesh().reset(node, if other == node { OUTSIDE } else { other });
            print!(" reset {node} and {other},");
        }
        _ => {
            cluster.mesh().heal();
            print!(" heal,");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_repeated_when_everything_breaks_at_once() {
    let mut seed = Seed::of_test("cluster", "everything_breaks_at_once");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    for _ in 0..super::rounds(4) {
        let mut paused = BTreeSet::new();
        for _ in 0..FAULTS {
            step(&mut cluster, &mut paused, &mut seed).await;
            cluster.lasts(seed.millis(0, 600)).await;
        }
        println!(" calm");
        for node in paused {
            cluster.resume(node).expect("the node runs");
        }
        cluster.mesh().heal();
        for node in cluster.nodes().filter(|node| !cluster.runs(*node)).collect::<Vec<_>>() {
            cluster.start_node(node).await.expect("the node starts");
        }
        load.flows(5).await;
        println!("longest wait {}", load.longest_waits());
        cluster.ready().await;
    }
    load.finish(&mut cluster).await;
}
