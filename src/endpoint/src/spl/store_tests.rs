//! The SPL-2 file under cuts, flipped bits, full disks, failing syncs and power cuts.

use std::path::Path;
use std::sync::Arc;

use ackord_wire::Payload;

use super::file::Store;
use super::{FileStore, StoredEvent, Sync};
use super::{Finding, PersistenceError, ServicePersistence as _, StoreOp, StoreUid, Stored};
use crate::entropy::Entropy;
use crate::event::Event;
use crate::faults::{Memory, Opener};

const PATH: &str = "/store";
const CAPACITY: u64 = 8 * 1024;

fn open(disk: &Memory) -> (Store<Opener>, Stored) {
    let mut store = Store::new(disk.opener(), Path::new(PATH), CAPACITY);
    let stored = store.load().unwrap();
    (store, stored)
}

fn put(ticket: u64, seq: Option<u64>) -> StoreOp {
    let data = format!("event number {ticket} {}", "x".repeat(ticket as usize % 50));
    let payload = Payload { content_type: "text/plain".to_owned(), data: data.into() };
    let event = Arc::new(Event::queueing("reading", payload));
    StoreOp::Put(StoredEvent { ticket, seq, event })
}

/// Batches as the machine writes them: raised, numbered, decided.
fn batches(count: u64) -> Vec<(Vec<StoreOp>, Sync)> {
    let uid = StoreUid([7; 16]);
    let mut batches = vec![(vec![StoreOp::Begin { uid }, put(1, Some(1))], Sync::Now)];
    for ticket in 2..=count {
        let earlier = ticket - 1;
        batches.push(match ticket % 3 {
            0 => (vec![put(ticket, Some(ticket))], Sync::Now),
            1 => (vec![put(ticket, None), StoreOp::Number { ticket, seq: ticket }], Sync::Now),
            _ => (vec![StoreOp::Remove { ticket: earlier }, put(ticket, Some(ticket))], Sync::Now),
        });
        if ticket % 5 == 0 {
            batches.push((vec![StoreOp::Remove { ticket }], Sync::Later));
        }
    }
    batches
}

/// What a store holds after each of its batches; the first is before any.
fn states(batches: &[(Vec<StoreOp>, Sync)]) -> Vec<Stored> {
    let disk = Memory::default();
    let mut states = vec![open(&disk).1];
    for (ops, sync) in batches {
        let (mut store, _) = open(&disk);
        store.apply(ops, *sync).unwrap();
        drop(store);
        states.push(open(&disk).1);
    }
    states
}

fn without_findings(stored: &Stored) -> Stored {
    Stored { findings: Vec::new(), ..stored.clone() }
}

fn written(batches: &[(Vec<StoreOp>, Sync)]) -> (Memory, Vec<u8>) {
    let disk = Memory::default();
    let (mut store, _) = open(&disk);
    batches.iter().for_each(|(ops, sync)| store.apply(ops, *sync).unwrap());
    drop(store);
    let bytes = disk.content(Path::new(PATH));
    (disk, bytes)
}

#[test]
fn every_cut_leaves_a_whole_number_of_batches_and_is_reported() {
    let batches = batches(12);
    let states = states(&batches);
    let (_, bytes) = written(&batches);
    let mut reported = 0;
    for length in 0..=bytes.len() {
        let disk = Memory::default();
        disk.put(Path::new(PATH), bytes[..length].to_vec());
        let (mut store, stored) = open(&disk);
        assert!(states.contains(&without_findings(&stored)), "cut at {length}");
        let whole = disk.content(Path::new(PATH)).len();
        let expected = match length {
            // A creation that a crash interrupted has nothing to lose.
            0..8 => vec![],
            _ if whole < length => vec![Finding::Cut { bytes: (length - whole) as u64 }],
            _ => vec![],
        };
        assert_eq!(stored.findings, expected, "cut at {length}");
        reported += expected.len();
        // It goes on from there.
        store.apply(&[put(99, Some(99))], Sync::Now).unwrap();
        drop(store);
        assert_eq!(open(&disk).1.last_number, 99);
    }
    assert!(reported > bytes.len() / 2);
}

#[test]
fn a_flipped_bit_costs_one_batch_at_most_and_is_reported() {
    let batches = batches(12);
    let without_one: Vec<Stored> = (0..batches.len())
        .map(|missing| {
            let mut fewer = batches.clone();
            fewer.remove(missing);
            states(&fewer).pop().unwrap()
        })
        .collect();
    let (_, bytes) = written(&batches);
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (position % 8);
        let disk = Memory::default();
        disk.put(Path::new(PATH), damaged.clone());
        let mut store = Store::new(disk.opener(), Path::new(PATH), CAPACITY);
        let stored = match store.load() {
            // Another version or kind, as far as one can see.
            Err(PersistenceError::Misplaced(_)) if position < 8 => continue,
            stored => stored.unwrap(),
        };
        assert!(!stored.findings.is_empty(), "bit flipped in byte {position}: silence");
        let aside = match &stored.findings[0] {
            Finding::Unreadable { .. } => "/store.unreadable",
            Finding::Damaged { .. } => {
                let found = without_findings(&stored);
                assert!(without_one.contains(&found), "bit flipped in byte {position}: {found:?}");
                "/store.damaged"
            }
            Finding::Cut { .. } => {
                assert_eq!(Some(&without_findings(&stored)), without_one.last());
                continue;
            }
        };
        assert_eq!(disk.content(Path::new(aside)), damaged);
        // It goes on from there, and the damage is not reported again.
        store.apply(&[put(99, Some(99))], Sync::Now).unwrap();
        drop(store);
        let (_, again) = open(&disk);
        assert_eq!((again.last_number, again.findings), (99, vec![]));
    }
}

#[test]
fn a_full_disk_and_a_failing_sync_lose_nothing_that_was_confirmed() {
    let batches = batches(30);
    let states = states(&batches);
    let (_, bytes) = written(&batches);
    let check = |arm: &dyn Fn(&Memory), at: usize, kept: usize| {
        let disk = Memory::default();
        let (mut store, _) = open(&disk);
        let mut confirmed = 0;
        for (index, (ops, sync)) in batches.iter().enumerate() {
            if index == at {
                arm(&disk);
            }
            match store.apply(ops, *sync) {
                Ok(()) if *sync == Sync::Now => confirmed = index + 1,
                Ok(()) => {}
                Err(error) => {
                    assert!(error.retryable(), "{error}");
                    break;
                }
            }
        }
        drop(store);
        disk.power_cut(kept);
        let (_, stored) = open(&disk);
        let found = states.iter().rposition(|state| *state == without_findings(&stored));
        assert!(found.is_some_and(|found| found >= confirmed), "{at} {kept}: {found:?}");
    };
    for room in (0..bytes.len()).step_by(7) {
        check(&|disk| disk.room(Some(room)), 0, usize::MAX);
    }
    for at in 0..batches.len() {
        check(&Memory::sync_fails, at, 11);
    }
}

#[test]
fn a_power_cut_keeps_what_was_synced() {
    let batches = batches(30);
    let states = states(&batches);
    let mut dice = Entropy::from_number(3);
    for cut in 1..batches.len() {
        let disk = Memory::default();
        let (mut store, _) = open(&disk);
        batches[..cut].iter().for_each(|(ops, sync)| store.apply(ops, *sync).unwrap());
        disk.power_cut((dice.next_u64() % 40) as usize);
        drop(store);
        let certain = batches[..cut].iter().rposition(|(_, sync)| *sync == Sync::Now).unwrap() + 1;
        let (_, stored) = open(&disk);
        let found = states.iter().rposition(|state| *state == without_findings(&stored));
        assert!(found.is_some_and(|found| found >= certain), "after {cut}: {found:?}");
    }
}

#[test]
fn the_file_stays_within_its_bound_and_keeps_uid_and_number() {
    let disk = Memory::default();
    let (mut store, _) = open(&disk);
    let uid = StoreUid([9; 16]);
    store.apply(&[StoreOp::Begin { uid }], Sync::Now).unwrap();
    let mut longest = 0;
    for ticket in 1..=5000 {
        store.apply(&[put(ticket, Some(ticket))], Sync::Now).unwrap();
        if ticket > 20 {
            store.apply(&[StoreOp::Remove { ticket: ticket - 20 }], Sync::Later).unwrap();
        }
        longest = longest.max(store.length());
    }
    assert!(longest <= 2 * CAPACITY, "{longest} bytes");
    let left: Vec<StoreOp> = (4981..=5000).map(|ticket| StoreOp::Remove { ticket }).collect();
    store.apply(&left, Sync::Now).unwrap();
    drop(store);
    let (_, stored) = open(&disk);
    let expected = Stored { uid: Some(uid), last_number: 5000, ..Stored::default() };
    assert_eq!(stored, expected);
}

#[test]
fn one_batch_costs_one_sync() {
    let disk = Memory::default();
    let (mut store, _) = open(&disk);
    let before = disk.syncs();
    let many: Vec<StoreOp> = (1..=50).map(|ticket| put(ticket, Some(ticket))).collect();
    store.apply(&many, Sync::Now).unwrap();
    assert_eq!(disk.syncs() - before, 1);
    store.apply(&[StoreOp::Remove { ticket: 1 }], Sync::Later).unwrap();
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn a_file_that_is_certainly_not_ours_is_refused_and_left_as_it_is() {
    let check = |content: &[u8]| {
        let disk = Memory::default();
        disk.put(Path::new(PATH), content.to_vec());
        let refused = Store::new(disk.opener(), Path::new(PATH), CAPACITY).load();
        assert!(matches!(refused, Err(PersistenceError::Misplaced(_))), "{refused:?}");
        assert_eq!(disk.content(Path::new(PATH)), content);
    };
    check(b"my holiday photographs");
    check(b"{\"json\": \"of somebody\"}\n");
    check(b"ackcpl\x01\n and so on");
    check(b"ackspl\x02\n and so on");
}

#[test]
fn what_cannot_be_read_is_set_aside_and_nothing_set_aside_is_overwritten() {
    let disk = Memory::default();
    for (content, aside) in
        [("\0\0\0 first", "/store.unreadable"), ("\0\0 second", "/store.unreadable-2")]
    {
        disk.put(Path::new(PATH), content.as_bytes().to_vec());
        let (_, stored) = open(&disk);
        assert!(matches!(stored.findings[..], [Finding::Unreadable { .. }]));
        assert_eq!(disk.content(Path::new(aside)), content.as_bytes());
    }
    assert_eq!(disk.content(Path::new("/store.unreadable")), b"\0\0\0 first");
}

#[test]
fn the_real_disk_does_what_the_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let batches = batches(30);
    let mut store = FileStore::new(&path, CAPACITY);
    assert_eq!(store.load().unwrap(), Stored::default());
    batches.iter().for_each(|(ops, sync)| store.apply(ops, *sync).unwrap());
    let second = FileStore::new(&path, CAPACITY).load();
    assert!(matches!(second, Err(PersistenceError::Locked(_))), "{second:?}");
    drop(store);
    let mut again = FileStore::new(&path, CAPACITY);
    assert_eq!(Some(&again.load().unwrap()), states(&batches).last());
    // Enough for several rewrites.
    for ticket in 1000..2000 {
        again.apply(&[put(ticket, Some(ticket))], Sync::Later).unwrap();
        again.apply(&[StoreOp::Remove { ticket }], Sync::Later).unwrap();
    }
    drop(again);
    assert!(std::fs::metadata(&path).unwrap().len() <= 2 * CAPACITY);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let stored = FileStore::new(&path, CAPACITY).load().unwrap();
    assert!(matches!(stored.findings[..], [Finding::Cut { .. }]));
}

#[test]
fn a_path_that_cannot_hold_a_store_is_the_applications_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("events");
    let error = FileStore::new(path, CAPACITY).load().unwrap_err();
    assert!(matches!(error, PersistenceError::Misplaced(_)), "{error}");
}

#[test]
fn a_pipe_or_a_device_is_no_place_for_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = FileStore::new(&path, CAPACITY).load().unwrap_err();
    assert!(matches!(error, PersistenceError::Misplaced(_)), "{error}");
    assert!(!folder.path().join("socket.lock").exists());
}
