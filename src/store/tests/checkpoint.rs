//! Checkpoints: what was written is there whole, or is refused and can be rebuilt.
#![allow(clippy::unwrap_used, reason = "a failing test is the answer")]

mod support;

use std::collections::BTreeMap;

use ackord_store::{CHECKPOINT_BATCH_BYTES_MAX, Checkpoint, GroupId, StoreError};
use bytes::Bytes;
use support::*;

type Rows = BTreeMap<Bytes, Bytes>;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number}"))
}

/// Now and then larger than a piece of 4 KiB.
fn value(random: &mut Random) -> Bytes {
    let len = match random.below(10) {
        0 => random.below(20_000),
        _ => random.below(200),
    };
    Bytes::from((0..len).map(|_| random.next() as u8).collect::<Vec<u8>>())
}

fn loaded(checkpoint: &Checkpoint) -> Option<(Bytes, Rows)> {
    let loaded = checkpoint.load().unwrap()?;
    Some((loaded.meta, loaded.rows.into_iter().collect()))
}

/// Random changes of two groups; the model of each beside.
fn exercise(
    random: &mut Random,
    checkpoints: &[Checkpoint],
    models: &mut [(Bytes, Rows)],
    rounds: u64,
) {
    for round in 0..rounds {
        let which = random.below(checkpoints.len() as u64) as usize;
        let (meta, rows) = &mut models[which];
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        for _ in 0..random.below(20) {
            let key = key(random.below(60));
            if random.below(4) == 0 {
                rows.remove(&key);
                puts.retain(|(other, _)| *other != key);
                deletes.push(key);
            } else if !deletes.contains(&key) {
                let value = value(random);
                rows.insert(key.clone(), value.clone());
                puts.push((key, value));
            }
        }
        *meta = Bytes::from(format!("applied {round}"));
        checkpoints[which].write(meta.clone(), puts, deletes).unwrap();
    }
}

#[test]
fn rows_and_metadata_follow_every_write_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    let mut models = vec![(Bytes::new(), Rows::new()), (Bytes::new(), Rows::new())];
    for _ in 0..3 {
        let store = open(dir.path());
        let checkpoints = [store.checkpoint(G), store.checkpoint(GroupId(2))];
        exercise(&mut random, &checkpoints, &mut models, 40);
        for (checkpoint, model) in checkpoints.iter().zip(&models) {
            assert!(loaded(checkpoint).as_ref() == Some(model));
        }
        drop(store);
        let store = open(dir.path());
        assert!(loaded(&store.checkpoint(G)).as_ref() == Some(&models[0]));
        assert!(loaded(&store.checkpoint(GroupId(2))).as_ref() == Some(&models[1]));
    }
}

#[test]
fn a_copy_of_a_running_store_has_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut random = Random(3);
    let mut models = vec![(Bytes::new(), Rows::new())];
    exercise(&mut random, &[store.checkpoint(G)], &mut models, 30);
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    let thawed = open(frozen.path());
    assert!(loaded(&thawed.checkpoint(G)).as_ref() == Some(&models[0]));
}

#[test]
fn a_reset_group_is_empty_and_may_be_filled_before_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let checkpoint = store.checkpoint(G);
    assert_eq!(loaded(&checkpoint), None);
    let other = store.checkpoint(GroupId(2));
    other.write(Bytes::from_static(b"other"), vec![(key(1), key(2))], vec![]).unwrap();
    checkpoint.write(Bytes::from_static(b"one"), vec![(key(1), key(1))], vec![]).unwrap();
    let filled = checkpoint.fill(vec![(key(2), key(2))]);
    assert!(matches!(filled, Err(StoreError::Invalid(_))), "it has metadata");
    checkpoint.reset().unwrap();
    assert_eq!(loaded(&checkpoint), None);
    checkpoint.fill((0..5000).map(|n| (key(n), key(n))).collect()).unwrap();
    assert_eq!(loaded(&checkpoint), None);
    drop((checkpoint, other, store));

    // A fill that was interrupted leaves nothing behind.
    let store = open(dir.path());
    let checkpoint = store.checkpoint(G);
    assert_eq!(loaded(&checkpoint), None);
    checkpoint.fill((0..10).map(|n| (key(n), key(n))).collect()).unwrap();
    checkpoint.write(Bytes::from_static(b"two"), vec![], vec![key(3)]).unwrap();
    let (meta, rows) = loaded(&checkpoint).unwrap();
    assert_eq!((meta.as_ref(), rows.len()), (&b"two"[..], 9));
    assert_eq!(loaded(&store.checkpoint(GroupId(2))).unwrap().1.len(), 1);
}

#[test]
fn too_large_batches_are_refused_and_harm_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let checkpoint = store.checkpoint(G);
    checkpoint.write(Bytes::new(), vec![(key(1), key(1))], vec![]).unwrap();
    let large = Bytes::from(vec![1; CHECKPOINT_BATCH_BYTES_MAX as usize]);
    let refused = checkpoint.write(Bytes::new(), vec![(key(2), large)], vec![]);
    assert!(matches!(refused, Err(StoreError::Invalid(_))));
    let refused =
        checkpoint.write(Bytes::new(), vec![(Bytes::from(vec![1; 2000]), key(1))], vec![]);
    assert!(matches!(refused, Err(StoreError::Invalid(_))));
    assert_eq!(loaded(&checkpoint).unwrap().1.len(), 1);
}

#[test]
fn a_database_much_larger_than_its_rows_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let checkpoint = store.checkpoint(G);
    let big = |n: u64| (key(n), Bytes::from(vec![n as u8; 3_000_000]));
    checkpoint.write(Bytes::new(), (0..4).map(big).collect(), vec![]).unwrap();
    checkpoint.write(Bytes::new(), vec![(key(9), key(9))], (0..4).map(key).collect()).unwrap();
    let before = loaded(&checkpoint);
    drop((checkpoint, store));
    let size = |dir: &std::path::Path| dir.join("checkpoint/db").metadata().unwrap().len();
    let large = size(dir.path());
    let mut options = ackord_store::StoreOptions::small(dir.path());
    options.checkpoint_rewrite_bytes = 1_000_000;
    let store = ackord_store::Store::open(options).unwrap();
    let checkpoint = store.checkpoint(G);
    assert!(loaded(&checkpoint) == before);
    assert!(size(dir.path()) < large / 2, "{} of {large}", size(dir.path()));
    checkpoint.write(Bytes::new(), vec![], vec![key(9)]).unwrap();
    drop((checkpoint, store));
    assert_eq!(loaded(&open(dir.path()).checkpoint(G)).unwrap().1.len(), 0);
}

/// Harms one file of the database; it must load as it was, be refused, or be gone, and always
/// be usable after a reset.
fn check(original: &std::path::Path, model: &(Bytes, Rows), random: &mut Random) {
    let dir = tempfile::tempdir().unwrap();
    copy(original, dir.path());
    let mut files = files_under(&dir.path().join("checkpoint"));
    files.extend([dir.path().join("checkpoint.seal")].into_iter().filter(|p| p.exists()));
    let path = &files[random.below(files.len() as u64) as usize];
    let Some(chosen) = choose_harm(random, path) else {
        return;
    };
    harm(path, chosen);
    let store = open(dir.path());
    let checkpoint = store.checkpoint(G);
    match checkpoint.load() {
        Ok(Some(loaded)) => {
            let found = (loaded.meta, loaded.rows.into_iter().collect::<Rows>());
            let same = &found == model;
            assert!(same, "silently changed by {chosen:?} of {}", path.display());
        }
        // The caller goes back to the snapshot and the log.
        Ok(None) | Err(StoreError::Damaged(_)) => {}
        Err(other) => panic!("{chosen:?} of {}: {other}", path.display()),
    }
    checkpoint.reset().unwrap();
    checkpoint.write(model.0.clone(), model.1.clone().into_iter().collect(), vec![]).unwrap();
    drop((checkpoint, store));
    assert!(loaded(&open(dir.path()).checkpoint(G)).as_ref() == Some(model));
}

#[test]
fn damage_after_a_graceful_stop_is_found_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let mut models = vec![(Bytes::new(), Rows::new())];
    let store = open(dir.path());
    exercise(&mut Random(1), &[store.checkpoint(G)], &mut models, 30);
    drop(store);
    let (count, seed) = trials(30);
    let mut random = Random(seed);
    for _ in 0..count {
        check(dir.path(), &models[0], &mut random);
    }
}

#[test]
fn damage_after_a_crash_is_found_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let mut models = vec![(Bytes::new(), Rows::new())];
    let store = open(dir.path());
    exercise(&mut Random(2), &[store.checkpoint(G)], &mut models, 30);
    // A vote makes the high-water file current: without one it may be a moment late, and the
    // checkpoint of before that moment would pass.
    vote(&store, G, "now");
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    let (count, seed) = trials(30);
    let mut random = Random(seed ^ 1);
    for _ in 0..count {
        check(frozen.path(), &models[0], &mut random);
    }
}

/// The database opens, and what it reads then is damaged: it is written anew, not given up.
#[test]
fn a_group_is_reset_though_what_it_has_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let rows = || (0..2000).map(|number| (key(number), vec![number as u8; 200].into()));
    let mut store = open(dir.path());
    for _ in 0..2 {
        store.checkpoint(G).write("applied".into(), rows().collect(), Vec::new()).unwrap();
        drop(store);
        store = open(dir.path());
    }
    // Opened and not closed: there is no seal.
    assert!(loaded(&store.checkpoint(G)).is_some());
    vote(&store, G, "now");
    let frozen = tempfile::tempdir().unwrap();
    copy(dir.path(), frozen.path());
    let len = frozen.path().join("checkpoint/db").metadata().unwrap().len();
    let harmed = |from: u64| {
        let dir = tempfile::tempdir().unwrap();
        copy(frozen.path(), dir.path());
        let lost = Harm::Zero { from, to: (from + 4096).min(len) };
        harm(&dir.path().join("checkpoint/db"), lost);
        (open(dir.path()), dir)
    };
    let mut read = 0;
    for from in (0..len).step_by(64 * 1024) {
        let (store, dir) = harmed(from);
        let is_refused = store.checkpoint(G).load().is_err();
        // Opened at first use: one that does not open is put aside.
        let is_read = is_refused && !dir.path().join("checkpoint.damaged").exists();
        drop((store, dir));
        let (store, _dir) = harmed(from);
        let checkpoint = store.checkpoint(G);
        checkpoint.reset().unwrap();
        checkpoint.write("again".into(), rows().take(3).collect(), Vec::new()).unwrap();
        assert_eq!(loaded(&checkpoint).unwrap().1.len(), 3);
        read += u32::from(is_read);
    }
    assert!(read > 0, "nothing was lost where it is read: nothing was tested");
}
