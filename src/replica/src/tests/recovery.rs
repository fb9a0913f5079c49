//! `recover`: what is kept of a damaged directory, and that clients are told when ids come again.

use std::path::{Path, PathBuf};

use ackord_machine::site::Incarnation;
use ackord_store::{GroupId, RecoverMode, Store, StoreOptions};
use futures_util::future::join_all;

use super::fixture::{INCARNATION, Publisher, options};
use crate::{Node, StartError, recover};

const EVENTS: usize = 300;

/// A stopped node with this many events in its log.
async fn stopped(dir: &Path) {
    let node = Node::start(options(dir)).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    for _ in 0..EVENTS / 10 {
        let pending: Vec<_> = (0..10).map(|_| publisher.send(200).unwrap()).collect();
        assert!(join_all(pending).await.iter().all(Result::is_ok));
    }
    node.shutdown();
}

/// Changes one bit in the middle of what the log holds.
fn damage_the_log(dir: &Path) {
    let files: Vec<PathBuf> =
        std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (path, mut raw) = files
        .into_iter()
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .max_by_key(|(_, raw)| raw.windows(5).filter(|window| window == b"Alarm").count())
        .unwrap();
    let places: Vec<usize> =
        (0..raw.len() - 5).filter(|at| raw[*at..].starts_with(b"Alarm")).collect();
    raw[places[places.len() / 2]] ^= 1;
    std::fs::write(path, raw).unwrap();
}

fn without_checkpoints(dir: &Path) {
    let store = Store::open(StoreOptions::small(dir)).unwrap();
    for group in [GroupId(1), GroupId(2)] {
        store.checkpoint(group).reset().unwrap();
    }
    store.close().unwrap();
}

/// Events kept, the highest id and the incarnation, as a started node has them.
async fn look(dir: &Path) -> (usize, u64, Incarnation) {
    let node = Node::start(options(dir)).unwrap();
    let found = node.partition_of(&"plant".into()).read(|state| {
        let site = state.site("plant").expect("it was created long before the damage");
        let event = site.event_named("Alarm").expect("it was declared").key;
        let kept = site.queue(event, &"boiler".into()).count();
        (kept, site.head().0, site.incarnation())
    });
    node.shutdown();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_checkpoint_beyond_the_damage_when_recovered_then_its_state_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path()).await;
    damage_the_log(dir.path());
    assert!(matches!(Node::start(options(dir.path())), Err(StartError::Store(_))));

    let inspected = recover(dir.path(), RecoverMode::Inspect).unwrap();
    assert!(!inspected.findings.is_empty() && !inspected.changed);
    let report = recover(dir.path(), RecoverMode::AcceptLoss).unwrap();
    assert!(report.changed && report.hopeless.is_none(), "{report:?}");
    assert!(report.groups.iter().all(|group| group.lost() == 0), "{report:?}");

    let (kept, head, incarnation) = look(dir.path()).await;
    assert_eq!((kept, head), (EVENTS, EVENTS as u64));
    assert_ne!(incarnation, INCARNATION);
    assert_eq!(look(dir.path()).await, (kept, head, incarnation), "it is renewed once");
    assert!(recover(dir.path(), RecoverMode::Inspect).unwrap().findings.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_no_checkpoint_when_recovered_then_the_beginning_is_kept_under_a_new_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path()).await;
    without_checkpoints(dir.path());
    damage_the_log(dir.path());

    let report = recover(dir.path(), RecoverMode::AcceptLoss).unwrap();
    assert!(report.changed && report.groups.iter().any(|group| group.lost() > 0), "{report:?}");

    let (kept, head, incarnation) = look(dir.path()).await;
    assert!(kept > 0 && kept < EVENTS, "{kept}");
    assert_eq!(head, kept as u64);
    assert_ne!(incarnation, INCARNATION);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_recovery_that_was_interrupted_before_the_checkpoint_was_taken_then_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path()).await;
    damage_the_log(dir.path());
    // The store's part alone, as if the process had ended there.
    Store::recover(dir.path(), RecoverMode::AcceptLoss).unwrap();
    assert!(matches!(Node::start(options(dir.path())), Err(StartError::Restore { .. })));

    let inspected = recover(dir.path(), RecoverMode::Inspect).unwrap();
    assert!(!inspected.findings.is_empty() && !inspected.changed, "{inspected:?}");
    assert!(recover(dir.path(), RecoverMode::AcceptLoss).unwrap().changed);
    let (kept, _, incarnation) = look(dir.path()).await;
    assert_eq!(kept, EVENTS);
    assert_ne!(incarnation, INCARNATION);
}
