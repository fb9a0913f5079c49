//! How nodes reach each other: one listener, one connection per pair and direction for all groups.
//!
//! ```text
//! group ─▶ RaftPeer ─┐
//! proposer ─▶ Forwarder ─┼▶ PeerLinks ─▶ Link ═ TCP, TLS, hello, HTTP/2 ═▶ Listener ─▶ Partition
//! reader ─▶ read index ─┘
//! ```
//!
//! - `hello`: who may talk to whom; before anything else is parsed.
//! - `remembered`: how far the stores of others were, to know a disk that went back.
//! - `codec`, `wire`: the messages.
//! - `link`: keeps a connection up. A second one per peer carries snapshots, so that bulk never
//!   delays a heartbeat.
//! - `append`, `network`: raft's calls; appends are pipelined on one stream per group and target.
//! - `forward`: proposals go to the leader in one hop.
//! - `ask`: questions of the layer above to its counterpart on another node.
//! - `snapshot`: whole states, in pieces, resumable.
//! - `server`: the listening side of all of it.
//! - `stranger`: what a node that is no member yet asks and is told.
//!
//! Everything is bounded, and nothing here is retried: a call that broke says so.

mod append;
mod ask;
mod codec;
mod forward;
pub(crate) mod fuzz;
mod hello;
mod io;
mod link;
mod network;
mod options;
mod pace;
#[cfg(test)]
mod probe;
mod remembered;
mod server;
mod snapshot;
mod stranger;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ackord_store::Store;
use ackord_tls::{Refreshed, Reloading};
use bytes::Bytes;
use openraft::BasicNode;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

pub use ask::{ANSWER_BYTES_MAX, Answerer, AskError, QUESTION_BYTES_MAX};
pub(crate) use forward::{Forwarder, refuse};
pub(crate) use network::Network;
pub use options::{PeerOptions, PeerTls};
pub(crate) use stranger::{Ask, Founding, Told};
#[cfg(test)]
pub(crate) use {forward::accept_commands, probe::Garbage};

use self::ask::Answers;
use self::io::Line;
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::ground::{Ground, PeerListener, Wall};
use crate::partition::Partition;
use crate::time::Time;
use crate::types::NodeId;
use hello::{Disk, Hello, Myself, Refusal};
use link::{CallError, Link};
use options::TlsSetup;
use remembered::Remembered;
use wire::{Answer, Call};

/// The largest message; what is longer is not read.
pub(crate) const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// What a stream may hold that its reader has not taken.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// How long a read index may take: a heartbeat to a majority.
const READ_INDEX_LIMIT: Duration = Duration::from_secs(2);

/// What every connection of a node needs.
pub(super) struct Context {
    myself: Myself,
    /// Where connections come from.
    from: IpAddr,
    tls: Option<Arc<Reloading<TlsSetup>>>,
    ground: Option<Ground>,
    connections_max: usize,
    runtime: tokio::runtime::Handle,
    clocks: Mutex<BTreeMap<NodeId, i64>>,
    time: Arc<Time>,
    /// Nodes that were connected and now refuse connections.
    dead: watch::Sender<BTreeSet<NodeId>>,
    removed: Mutex<BTreeSet<NodeId>>,
    known: Mutex<BTreeMap<NodeId, Caller>>,
    /// The version that each node was found to speak with this one, and the oldest of them.
    speaks: Mutex<BTreeMap<NodeId, u8>>,
    oldest: AtomicU8,
    /// Whether another node has said that this one is no member any more.
    told_removed: AtomicBool,
    appends_in_flight_peak: AtomicUsize,
    answers: Answers,
    store: Store,
    /// How far the store was when this process began.
    began: u64,
    remembered: Arc<Remembered>,
    fatal: Fatal,
}

/// A node that has connected to this one.
struct Caller {
    /// The run of its process.
    run: u64,
    /// Where it said that it can be reached.
    at: String,
    /// Its connections that may still stand.
    lines: Vec<Weak<Line>>,
}

impl Context {
    /// A connection to a node was made in this version.
    fn agreed(&self, node: NodeId, version: u8) {
        let mut speaks = self.speaks.lock();
        speaks.insert(node, version);
        self.find_oldest(&speaks);
    }

    fn forget_versions(&self, removed: &BTreeSet<NodeId>) {
        let mut speaks = self.speaks.lock();
        speaks.retain(|node, _| !removed.contains(node));
        self.find_oldest(&speaks);
    }

    fn find_oldest(&self, speaks: &BTreeMap<NodeId, u8>) {
        let own = *self.myself.versions.end();
        let oldest = speaks.values().copied().fold(own, u8::min);
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Whether a node may connect, beside what its hello says.
    fn admits(&self, hello: &Hello) -> Result<(), Refusal> {
        let (node, run) = hello.who();
        if self.removed.lock().contains(&node) {
            return Err(Refusal::Removed { node });
        }
        let known = self.known.lock();
        let stands = |line: &Weak<Line>| line.upgrade().is_some_and(|line| !line.has_gone());
        match known.get(&node) {
            Some(caller) if caller.run != run && caller.lines.iter().any(stands) => {
                Err(Refusal::Twice { node })
            }
            Some(_) | None => self.remember(node, hello.disk()),
        }
    }

    /// A node says how far its store is.
    fn remember(&self, node: NodeId, disk: Option<Disk>) -> Result<(), Refusal> {
        disk.map_or(Ok(()), |disk| self.remembered.heard(node, disk.run, disk.stored))
    }

    /// Another node says that this one's disk is older than it was.
    fn went_back(&self, peer: NodeId, known: u64) {
        let began = self.began;
        // What it refused may be an old word of a process before this one.
        if began < known {
            self.fatal.raise(&format!(
                "the disk is older than what this node has told node {peer}: {began} durable writes, \
                 {known} before. It is an older copy, or it loses what it calls durable, and the \
                 votes and events with it that others count on: put a node on an empty disk in its \
                 place (ackord cluster replace)"
            ));
        }
    }

    /// How far this node's store is.
    fn stored(&self) -> u64 {
        self.store.written()
    }

    /// Writes down what was heard of others' stores, now and then.
    fn save_when_due(&self) {
        if self.remembered.is_due() {
            let remembered = self.remembered.clone();
            crate::blocking::begin(&self.runtime, move || remembered.save());
        }
    }

    /// A node has connected.
    fn called(&self, hello: &Hello, line: &Arc<Line>) {
        let (node, run) = hello.who();
        let mut known = self.known.lock();
        let caller = known.entry(node).or_insert_with(|| Caller {
            run,
            at: String::new(),
            lines: Vec::new(),
        });
        (caller.run, caller.at) = (run, hello.at().to_owned());
        caller.lines.retain(|line| line.strong_count() > 0);
        caller.lines.push(Arc::downgrade(line));
    }

    /// Where a node last said that it can be reached.
    fn place_of(&self, node: NodeId) -> Option<String> {
        self.known.lock().get(&node).map(|caller| caller.at.clone())
    }

    /// The clock of a node was read.
    fn heard(&self, peer: NodeId, difference_ms: i64) {
        self.clocks.lock().insert(peer, difference_ms);
        self.time.heard(peer, difference_ms);
    }

    /// Whether a node that was connected refuses connections now.
    fn set_dead(&self, peer: NodeId, dead: bool) {
        self.dead.send_if_modified(
            |known| {
                if dead { known.insert(peer) } else { known.remove(&peer) }
            },
        );
    }
}

/// A socket that other nodes can reach, before it is known which node this is.
pub(crate) struct Listening {
    pub(crate) tls: Option<Arc<Reloading<TlsSetup>>>,
    pub(crate) listener: PeerListener,
    pub(crate) address: SocketAddr,
    pub(crate) ground: Option<Ground>,
}

impl Listening {
    /// Loads the certificates and listens.
    pub(crate) async fn open(
        options: &PeerOptions,
        ground: Option<&Ground>,
    ) -> Result<Self, StartError> {
        let tls = options.tls.as_ref().map(TlsSetup::load).transpose()?.map(Arc::new);
        let listener = PeerListener::bind(ground, options.listen).await.map_err(|error| {
            StartError::Options {
                field: "peers.listen",
                detail: format!("{}: {error}", options.listen),
            }
        })?;
        let address = listener.local_addr()?;
        Ok(Self { tls, listener, address, ground: ground.cloned() })
    }

    /// Asks whoever listens at `address`.
    pub(crate) async fn ask(&self, address: &str, question: &Ask) -> std::io::Result<Told> {
        let tls = self.tls.as_ref().map(|tls| tls.current());
        stranger::ask(self.ground.as_ref(), self.address.ip(), tls.as_deref(), address, question)
            .await
    }

    /// Takes one connection, and gives up whoever says nothing.
    pub(crate) async fn accept(&self) -> Option<(Visitor, Ask)> {
        let tcp = self.listener.accept().await.ok()?;
        let greeting = async {
            tcp.set_nodelay()?;
            let mut stream = match &self.tls {
                None => io::Stream::Plain(tcp),
                Some(tls) => {
                    let tls = tls.current().acceptor.accept(tcp).await?;
                    io::Stream::Tls(Box::new(tls.into()))
                }
            };
            let greeting = hello::greeting(&mut stream).await?;
            std::io::Result::Ok((stream, greeting))
        };
        match tokio::time::timeout(server::HELLO_LIMIT, greeting).await {
            // A member comes again: this node does not know yet whether it is one.
            Ok(Ok((_, hello::Greeting::Member(_)))) | Err(_) => None,
            Ok(Ok((stream, hello::Greeting::Stranger(ask)))) => Some((Visitor::new(stream), ask)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection is refused");
                None
            }
        }
    }
}

/// A stranger that waits for an answer.
pub(crate) struct Visitor {
    stream: io::Stream,
}

impl Visitor {
    fn new(stream: io::Stream) -> Self {
        Self { stream }
    }

    pub(crate) async fn tell(mut self, told: &Told) {
        if let Err(error) = hello::tell(&mut self.stream, told).await {
            tracing::debug!(%error, "an answer was not taken");
        }
    }
}

/// This node's connections to others.
pub(crate) struct Peers {
    context: Arc<Context>,
    links: Mutex<HashMap<NodeId, Weak<PeerLinks>>>,
    listener: Mutex<Option<PeerListener>>,
    address: SocketAddr,
}

impl Peers {
    /// Nobody is served before [`Peers::serve`].
    pub(crate) fn new(
        options: &PeerOptions,
        listening: Listening,
        store: Store,
        fatal: Fatal,
        time: Arc<Time>,
    ) -> Arc<Self> {
        let Listening { tls, listener, address, ground } = listening;
        let newest = options.compat_version.unwrap_or(*hello::VERSIONS.end());
        let context = Context {
            from: address.ip(),
            answers: Answers::of(ground.is_some()),
            time,
            dead: watch::Sender::default(),
            myself: Myself {
                identity: store.identity(),
                versions: *hello::VERSIONS.start()..=newest,
                clock_skew_max: options.clock_skew_max,
                at: crate::founding::advertised(options, &address),
                run: RandomState::new().hash_one(address),
                wall: Wall::of(ground.as_ref()),
            },
            tls,
            ground,
            connections_max: options.connections_max,
            runtime: tokio::runtime::Handle::current(),
            clocks: Mutex::default(),
            removed: Mutex::default(),
            known: Mutex::default(),
            speaks: Mutex::default(),
            oldest: AtomicU8::new(newest),
            told_removed: AtomicBool::new(false),
            appends_in_flight_peak: AtomicUsize::new(0),
            began: store.written(),
            remembered: Arc::new(Remembered::load(store.dir())),
            store,
            fatal,
        };
        Arc::new(Self {
            context: Arc::new(context),
            links: Mutex::default(),
            address,
            listener: Mutex::new(Some(listener)),
        })
    }

    /// Whether all nodes that were heard, this one too, know raises with a trace context. One that was not
    /// heard yet may be older: while there are such, `compat_version` says so.
    pub(crate) fn know_traces(&self) -> bool {
        self.context.oldest.load(Ordering::Relaxed) >= hello::TRACES
    }

    /// The nodes that were connected and now refuse connections.
    pub(crate) fn dead(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.context.dead.subscribe()
    }

    /// Whether another node has said that this one is no member any more.
    pub(crate) fn told_removed(&self) -> bool {
        self.context.told_removed.load(Ordering::Relaxed)
    }

    /// Nodes that are no members any more: nothing is heard from them.
    pub(crate) fn set_removed(&self, removed: BTreeSet<NodeId>) {
        self.context.forget_versions(&removed);
        self.context.remembered.forget(&removed);
        let mut known = self.context.known.lock();
        for caller in removed.iter().filter_map(|node| known.remove(node)) {
            caller.lines.iter().filter_map(Weak::upgrade).for_each(|line| line.close());
        }
        drop(known);
        *self.context.removed.lock() = removed;
    }

    /// Looks at the certificate files again; `None` without certificates. Connections that stand
    /// are not touched.
    pub(crate) fn refresh_certificates(&self) -> Option<Refreshed> {
        self.context.tls.as_ref().map(|tls| tls.refresh())
    }

    /// The end of this node's certificate, seconds of Unix time.
    pub(crate) fn certificate_not_after(&self) -> Option<i64> {
        self.context.tls.as_ref()?.current().not_after
    }

    /// Writes down what was heard of others' stores. Blocks.
    pub(crate) fn save(&self) {
        self.context.remembered.save();
    }

    /// Where this node listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Each peer's wall clock minus ours, milliseconds, as last compared.
    pub(crate) fn clock_differences(&self) -> BTreeMap<NodeId, i64> {
        self.context.clocks.lock().clone()
    }

    /// Takes what other nodes ask of the partitions from now on. Once.
    pub(crate) fn serve(&self, partitions: &[Arc<Partition>]) {
        if let Some(listener) = self.listener.lock().take() {
            server::start(&self.context, listener, partitions);
        }
    }

    /// The connections to a node, shared by all who want it at the same address.
    pub(crate) fn links(&self, peer: NodeId, node: &BasicNode) -> Arc<PeerLinks> {
        let mut links = self.links.lock();
        if let Some(known) = links.get(&peer).and_then(Weak::upgrade)
            && known.address == node.addr
        {
            return known;
        }
        links.retain(|_, known| known.strong_count() > 0);
        let opened = Arc::new(PeerLinks {
            peer,
            address: node.addr.clone(),
            main: Link::open(&self.context, peer, &node.addr),
            bulk: OnceLock::new(),
            asking: Semaphore::new(ask::ASKED_MAX),
            context: self.context.clone(),
        });
        links.insert(peer, Arc::downgrade(&opened));
        opened
    }

    /// Whether there is a connection to this node now.
    pub(crate) fn is_up(&self, peer: NodeId) -> bool {
        let links = self.links.lock().get(&peer).and_then(Weak::upgrade);
        links.is_some_and(|links| links.is_up())
    }

    /// Answers the questions of other nodes from now on; only the first answerer counts.
    pub(crate) fn answer(&self, answerer: Answerer) -> std::io::Result<()> {
        self.context.answers.begin(answerer)
    }

    /// Asks a node once.
    pub(crate) async fn ask(
        &self,
        peer: NodeId,
        question: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, AskError> {
        let links = self.links.lock().get(&peer).and_then(Weak::upgrade);
        let Some(links) = links else {
            return Err(AskError::Unreachable(format!("no connection to node {peer}")));
        };
        let asked = self.run(async move { ask::ask(&links, question, deadline).await }).await;
        asked.unwrap_or_else(|| Err(AskError::Unreachable("this node is stopping".into())))
    }

    /// The nodes that this one keeps connections to, by number.
    pub(crate) fn linked(&self) -> BTreeSet<NodeId> {
        let links = self.links.lock();
        links.iter().filter(|(_, held)| held.strong_count() > 0).map(|(peer, _)| *peer).collect()
    }

    /// Runs what must not depend on the caller's runtime.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.context.runtime.spawn(work).await.ok()
    }

    /// The most appends that were under way to one member at the same time.
    #[cfg(test)]
    pub(crate) fn appends_in_flight_peak(&self) -> usize {
        self.context.appends_in_flight_peak.load(Ordering::Relaxed)
    }
}

/// The connections to one node; closed when nobody holds them any more.
pub(crate) struct PeerLinks {
    pub(super) peer: NodeId,
    address: String,
    main: Link,
    /// Made when the first snapshot is sent or the first question asked.
    bulk: OnceLock<Link>,
    /// Bounds the questions that wait for their answers.
    asking: Semaphore,
    context: Arc<Context>,
}

impl PeerLinks {
    fn bulk(&self) -> &Link {
        self.bulk.get_or_init(|| Link::open(&self.context, self.peer, &self.address))
    }

    fn appends_in_flight(&self, count: usize) {
        self.context.appends_in_flight_peak.fetch_max(count, Ordering::Relaxed);
    }

    /// Whether the node can be reached now.
    pub(crate) fn is_up(&self) -> bool {
        self.main.is_up()
    }

    /// Asks the leader up to where a read has to see.
    pub(crate) async fn read_index(&self, group: u32) -> Result<u64, CallError> {
        match self.main.call(Call::ReadIndex { group }, READ_INDEX_LIMIT).await? {
            Answer::ReadIndex(index) => Ok(index),
            Answer::Clock { .. }
            | Answer::Pulse { .. }
            | Answer::Voted(_)
            | Answer::Transferred(_)
            | Answer::Received(_)
            | Answer::Installed(_)
            | Answer::Refused(_) => Err(CallError::confused()),
        }
    }
}
