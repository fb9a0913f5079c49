//! A disk that hangs: its node hears the others and gets nowhere.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::disk::{Cut, Disk};
use cluster_tests::seed::Seed;

use super::clock::until_set_aside;
use cluster_tests::load::Load;

/// What a sync takes meanwhile: longer than anybody may have to wait.
const HANGS: &str = "slow-sync 120000";
/// How long an event may wait until its endpoints have gone to another node: five seconds until
/// the node gives its sessions up.
const GAP: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_hangs_lets_its_endpoints_go() {
    let mut seed = Seed::of_test("cluster", "a_node_whose_disk_hangs");
    let mut cluster = Cluster::start_on_disks(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    for _ in 0..super::rounds(1) {
        load.flows(seed.between(5, 20)).await;
        let victim = cluster.some(&mut seed, 1)[0];
        cluster.disk(victim).expect("a disk").inject(HANGS).expect("the fault holds");
        load.longest_waits();
        load.flows(100).await;
        load.check_waits(&format!("while the disk of node {victim} hangs"), GAP);
        // Also what it led.
        until_set_aside(&cluster, victim).await;
        let cut = cluster.cut_power(victim, Cut::Everything).expect("a journal");
        println!("{} unsynced changes undone", cut.undone);
        cluster.disk(victim).and_then(Disk::heal).expect("the fault ends");
        cluster.start_node(victim).await.expect("the node starts again");
        cluster.ready().await;
    }
    load.finish(&mut cluster).await;
}
