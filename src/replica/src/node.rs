//! A node: its store, its runtime and its partitions; start and stop.
//!
//! `open the store ─▶ restore each partition ─▶ raft ─▶ bootstrap or elect ─▶ caught up ─▶ serve`

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ackord_machine::session::CUT_OFF_MS;
use ackord_machine::site::{Limits, NodeInfo, NodeState, SiteName};
use ackord_store::{DiskUsage, GroupId, Identity, Store, StoreOptions};
use ackord_tls::Refreshed;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, Config, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use crate::checkpoint::{self, CheckpointSignal, Stop};
use crate::counters::{Counters, NodeCounters};
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::founding::{self, Agreed, Beginning};
use crate::handle::PartitionHandle;
use crate::handover::hand_over;
use crate::keeper;
use crate::leadership::follow_leadership;
use crate::log::{LogStorage, SyncHook};
use crate::mover;
use crate::options::NodeOptions;
use crate::partition::{Continuity, Partition, Shared};
use crate::peer::{Answerer, AskError, Listening, Network, Peers};
use crate::placement::{partition_of, settle_partitions};
use crate::proposer;
use crate::recover;
use crate::restore::{Source, restore};
use crate::snapshot;
use crate::state_machine::StateMachine;
use crate::succession;
use crate::time::Time;
use crate::types::{NodeId, Raft};
use crate::view::{self, ClusterView};

/// How long a graceful stop waits for the commands that were accepted.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a stop waits for tasks that do not end by themselves.
const RUNTIME_STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often a start looks whether the limits are set.
const LIMITS_INTERVAL: Duration = Duration::from_millis(2);
/// Between two questions whether this node has caught up.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(50);
/// Log entries that go to another node in one message.
const PAYLOAD_ENTRIES_MAX: u64 = 64;

/// Seams for tests of this crate.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) on_sync: Option<SyncHook>,
    /// Whose data directory it is to be, until clusters are founded in earnest.
    pub(crate) identity: Option<Identity>,
}

/// A running node. Dropping it without [`Node::shutdown`] is like killing the process: nothing
/// acknowledged is lost, the next start takes longer. The data directory is closed when the node
/// and every [`PartitionHandle`] of it are gone.
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) partitions: Vec<Arc<Partition>>,
    running: Mutex<Option<Running>>,
}

/// What ends when the node does.
struct Running {
    runtime: Runtime,
    checkpointer: JoinHandle<()>,
    proposers: Vec<tokio::task::JoinHandle<()>>,
}

impl Node {
    /// Opens the data directory, restores every partition and waits until those that this node
    /// votes alone in are led and have applied all that was durable. Blocks for that long.
    ///
    /// # Errors
    /// See [`StartError`]; what the data directory keeps is not changed by a failed start.
    pub fn start(options: NodeOptions) -> Result<Self, StartError> {
        Self::start_with(options, Hooks::default())
    }

    pub(crate) fn start_with(options: NodeOptions, hooks: Hooks) -> Result<Self, StartError> {
        options.validate()?;
        // A thread of its own: the caller may be on an async runtime, where blocking on another
        // one is not possible.
        on_thread("ackord-start", move || Self::start_blocking(options, &hooks))?
    }

    fn start_blocking(options: NodeOptions, hooks: &Hooks) -> Result<Self, StartError> {
        let mut options = options;
        let fatal = Fatal::new(options.on_fatal.clone());
        let runtime = start_runtime(&options, &fatal)?;
        let listening = match &options.peers {
            Some(peers) => Some(runtime.block_on(Listening::open(peers))?),
            None => None,
        };
        let mut beginning = match (&options.peers, &listening) {
            (Some(peers), Some(listening)) if hooks.identity.is_none() => {
                runtime.block_on(founding::begin(&options, peers, listening))?
            }
            _ => Beginning::default(),
        };
        let store = open_store(&options, hooks.identity.or(beginning.identity), &fatal)?;
        let wanted = beginning.partitions.unwrap_or(options.partitions);
        options.partitions = settle_partitions(&store, wanted, options.peers.is_some())?;
        if options.peers.is_none() {
            beginning.agreed = Some(Agreed::alone(store.identity(), options.partitions));
        }
        if options.peers.is_some() && recover::is_renewal_due(&options.dir) {
            let detail = "its log lost entries that were durable: replace the node".into();
            return Err(StartError::Options { field: "peers", detail });
        }
        let time = Arc::new(Time::new());
        let peers = match (&options.peers, listening) {
            (Some(peers), Some(listening)) => {
                let _entered = runtime.enter();
                Some(Peers::new(peers, listening, store.clone(), fatal.clone(), time.clone()))
            }
            _ => None,
        };
        let shared = Arc::new(Shared {
            node: store.identity().node,
            checkpoints: CheckpointSignal::new(options.checkpoint_rows_max),
            counters: Counters::default(),
            started: AtomicBool::new(false),
            told_to_go: Mutex::new(None),
            state_bytes: AtomicU64::new(0),
            time,
            snapshotting: Mutex::default(),
            continuity: Continuity::Required,
            peers,
            limits: ArcSwap::from_pointee(options.limits.clone()),
            options,
            store,
            fatal,
        });
        let founding = beginning.agreed.clone();
        let partitions = runtime.block_on(start_partitions(&shared, founding, hooks))?;
        let proposers = partitions
            .iter()
            .filter_map(|partition| {
                let raft = partition.raft.get()?.clone();
                Some(runtime.spawn(proposer::run(partition.clone(), raft)))
            })
            .collect();
        let info = node_info(&shared);
        // A test founds its clusters itself, without a directory.
        if hooks.identity.is_none() {
            runtime.spawn(keeper::run(partitions[0].clone(), beginning.agreed, info));
        }
        match &shared.peers {
            Some(peers) => {
                runtime.block_on(async { peers.serve(&partitions) });
                runtime.spawn(mover::run(shared.clone(), partitions.clone()));
                runtime.spawn(succession::run(partitions.clone(), peers.dead()));
            }
            // With others to be waited for, a start does not wait: see `ready`.
            None => {
                runtime.block_on(wait_for_own(&shared, &partitions))?;
                if recover::is_renewal_due(&shared.options.dir) {
                    recover::renewed(&shared.options.dir)?;
                }
            }
        }
        let checkpointer = {
            let (shared, partitions) = (shared.clone(), partitions.clone());
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("ackord-checkpoint".into())
                .spawn(move || checkpoint::run(&shared, &partitions, &handle))?
        };
        let running = Mutex::new(Some(Running { runtime, checkpointer, proposers }));
        Ok(Self { shared, partitions, running })
    }

    /// Its number, unlike that of any other node of the cluster.
    pub fn id(&self) -> u64 {
        self.shared.node
    }

    /// The partition that holds the site.
    pub fn partition_of(&self, site: &SiteName) -> PartitionHandle {
        // The directory comes first.
        let index = 1 + partition_of(site, self.partitions.len() - 1);
        PartitionHandle::new(self.partitions[index].clone())
    }

    /// The group of the directory of nodes. It holds no sites.
    pub fn directory(&self) -> PartitionHandle {
        PartitionHandle::new(self.partitions[0].clone())
    }

    /// All partitions, by number from 1.
    pub fn partitions(&self) -> Vec<PartitionHandle> {
        self.partitions[1..].iter().cloned().map(PartitionHandle::new).collect()
    }

    /// The cluster as this node sees it.
    pub fn cluster(&self) -> ClusterView {
        view::look(&self.shared, &self.partitions)
    }

    /// Where endpoints reach the other nodes of the cluster that are to stay.
    pub fn other_urls(&self) -> Vec<String> {
        let applied = self.partitions[0].applied.read();
        let members = applied.state.directory().members();
        let others = members
            .filter(|row| row.id != self.shared.node && row.state == NodeState::Active)
            .flat_map(|row| row.info.urls.iter().cloned());
        others.collect()
    }

    /// Answers the questions of other nodes from now on, see [`Node::ask`]. Only the first answerer
    /// counts; on a node that is alone nobody asks.
    ///
    /// # Errors
    /// When there is no thread to answer on.
    pub fn answer(&self, answerer: Answerer) -> std::io::Result<()> {
        self.shared.peers.as_ref().map_or(Ok(()), |peers| peers.answer(answerer))
    }

    /// Asks the answerer of another node, once; the deadline covers everything. What is asked must
    /// be harmless when it is not known whether it arrived.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(
        &self,
        node: u64,
        question: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, AskError> {
        match &self.shared.peers {
            Some(peers) => peers.ask(node, question, deadline).await,
            None => Err(AskError::Unreachable("this node has no others".into())),
        }
    }

    /// Asks every other node of the cluster at the same time, those included that cannot be reached
    /// now. By node number.
    pub async fn ask_all(
        &self,
        question: Bytes,
        deadline: Duration,
    ) -> Vec<(u64, Result<Bytes, AskError>)> {
        let asking = self.other_nodes().into_iter().map(|node| {
            let question = question.clone();
            async move { (node, self.ask(node, question, deadline).await) }
        });
        join_all(asking).await
    }

    /// The other nodes of the cluster, by number.
    pub fn other_nodes(&self) -> BTreeSet<u64> {
        let Some(peers) = &self.shared.peers else { return BTreeSet::new() };
        let applied = self.partitions[0].applied.read();
        let directory = applied.state.directory();
        // Who is not in the directory yet may be connected already.
        let mut nodes = peers.linked();
        nodes.extend(directory.members().map(|row| row.id));
        nodes.retain(|id| {
            let removed = directory.node(*id).is_some_and(|row| row.state == NodeState::Removed);
            *id != self.shared.node && !removed
        });
        nodes
    }

    /// Where this node listens for other nodes.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.shared.peers.as_ref().map(|peers| peers.address())
    }

    /// By how much this node's wall clock is ahead of what most nodes have, milliseconds.
    pub fn clock_ahead_ms(&self) -> i64 {
        self.shared.time.ahead_ms()
    }

    /// By how much the wall clocks of other nodes are ahead of this one's, milliseconds, as last
    /// compared. By node number.
    pub fn peer_clock_differences(&self) -> BTreeMap<u64, i64> {
        let peers = self.shared.peers.as_ref();
        peers.map(|peers| peers.clock_differences()).unwrap_or_default()
    }

    /// Lets every partition have these limits from now on: as in [`NodeOptions::limits`], those that
    /// this node leads bring them to all replicas.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.limits.store(Arc::new(limits));
        for partition in &self.partitions {
            partition.observe(&partition.applied.read());
            partition.queue.wake.notify_one();
        }
    }

    /// Looks at the certificate files of the connections between nodes again; `None` without any.
    /// New connections use what has changed, those that stand live on. Blocks for as long as
    /// reading takes.
    pub fn refresh_certificates(&self) -> Option<Refreshed> {
        self.shared.peers.as_ref()?.refresh_certificates()
    }

    /// The end of this node's certificate for other nodes, seconds of Unix time.
    pub fn certificate_not_after(&self) -> Option<i64> {
        self.shared.peers.as_ref()?.certificate_not_after()
    }

    /// Makes every partition a group of these voters, by node number and address. On one of them,
    /// once, while all are empty.
    #[cfg(test)]
    pub(crate) async fn found(&self, members: &BTreeMap<u64, String>) -> Result<(), String> {
        let members: BTreeMap<_, _> =
            members.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
        for partition in &self.partitions {
            let Some(raft) = partition.raft.get() else { return Err("no group".into()) };
            raft.initialize(members.clone()).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// How far the store is.
    #[cfg(test)]
    pub(crate) fn written(&self) -> u64 {
        self.shared.store.written()
    }

    #[cfg(test)]
    pub(crate) fn peers(&self) -> &Peers {
        self.shared.peers.as_ref().expect("the test started the node with peers")
    }

    /// How full the disk is, and with what. Blocks for as long as looking takes.
    ///
    /// # Errors
    /// When the disk does not say how much of it is left.
    pub fn disk_usage(&self) -> std::io::Result<DiskUsage> {
        self.shared.store.disk_usage()
    }

    /// Bytes of state of all partitions here, and how many there may be before raises are refused.
    pub fn state_bytes(&self) -> (u64, u64) {
        (self.shared.state_bytes.load(Ordering::Relaxed), self.shared.options.state_bytes_max)
    }

    /// Whether every partition has a leader and has applied what this node had made durable, and
    /// those that this node leads judge by its limits. A node that is cut off from the others is
    /// not ready, whatever leader it remembers.
    pub fn ready(&self) -> bool {
        let served = |partition: &Arc<Partition>| {
            let leader = partition
                .raft
                .get()
                .and_then(|raft| raft.server_metrics().borrow_watched().current_leader);
            let limits_differ = partition.gauges.limits_differ.load(Ordering::Acquire);
            let cut_off = partition.gauges.stale_ms.load(Ordering::Relaxed) >= CUT_OFF_MS;
            leader.is_some_and(|leader| leader != self.shared.node || !limits_differ)
                && !cut_off
                && partition.caught_up.load(Ordering::Acquire)
        };
        !self.shared.fatal.raised()
            && !self.shared.clock_is_off()
            && self.partitions.iter().all(served)
    }

    /// What the node did since it started.
    pub fn counters(&self) -> NodeCounters {
        self.shared.counters.snapshot(self.shared.store.counters())
    }

    /// Stops gracefully: no new proposals, waits for those accepted, writes a last checkpoint,
    /// closes the store. Idempotent. Blocks for that long.
    pub fn shutdown(&self) {
        let Some(running) = self.running.lock().take() else { return };
        let (shared, partitions) = (self.shared.clone(), self.partitions.clone());
        let stopped = on_thread("ackord-stop", move || stop(&shared, &partitions, running));
        if let Err(error) = stopped {
            tracing::error!(%error, "the node did not stop in order; the log has everything");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(running) = self.running.lock().take() else { return };
        self.partitions.iter().for_each(|partition| partition.queue.close());
        self.shared.checkpoints.stop(Stop::Now);
        // Waits only for what a thread is in the middle of, so that the store closes with the last
        // handle.
        let Running { runtime, checkpointer, proposers } = running;
        drop(proposers);
        let ended = on_thread("ackord-stop", move || {
            runtime.shutdown_timeout(RUNTIME_STOP_LIMIT);
            checkpointer.join().is_ok()
        });
        if !matches!(ended, Ok(true)) {
            tracing::warn!("the node's threads did not end in order");
        }
    }
}

/// Runs `work` on a thread of its own and waits for it.
fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, std::io::Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| std::io::Error::other("the thread panicked"))
    })
}

fn open_store(
    options: &NodeOptions,
    identity: Option<Identity>,
    fatal: &Fatal,
) -> Result<Store, StartError> {
    let fatal = fatal.clone();
    let mut store = StoreOptions::new(&options.dir);
    store.identity = identity;
    store.reserve_bytes = options.disk_reserve_bytes;
    store.log_file_bytes = options.log_file_bytes;
    store.log_purge_bytes = options.log_purge_bytes;
    store.on_fatal = Some(Arc::new(move |reason: &str| fatal.raise(reason)));
    Store::open(store).map_err(|error| StartError::Store(error.to_string()))
}

fn start_runtime(options: &NodeOptions, fatal: &Fatal) -> Result<Runtime, StartError> {
    let fatal = fatal.clone();
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(options.threads)
        .thread_name("ackord-raft")
        .on_thread_start(move || fatal.guard_thread())
        .enable_time();
    if options.peers.is_some() {
        builder.enable_io();
    }
    Ok(builder.build()?)
}

async fn start_partitions(
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
                checkpoint::rebuild(&partition, &mut partition.checkpoint.lock())
                    .map_err(|error| not_restored(number, error.to_string()))?;
            }
            Ok(Arc::new(partition))
        };
        tokio::task::spawn_blocking(restoring).await.map_err(std::io::Error::other)??
    };
    let machine = StateMachine { partition: partition.clone() };
    let network = Network { group, node: shared.node, peers: shared.peers.clone() };
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
async fn wait_for_own(shared: &Shared, partitions: &[Arc<Partition>]) -> Result<(), StartError> {
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
        let reading = tokio::task::spawn_blocking(move || snapshot::purgeable(&partition));
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

fn node_info(shared: &Shared) -> NodeInfo {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    match (&shared.options.peers, &shared.peers) {
        (Some(options), Some(peers)) => NodeInfo {
            address: founding::advertised(options, &peers.address()),
            urls: options.urls.clone(),
            zone: options.zone.clone(),
            version,
        },
        _ => NodeInfo { version, ..NodeInfo::default() },
    }
}

/// The graceful stop. What fails here is logged: the log has everything that was acknowledged.
fn stop(shared: &Arc<Shared>, partitions: &[Arc<Partition>], running: Running) {
    let Running { runtime, checkpointer, proposers } = running;
    runtime.block_on(async {
        // First of all: what is queued here then goes to the next leader.
        join_all(partitions.iter().map(hand_over)).await;
        for partition in partitions {
            partition.queue.close();
        }
        let deadline = tokio::time::Instant::now() + DRAIN_LIMIT;
        for proposer in proposers {
            if tokio::time::timeout_at(deadline, proposer).await.is_err() {
                tracing::warn!("a partition did not drain in time");
            }
        }
        for partition in partitions {
            let Some(raft) = partition.raft.get() else { continue };
            let drained = async {
                while partition.in_flight.count() > 0 {
                    partition.queue.wake.notified().await;
                }
            };
            if tokio::time::timeout_at(deadline, drained).await.is_err() {
                tracing::warn!(partition = partition.number, "entries are still on their way");
            }
            partition.leave();
            if let Err(error) = raft.shutdown().await {
                tracing::warn!(partition = partition.number, %error, "raft did not stop in order");
            }
        }
    });
    shared.checkpoints.stop(Stop::Written);
    if checkpointer.join().is_err() {
        tracing::error!("the checkpointer panicked");
    }
    runtime.shutdown_timeout(RUNTIME_STOP_LIMIT);
    if let Some(peers) = &shared.peers {
        peers.save();
    }
    if let Err(error) = shared.store.close() {
        tracing::error!(%error, "the store did not close in order");
    }
}
