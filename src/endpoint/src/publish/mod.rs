//! The publish machine: everything a service endpoint decides, without clock, network or disk.
//!
//! ```text
//! raise ─▶ unsent (coalesced, dropped when full) ─▶ numbered ─▶ in the store ─▶ sent ─▶ decided
//!                                                      ▲                          │
//!                                                      └── timeout, busy, out of sequence
//! ```
//!
//! Inputs are application calls, wire frames, confirmations of the store and the time; outputs are
//! wire frames, store batches and what the application hears, in the order of
//! [`Publish::poll`]. Equal inputs give equal outputs, so a simulator can drive it.
//!
//! Invariants: the order of raising is the order of numbers and of sending; an event leaves only
//! when the broker decided it, when it was coalesced or dropped unsent, or with a retired store,
//! and then somebody is told; a store whose numbers the broker does not follow takes a new uid
//! before it numbers another event, after what is numbered has been decided under the old one.
//!
//! Deliberately absent: connecting (see [`crate::reconnect`]) and persisting (see [`crate::spl`]).

mod answers;
mod backlog;

use std::collections::VecDeque;

use ackord_wire::frame::{Raise, ServiceFrame, ServiceHello};
use ackord_wire::limits::{ACK_TIMEOUT_MS_DEFAULT, ARGS_BYTES_CEILING, WINDOW_DEFAULT};
use ackord_wire::structure::{Category, Structure};
use ackord_wire::{Code, Codec, Payload, TraceContext};

use backlog::{Backlog, Held};
pub use backlog::{StoreBatch, Waits};

use crate::entropy::Entropy;
use crate::error::RaiseError;
use crate::event::{Event, Outcome};
use crate::notice::{RenewReason, ServiceNotice};
use crate::spl::{StoreUid, Stored};

/// How long the broker may take to answer `hello`, milliseconds.
pub const WELCOME_TIMEOUT_MS: u64 = 15_000;
/// The first pause after a refusal that names none, milliseconds; doubled up to the maximum.
pub const BUSY_PAUSE_MS_MIN: u64 = 50;
/// The longest pause after a refusal, milliseconds.
pub const BUSY_PAUSE_MS_MAX: u64 = 5_000;
/// Renewals in a row, without an event decided in between, that reconnect without a delay.
const HASTY_RENEWALS_MAX: u32 = 2;

/// Options of the machine.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// What the service declares.
    pub structure: Option<Structure>,
    /// Shown to clients.
    pub service_version: String,
    /// Shown to clients.
    pub hostname: String,
    /// Events in flight that are asked for.
    pub window: u32,
    /// Seconds between pings that are asked for.
    pub keepalive_s: Option<u32>,
    /// Time until an unanswered event is sent again, milliseconds.
    pub ack_timeout_ms: u64,
    /// Bytes of events that may be held.
    pub capacity_bytes: u64,
    /// How the frames will be encoded: JSON arguments travel as they are in JSON.
    pub codec: Codec,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            structure: None,
            service_version: String::new(),
            hostname: String::new(),
            window: WINDOW_DEFAULT,
            keepalive_s: None,
            ack_timeout_ms: u64::from(ACK_TIMEOUT_MS_DEFAULT),
            capacity_bytes: crate::level::SPL1_BYTES_DEFAULT,
            codec: Codec::Cbor,
        }
    }
}

/// What is to be done after a connection was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Connect again at once.
    Reconnect,
    /// Connect again after the next delay of the list, and not before the broker wants it.
    Backoff {
        /// What the broker asked for, milliseconds.
        retry_after_ms: Option<u64>,
        /// Why, for a person.
        reason: String,
    },
    /// Never connect again.
    Stop {
        /// Why.
        code: Code,
        /// Why, for a person.
        detail: String,
    },
}

/// Something to be done, in this order.
#[derive(Clone, Debug)]
pub enum PublishOutput {
    /// Send a frame.
    Send(ServiceFrame),
    /// Give a batch to the store; answer with [`Publish::persisted`]. Only one at a time.
    Persist(StoreBatch),
    /// An event that was raised with [`Waits::ForOutcome`] is decided.
    Decided {
        /// The event.
        ticket: u64,
        /// What became of it.
        result: Result<Outcome, RaiseError>,
    },
    /// Tell the application.
    Notice(ServiceNotice),
    /// Room became free.
    Room,
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
    Parked,
    Online,
}

/// The machine. See the [module](self).
#[derive(Clone, Debug)]
pub struct Publish {
    options: PublishOptions,
    entropy: Entropy,
    backlog: Backlog,
    uid: StoreUid,
    /// The uid that this one goes on from, until the broker has agreed.
    continues: Option<StoreUid>,
    session: Session,
    window: usize,
    args_bytes_max: usize,
    /// The next number to be sent, or sent again.
    send_next: u64,
    /// Transmissions on this connection that are not answered: at most a window of them.
    unanswered: usize,
    /// What the last welcome said to be decided. Numbers above it that this connection did not
    /// carry are undecided for certain.
    last: u64,
    pause_until_ms: u64,
    refusals: u32,
    /// A new uid is needed as soon as everything numbered is decided.
    renewal: Option<RenewReason>,
    /// Send one at a time: the broker closed without saying which number it objects to.
    probing: bool,
    renewals: u32,
    closing: bool,
    stopped: Option<Code>,
    /// A `Close` is among the outputs.
    given_up: bool,
    outputs: VecDeque<PublishOutput>,
}

impl Publish {
    /// A machine over what a store held; `durable`: batches go to a store (SPL-2).
    pub fn new(
        options: PublishOptions,
        durable: bool,
        mut stored: Stored,
        mut entropy: Entropy,
    ) -> Self {
        let findings = std::mem::take(&mut stored.findings);
        let uid = stored.uid.unwrap_or_else(|| fresh_uid(&mut entropy));
        let backlog = Backlog::recover(options.capacity_bytes, durable, stored);
        let mut machine = Self {
            window: options.window as usize,
            options,
            entropy,
            backlog,
            uid,
            continues: None,
            session: Session::Down,
            args_bytes_max: ARGS_BYTES_CEILING,
            send_next: 1,
            unanswered: 0,
            last: 0,
            pause_until_ms: 0,
            refusals: 0,
            renewal: None,
            probing: false,
            renewals: 0,
            closing: false,
            stopped: None,
            given_up: false,
            outputs: VecDeque::new(),
        };
        for finding in findings {
            machine.tell(match finding {
                crate::spl::Finding::Cut { bytes } => ServiceNotice::StoreCut { bytes },
                crate::spl::Finding::Damaged { bytes, detail } => {
                    ServiceNotice::StoreDamaged { bytes, detail }
                }
                crate::spl::Finding::Unreadable { detail } => {
                    ServiceNotice::StoreUnreadable { detail }
                }
            });
        }
        machine
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<PublishOutput> {
        let output = self.outputs.pop_front();
        if matches!(output, Some(PublishOutput::Close(_))) {
            self.given_up = false;
        }
        output
    }

    /// All outputs, in order.
    pub fn poll_all(&mut self) -> VecDeque<PublishOutput> {
        self.given_up = false;
        std::mem::take(&mut self.outputs)
    }

    /// Whether there are outputs.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Whether a connection was given up and that output is still to be taken.
    pub fn has_closed(&self) -> bool {
        self.given_up
    }

    /// Passes a notice on in its place among the outputs.
    pub fn note(&mut self, notice: ServiceNotice) {
        self.tell(notice);
    }

    /// Whether the endpoint will never connect again.
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The store's uid.
    pub fn uid(&self) -> StoreUid {
        self.uid
    }

    /// Events that are held.
    pub fn pending(&self) -> u64 {
        self.backlog.len() as u64
    }

    /// Whether nothing is held, and the store knows.
    pub fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.backlog.is_stored()
    }

    /// Whether the store knows everything.
    pub fn is_stored(&self) -> bool {
        self.backlog.is_stored()
    }

    /// Takes an event in; drops the oldest unsent ones when there is no room. Answers a ticket.
    pub fn raise(&mut self, now_ms: u64, event: Event, waits: Waits) -> Result<u64, RaiseError> {
        let event = self.checked(event)?;
        let (ticket, coalesced, dropped) = self.backlog.admit(event, waits)?;
        if let Some(held) = coalesced.filter(|held| held.waits == Waits::ForOutcome) {
            self.decided(held.ticket, Err(RaiseError::Coalesced));
        }
        for held in dropped {
            match held.waits {
                Waits::ForOutcome => self.decided(held.ticket, Err(RaiseError::Dropped)),
                Waits::No => {
                    self.tell(ServiceNotice::Dropped { event: held.event.name.clone() });
                }
            }
        }
        self.pump(now_ms);
        Ok(ticket)
    }

    /// Takes an event in if there is room for it; gives it back otherwise.
    pub fn raise_if_room(
        &mut self,
        now_ms: u64,
        event: Event,
        waits: Waits,
    ) -> Result<Result<u64, Event>, RaiseError> {
        let event = self.checked(event)?;
        let bytes = crate::spl::event_bytes(&event);
        if bytes > self.options.capacity_bytes {
            let capacity = self.options.capacity_bytes;
            return Err(RaiseError::ExceedsStore { bytes, capacity });
        }
        if !self.backlog.has_room(&event) {
            return Ok(Err(event));
        }
        self.raise(now_ms, event, waits).map(Ok)
    }

    /// What the endpoint can judge itself, and the category from the structure.
    fn checked(&self, mut event: Event) -> Result<Event, RaiseError> {
        if let Some(code) = self.stopped {
            return Err(RaiseError::Stopped { code });
        }
        if self.closing {
            return Err(RaiseError::Closed);
        }
        let bytes = event.payload.as_ref().map_or(0, |payload| payload.data.len());
        if bytes > self.args_bytes_max {
            return Err(RaiseError::TooLarge { bytes, bytes_max: self.args_bytes_max });
        }
        if event.category.is_none() {
            event.category = self.declared_category(&event.name);
        }
        Ok(event)
    }

    fn declared_category(&self, name: &str) -> Option<Category> {
        let structure = self.options.structure.as_ref()?;
        structure.events.iter().find(|event| event.name == name).map(|event| event.category)
    }

    /// A connection is open.
    pub fn connected(&mut self, now_ms: u64) {
        self.session = Session::Greeting { since_ms: now_ms };
        self.unanswered = 0;
        for slot in &mut self.backlog.slots {
            slot.outstanding = 0;
        }
        let hello = ServiceHello {
            structure: self.options.structure.clone(),
            store: self.uid.to_string(),
            continues: self.continues.map(|uid| uid.to_string()),
            service_version: self.options.service_version.clone(),
            hostname: self.options.hostname.clone(),
            window: Some(self.options.window),
            keepalive_s: self.options.keepalive_s,
        };
        self.outputs.push_back(PublishOutput::Send(ServiceFrame::Hello(hello)));
        self.pump(now_ms);
    }

    /// The connection is lost.
    pub fn disconnected(&mut self, now_ms: u64, reason: &str) {
        if matches!(self.session, Session::Online | Session::Parked) {
            self.tell(ServiceNotice::Disconnected { reason: reason.to_owned() });
        }
        self.session = Session::Down;
        self.pump(now_ms);
    }

    /// The store answered the batch that it had.
    pub fn persisted(&mut self, now_ms: u64, result: Result<(), String>) {
        match result {
            Ok(()) => self.backlog.stored(),
            Err(reason) => self.fall_back(reason),
        }
        self.pump(now_ms);
    }

    /// SPL-2 failed: the events in memory go on under a new uid that continues the old one.
    fn fall_back(&mut self, reason: String) {
        if !self.backlog.go_volatile() {
            return;
        }
        self.tell(ServiceNotice::FellBack { reason });
        // Also when no broker has seen it: the file may hold its events, and they must not come
        // again when the process starts over.
        self.continues = Some(self.uid);
        self.uid = fresh_uid(&mut self.entropy);
        self.close(Then::Reconnect);
    }

    /// Time has passed; call it when [`Self::next_wake_ms`] is reached.
    pub fn tick(&mut self, now_ms: u64) {
        match self.session {
            Session::Greeting { since_ms } if now_ms >= since_ms + WELCOME_TIMEOUT_MS => {
                let reason = "no welcome from the broker".to_owned();
                self.close(Then::Backoff { retry_after_ms: None, reason });
            }
            Session::Online if self.resend_ms().is_some_and(|due_ms| now_ms >= due_ms) => {
                // Everything from the first unanswered one on: the broker takes numbers in order.
                self.backlog.slots.iter_mut().for_each(|slot| slot.outstanding = 0);
                self.unanswered = 0;
                self.send_next = self.backlog.base();
            }
            Session::Down | Session::Greeting { .. } | Session::Parked | Session::Online => {}
        }
        self.pump(now_ms);
    }

    /// When [`Self::tick`] is due.
    pub fn next_wake_ms(&self) -> Option<u64> {
        match self.session {
            Session::Down | Session::Parked => None,
            Session::Greeting { since_ms } => Some(since_ms + WELCOME_TIMEOUT_MS),
            Session::Online => {
                let waiting = self.send_next <= self.backlog.counter() || !self.backlog.is_empty();
                let pause = (waiting && self.pause_until_ms > 0).then_some(self.pause_until_ms);
                [pause, self.resend_ms()].into_iter().flatten().min()
            }
        }
    }

    fn resend_ms(&self) -> Option<u64> {
        let first = self.backlog.slots.iter().find(|slot| slot.undecided())?;
        (first.outstanding > 0).then_some(first.sent_ms + self.options.ack_timeout_ms)
    }

    /// No event is taken in any more.
    pub fn begin_close(&mut self) {
        self.closing = true;
    }

    /// Says goodbye; the broker closes.
    pub fn goodbye(&mut self) {
        if self.session != Session::Down {
            self.outputs.push_back(PublishOutput::Send(ServiceFrame::Goodbye {}));
        }
        self.session = Session::Down;
        self.end(&RaiseError::Closed);
    }

    /// Whoever waits for an outcome hears that there will be none.
    fn end(&mut self, error: &RaiseError) {
        let tickets: Vec<u64> = self.backlog.waiting().map(|held| held.ticket).collect();
        for ticket in tickets {
            self.decided(ticket, Err(error.clone()));
        }
    }

    /// Gives up the connection.
    fn close(&mut self, then: Then) {
        let connected = self.session != Session::Down;
        if matches!(self.session, Session::Online | Session::Parked) {
            let reason = match &then {
                Then::Reconnect => "the store takes a new uid".to_owned(),
                Then::Backoff { reason, .. } => reason.clone(),
                Then::Stop { code, detail } => format!("{code}: {detail}"),
            };
            self.tell(ServiceNotice::Disconnected { reason });
        }
        self.session = Session::Down;
        if let Then::Stop { code, detail } = &then {
            let (code, detail, left) = (*code, detail.clone(), self.pending());
            self.stop(code, detail, left);
        }
        if connected {
            self.given_up = true;
            self.outputs.push_back(PublishOutput::Close(then));
        }
    }

    /// The endpoint will never connect again, also when a dial was refused for good.
    fn stop(&mut self, code: Code, detail: String, left: u64) {
        self.stopped = Some(code);
        self.end(&RaiseError::Stopped { code });
        self.tell(ServiceNotice::Terminal { code, detail, left });
        self.outputs.push_back(PublishOutput::Room);
        // Nothing may come after this that would make the store know of what is not in it yet.
        self.persist();
    }

    /// An attempt to connect was refused for good.
    pub fn refused_for_good(&mut self, code: Code, detail: String) {
        let left = self.pending();
        self.session = Session::Down;
        self.stop(code, detail, left);
    }

    /// A new uid: everything held is numbered anew, from 1.
    fn renew(&mut self, reason: Option<RenewReason>) {
        self.uid = fresh_uid(&mut self.entropy);
        self.continues = None;
        self.renewal = None;
        self.probing = false;
        self.backlog.renumber();
        self.send_next = 1;
        self.renewals += 1;
        if let Some(reason) = reason {
            self.tell(ServiceNotice::StoreRenewed { reason });
        }
        let hasty = self.renewals <= HASTY_RENEWALS_MAX;
        self.close(if hasty {
            Then::Reconnect
        } else {
            let reason = "the broker knows other numbers of the store".to_owned();
            Then::Backoff { retry_after_ms: None, reason }
        });
    }

    fn tell(&mut self, notice: ServiceNotice) {
        self.outputs.push_back(PublishOutput::Notice(notice));
    }

    fn decided(&mut self, ticket: u64, result: Result<Outcome, RaiseError>) {
        self.outputs.push_back(PublishOutput::Decided { ticket, result });
    }

    /// Does what can be done now: renews, numbers, sends, persists.
    fn pump(&mut self, now_ms: u64) {
        if (self.renewal.is_some() || self.probing) && !self.has_doubt() {
            self.probing = false;
            if let Some(reason) = self.renewal {
                self.renew(Some(reason));
            }
        }
        if self.session == Session::Online && now_ms >= self.pause_until_ms {
            self.pause_until_ms = 0;
            if self.renewal.is_none() && !self.probing {
                while self.backlog.slots.len() < self.window && self.backlog.number_next() {}
            }
            self.transmit(now_ms);
        }
        self.persist();
        if self.backlog.take_freed() {
            self.outputs.push_back(PublishOutput::Room);
        }
    }

    fn persist(&mut self) {
        if let Some(batch) = self.backlog.batch(self.uid) {
            self.outputs.push_back(PublishOutput::Persist(batch));
        }
    }

    /// Whether a number is held whose fate only an answer can tell. The others keep their place
    /// in the order under a new uid.
    fn has_doubt(&self) -> bool {
        if self.session == Session::Down || matches!(self.session, Session::Greeting { .. }) {
            return self.backlog.slots.iter().any(backlog::Slot::undecided);
        }
        let mut numbered = self.backlog.slots.iter().zip(self.backlog.base()..);
        numbered.any(|(slot, seq)| slot.undecided() && (slot.outstanding > 0 || seq <= self.last))
    }

    fn transmit(&mut self, now_ms: u64) {
        let in_flight_max = if self.probing { 1 } else { self.window };
        let end = match self.renewal {
            Some(_) => self.last.min(self.backlog.counter()),
            None => self.backlog.counter(),
        };
        while self.send_next <= end && self.backlog.sendable(self.send_next) {
            if self.unanswered >= in_flight_max {
                return;
            }
            let (seq, codec) = (self.send_next, self.options.codec);
            self.send_next += 1;
            let Some(slot) = self.backlog.slot(seq).filter(|slot| slot.undecided()) else {
                continue;
            };
            slot.outstanding += 1;
            slot.sent_ms = now_ms;
            self.unanswered += 1;
            if let Some(held) = &slot.held {
                let frame = raise_frame(seq, held, codec);
                self.outputs.push_back(PublishOutput::Send(frame));
            }
        }
    }
}

fn raise_frame(seq: u64, held: &Held, codec: Codec) -> ServiceFrame {
    let event = &*held.event;
    let (content_type, args, data) = Payload::to_fields(event.payload.as_ref(), codec);
    ServiceFrame::Raise(Raise {
        seq,
        event: event.name.clone(),
        category: event.category,
        content_type,
        args,
        data,
        client: event.client.clone(),
        lifetime_s: event.lifetime_s,
        traceparent: event.trace.as_ref().map(TraceContext::traceparent),
        tracestate: event.trace.as_ref().and_then(|it| it.tracestate()).map(str::to_owned),
    })
}

fn fresh_uid(entropy: &mut Entropy) -> StoreUid {
    let (high, low) = (entropy.next_u64(), entropy.next_u64());
    StoreUid((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}
