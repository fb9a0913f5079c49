//! What the publish machine makes of the broker's frames.
//!
//! Every transmission gets one answer on its connection. An answer to an older transmission of an
//! event that has been sent again since decides nothing about sending; it still decides the event.

use ackord_wire::Code;
use ackord_wire::frame::{
    Closing, Refused, Rejected, ServiceMessage, ServiceState, ServiceWelcome,
};

use super::{BUSY_PAUSE_MS_MAX, BUSY_PAUSE_MS_MIN, Publish, Session, Then, Waits};
use crate::error::RaiseError;
use crate::event::Outcome;
use crate::notice::{RenewReason, ServiceNotice};

impl Publish {
    /// A frame of the broker.
    pub fn receive(&mut self, now_ms: u64, message: ServiceMessage) {
        if self.session == Session::Down {
            return;
        }
        match message {
            ServiceMessage::Welcome(welcome) => self.welcomed(&welcome),
            ServiceMessage::Accepted(accepted) => {
                self.answered();
                let outcome = Outcome {
                    instance_id: accepted.instance_id,
                    duplicate: accepted.duplicate,
                    ignored: accepted.ignored,
                };
                self.settle(accepted.seq, Ok(outcome));
            }
            ServiceMessage::Rejected(rejected) => self.rejected(rejected),
            ServiceMessage::Refused(refused) => self.refused(now_ms, refused),
            ServiceMessage::State(state) => self.turned(&state),
            ServiceMessage::Closing(closing) => self.closed(closing),
        }
        self.pump(now_ms);
    }

    fn welcomed(&mut self, welcome: &ServiceWelcome) {
        if !matches!(self.session, Session::Greeting { .. }) {
            let reason = "a second welcome".to_owned();
            return self.close(Then::Backoff { retry_after_ms: None, reason });
        }
        self.window = (welcome.window.max(1) as usize).min(self.options.window.max(1) as usize);
        self.args_bytes_max = welcome.args_bytes_max as usize;
        self.session = Session::Parked;
        self.pause_until_ms = 0;
        self.refusals = 0;
        if welcome.superseded {
            return self.superseded();
        }
        self.continues = None;
        self.send_next = self.backlog.base();
        self.last = welcome.last;
        if welcome.last.saturating_add(1) < self.backlog.base() {
            return self.renew(Some(RenewReason::MarksLost));
        }
        if welcome.last > self.backlog.counter() {
            // What is numbered was decided: its outcomes are asked for first, under the old uid.
            self.renewal = Some(RenewReason::NumbersLost);
        }
        self.turned(&welcome.state);
    }

    fn turned(&mut self, state: &ServiceState) {
        if matches!(self.session, Session::Greeting { .. }) {
            return;
        }
        if state.online {
            if self.session != Session::Online {
                self.session = Session::Online;
                self.pause_until_ms = 0;
                self.tell(ServiceNotice::Online);
            }
        } else {
            self.session = Session::Parked;
            let reason = state.reason.unwrap_or(Code::Unknown);
            self.tell(ServiceNotice::Parked { reason });
        }
    }

    /// The broker retired the uid: what is stale is dropped, what is fresh gets a new one.
    fn superseded(&mut self) {
        let gone = self.backlog.discard_stale();
        let dropped = gone.len() as u64;
        for held in gone {
            if held.waits == Waits::ForOutcome {
                self.decided(held.ticket, Err(RaiseError::StoreSuperseded));
            }
        }
        self.tell(ServiceNotice::StoreSuperseded { dropped });
        self.renew(None);
    }

    /// A number is decided for good.
    fn settle(&mut self, seq: u64, result: Result<Outcome, RaiseError>) {
        self.refusals = 0;
        let Some(held) = self.backlog.settle(seq) else { return };
        self.renewals = 0;
        match (held.waits, result) {
            (Waits::ForOutcome, result) => self.decided(held.ticket, result),
            (Waits::No, Err(RaiseError::Rejected { code, detail })) => {
                let event = held.event.name.clone();
                self.tell(ServiceNotice::Rejected { event, code, detail });
            }
            (Waits::No, Ok(_) | Err(_)) => {}
        }
    }

    /// One transmission less is in flight.
    fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    fn rejected(&mut self, rejected: Rejected) {
        self.answered();
        let Rejected { seq, code, detail, .. } = rejected;
        if code == Code::SequenceReused {
            return self.reused(seq);
        }
        self.settle(seq, Err(RaiseError::Rejected { code, detail }));
    }

    fn refused(&mut self, now_ms: u64, refused: Refused) {
        self.answered();
        let Refused { seq, code, expected, retry_after_ms, .. } = refused;
        if code == Code::SequenceReused {
            return self.reused(seq);
        }
        if code == Code::StoreSuperseded {
            return self.superseded();
        }
        if code == Code::WrongStore {
            let reason = "the session is about another store".to_owned();
            return self.close(Then::Backoff { retry_after_ms, reason });
        }
        // Whatever else the reason: the number is free, the event is sent again.
        let Some(slot) = self.backlog.slot(seq).filter(|slot| slot.undecided()) else { return };
        slot.outstanding = slot.outstanding.saturating_sub(1);
        if slot.outstanding > 0 {
            return;
        }
        self.send_next = self.send_next.min(seq);
        if code == Code::OutOfSequence {
            match expected {
                Some(expected) if expected < self.backlog.base() => {
                    // The broker forgot what it had decided.
                    return self.renew(Some(RenewReason::MarksLost));
                }
                Some(expected) => self.send_next = self.send_next.min(expected),
                None => self.send_next = self.backlog.base(),
            }
            let first = self.send_next;
            let helps = first < seq && self.backlog.slot(first).is_some_and(|s| s.undecided());
            if helps && retry_after_ms.is_none() {
                return;
            }
        }
        let doubled = BUSY_PAUSE_MS_MIN << self.refusals.min(16);
        self.refusals = self.refusals.saturating_add(1);
        let own = self.entropy.jitter(doubled.min(BUSY_PAUSE_MS_MAX));
        let pause = retry_after_ms.unwrap_or(own).min(crate::reconnect::RETRY_AFTER_MS_MAX);
        self.pause_until_ms = self.pause_until_ms.max(now_ms + pause);
    }

    /// A number had been used for another event: it stays out until the new uid.
    fn reused(&mut self, seq: u64) {
        if let Some(slot) = self.backlog.slot(seq).filter(|slot| slot.held.is_some()) {
            slot.reused = true;
            self.renewal = Some(RenewReason::SequenceReused);
        }
    }

    fn closed(&mut self, closing: Closing) {
        let Closing { code, detail, reconnect, retry_after_ms } = closing;
        if code == Code::StoreSuperseded {
            return self.superseded();
        }
        if code == Code::SequenceReused {
            self.pinpoint();
        }
        self.close(if reconnect {
            Then::Backoff { retry_after_ms, reason: format!("{code}: {detail}") }
        } else {
            Then::Stop { code, detail }
        });
    }

    /// The broker closed over a reused number without naming it: the only one in flight it is,
    /// else they are sent one at a time.
    fn pinpoint(&mut self) {
        if self.renewal.is_some() {
            return;
        }
        let base = self.backlog.base();
        let numbered = self.backlog.slots.iter().zip(base..);
        let mut in_flight = numbered.filter(|(slot, _)| slot.undecided() && slot.outstanding > 0);
        match (in_flight.next(), in_flight.next()) {
            (Some((_, seq)), None) => self.reused(seq),
            (Some(_), Some(_)) | (None, _) => self.probing = true,
        }
    }
}
