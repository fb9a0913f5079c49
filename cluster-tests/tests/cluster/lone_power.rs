//! The leader alone loses its power while both followers have synced what its own disk has not, and
//! is back before anyone may have missed it: it must not take up its lead where its disk left off
//! and give out the same places in the log again.

use std::time::{Duration, Instant};

use cluster_tests::cluster::{Cluster, READY};
use cluster_tests::disk::{Cut, Disk};
use cluster_tests::seed::Seed;
use cluster_tests::wait;

use cluster_tests::load::Load;

/// How long a sync of the leader's disk takes: longer than what is done before the power goes.
const SLOW_SYNC: &str = "slow-sync 3000";
/// The leader's process starts again within this after its power went; the test allows ten times it.
const BACK: Duration = Duration::from_millis(300);
/// Events of each service that are acknowledged meanwhile: the followers alone make them durable.
const EVENTS: u64 = 5;

/// Who leads the group of which most was asked so far, once nothing is about to change that.
async fn leader(cluster: &Cluster) -> usize {
    wait::until_for(READY, "nothing to move", async || {
        let view = cluster.view(1).await.ok().filter(|view| view["settled"] == true)?;
        let groups = view["groups"].as_array()?;
        let busiest = groups.iter().max_by_key(|group| group["applied"].as_u64())?;
        busiest["leader"].as_u64().map(|leader| leader as usize)
    })
    .await
}

/// How many groups a node leads, as another one sees it.
async fn leads_of(cluster: &Cluster, node: usize) -> u64 {
    let view = cluster.view(node % cluster.size() + 1).await.expect("the node answers");
    view["nodes"][node - 1]["leads"].as_u64().expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_forgets_what_its_followers_have_and_is_back_at_once_diverges_from_nobody() {
    let mut seed = Seed::of_test("cluster", "a_leader_that_forgets");
    let mut cluster = Cluster::start_on_disks(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let mut undone = 0;
    for _ in 0..super::rounds(5) {
        load.flows(seed.between(5, 20)).await;
        let victim = leader(&cluster).await;
        let disk = cluster.disk(victim).expect("a disk");
        disk.inject(SLOW_SYNC).expect("the fault holds");
        load.longest_waits();
        let since = Instant::now();
        load.flows(EVENTS).await;
        cluster.lasts(seed.millis(0, 100)).await;
        let (leads, lasted) = (leads_of(&cluster, victim).await, since.elapsed());
        let since = Instant::now();
        let cut = cluster.cut_power(victim, Cut::Everything).expect("a journal");
        cluster.disk(victim).and_then(Disk::heal).expect("the fault ends");
        cluster.start_node(victim).await.expect("the node starts again");
        let back = since.elapsed();
        println!(
            "node {victim} led {leads} groups: {} unsynced changes of {lasted:?} undone, the \
             process back after {back:?}",
            cut.undone
        );
        assert!(back <= BACK * 10, "the node was away for {back:?}");
        if leads > 0 {
            undone += cut.undone;
        }
        load.flows(10).await;
        println!("longest wait {}", load.longest_waits());
        cluster.ready().await;
    }
    // A leader that forgets nothing proves nothing.
    assert!(undone > 0, "the faults did not happen");
    load.finish(&mut cluster).await;
}
