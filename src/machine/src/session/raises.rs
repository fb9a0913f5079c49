//! The raises of a connected service: proposed in order, again if need be, answered in order.
//!
//! `raise ─▶ proposed ─▶ (decided) answered`, `proposed ─▶ (failed) waiting ─▶ proposed`
//!
//! Invariants:
//! - Answers leave in the order in which the raises came, whatever the order of outcomes.
//! - At most a window of raises is in flight; more are refused, not queued. Their refusals wait
//!   for the answers before them; a peer that lets too many wait is closed.
//! - A raise that failed, or of unknown fate, waits and is proposed again under its number; those
//!   behind it wait with it. While they do only the first of them is proposed, from time to time:
//!   until it is decided, all others are out of sequence. The peer hears of it only when it lasts.
//! - The first raise that is not decided is on its way, or there is a time to propose it again.
//! - Once a raise is refused to the peer without a decision, every later number is refused
//!   `out-of-sequence` until that number comes again: by the state for those under way, here for
//!   those that wait or follow, so that they cost no log entry.

use std::collections::VecDeque;

use crate::site::{Command, NewEvent, Outcome, Raise, Raised, Raising, Refusal, Sequence};

use super::message::{RefusedRaise, ToService};
use super::service::{Out, ServiceSession, Stage};
use super::{
    CloseReason, Failed, Output, PATIENCE_BUSY_MS, PATIENCE_MS, PROPOSE_RETRY_MS, Token, close_of,
    refusal_detail,
};

/// Arguments are cut behind this many bytes before they are proposed: no deployment allows more,
/// so they are rejected all the same, and the log does not carry them.
pub const ARGS_BYTES_CUT: usize = 65_536 + 1;

/// Raises beyond the window that may wait for their refusal.
pub const SURPLUS_MAX: usize = 64;

/// One raise that is not yet answered.
#[derive(Clone, Debug)]
struct Slot {
    sequence: Sequence,
    /// Refusals of an earlier run say nothing about the present one.
    run: u32,
    /// What to propose; `None` for what never was.
    event: Option<Box<NewEvent>>,
    fate: Fate,
}

#[derive(Clone, Debug)]
enum Fate {
    /// Its outcome is awaited.
    Proposed,
    /// It is to be proposed, or proposed again.
    Waiting,
    /// What to say when those before it are answered.
    Answered(ToService),
}

/// Raises wait because one of them failed.
#[derive(Clone, Copy, Debug)]
struct Stall {
    since_ms: u64,
    /// When the first of them is proposed again; `None` while one before them is on its way.
    retry_ms: Option<u64>,
    /// A rate holds them back: so many of them may be under way. It begins at half of what the rate
    /// let through before, and each one that passes raises it. Whatever is proposed beyond what the
    /// rate lets through costs the log of all and comes back. `None` is no such bound.
    pace: Option<usize>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Raises {
    /// The next number in line: higher ones are out of sequence.
    expected: Sequence,
    /// The highest number known to be decided.
    decided: Sequence,
    /// Counts the times that `expected` was set back.
    run: u32,
    /// The token of the first slot; the others follow without holes.
    first: u64,
    slots: VecDeque<Slot>,
    stall: Option<Stall>,
    /// Decided since a rate last refused one.
    passed: usize,
}

impl Raises {
    /// The state has decided the numbers up to this one.
    pub(super) fn start_after(&mut self, last: Sequence) {
        self.expected = last.next();
        self.decided = last;
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn retry_ms(&self) -> Option<u64> {
        self.stall.and_then(|stall| stall.retry_ms)
    }

    pub(super) fn clear(&mut self) {
        self.slots = VecDeque::new();
        self.stall = None;
    }

    fn index(&self, token: Token) -> Option<usize> {
        let index = usize::try_from(token.0.checked_sub(self.first)?).ok()?;
        (index < self.slots.len()).then_some(index)
    }

    fn token(&self, index: usize) -> Token {
        Token(self.first + index as u64)
    }

    fn first_waiting(&self) -> Option<usize> {
        self.slots.iter().position(|slot| matches!(slot.fate, Fate::Waiting))
    }

    fn undecided_before(&self, index: usize) -> bool {
        let undecided = |slot: &Slot| !matches!(slot.fate, Fate::Answered(_));
        self.slots.iter().take(index).any(undecided)
    }

    /// A number was not decided, and its peer is told so: those above it wait until it comes again.
    /// Numbers that are known to be decided need nobody to wait: in whatever order they come again,
    /// they are duplicates.
    fn undecided(&mut self, sequence: Sequence, run: u32) {
        let sequence = sequence.max(self.decided.next());
        if run != self.run || sequence >= self.expected {
            return;
        }
        self.expected = sequence;
        self.run = self.run.wrapping_add(1);
        for slot in self.slots.iter_mut().filter(|slot| matches!(slot.fate, Fate::Waiting)) {
            if slot.sequence < sequence {
                slot.run = self.run;
            } else {
                let cause = RefusedRaise::Refusal(Refusal::OutOfSequence { expected: sequence });
                slot.fate = Fate::Answered(ToService::Refused { sequence: slot.sequence, cause });
            }
        }
        if self.first_waiting().is_none() {
            self.stall = None;
        }
    }

    /// An answer that waited for those before it never asks for a number that these have decided.
    fn up_to_date(&self, mut answer: ToService) -> ToService {
        if let ToService::Refused { sequence, cause } = &mut answer
            && let RefusedRaise::Refusal(Refusal::OutOfSequence { expected }) = cause
        {
            let next = self.decided.next().min(*sequence);
            *expected = next.max(*expected);
        }
        answer
    }

    /// The raise failed: it waits, and those that come after it.
    fn wait(&mut self, index: usize, now_ms: u64, retry_ms: u64) {
        self.slots[index].fate = Fate::Waiting;
        let first = !self.undecided_before(index);
        let stall =
            self.stall.get_or_insert(Stall { since_ms: now_ms, retry_ms: None, pace: None });
        if first {
            stall.retry_ms = Some(now_ms + retry_ms);
        }
    }

    /// A rate refused the raise: it waits, and those that come after it.
    fn hold_back(&mut self, index: usize, now_ms: u64, retry_ms: u64) {
        let first = !self.undecided_before(index);
        self.wait(index, now_ms, retry_ms);
        if first && let Some(stall) = &mut self.stall {
            stall.pace = Some(std::mem::take(&mut self.passed) / 2);
        }
    }

    /// Whether the peer is to be told that a raise fails.
    fn is_impatient(&self, failed: Failed, now_ms: u64) -> bool {
        let patience_ms = match failed {
            Failed::Busy => PATIENCE_BUSY_MS,
            Failed::Unavailable | Failed::Unknown => PATIENCE_MS,
            Failed::OverCapacity | Failed::DiskFull => 0,
        };
        let since_ms = self.stall.map_or(now_ms, |stall| stall.since_ms);
        now_ms >= since_ms + patience_ms
    }
}

impl ServiceSession {
    /// The service raises an event under a number of its store.
    pub fn on_raise(&mut self, sequence: Sequence, mut event: NewEvent, out: &mut Out) {
        match self.stage {
            Stage::Open => {}
            Stage::Closed | Stage::Draining => return,
            Stage::New
            | Stage::Attaching { .. }
            | Stage::AttachDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Attached => {
                return self.close(CloseReason::ProtocolViolation, "the session is not open", out);
            }
        }
        if self.raises.len() >= self.window as usize + SURPLUS_MAX {
            let detail = format!("{SURPLUS_MAX} raises more than the window of {}", self.window);
            return self.close(CloseReason::LimitReached, detail, out);
        }
        let cause = self.refusal(sequence);
        let token = self.token();
        if self.raises.slots.is_empty() {
            self.raises.first = token.0;
        }
        let run = self.raises.run;
        if let Some(cause) = cause {
            // One that comes again while the window is full is under way: nobody waits for it.
            let waited_for = !matches!(cause, RefusedRaise::WindowFull);
            let fate = Fate::Answered(ToService::Refused { sequence, cause });
            self.raises.slots.push_back(Slot { sequence, run, event: None, fate });
            if waited_for {
                self.raises.undecided(sequence, run);
            }
            return self.release(out);
        }
        if let Some(arguments) = &mut event.arguments {
            arguments.data.truncate(ARGS_BYTES_CUT);
        }
        if sequence == self.raises.expected {
            self.raises.expected = sequence.next();
        }
        let event = Some(Box::new(event));
        self.raises.slots.push_back(Slot { sequence, run, event, fate: Fate::Waiting });
        if self.raises.stall.is_none() {
            self.propose_raise(self.raises.len() - 1, out);
        }
    }

    /// Why this number is not worth a log entry now.
    fn refusal(&self, sequence: Sequence) -> Option<RefusedRaise> {
        let Raises { expected, .. } = self.raises;
        if self.superseded {
            Some(RefusedRaise::Refusal(Refusal::StoreSuperseded))
        } else if let Some(parked) = self.parked {
            Some(RefusedRaise::Refusal(Refusal::Parked(parked)))
        } else if sequence > expected {
            Some(RefusedRaise::Refusal(Refusal::OutOfSequence { expected }))
        } else if self.raises.len() >= self.window as usize {
            Some(RefusedRaise::WindowFull)
        } else {
            None
        }
    }

    /// Proposes a raise if it waits.
    fn propose_raise(&mut self, index: usize, out: &mut Out) {
        let token = self.raises.token(index);
        let Some(slot) = self.raises.slots.get_mut(index) else { return };
        let (Fate::Waiting, Some(event)) = (&slot.fate, &slot.event) else { return };
        let command = Command::from(Raising::Session(Raise {
            site: self.site.clone(),
            service: self.service.clone(),
            epoch: self.epoch,
            uid: self.uid,
            sequence: slot.sequence,
            event: NewEvent::clone(event),
        }));
        slot.fate = Fate::Proposed;
        out.push(Output::Propose { token, command });
    }

    /// As [`ServiceSession::on_outcome`] for a raise; needs no look at the state.
    pub fn on_raised(
        &mut self,
        token: Token,
        result: Result<Outcome, Failed>,
        now_ms: u64,
        out: &mut Out,
    ) {
        let Some(index) = self.raises.index(token) else { return };
        let Slot { sequence, run, fate: Fate::Proposed, .. } = self.raises.slots[index] else {
            return;
        };
        match result {
            Ok(Outcome::Raised(Raised { duplicate, decision })) => {
                // What only this session's own repeat makes a duplicate is none to the peer.
                let duplicate = duplicate && sequence <= self.raises.decided;
                self.raises.decided = self.raises.decided.max(sequence);
                let answer = ToService::decided(sequence, &decision, duplicate);
                self.raises.slots[index].fate = Fate::Answered(answer);
                self.raises.passed = self.raises.passed.saturating_add(1);
                self.resume(now_ms, out);
                self.release(out);
            }
            Ok(Outcome::Refused(refusal)) => self.on_refused(index, refusal, now_ms, out),
            Err(failed) => {
                let own = run == self.raises.run;
                let behind = self.raises.undecided_before(index);
                if own && (behind || !self.raises.is_impatient(failed, now_ms)) {
                    return self.raises.wait(index, now_ms, PROPOSE_RETRY_MS);
                }
                // Nothing else is known of the number than that it may come again.
                let failed = if failed == Failed::Unknown { Failed::Unavailable } else { failed };
                self.refuse(index, sequence, RefusedRaise::Failed(failed), now_ms, out);
            }
            Ok(other) => {
                let detail = format!("unexpected answer to raise: {other:?}");
                self.close(CloseReason::Internal, detail, out);
            }
        }
    }

    fn on_refused(&mut self, index: usize, refusal: Refusal, now_ms: u64, out: &mut Out) {
        let Slot { sequence, run, .. } = self.raises.slots[index];
        let behind = run == self.raises.run && self.raises.undecided_before(index);
        match refusal {
            // Numbers below it wait, or are under way again; it is judged anew after them.
            Refusal::OutOfSequence { .. }
            | Refusal::Parked(_)
            | Refusal::SiteBlank
            | Refusal::OverCapacity
            | Refusal::QuotaExceeded { .. }
                if behind =>
            {
                self.raises.wait(index, now_ms, PROPOSE_RETRY_MS);
            }
            // The rate holds the session back rather than have its peer send everything again.
            Refusal::RateLimited { retry_ms, .. }
                if behind
                    || run == self.raises.run
                        && !self.raises.is_impatient(Failed::Busy, now_ms) =>
            {
                self.raises.hold_back(index, now_ms, u64::from(retry_ms));
            }
            Refusal::OutOfSequence { expected } => {
                self.refuse(index, expected, RefusedRaise::Refusal(refusal), now_ms, out);
            }
            Refusal::Parked(_)
            | Refusal::SiteBlank
            | Refusal::OverCapacity
            | Refusal::RateLimited { .. }
            | Refusal::QuotaExceeded { .. } => {
                self.refuse(index, sequence, RefusedRaise::Refusal(refusal), now_ms, out);
            }
            // The store has forgotten what it sent: it learns of which number, then starts anew.
            Refusal::SequenceReused => {
                let cause = RefusedRaise::Refusal(refusal);
                let refused = ToService::Refused { sequence, cause };
                self.raises.slots[index].fate = Fate::Answered(refused);
                self.release(out);
                let detail = format!("number {sequence} was used for another event");
                self.close(CloseReason::SequenceReused, detail, out);
            }
            Refusal::UnknownSite
            | Refusal::UnknownService
            | Refusal::UnknownClient
            | Refusal::UnknownUser
            | Refusal::UnknownToken
            | Refusal::UnknownEvent
            | Refusal::UnknownSubscription
            | Refusal::UnknownDeadLetter
            | Refusal::WrongCategory
            | Refusal::AlreadyExists
            | Refusal::StaleEpoch { .. }
            | Refusal::Kicked
            | Refusal::Precondition
            | Refusal::Overtaken { .. }
            | Refusal::StalePosition
            | Refusal::WrongStore
            | Refusal::StoreSuperseded
            | Refusal::KeyReused
            | Refusal::TooManyKeys
            | Refusal::LimitReached { .. }
            | Refusal::AccessDenied
            | Refusal::Invalid(_)
            | Refusal::Conflict { .. }
            | Refusal::BadQuality(_)
            | Refusal::NotYet => {
                self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
            }
        }
    }

    /// Tells the peer that a raise was not decided, and from which number on it shall come again.
    fn refuse(
        &mut self,
        index: usize,
        from: Sequence,
        cause: RefusedRaise,
        now_ms: u64,
        out: &mut Out,
    ) {
        let slot = &mut self.raises.slots[index];
        let (sequence, run) = (slot.sequence, slot.run);
        slot.fate = Fate::Answered(ToService::Refused { sequence, cause });
        self.raises.undecided(from, run);
        // Those that still wait have lost the one that they waited for.
        if let Some(stall) = &mut self.raises.stall {
            stall.retry_ms.get_or_insert(now_ms + PROPOSE_RETRY_MS);
        }
        self.release(out);
    }

    /// Proposes the first raise that waits once its time has come, or as many as a rate's pace allows.
    pub(super) fn retry_raises(&mut self, now_ms: u64, out: &mut Out) {
        let Some(stall) = &mut self.raises.stall else { return };
        if stall.retry_ms.is_none_or(|at| at > now_ms) {
            return;
        }
        stall.retry_ms = None;
        let most = stall.pace.unwrap_or(1).max(1);
        if self.propose_waiting(most, out) == 0 {
            self.raises.stall = None;
        }
    }

    /// Proposes the first ones that wait, so many at most; how many that were.
    fn propose_waiting(&mut self, most: usize, out: &mut Out) -> usize {
        let waits = |index: &usize| matches!(self.raises.slots[*index].fate, Fate::Waiting);
        let waiting: Vec<usize> = (0..self.raises.len()).filter(waits).take(most).collect();
        for index in &waiting {
            self.propose_raise(*index, out);
        }
        waiting.len()
    }

    /// A raise was decided: the partition is back, and what waits is proposed, in order; all of it, or
    /// at the pace of the rate that held it back.
    fn resume(&mut self, now_ms: u64, out: &mut Out) {
        let Some(stall) = self.raises.stall.take() else { return };
        let pace = stall.pace.map(|pace| pace + 1);
        let under_way =
            self.raises.slots.iter().filter(|slot| matches!(slot.fate, Fate::Proposed)).count();
        let most = pace.map_or(usize::MAX, |pace| pace.saturating_sub(under_way));
        let proposed = self.propose_waiting(most, out);
        if self.raises.first_waiting().is_some() {
            // What is under way says how it goes on; where nothing is, the time does.
            let retry_ms = if proposed > 0 { None } else { stall.retry_ms };
            self.raises.stall = Some(Stall { since_ms: now_ms, retry_ms, pace });
        }
    }

    /// Gives the answers that are due.
    fn release(&mut self, out: &mut Out) {
        while let Some(Slot { fate: Fate::Answered(_), .. }) = self.raises.slots.front()
            && let Some(Slot { fate: Fate::Answered(answer), .. }) = self.raises.slots.pop_front()
        {
            self.raises.first += 1;
            out.push(Output::Send(self.raises.up_to_date(answer)));
        }
        if self.stage == Stage::Draining && self.raises.slots.is_empty() {
            self.close(CloseReason::Goodbye, "", out);
        }
    }
}
