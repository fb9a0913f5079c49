//! The subscribe machine: everything a client endpoint decides, without clock, network or disk.
//!
//! ```text
//! event ─▶ handled before? ─ yes ─▶ ack
//!             └─ no ─▶ waiting ─▶ handler ─ Ok ─▶ position in the store ─▶ ack
//!                                    └─ Err ─▶ nack with a delay
//! ```
//!
//! Inputs are wire frames, returns of handlers, confirmations of the store and the time; outputs
//! are wire frames, calls, position changes and what the application hears, in the order of
//! [`Subscribe::poll`]. Equal inputs give equal outputs, so a simulator can drive it.
//!
//! Invariants: a handler never runs twice at once for a subscription that asks for no more; an
//! instance that was handled in the same incarnation and generation is acknowledged without a
//! call; an acknowledgement follows the handler's return, and at CPL-2 the confirmation of the store.
//!
//! Deliberately absent: connecting (see [`crate::reconnect`]), persisting (see [`crate::cpl`]), and
//! any judgement of the broker's choice of instances.

mod lane;
mod modes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ackord_wire::codec::set_hash;
use ackord_wire::frame::{
    self, Ack, ClientFrame, ClientHello, ClientMessage, ClientWelcome, Closing, EventMessage, Nack,
    Position, Subscribed, SubscribedItem, SubscriptionList,
};
use ackord_wire::limits::ACK_TIMEOUT_MS_DEFAULT;
use ackord_wire::{Code, Payload, TraceContext};

use crate::cpl::{PositionChange, Positions};
use crate::entropy::Entropy;
use crate::event::{Delivery, Flow, HandlerError, Subscription};
use crate::notice::{ClientNotice, ResetReason};
use crate::publish::{Then, WELCOME_TIMEOUT_MS};
use crate::spl::Finding;
use lane::{Lane, Ready, Work, life};
pub use modes::BACKLOG_MAX;

/// The first delay after a handler's failure that names none, milliseconds; doubled per failure.
pub const HANDLER_BACKOFF_MS_MIN: u64 = 1_000;
/// The longest delay after a handler's failure that names none, milliseconds.
pub const HANDLER_BACKOFF_MS_MAX: u64 = 60_000;
/// Events without a handler that are remembered as told, at most.
const UNHANDLED_MAX: usize = 1_000;

/// Whether the broker knows the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// It keeps the client's subscriptions and cursors. `exact`: the set becomes exactly ours.
    Stateful {
        /// Whether other subscriptions of the client are removed.
        set: SetRule,
    },
    /// It keeps nothing: the client presents its positions.
    Stateless,
}

/// What becomes of subscriptions that the broker has and this client does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetRule {
    /// They are removed with their cursors.
    Exact,
    /// They stay.
    Add,
}

/// Options of the machine.
#[derive(Clone, Debug)]
pub struct SubscribeOptions {
    /// Whether the broker knows the client.
    pub account: Account,
    /// The subscriptions; events are unique.
    pub subscriptions: Vec<Subscription>,
    /// Handlers that run at once.
    pub concurrency: usize,
    /// Shown to the operator.
    pub hostname: String,
    /// Seconds between pings that are asked for.
    pub keepalive_s: Option<u32>,
    /// The first delay after a handler's failure, milliseconds.
    pub handler_backoff_ms: u64,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            account: Account::Stateful { set: SetRule::Exact },
            subscriptions: Vec::new(),
            concurrency: 1024,
            hostname: String::new(),
            keepalive_s: None,
            handler_backoff_ms: HANDLER_BACKOFF_MS_MIN,
        }
    }
}

/// Something to be done, in this order.
#[derive(Clone, Debug)]
pub enum SubscribeOutput {
    /// Send a frame.
    Send(ClientFrame),
    /// Call the handler of a subscription (its place in the options); answer with
    /// [`Subscribe::returned`]. Never two at once for one subscription that asks for no more.
    Call {
        /// Which subscription: its place, plus a multiple of their number where several handlers of
        /// it run at once.
        lane: usize,
        /// What came.
        delivery: Delivery,
    },
    /// Give changes to the store; answer with [`Subscribe::persisted`]. Only one at a time.
    Persist(Vec<PositionChange>),
    /// Tell the application.
    Notice(ClientNotice),
    /// Give up the connection; the machine has forgotten it already.
    Close(Then),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Down,
    /// `hello` is sent.
    Greeting {
        since_ms: u64,
    },
    Open,
}

/// The machine. See the [module](self).
#[derive(Clone, Debug)]
pub struct Subscribe {
    options: SubscribeOptions,
    entropy: Entropy,
    lanes: Vec<Lane>,
    by_event: BTreeMap<String, usize>,
    by_number: BTreeMap<u32, usize>,
    /// Stored positions of events without a subscription here.
    orphans: BTreeSet<String>,
    unhandled: BTreeSet<String>,
    session: Session,
    durable: bool,
    /// What goes to the store next, and the lanes that wait for it.
    changes: Vec<PositionChange>,
    saving: Vec<usize>,
    /// The lanes whose positions are with the store; `Some` while a batch is there.
    stored: Option<Vec<usize>>,
    ready: Ready,
    running: usize,
    /// When a lane's handler has worked long enough to say so.
    working: BTreeSet<(u64, usize)>,
    paused: bool,
    closing: bool,
    /// A `Close` is among the outputs.
    given_up: bool,
    outputs: VecDeque<SubscribeOutput>,
}

impl Subscribe {
    /// A machine over what a store held; `durable`: positions go to a store (CPL-2).
    pub fn new(
        options: SubscribeOptions,
        durable: bool,
        stored: Positions,
        entropy: Entropy,
    ) -> Self {
        let mut positions: BTreeMap<String, Position> = stored.positions.into_iter().collect();
        let lanes: Vec<Lane> = options
            .subscriptions
            .iter()
            .map(|item| Lane::new(item.clone(), positions.remove(&item.event)))
            .collect();
        let mut lanes = lanes;
        for (event, position) in stored.above {
            let lane = lanes.iter_mut().find(|lane| lane.subscription.event == event);
            if let Some(lane) = lane {
                lane.one_by_one = true;
                lane.note_above(&position);
            }
        }
        let events = lanes.iter().map(|lane| lane.subscription.event.clone());
        let by_event = events.zip(0..).collect();
        let mut machine = Self {
            options,
            entropy,
            lanes,
            by_event,
            by_number: BTreeMap::new(),
            orphans: positions.into_keys().collect(),
            unhandled: BTreeSet::new(),
            session: Session::Down,
            durable,
            changes: Vec::new(),
            saving: Vec::new(),
            stored: None,
            ready: Ready::new(),
            running: 0,
            working: BTreeSet::new(),
            paused: false,
            closing: false,
            given_up: false,
            outputs: VecDeque::new(),
        };
        for finding in stored.findings {
            machine.tell(match finding {
                Finding::Cut { bytes } => ClientNotice::StoreCut { bytes },
                Finding::Damaged { bytes, detail } => ClientNotice::StoreDamaged { bytes, detail },
                Finding::Unreadable { detail } => ClientNotice::StoreUnreadable { detail },
            });
        }
        machine
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<SubscribeOutput> {
        let output = self.outputs.pop_front();
        if matches!(output, Some(SubscribeOutput::Close(_))) {
            self.given_up = false;
        }
        output
    }

    /// All outputs, in order.
    pub fn poll_all(&mut self) -> VecDeque<SubscribeOutput> {
        self.given_up = false;
        std::mem::take(&mut self.outputs)
    }

    /// Whether a connection was given up and that output is still to be taken.
    pub fn has_closed(&self) -> bool {
        self.given_up
    }

    /// Passes a notice on in its place among the outputs.
    pub fn note(&mut self, notice: ClientNotice) {
        self.tell(notice);
    }

    /// The last handled position of an event.
    pub fn last(&self, event: &str) -> Option<Position> {
        self.by_event.get(event).and_then(|lane| self.lanes[*lane].last)
    }

    /// Whether no handler runs and nothing waits for the store.
    pub fn is_quiet(&self) -> bool {
        self.running == 0 && self.stored.is_none() && self.changes.is_empty()
    }

    /// A connection is open.
    pub fn connected(&mut self, now_ms: u64) {
        self.session = Session::Greeting { since_ms: now_ms };
        let set = match self.options.account {
            Account::Stateful { set: SetRule::Exact } => Some(set_hash(&self.list())),
            Account::Stateful { set: SetRule::Add } | Account::Stateless => None,
        };
        let (keepalive_s, hostname) = (self.options.keepalive_s, self.options.hostname.clone());
        self.send(ClientFrame::Hello(ClientHello { set, keepalive_s, hostname }));
    }

    fn list(&self) -> Vec<frame::Subscription> {
        let stateless = self.options.account == Account::Stateless;
        let resume = |lane: &Lane| lane.last.filter(|_| stateless);
        self.lanes.iter().map(|lane| lane.subscription.to_wire(resume(lane))).collect()
    }

    /// The connection is lost. Handlers go on; what none has seen will come again.
    pub fn disconnected(&mut self, reason: &str) {
        if self.session == Session::Open {
            self.tell(ClientNotice::Disconnected { reason: reason.to_owned() });
        }
        self.session = Session::Down;
        self.by_number.clear();
        self.ready.clear();
        self.lanes.iter_mut().for_each(Lane::forget_session);
        // What nobody sends again still waits for its handler.
        let waiting = (0..).zip(&self.lanes).filter(|(_, lane)| lane.is_in_line());
        self.ready = waiting.map(|(index, _)| index).collect();
    }

    /// A frame of the broker.
    pub fn receive(&mut self, now_ms: u64, message: ClientMessage) {
        if self.session == Session::Down {
            return;
        }
        match message {
            ClientMessage::Welcome(welcome) => self.welcomed(&welcome),
            ClientMessage::Subscribed(subscribed) => self.subscribed(subscribed),
            ClientMessage::Event(event) => self.arrived(*event),
            ClientMessage::Events(events) => {
                events.into_iter().for_each(|event| self.arrived(event));
            }
            ClientMessage::Committed(ack) => self.committed(ack),
            ClientMessage::Authority { subscription, granted } => {
                if let Some(lane) = self.by_number.get(&subscription) {
                    let event = self.lanes[*lane].subscription.event.clone();
                    self.tell(ClientNotice::Authority { event, granted });
                }
            }
            ClientMessage::Presence(presence) => self.tell(ClientNotice::Presence(presence)),
            ClientMessage::Closing(closing) => self.closed(closing),
        }
        self.pump(now_ms);
    }

    fn welcomed(&mut self, welcome: &ClientWelcome) {
        if !matches!(self.session, Session::Greeting { .. }) {
            let reason = "a second welcome".to_owned();
            return self.close(Then::Backoff { retry_after_ms: None, reason });
        }
        self.session = Session::Open;
        let items = self.list();
        match (self.options.account, welcome.sync) {
            (Account::Stateful { .. }, frame::Sync::Equal) => {}
            (Account::Stateful { set: SetRule::Add }, frame::Sync::Kept | frame::Sync::Send) => {
                self.send(ClientFrame::Subscribe(SubscriptionList { items }));
            }
            (Account::Stateful { set: SetRule::Exact }, frame::Sync::Kept | frame::Sync::Send)
            | (Account::Stateless, frame::Sync::Equal | frame::Sync::Kept | frame::Sync::Send) => {
                self.send(ClientFrame::Subscriptions(SubscriptionList { items }));
            }
        }
    }

    fn subscribed(&mut self, subscribed: Subscribed) {
        for item in subscribed.accepted {
            self.accepted(item);
        }
        for item in subscribed.refused {
            let frame::RefusedItem { event, code, detail } = item;
            self.tell(ClientNotice::Refused { event, code, detail });
        }
        for event in subscribed.removed {
            // A subscription of this name that is made anew starts anew: no id outlives it.
            let known = match self.by_event.get(&event) {
                Some(lane) => self.lanes[*lane].forget_handled(),
                None => self.orphans.remove(&event),
            };
            if known && self.durable {
                self.changes.push(PositionChange::Forget { event: event.clone() });
            }
            self.tell(ClientNotice::Removed { event });
        }
    }

    fn accepted(&mut self, item: SubscribedItem) {
        let SubscribedItem { event, subscription, position, granted, resumed, mode } = item;
        let Some(index) = self.by_event.get(&event).copied() else { return };
        self.by_number.insert(subscription, index);
        let lane = &mut self.lanes[index];
        lane.number = Some(subscription);
        lane.deliver_as(mode);
        self.enter_life(index, life(&position), resumed);
        self.tell(ClientNotice::Subscribed { event: event.clone(), position, granted });
        let instance_id = position.instance_id;
        if self.options.account != Account::Stateless && instance_id > 0 {
            self.raise_floor(index, Ack { subscription, instance_id, generation: None });
            self.tell_committed(index, position);
        }
    }

    /// The broker's ids of this subscription belong to this life: an id of another one means
    /// nothing any more.
    fn enter_life(&mut self, index: usize, now: (u64, u32), resumed: Option<bool>) {
        let lane = &mut self.lanes[index];
        lane.life = Some(now);
        lane.begin_above(now);
        let Some(last) = lane.last else { return };
        let reason = if last.incarnation != now.0 {
            ResetReason::Incarnation
        } else if last.generation < now.1 {
            ResetReason::Generation
        } else if resumed == Some(false) {
            ResetReason::NotResumed
        } else {
            return;
        };
        lane.last = None;
        lane.failures = 0;
        let event = lane.subscription.event.clone();
        self.tell(ClientNotice::Reset { event, reason });
    }

    fn arrived(&mut self, message: EventMessage) {
        let Some(index) = self.by_event.get(&message.event).copied() else {
            let told = self.unhandled.contains(&message.event);
            if !told && self.unhandled.len() < UNHANDLED_MAX {
                self.unhandled.insert(message.event.clone());
                self.tell(ClientNotice::Unhandled { event: message.event });
            }
            return;
        };
        self.by_number.insert(message.subscription, index);
        let delivery = delivery_of(message, &mut self.lanes[index].number);
        if !self.lanes[index].comes_singly() {
            return self.arrived_beside(index, delivery);
        }
        let lane = &mut self.lanes[index];
        if lane.has_in_hand(&delivery.position()) {
            return;
        }
        match lane.work {
            Work::Idle => self.consider(index, delivery),
            Work::Waiting(_) => {
                // Already in line: the newest transmission counts.
                self.enter_life(index, life(&delivery.position()), None);
                self.lanes[index].work = Work::Waiting(delivery);
            }
            Work::Running { .. } | Work::Saving(_) => lane.next = Some(delivery),
        }
    }

    /// An instance for an idle lane.
    fn consider(&mut self, index: usize, delivery: Delivery) {
        let position = delivery.position();
        self.enter_life(index, life(&position), None);
        let lane = &mut self.lanes[index];
        if lane.handled(&position) {
            return self.acknowledge(index, &position);
        }
        lane.work = Work::Waiting(delivery);
        self.ready.push_back(index);
    }

    /// The number under which the broker is answered, if it is.
    fn answerable(&self, index: usize) -> Option<u32> {
        let open = self.session == Session::Open && self.mode(index).is_acknowledged();
        self.lanes[index].number.filter(|_| open)
    }

    fn acknowledge(&mut self, index: usize, position: &Position) {
        if let Some(subscription) = self.answerable(index) {
            self.send(ClientFrame::Ack(answer(subscription, position)));
        }
    }

    /// A handler returned.
    pub fn returned(&mut self, now_ms: u64, place: usize, result: Result<Flow, HandlerError>) {
        let index = self.index_of(place);
        let work = std::mem::take(self.work(place));
        let Work::Running { position, attempt, working_ms } = work else {
            // Not asked for: nothing to note.
            *self.work(place) = work;
            return;
        };
        if let Some(due_ms) = working_ms {
            self.working.remove(&(due_ms, place));
        }
        self.running -= 1;
        match result {
            Ok(flow) => {
                self.lanes[index].failures = 0;
                *self.work(place) = Work::Saving(position);
                if flow == Flow::Stop {
                    self.pause();
                }
                if self.durable {
                    self.remember(index, position);
                    self.saving.push(place);
                } else {
                    self.saved(place);
                }
            }
            Err(error) => self.failed(index, position, attempt, error),
        }
        self.pump(now_ms);
    }

    fn failed(&mut self, index: usize, position: Position, attempt: u32, error: HandlerError) {
        let lane = &mut self.lanes[index];
        let doubled = self.options.handler_backoff_ms << lane.failures.min(16);
        lane.failures = lane.failures.saturating_add(1);
        let own = self.entropy.jitter(doubled.min(HANDLER_BACKOFF_MS_MAX));
        let asked = error.retry_after.map(|delay| u64::try_from(delay.as_millis()));
        let retry_in_ms = asked.map_or(own, |ms| ms.unwrap_or(u64::MAX));
        let instance_id = position.instance_id;
        let event = lane.subscription.event.clone();
        if let Some(subscription) = self.answerable(index) {
            let (retry_after_ms, generation) = (retry_in_ms, Some(position.generation));
            let nack = Nack { subscription, instance_id, retry_after_ms, generation };
            self.send(ClientFrame::Nack(nack));
        }
        let detail = error.detail;
        self.tell(ClientNotice::HandlerFailed { event, instance_id, attempt, detail, retry_in_ms });
        self.go_on(index);
    }

    /// A position is safe: the instance is acknowledged, the lane goes on.
    fn saved(&mut self, place: usize) {
        let work = std::mem::take(self.work(place));
        let Work::Saving(position) = work else {
            *self.work(place) = work;
            return;
        };
        let index = self.index_of(place);
        let lane = &mut self.lanes[index];
        // Of a life that has ended meanwhile nothing is kept: its ids mean nothing.
        if lane.life.is_none_or(|now| now == life(&position)) {
            lane.note_handled(position);
        }
        self.acknowledge(index, &position);
        self.go_on(index);
    }

    fn go_on(&mut self, index: usize) {
        if let Some(delivery) = self.lanes[index].next.take() {
            self.consider(index, delivery);
        }
        self.start_next(index);
    }

    /// The store answered the changes that it had.
    pub fn persisted(&mut self, now_ms: u64, result: Result<(), String>) {
        let mut lanes = self.stored.take().unwrap_or_default();
        if let Err(reason) = result {
            self.durable = false;
            self.changes.clear();
            lanes.append(&mut self.saving);
            self.tell(ClientNotice::FellBack { reason });
        }
        for lane in lanes {
            self.saved(lane);
        }
        self.pump(now_ms);
    }

    fn committed(&mut self, ack: Ack) {
        let Some(index) = self.by_number.get(&ack.subscription).copied() else { return };
        let (incarnation, generation) = self.lanes[index].life.unwrap_or_default();
        let position = Position { incarnation, generation, instance_id: ack.instance_id };
        self.raise_floor(index, ack);
        self.tell_committed(index, position);
    }

    fn tell_committed(&mut self, index: usize, position: Position) {
        let lane = &mut self.lanes[index];
        if lane.committed != Some(position) {
            lane.committed = Some(position);
            let event = lane.subscription.event.clone();
            self.tell(ClientNotice::Committed { event, instance_id: position.instance_id });
        }
    }

    fn closed(&mut self, closing: Closing) {
        let Closing { code, detail, reconnect, retry_after_ms } = closing;
        self.close(if reconnect {
            Then::Backoff { retry_after_ms, reason: format!("{code}: {detail}") }
        } else {
            Then::Stop { code, detail }
        });
    }

    fn close(&mut self, then: Then) {
        let reason = match &then {
            Then::Reconnect => String::new(),
            Then::Backoff { reason, .. } => reason.clone(),
            Then::Stop { code, detail } => format!("{code}: {detail}"),
        };
        self.disconnected(&reason);
        if let Then::Stop { code, detail } = &then {
            self.tell(ClientNotice::Terminal { code: *code, detail: detail.clone() });
        }
        self.given_up = true;
        self.outputs.push_back(SubscribeOutput::Close(then));
    }

    /// An attempt to connect was refused for good.
    pub fn refused_for_good(&mut self, code: Code, detail: String) {
        self.disconnected(&detail);
        self.tell(ClientNotice::Terminal { code, detail });
    }

    /// Time has passed; call it when [`Self::next_wake_ms`] is reached.
    pub fn tick(&mut self, now_ms: u64) {
        if let Session::Greeting { since_ms } = self.session
            && now_ms >= since_ms + WELCOME_TIMEOUT_MS
        {
            let reason = "no welcome from the broker".to_owned();
            self.close(Then::Backoff { retry_after_ms: None, reason });
        }
        while let Some((due_ms, place)) = self.working.first().copied().filter(|w| w.0 <= now_ms) {
            self.working.remove(&(due_ms, place));
            let index = self.index_of(place);
            let interval_ms = self.working_interval_ms(index);
            let Work::Running { position, working_ms, .. } = self.work(place) else { continue };
            *working_ms = Some(now_ms + interval_ms);
            let position = *position;
            self.working.insert((now_ms + interval_ms, place));
            if let Some(subscription) = self.answerable(index) {
                self.send(ClientFrame::Working(answer(subscription, &position)));
            }
        }
        self.pump(now_ms);
    }

    /// When [`Self::tick`] is due.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let greeting = match self.session {
            Session::Greeting { since_ms } => Some(since_ms + WELCOME_TIMEOUT_MS),
            Session::Down | Session::Open => None,
        };
        let working = self.working.first().map(|(due_ms, _)| *due_ms);
        [greeting, working].into_iter().flatten().min()
    }

    /// Half the time after which the broker would send the instance again.
    fn working_interval_ms(&self, index: usize) -> u64 {
        let timeout_ms = self.lanes[index].subscription.ack_timeout_ms;
        (u64::from(timeout_ms.unwrap_or(ACK_TIMEOUT_MS_DEFAULT)) / 2).max(1)
    }

    /// No handler is called any more; running ones finish and are acknowledged.
    pub fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            self.tell(ClientNotice::Stopped);
        }
    }

    /// Undoes [`Self::pause`] and [`Flow::Stop`].
    pub fn resume(&mut self, now_ms: u64) {
        self.paused = false;
        self.pump(now_ms);
    }

    /// As [`Self::pause`], for good. Say [`Self::goodbye`] when [`Self::is_quiet`].
    pub fn begin_close(&mut self) {
        self.closing = true;
    }

    /// Says goodbye; the broker closes.
    pub fn goodbye(&mut self) {
        if self.session != Session::Down {
            self.send(ClientFrame::Goodbye {});
        }
        self.session = Session::Down;
    }

    fn send(&mut self, frame: ClientFrame) {
        self.outputs.push_back(SubscribeOutput::Send(frame));
    }

    fn tell(&mut self, notice: ClientNotice) {
        self.outputs.push_back(SubscribeOutput::Notice(notice));
    }

    /// Does what can be done now: calls handlers, persists.
    fn pump(&mut self, now_ms: u64) {
        while !self.paused && !self.closing && self.running < self.options.concurrency {
            let Some(place) = self.ready.pop_front() else { break };
            let interval_ms = self.working_interval_ms(self.index_of(place));
            let Work::Waiting(delivery) = std::mem::take(self.work(place)) else { continue };
            let (position, attempt) = (delivery.position(), delivery.attempt);
            let due_ms = now_ms + interval_ms;
            *self.work(place) = Work::Running { position, attempt, working_ms: Some(due_ms) };
            self.working.insert((due_ms, place));
            self.running += 1;
            self.outputs.push_back(SubscribeOutput::Call { lane: place, delivery });
        }
        if self.durable && self.stored.is_none() && !self.changes.is_empty() {
            self.stored = Some(std::mem::take(&mut self.saving));
            let changes = std::mem::take(&mut self.changes);
            self.outputs.push_back(SubscribeOutput::Persist(changes));
        }
    }
}

fn delivery_of(message: EventMessage, number: &mut Option<u32>) -> Delivery {
    *number = Some(message.subscription);
    Delivery {
        event: message.event,
        category: message.category,
        service: message.service,
        instance_id: message.instance_id,
        incarnation: message.incarnation,
        generation: message.generation,
        created_ms: message.created_ms,
        age: message.age,
        attempt: message.attempt,
        payload: Payload::from_fields(message.content_type, message.args, message.data),
        original_id: message.original_id,
        trace: message
            .traceparent
            .and_then(|parent| TraceContext::parse(&parent, message.tracestate.as_deref())),
    }
}

/// Names what is answered, so that no later delivery of the same instance is meant.
fn answer(subscription: u32, position: &Position) -> Ack {
    let generation = Some(position.generation);
    Ack { subscription, instance_id: position.instance_id, generation }
}
