//! A full disk: foreseen, survived, and never a lie. Needs root for a small tmpfs; without it
//! there is nothing to check here.
#![allow(clippy::unwrap_used, reason = "a failing test is the answer")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ackord_store::{GroupId, Store, StoreError, StoreOptions};
use bytes::Bytes;
use support::*;

/// A tmpfs of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kib: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(dir));
        }
        eprintln!("no tmpfs can be mounted here");
        None
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Leaves this much free, or less: the store writes in the background at the same time.
    fn fill(&self, left: u64) {
        let path = self.0.path().join("filler");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        loop {
            let free = rustix::fs::statvfs(self.0.path()).unwrap();
            let excess = (free.f_bavail * free.f_frsize).saturating_sub(left).min(64 * 1024);
            match file.write(&vec![1; excess as usize]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn drain(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::small(dir);
    options.purge_interval = Duration::from_millis(5);
    options
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition never came true");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_admits_nothing_purges_starts_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(6 * 1024) else {
        return;
    };
    let store = Store::open(options(&disk.dir())).unwrap();
    append(&store, G, 1, 0..50);
    until(|| store.admits());
    disk.fill(100 * 1024);
    until(|| !store.admits());
    disk.fill(0);
    // What is prewritten is still there to be written to.
    append(&store, G, 1, 50..60);
    wait(|done| store.purge_to(G, mark(1, 20), done)).unwrap();
    vote(&store, G, "voted on a full disk");
    store.close().unwrap();
    drop(store);

    let store = Store::open(options(&disk.dir())).unwrap();
    assert!(!store.admits());
    assert_eq!(contents(&store, G), entries(G, 1, 21..60));
    wait(|done| store.purge_to(G, mark(1, 30), done)).unwrap();
    let snapshot = store.snapshots(G).create("too large").and_then(|mut writer| {
        (0..100).try_for_each(|_| writer.put(&[7; 60_000]))?;
        writer.finish(b"")
    });
    assert!(matches!(snapshot, Err(StoreError::NoSpace(_))), "{snapshot:?}");
    let checkpoint = store.checkpoint(G);
    let large = Bytes::from(vec![1; 1_000_000]);
    let written = checkpoint.write(Bytes::new(), vec![(Bytes::from_static(b"k"), large)], vec![]);
    assert!(written.is_err());
    assert!(store.fatal().is_none(), "caches may fail: {:?}", store.fatal());
    disk.drain();
    until(|| store.admits());
    checkpoint.reset().unwrap();
    checkpoint.write(Bytes::from_static(b"m"), vec![], vec![]).unwrap();
    assert_eq!(checkpoint.load().unwrap().unwrap().meta.as_ref(), b"m");
    append(&store, G, 1, 60..70);
    store.close().unwrap();
    drop((checkpoint, store));
    assert_eq!(contents(&Store::open(options(&disk.dir())).unwrap(), G), entries(G, 1, 31..70));
}

#[test]
fn an_append_that_finds_no_room_fails_the_store_and_nothing_answered_is_lost() {
    let Some(disk) = SmallDisk::mount(6 * 1024) else {
        return;
    };
    let store = Store::open(options(&disk.dir())).unwrap();
    append(&store, G, 1, 0..10);
    disk.fill(0);
    let mut next = 10;
    let failed = loop {
        let answered = wait(|done| store.append(G, entries(G, 1, next..next + 10), done));
        match answered {
            Ok(()) => next += 10,
            Err(error) => break error,
        }
        assert!(next < 100_000, "the disk never ran full");
    };
    assert!(matches!(failed, StoreError::Fatal(_)), "{failed}");
    let refused = wait(|done| store.append(GroupId(9), entries(GroupId(9), 1, 0..1), done));
    assert!(refused.is_err());
    assert!(store.close().is_err());
    drop(store);
    disk.drain();
    let store = Store::open(options(&disk.dir())).unwrap();
    let found = contents(&store, G);
    assert!(found.len() as u64 >= next);
    assert_eq!(found, entries(G, 1, 0..found.len() as u64));
    append(&store, G, 1, found.len() as u64..found.len() as u64 + 10);
}
