//! Disks that rot, run full, fail, hang, are old, or empty.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::{HOLDS, Run, leader, refuses_to_start, replace, victims};
use crate::cluster::READY;
use crate::disk::Disk;
use crate::seed::Seed;
use crate::wait;

/// The exit status for a wrong configuration.
const CONFIGURATION: Option<i32> = Some(78);

/// Nodes that the cluster began with.
const FOUNDERS: usize = 3;

/// Any node but the last of the founders: endpoints that are started again look where they looked first,
/// and where every node may be replaced they are given an address that stands for all.
fn replaceable(run: &mut Run) -> usize {
    let mut running = run.cluster.running();
    let founders = running.iter().filter(|node| **node <= FOUNDERS).count();
    running.retain(|node| *node > FOUNDERS || founders > 1);
    running[run.seed.between(0, running.len() as u64) as usize]
}

/// All files below a directory that have something in them.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn a_file(root: &Path, seed: &mut Seed) -> (PathBuf, u64) {
    let files = files(root);
    let file = files[seed.between(0, files.len() as u64) as usize].clone();
    let length = file.metadata().expect("it is there").len();
    (file, length)
}

/// How long the others have to hear how far a node's disk is; it tells them every second.
const TOLD: Duration = Duration::from_secs(3);

/// Starts a node on a damaged disk: it has everything, or it says so and is replaced. Gives whether it
/// was replaced.
async fn start_damaged(run: &mut Run, node: usize) -> bool {
    run.cluster.start_node(node).await.expect("the process starts");
    let refused = refuses_to_start(&mut run.cluster, node).await;
    if refused {
        let number = node;
        run.cluster.wipe(node).expect("the disk is emptied");
        replace(&mut run.cluster, number).await;
    }
    // A disk that lost something is one failure: the next one waits until it is made good.
    run.cluster.until_replicas_agree().await;
    refused
}

/// Row 15.
pub fn bit_flips(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let victim = replaceable(run);
        run.cluster.kill(victim);
        let (path, length) = a_file(run.cluster.data(victim), &mut run.seed);
        let file = std::fs::File::options().read(true).write(true).open(&path).expect("a file");
        let (at, bit) = (run.seed.between(0, length), run.seed.between(0, 8));
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        file.write_all_at(&[byte[0] ^ (1 << bit)], at).expect("a byte");
        run.injected(1);
        run.load.flows(2).await;
        start_damaged(run, victim).await;
    }
    .boxed_local()
}

/// Row 16.
pub fn old_disk(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let victim = replaceable(run);
        let is_cut = run.round.is_multiple_of(2);
        if is_cut {
            run.cluster.kill(victim);
            let (path, length) = a_file(run.cluster.data(victim), &mut run.seed);
            let file = std::fs::File::options().write(true).open(&path).expect("a file");
            file.set_len(run.seed.between(0, length)).expect("it is cut");
        } else {
            assert_eq!(run.cluster.stop(victim).await.expect("it runs"), Some(0));
            let yesterday = run.cluster.keep_disk(victim).expect("a copy");
            run.cluster.start_node(victim).await.expect("the node starts");
            run.cluster.until_ready(victim).await;
            run.load.flows(20).await;
            run.cluster.lasts(TOLD).await;
            run.cluster.kill(victim);
            run.cluster.put_disk_back(victim, &yesterday).expect("the copy is put back");
        }
        run.injected(1);
        run.load.flows(2).await;
        let replaced = start_damaged(run, victim).await;
        assert!(replaced || is_cut, "node {victim} went on with an older copy of its disk");
    }
    .boxed_local()
}

/// Row 17.
pub fn wiped(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        // One of the founders: who joined joins again.
        let founders: Vec<usize> =
            run.cluster.running().into_iter().filter(|node| *node <= FOUNDERS).collect();
        if founders.len() < 2 {
            return;
        }
        let victim = founders[run.seed.between(0, founders.len() as u64) as usize];
        run.cluster.kill(victim);
        run.cluster.wipe(victim).expect("the disk is emptied");
        run.injected(1);
        // Under its old name it has nothing to say.
        run.cluster.start_node(victim).await.expect("the process starts");
        assert_eq!(run.cluster.ended(victim).await.expect("it ran"), CONFIGURATION);
        run.load.flows(3).await;
        replace(&mut run.cluster, victim).await;
    }
    .boxed_local()
}

/// Row 18.
pub fn full_disk(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let count = [1, run.cluster.size()][run.round % 2];
        let victims = victims(&run.cluster, &mut run.seed, count);
        for victim in &victims {
            run.cluster.disk(*victim).and_then(|disk| disk.inject("enospc")).expect("it is full");
        }
        let held = run.seed.millis(500, HOLDS.as_millis() as u64);
        run.cluster.lasts(held).await;
        fail_and_heal(run, &victims).await;
    }
    .boxed_local()
}

/// Row 19.
pub fn failing_syncs(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        let fault = ["eio-sync", "slow-sync 150", "eio-write"][run.round % 3];
        run.cluster.disk(victim).and_then(|disk| disk.inject(fault)).expect("the fault holds");
        run.load.flows(3).await;
        if fault.starts_with("slow") {
            run.injected(1);
            run.cluster.disk(victim).and_then(Disk::heal).expect("the fault ends");
            return;
        }
        fail_and_heal(run, &[victim]).await;
    }
    .boxed_local()
}

/// Ends a fault of disks, and starts those again that ended by it; it counts where one did. What failed
/// just before the end of the fault may take the process down just after it: one that has synced since
/// goes on. A node has nothing to sync before a majority is there again, so none waits for another.
async fn fail_and_heal(run: &mut Run, victims: &[usize]) {
    for victim in victims {
        run.cluster.disk(*victim).and_then(Disk::heal).expect("the fault ends");
    }
    let mut left: Vec<(usize, Option<u64>)> = victims.iter().map(|node| (*node, None)).collect();
    let deadline = Instant::now() + READY;
    while !left.is_empty() {
        let mut waiting = Vec::new();
        for (victim, healed) in left {
            if run.cluster.has_ended(victim) {
                start_again(run, victim).await;
                continue;
            }
            let syncs = run.cluster.admin(victim).syncs().await;
            if syncs.zip(healed).is_none_or(|(now, healed)| now <= healed) {
                waiting.push((victim, healed.or(syncs)));
            }
        }
        left = waiting;
        let nodes: Vec<usize> = left.iter().map(|(node, _)| *node).collect();
        assert!(
            left.is_empty() || Instant::now() < deadline,
            "waited {READY:?} in vain for the nodes {nodes:?} to sync or to end"
        );
        tokio::time::sleep(wait::POLL).await;
    }
}

/// Starts a node that a fault of its disk has ended.
async fn start_again(run: &mut Run, victim: usize) {
    let code = run.cluster.ended(victim).await.expect("it ran");
    assert_ne!(code, Some(0), "node {victim} ended as if all were well");
    assert_ne!(code, Some(101), "node {victim} panicked: {}", run.cluster.log(victim));
    run.injected(1);
    run.cluster.start_node(victim).await.expect("the node starts again");
}
