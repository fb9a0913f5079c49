//! A node that is given an older copy of its disk: the others know, and it ends.

use std::path::Path;
use std::sync::Arc;

use ackord_machine::site::Outcome;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::cluster::{Cluster, eventually, partition_of, persist};
use super::fixture::Publisher;
use super::replication::publisher;
use crate::{NodeOptions, OnFatal};

static REASONS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn recording(options: NodeOptions) -> NodeOptions {
    let on_fatal = OnFatal::Call(Arc::new(|reason| REASONS.lock().push(reason.to_owned())));
    NodeOptions { on_fatal, ..options }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What is on the disk of a node that does not run.
fn keep(cluster: &Cluster, node: u64) -> TempDir {
    let kept = tempfile::tempdir().unwrap();
    copy(cluster.dir(node), kept.path());
    kept
}

fn put_back(cluster: &Cluster, node: u64, kept: &TempDir) {
    let dir = cluster.dir(node);
    std::fs::remove_dir_all(dir).unwrap();
    std::fs::create_dir(dir).unwrap();
    copy(kept.path(), dir);
}

async fn raise(publisher: &mut Publisher, count: usize) {
    for _ in 0..count {
        let command = publisher.raise(64);
        let outcome = persist(&publisher.at, command).await;
        assert!(matches!(outcome, Outcome::Raised(_)), "{outcome:?}");
    }
}

async fn ended() {
    eventually("the node ends", || !REASONS.lock().is_empty()).await;
    let reason = std::mem::take(&mut *REASONS.lock()).remove(0);
    assert!(reason.starts_with("the disk is older than what this node has told node"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_an_older_copy_of_its_disk_when_a_node_comes_back_then_it_is_not_heard_and_ends() {
    let mut cluster = Cluster::start(3, recording).await;
    let leader = cluster.leader(partition_of(&cluster, "plant")).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    raise(&mut publisher, 10).await;

    let victim = cluster.running().into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(victim);
    let yesterday = keep(&cluster, victim);
    cluster.restart(victim);
    cluster.ready().await;
    let began = cluster.node(victim).written();
    raise(&mut publisher, 10).await;
    let others: Vec<u64> = cluster.running().into_iter().filter(|node| *node != victim).collect();
    let know = |node: &u64| cluster.node(*node).peers().remembered(victim) > Some(began);
    eventually("the others are told how far it is", || others.iter().all(know)).await;
    cluster.kill(victim);
    let today = keep(&cluster, victim);

    put_back(&cluster, victim, &yesterday);
    cluster.restart(victim);
    ended().await;
    raise(&mut publisher, 10).await;
    cluster.kill(victim);

    // With its own disk it is what it was.
    put_back(&cluster, victim, &today);
    cluster.restart(victim);
    cluster.ready().await;
    cluster.equal_hashes().await;

    // Nor is it forgotten when nobody runs.
    for node in cluster.running() {
        cluster.stop(node);
    }
    put_back(&cluster, victim, &yesterday);
    for node in 1..=3 {
        cluster.restart(node);
    }
    ended().await;
    cluster.kill(victim);
    cluster.ready().await;
    cluster.equal_hashes().await;
    assert!(REASONS.lock().is_empty(), "another node ended: {:?}", REASONS.lock());
}
