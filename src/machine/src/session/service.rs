//! The session of one connected service: its publish window.
//!
//! `hello ─▶ attach (epoch, marks) ─▶ welcome ─▶ raise* ─▶ answers in the order of the raises`
//!
//! Invariants:
//! - Answers leave in the order in which the raises came, whatever the order of outcomes.
//! - At most a window of raises is in flight; more are refused, not queued. Their refusals wait
//!   for the answers before them; a peer that lets too many wait is closed.
//! - Once a raise is refused without a decision, every later number is refused `out-of-sequence`
//!   until that number comes again: by the state for those under way, here for those that follow,
//!   so that they cost no log entry.
//! - A raise of unknown fate ends the session: the next welcome tells what was decided.

use std::collections::VecDeque;

use crate::site::{
    AttachService, Command, Epoch, Incarnation, NewEvent, Outcome, Parked, Place, Raise, Raised,
    Refusal, Sequence, ServiceId, SiteName, StorageUid, Structure, TokenId,
};

use super::message::{RefusedRaise, ToService};
use super::{CloseReason, Failed, Output, Token, View, close_of, credential_holds, refusal_detail};

/// Arguments are cut behind this many bytes before they are proposed: no deployment allows more,
/// so they are rejected all the same, and the log does not carry them.
pub const ARGS_BYTES_CUT: usize = 65_536 + 1;

/// Raises beyond the window that may wait for their refusal.
pub const SURPLUS_MAX: usize = 64;

/// What a service says first.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceHello {
    /// What it declares.
    pub structure: Option<Structure>,
    /// Its store.
    pub uid: StorageUid,
    /// The store that this one continues.
    pub continues: Option<StorageUid>,
    /// Its version.
    pub version: String,
    /// Its host.
    pub hostname: String,
    /// Raises in flight that it may have, as granted.
    pub window: u32,
    /// A random value for the site's incarnation, should this attach construct the site.
    pub incarnation: Incarnation,
    /// Where the session is.
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Attaching {
        token: Token,
    },
    /// Attached, but this node has not applied that yet.
    Attached,
    Open,
    /// The service said goodbye: what is in flight is answered, then the session closes.
    Draining,
    Closed,
}

/// One raise that is not yet answered.
#[derive(Debug)]
struct Slot {
    sequence: Sequence,
    /// Refusals of an earlier run say nothing about the present one.
    run: u32,
    answer: Option<ToService>,
}

/// How the attach went, until the welcome.
#[derive(Debug)]
struct Welcome {
    incarnation: Incarnation,
    last: Sequence,
    superseded: bool,
}

/// All of one connected service.
#[derive(Debug)]
pub struct ServiceSession {
    site: SiteName,
    service: ServiceId,
    credential: Option<TokenId>,
    epoch: Epoch,
    stage: Stage,
    hello: Option<Box<ServiceHello>>,
    welcome: Option<Box<Welcome>>,
    uid: StorageUid,
    window: u32,
    superseded: bool,
    parked: Option<Parked>,
    /// The next number in line: higher ones are out of sequence.
    expected: Sequence,
    /// The highest number known to be decided.
    decided: Sequence,
    /// Counts the times that `expected` was set back.
    run: u32,
    tokens: u64,
    /// The token of the first slot; the others follow without holes.
    first: u64,
    slots: VecDeque<Slot>,
}

type Out = Vec<Output<ToService>>;

impl ServiceSession {
    /// A session that waits for its hello. It closes when the token that opened it is revoked.
    pub fn new(site: SiteName, service: ServiceId, credential: Option<TokenId>) -> Self {
        Self {
            site,
            service,
            credential,
            epoch: Epoch(0),
            stage: Stage::New,
            hello: None,
            welcome: None,
            uid: StorageUid([0; 16]),
            window: 0,
            superseded: false,
            parked: None,
            expected: Sequence(0),
            decided: Sequence(0),
            run: 0,
            tokens: 0,
            first: 1,
            slots: VecDeque::new(),
        }
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// The service.
    pub fn service(&self) -> &ServiceId {
        &self.service
    }

    /// The session's epoch; 0 before it is attached.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether nothing has been said yet.
    pub fn is_new(&self) -> bool {
        self.stage == Stage::New
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the session was welcomed: what it asks for from now on are raises.
    pub fn is_welcomed(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Draining)
    }

    /// Whether the session is attached and exchanges events.
    pub fn is_online(&self) -> bool {
        self.stage == Stage::Open && self.parked.is_none()
    }

    /// Raises that are not yet answered.
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// The service opens the session.
    pub fn on_hello(&mut self, hello: ServiceHello, out: &mut Out) {
        match self.stage {
            Stage::New => {}
            Stage::Closed => return,
            Stage::Attaching { .. } | Stage::Attached | Stage::Open | Stage::Draining => {
                return self.close(CloseReason::ProtocolViolation, "hello was said before", out);
            }
        }
        self.uid = hello.uid;
        self.window = hello.window.max(1);
        self.hello = Some(Box::new(hello));
        self.attach(out);
    }

    /// Whether the service exists is the log's to say: this replica may lag.
    fn attach(&mut self, out: &mut Out) {
        let Some(hello) = &self.hello else { return };
        let command = Command::AttachService(AttachService {
            site: self.site.clone(),
            service: self.service.clone(),
            structure: hello.structure.clone(),
            version: hello.version.clone(),
            hostname: hello.hostname.clone(),
            uid: hello.uid,
            continues: hello.continues,
            incarnation: hello.incarnation,
            place: hello.place,
        });
        let token = self.token();
        self.stage = Stage::Attaching { token };
        out.push(Output::Propose { token, command });
    }

    /// The service raises an event under a number of its store.
    pub fn on_raise(&mut self, sequence: Sequence, mut event: NewEvent, out: &mut Out) {
        match self.stage {
            Stage::Open => {}
            Stage::Closed | Stage::Draining => return,
            Stage::New | Stage::Attaching { .. } | Stage::Attached => {
                return self.close(CloseReason::ProtocolViolation, "the session is not open", out);
            }
        }
        if self.slots.len() >= self.window as usize + SURPLUS_MAX {
            let detail = format!("{SURPLUS_MAX} raises more than the window of {}", self.window);
            return self.close(CloseReason::LimitReached, detail, out);
        }
        let token = self.token();
        if self.slots.is_empty() {
            self.first = token.0;
        }
        if let Some(cause) = self.refusal(sequence) {
            self.slots.push_back(Slot { sequence, run: self.run, answer: None });
            self.undecided(sequence, self.run);
            self.answer(token, ToService::Refused { sequence, cause }, out);
            return;
        }
        if let Some(arguments) = &mut event.arguments {
            arguments.data.truncate(ARGS_BYTES_CUT);
        }
        if sequence == self.expected {
            self.expected = sequence.next();
        }
        self.slots.push_back(Slot { sequence, run: self.run, answer: None });
        let command = Command::Raise(Raise {
            site: self.site.clone(),
            service: self.service.clone(),
            epoch: self.epoch,
            uid: self.uid,
            sequence,
            event,
        });
        out.push(Output::Propose { token, command });
    }

    /// Why this number is not worth a log entry now.
    fn refusal(&self, sequence: Sequence) -> Option<RefusedRaise> {
        if self.superseded {
            Some(RefusedRaise::Refusal(Refusal::StoreSuperseded))
        } else if let Some(parked) = self.parked {
            Some(RefusedRaise::Refusal(Refusal::Parked(parked)))
        } else if sequence > self.expected {
            Some(RefusedRaise::Refusal(Refusal::OutOfSequence { expected: self.expected }))
        } else if self.slots.len() >= self.window as usize {
            Some(RefusedRaise::WindowFull)
        } else {
            None
        }
    }

    /// A number was not decided: those above it wait until it comes again. Numbers that are known
    /// to be decided need nobody to wait: in whatever order they come again, they are duplicates.
    fn undecided(&mut self, sequence: Sequence, run: u32) {
        let sequence = sequence.max(self.decided.next());
        if run == self.run && sequence < self.expected {
            self.expected = sequence;
            self.run = self.run.wrapping_add(1);
        }
    }

    /// What became of something that the session asked for under this token.
    pub fn on_outcome(
        &mut self,
        token: Token,
        result: Result<Outcome, Failed>,
        view: View<'_>,
        out: &mut Out,
    ) {
        if self.stage == (Stage::Attaching { token }) {
            self.on_attached(result, view, out);
        } else {
            self.on_raised(token, result, out);
        }
    }

    /// As [`ServiceSession::on_outcome`] for a raise; needs no look at the state.
    pub fn on_raised(&mut self, token: Token, result: Result<Outcome, Failed>, out: &mut Out) {
        let Some(slot) = self.slot(token) else { return };
        let (sequence, run) = (slot.sequence, slot.run);
        match result {
            Ok(Outcome::Raised(Raised { duplicate, decision })) => {
                self.decided = self.decided.max(sequence);
                self.answer(token, ToService::decided(sequence, &decision, duplicate), out);
            }
            Ok(Outcome::Refused(refusal)) => self.on_refused(token, sequence, run, refusal, out),
            Err(Failed::Unknown) => {
                self.close(CloseReason::Unavailable, "a raise got no answer", out);
            }
            Err(
                failed @ (Failed::Busy
                | Failed::OverCapacity
                | Failed::DiskFull
                | Failed::Unavailable),
            ) => {
                self.undecided(sequence, run);
                let cause = RefusedRaise::Failed(failed);
                self.answer(token, ToService::Refused { sequence, cause }, out);
            }
            Ok(other) => {
                let detail = format!("unexpected answer to raise: {other:?}");
                self.close(CloseReason::Internal, detail, out);
            }
        }
    }

    fn on_refused(
        &mut self,
        token: Token,
        sequence: Sequence,
        run: u32,
        refusal: Refusal,
        out: &mut Out,
    ) {
        match &refusal {
            Refusal::OutOfSequence { expected } => self.undecided(*expected, run),
            Refusal::Parked(_) | Refusal::SiteBlank | Refusal::OverCapacity => {
                self.undecided(sequence, run);
            }
            // The store has forgotten what it sent: it learns of which number, then starts anew.
            Refusal::SequenceReused => {
                let cause = RefusedRaise::Refusal(refusal);
                self.answer(token, ToService::Refused { sequence, cause }, out);
                let detail = format!("number {sequence} was used for another event");
                return self.close(CloseReason::SequenceReused, detail, out);
            }
            Refusal::UnknownSite
            | Refusal::UnknownService
            | Refusal::UnknownClient
            | Refusal::UnknownUser
            | Refusal::UnknownToken
            | Refusal::UnknownEvent
            | Refusal::UnknownSubscription
            | Refusal::WrongCategory
            | Refusal::AlreadyExists
            | Refusal::StaleEpoch { .. }
            | Refusal::StalePosition
            | Refusal::WrongStore
            | Refusal::StoreSuperseded
            | Refusal::KeyReused
            | Refusal::TooManyKeys
            | Refusal::AccessDenied
            | Refusal::Invalid(_)
            | Refusal::Conflict { .. } => {
                return self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
            }
        }
        let cause = RefusedRaise::Refusal(refusal);
        self.answer(token, ToService::Refused { sequence, cause }, out);
    }

    fn on_attached(&mut self, result: Result<Outcome, Failed>, view: View<'_>, out: &mut Out) {
        match result {
            Ok(Outcome::ServiceAttached { epoch, incarnation, last, superseded, parked }) => {
                self.epoch = epoch;
                self.parked = parked;
                self.superseded = superseded;
                self.expected = last.next();
                self.decided = last;
                self.hello = None;
                self.welcome = Some(Box::new(Welcome { incarnation, last, superseded }));
                self.stage = Stage::Attached;
                self.open_when_applied(view, out);
            }
            Ok(Outcome::Refused(refusal)) => {
                self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
            }
            Ok(other) => {
                let detail = format!("unexpected answer to attach: {other:?}");
                self.close(CloseReason::Internal, detail, out);
            }
            // Proposed again by a session whose peer is long gone, it would replace the session
            // that the peer has opened meanwhile. A peer that is still there connects again.
            Err(Failed::Unknown) => {
                self.close(CloseReason::Unavailable, "the attach got no answer", out);
            }
            Err(Failed::Unavailable) => {
                self.close(CloseReason::Unavailable, "the partition is away", out);
            }
            Err(Failed::Busy | Failed::OverCapacity | Failed::DiskFull) => {
                self.close(CloseReason::Busy, "too much is waiting: connect again", out);
            }
        }
    }

    fn open_when_applied(&mut self, view: View<'_>, out: &mut Out) {
        let row = view.site.and_then(|site| site.service(self.service.as_str()));
        if row.is_some_and(|row| row.epoch < self.epoch) || !self.holds(view, out) {
            return;
        }
        let Some(welcome) = self.welcome.take() else { return };
        self.stage = Stage::Open;
        out.push(Output::Send(ToService::Welcome {
            service: self.service.clone(),
            epoch: self.epoch,
            incarnation: welcome.incarnation,
            parked: self.parked,
            last: welcome.last,
            superseded: welcome.superseded,
            window: self.window,
            args_bytes_max: view.limits.args_bytes_max,
        }));
        self.look_at_state(view, out);
    }

    /// Something about the service or its site may have changed.
    pub fn on_wake(&mut self, view: View<'_>, out: &mut Out) {
        match self.stage {
            Stage::New | Stage::Attaching { .. } | Stage::Closed => {}
            Stage::Attached => self.open_when_applied(view, out),
            Stage::Open | Stage::Draining => {
                if self.holds(view, out) {
                    self.look_at_state(view, out);
                }
            }
        }
    }

    /// Tells the service when it was parked or came online.
    fn look_at_state(&mut self, view: View<'_>, out: &mut Out) {
        let Some(site) = view.site else { return };
        let Some(row) = site.service(self.service.as_str()) else { return };
        let parked = site.parked(row);
        if parked != self.parked {
            self.parked = parked;
            out.push(Output::Send(ToService::State(parked)));
        }
    }

    /// Whether the session's terms still hold; closes it when they do not.
    fn holds(&mut self, view: View<'_>, out: &mut Out) -> bool {
        let row = view.site.and_then(|site| site.service(self.service.as_str()));
        match row {
            None => {
                self.close(CloseReason::NotRegistered, "the service was deleted", out);
                false
            }
            Some(row) if row.epoch > self.epoch => {
                let detail = format!("a newer session, epoch {}, took over", row.epoch);
                self.close(CloseReason::Replaced, detail, out);
                false
            }
            Some(row) if row.epoch < self.epoch => {
                let detail = "the service was deleted and created again";
                self.close(CloseReason::NotRegistered, detail, out);
                false
            }
            Some(_) => self.credential_holds(view, out),
        }
    }

    fn credential_holds(&mut self, view: View<'_>, out: &mut Out) -> bool {
        let holds = credential_holds(self.credential.as_ref(), view);
        if !holds {
            self.close(CloseReason::TokenRevoked, "the token was revoked", out);
        }
        holds
    }

    /// The service leaves: the session closes when all raises are answered.
    pub fn on_goodbye(&mut self, out: &mut Out) {
        if self.stage == Stage::Open && !self.slots.is_empty() {
            self.stage = Stage::Draining;
        } else {
            self.close(CloseReason::Goodbye, "", out);
        }
    }

    /// The connection ended, for whatever reason: what to propose so that the service counts as
    /// offline. Nobody waits for its outcome.
    pub fn on_ended(&self) -> Option<Command> {
        (self.epoch > Epoch(0)).then(|| Command::DetachService {
            site: self.site.clone(),
            service: self.service.clone(),
            epoch: self.epoch,
        })
    }

    /// Closes the session unless it is closed.
    pub fn close(&mut self, reason: CloseReason, detail: impl Into<String>, out: &mut Out) {
        if self.is_closed() {
            return;
        }
        self.stage = Stage::Closed;
        self.slots = VecDeque::new();
        out.push(Output::Close { reason, detail: detail.into() });
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let index = usize::try_from(token.0.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Keeps the answer until those before it are given, then gives all that are due.
    fn answer(&mut self, token: Token, answer: ToService, out: &mut Out) {
        if let Some(slot) = self.slot(token) {
            slot.answer = Some(answer);
        }
        while let Some(answer) = self.slots.front_mut().and_then(|slot| slot.answer.take()) {
            self.slots.pop_front();
            self.first += 1;
            out.push(Output::Send(answer));
        }
        if self.stage == Stage::Draining && self.slots.is_empty() {
            self.close(CloseReason::Goodbye, "", out);
        }
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }
}
