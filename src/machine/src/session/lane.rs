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
//!
//! A lane knows neither its client nor its neighbours: [`super::ClientSession`] gives it what it
//! needs and carries out what it answers.

use std::sync::Arc;

use crate::site::{
    Category, EventKey, EventName, Generation, Instance, InstanceId, Receiver, SubscriptionRow,
};

use super::{Site, Stamp, Token};

/// The resend time of an instance that may not be sent again for want of authority.
const WITHHELD: u64 = u64::MAX;
/// The least milliseconds between a nack and the next transmission: a handler that always fails at
/// once must not turn into a busy loop.
pub const NACK_RETRY_MS_MIN: u64 = 10;
/// When a node that no leader confirms looks again whether it may send.
const STALE_LOOK_MS: u64 = 500;
/// The most milliseconds that a nack may ask for.
pub const NACK_RETRY_MS_MAX: u64 = 3_600_000;

/// One subscription of a connected client.
#[derive(Clone, Debug)]
pub struct Lane {
    event: EventKey,
    name: EventName,
    category: Category,
    granted: bool,
    generation: Generation,
    cursor: InstanceId,
    ack_timeout_ms: u32,
    /// 0 is for ever.
    attempts_max: u32,
    phase: Phase,
    /// When what was last sent was sent first, by the clock of the deadlines.
    since_ms: u64,
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
    },
    /// The commit could not be proposed; it will be at this time.
    CommitDelayed {
        instance: InstanceId,
        until_ms: u64,
    },
}

/// What a lane is doing, for those who look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Nothing to deliver.
    Idle,
    /// Nothing in flight, and the client may not receive the event now.
    Unauthorized,
    /// Sent, not acknowledged.
    InFlight(InstanceId),
    /// Returned by the client, to be sent again.
    BackingOff(InstanceId),
    /// Acknowledged, its cursor not yet committed.
    Committing(InstanceId),
}

/// What is in flight, for those who look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The instance.
    pub instance: InstanceId,
    /// How often it was sent.
    pub attempt: u32,
    /// When it was sent first, by the clock of the deadlines.
    pub since_ms: u64,
}

/// How a client names what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The subscribed event.
    pub event: EventKey,
    /// The instance.
    pub instance: InstanceId,
    /// The generation it was delivered in, if the client says it: what was sent before the
    /// subscription was moved is then told apart from what was sent after.
    pub generation: Option<Generation>,
}

impl From<(EventKey, InstanceId)> for Named {
    fn from((event, instance): (EventKey, InstanceId)) -> Self {
        Self { event, instance, generation: None }
    }
}

/// What a lane is made of.
pub(super) struct LaneSetup {
    pub(super) event: EventKey,
    pub(super) name: EventName,
    pub(super) category: Category,
    pub(super) granted: bool,
    pub(super) generation: Generation,
    pub(super) cursor: InstanceId,
    pub(super) ack_timeout_ms: u32,
    pub(super) attempts_max: Option<u32>,
}

/// What a lane wants done next.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing now.
    Rest,
    /// Transmit; the lane counts it as in flight.
    Send { instance: Arc<Instance>, attempt: u32 },
    /// Delivered, or skipped after its last attempt: commit the cursor at it.
    Commit(InstanceId),
}

impl Lane {
    pub(super) fn new(setup: LaneSetup) -> Self {
        let LaneSetup {
            event,
            name,
            category,
            granted,
            generation,
            cursor,
            ack_timeout_ms,
            attempts_max,
        } = setup;
        Self {
            event,
            name,
            category,
            granted,
            generation,
            cursor,
            ack_timeout_ms,
            attempts_max: attempts_max.unwrap_or(0),
            phase: Phase::Idle,
            since_ms: 0,
        }
    }

    /// The subscribed event.
    pub fn event(&self) -> EventKey {
        self.event
    }

    /// Its name.
    pub fn name(&self) -> &EventName {
        &self.name
    }

    /// Its category.
    pub fn category(&self) -> Category {
        self.category
    }

    /// Whether the client may receive it, as last seen.
    pub fn granted(&self) -> bool {
        self.granted
    }

    /// The generation that the lane delivers in.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The last instance known as delivered.
    pub fn cursor(&self) -> InstanceId {
        self.cursor
    }

    /// What the lane is doing.
    pub fn state(&self) -> LaneState {
        match self.phase {
            Phase::Idle if self.granted => LaneState::Idle,
            Phase::Idle => LaneState::Unauthorized,
            Phase::InFlight { instance, .. } => LaneState::InFlight(instance),
            Phase::BackingOff { instance, .. } => LaneState::BackingOff(instance),
            Phase::Committing { instance, .. } | Phase::CommitDelayed { instance, .. } => {
                LaneState::Committing(instance)
            }
        }
    }

    /// What is sent and not acknowledged, or returned to be sent again.
    pub fn in_flight(&self) -> Option<InFlight> {
        match self.phase {
            Phase::InFlight { instance, attempt, .. }
            | Phase::BackingOff { instance, attempt, .. } => {
                Some(InFlight { instance, attempt, since_ms: self.since_ms })
            }
            Phase::Idle | Phase::Committing { .. } | Phase::CommitDelayed { .. } => None,
        }
    }

    /// When [`Lane::step`] has something to do without being woken.
    pub(super) fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle | Phase::Committing { .. } => None,
            Phase::InFlight { resend_ms: at, .. }
            | Phase::BackingOff { until_ms: at, .. }
            | Phase::CommitDelayed { until_ms: at, .. } => (at != WITHHELD).then_some(at),
        }
    }

    /// Whether [`Lane::step`] would look at the queue or send again.
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
        if self.granted == granted {
            return false;
        }
        self.granted = granted;
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
        self.ack_timeout_ms = ack_timeout_ms;
        self.attempts_max = row.max_attempts.unwrap_or(0);
        if row.generation != self.generation {
            self.generation = row.generation;
            self.cursor = row.cursor;
            self.phase = Phase::Idle;
            return None;
        }
        self.cursor = self.cursor.max(row.cursor);
        match self.phase {
            Phase::InFlight { instance, .. } | Phase::BackingOff { instance, .. }
                if instance <= self.cursor =>
            {
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

    /// What is to be done now. Repeat until it rests; each other answer moves the lane on.
    pub(super) fn step(
        &mut self,
        site: &Site,
        receiver: &Receiver,
        now_ms: u64,
        stamp: Stamp,
        stale: bool,
    ) -> Step {
        if stale {
            return self.rest_while_stale(now_ms);
        }
        match self.phase {
            Phase::Idle => self.select(site, receiver, now_ms, stamp),
            Phase::InFlight { instance, attempt, resend_ms: at }
            | Phase::BackingOff { instance, attempt, until_ms: at }
                if at <= now_ms =>
            {
                self.send_again(site, receiver, instance, attempt, now_ms, stamp)
            }
            Phase::CommitDelayed { instance, until_ms } if until_ms <= now_ms => {
                Step::Commit(instance)
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
            Phase::CommitDelayed { instance, until_ms } if *until_ms <= now_ms => {
                Step::Commit(*instance)
            }
            Phase::InFlight { resend_ms: at, .. } | Phase::BackingOff { until_ms: at, .. } => {
                *at = (*at).max(now_ms + STALE_LOOK_MS);
                Step::Rest
            }
            Phase::Idle | Phase::Committing { .. } | Phase::CommitDelayed { .. } => Step::Rest,
        }
    }

    fn select(&mut self, site: &Site, receiver: &Receiver, now_ms: u64, stamp: Stamp) -> Step {
        if !self.granted {
            return Step::Rest;
        }
        match site.next_instance(self.event, self.cursor, receiver, stamp) {
            Some(instance) => self.transmit(instance.clone(), 1, now_ms),
            None => Step::Rest,
        }
    }

    fn send_again(
        &mut self,
        site: &Site,
        receiver: &Receiver,
        instance: InstanceId,
        attempt: u32,
        now_ms: u64,
        stamp: Stamp,
    ) -> Step {
        if !self.granted {
            self.phase = Phase::InFlight { instance, attempt, resend_ms: WITHHELD };
            return Step::Rest;
        }
        let alive = |instance: &&Arc<Instance>| instance.expires.is_none_or(|at| stamp < at);
        match site.instance(instance).filter(alive) {
            // Replaced, evicted or expired: it is not sent again, the next one is.
            None => {
                self.phase = Phase::Idle;
                self.select(site, receiver, now_ms, stamp)
            }
            Some(_) if self.exhausted(attempt) => Step::Commit(instance),
            Some(found) => self.transmit(found.clone(), attempt.saturating_add(1), now_ms),
        }
    }

    fn exhausted(&self, attempt: u32) -> bool {
        self.attempts_max != 0 && attempt >= self.attempts_max
    }

    fn transmit(&mut self, instance: Arc<Instance>, attempt: u32, now_ms: u64) -> Step {
        let resend_ms = now_ms + u64::from(self.ack_timeout_ms);
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
                if self.is_named(named, instance) =>
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

    fn is_named(&self, named: &Named, instance: InstanceId) -> bool {
        named.instance == instance
            && named.generation.is_none_or(|generation| generation == self.generation)
    }

    /// The client handled this instance: whether that is to be committed. Anything that does not
    /// name the instance in flight is ignored.
    pub(super) fn on_ack(&self, named: &Named) -> bool {
        self.attempt(named).is_some()
    }

    /// The client returned this instance: whether its attempts are used up, so that it is to be
    /// committed.
    pub(super) fn on_nack(&mut self, named: &Named, retry_ms: u64, now_ms: u64) -> bool {
        let Some(attempt) = self.attempt(named) else { return false };
        if self.exhausted(attempt) {
            return true;
        }
        let until_ms = now_ms + retry_ms.clamp(NACK_RETRY_MS_MIN, NACK_RETRY_MS_MAX);
        self.phase = Phase::BackingOff { instance: named.instance, attempt, until_ms };
        false
    }

    /// The client is still at it: the acknowledgement timeout starts anew.
    pub(super) fn on_working(&mut self, named: &Named, now_ms: u64) {
        if let Phase::InFlight { instance, attempt, resend_ms } = self.phase
            && self.is_named(named, instance)
            && resend_ms != WITHHELD
        {
            let resend_ms = now_ms + u64::from(self.ack_timeout_ms);
            self.phase = Phase::InFlight { instance, attempt, resend_ms };
        }
    }

    /// The commit of this instance was proposed.
    pub(super) fn committing(&mut self, instance: InstanceId, token: Token) {
        self.phase = Phase::Committing { instance, token };
    }

    /// Whether this lane waits for the outcome with this token.
    pub(super) fn awaits(&self, wanted: Token) -> bool {
        matches!(self.phase, Phase::Committing { token, .. } if token == wanted)
    }

    /// The cursor stands here or higher: answers the instance that is committed by it.
    pub(super) fn on_committed(&mut self, cursor: InstanceId) -> Option<InstanceId> {
        self.cursor = self.cursor.max(cursor);
        match self.phase {
            Phase::Committing { instance, .. } if instance <= self.cursor => {
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
        if let Phase::Committing { instance, .. } = self.phase {
            self.phase = Phase::CommitDelayed { instance, until_ms };
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
        self.cursor = self.cursor.max(instance);
        self.phase = Phase::Idle;
    }
}
