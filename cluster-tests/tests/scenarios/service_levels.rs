//! P: what a service keeps over crashes, full stores and failing disks.

use std::path::Path;
use std::sync::mpsc;

use ackord_endpoint::{Event, RenewReason, ServiceLevel, ServiceNotice};
use cluster_tests::cli::{self, Lines, Tool};
use cluster_tests::disk::Disk;
use cluster_tests::raiser::json;
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;

use crate::broker;

/// Standard input that is written line by line and ends when the sender is dropped.
fn input() -> (mpsc::SyncSender<String>, Lines) {
    let (lines, source) = mpsc::sync_channel(100);
    (lines, Box::new(source.into_iter()))
}

fn nothing() -> cli::OnLine {
    Box::new(|_| {})
}

/// Waits until a file below `dir` holds `text`.
async fn until_on_disk(dir: &Path, text: &str) {
    wait::until_true(&format!("{text} to be on disk"), async || {
        let files = std::fs::read_dir(dir).expect("a directory").flatten();
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        files.filter_map(|file| std::fs::read(file.path()).ok()).any(|bytes| holds(&bytes))
    })
    .await;
}

async fn all_of(site: &Site, count: usize) -> Vec<String> {
    let reader = site.guest("reader").await;
    let listener = site.listener(&reader).to("reading").start().await;
    listener.until_handled(count).await;
    listener.args()
}

#[tokio::test]
async fn p10_a_kill_loses_what_was_in_memory_and_keeps_what_was_in_the_file() {
    let site = Site::new(broker().await, "p10", &structure(&[queueing("reading", 100)])).await;
    let boiler = site.service("boiler").await;
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let proxy = site.proxy().await;
    proxy.cut();

    let (lines, source) = input();
    lines.send(r#""in memory""#.to_owned()).expect("the tool reads");
    let in_memory = cli::raise(&site, &proxy.url(), &boiler, "reading", None);
    let mut in_memory = Tool::start(in_memory, Some(source), nothing()).expect("it starts");
    wait::until_true("it to try", async || proxy.refused() >= 1).await;
    in_memory.kill();

    let (lines, source) = input();
    for n in 1..=3 {
        lines.send(format!(r#""kept {n}""#)).expect("the tool reads");
    }
    let in_file = cli::raise(&site, &proxy.url(), &boiler, "reading", Some(&store));
    let mut in_file = Tool::start(in_file, Some(source), nothing()).expect("it starts");
    until_on_disk(dir.path(), "kept 3").await;
    in_file.kill();
    assert!(in_file.lines().is_empty() && site.retained("reading").await.is_empty());

    proxy.heal();
    let (lines, source) = input();
    lines.send(r#""new""#.to_owned()).expect("the tool reads");
    drop(lines);
    let again = cli::raise(&site, &proxy.url(), &boiler, "reading", Some(&store));
    let mut again = Tool::start(again, Some(source), nothing()).expect("it starts");
    assert_eq!(again.ended().await, Some(0), "{}", again.errors());
    let expected = [r#""kept 1""#, r#""kept 2""#, r#""kept 3""#, r#""new""#];
    assert_eq!(all_of(&site, 4).await, expected);
}

#[tokio::test]
async fn p12_a_full_store_keeps_the_newest() {
    let site = Site::new(broker().await, "p12", &structure(&[queueing("reading", 100)])).await;
    let boiler = site.service("boiler").await;
    let proxy = site.proxy().await;
    proxy.cut();
    let small = site.raiser(&boiler).via(&proxy.url());
    let level = ServiceLevel::Memory { bytes: 4096 };
    let raiser = small.with(|endpoint| endpoint.persistence(level)).start().await;
    let args = |n: u32| format!("{n:0>200}");
    for n in 1..=40 {
        raiser.hand_over(Event::queueing("reading", json(args(n))));
    }
    // Each is told of: those that are held and those that were dropped are all.
    let is_dropped = |notice: &ServiceNotice| matches!(notice, ServiceNotice::Dropped { .. });
    let dropped = wait::until("every drop to be told", async || {
        let dropped = raiser.notices.count(is_dropped);
        (dropped as u64 + raiser.endpoint().pending() == 40).then_some(dropped)
    })
    .await;
    assert!((10..40).contains(&dropped), "{dropped} of 40 × 200 bytes in 4096 bytes");

    proxy.heal();
    let kept = 40 - dropped;
    let expected: Vec<String> =
        (1..=40).skip(dropped).map(|n| format!("\"{}\"", args(n))).collect();
    assert_eq!(all_of(&site, kept).await, expected);
}

#[tokio::test]
async fn p13_a_failing_disk_costs_nothing_that_is_held() {
    let site = Site::new(broker().await, "p13", &structure(&[queueing("reading", 100)])).await;
    let boiler = site.service("boiler").await;
    let both = tempfile::tempdir().expect("a directory");
    let dir = both.path().join("disk");
    let disk = Disk::new(&dir, &both.path().join("scratch")).expect("a disk");
    let store = dir.join("store");
    let proxy = site.proxy().await;
    proxy.cut();

    let (lines, source) = input();
    let mut command = cli::raise(&site, &proxy.url(), &boiler, "reading", Some(&store));
    command.envs(disk.environment().expect("the shim is built"));
    let mut tool = Tool::start(command, Some(source), nothing()).expect("it starts");
    for n in 1..=5 {
        lines.send(format!(r#""held {n}""#)).expect("the tool reads");
    }
    until_on_disk(&dir, "held 5").await;
    disk.inject("eio-write").expect("the disk fails");
    for n in 6..=10 {
        lines.send(format!(r#""held {n}""#)).expect("the tool reads");
    }
    drop(lines);
    proxy.heal();
    let code = tool.ended().await;
    assert_eq!((code, tool.lines().len()), (Some(0), 10), "{}", tool.errors());
    let expected: Vec<String> = (1..=10).map(|n| format!(r#""held {n}""#)).collect();
    assert_eq!(all_of(&site, 10).await, expected);
    assert_eq!(site.retained("reading").await.len(), 10);
}

#[tokio::test]
async fn p15_a_torn_tail_makes_a_new_store_and_swallows_nothing() {
    let site = Site::new(broker().await, "p15", &structure(&[queueing("reading", 100)])).await;
    let boiler = site.service("boiler").await;
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let proxy = site.proxy().await;
    let first = site.raiser(&boiler).via(&proxy.url()).store(&store).start().await;
    first.until_online().await;
    proxy.lose_answers();
    for n in 1..=3 {
        first.hand_over(Event::queueing("reading", json(n)));
        site.until_retained("reading", n).await;
    }
    first.kill().await;
    tear(&store);

    proxy.heal();
    let second = site.raiser(&boiler).via(&proxy.url()).store(&store).start().await;
    second.until_online().await;
    let cut = |notice: &ServiceNotice| matches!(notice, ServiceNotice::StoreCut { .. });
    second.notices.until("the cut to be told", cut).await;
    let renewed = ServiceNotice::StoreRenewed { reason: RenewReason::NumbersLost };
    second.notices.until("a new uid", |notice| *notice == renewed).await;
    let id = second.raise("reading", 4).await;
    assert_eq!(site.retained("reading").await.last(), Some(&id), "its number swallows nothing");
    let args = all_of(&site, site.retained("reading").await.len()).await;
    assert_eq!(
        (&args[..3], args.last()),
        (&["1", "2", "3"].map(String::from)[..], Some(&"4".into()))
    );
}

/// Cuts the last bytes off a file.
fn tear(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).expect("the store");
    let length = file.metadata().expect("its length").len();
    file.set_len(length - 3).expect("it is cut");
}
