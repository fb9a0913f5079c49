//! Long polls: a client without connection asks for its next event and waits for it, not for long.
//!
//! `question ─▶ linearize ─▶ (stateful) attach, subscribe, as far as needed ─▶ look ─▶ hand out | wait`
//!
//! Invariants:
//! - What is handed out follows from the replicated state alone: the first instance by id behind the
//!   cursors. Nothing changes by it, so a lost answer costs another question and nothing else, at
//!   whatever node.
//! - The state is looked at only after it holds everything that was acknowledged before the question.
//! - A node that no leader confirms hands nothing out, and ends its questions soon.
//! - Of one client one question waits at a node: the newest.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::session::{
    AcceptedSubscription, CUT_OFF_MS, Delivery, STALE_MS, SubscribeItem, refusal_detail,
};
use ackord_machine::site::{
    Advance, AttachPolling, Category, Claim, ClientId, Command, Epoch, EventKey, Generation,
    Incarnation, InstanceId, Mode, Outcome, Position, Principal, Receiver, Refusal, SessionId,
    Site, SiteName, Stamp, Start, Subscribe, SubscribeMode, SubscriptionRequest, TokenId, decide,
};
use ackord_replica::PartitionHandle;
use ackord_wire::{Code, Codec};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::arbiter::Arbiter;
use crate::broker::{Broker, Inner, Refused, session_id};
use crate::connection::Transport;
use crate::hub::{SessionId as Place, SharedIndex, Who};
use crate::notice::{Bell, Notice};
use crate::proposals::propose_until;
use crate::share::may_have;
use crate::shell::Counted;
use crate::trace::Ticket;
use crate::translate::refusal_code;

/// Clients of whom a node remembers what it handed out last, to call it a redelivery; beyond, it
/// forgets them all: who asks again is then handed the same without that word.
const REMEMBERED_MAX: usize = 10_000;
/// How often lists of one client from several nodes may come before each other.
const SUBSCRIBE_TRIES: usize = 4;

/// A question for the next event.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The site.
    pub site: SiteName,
    /// Who asks.
    pub who: Asker,
    /// How long to wait for one.
    pub wait: Duration,
}

/// Who asks for an event.
#[derive(Clone, Debug)]
pub enum Asker {
    /// A registered client, whose cursors the broker keeps.
    Client {
        /// The client.
        client: ClientId,
        /// The token that proved it.
        token: Option<TokenId>,
        /// Subscriptions that are added to its set unless they are in it.
        subscribe: Vec<SubscriptionRequest>,
    },
    /// A guest, who keeps its own.
    Stateless {
        /// Its subscriptions with its positions.
        items: Vec<SubscribeItem>,
    },
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The site's life.
    pub incarnation: Incarnation,
    /// The session; `None` for a guest.
    pub session: Option<(Epoch, SessionId)>,
    /// Where a guest's subscriptions stood when it asked; empty for others.
    pub subscriptions: Vec<AcceptedSubscription>,
    /// The event; `None` when there was none in time.
    pub handed: Option<Handed>,
}

/// An event as it is handed out.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The `event` frame in JSON.
    pub frame: Bytes,
    /// The subscription.
    pub event: EventKey,
    /// Its generation.
    pub generation: Generation,
    /// The instance.
    pub instance: InstanceId,
}

type Client = (SiteName, ClientId);

/// The questions that wait at a node.
#[derive(Default)]
pub(crate) struct Polls {
    count: Mutex<Count>,
    /// By client, how to tell the one that waits that another came.
    waiting: Mutex<HashMap<Client, Arc<Notify>>>,
    last: Mutex<HashMap<Client, Last>>,
}

/// How many wait: all, and of each site.
#[derive(Default)]
struct Count {
    all: usize,
    of_sites: HashMap<SiteName, usize>,
}

impl Count {
    /// Counts one more of this site, if it may be.
    fn take(&mut self, site: &SiteName, max: usize) -> bool {
        let own = self.of_sites.get(site).copied().unwrap_or(0);
        let may = may_have(own, self.all, max);
        if may {
            self.all += 1;
            self.of_sites.insert(site.clone(), own + 1);
        }
        may
    }

    fn give_back(&mut self, site: &SiteName) {
        self.all -= 1;
        if let Some(own) = self.of_sites.get_mut(site) {
            *own -= 1;
            if *own == 0 {
                self.of_sites.remove(site);
            }
        }
    }
}

/// What a client was handed last, and how often.
struct Last {
    named: (Incarnation, EventKey, Generation, InstanceId),
    attempt: u32,
    ticket: Option<Ticket>,
}

impl Polls {
    /// Which transmission of this instance to this client it is, as far as is known here.
    fn attempt(&self, client: &Client, delivery: &Delivery) -> u32 {
        let Delivery { incarnation, event, generation, instance, .. } = delivery;
        let named = (*incarnation, *event, *generation, instance.id);
        let mut last = self.last.lock();
        if let Some(known) = last.get_mut(client).filter(|known| known.named == named) {
            known.attempt = known.attempt.saturating_add(1);
            return known.attempt;
        }
        if last.len() >= REMEMBERED_MAX {
            last.clear();
        }
        last.insert(client.clone(), Last { named, attempt: 1, ticket: None });
        1
    }

    /// Keeps where the transmission that a client was handed last is traced.
    fn traced(&self, client: &Client, ticket: Ticket) {
        if let Some(last) = self.last.lock().get_mut(client) {
            last.ticket = Some(ticket);
        }
    }

    /// Where the transmission is traced that an acknowledgement is of, if this node made it.
    pub fn acknowledged(&self, advance: &Advance) -> Option<Ticket> {
        let Advance { incarnation, event, generation, instance, .. } = advance;
        let named = (*incarnation, *event, *generation, *instance);
        let client = (advance.site.clone(), advance.client.clone());
        self.last.lock().get(&client).filter(|last| last.named == named)?.ticket
    }
}

/// A question's place among those that wait.
struct Waiting {
    broker: Arc<Inner>,
    site: SiteName,
    /// Rung when a newer question of the same client comes.
    newer: Arc<Notify>,
    client: Option<Client>,
}

impl Waiting {
    fn take(broker: &Arc<Inner>, site: &SiteName, client: Option<Client>) -> Result<Self, Refused> {
        let (polls, max) = (&broker.polls, broker.options.polls_max);
        if !polls.count.lock().take(site, max) {
            // How many of others wait is nobody's business.
            let detail = "as many questions of this site wait at this node as may";
            return Err((Code::Busy, detail.to_owned()));
        }
        let newer = Arc::new(Notify::new());
        if let Some(client) = &client
            && let Some(older) = polls.waiting.lock().insert(client.clone(), newer.clone())
        {
            older.notify_one();
        }
        Ok(Self { broker: broker.clone(), site: site.clone(), newer, client })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.broker.polls.count.lock().give_back(&self.site);
        if let Some(client) = &self.client {
            let mut waiting = self.broker.polls.waiting.lock();
            if waiting.get(client).is_some_and(|newer| Arc::ptr_eq(newer, &self.newer)) {
                waiting.remove(client);
            }
        }
    }
}

/// Wakes a question, as the hub wakes sessions.
struct Wakes {
    arbiter: Rc<Arbiter>,
    index: SharedIndex,
    notice: Rc<Notice>,
    rung: Rc<Notify>,
    site: SiteName,
    id: Place,
    who: Who,
    events: Vec<EventKey>,
}

impl Wakes {
    fn new(broker: &Broker, partition: &PartitionHandle, site: &SiteName, who: Who) -> Self {
        let arbiter = broker.arbiter();
        let (index, id) = (arbiter.index(partition), broker.inner().next_session());
        let rung = Rc::new(Notify::new());
        let notice = Rc::new(Notice::new(Bell::Task(rung.clone())));
        index.borrow_mut().enter(site, id, &who, &notice);
        let site = site.clone();
        Self { arbiter, index, notice, rung, site, id, who, events: Vec::new() }
    }

    /// Makes the hub wake the question for these events.
    fn follow(&mut self, wanted: Vec<EventKey>) {
        if wanted == self.events {
            return;
        }
        let mut index = self.index.borrow_mut();
        for event in self.events.iter().filter(|event| !wanted.contains(event)) {
            index.unsubscribe(&self.site, self.id, *event);
        }
        for event in wanted.iter().filter(|event| !self.events.contains(event)) {
            index.subscribe(&self.site, self.id, *event, &self.notice);
        }
        drop(index);
        self.events = wanted;
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        let mut index = self.index.borrow_mut();
        for event in &self.events {
            index.unsubscribe(&self.site, self.id, *event);
        }
        index.leave(&self.site, self.id, &self.who);
    }
}

/// On which terms a question waits.
struct Terms {
    receiver: Receiver,
    token: Option<TokenId>,
    /// When that ends by itself.
    expires: Option<Stamp>,
    epoch: Epoch,
    incarnation: Incarnation,
    session: Option<SessionId>,
    /// Where a guest stands.
    subscriptions: Vec<AcceptedSubscription>,
}

/// What a look at the state comes to.
enum Look {
    Hand(Delivery),
    Wait,
}

impl Broker {
    /// Waits for the next event of whoever asks, see the head of `polling.rs`. To be called on an
    /// arbiter; dropping the future withdraws the question.
    ///
    /// # Errors
    /// `not-registered`, `access-denied`, `bad-credentials` or `site-blank` for those who may not
    /// ask; `replaced` when another session or question of the same client came; what is refused of
    /// the subscriptions; `busy`, `limit-reached`, `shutting-down`, `unavailable`.
    pub async fn next(&self, ask: Ask) -> Result<Turn, Refused> {
        let inner = self.inner();
        let Ask { site, who, wait } = ask;
        let deadline = Instant::now() + wait;
        let client = match &who {
            Asker::Client { client, .. } => Some((site.clone(), client.clone())),
            Asker::Stateless { .. } => None,
        };
        let waiting = Waiting::take(inner, &site, client)?;
        let full = || (Code::LimitReached, "the node has all its sessions".to_owned());
        let owner = match &who {
            Asker::Client { client, .. } => Some(Principal::Client(client.clone())),
            Asker::Stateless { .. } => None,
        };
        let seat = inner.usage.take(&site, owner, &self.quotas(site.as_str()));
        let seat = seat.map_err(|full| {
            (Code::QuotaExceeded, format!("quota {}: at most {}", full.quota, full.most))
        })?;
        let _counted =
            Counted::take(inner, ("poll", Transport::LongPoll), seat).ok_or_else(full)?;
        let partition = self.partition(&site);
        let hub_name = match &who {
            Asker::Client { client, .. } => Who::Client(client.clone()),
            Asker::Stateless { .. } => Who::Stateless,
        };
        let mut wakes = Wakes::new(self, &partition, &site, hub_name);
        let preparing = self.prepare(&partition, &site, who);
        let terms = tokio::select! {
            terms = preparing => terms?,
            () = waiting.newer.notified() => return Err(newer_question()),
        };
        loop {
            if *inner.shutdown.borrow() || wakes.notice.take().shutdown {
                return Err((Code::ShuttingDown, "the node is shutting down".to_owned()));
            }
            let (now, stale_ms) = (partition.now(), partition.stale_ms());
            let look = partition.read(|state| {
                let site = state.site(site.as_str());
                wakes.follow(terms.events(site));
                terms.look(site, now.max(state.clock()), stale_ms)
            })?;
            if let Look::Hand(delivery) = look {
                return Ok(self.hand(&wakes, &waiting, terms, delivery));
            }
            tokio::select! {
                () = wakes.rung.notified() => {}
                () = waiting.newer.notified() => return Err(newer_question()),
                () = tokio::time::sleep_until(deadline) => return Ok(terms.turn(None)),
            }
        }
    }

    /// Makes sure of who asks, of its session and its subscriptions.
    async fn prepare(
        &self,
        partition: &PartitionHandle,
        site: &SiteName,
        who: Asker,
    ) -> Result<Terms, Refused> {
        self.confirm(site.as_str()).await.map_err(|_unavailable| cut_off())?;
        match who {
            Asker::Stateless { items } => {
                let judged = |site: &Site| Terms::of_guest(site, &items);
                partition.read(|state| state.site(site.as_str()).map(judged)).ok_or_else(no_site)?
            }
            Asker::Client { client, token, subscribe } => {
                let epoch = self.attached(partition, site, &client).await?;
                self.subscribed(partition, site, &client, epoch, subscribe).await?;
                partition.read(|state| {
                    let site = state.site(site.as_str()).ok_or_else(no_site)?;
                    let row = site.client(client.as_str()).ok_or_else(no_client)?;
                    let shown = token.as_ref().and_then(|id| site.token(id.as_str()));
                    let expires = shown.and_then(|row| row.expires);
                    Ok(Terms {
                        receiver: Receiver::Client(client.clone()),
                        token,
                        expires,
                        epoch,
                        incarnation: site.incarnation(),
                        session: row.sessions.last().copied(),
                        subscriptions: Vec::new(),
                    })
                })
            }
        }
    }

    /// The epoch of the client's session: of the one that lasts, or of a new one.
    async fn attached(
        &self,
        partition: &PartitionHandle,
        site: &SiteName,
        client: &ClientId,
    ) -> Result<Epoch, Refused> {
        let lasts_ms = self.inner().options.polling_session.as_millis() as u32;
        let now = partition.now();
        // It is made to last longer when half of its time is over, not at each question.
        let fresh = Stamp(now.0.saturating_add(u64::from(lasts_ms / 2)));
        let (above, lasting) = partition.read(|state| {
            let site = state.site(site.as_str()).ok_or_else(no_site)?;
            let row = site.client(client.as_str()).ok_or_else(no_client)?;
            site.admits(&Receiver::Client(client.clone())).map_err(|refusal| refused(&refusal))?;
            let polling = site.polling(client).filter(|polling| polling.epoch == row.epoch);
            Ok((row.epoch, polling.is_some_and(|polling| fresh < polling.until)))
        })?;
        if lasting {
            return Ok(above);
        }
        let claim = Claim { session: session_id(), above };
        let (site, client) = (site.clone(), client.clone());
        let attach = AttachPolling { site, client, claim, lasts_ms };
        let patience = self.inner().options.admin_deadline;
        match propose_until(partition, Command::AttachPolling(attach), patience).await? {
            Outcome::ClientAttached { epoch, .. } => Ok(epoch),
            other => Err((Code::Internal, format!("unexpected answer to attach: {other:?}"))),
        }
    }

    /// Adds what the client names to its set, as far as it is not there.
    async fn subscribed(
        &self,
        partition: &PartitionHandle,
        name: &SiteName,
        client: &ClientId,
        epoch: Epoch,
        wanted: Vec<SubscriptionRequest>,
    ) -> Result<(), Refused> {
        for _ in 0..SUBSCRIBE_TRIES {
            let (listed, items) = partition.read(|state| {
                let site = state.site(name.as_str()).ok_or_else(no_site)?;
                let row = site.client(client.as_str()).ok_or_else(no_client)?;
                let missing = |item: &&SubscriptionRequest| {
                    let event = site.event_named(item.event.as_str());
                    event.and_then(|event| site.subscription(client, event.key)).is_none()
                };
                let missing: Vec<_> = wanted.iter().filter(missing).cloned().collect();
                Ok((row.listed, missing))
            })?;
            if items.is_empty() {
                return Ok(());
            }
            // The same number from another node is a list that came before: it is looked at again.
            let (site, client, number) = (name.clone(), client.clone(), listed + 1);
            let mode = SubscribeMode::Add;
            let list = Command::Subscribe(Subscribe { site, client, epoch, number, mode, items });
            // All or none: what is refused of it leaves nothing behind.
            let now = partition.now();
            all_subscribed(partition.read(|state| decide(state, now, &list).outcome))?;
            let patience = self.inner().options.admin_deadline;
            all_subscribed(propose_until(partition, list, patience).await?)?;
        }
        Err((Code::Busy, "other questions of this client subscribe at the same time".to_owned()))
    }

    fn hand(&self, wakes: &Wakes, waiting: &Waiting, terms: Terms, mut delivery: Delivery) -> Turn {
        let metrics = &self.inner().metrics;
        if let Some(client) = &waiting.client {
            delivery.attempt = self.inner().polls.attempt(client, &delivery);
        }
        metrics.delivered(delivery.attempt, delivery.age_ms);
        let client = waiting.client.as_ref();
        let of = client.map(|(_, client)| client);
        let ticket = self.inner().trace.sent(&waiting.site, of, wakes.id, &delivery);
        if let Some(client) = client {
            self.inner().polls.traced(client, ticket);
        }
        let frame = wakes.arbiter.cache.borrow_mut().frame(&delivery, Codec::Json);
        let Delivery { event, generation, instance, .. } = delivery;
        terms.turn(Some(Handed { frame, event, generation, instance: instance.id }))
    }
}

impl Terms {
    /// Judges a guest and its positions.
    fn of_guest(site: &Site, items: &[SubscribeItem]) -> Result<Self, Refused> {
        let receiver = Receiver::Stateless;
        site.admits(&receiver).map_err(|refusal| refused(&refusal))?;
        let (incarnation, head) = (site.incarnation(), site.head());
        let mut subscriptions = Vec::with_capacity(items.len());
        for SubscribeItem { request, resume, quality: _ } in items {
            let name = &request.event;
            let told = |refusal: Refusal| {
                let (code, detail) = refused(&refusal);
                (code, format!("{name}: {detail}"))
            };
            let event = site.event_named(name.as_str()).ok_or(Refusal::UnknownEvent);
            let event = event.map_err(told)?;
            if event.definition.kind.category() == Category::Private {
                return Err(told(Refusal::AccessDenied));
            }
            let valid = resume.map(|position| {
                position.incarnation == incarnation
                    && position.generation == Generation(0)
                    && position.instance <= head
            });
            let instance = match (resume, valid, request.start) {
                (Some(position), Some(true), _) => position.instance,
                (None, _, Start::Latest) => head,
                (Some(_), _, _) | (None, _, Start::Earliest) => InstanceId(0),
            };
            subscriptions.push(AcceptedSubscription {
                name: name.clone(),
                event: event.key,
                position: Position { incarnation, generation: Generation(0), instance },
                granted: site.may_receive(event.key, &receiver),
                resumed: valid,
                mode: Mode::Ordered,
            });
        }
        let (token, expires, epoch, session) = (None, None, Epoch(0), None);
        Ok(Self { receiver, token, expires, epoch, incarnation, session, subscriptions })
    }

    /// The events that the question is about.
    fn events(&self, site: Option<&Site>) -> Vec<EventKey> {
        match (&self.receiver, site) {
            (Receiver::Client(client), Some(site)) => {
                site.subscriptions(client).map(|row| row.event).collect()
            }
            (Receiver::Stateless, Some(_)) => {
                self.subscriptions.iter().map(|subscription| subscription.event).collect()
            }
            (_, None) => Vec::new(),
        }
    }

    /// Whether the terms still hold, and what there is to hand out.
    fn look(&self, site: Option<&Site>, now: Stamp, stale_ms: u64) -> Result<Look, Refused> {
        if stale_ms >= CUT_OFF_MS {
            return Err(cut_off());
        }
        let site = site.ok_or_else(no_site)?;
        if let Receiver::Client(client) = &self.receiver {
            self.is_newest(site, client)?;
        }
        site.admits(&self.receiver).map_err(|refusal| refused(&refusal))?;
        if self.expires.is_some_and(|at| at <= now) {
            return Err((Code::CredentialsExpired, "the token has expired".to_owned()));
        }
        let valid = |token: &TokenId| site.valid_token(token.as_str(), now).is_some();
        if !self.token.as_ref().is_none_or(valid) {
            return Err((Code::BadCredentials, "the token was revoked".to_owned()));
        }
        if site.incarnation() != self.incarnation {
            return Err((Code::SiteRebuilt, "the site was rebuilt".to_owned()));
        }
        // Its end is known by a wake, like its beginning.
        if stale_ms >= STALE_MS {
            return Ok(Look::Wait);
        }
        let found = match &self.receiver {
            Receiver::Client(client) => {
                let cursors = site.subscriptions(client).map(|row| (row.event, row.cursor));
                site.next_of(cursors, &self.receiver, now)
            }
            Receiver::Stateless => {
                let of = |it: &AcceptedSubscription| (it.event, it.position.instance);
                site.next_of(self.subscriptions.iter().map(of), &self.receiver, now)
            }
        };
        let delivery = found.and_then(|instance| {
            let definition = &site.event(instance.event)?.definition;
            let generation = match &self.receiver {
                Receiver::Client(client) => site.subscription(client, instance.event)?.generation,
                Receiver::Stateless => Generation(0),
            };
            Some(Delivery {
                event: instance.event,
                name: definition.name.clone(),
                category: definition.kind.category(),
                incarnation: site.incarnation(),
                generation,
                attempt: 1,
                age_ms: now.0.saturating_sub(instance.created.0),
                mode: Mode::Ordered,
                instance: instance.clone(),
            })
        });
        Ok(delivery.map_or(Look::Wait, Look::Hand))
    }

    /// Whether the client is there, and its session its newest.
    fn is_newest(&self, site: &Site, client: &ClientId) -> Result<(), Refused> {
        let row = site.client(client.as_str()).ok_or_else(no_client)?;
        match row.epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Equal => Ok(()),
            // Nobody took over: the client may ask again.
            std::cmp::Ordering::Greater if row.sessions.last() == Some(&SessionId::KICKED) => {
                Err((Code::Kicked, "an administrator ended the session".to_owned()))
            }
            std::cmp::Ordering::Greater => {
                let detail = format!("a newer session, epoch {}, took over", row.epoch);
                Err((Code::Replaced, detail))
            }
            // It was deleted and created again.
            std::cmp::Ordering::Less => Err(no_client()),
        }
    }

    fn turn(self, handed: Option<Handed>) -> Turn {
        let session = self.session.map(|session| (self.epoch, session));
        let Self { incarnation, subscriptions, .. } = self;
        Turn { incarnation, session, subscriptions, handed }
    }
}

/// Whether a list was taken as a whole.
fn all_subscribed(outcome: Outcome) -> Result<(), Refused> {
    let results = match outcome {
        Outcome::Subscribed(results) => results,
        Outcome::Refused(refusal) => return Err(refused(&refusal)),
        other => {
            return Err((Code::Internal, format!("unexpected answer to subscribe: {other:?}")));
        }
    };
    results.into_iter().try_for_each(|result| match result.result {
        Ok(_) => Ok(()),
        // What is wrong is a parameter that all events share.
        Err(refusal @ (Refusal::Invalid(_) | Refusal::BadQuality(_))) => Err(refused(&refusal)),
        Err(refusal) => {
            let (code, detail) = refused(&refusal);
            Err((code, format!("{}: {detail}", result.event)))
        }
    })
}

fn refused(refusal: &Refusal) -> Refused {
    (refusal_code(refusal), refusal_detail(refusal))
}

fn no_site() -> Refused {
    (Code::NotRegistered, "the site does not exist".to_owned())
}

fn no_client() -> Refused {
    (Code::NotRegistered, "the client was deleted".to_owned())
}

fn newer_question() -> Refused {
    (Code::Replaced, "another question of the same client came to this node".to_owned())
}

fn cut_off() -> Refused {
    (Code::Unavailable, "this node is cut off from the others: try another one".to_owned())
}
