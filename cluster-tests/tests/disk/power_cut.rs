//! The power goes: whatever no sync covers is undone, wholly or in part.

use cluster_tests::disk::{Cut, Disk};
use cluster_tests::node::Node;
use cluster_tests::seed::Seed;
use cluster_tests::wait;

use super::load::{Acknowledged, LIMITS, Load, missing, site};
use super::rounds;

/// What some rounds of power cuts came to.
#[derive(Debug, Default)]
struct Figures {
    rounds: u64,
    acknowledged: usize,
    syncs: usize,
    unsynced: usize,
    lost: usize,
}

async fn cut_power(mut disk: Disk, mut seed: Seed, rounds: u64, deaf_to_syncs: Deaf) -> Figures {
    let mut figures = Figures::default();
    let acknowledged = Acknowledged::default();
    let mut node = Node::start_on(&disk, LIMITS).await.expect("the node starts");
    let (site, service) = site(&node).await;
    if deaf_to_syncs == Deaf::Yes {
        // What was made so far shall be there: only syncs from now on are void.
        node.terminate().await.expect("the node stops in order");
        disk.deafen();
        node = Node::start_on(&disk, LIMITS).await.expect("the node starts again");
    }
    while figures.rounds < rounds {
        figures.rounds += 1;
        let load = Load::start(&site, &service, &acknowledged).await;
        let target = acknowledged.count() + seed.between(1, 400) as usize;
        wait::until_true("some acknowledgements", async || acknowledged.count() >= target).await;
        node.kill();
        load.stop().await;
        // Without syncs a torn log is refused as damaged; only a clean cut loses in silence.
        let whole = deaf_to_syncs == Deaf::Yes || figures.rounds % 2 == 0;
        let cut = if whole { Cut::Everything } else { Cut::Torn(seed.bits()) };
        let undone = disk.power_cut(cut).expect("the journal is readable");
        figures.syncs += undone.syncs;
        figures.unsynced += undone.unsynced;
        match Node::start_on(&disk, LIMITS).await {
            Ok(again) => node = again,
            Err(error) => panic!("round {}: {error:#}", figures.rounds),
        }
        figures.lost += missing(&node, &acknowledged).await.len();
        if figures.lost > 0 {
            break;
        }
    }
    figures.acknowledged = acknowledged.count();
    println!("{figures:?}");
    figures
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deaf {
    No,
    Yes,
}

fn disk() -> (tempfile::TempDir, Disk) {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(&dir.path().join("data"), &dir.path().join("scratch")).expect("a disk");
    (dir, disk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let seed = Seed::of_test("disk", "nothing_acknowledged_is_lost_when_the_power_goes");
    let (_dir, disk) = disk();
    let figures = cut_power(disk, seed, rounds(8), Deaf::No).await;
    assert_eq!(figures.lost, 0, "{figures:?}");
    // A power cut that had nothing to undo, of a disk without syncs, would prove nothing.
    assert!(figures.unsynced > 0 && figures.syncs > 0, "{figures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_the_same_power_cuts_show() {
    let seed = Seed::of_test("disk", "without_syncs_the_same_power_cuts_show");
    let (_dir, disk) = disk();
    let figures = cut_power(disk, seed, 20, Deaf::Yes).await;
    assert!(figures.lost > 0, "{figures:?}");
}
