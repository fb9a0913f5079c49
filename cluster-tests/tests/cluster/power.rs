//! The power of nodes goes: whatever no sync covers is undone, wholly or in part.

use cluster_tests::cluster::Cluster;
use cluster_tests::disk::Cut;
use cluster_tests::seed::Seed;

use cluster_tests::load::Load;

fn cut(seed: &mut Seed) -> Cut {
    match seed.between(0, 2) {
        0 => Cut::Everything,
        _ => Cut::Torn(seed.bits()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_repeated_when_the_power_goes() {
    let mut seed = Seed::of_test("cluster", "when_the_power_goes");
    let mut cluster = Cluster::start_on_disks(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let mut unsynced = 0;
    for round in 0..super::rounds(6) {
        load.flows(seed.between(5, 40)).await;
        // One node alone, which comes back at once, or all.
        let count = [1, cluster.size()][round % 2];
        let victims = cluster.some(&mut seed, count);
        for victim in &victims {
            cluster.kill(*victim);
        }
        for victim in &victims {
            let undone = cluster.cut_power(*victim, cut(&mut seed)).expect("a journal");
            unsynced += undone.unsynced;
        }
        for victim in &victims {
            cluster.start_node(*victim).await.expect("the node starts again");
        }
        load.flows(10).await;
        println!("power of {victims:?} cut: longest wait {}", load.longest_waits());
        cluster.ready().await;
    }
    // Cuts that had nothing to undo would prove nothing.
    assert!(unsynced > 0, "the faults did not happen");
    load.finish(&mut cluster).await;
}
