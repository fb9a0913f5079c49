//! What the actors of clients and services have in common: the link to the peer, the look at the
//! state, the patience with a silent peer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use ackord_machine::session::{Delivery, Keepalive, KeepaliveAct, Named, View};
use ackord_machine::site::{ClientId, EventKey, InstanceId, Mode, Site, SiteName};
use ackord_replica::PartitionHandle;
use ackord_wire::{Codec, TraceContext, frame};
use bytes::Bytes;
use tokio::time::Instant;

use crate::arbiter::Arbiter;
use crate::broker::Inner;
use crate::connection::{Outbound, Receipt, Transport};
use crate::exactly_once::{Deliveries, Raises};
use crate::hub::{SessionId, SharedIndex, Who};
use crate::metrics::Metrics;
use crate::notice::Notice;
use crate::outbox::{Outbox, Room};
use crate::outcomes::Outcomes;
use crate::seat::Look;
use crate::share::may_have;
use crate::spans::{SessionSpans, Spans};
use crate::trace::Ticket;
use crate::translate::Terms;
use crate::usage::Seat;

/// Transmissions of a subscription in the mode twoway whose acknowledgement is put into the trace, the
/// newest.
const TICKETS_MAX: usize = 64;

/// Counts a session as long as it lives.
pub(crate) struct Counted {
    broker: Arc<Inner>,
    kind: &'static str,
    transport: Transport,
    _seat: Seat,
}

impl Counted {
    /// Takes a place for a session that has its seat; `None` when there is none left for its site.
    pub fn take(
        broker: &Arc<Inner>,
        (kind, transport): (&'static str, Transport),
        seat: Seat,
    ) -> Option<Self> {
        let max = broker.options.sessions_max;
        // Its own seat is one of them.
        let others = (seat.of_site() as usize).saturating_sub(1);
        let take = |count: usize| may_have(others, count, max).then_some(count + 1);
        broker.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        broker.metrics.sessions.with_label_values(&[kind]).inc();
        broker.metrics.opened.with_label_values(&[kind]).inc();
        broker.metrics.transport(transport).inc();
        Some(Self { broker: broker.clone(), kind, transport, _seat: seat })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.broker.metrics.sessions.with_label_values(&[self.kind]).dec();
        self.broker.metrics.transport(self.transport).dec();
        self.broker.sessions.fetch_sub(1, Ordering::AcqRel);
        self.broker.session_ended.notify_waiters();
    }
}

/// How long a peer may be silent.
enum Patience {
    /// It has not said hello; milliseconds until it must.
    Hello(u64),
    /// It is pinged.
    Alive(Keepalive),
}

/// Milliseconds of Unix time.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// See the head of this file.
pub(crate) struct Shell {
    pub broker: Arc<Inner>,
    pub arbiter: Rc<Arbiter>,
    pub partition: PartitionHandle,
    pub index: SharedIndex,
    pub notice: Rc<Notice>,
    pub outcomes: Outcomes,
    pub site: SiteName,
    pub who: Who,
    pub id: SessionId,
    pub codec: Codec,
    /// The session as others see it.
    seat: Rc<dyn Look>,
    /// What was sent and is not committed, by subscription.
    sent: RefCell<Vec<(EventKey, InstanceId, Ticket)>>,
    /// Watch over what the session says.
    /// What is under way and becomes spans; nothing while there is no collector.
    spans: RefCell<Option<Box<SessionSpans>>>,
    pub deliveries: Deliveries,
    pub raises: Raises,
    /// When the peer was last heard: when what it asked for began.
    pub heard: Instant,
    keepalive_s: u32,
    patience: Patience,
    /// When the credentials end, milliseconds of Unix time.
    expires_ms: Option<u64>,
    /// The other nodes as the peer was told of them.
    told: RefCell<Option<Arc<[String]>>>,
    pub outbox: Outbox,
    _counted: Counted,
}

/// What a shell is made of, beside its notice.
pub(crate) struct ShellSetup {
    pub broker: Arc<Inner>,
    pub arbiter: Rc<Arbiter>,
    pub partition: PartitionHandle,
    pub site: SiteName,
    pub outbox: Outbox,
    pub counted: Counted,
    pub seat: Rc<dyn Look>,
    /// When the credentials end, milliseconds of Unix time.
    pub expires_ms: Option<u64>,
}

impl Shell {
    pub fn new(setup: ShellSetup, notice: Rc<Notice>) -> Self {
        let ShellSetup { broker, arbiter, partition, site, outbox, counted, seat, expires_ms } =
            setup;
        let facts = seat.facts();
        let (who, codec, id) = (facts.who.clone(), facts.codec, facts.id);
        tracing::debug!(
            %site, service = who.service(), client = who.client(), peer = &*facts.peer,
            "session opens"
        );
        let index = arbiter.index(&partition);
        index.borrow_mut().enter(&site, id, &who, &notice);
        let hello_ms = broker.options.hello_timeout.as_millis() as u64;
        Self {
            id,
            index,
            outcomes: Outcomes::default(),
            keepalive_s: broker.options.keepalive_s_default,
            patience: Patience::Hello(broker.now_ms() + hello_ms),
            expires_ms,
            broker,
            arbiter,
            partition,
            notice,
            site,
            who,
            codec,
            sent: RefCell::default(),
            spans: RefCell::default(),
            deliveries: Deliveries::default(),
            raises: Raises::default(),
            heard: Instant::now(),
            seat,
            told: RefCell::default(),
            outbox,
            _counted: counted,
        }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.broker.metrics
    }

    /// Puts what a session says into a frame, with what the welcome says besides.
    pub fn with_terms<R>(&self, frame: impl FnOnce(Terms<'_>) -> R) -> R {
        let addresses = || {
            let others = self.broker.others();
            *self.told.borrow_mut() = Some(others.clone());
            self.broker.addresses(&others)
        };
        frame(Terms { keepalive_s: self.keepalive_s, addresses: &addresses })
    }

    /// Looks at the state as applied here.
    pub fn look<R>(&self, look: impl FnOnce(View<'_>) -> R) -> R {
        let (now_ms, stamp) = (self.broker.now_ms(), self.partition.now());
        let stale_ms = self.partition.stale_ms();
        self.partition.read(|state| {
            look(View::new(state, &self.site, now_ms, stamp).confirmed_before(stale_ms))
        })
    }

    /// The peer said hello and asked for this interval between pings.
    pub fn on_hello(&mut self, keepalive_s: Option<u32>) {
        let options = &self.broker.options;
        let wanted = keepalive_s.unwrap_or(options.keepalive_s_default);
        self.keepalive_s = wanted.clamp(options.keepalive_s_min, options.keepalive_s_max);
        let interval_ms = self.keepalive_s.saturating_mul(1000);
        self.patience = Patience::Alive(Keepalive::new(interval_ms, self.broker.now_ms()));
    }

    /// The peer gave a sign of life.
    pub fn on_heard(&mut self) {
        self.heard = Instant::now();
        match &mut self.patience {
            Patience::Alive(keepalive) => keepalive.on_heard(self.broker.ms_at(self.heard)),
            Patience::Hello(_) => {}
        }
    }

    /// Pings a silent peer. What to say when it was silent for too long.
    pub fn on_time(&mut self) -> Option<&'static str> {
        let now_ms = self.broker.now_ms();
        match &mut self.patience {
            Patience::Hello(deadline_ms) => (*deadline_ms <= now_ms).then_some("no hello"),
            Patience::Alive(keepalive) => match keepalive.on_time(now_ms) {
                KeepaliveAct::Wait => None,
                KeepaliveAct::GiveUp => Some("silent for two intervals"),
                KeepaliveAct::Ping => {
                    // A full outbox is a peer that does not read: the silence will tell.
                    let _full = self.outbox.say(Outbound::Ping);
                    None
                }
            },
        }
    }

    /// Whether the credentials are over. The wall clock says so: it may be set meanwhile.
    pub fn has_expired(&self) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= unix_ms())
    }

    /// Whether the peer would hardly find the cluster again if this node were gone: half or more of
    /// the others that it was told of are no members any more, and there are new ones.
    pub fn is_outdated(&self) -> bool {
        let told = self.told.borrow();
        told.as_deref().is_some_and(|told| self.broker.outdates(told))
    }

    /// Sets the session's timer to its own deadline, the end of patience or of the credentials.
    pub fn arm(&self, deadline_ms: Option<u64>) {
        let patience_ms = match &self.patience {
            Patience::Hello(deadline_ms) => *deadline_ms,
            Patience::Alive(keepalive) => keepalive.deadline(),
        };
        let left_ms = self.expires_ms.map(|expires_ms| expires_ms.saturating_sub(unix_ms()));
        // A clock that is behind by a little finds nothing due and looks again.
        let over_ms = left_ms.map(|left_ms| self.broker.now_ms().saturating_add(left_ms.max(1)));
        let deadline_ms = [deadline_ms, over_ms].into_iter().flatten().fold(patience_ms, u64::min);
        self.arbiter.timers.arm(&self.notice, deadline_ms);
    }

    /// Hands a frame to the front if there is room; it is encoded only then. With a receipt the
    /// session is told when the transport has taken it.
    pub fn try_send(&self, frame: impl FnOnce() -> Bytes, receipt: Option<Named>) -> Room {
        match self.outbox.room() {
            Room::Some => {
                let frame = frame();
                self.metrics().sent(frame.len());
                self.outbox.say(match receipt {
                    None => Outbound::Frame(frame),
                    Some(named) => Outbound::Receipted(frame, Receipt::new(&self.notice, named)),
                })
            }
            room @ (Room::Full | Room::Gone) => room,
        }
    }

    /// The peer's address.
    pub fn peer(&self) -> &str {
        &self.seat.facts().peer
    }

    /// Whether the session waits for room in its outbox.
    pub fn set_stalled(&self, stalled: bool) {
        let before = self.seat.facts().stalled.replace(stalled);
        match (before, stalled) {
            (false, true) => self.metrics().stalled.inc(),
            (true, false) => self.metrics().stalled.dec(),
            (false, false) | (true, true) => {}
        }
    }

    /// What of this session becomes spans, if anything does.
    fn spans(&self, note: impl FnOnce(&mut SessionSpans, &Spans)) {
        let spans = &self.broker.spans;
        if spans.is_on() {
            note(self.spans.borrow_mut().get_or_insert_default(), spans);
        }
    }

    /// A raise came in; one without a context may begin a trace here.
    pub fn note_raise(&self, raise: &mut frame::Raise) {
        self.spans(|own, spans| {
            let parse = |parent: &str| TraceContext::parse(parent, raise.tracestate.as_deref());
            let given = raise.traceparent.as_deref().and_then(parse);
            let mut trace = given.clone();
            let Some(begun) = spans.publish(&mut trace) else { return };
            if given.is_none() {
                raise.traceparent = trace.map(|trace| trace.traceparent());
                raise.tracestate = None;
            }
            own.raised(raise.seq, &raise.event, begun);
        });
    }

    /// A raise is about to be answered for good.
    pub fn note_decided(&self, sequence: u64, outcome: &str, instance: Option<InstanceId>) {
        self.spans(|own, spans| {
            let life = || self.look(|view| view.site.map(Site::incarnation));
            let instance = instance.and_then(|id| Some((life()?, id.0)));
            let stored = matches!(outcome, "accepted" | "duplicate");
            let by = self.who.service().unwrap_or_default();
            own.answered(spans, sequence, (&self.site, by), (outcome, instance, stored));
        });
    }

    /// An instance is handed to the front. `subscriptions` bounds what is remembered of it.
    pub fn note_sent(&self, delivery: &Delivery, subscriptions: usize) {
        let client = match &self.who {
            Who::Client(client) => Some(client),
            Who::Stateless | Who::Service(_) => None,
        };
        if delivery.instance.trace.is_some() {
            self.spans(|own, _| own.sent(&self.site, client.map(ClientId::as_str), delivery));
        }
        let ticket = self.broker.trace.sent(&self.site, client, self.id, delivery);
        let most = match delivery.mode {
            Mode::Ordered => 1,
            Mode::Twoway => TICKETS_MAX,
            // Nobody says that it was handled.
            Mode::Oneway | Mode::Batch | Mode::Datagram => return,
        };
        let (event, instance) = (delivery.event, delivery.instance.id);
        let mut sent = self.sent.borrow_mut();
        let of_event = |entry: &(EventKey, InstanceId, Ticket)| entry.0 == event;
        if sent.iter().filter(|entry| of_event(entry)).count() >= most {
            // The newest transmissions are remembered.
            if let Some(oldest) = sent.iter().position(of_event) {
                sent.remove(oldest);
            }
        } else if sent.len() >= subscriptions.saturating_mul(TICKETS_MAX) {
            // What is left of subscriptions that are gone.
            sent.clear();
        }
        sent.push((event, instance, ticket));
    }

    /// The client said that it handled an instance.
    pub fn note_acknowledged(&self, event: EventKey, instance: InstanceId) {
        self.spans(|own, _| own.acknowledged(event, instance));
        let sent = self.sent.borrow();
        for (_, _, ticket) in sent.iter().filter(|(of, id, _)| (*of, *id) == (event, instance)) {
            self.broker.trace.acknowledged(*ticket, instance);
        }
    }

    /// The cursor was committed at an instance, and with it all before.
    pub fn note_committed(&self, event: EventKey, instance: InstanceId) {
        self.spans(|own, spans| own.committed(spans, event, instance));
        let mut sent = self.sent.borrow_mut();
        sent.retain(|(of, id, ticket)| {
            let committed = *of == event && *id <= instance;
            if committed {
                self.broker.trace.committed(*ticket, *id);
            }
            !committed
        });
    }

    /// The last word: there is always room for it.
    pub fn send_close(&self, number: u16, reason: &str) {
        self.outbox.say_last(Outbound::Close { number, reason: reason.to_owned() });
    }

    /// The session ends: nobody wakes it any more.
    pub fn leave(&self, events: &[EventKey]) {
        self.spans(|own, spans| own.over(spans));
        self.set_stalled(false);
        let mut index = self.index.borrow_mut();
        for event in events {
            index.unsubscribe(&self.site, self.id, *event);
        }
        index.leave(&self.site, self.id, &self.who);
        self.arbiter.timers.disarm(&self.notice);
    }
}
