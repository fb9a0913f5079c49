//! The shared log: what was answered is there after every kind of restart.
#![allow(clippy::unwrap_used, reason = "a failing test is the answer")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackord_store::{GroupId, Identity, OpenError, Store, StoreError, StoreOptions};
use bytes::Bytes;
use support::*;

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let identity = store.identity();
    for group in [G, GroupId(0), GroupId(7)] {
        append(&store, group, 1, 0..50);
        append(&store, group, 2, 50..300);
    }
    vote(&store, G, "three");
    wait(|done| store.save_extra(G, Bytes::from_static(b"extra"), done)).unwrap();
    store.save_committed(G, Some(mark(2, 200)));
    let before = (store.log_state(G), contents(&store, G));
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.identity(), identity);
    assert_eq!(store.groups(), [GroupId(0), G, GroupId(7)]);
    assert_eq!((store.log_state(G), contents(&store, G)), before);
    assert_eq!(before.0.vote, Some(Bytes::from_static(b"three")));
    assert_eq!(before.0.committed, Some(mark(2, 200)));
    assert_eq!(contents(&store, GroupId(7)).len(), 300);
    append(&store, G, 2, 300..310);
    assert_eq!(store.log_state(G).last, Some(mark(2, 310 - 1)));
}

#[test]
fn entries_are_readable_before_they_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (done, answer) = answer();
    store.append(G, entries(G, 1, 0..100), done);
    assert_eq!(contents(&store, G), entries(G, 1, 0..100));
    answer.recv().unwrap().unwrap();
}

#[test]
fn reads_tell_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 0..10);
    wait(|done| store.purge_to(G, mark(1, 4), done)).unwrap();
    let refused = store.read(G, 4..6, 1000).unwrap_err();
    assert!(matches!(refused, StoreError::Purged { purged, .. } if purged == mark(1, 4)));
    let refused = store.read(G, 5..11, 1000).unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchEntry { index: 10, .. }));
    assert!(store.read(GroupId(9), 0..1, 10).is_err());
    assert_eq!(store.read(G, 5..10, 1).unwrap().len(), 1, "at least one");
    assert_eq!(store.read(G, 5..5, 1).unwrap().len(), 0);
    append(&store, GroupId(2), 1, 5..10);
    let late = store.read(GroupId(2), 0..10, u64::MAX).unwrap();
    assert_eq!(late, entries(GroupId(2), 1, 5..10), "it begins where the log does");
}

#[test]
fn an_append_that_does_not_follow_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 0..10);
    let refused = wait(|done| store.append(G, entries(G, 1, 12..13), done)).unwrap_err();
    assert!(matches!(refused, StoreError::Invalid(_)) && !refused.retryable());
    append(&store, G, 1, 10..12);
    assert_eq!(contents(&store, G), entries(G, 1, 0..12));
}

#[test]
fn a_truncated_and_overwritten_suffix_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&store, G, 1, 0..200);
    for round in 2..6 {
        wait(|done| store.truncate_from(G, 100 + round, done)).unwrap();
        assert_eq!(store.log_state(G).last.unwrap().index, 99 + round);
        // Without an append behind it, the truncation alone must survive.
        drop(store);
        store = open(dir.path());
        assert_eq!(store.log_state(G).last.unwrap().index, 99 + round);
        append(&store, G, round, 100 + round..150);
        drop(store);
        store = open(dir.path());
        assert_eq!(store.log_state(G).last, Some(mark(round, 149)));
    }
    let found = contents(&store, G);
    assert_eq!(found[101..=102], [entry(G, 1, 101), entry(G, 2, 102)]);
    assert_eq!(found[103..=105], [entry(G, 3, 103), entry(G, 4, 104), entry(G, 5, 105)]);
    assert_eq!(found.len(), 150);
}

#[test]
fn an_append_that_overlaps_truncates_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 0..20);
    append(&store, G, 2, 5..8);
    wait(|done| store.truncate_from(G, 0, done)).unwrap();
    assert_eq!(store.log_state(G).last, None);
    append(&store, G, 3, 0..4);
    drop(store);
    let store = open(dir.path());
    assert_eq!(contents(&store, G), entries(G, 3, 0..4));
}

#[test]
fn many_requests_in_one_batch_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut answers = Vec::new();
    for round in 0..40u64 {
        let (done, pending) = answer();
        store.append(G, entries(G, round + 1, round * 5..round * 5 + 20), done);
        answers.push(pending);
        let (done, pending) = answer();
        store.truncate_from(G, round * 5 + 5, done);
        answers.push(pending);
    }
    for pending in answers {
        pending.recv().unwrap().unwrap();
    }
    let before = contents(&store, G);
    drop(store);
    let store = open(dir.path());
    assert_eq!(contents(&store, G), before);
    assert_eq!(store.log_state(G).last, Some(mark(40, 199)));
}

#[test]
fn purged_entries_are_gone_and_their_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    vote(&store, GroupId(5), "idle");
    append(&store, GroupId(5), 1, 0..3);
    let mut next = 0;
    // More than the log may hold: old files must go, the idle group's entries must stay.
    while store.counters().bytes < 3 * 1024 * 1024 {
        append(&store, G, 1, next..next + 100);
        next += 100;
        wait(|done| store.purge_to(G, mark(1, next - 50), done)).unwrap();
    }
    let oldest = dir.path().join("log/0000000000000001.raftlog");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while oldest.exists() && std::time::Instant::now() < deadline {
        append(&store, G, 1, next..next + 1);
        next += 1;
    }
    assert!(!oldest.exists());
    let before = (store.log_state(G), contents(&store, G));
    drop(store);
    let store = open(dir.path());
    assert_eq!((store.log_state(G), contents(&store, G)), before);
    assert_eq!(contents(&store, GroupId(5)), entries(GroupId(5), 1, 0..3));
    assert_eq!(store.log_state(GroupId(5)).vote, Some(Bytes::from_static(b"idle")));
    append(&store, GroupId(5), 1, 3..5);
}

#[test]
fn a_snapshot_ahead_of_the_log_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&store, G, 1, 0..10);
    wait(|done| store.purge_to(G, mark(3, 100), done)).unwrap();
    assert_eq!(store.log_state(G).last, Some(mark(3, 100)));
    for _ in 0..2 {
        drop(store);
        store = open(dir.path());
        assert_eq!(store.log_state(G).last, Some(mark(3, 100)));
        assert_eq!(store.log_state(G).purged, Some(mark(3, 100)));
    }
    append(&store, G, 3, 101..110);
    // Another entry at the mark: the rest of the log does not belong to it either.
    wait(|done| store.purge_to(G, mark(4, 105), done)).unwrap();
    assert_eq!(store.log_state(G).last, Some(mark(4, 105)));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.log_state(G).last, Some(mark(4, 105)));
    append(&store, G, 4, 106..108);
    drop(store);
    let store = open(dir.path());
    assert_eq!(contents(&store, G), entries(G, 4, 106..108));
}

#[test]
fn a_removed_group_leaves_nothing_and_may_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 0..10);
    append(&store, GroupId(2), 1, 0..10);
    vote(&store, G, "gone");
    wait(|done| store.remove_group(G, done)).unwrap();
    assert_eq!(store.log_state(G), Default::default());
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.groups(), [GroupId(2)]);
    append(&store, G, 9, 0..3);
    drop(store);
    assert_eq!(contents(&open(dir.path()), G), entries(G, 9, 0..3));
}

#[test]
fn appends_of_many_threads_share_syncs_and_are_answered_after_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    const THREADS: u32 = 8;
    const EACH: u64 = 200;
    let before = store.counters();
    let early = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, early) = (store.clone(), early.clone());
            scope.spawn(move || {
                let group = GroupId(thread);
                let mut answers = Vec::new();
                for index in 0..EACH {
                    let (sender, pending) = std::sync::mpsc::sync_channel(1);
                    let (view, early) = (store.clone(), early.clone());
                    let syncs = store.counters().syncs;
                    store.append(
                        group,
                        entries(group, 1, index..index + 1),
                        Box::new(move |result| {
                            if view.counters().syncs == syncs {
                                early.fetch_add(1, Ordering::Relaxed);
                            }
                            sender.send(result).unwrap();
                        }),
                    );
                    answers.push(pending);
                }
                for pending in answers {
                    pending.recv().unwrap().unwrap();
                }
            });
        }
    });
    let after = store.counters();
    assert_eq!(early.load(Ordering::Relaxed), 0, "answers before a sync");
    assert_eq!(after.entries - before.entries, u64::from(THREADS) * EACH);
    assert!(after.syncs - before.syncs < u64::from(THREADS) * EACH / 2);
    for thread in 0..THREADS {
        assert_eq!(contents(&store, GroupId(thread)).len() as u64, EACH);
    }
}

#[test]
fn a_full_queue_makes_appends_wait_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::small(dir.path());
    options.queue_count_max = 2;
    options.queue_bytes_max = 4096;
    let store = Store::open(options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for index in 0..50 {
                    let group = GroupId(thread);
                    store.append(group, entries(group, 1, index..index + 1), Box::new(|_| ()));
                }
            });
        }
    });
    store.close().unwrap();
    let store = open(dir.path());
    for thread in 0..4 {
        assert_eq!(contents(&store, GroupId(thread)).len(), 50);
    }
}

#[test]
fn a_second_process_is_refused_and_a_foreign_directory_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = Store::open(StoreOptions::small(dir.path())).unwrap_err();
    assert!(matches!(&refused, OpenError::Locked(path) if path == dir.path()));
    assert!(refused.retryable());
    let found = store.identity();
    drop(store);
    let mut options = StoreOptions::small(dir.path());
    options.identity = Some(Identity { node: 99, ..found });
    let refused = Store::open(options).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { found: f, .. } if f == found));
    open(dir.path());
}

#[test]
fn a_closed_store_refuses_and_a_failed_one_answers_nothing_well() {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let mut options = StoreOptions::small(dir.path());
    let counter = told.clone();
    options.on_fatal = Some(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let store = Store::open(options).unwrap();
    append(&store, G, 1, 0..10);
    store.inject_sync_failure();
    let failed = wait(|done| store.append(G, entries(G, 1, 10..11), done)).unwrap_err();
    assert!(matches!(failed, StoreError::Fatal(_)));
    let failed = wait(|done| store.save_vote(G, Bytes::from_static(b"v"), done)).unwrap_err();
    assert!(matches!(failed, StoreError::Fatal(_)));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(store.fatal().is_some());
    assert!(store.close().is_err());
    drop(store);

    let store = open(dir.path());
    assert_eq!(contents(&store, G)[..10], entries(G, 1, 0..10)[..]);
    store.close().unwrap();
    let refused = wait(|done| store.append(G, entries(G, 1, 11..12), done)).unwrap_err();
    assert!(matches!(refused, StoreError::Closed));
}

#[test]
fn the_last_handle_may_be_dropped_by_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (sender, answered) = std::sync::mpsc::sync_channel(1);
    let (dropping, dropped) = std::sync::mpsc::sync_channel(1);
    let view = store.clone();
    store.append(
        G,
        entries(G, 1, 0..10),
        Box::new(move |result| {
            sender.send(result).unwrap();
            // Until the other handle is gone.
            dropped.recv().unwrap();
            drop(view);
        }),
    );
    answered.recv().unwrap().unwrap();
    drop(store);
    dropping.send(()).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let store = loop {
        match Store::open(StoreOptions::small(dir.path())) {
            Ok(store) => break store,
            Err(OpenError::Locked(_)) if std::time::Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(contents(&store, G).len(), 10);
}

#[test]
fn a_log_that_begins_late_may_be_purged_before_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, G, 1, 3..10);
    wait(|done| store.purge_to(G, mark(1, 2), done)).unwrap();
    assert_eq!(store.log_state(G).purged, Some(mark(1, 2)));
    drop(store);
    assert_eq!(contents(&open(dir.path()), G), entries(G, 1, 3..10));
}

#[test]
fn a_default_directory_is_created_fast_and_small() {
    let dir = tempfile::tempdir().unwrap();
    let started = std::time::Instant::now();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let took = started.elapsed();
    append(&store, G, 1, 0..1);
    assert!(took < Duration::from_secs(5), "took {took:?}");
    store.close().unwrap();
    let sizes = files_under(dir.path()).iter().map(|p| p.metadata().unwrap().len()).sum::<u64>();
    assert!(sizes < 80 * 1024 * 1024, "{sizes} bytes");
    eprintln!("created in {took:?}");
}
