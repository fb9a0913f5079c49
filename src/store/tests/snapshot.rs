//! Snapshots: whole and verified, or not there.
#![allow(clippy::unwrap_used, reason = "a failing test is the answer")]

mod support;

use ackord_store::{GroupId, SnapshotInfo, Snapshots, StoreError};
use bytes::Bytes;
use support::*;

fn records(seed: u64, count: u64) -> Vec<Bytes> {
    let mut random = Random(seed);
    let record = |_| {
        let len = match random.below(50) {
            0 => 300_000,
            _ => random.below(300),
        };
        Bytes::from(vec![random.next() as u8; len as usize])
    };
    (0..count).map(record).collect()
}

fn create(snapshots: &Snapshots, id: &str, records: &[Bytes]) -> SnapshotInfo {
    let mut writer = snapshots.create(id).unwrap();
    for record in records {
        writer.put(record).unwrap();
    }
    writer.finish(id.as_bytes()).unwrap()
}

fn read(snapshots: &Snapshots, id: &str) -> Vec<Bytes> {
    let mut reader = snapshots.open(id).unwrap().unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        records.push(record);
    }
    records
}

fn ids(snapshots: &Snapshots) -> Vec<String> {
    snapshots.list().unwrap().into_iter().map(|info| info.id).collect()
}

#[test]
fn the_newest_two_are_kept_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let snapshots = store.snapshots(G);
    assert!(ids(&snapshots).is_empty());
    for number in 0..4u64 {
        let content = records(number, number * 100);
        let info = create(&snapshots, &format!("s{number}"), &content);
        assert_eq!((info.records, info.meta.len()), (number * 100, 2));
        assert_eq!(read(&snapshots, &info.id), content);
    }
    assert_eq!(ids(&snapshots), ["s3", "s2"]);
    let abandoned = {
        let mut writer = snapshots.create("abandoned").unwrap();
        writer.put(b"half").unwrap();
        writer
    };
    drop(abandoned);
    drop((snapshots, store));
    let store = open(dir.path());
    assert_eq!(ids(&store.snapshots(G)), ["s3", "s2"]);
    assert_eq!(read(&store.snapshots(G), "s3"), records(3, 300));
    assert!(store.snapshots(GroupId(2)).list().unwrap().is_empty());
    create(&store.snapshots(G), "s3", &records(9, 9));
    assert_eq!(ids(&store.snapshots(G)), ["s3", "s2"], "the same name again replaces it");
    assert_eq!(read(&store.snapshots(G), "s3"), records(9, 9));
    assert_eq!(files_under(&dir.path().join("snapshots")).len(), 2);
}

#[test]
fn a_snapshot_travels_in_pieces_and_resumes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = open(from.path());
    let content = records(5, 500);
    let info = create(&sender.snapshots(G), "moving", &content);
    let reader = sender.snapshots(G).open("moving").unwrap().unwrap();
    let mut receiving = open(to.path());
    loop {
        let mut receiver = receiving.snapshots(G).receive("moving").unwrap();
        let at = receiver.received();
        let piece = reader.read_raw(at, info.bytes / 5).unwrap();
        if piece.is_empty() {
            assert_eq!(at, info.bytes);
            assert_eq!(receiver.finish().unwrap(), info);
            break;
        }
        receiver.write(at, &piece).unwrap();
        let refused = receiver.write(at + 1_000_000_000, &piece);
        assert!(matches!(refused, Err(StoreError::Invalid(_))));
        drop(receiver);
        drop(receiving);
        receiving = open(to.path());
    }
    assert_eq!(read(&receiving.snapshots(G), "moving"), content);
}

#[test]
fn what_arrived_of_another_snapshot_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for id in ["first", "second", "third"] {
        let mut receiver = store.snapshots(G).receive(id).unwrap();
        assert_eq!(receiver.received(), 0);
        receiver.write(0, b"the beginning").unwrap();
    }
    assert_eq!(files_under(&dir.path().join("snapshots")).len(), 1);
    assert_eq!(store.snapshots(G).receive("third").unwrap().received(), 13);
}

#[test]
fn what_arrives_damaged_or_short_is_not_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let info = create(&store.snapshots(G), "good", &records(1, 100));
    let reader = store.snapshots(G).open("good").unwrap().unwrap();
    let whole = reader.read_raw(0, info.bytes).unwrap();
    let mut flipped = whole.to_vec();
    flipped[1000] ^= 1;
    let short = whole.slice(..whole.len() - 1);
    let mut long = whole.to_vec();
    long.push(0);
    for bad in [Bytes::from(flipped), short, Bytes::from(long)] {
        let mut receiver = store.snapshots(G).receive("good").unwrap();
        receiver.write(0, &bad).unwrap();
        assert!(matches!(receiver.finish(), Err(StoreError::Damaged(_))));
        let again = store.snapshots(G).receive("good").unwrap();
        assert_eq!(again.received(), 0, "it begins anew");
    }
    let mut other = store.snapshots(G).receive("another").unwrap();
    other.write(0, &whole).unwrap();
    assert!(matches!(other.finish(), Err(StoreError::Damaged(_))), "another id");
    let mut other = store.snapshots(GroupId(2)).receive("good").unwrap();
    other.write(0, &whole).unwrap();
    assert!(matches!(other.finish(), Err(StoreError::Damaged(_))), "another group");
    assert_eq!(ids(&store.snapshots(G)), ["good"]);
}

#[test]
fn a_damaged_snapshot_is_not_listed_and_the_older_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    create(&store.snapshots(G), "older", &records(1, 200));
    create(&store.snapshots(G), "newer", &records(2, 200));
    drop(store);
    let (count, seed) = trials(40);
    let mut random = Random(seed);
    for _ in 0..count {
        let damaged = tempfile::tempdir().unwrap();
        copy(dir.path(), damaged.path());
        let newest = files_under(&damaged.path().join("snapshots")).pop().unwrap();
        let chosen = choose_harm(&mut random, &newest).unwrap();
        let before = std::fs::read(&newest).unwrap();
        harm(&newest, chosen);
        let unchanged = std::fs::read(&newest).is_ok_and(|after| after == before);
        let store = open(damaged.path());
        let snapshots = store.snapshots(G);
        let expected: &[&str] = if unchanged { &["newer", "older"] } else { &["older"] };
        assert_eq!(ids(&snapshots), expected, "{chosen:?}");
        assert_eq!(read(&snapshots, "older"), records(1, 200));
        create(&snapshots, "again", &records(3, 10));
        assert_eq!(ids(&snapshots)[0], "again");
    }
}
