//! openraft's suite for log storage and state machine, run on ours.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ackord_store::{GroupId, Store, StoreOptions};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::fixture::options;
use crate::checkpoint::CheckpointSignal;
use crate::counters::Counters;
use crate::fatal::Fatal;
use crate::log::LogStorage;
use crate::partition::{Applied, Continuity, Partition, Shared};
use crate::state_machine::StateMachine;
use crate::time::Time;
use crate::types::TypeConfig;

struct Builder;

impl StoreBuilder<TypeConfig, LogStorage, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStorage, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let fatal = Fatal::new(options.on_fatal.clone());
        let store = Store::open(StoreOptions::small(dir.path())).unwrap();
        let log = LogStorage::new(store.clone(), GroupId(1), fatal.clone(), None);
        let shared = Arc::new(Shared {
            node: store.identity().node,
            checkpoints: CheckpointSignal::new(options.checkpoint_rows_max),
            started: std::sync::atomic::AtomicBool::new(false),
            told_to_go: Mutex::default(),
            counters: Counters::default(),
            state_bytes: AtomicU64::new(0),
            time: Arc::new(Time::new(crate::ground::Wall::default())),
            snapshotting: Mutex::default(),
            continuity: Continuity::AsGiven,
            peers: None,
            limits: arc_swap::ArcSwap::from_pointee(options.limits.clone()),
            options,
            store,
            fatal,
        });
        // The suite applies entries that it never appended.
        let durable = Arc::new(crate::log::Durable::everything());
        let partition = Arc::new(Partition::new(1, shared, Applied::default(), durable));
        Ok((dir, log, StateMachine { partition }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_openrafts_suite_when_run_on_our_storage_then_it_passes() {
    Suite::test_all(Builder).await.unwrap();
}
