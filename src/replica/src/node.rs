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
use ackord_store::{DiskUsage, Identity, Store, StoreOptions};
use ackord_tls::Refreshed;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
#[cfg(test)]
use openraft::BasicNode;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use crate::blocking::stay_here;
use crate::checkpoint::{self, CheckpointSignal, Stop};
use crate::counters::{Counters, NodeCounters};
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::founding::{self, Agreed, Beginning};
use crate::ground::Wall;
use crate::handle::PartitionHandle;
use crate::handover::hand_over;
use crate::keeper;
use crate::log::SyncHook;
use crate::mover;
use crate::options::NodeOptions;
use crate::partition::{Continuity, Partition, Shared};
use crate::peer::{Answerer, AskError, Listening, Peers};
use crate::placement::{partition_of, settle_partitions};
use crate::proposer;
use crate::recover;
use crate::starting::{start_partitions, wait_for_own};
use crate::succession;
use crate::time::Time;
use crate::view::{self, ClusterView};

/// How long a graceful stop waits for the commands that were accepted.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a stop waits for tasks that do not end by themselves.
const RUNTIME_STOP_LIMIT: Duration = Duration::from_secs(5);

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
    /// `None` when the node runs on somebody else's.
    threads: Option<Threads>,
    proposers: Vec<tokio::task::JoinHandle<()>>,
}

/// What a node runs on.
struct Threads {
    runtime: Runtime,
    checkpointer: JoinHandle<()>,
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

    /// As [`Node::start`] for a simulation, which gives [`NodeOptions::ground`]: the node runs on the
    /// runtime that is current, in its time, and ends with it. The calling thread does
    /// everything of it from now on, but for what the store has threads for.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_here(options: NodeOptions) -> Result<Self, StartError> {
        options.validate()?;
        if options.ground.is_none() {
            let detail = "only a simulation has its own".into();
            return Err(StartError::Options { field: "ground", detail });
        }
        stay_here();
        let fatal = Fatal::new(options.on_fatal.clone());
        let (mut node, proposers) = Self::begin(options, &Hooks::default(), fatal).await?;
        let (shared, partitions) = (node.shared.clone(), node.partitions.clone());
        tokio::spawn(checkpoint::run_here(shared, partitions));
        *node.running.get_mut() = Some(Running { threads: None, proposers });
        Ok(node)
    }

    pub(crate) fn start_with(options: NodeOptions, hooks: Hooks) -> Result<Self, StartError> {
        options.validate()?;
        // A thread of its own: the caller may be on an async runtime, where blocking on another
        // one is not possible.
        on_thread("ackord-start", move || Self::start_blocking(options, &hooks))?
    }

    fn start_blocking(options: NodeOptions, hooks: &Hooks) -> Result<Self, StartError> {
        if options.ground.is_some() {
            let detail = "only for a start on the runtime that is current".into();
            return Err(StartError::Options { field: "ground", detail });
        }
        let fatal = Fatal::new(options.on_fatal.clone());
        let runtime = start_runtime(&options, &fatal)?;
        let (mut node, proposers) = runtime.block_on(Self::begin(options, hooks, fatal))?;
        let checkpointer = {
            let (shared, partitions) = (node.shared.clone(), node.partitions.clone());
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("ackord-checkpoint".into())
                .spawn(move || checkpoint::run(&shared, &partitions, &handle))?
        };
        let threads = Some(Threads { runtime, checkpointer });
        *node.running.get_mut() = Some(Running { threads, proposers });
        Ok(node)
    }

    /// Everything of a start but the threads.
    async fn begin(
        options: NodeOptions,
        hooks: &Hooks,
        fatal: Fatal,
    ) -> Result<(Self, Vec<tokio::task::JoinHandle<()>>), StartError> {
        let mut options = options;
        let listening = match &options.peers {
            Some(peers) => Some(Listening::open(peers, options.ground.as_ref()).await?),
            None => None,
        };
        let mut beginning = match (&options.peers, &listening) {
            (Some(peers), Some(listening)) if hooks.identity.is_none() => {
                founding::begin(&options, peers, listening).await?
            }
            _ => Beginning::default(),
        };
        let store = open_store(&options, hooks.identity.or(beginning.identity), &fatal)?;
        let wanted = beginning.partitions.unwrap_or(options.partitions);
        options.partitions = settle_partitions(&store, wanted, options.peers.is_some()).await?;
        if options.peers.is_none() {
            beginning.agreed = Some(Agreed::alone(store.identity(), options.partitions));
        }
        if options.peers.is_some() && recover::is_renewal_due(&options.dir) {
            let detail = "its log lost entries that were durable: replace the node".into();
            return Err(StartError::Options { field: "peers", detail });
        }
        let time = Arc::new(Time::new(Wall::of(options.ground.as_ref())));
        let peers = match (&options.peers, listening) {
            (Some(peers), Some(listening)) => {
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
        let partitions = start_partitions(&shared, founding, hooks).await?;
        let proposers = partitions
            .iter()
            .filter_map(|partition| {
                let raft = partition.raft.get()?.clone();
                Some(tokio::spawn(proposer::run(partition.clone(), raft)))
            })
            .collect();
        let info = node_info(&shared);
        // A test founds its clusters itself, without a directory.
        if hooks.identity.is_none() {
            tokio::spawn(keeper::run(partitions[0].clone(), beginning.agreed, info));
        }
        match &shared.peers {
            Some(peers) => {
                peers.serve(&partitions);
                tokio::spawn(mover::run(shared.clone(), partitions.clone()));
                tokio::spawn(succession::run(partitions.clone(), peers.dead()));
            }
            // With others to be waited for, a start does not wait: see `ready`.
            None => {
                wait_for_own(&shared, &partitions).await?;
                if recover::is_renewal_due(&shared.options.dir) {
                    recover::renewed(&shared.options.dir)?;
                }
            }
        }
        Ok((Self { shared, partitions, running: Mutex::default() }, proposers))
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
    /// closes the store. Idempotent. Blocks for that long. A node on somebody else's runtime is left
    /// as when it is dropped.
    pub fn shutdown(&self) {
        let Some(Running { threads, proposers }) = self.running.lock().take() else { return };
        let Some(threads) = threads else { return self.close_queues() };
        let (shared, partitions) = (self.shared.clone(), self.partitions.clone());
        let stopped =
            on_thread("ackord-stop", move || stop(&shared, &partitions, threads, proposers));
        if let Err(error) = stopped {
            tracing::error!(%error, "the node did not stop in order; the log has everything");
        }
    }

    /// Takes nothing any more, and writes nothing that can wait for the next start.
    fn close_queues(&self) {
        self.partitions.iter().for_each(|partition| partition.queue.close());
        self.shared.checkpoints.stop(Stop::Now);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(Running { threads, proposers }) = self.running.lock().take() else { return };
        drop(proposers);
        self.close_queues();
        // Waits only for what a thread is in the middle of, so that the store closes with the last
        // handle.
        let Some(Threads { runtime, checkpointer }) = threads else { return };
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
    store.turns = options.ground.as_ref().map(|ground| ground.turns.clone());
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
fn stop(
    shared: &Arc<Shared>,
    partitions: &[Arc<Partition>],
    threads: Threads,
    proposers: Vec<tokio::task::JoinHandle<()>>,
) {
    let Threads { runtime, checkpointer } = threads;
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
