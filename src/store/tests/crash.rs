//! Stops that were not graceful: kills, and directories copied while they are written.
#![allow(clippy::unwrap_used, reason = "a failing test is the answer")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use ackord_store::{GroupId, OpenError, StoreOptions};
use bytes::Bytes;
use support::*;

const CHILD_DIR: &str = "ACKORD_STORE_TEST_CHILD_DIR";

/// Not a scenario of its own: what the killed process of the next one does.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let store = open(dir.as_ref());
    let mut next = store.log_state(G).last.map_or(0, |last| last.index + 1);
    loop {
        if next.is_multiple_of(97) {
            let text = Bytes::from(format!("vote {next}"));
            wait(|done| store.save_vote(G, text, done)).unwrap();
            println!("voted {next}");
        }
        append(&store, G, 1, next..next + 3);
        next += 3;
        // Only what is durable is said.
        println!("durable {next}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_it_was_told_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut durable = 0u64;
    let mut voted = None;
    for round in 1..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let goal = durable + 150 * round;
        let mut note = |line: String| {
            if let Some(text) = line.strip_prefix("durable ") {
                durable = text.parse().unwrap();
            } else if let Some(text) = line.strip_prefix("voted ") {
                voted = Some(text.to_owned());
            }
            durable
        };
        for line in lines.by_ref() {
            if note(line.unwrap()) >= goal {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            note(line.unwrap());
        }
        let store = open(dir.path());
        let found = contents(&store, G);
        assert!(found.len() as u64 >= durable, "{} < {durable}", found.len());
        assert_eq!(found, entries(G, 1, 0..found.len() as u64));
        let vote = store.log_state(G).vote.unwrap();
        let at_least: u64 = voted.as_ref().unwrap().parse().unwrap();
        let text = std::str::from_utf8(&vote).unwrap().strip_prefix("vote ").unwrap();
        assert!(text.parse::<u64>().unwrap() >= at_least);
        durable = found.len() as u64;
    }
}

#[test]
fn a_copy_of_a_running_store_opens_with_everything_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut next = 0;
    for round in 0..5 {
        append(&store, G, 1, next..next + 120);
        next += 120;
        vote(&store, GroupId(3), "third");
        let frozen = tempfile::tempdir().unwrap();
        copy(dir.path(), frozen.path());
        let thawed = open(frozen.path());
        assert_eq!(contents(&thawed, G), entries(G, 1, 0..next), "round {round}");
        append(&thawed, G, 2, next..next + 10);
        drop(thawed);
        assert_eq!(contents(&open(frozen.path()), G).len() as u64, next + 10);
    }
}

/// The end of what is written in the file that is written last.
fn written_end(dir: &std::path::Path) -> (std::path::PathBuf, u64) {
    let logs = files_under(&dir.join("log"));
    let last = logs.into_iter().filter(|path| path.extension().is_some_and(|e| e == "raftlog"));
    let path = last.max().unwrap();
    let raw = std::fs::read(&path).unwrap();
    let end = raw.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (path, end as u64)
}

#[test]
fn a_torn_last_write_is_cut_and_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::small(dir.path());
    options.high_water_interval = std::time::Duration::from_secs(3600);
    let store = ackord_store::Store::open(options).unwrap();
    append(&store, G, 1, 0..30);
    vote(&store, G, "now in the high-water file");
    append(&store, G, 1, 30..60);
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    let (path, end) = written_end(frozen.path());
    for cut in [1, 5, 40, 400] {
        let torn = tempfile::tempdir().unwrap();
        copy(frozen.path(), torn.path());
        let target = torn.path().join(path.strip_prefix(frozen.path()).unwrap());
        let file = std::fs::OpenOptions::new().write(true).open(&target).unwrap();
        file.write_all_at(&vec![0; cut], end - cut as u64).unwrap();
        drop(file);
        let store = open(torn.path());
        assert_eq!(contents(&store, G), entries(G, 1, 0..30), "cut {cut}");
        // A write of the same length in the same place: nothing of the torn one may surface.
        append(&store, G, 2, 30..60);
        append(&store, G, 2, 60..70);
        let again = tempfile::tempdir().unwrap();
        copy(torn.path(), again.path());
        let store = open(again.path());
        let mut expected = entries(G, 1, 0..30);
        expected.extend(entries(G, 2, 30..70));
        assert_eq!(contents(&store, G), expected);
        assert_eq!(files_under(&torn.path().join("cut")).len(), 1);
    }
}

#[test]
fn a_break_before_a_later_synced_write_is_damage_not_a_tail() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::small(dir.path());
    // The high-water file knows nothing of these entries: only the log itself can tell.
    options.high_water_interval = std::time::Duration::from_secs(3600);
    let store = ackord_store::Store::open(options).unwrap();
    append(&store, G, 1, 0..10);
    let (_, first_end) = written_end(dir.path());
    append(&store, G, 1, 10..20);
    append(&store, G, 1, 20..30);
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    let (path, _) = written_end(frozen.path());
    for offset in [1, 9, 30, 200] {
        let broken = tempfile::tempdir().unwrap();
        copy(frozen.path(), broken.path());
        let target = broken.path().join(path.strip_prefix(frozen.path()).unwrap());
        let bit = (first_end + offset) * 8;
        harm(&target, Harm::FlipBit { bit });
        let before = std::fs::read(&target).unwrap();
        let refused = ackord_store::Store::open(StoreOptions::small(broken.path())).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
        assert!(!refused.retryable());
        assert_eq!(std::fs::read(&target).unwrap(), before, "left as it was");
    }
}

#[test]
fn an_interrupted_rotation_or_creation_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 0..10);
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    // The next file was created and never got its head.
    std::fs::write(frozen.path().join("log/0000000000000002.raftlog"), [0; 65536]).unwrap();
    let store = open(frozen.path());
    assert_eq!(contents(&store, G).len(), 10);
    append(&store, G, 1, 10..20);
    drop(store);
    assert_eq!(contents(&open(frozen.path()), G).len(), 20);

    // A creation that stopped before the format file.
    let young = tempfile::tempdir().unwrap();
    drop(open(young.path()));
    std::fs::remove_file(young.path().join("format")).unwrap();
    std::fs::write(young.path().join("creating"), b"").unwrap();
    append(&open(young.path()), G, 1, 0..5);
    assert_eq!(contents(&open(young.path()), G).len(), 5);
}

#[test]
fn a_log_behind_the_high_water_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 0..100);
    let old = tempfile::tempdir().unwrap();
    copy(dir.path(), old.path());
    append(&store, G, 1, 100..200);
    vote(&store, G, "later");
    drop(store);
    for name in ["log", "high-water"] {
        // Yesterday's backup of one with today's other.
        let mixed = tempfile::tempdir().unwrap();
        copy(dir.path(), mixed.path());
        let target = mixed.path().join(name);
        if target.is_dir() {
            std::fs::remove_dir_all(&target).unwrap();
            copy(&old.path().join(name), &target);
            let refused = ackord_store::Store::open(StoreOptions::small(mixed.path())).unwrap_err();
            let OpenError::Damaged { findings } = refused else {
                panic!("{refused}");
            };
            assert!(!findings.is_empty());
        } else {
            // An older high-water file is merely late.
            std::fs::copy(old.path().join(name), &target).unwrap();
            assert_eq!(contents(&open(mixed.path()), G).len(), 200);
        }
    }
}
