//! Files rot while the node is stopped: flipped bits and cut ends, in every file there is.
//!
//! Each trial copies the directory of a node that stopped in order, damages one file and starts a
//! node on the copy. Harmless: it starts and has everything. Detected: it says what is wrong and
//! does not start. Anything else (a panic, a start with less) fails the test.
//!
//! After a kill the end of the log may be newer than what the high-water file knows of: a tail cut
//! inside that interval can go unnoticed on a single node. That is counted, and bounded.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster_tests::node::Node;
use cluster_tests::seed::Seed;
use cluster_tests::wait;

use super::load::{Acknowledged, LIMITS, Load, churn, missing, site};
use super::rounds;

/// Snapshots come early and the log is purged below them, so that every kind of file is there.
const SMALL: &[&str] = &[
    "queue_size_max=100000",
    "partitions=2",
    "snapshot_log_bytes_min=65536",
    "log_file_bytes=65536",
    "log_purge_bytes=131072",
];

/// How often a load is repeated until it has led to two snapshots.
const ATTEMPTS: u32 = 100;

/// Ten times the interval in which the high-water file is refreshed under load.
const UNNOTICED_MAX: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Flip,
    Cut,
}

#[derive(Debug, Default)]
struct Row {
    trials: u64,
    harmless: u64,
    detected: u64,
}

/// All files below a directory, relative to it.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
                found.push(path.strip_prefix(root).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().expect("it has a parent")).expect("a folder");
        std::fs::copy(from.join(&file), target).expect("a copy");
    }
}

fn is_snapshot(file: &Path) -> bool {
    file.starts_with("node/snapshots") && file.extension().is_some_and(|kind| kind == "snap")
}

/// What sort of file it is: its path without numbers.
fn kind(file: &Path) -> String {
    let text = file.to_string_lossy();
    let mut kind = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if !(c == '#' && kind.ends_with('#')) {
            kind.push(c);
        }
    }
    kind
}

fn harm(path: &Path, damage: Damage, seed: &mut Seed) -> String {
    let file = std::fs::File::options().read(true).write(true).open(path).expect("it opens");
    let length = file.metadata().expect("it has a length").len();
    // Preallocated files end in zeros: aim at what was written.
    let text = std::fs::read(path).expect("it can be read");
    let written = text.iter().rposition(|byte| *byte != 0).map_or(length, |at| at as u64 + 1);
    let at = seed.between(0, written);
    match damage {
        Damage::Flip => {
            let bit = seed.between(0, 8);
            file.write_all_at(&[text[at as usize] ^ (1 << bit)], at).expect("it can be written");
            format!("bit {bit} of byte {at} of {written}")
        }
        Damage::Cut => {
            file.set_len(at).expect("it can be cut");
            format!("cut from {length} to {at}")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_at_rest_is_harmless_or_detected() {
    let mut seed = Seed::of_test("disk", "damage_at_rest_is_harmless_or_detected");
    let dir = tempfile::tempdir().expect("a directory");
    let healthy = dir.path().join("healthy");
    let acknowledged = Acknowledged::default();
    let mut node = Node::start_in(&healthy, SMALL).await.expect("the node starts");
    let (site, service) = site(&node).await;
    for life in 1..=2 {
        // Of two snapshots the log is purged below the older.
        for _ in 0..ATTEMPTS {
            churn(&site, &service, 200).await;
            if files(&healthy).iter().filter(|file| is_snapshot(file)).count() >= 2 {
                break;
            }
        }
        let load = Load::start(&site, &service, &acknowledged).await;
        let target = life * 200;
        wait::until_true("acknowledgements", async || acknowledged.count() >= target).await;
        load.stop().await;
        assert_eq!(node.terminate().await.expect("it stops"), Some(0));
        if life == 1 {
            node.restart().await.expect("the node starts again");
        }
    }

    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files(&healthy) {
        kinds.entry(kind(&file)).or_default().push(file);
    }
    let snapshots = kinds.values().flatten().filter(|file| is_snapshot(file)).count();
    assert_eq!(snapshots, 2, "{kinds:?}");
    let mut table: BTreeMap<(String, Damage), Row> = BTreeMap::new();
    for (kind, files) in kinds {
        for damage in [Damage::Flip, Damage::Cut] {
            for _ in 0..rounds(3) {
                let file = &files[seed.between(0, files.len() as u64) as usize];
                let copied = dir.path().join("copy");
                copy(&healthy, &copied);
                let how = harm(&copied.join(file), damage, &mut seed);
                let what = format!("{}: {how}", file.display());
                let row = table.entry((kind.clone(), damage)).or_default();
                row.trials += 1;
                match Node::start_in(&copied, SMALL).await {
                    Ok(node) => {
                        let lost = missing(&node, &acknowledged).await;
                        assert!(lost.is_empty(), "{what}: started without {} events", lost.len());
                        row.harmless += 1;
                    }
                    Err(error) => {
                        let said = format!("{error:#}");
                        assert!(!said.contains("panicked"), "{what}: {said}");
                        assert!(!said.contains("not ready after"), "{what}: {said}");
                        row.detected += 1;
                    }
                }
                std::fs::remove_dir_all(&copied).expect("the copy goes");
                let _ = std::fs::remove_file(copied.with_extension("stderr"));
            }
        }
    }
    println!("| file | damage | trials | harmless or repaired | detected |\n|---|---|---|---|---|");
    for ((kind, damage), Row { trials, harmless, detected }) in &table {
        println!("| {kind} | {damage:?} | {trials} | {harmless} | {detected} |");
    }
    let detected: u64 = table.values().map(|row| row.detected).sum();
    assert!(detected > 0, "no damage was ever detected: {table:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_cut_after_a_kill_loses_the_last_moments_at_most() {
    let name = "a_tail_cut_after_a_kill_loses_the_last_moments_at_most";
    let mut seed = Seed::of_test("disk", name);
    let dir = tempfile::tempdir().expect("a directory");
    let killed = dir.path().join("killed");
    let acknowledged = Acknowledged::default();
    let mut node = Node::start_in(&killed, LIMITS).await.expect("the node starts");
    let (site, service) = site(&node).await;
    let load = Load::start(&site, &service, &acknowledged).await;
    wait::until_true("acknowledgements", async || acknowledged.count() >= 2_000).await;
    node.kill();
    let killed_at = Instant::now();
    load.stop().await;

    let logs =
        files(&killed).into_iter().filter(|file| file.to_string_lossy().ends_with("raftlog"));
    let newest = logs.max().expect("a log file");
    let text = std::fs::read(killed.join(&newest)).expect("it can be read");
    let written = text.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    let (mut harmless, mut detected, mut unnoticed, mut most, mut oldest) = (0, 0, 0, 0, 0);
    for trial in 0..rounds(8) {
        let copied = dir.path().join("copy");
        copy(&killed, &copied);
        // Short cuts and long ones: most of the log is older than the interval.
        let reach = 64 << (2 * (trial % 7));
        let at = written.saturating_sub(seed.between(1, reach + 1));
        let file = std::fs::File::options().write(true).open(copied.join(&newest));
        file.and_then(|file| file.set_len(at)).expect("it can be cut");
        match Node::start_in(&copied, LIMITS).await {
            Ok(node) => {
                let lost = missing(&node, &acknowledged).await;
                for id in &lost {
                    let when = acknowledged.when(*id).expect("it was acknowledged");
                    let before = killed_at.saturating_duration_since(when);
                    assert!(
                        before <= UNNOTICED_MAX,
                        "{id}, acknowledged {before:?} before the kill, went unnoticed at {at}"
                    );
                    oldest = oldest.max(before.as_millis());
                }
                most = most.max(lost.len());
                if lost.is_empty() { harmless += 1 } else { unnoticed += 1 }
            }
            Err(error) => {
                let said = format!("{error:#}");
                assert!(!said.contains("panicked"), "cut at {at}: {said}");
                assert!(!said.contains("not ready after"), "cut at {at}: {said}");
                detected += 1;
            }
        }
        std::fs::remove_dir_all(&copied).expect("the copy goes");
        let _ = std::fs::remove_file(copied.with_extension("stderr"));
    }
    println!(
        "tail cut after a kill: {harmless} harmless, {detected} detected, {unnoticed} unnoticed \
         (at most {most} events, acknowledged at most {oldest} ms before the kill)"
    );
}
