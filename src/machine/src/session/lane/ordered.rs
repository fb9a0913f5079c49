//! The ordered delivery of one subscription.
//!
//! `idle ─▶ in flight ─▶ (acknowledged) committing ─▶ idle`, `in flight ─▶ (nack) backing off ─▶ in flight`
//!
//! Invariants:
//! - At most one instance is between selection and commit.
//! - The cursor never falls within a (incarnation, generation); ids and cursors are compared with
//!   `<=`, because a retained id need not be the one after the cursor.
//! - An instance that is no longer retained, or past its lifetime, is never sent (again), but its
//!   acknowledgement counts as long as it is in flight.
//! - Without authority nothing is sent; what is in flight stays so, and its acknowledgement counts.

use std::sync::Arc;

use crate::site::{GivenUp, Instance, InstanceId, LetterCause, SubscriptionRow};

use super::super::Token;
use super::{
    Counts, Head, InFlight, LaneState, Named, STALE_LOOK_MS, Sight, Step, WITHHELD, retry_at,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub(super) head: Head,
    phase: Phase,
    /// When what was last sent was sent first, by the clock of the deadlines.
    since_ms: u64,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    InFlight {
        instance: InstanceId,
        attempt: u32,
        resend_ms: u64,
    },
    BackingOff {
        instance: InstanceId,
        attempt: u32,
        until_ms: u64,
    },
    Committing {
        instance: InstanceId,
        token: Token,
        given_up: Option<GivenUp>,
    },
    /// The commit is to be proposed at this time.
    CommitDelayed {
        instance: InstanceId,
        until_ms: u64,
        given_up: Option<GivenUp>,
    },
}

impl Ordered {
    pub(super) fn new(head: Head) -> Self {
        Self { head, phase: Phase::Idle, since_ms: 0, counts: Counts::default() }
    }

    /// See [`super::Lane::done`].
    pub(super) fn done(&self) -> InstanceId {
        match self.phase {
            Phase::Committing { instance, given_up: None, .. }
            | Phase::CommitDelayed { instance, given_up: None, .. } => instance,
            Phase::Idle
            | Phase::InFlight { .. }
            | Phase::BackingOff { .. }
            | Phase::Committing { .. }
            | Phase::CommitDelayed { .. } => self.head.cursor,
        }
    }

    /// A new lane, of a subscription that is delivered up to here.
    pub(super) fn begin_behind(&mut self, done: InstanceId) {
        if done > self.head.cursor {
            self.phase = Phase::CommitDelayed { instance: done, until_ms: 0, given_up: None };
        }
    }

    /// What the lane is doing.
    pub(super) fn state(&self) -> LaneState {
        match self.phase {
            Phase::Idle if self.head.granted => LaneState::Idle,
            Phase::Idle => LaneState::Unauthorized,
            Phase::InFlight { instance, .. } => LaneState::InFlight(instance),
            Phase::BackingOff { instance, .. } => LaneState::BackingOff(instance),
            Phase::Committing { instance, .. } | Phase::CommitDelayed { instance, .. } => {
                LaneState::Committing(instance)
            }
        }
    }

    /// What is sent and not acknowledged, or returned to be sent again.
    pub(super) fn in_flight(&self) -> Option<InFlight> {
        match self.phase {
            Phase::InFlight { instance, attempt, .. }
            | Phase::BackingOff { instance, attempt, .. } => {
                Some(InFlight { instance, attempt, since_ms: self.since_ms })
            }
            Phase::Idle | Phase::Committing { .. } | Phase::CommitDelayed { .. } => None,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// When [`Ordered::step`] has something to do without being woken.
    pub(super) fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle | Phase::Committing { .. } => None,
            Phase::InFlight { resend_ms: at, .. }
            | Phase::BackingOff { until_ms: at, .. }
            | Phase::CommitDelayed { until_ms: at, .. } => (at != WITHHELD).then_some(at),
        }
    }

    /// Whether [`Ordered::step`] would look at the queue or send again.
    pub(super) fn wants_authority(&self, now_ms: u64) -> bool {
        match self.phase {
            Phase::Idle => true,
            Phase::InFlight { resend_ms: at, .. } | Phase::BackingOff { until_ms: at, .. } => {
                at <= now_ms
            }
            Phase::Committing { .. } | Phase::CommitDelayed { .. } => false,
        }
    }

    /// Takes note of the client's authority; true when it changed.
    pub(super) fn set_granted(&mut self, granted: bool, now_ms: u64) -> bool {
        if self.head.granted == granted {
            return false;
        }
        self.head.granted = granted;
        if granted {
            match &mut self.phase {
                Phase::InFlight { resend_ms: at, .. } | Phase::BackingOff { until_ms: at, .. } => {
                    if *at == WITHHELD {
                        *at = now_ms;
                    }
                }
                Phase::Idle | Phase::Committing { .. } | Phase::CommitDelayed { .. } => {}
            }
        }
        true
    }

    /// Takes note of the subscription as the state has it. Answers the instance that was in
    /// flight when the state says that it is delivered.
    pub(super) fn sync(
        &mut self,
        row: &SubscriptionRow,
        ack_timeout_ms: u32,
    ) -> Option<InstanceId> {
        self.head.take(row, ack_timeout_ms);
        if row.generation != self.head.generation {
            self.head.generation = row.generation;
            self.head.cursor = row.cursor;
            self.phase = Phase::Idle;
            return None;
        }
        self.head.cursor = self.head.cursor.max(row.cursor);
        match self.phase {
            Phase::InFlight { instance, .. } | Phase::BackingOff { instance, .. }
                if instance <= self.head.cursor =>
            {
                self.phase = Phase::Idle;
                self.counts.delivered += 1;
                Some(instance)
            }
            Phase::Idle
            | Phase::InFlight { .. }
            | Phase::BackingOff { .. }
            | Phase::Committing { .. }
            | Phase::CommitDelayed { .. } => None,
        }
    }

    /// What is to be done now. Repeat until it rests; each other answer moves the lane on.
    pub(super) fn step(&mut self, sight: &Sight<'_>) -> Step {
        let now_ms = sight.now_ms;
        if sight.stale {
            return self.rest_while_stale(now_ms);
        }
        match self.phase {
            Phase::Idle => self.select(sight),
            Phase::InFlight { instance, attempt, resend_ms: at }
            | Phase::BackingOff { instance, attempt, until_ms: at }
                if at <= now_ms =>
            {
                self.send_again(sight, instance, attempt)
            }
            Phase::CommitDelayed { instance, until_ms, given_up } if until_ms <= now_ms => {
                finish(instance, given_up)
            }
            Phase::InFlight { .. }
            | Phase::BackingOff { .. }
            | Phase::Committing { .. }
            | Phase::CommitDelayed { .. } => Step::Rest,
        }
    }

    /// Nothing is sent by a node that may know too little; what is to be committed goes on.
    fn rest_while_stale(&mut self, now_ms: u64) -> Step {
        match &mut self.phase {
            Phase::CommitDelayed { instance, until_ms, given_up } if *until_ms <= now_ms => {
                finish(*instance, *given_up)
            }
            Phase::InFlight { resend_ms: at, .. } | Phase::BackingOff { until_ms: at, .. } => {
                *at = (*at).max(now_ms + STALE_LOOK_MS);
                Step::Rest
            }
            Phase::Idle | Phase::Committing { .. } | Phase::CommitDelayed { .. } => Step::Rest,
        }
    }

    fn select(&mut self, sight: &Sight<'_>) -> Step {
        if !self.head.granted {
            return Step::Rest;
        }
        match sight.next(self.head.event, self.head.cursor) {
            Some(instance) if sight.is_given_up(self.head.event, instance.id) => {
                self.commit_later(instance.id, sight.now_ms, None)
            }
            Some(instance) => self.transmit(instance.clone(), 1, sight.now_ms),
            None => Step::Rest,
        }
    }

    /// Notes what is to be committed, for what follows may fail.
    fn commit_later(
        &mut self,
        instance: InstanceId,
        now_ms: u64,
        given_up: Option<GivenUp>,
    ) -> Step {
        self.phase = Phase::CommitDelayed { instance, until_ms: now_ms, given_up };
        finish(instance, given_up)
    }

    fn send_again(&mut self, sight: &Sight<'_>, instance: InstanceId, attempt: u32) -> Step {
        if !self.head.granted {
            self.phase = Phase::InFlight { instance, attempt, resend_ms: WITHHELD };
            return Step::Rest;
        }
        match sight.alive(instance) {
            // Replaced, evicted or expired: it is not sent again, the next one is.
            None => {
                self.phase = Phase::Idle;
                self.select(sight)
            }
            Some(_) if self.head.exhausted(attempt) => {
                self.counts.failed += 1;
                let given_up = self.head.given_up(attempt, LetterCause::Timeout);
                self.commit_later(instance, sight.now_ms, given_up)
            }
            Some(found) => self.transmit(found.clone(), attempt.saturating_add(1), sight.now_ms),
        }
    }

    fn transmit(&mut self, instance: Arc<Instance>, attempt: u32, now_ms: u64) -> Step {
        let resend_ms = now_ms + u64::from(self.head.ack_timeout_ms);
        self.phase = Phase::InFlight { instance: instance.id, attempt, resend_ms };
        if attempt == 1 {
            self.since_ms = now_ms;
        }
        Step::Send { instance, attempt }
    }

    /// The attempt of the instance in flight, if the client names that one.
    fn attempt(&self, named: &Named) -> Option<u32> {
        match self.phase {
            Phase::InFlight { instance, attempt, .. }
            | Phase::BackingOff { instance, attempt, .. }
                if self.head.is_named(named, instance) =>
            {
                Some(attempt)
            }
            Phase::InFlight { .. }
            | Phase::BackingOff { .. }
            | Phase::Idle
            | Phase::Committing { .. }
            | Phase::CommitDelayed { .. } => None,
        }
    }

    /// The client handled this instance: whether there is a step for it. Anything that does not
    /// name the instance in flight is ignored.
    pub(super) fn on_ack(&mut self, named: &Named, now_ms: u64) -> bool {
        if self.attempt(named).is_none() {
            return false;
        }
        self.counts.delivered += 1;
        self.commit_later(named.instance, now_ms, None);
        true
    }

    /// The client returned this instance: whether there is a step for it, because its attempts are
    /// used up.
    pub(super) fn on_nack(&mut self, named: &Named, retry_ms: u64, now_ms: u64) -> bool {
        let Some(attempt) = self.attempt(named) else { return false };
        self.counts.failed += 1;
        if self.head.exhausted(attempt) {
            let given_up = self.head.given_up(attempt, LetterCause::Returned);
            self.commit_later(named.instance, now_ms, given_up);
            return true;
        }
        let until_ms = retry_at(retry_ms, now_ms);
        self.phase = Phase::BackingOff { instance: named.instance, attempt, until_ms };
        false
    }

    /// The client is still at it: the acknowledgement timeout starts anew.
    pub(super) fn on_working(&mut self, named: &Named, now_ms: u64) {
        if let Phase::InFlight { instance, attempt, resend_ms } = self.phase
            && self.head.is_named(named, instance)
            && resend_ms != WITHHELD
        {
            let resend_ms = now_ms + u64::from(self.head.ack_timeout_ms);
            self.phase = Phase::InFlight { instance, attempt, resend_ms };
        }
    }

    /// The commit of this instance was proposed.
    pub(super) fn committing(&mut self, instance: InstanceId, token: Token) {
        let given_up = match self.phase {
            Phase::CommitDelayed { given_up, .. } => given_up,
            Phase::Idle
            | Phase::InFlight { .. }
            | Phase::BackingOff { .. }
            | Phase::Committing { .. } => None,
        };
        self.phase = Phase::Committing { instance, token, given_up };
    }

    /// Whether this lane waits for the outcome with this token.
    pub(super) fn awaits(&self, wanted: Token) -> bool {
        matches!(self.phase, Phase::Committing { token, .. } if token == wanted)
    }

    /// The cursor stands here or higher: answers the instance that is committed by it.
    pub(super) fn on_committed(&mut self, cursor: InstanceId) -> Option<InstanceId> {
        self.head.cursor = self.head.cursor.max(cursor);
        match self.phase {
            Phase::Committing { instance, .. } if instance <= self.head.cursor => {
                self.phase = Phase::Idle;
                Some(instance)
            }
            Phase::Idle
            | Phase::InFlight { .. }
            | Phase::BackingOff { .. }
            | Phase::Committing { .. }
            | Phase::CommitDelayed { .. } => None,
        }
    }

    /// The commit could not be proposed: it is proposed again later.
    pub(super) fn delay_commit(&mut self, until_ms: u64) {
        if let Phase::Committing { instance, given_up, .. } = self.phase {
            self.phase = Phase::CommitDelayed { instance, until_ms, given_up };
        }
    }

    /// Forgets a commit that the state refused: the subscription has moved.
    pub(super) fn drop_commit(&mut self) {
        if let Phase::Committing { .. } = self.phase {
            self.phase = Phase::Idle;
        }
    }

    /// A client without cursor in the state handled or skipped this instance.
    pub(super) fn deliver(&mut self, instance: InstanceId) {
        self.head.cursor = self.head.cursor.max(instance);
        self.phase = Phase::Idle;
    }
}

/// What ends the delivery of an instance.
fn finish(instance: InstanceId, given_up: Option<GivenUp>) -> Step {
    match given_up {
        None => Step::Commit(instance),
        Some(given_up) => Step::GiveUp { instance, cursor: instance, given_up },
    }
}
