//! The CPL-2 file under cuts, flipped bits, full disks and power cuts.

use std::path::Path;

use ackord_wire::frame::Position;

use super::file::{LENGTH_BYTES_MIN, Store};
use super::{ClientPersistence as _, FileStore, PositionChange, Positions};
use crate::faults::{Memory, Opener};
use crate::spl::{Finding, PersistenceError};

const PATH: &str = "/positions";

fn open(disk: &Memory) -> (Store<Opener>, Positions) {
    let mut store = Store::new(disk.opener(), Path::new(PATH));
    let positions = store.load().unwrap();
    (store, positions)
}

fn handled(event: &str, instance_id: u64) -> PositionChange {
    let position = Position { incarnation: 5, generation: 1, instance_id };
    PositionChange::Handled { event: event.to_owned(), position }
}

fn saves() -> Vec<Vec<PositionChange>> {
    let mut saves: Vec<Vec<PositionChange>> =
        (1..20).map(|id| vec![handled("a", 2 * id), handled("b", 2 * id + 1)]).collect();
    saves.push(vec![PositionChange::Forget { event: "b".to_owned() }]);
    saves.push(vec![handled("c", 99)]);
    saves
}

/// What is stored after each save; the first is before any.
fn states(saves: &[Vec<PositionChange>]) -> Vec<Positions> {
    let disk = Memory::default();
    let mut states = vec![open(&disk).1];
    for changes in saves {
        open(&disk).0.save(changes).unwrap();
        states.push(open(&disk).1);
    }
    states
}

fn written(saves: &[Vec<PositionChange>]) -> Vec<u8> {
    let disk = Memory::default();
    let (mut store, _) = open(&disk);
    saves.iter().for_each(|changes| store.save(changes).unwrap());
    disk.content(Path::new(PATH))
}

fn found(states: &[Positions], positions: &Positions) -> Option<usize> {
    states.iter().rposition(|state| state.positions == positions.positions)
}

#[test]
fn every_cut_leaves_whole_saves_and_every_flipped_bit_is_reported() {
    let saves = saves();
    let without_one: Vec<Positions> = (0..saves.len())
        .filter_map(|missing| {
            let mut fewer = saves.clone();
            fewer.remove(missing);
            states(&fewer).pop()
        })
        .collect();
    let (states, bytes) = (states(&saves), written(&saves));
    for position in 0..bytes.len() {
        let disk = Memory::default();
        disk.put(Path::new(PATH), bytes[..position].to_vec());
        assert!(found(&states, &open(&disk).1).is_some(), "cut at {position}");
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (position % 8);
        let disk = Memory::default();
        disk.put(Path::new(PATH), damaged);
        let mut store = Store::new(disk.opener(), Path::new(PATH));
        let positions = match store.load() {
            // Another version or kind, as far as one can see.
            Err(PersistenceError::Misplaced(_)) if position < 8 => continue,
            positions => positions.unwrap(),
        };
        assert!(!positions.findings.is_empty(), "bit flipped in byte {position}: silence");
        let is_known = found(&states, &positions).is_some()
            || without_one.iter().any(|known| known.positions == positions.positions);
        assert!(is_known, "bit flipped in byte {position}: {positions:?}");
        // It stays at CPL-2.
        store.save(&[handled("d", 1)]).unwrap();
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_confirmed() {
    let saves = saves();
    let (states, bytes) = (states(&saves), written(&saves));
    for room in 0..bytes.len() {
        let disk = Memory::default();
        let (mut store, _) = open(&disk);
        disk.room(Some(room));
        let confirmed = saves.iter().take_while(|changes| store.save(changes).is_ok()).count();
        drop(store);
        disk.power_cut(room % 9);
        let positions = open(&disk).1;
        assert!(found(&states, &positions).is_some_and(|found| found >= confirmed), "{room}");
    }
}

#[test]
fn every_save_is_synced_before_it_returns() {
    let disk = Memory::default();
    let (mut store, _) = open(&disk);
    for (count, changes) in saves().iter().enumerate() {
        let before = disk.syncs();
        store.save(changes).unwrap();
        assert_eq!(disk.syncs(), before + 1, "save {count}");
    }
    disk.power_cut(0);
    drop(store);
    assert_eq!(open(&disk).1.positions.len(), 2);
}

#[test]
fn the_file_stays_small() {
    let disk = Memory::default();
    let (mut store, _) = open(&disk);
    let mut longest = 0;
    for id in 1..10_000 {
        store.save(&[handled("a", id)]).unwrap();
        longest = longest.max(store.length());
    }
    assert!(longest <= LENGTH_BYTES_MIN + 1024, "{longest} bytes");
    drop(store);
    let position = Position { incarnation: 5, generation: 1, instance_id: 9_999 };
    assert_eq!(open(&disk).1.positions, [("a".to_owned(), position)]);
}

#[test]
fn unreadable_data_is_set_aside_and_the_store_is_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("positions");
    std::fs::write(&path, b"\0\x01garbage from somewhere").unwrap();
    let mut store = FileStore::new(&path);
    let positions = store.load().unwrap();
    assert!(matches!(positions.findings[..], [Finding::Unreadable { .. }]));
    assert_eq!(positions.positions, []);
    let second = FileStore::new(&path).load();
    assert!(matches!(second, Err(PersistenceError::Locked(_))), "{second:?}");
    store.save(&[handled("a", 1)]).unwrap();
    drop(store);
    assert_eq!(FileStore::new(&path).load().unwrap().positions.len(), 1);
}
