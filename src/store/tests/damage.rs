//! Random harm to every kind of file: what was durable is all there, or the directory is refused,
//! and what recovery then keeps is a true beginning of each log. Never a panic, never silently
//! less.
//!
//! `ACKORD_DAMAGE_TRIALS` and `ACKORD_DAMAGE_SEED` drive longer runs.
#![allow(clippy::unwrap_used, reason = "a failing test is the answer")]

mod support;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ackord_store::{Entry, GroupId, LogState, OpenError, RecoverMode, Store, StoreOptions};
use bytes::Bytes;
use support::*;

type Contents = BTreeMap<GroupId, (LogState, Vec<Entry>)>;

const IDLE: GroupId = GroupId(5);

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::small(dir);
    options.log_file_bytes = 16 * 1024;
    options.log_purge_bytes = 48 * 1024;
    options.purge_interval = Duration::from_millis(5);
    options
}

fn everything(store: &Store) -> Contents {
    let groups = store.groups().into_iter();
    groups.map(|group| (group, (store.log_state(group), contents(store, group)))).collect()
}

fn has_rewritten(dir: &Path) -> bool {
    let files = files_under(&dir.join("log"));
    let rewrites = files.iter().filter(|path| path.extension().is_some_and(|e| e == "rewrite"));
    rewrites.map(|path| path.metadata().unwrap().len()).sum::<u64>() > 500
}

/// A store with several files in both queues, truncations and purges, and an idle group whose
/// entries were moved to the rewrite queue.
fn seasoned(dir: &Path) -> Store {
    let store = Store::open(options(dir)).unwrap();
    append(&store, IDLE, 1, 0..5);
    vote(&store, IDLE, "idle");
    let mut next = 0;
    let deadline = Instant::now() + Duration::from_secs(30);
    while next < 400 || (!has_rewritten(dir) && Instant::now() < deadline) {
        let term = 1 + next / 100;
        append(&store, G, term, next..next + 20);
        next += 20;
        if next.is_multiple_of(60) {
            wait(|done| store.truncate_from(G, next - 5, done)).unwrap();
            append(&store, G, term, next - 5..next);
        }
        if next > 60 {
            wait(|done| store.purge_to(G, mark(1 + (next - 60) / 100, next - 60), done)).unwrap();
        }
    }
    assert!(has_rewritten(dir));
    append(&store, GroupId(0), 3, 0..30);
    wait(|done| store.purge_to(GroupId(0), mark(3, 9), done)).unwrap();
    // The high-water file says all of it.
    vote(&store, G, "last");
    store
}

fn kind_of(path: &Path, dir: &Path) -> &'static str {
    let relative = path.strip_prefix(dir).unwrap();
    match (relative.extension().and_then(|e| e.to_str()), relative.to_str().unwrap()) {
        (Some("raftlog"), _) => "append",
        (Some("rewrite"), _) => "rewrite",
        (Some("zero" | "unready"), _) => "spare",
        (_, "format") => "format",
        (_, "high-water") => "high-water",
        (_, other) => panic!("a file of no known kind: {other}"),
    }
}

/// The files worth harming, by kind.
fn kinds(dir: &Path) -> BTreeMap<&'static str, Vec<PathBuf>> {
    let mut kinds: BTreeMap<&'static str, Vec<PathBuf>> = BTreeMap::new();
    let files = files_under(dir).into_iter();
    for path in files.filter(|path| !path.ends_with("LOCK") && !path.ends_with("cut")) {
        let relative = path.strip_prefix(dir).unwrap().to_owned();
        kinds.entry(kind_of(&path, dir)).or_default().push(relative);
    }
    kinds
}

/// What recovery keeps must be the beginning of what there was.
fn check_recovery(dir: &Path, expected: &Contents, context: &str) {
    let before: Vec<Vec<u8>> = files_under(dir).iter().map(|p| std::fs::read(p).unwrap()).collect();
    let inspected = Store::recover(dir, RecoverMode::Inspect).unwrap();
    assert!(!inspected.findings.is_empty(), "{context}: refused, and nothing found");
    let after: Vec<Vec<u8>> = files_under(dir).iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert!(before == after, "{context}: looking changed something");
    let report = Store::recover(dir, RecoverMode::AcceptLoss).unwrap();
    assert_eq!(report.groups, inspected.groups, "{context}");
    if let Some(why) = report.hopeless {
        assert!(!report.changed, "{context}: {why}");
        return;
    }
    assert!(report.changed, "{context}");
    let store = Store::open(options(dir)).unwrap();
    let found = everything(&store);
    for (group, (state, entries)) in &found {
        let (full_state, full) = &expected[group];
        let begin = state.purged.map_or(0, |purged| purged.index + 1);
        for (at, entry) in entries.iter().enumerate() {
            let index = begin + at as u64;
            assert_eq!(entry.mark.index, index, "{context}: group {group}");
            // Entries below the old purge mark may come back; they were there once.
            let purged = full_state.purged.is_some_and(|purged| index <= purged.index);
            assert!(purged || full.contains(entry), "{context}: group {group} entry {index}");
        }
        let report = report.groups.iter().find(|report| report.group == *group).unwrap();
        assert_eq!(report.kept, state.last, "{context}: group {group}");
    }
    append(&store, GroupId(77), 1, 0..3);
    drop(store);
    assert_eq!(everything(&Store::open(options(dir)).unwrap()).len(), found.len() + 1, "{context}");
}

/// Harms one file and checks what becomes of it. Says whether it was refused.
fn check(original: &Path, target: &Path, chosen: Harm, expected: &Contents) -> bool {
    let dir = tempfile::tempdir().unwrap();
    copy(original, dir.path());
    harm(&dir.path().join(target), chosen);
    let context = format!("{chosen:?} of {}", target.display());
    let opened = catch_unwind(AssertUnwindSafe(|| Store::open(options(dir.path()))));
    let Ok(opened) = opened else {
        panic!("{context}: opening panicked");
    };
    match opened {
        Ok(store) => {
            let found = everything(&store);
            assert!(found == *expected, "{context}: opened with something else");
            append(&store, GroupId(0), 3, 30..60);
            append(&store, G, 9, found[&G].0.last.unwrap().index + 1..1000);
            let found = everything(&store);
            drop(store);
            let again = everything(&Store::open(options(dir.path())).unwrap());
            assert!(again == found, "{context}: changed later");
            false
        }
        Err(OpenError::Damaged { findings }) => {
            assert!(!findings.is_empty());
            check_recovery(dir.path(), expected, &context);
            true
        }
        Err(other) => panic!("{context}: {other}"),
    }
}

fn run(original: &Path, expected: &Contents, salt: u64) {
    let (count, seed) = trials(24);
    let mut random = Random(seed ^ salt);
    let kinds = kinds(original);
    for wanted in ["append", "rewrite", "format", "high-water", "spare"] {
        let files = kinds.get(wanted).map(Vec::as_slice).unwrap_or_default();
        assert!(!files.is_empty() || wanted == "spare", "no file of kind {wanted}");
        let mut refused = 0;
        for _ in 0..if files.is_empty() { 0 } else { count } {
            let target = &files[random.below(files.len() as u64) as usize];
            if let Some(chosen) = choose_harm(&mut random, &original.join(target)) {
                refused += u64::from(check(original, target, chosen, expected));
            }
        }
        eprintln!("{wanted}: {refused} of {count} refused");
    }
}

#[test]
fn harm_after_a_graceful_stop() {
    let dir = tempfile::tempdir().unwrap();
    let store = seasoned(dir.path());
    store.close().unwrap();
    drop(store);
    let store = Store::open(options(dir.path())).unwrap();
    let expected = everything(&store);
    drop(store);
    run(dir.path(), &expected, 1);
}

#[test]
fn harm_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = seasoned(dir.path());
    let expected = everything(&store);
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    drop(store);
    run(frozen.path(), &expected, 2);
}

/// The only file of the log that is appended to, and how much of it is written.
fn written(dir: &Path) -> (PathBuf, u64) {
    let files = files_under(&dir.join("log"));
    let mut appended =
        files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "raftlog"));
    let path = appended.next().unwrap();
    assert!(appended.next().is_none(), "one file has room for all");
    let end = std::fs::read(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    (path, end as u64 + 1)
}

/// The high-water file lags behind, so what it does not say yet is known by what was written after it.
#[test]
fn harm_above_the_high_water_and_below_the_last_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.high_water_interval = Duration::from_secs(3600);
    let store = Store::open(options).unwrap();
    append(&store, G, 1, 0..5);
    vote(&store, G, "the high-water file says all until here");
    let (_, from) = written(dir.path());
    for next in 5..15 {
        append(&store, G, 1, next..next + 1);
    }
    let (path, to) = written(dir.path());
    append(&store, G, 1, 15..16);
    let expected = everything(&store);
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    let target = path.strip_prefix(dir.path()).unwrap();

    let (count, seed) = trials(24);
    let mut random = Random(seed ^ 3);
    for _ in 0..count {
        // A batch may end with zeros, which are not counted above.
        let at = from + 16 + random.below(to - from - 32);
        let chosen = Harm::FlipBit { bit: at * 8 + random.below(8) };
        assert!(check(frozen.path(), target, chosen, &expected), "{chosen:?} was not seen");
    }
}

#[test]
fn a_lost_log_directory_or_all_of_one_kind_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(seasoned(dir.path()));
    let kinds = kinds(dir.path());
    for wanted in ["append", "rewrite", "format", "high-water"] {
        let harmed = tempfile::tempdir().unwrap();
        copy(dir.path(), harmed.path());
        for path in &kinds[wanted] {
            std::fs::remove_file(harmed.path().join(path)).unwrap();
        }
        let refused = Store::open(options(harmed.path())).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{wanted}: {refused}");
    }
    let harmed = tempfile::tempdir().unwrap();
    copy(dir.path(), harmed.path());
    std::fs::remove_dir_all(harmed.path().join("log")).unwrap();
    let refused = Store::open(options(harmed.path())).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    // Only votes are left, and they are kept.
    let report = Store::recover(harmed.path(), RecoverMode::AcceptLoss).unwrap();
    assert!(report.changed && report.groups.iter().any(|group| group.lost() > 0));
    let store = Store::open(options(harmed.path())).unwrap();
    assert_eq!(store.log_state(G).vote, Some(Bytes::from_static(b"last")));
    assert_eq!(store.log_state(IDLE).vote, Some(Bytes::from_static(b"idle")));
}

#[test]
fn recovery_of_a_sound_directory_changes_nothing_and_one_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 0..10);
    let refused = Store::recover(dir.path(), RecoverMode::Inspect).unwrap_err();
    assert!(matches!(refused, OpenError::Locked(_)));
    drop(store);
    let report = Store::recover(dir.path(), RecoverMode::AcceptLoss).unwrap();
    assert!(report.findings.is_empty() && !report.changed);
    assert_eq!(report.groups[0].kept, Some(mark(1, 9)));
    assert_eq!(report.groups[0].lost(), 0);
    assert_eq!(contents(&open(dir.path()), G).len(), 10);
}

#[test]
fn an_interrupted_recovery_is_refused_until_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    drop(seasoned(dir.path()));
    let logs = &kinds(dir.path())["append"];
    harm(&dir.path().join(logs.last().unwrap()), Harm::FlipBit { bit: 2000 });
    let whole = tempfile::tempdir().unwrap();
    copy(dir.path(), whole.path());
    Store::recover(whole.path(), RecoverMode::AcceptLoss).unwrap();
    let expected = everything(&Store::open(options(whole.path())).unwrap());
    // As if it had stopped after the new log was complete and one part of it was moved.
    let (new, aside) = (dir.path().join("recovered"), dir.path().join("damaged-1"));
    std::fs::create_dir_all(&aside).unwrap();
    copy(whole.path(), &new);
    std::fs::rename(dir.path().join("log"), aside.join("log")).unwrap();
    std::fs::rename(new.join("log"), dir.path().join("log")).unwrap();
    std::fs::write(dir.path().join("recovering"), b"").unwrap();
    assert!(Store::open(options(dir.path())).is_err());
    assert!(!Store::recover(dir.path(), RecoverMode::Inspect).unwrap().changed);
    assert!(Store::recover(dir.path(), RecoverMode::AcceptLoss).unwrap().changed);
    assert!(everything(&Store::open(options(dir.path())).unwrap()) == expected);
}
