//! The facade that the front uses: open sessions, authenticate, administer, read.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ackord_machine::session::{ClientSession, Modes, ServiceSession, SessionOptions};
use ackord_machine::site::{
    AdminAction, Administer, Advance, Command, Digest, DirectoryCommand, InstanceId, NodeState,
    Outcome, Place, Principal, Quotas, Receiver, RequestId, Restore, Row, SessionId, Site,
    SiteName, SiteSettings, Stamp, TokenId, decide,
};
use ackord_replica::{Node, PartitionHandle};
use ackord_wire::Code;
use ackord_wire::frame::{ClientMessage, ServiceMessage};
use futures_util::Stream;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::agent::AgentSetup;
use crate::arbiter::Arbiter;
use crate::asked::Gather;
use crate::client::ClientAgent;
use crate::confirm::Confirmations;
use crate::connection::{Connection, Inbound, Outbound, Transport};
use crate::hub::Who;
use crate::metrics::Metrics;
use crate::options::BrokerOptions;
use crate::outbox::Outbox;
use crate::polling::Polls;
use crate::proposals;
use crate::push::Pushes;
use crate::record::Recorder;
use crate::seat::Wall;
use crate::service::ServiceAgent;
use crate::share::may_have;
use crate::shell::Counted;
use crate::spans::Spans;
use crate::trace::Ledger;
use crate::usage::{Full, Usage};
use crate::{token, translate};

/// How many sessions of a node that stops come to the others per second.
const RECONNECTS_PER_SECOND: u64 = 2000;
/// The longest that such a session waits, milliseconds.
const SPREAD_MS_MAX: u64 = 10_000;

/// A refusal as the front reports it: the stable code and a detail for a person. The detail of
/// `invalid` is `<path of the field>: <rule>`, for instance `events[3].size: 1..=1000, was 1001`.
pub type Refused = (Code, String);

/// The broker of one node. Cloning copies a pointer.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

/// What all sessions of a node share, whatever their arbiter.
pub(crate) struct Inner {
    /// Tells brokers of one process apart.
    pub id: u64,
    pub node: Arc<Node>,
    /// Where its sessions are.
    pub place: Place,
    pub options: BrokerOptions,
    pub metrics: Arc<Metrics>,
    pub origin: Instant,
    pub sessions: AtomicUsize,
    /// Where each arbiter of this broker takes questions.
    pub arbiters: Mutex<Vec<mpsc::Sender<Gather>>>,
    pub wall: Wall,
    /// What was sent lately.
    pub trace: Ledger,
    pub session_ended: Notify,
    /// The reads that are confirmed on behalf of those who are not known here.
    confirming: Confirmations,
    /// What is to be recorded of refused attempts.
    pub record: Recorder,
    /// The connections of each site.
    pub usage: Arc<Usage>,
    pub shutdown: watch::Sender<bool>,
    /// Questions for a next event that wait.
    pub polls: Polls,
    /// What push agents share.
    pub pushes: Arc<Pushes>,
    /// Where spans go.
    pub spans: Spans,
    /// Sessions when the shutdown began.
    leaving: AtomicUsize,
    /// As they were when somebody last asked, so that sessions share one list.
    others: Mutex<Arc<[String]>>,
}

impl Inner {
    /// When a session that ends now because of the shutdown should come again elsewhere,
    /// milliseconds: spread, so that the other nodes are not overrun.
    pub fn come_again_ms(&self) -> u64 {
        let sessions = self.leaving.load(Ordering::Acquire) as u64;
        let spread = (sessions * 1000 / RECONNECTS_PER_SECOND).min(SPREAD_MS_MAX);
        u64::from_le_bytes(token::random()) % (spread + 1)
    }

    /// A number for a new session: random, so that it does not tell what others do on this node.
    pub fn next_session(&self) -> crate::hub::SessionId {
        // Below 2^53, so that every JSON reader keeps it.
        u64::from_le_bytes(token::random()) >> 11
    }

    /// The partition that holds the site.
    pub fn partition_of(&self, site: &SiteName) -> PartitionHandle {
        self.node.partition_of(site)
    }

    /// Milliseconds of a monotonic clock.
    pub fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    /// A moment of that clock.
    pub fn ms_at(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_millis() as u64
    }

    /// The addresses of the other nodes of the cluster.
    pub fn others(&self) -> Arc<[String]> {
        let now = self.node.other_urls();
        let mut others = self.others.lock();
        if **others != *now {
            *others = now.into();
        }
        others.clone()
    }

    /// Where else endpoints may go: configured, and these other nodes.
    pub fn addresses(&self, others: &[String]) -> Vec<String> {
        self.options.addresses.iter().chain(others).cloned().collect()
    }

    /// Whether whoever was told of these other nodes is to be told anew. What is configured stays.
    pub fn outdates(&self, told: &[String]) -> bool {
        if !self.options.addresses.is_empty() {
            return false;
        }
        let others = self.others();
        let kept = told.iter().filter(|url| others.contains(url)).count();
        kept * 2 <= told.len() && others.iter().any(|url| !told.contains(url))
    }

    /// Proposes what a session leaves behind.
    pub fn propose_last(&self, partition: &PartitionHandle, command: Command) {
        proposals::propose_last(partition, command);
    }
}

static LAST_BROKER: AtomicU64 = AtomicU64::new(0);

impl Broker {
    /// A broker on top of a running node.
    pub fn new(node: Arc<Node>, options: BrokerOptions) -> Self {
        let metrics = Arc::new(Metrics::new(&node));
        let pushes = Arc::new(Pushes::new(options.push.clone(), metrics.clone()));
        let spans = Spans::begin(&options.spans, node.id(), metrics.clone());
        let spans = spans.unwrap_or_else(|error| {
            tracing::error!(error, "spans are not exported");
            Spans::default()
        });
        let place = Place { node: node.id(), run: u64::from_le_bytes(token::random()) };
        let inner = Inner {
            place,
            id: LAST_BROKER.fetch_add(1, Ordering::Relaxed),
            node,
            metrics,
            origin: Instant::now(),
            sessions: AtomicUsize::new(0),
            arbiters: Mutex::default(),
            wall: Wall::begin(),
            trace: Ledger::new(options.trace_entries),
            session_ended: Notify::new(),
            confirming: Confirmations::default(),
            polls: Polls::default(),
            pushes,
            spans,
            shutdown: watch::Sender::new(false),
            record: Recorder::default(),
            usage: Arc::default(),
            leaving: AtomicUsize::new(0),
            others: Mutex::default(),
            options,
        };
        let broker = Self { inner: Arc::new(inner) };
        broker.measure_mailboxes();
        broker.answer_others();
        broker
    }

    /// Shows what waits in the queues between the parts of the node.
    fn measure_mailboxes(&self) {
        const NAME: &str = "ackord_mailbox_depth";
        let inner = Arc::downgrade(&self.inner);
        self.inner.metrics.registry().read([NAME], move |sheet| {
            let Some(inner) = inner.upgrade() else { return };
            let figures = inner.node.figures();
            let proposals: u64 = figures.groups.iter().map(|group| group.queued_commands).sum();
            let waits =
                |arbiter: &mpsc::Sender<Gather>| arbiter.max_capacity() - arbiter.capacity();
            let questions: usize = inner.arbiters.lock().iter().map(waits).sum();
            sheet.put(NAME, &["proposals"], proposals as f64);
            sheet.put(NAME, &["log"], figures.log_requests as f64);
            sheet.put(NAME, &["questions"], questions as f64);
        });
    }

    /// The node below.
    pub fn node(&self) -> &Arc<Node> {
        &self.inner.node
    }

    /// Where spans go.
    pub fn spans(&self) -> &Spans {
        &self.inner.spans
    }

    /// How it serves.
    pub fn options(&self) -> &BrokerOptions {
        &self.inner.options
    }

    /// Ends the sessions of services that an earlier run of this node left behind when it was
    /// killed. Tries until that is known to have happened, or this broker stops.
    pub async fn end_left_behind(&self) {
        let mut stopping = self.inner.shutdown.subscribe();
        let work = join_all(self.inner.node.partitions().into_iter().map(|partition| async move {
            proposals::end_left_behind(&partition, self.inner.place).await;
        }));
        tokio::select! {
            _done = work => {}
            _stop = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Whether another session may be opened: `limit-reached` or `shutting-down` if not.
    ///
    /// # Errors
    /// The code to answer with, best before the connection is upgraded.
    pub fn accepts(&self) -> Result<(), Code> {
        if *self.inner.shutdown.borrow() {
            Err(Code::ShuttingDown)
        } else if self.sessions() >= self.inner.options.sessions_max {
            Err(Code::LimitReached)
        } else {
            Ok(())
        }
    }

    /// As [`Broker::accepts`], of this site: no site may have nearly all of a node's sessions.
    ///
    /// # Errors
    /// As [`Broker::accepts`].
    pub fn accepts_of(&self, site: &str) -> Result<(), Code> {
        self.accepts()?;
        let own = self.connections(site) as usize;
        let may = may_have(own, self.sessions(), self.inner.options.sessions_max);
        if may { Ok(()) } else { Err(Code::LimitReached) }
    }

    /// Who the bearer of this token is, on this site. One that this node does not know is looked for
    /// again after everything that was acknowledged before the call: another node may have taken it
    /// in just now.
    ///
    /// # Errors
    /// `bad-credentials`, whatever the reason; `unavailable` when that cannot be confirmed now.
    pub async fn authenticate(&self, site: &str, token: &str) -> Result<Principal, Code> {
        let (id, given) = token::parse(token).ok_or(Code::BadCredentials)?;
        if let Some(principal) = self.bearer(site, &id, &given) {
            return Ok(principal);
        }
        self.confirm(site).await?;
        self.bearer(site, &id, &given).ok_or(Code::BadCredentials)
    }

    /// Whose token this is, as applied on this node.
    fn bearer(&self, site: &str, id: &TokenId, given: &Digest) -> Option<Principal> {
        let known = self.read_site(site, |site, now| {
            site.valid_token(id.as_str(), now).map(|row| (row.hash, row.principal.clone()))
        });
        // An unknown token is compared too: the time does not tell which half was wrong.
        let (kept, principal) = known.flatten().unzip();
        let same = token::same(given, &kept.unwrap_or(Digest([0; 32])));
        principal.filter(|_| same)
    }

    /// Waits until reads of the site on this node see everything that was acknowledged before the
    /// call, before somebody is turned away for good. A change of leader is waited for.
    ///
    /// # Errors
    /// `unavailable` when that cannot be confirmed within [`BrokerOptions::confirm_deadline`].
    pub async fn confirm(&self, site: &str) -> Result<(), Code> {
        let partition = self.partition(&SiteName::from(site));
        // However many are turned away at once, the leader is asked by one at a time.
        let confirming = self.inner.confirming.confirm(&partition);
        let deadline = self.inner.options.confirm_deadline;
        tokio::time::timeout(deadline, confirming).await.map_err(|_elapsed| Code::Unavailable)
    }

    /// Does an administrative act, retried under one request id until its fate is known.
    ///
    /// # Errors
    /// What the site's rules refuse, or `busy`, `unavailable`, `unknown-outcome`.
    pub async fn admin(&self, site: &SiteName, action: AdminAction) -> Result<Outcome, Refused> {
        self.admin_as(site, RequestId(token::random()), action).await
    }

    /// As [`Broker::admin`], under a request id of the caller: a repeat of an act under its id
    /// gets the first answer for as long as the state remembers it.
    ///
    /// # Errors
    /// As [`Broker::admin`].
    pub async fn admin_as(
        &self,
        site: &SiteName,
        request: RequestId,
        action: AdminAction,
    ) -> Result<Outcome, Refused> {
        let command = Command::Admin { request, site: site.clone(), action };
        let patience = self.inner.options.admin_deadline;
        proposals::propose_until(&self.partition(site), command, patience).await
    }

    /// As [`Broker::admin_as`], on somebody's behalf and if the object is as expected. What was done
    /// is recorded.
    ///
    /// # Errors
    /// As [`Broker::admin`]; `precondition-failed` when the object is not as expected.
    pub async fn administer(&self, asked: Administer) -> Result<Outcome, Refused> {
        let partition = self.partition(&asked.site);
        let patience = self.inner.options.admin_deadline;
        proposals::propose_until(&partition, Command::Administer(asked), patience).await
    }

    /// Whether the site would take an administrative act as it is now; a site that does not exist
    /// is thought of as made with these settings. Changes nothing.
    ///
    /// # Errors
    /// What the site's rules refuse.
    pub fn consider(
        &self,
        site: &SiteName,
        action: AdminAction,
        settings: SiteSettings,
    ) -> Result<(), Refused> {
        let request = RequestId(token::random());
        let command = Command::Admin { request, site: site.clone(), action };
        proposals::consider(&self.partition(site), site, &command, settings)
    }

    /// Every row of a partition's sites that exist at one moment, after everything that was acknowledged before
    /// the call; `None` for a partition that is not there.
    ///
    /// # Errors
    /// `unavailable` when that cannot be confirmed now.
    pub async fn rows(&self, partition: u32) -> Result<Option<Vec<Row>>, Code> {
        let index = partition.checked_sub(1).map(|index| index as usize);
        let Some(handle) =
            index.and_then(|index| self.inner.node.partitions().into_iter().nth(index))
        else {
            return Ok(None);
        };
        handle.linearize().await.map_err(|_| Code::Unavailable)?;
        Ok(Some(handle.read(|state| state.rows_of_sites().collect())))
    }

    /// Puts a part of a site back from a backup. A part that is put again is harmless.
    ///
    /// # Errors
    /// As [`Broker::admin`]; `already-exists` when the site is there, `conflict` when another attempt
    /// has begun or another part comes next.
    pub async fn restore(&self, restore: Restore) -> Result<(), Refused> {
        let partition = self.partition(&restore.site);
        let patience = self.inner.options.admin_deadline;
        let command = Command::Restore(restore);
        proposals::propose_until(&partition, command, patience).await.map(drop)
    }

    /// Changes a group as a whole, retried until its fate is known: 0 is the directory of nodes, the
    /// others are the partitions. The command must be harmless when it is decided twice.
    ///
    /// # Errors
    /// As [`Broker::admin`].
    pub async fn change_group(&self, group: u32, command: Command) -> Result<Outcome, Refused> {
        let node = &self.inner.node;
        let handle = match group.checked_sub(1) {
            None => node.directory(),
            Some(index) => node.partitions().swap_remove(index as usize),
        };
        proposals::propose_until(&handle, command, self.inner.options.admin_deadline).await
    }

    /// Lets every session go, which finds another node, and then makes it known that this node leaves its
    /// cluster. It takes no session again. A node that may not leave keeps its sessions.
    ///
    /// # Errors
    /// As [`Broker::change_group`].
    pub async fn leave(&self) -> Result<Outcome, Refused> {
        let (id, state) = (self.inner.node.id(), NodeState::Leaving);
        let command = Command::Directory(DirectoryCommand::SetState { id, state });
        let directory = self.inner.node.directory();
        let now = directory.now();
        proposals::judged(directory.read(|state| decide(state, now, &command).outcome))?;
        self.shutdown().await;
        self.change_group(0, command).await
    }

    /// Moves a cursor for a client that acknowledges past its session, wherever that is; where the
    /// cursor stands then. Retried until its fate is known: a repeat is harmless.
    ///
    /// # Errors
    /// `replaced` for an older session's, `conflict` for another life or generation's, what else the
    /// site's rules refuse, or `busy`, `unavailable`, `unknown-outcome`.
    pub async fn acknowledge(&self, advance: Advance) -> Result<InstanceId, Refused> {
        self.inner.metrics.acks.inc();
        let partition = self.partition(&advance.site);
        let patience = self.inner.options.admin_deadline;
        let (traced, instance) = (self.inner.polls.acknowledged(&advance), advance.instance);
        if let Some(ticket) = traced {
            self.inner.trace.acknowledged(ticket, instance);
        }
        let command = Command::Acknowledge(advance);
        match proposals::propose_until(&partition, command, patience).await? {
            Outcome::Advanced { cursor } => {
                if let Some(ticket) = traced {
                    self.inner.trace.committed(ticket, instance);
                }
                Ok(cursor)
            }
            other => Err((Code::Internal, format!("unexpected answer to an ack: {other:?}"))),
        }
    }

    /// Looks at a site as applied on this node; `None` when there is none of this name.
    pub fn read_site<R>(&self, site: &str, look: impl FnOnce(&Site, Stamp) -> R) -> Option<R> {
        let partition = self.partition(&SiteName::from(site));
        let now = partition.now();
        partition.read(|state| state.site(site).map(|site| look(site, now)))
    }

    /// As [`Broker::read_site`], after everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `unavailable` when that cannot be confirmed now.
    pub async fn read_site_linearizable<R>(
        &self,
        site: &str,
        look: impl FnOnce(&Site, Stamp) -> R,
    ) -> Result<Option<R>, Code> {
        let partition = self.partition(&SiteName::from(site));
        partition.linearize().await.map_err(|_| Code::Unavailable)?;
        Ok(self.read_site(site, look))
    }

    /// Looks at every site as applied on this node, partition by partition, by name within each.
    pub fn read_all(&self, mut look: impl FnMut(&Site)) {
        for partition in self.inner.node.partitions() {
            partition.read(|state| state.sites().for_each(&mut look));
        }
    }

    /// As [`Broker::read_all`], after everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `unavailable` when that cannot be confirmed now.
    pub async fn read_all_linearizable(&self, look: impl FnMut(&Site)) -> Result<(), Code> {
        for partition in self.inner.node.partitions() {
            partition.linearize().await.map_err(|_| Code::Unavailable)?;
        }
        self.read_all(look);
        Ok(())
    }

    /// Starts the session of a service on this arbiter. It owns the frames; what it has to say,
    /// refusals included, goes to the connection's outbox.
    pub fn open_service(
        &self,
        connection: Connection,
        frames: impl Stream<Item = Inbound> + 'static,
    ) {
        let encode = |closing| connection.codec.encode(&ServiceMessage::Closing(closing));
        let Some(Principal::Service(service)) = connection.principal.clone() else {
            let detail = "the token is not a service's";
            return self.refuse(&connection.outbox, Code::AccessDenied, detail, encode);
        };
        let Some(counted) = self.place(&connection, "service", encode) else { return };
        let (site, credential) = (connection.site.clone(), connection.token.clone());
        let mut session = ServiceSession::new(site, service.clone(), credential, session_id());
        self.read_site(connection.site.as_str(), |site, _| session.on_opened(site));
        ServiceAgent::open(session, self.setup(connection, Who::Service(service), counted), frames);
    }

    /// Starts the session of a client on this arbiter, see [`Broker::open_service`]; its identity.
    pub fn open_client(
        &self,
        connection: Connection,
        frames: impl Stream<Item = Inbound> + 'static,
    ) -> SessionId {
        let id = session_id();
        self.open_client_as(id, connection, frames);
        id
    }

    fn open_client_as(
        &self,
        id: SessionId,
        connection: Connection,
        frames: impl Stream<Item = Inbound> + 'static,
    ) {
        let encode = |closing| connection.codec.encode(&ClientMessage::Closing(closing));
        let (receiver, who, kind) = match connection.principal.clone() {
            None => (Receiver::Stateless, Who::Stateless, "stateless"),
            Some(Principal::Client(client)) => {
                (Receiver::Client(client.clone()), Who::Client(client), "client")
            }
            Some(
                Principal::Admin
                | Principal::Operator
                | Principal::Observer
                | Principal::Service(_),
            ) => {
                let detail = "the token is not a client's";
                return self.refuse(&connection.outbox, Code::AccessDenied, detail, encode);
            }
        };
        let Some(counted) = self.place(&connection, kind, encode) else { return };
        let options = SessionOptions {
            ack_timeout_ms: self.inner.options.ack_timeout_ms_default,
            modes: match connection.transport {
                Transport::WebSocket => Modes::All,
                Transport::EventStream | Transport::LongPoll => Modes::Ordered,
            },
        };
        let (site, credential) = (connection.site.clone(), connection.token.clone());
        let mut session = ClientSession::new(site, receiver, credential, id, options);
        self.read_site(connection.site.as_str(), |site, _| session.on_opened(site));
        ClientAgent::open(session, self.setup(connection, who, counted), frames);
    }

    /// What a site may use, as applied on this node.
    pub fn quotas(&self, site: &str) -> Quotas {
        self.read_site(site, |site, _| site.quotas().clone()).unwrap_or_default()
    }

    /// Connections of a site on this node.
    pub fn connections(&self, site: &str) -> u64 {
        self.inner.usage.connections(site)
    }

    /// Whether the site's quotas leave room for a connection of this account; `None` is a guest.
    ///
    /// # Errors
    /// The quota that is used up.
    pub fn has_room(&self, site: &str, principal: &Option<Principal>) -> Result<(), Full> {
        self.inner.usage.has_room(&SiteName::from(site), principal, &self.quotas(site))
    }

    /// The nodes that vote in the partition of a site, as this node sees it.
    pub fn replicas(&self, site: &str) -> Vec<u64> {
        let number = self.partition(&SiteName::from(site)).number();
        let cluster = self.inner.node.cluster();
        let group = cluster.groups.into_iter().find(|group| group.group == number);
        group.map(|group| group.voters).unwrap_or_default()
    }

    /// Sessions that are open on this node.
    pub fn sessions(&self) -> usize {
        self.inner.sessions.load(Ordering::Acquire)
    }

    /// Closes every session as `shutting-down`, refuses new ones, and waits until they ended or
    /// [`BrokerOptions::shutdown_deadline`] has passed. The node goes on.
    pub async fn shutdown(&self) {
        self.inner.leaving.store(self.sessions(), Ordering::Release);
        self.inner.shutdown.send_replace(true);
        let ended = async {
            loop {
                let next = self.inner.session_ended.notified();
                if self.sessions() == 0 {
                    return;
                }
                next.await;
            }
        };
        if tokio::time::timeout(self.inner.options.shutdown_deadline, ended).await.is_err() {
            tracing::warn!(sessions = self.sessions(), "sessions did not end in time");
        }
        self.inner.pushes.ended().await;
    }

    /// The node's metrics in Prometheus text format; with the names of sites where somebody may see
    /// them. Looks at the disk and at every subscription: not for a thread that must not wait.
    pub fn metrics_text(&self, with_names: bool) -> String {
        self.inner.metrics.registry().text(with_names)
    }

    pub(crate) fn partition(&self, site: &SiteName) -> PartitionHandle {
        self.inner.partition_of(site)
    }

    fn place(
        &self,
        connection: &Connection,
        kind: &'static str,
        encode: impl FnOnce(ackord_wire::frame::Closing) -> Vec<u8>,
    ) -> Option<Counted> {
        let outbox = &connection.outbox;
        if *self.inner.shutdown.borrow() {
            self.refuse(outbox, Code::ShuttingDown, "the node is shutting down", encode);
            return None;
        }
        let (site, owner) = (&connection.site, connection.principal.clone());
        let seat = match self.inner.usage.take(site, owner, &self.quotas(site.as_str())) {
            Ok(seat) => seat,
            Err(full) => {
                let detail = format!("quota {}: at most {}", full.quota, full.most);
                self.refuse(outbox, Code::QuotaExceeded, &detail, encode);
                return None;
            }
        };
        let counted = Counted::take(&self.inner, (kind, connection.transport), seat);
        if counted.is_none() {
            self.refuse(outbox, Code::LimitReached, "the node has all its sessions", encode);
        }
        counted
    }

    /// Says why there is no session.
    fn refuse(
        &self,
        outbox: &Outbox,
        code: Code,
        detail: &str,
        encode: impl FnOnce(ackord_wire::frame::Closing) -> Vec<u8>,
    ) {
        self.inner.metrics.refused(code);
        let (closing, close) = translate::closing_with(code, detail);
        // A fresh outbox has room for it; when it has not, dropping it says the same.
        let _said = outbox.say(Outbound::Frame(encode(closing).into()));
        let reason = close.code.as_str().to_owned();
        outbox.say_last(Outbound::Close { number: close.number, reason });
    }

    /// What the sessions of this thread share.
    pub(crate) fn arbiter(&self) -> Rc<Arbiter> {
        let inner = &self.inner;
        Arbiter::of(inner)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    fn setup(&self, connection: Connection, who: Who, counted: Counted) -> AgentSetup {
        let inner = &self.inner;
        AgentSetup {
            broker: inner.clone(),
            arbiter: self.arbiter(),
            partition: self.partition(&connection.site),
            connection,
            who,
            counted,
        }
    }
}

/// The identity of a new session, which no other has.
pub(crate) fn session_id() -> SessionId {
    SessionId(u64::from_le_bytes(token::random()))
}
