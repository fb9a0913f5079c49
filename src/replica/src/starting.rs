//! The start of a node's groups: restore, raft, the first members, and catching up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ackord_store::{GroupId, StoreError};
use openraft::{BasicNode, Config, SnapshotPolicy};

use crate::blocking::blocking;
use crate::checkpoint;
use crate::error::StartError;
use crate::founding::Agreed;
use crate::handle::PartitionHandle;
use crate::leadership::follow_leadership;
use crate::log::LogStorage;
use crate::node::Hooks;
use crate::partition::{Partition, Shared};
use crate::peer::Network;
use crate::recover;
use crate::restore::{Source, restore};
use crate::snapshot;
use crate::state_machine::StateMachine;
use crate::types::{NodeId, Raft};

/// How often a start looks whether the limits are set.
const LIMITS_INTERVAL: Duration = Duration::from_millis(2);
/// Between two questions whether this node has caught up.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(50);
/// Log entries that go to another node in one message.
const PAYLOAD_ENTRIES_MAX: u64 = 64;

/// Starts the directory and every partition.
pub(crate) async fn start_partitions(
    shared: &Arc<Shared>,
    founding: Option<Agreed>,
    hooks: &Hooks,
) -> Result<Vec<Arc<Partition>>, StartError> {
    let placement = founding.map(|agreed| (agreed.placement(), agreed));
    let starting: Vec<_> = (0..=shared.options.partitions)
        .map(|number| {
            let first = placement.as_ref().and_then(|(placement, agreed)| {
                Some(agreed.first_members(placement.get(number as usize)?))
            });
            tokio::spawn(start_partition(shared.clone(), number, first, hooks.clone()))
        })
        .collect();
    let mut partitions = Vec::with_capacity(starting.len());
    for starting in starting {
        partitions.push(starting.await.map_err(std::io::Error::other)??);
    }
    Ok(partitions)
}

async fn start_partition(
    shared: Arc<Shared>,
    number: u32,
    first: Option<BTreeMap<NodeId, BasicNode>>,
    hooks: Hooks,
) -> Result<Arc<Partition>, StartError> {
    let group = GroupId(number);
    let log = LogStorage::new(shared.store.clone(), group, shared.fatal.clone(), hooks.on_sync);
    let partition = {
        let (shared, durable) = (shared.clone(), log.durable());
        let restoring = move || -> Result<Arc<Partition>, StartError> {
            let restored = restore(&shared.store, group)?;
            let partition = Partition::new(number, shared, restored.applied, durable);
            if recover::is_renewal_due(&partition.shared.options.dir) {
                let seed =
                    getrandom::u64().map_err(|error| not_restored(number, error.to_string()))?;
                partition.gauges.renewal.store(seed.max(1), Ordering::Relaxed);
            }
            partition
                .gauges
                .snapshot_log_bytes
                .store(restored.snapshot_log_bytes, Ordering::Relaxed);
            if restored.source == Source::Snapshot {
                match checkpoint::rebuild(&partition, &mut partition.checkpoint.lock()) {
                    Ok(_) => {}
                    // All groups have one database, and another group that starts may have found it
                    // damaged meanwhile: the snapshot is there, the checkpoint is written later.
                    Err(StoreError::Damaged(reason)) => {
                        tracing::warn!(%group, reason, "the checkpoint is written later");
                    }
                    Err(error) => return Err(not_restored(number, error.to_string())),
                }
            }
            Ok(Arc::new(partition))
        };
        blocking(restoring).await.map_err(std::io::Error::other)??
    };
    let machine = StateMachine { partition: partition.clone() };
    let network = Network {
        group,
        node: shared.node,
        peers: shared.peers.clone(),
        listeners: partition.listeners.clone(),
        confirmed: partition.confirmed.clone(),
    };
    let raft = Raft::new(shared.node, Arc::new(config(number)?), network, log, machine)
        .await
        .map_err(|error| not_restored(number, error.to_string()))?;
    if partition.raft.set(raft.clone()).is_err() {
        return Err(not_restored(number, "it has a raft group already".into()));
    }
    tokio::spawn(follow_leadership(partition.clone(), raft.clone()));
    bootstrap(&partition, &raft, first).await.map_err(|detail| not_ready(number, detail))?;
    Ok(partition)
}

/// Waits until every partition judges by the configured limits, for who meets a started node must
/// not be judged by those of an earlier start, and until its sites have the incarnations that they
/// are to get after a recovery.
pub(crate) async fn wait_for_own(
    shared: &Shared,
    partitions: &[Arc<Partition>],
) -> Result<(), StartError> {
    let deadline = tokio::time::Instant::now() + shared.options.start_timeout;
    for partition in partitions {
        while partition.gauges.limits_differ.load(Ordering::Acquire)
            || partition.gauges.renewal.load(Ordering::Acquire) != 0
        {
            if tokio::time::Instant::now() >= deadline {
                return Err(not_ready(
                    partition.number,
                    "its limits and incarnations to be set".to_owned(),
                ));
            }
            tokio::time::sleep(LIMITS_INTERVAL).await;
        }
    }
    Ok(())
}

fn not_restored(partition: u32, detail: String) -> StartError {
    StartError::Restore { partition, detail }
}

fn not_ready(partition: u32, detail: String) -> StartError {
    StartError::NotReady { partition, detail }
}

fn config(number: u32) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: format!("ackord-{number}"),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 600,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        // Snapshots are asked for by the checkpointer, and the log is purged by `snapshot::purge`
        // only, up to the older of two snapshots.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A leader that lost its unsynced tail must not come back without a vote and give out log
        // ids again that followers hold already.
        enable_leader_restore: Some(false),
        // A member whose log went back is not a member any more: it returns under a new id.
        allow_log_reversion: Some(false),
        enable_pre_vote: Some(true),
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::Options { field: "raft", detail: error.to_string() })
}

/// A group that does not exist yet is founded with its first voters, by the first of them: the
/// others wait for it. One in which this node is the only voter elects it at once and is waited
/// for: nobody else can.
async fn bootstrap(
    partition: &Arc<Partition>,
    raft: &Raft,
    first: Option<BTreeMap<NodeId, BasicNode>>,
) -> Result<(), String> {
    let node = partition.shared.node;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let founded = raft.is_initialized().await.map_err(|error| text(&error))?;
    if let Some(first) = first.filter(|first| !founded && first.keys().next() == Some(&node)) {
        raft.initialize(first).await.map_err(|error| text(&error))?;
    }
    let purgeable = {
        let partition = partition.clone();
        let reading = blocking(move || snapshot::purgeable(&partition));
        reading.await.map_err(|error| text(&error))?.map_err(|error| text(&error))?
    };
    // The metrics may not show yet what was just founded or restored.
    let alone = raft
        .with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([node]))
        .await
        .map_err(|error| text(&error))?;
    if !alone {
        tokio::spawn(catch_up(partition.clone(), raft.clone()));
    } else {
        raft.trigger().elect(false).await.map_err(|error| text(&error))?;
        let limit = partition.shared.options.start_timeout;
        raft.wait(Some(limit))
            .metrics(|metrics| metrics.current_leader == Some(node), "leads")
            .await
            .map_err(|error| text(&error))?;
        raft.wait_for_recovery(Some(limit)).await.map_err(|error| text(&error))?;
        partition.leads(true);
        partition.caught_up.store(true, Ordering::Release);
    }
    if let Some(upto) = purgeable {
        snapshot::purge(partition, upto).await;
    }
    Ok(())
}

/// Waits as long as it takes until everything that was acknowledged before the start is applied
/// here.
async fn catch_up(partition: Arc<Partition>, raft: Raft) {
    if raft.wait_for_recovery(None).await.is_err() {
        return;
    }
    let handle = PartitionHandle::new(partition.clone());
    while handle.linearize().await.is_err() {
        if partition.stopped() {
            return;
        }
        tokio::time::sleep(CATCH_UP_PAUSE).await;
    }
    partition.caught_up.store(true, Ordering::Release);
}
