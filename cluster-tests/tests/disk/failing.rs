//! The disk fails: the node stops, acknowledges nothing after that, and has lost nothing.

use cluster_tests::disk::Disk;
use cluster_tests::node::Node;
use cluster_tests::wait;

use super::load::{Acknowledged, LIMITS, Load, missing, site};

async fn a_fault_stops_the_node(fault: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(&dir.path().join("data"), &dir.path().join("scratch")).expect("a disk");
    let mut node = Node::start_on(&disk, LIMITS).await.expect("the node starts");
    let (site, service) = site(&node).await;
    let acknowledged = Acknowledged::default();
    let load = Load::start(&site, &service, &acknowledged).await;
    wait::until_true("some acknowledgements", async || acknowledged.count() >= 50).await;

    disk.inject(fault).expect("the fault is set");
    let code = node.ended().await.expect("it ran");
    load.stop().await;
    assert_ne!(code, Some(0), "a node whose disk failed ended as if all were well");
    let log = node.log();
    assert!(log.contains("disk") || log.contains("sync") || log.contains("write"), "{log}");

    disk.heal().expect("the fault ends");
    let node = Node::start_on(&disk, LIMITS).await.expect("the node starts again");
    assert_eq!(missing(&node, &acknowledged).await, Vec::<u64>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_stops_the_node() {
    a_fault_stops_the_node("eio-sync").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_stops_the_node() {
    a_fault_stops_the_node("eio-write").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_syncs_cost_time_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(&dir.path().join("data"), &dir.path().join("scratch")).expect("a disk");
    let node = Node::start_on(&disk, LIMITS).await.expect("the node starts");
    let (site, service) = site(&node).await;
    let acknowledged = Acknowledged::default();
    disk.inject("slow-sync 100").expect("the fault is set");
    let load = Load::start(&site, &service, &acknowledged).await;
    wait::until_true("acknowledgements", async || acknowledged.count() >= 100).await;
    load.stop().await;
    assert_eq!(missing(&node, &acknowledged).await, Vec::<u64>::new());
}
