//! The disk fills up: raises are refused before it is full, everything else goes on.
//!
//! Needs a file system of its own, so it runs where a tmpfs may be mounted (as root); elsewhere it
//! says so and proves nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use ackord_endpoint::{Event, Payload, ServiceEndpoint, ServiceLevel};
use cluster_tests::node::Node;
use cluster_tests::wait;

use super::load::{Acknowledged, EVENT, LIMITS, missing, site};

/// What somebody else leaves of the disk.
const SPARE_BYTES: usize = 8 << 20;

/// Raises that the node refused for want of room.
async fn refused(url: &str) -> u64 {
    let answer = reqwest::get(format!("{url}/metrics")).await.expect("metrics are served");
    let text = answer.text().await.expect("metrics are text");
    let line = text.lines().find(|line| line.starts_with("ackord_refused_disk_full_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// A small file system, gone when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(path);
        mount.output().ok()?.status.success().then(|| Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_raises_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("small");
    let Some(_small) = Small::mount(&path, "size=1536m") else {
        println!("no tmpfs can be mounted here: the full disk was not tested");
        return;
    };
    let data = path.join("data");
    let mut node = Node::start_in(&data, LIMITS).await.expect("the node starts");
    let (site, service) = site(&node).await;

    // Given: events, and then somebody else fills the disk up.
    let free = || {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(&path).output();
        let text = String::from_utf8_lossy(&output.expect("df runs").stdout).into_owned();
        text.lines().nth(1).and_then(|line| line.trim().parse::<usize>().ok()).unwrap_or(0)
    };
    let before = Acknowledged::default();
    let load = super::load::Load::start(&site, &service, &before).await;
    wait::until_true("some acknowledgements", async || before.count() >= 100).await;
    load.stop().await;
    let mut fill = Command::new("fallocate");
    fill.arg("-l").arg(free().saturating_sub(SPARE_BYTES).to_string()).arg(path.join("ballast"));
    assert!(fill.status().expect("fallocate runs").success());

    // When: a service raises on. Then: it is refused in time, with the reason.
    let endpoint = ServiceEndpoint::builder()
        .url(&site.url)
        .site(&site.name)
        .token(&service.token)
        .persistence(ServiceLevel::Memory { bytes: 64 << 20 })
        .start()
        .await
        .expect("the endpoint starts");
    wait::until_true("raises to be refused", async || {
        let event = Event::queueing(EVENT, Payload::json(format!("\"{}\"", "x".repeat(2000))));
        endpoint.raise(event).expect("the endpoint keeps it");
        refused(&site.url).await > 0
    })
    .await;

    // And: reading goes on, and a start on the full disk finds everything acknowledged.
    assert_eq!(missing(&node, &before).await, Vec::<u64>::new());
    node.terminate().await.expect("the node stops in order");
    node.restart().await.expect("the node starts on a full disk");
    assert_eq!(missing(&node, &before).await, Vec::<u64>::new());

    // And: with room again, raises go on by themselves.
    std::fs::remove_file(path.join("ballast")).expect("the ballast goes");
    let after = Acknowledged::default();
    drop(endpoint);
    let load = super::load::Load::start(&site, &service, &after).await;
    wait::until_true("raises to go on", async || after.count() >= 10).await;
    load.stop().await;
}
