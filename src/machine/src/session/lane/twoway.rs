//! The delivery of one subscription with several instances under way, acknowledged in any order.
//!
//! `selected ─▶ in flight ─▶ acknowledged ─▶ (all before it are) committed ─▶ gone from here`,
//! `in flight ─▶ (nack) backing off ─▶ in flight`
//!
//! Invariants:
//! - At most a window of instances is unacknowledged; first transmissions are in order of ids.
//! - The cursor never passes an instance that was sent and is not acknowledged; it is committed
//!   lazily, so what was acknowledged may come again in another session, but no more of it than
//!   [`AHEAD_MAX`]: an endpoint that remembers so many ids recognises them all.
//! - An instance that is no longer retained, or past its lifetime, is never sent again; when it
//!   would be, it counts as acknowledged.
//! - What is given up and to be kept apart counts as unacknowledged until that is committed.
//! - Without authority nothing is sent; what is in flight stays so, and its acknowledgement counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::site::quality::WINDOW_MAX;
use crate::site::{GivenUp, Instance, InstanceId, LetterCause, Quality, SubscriptionRow};

use super::super::Token;
use super::commit::Commit;
use super::{
    Counts, Head, InFlight, LaneState, Named, STALE_LOOK_MS, Sight, Step, WITHHELD, retry_at,
};

/// Instances that were sent and are not committed, at most: behind one that is returned again and again,
/// others go on until there are so many.
pub const AHEAD_MAX: usize = WINDOW_MAX as usize;

/// See the module.
#[derive(Clone, Debug)]
pub struct Twoway {
    pub(super) head: Head,
    window: usize,
    /// What was sent and is not committed.
    flights: BTreeMap<InstanceId, Flight>,
    /// How many of them are not acknowledged.
    unacknowledged: usize,
    /// The highest below which all are.
    contiguous: InstanceId,
    /// The highest that was sent.
    sent: InstanceId,
    /// Nothing of `flights` is due before; what is due may have gone meanwhile.
    due_ms: u64,
    /// When to go on after much was sent at once.
    paused_ms: Option<u64>,
    pub(super) commit: Commit,
    /// The commit of a letter: one at a time.
    pub(super) letters: Commit,
    counts: Counts,
}

/// One instance that was sent.
#[derive(Clone, Copy, Debug)]
struct Flight {
    attempt: u32,
    /// When it was sent first.
    since_ms: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Sent; to be sent again at this time.
    InFlight { resend_ms: u64 },
    /// Returned; to be sent again at this time.
    BackingOff { until_ms: u64 },
    /// Given up: to be kept apart, and acknowledged when it is.
    GivenUp(GivenUp),
    /// Acknowledged, or to be counted as such.
    Acknowledged,
}

impl Flight {
    fn due_ms(&self) -> Option<u64> {
        match self.stage {
            Stage::InFlight { resend_ms: at } | Stage::BackingOff { until_ms: at } => Some(at),
            Stage::GivenUp(_) => Some(WITHHELD),
            Stage::Acknowledged => None,
        }
    }

    fn due_mut(&mut self) -> Option<&mut u64> {
        match &mut self.stage {
            Stage::InFlight { resend_ms: at } | Stage::BackingOff { until_ms: at } => Some(at),
            Stage::GivenUp(_) | Stage::Acknowledged => None,
        }
    }
}

impl Twoway {
    pub(super) fn new(head: Head, quality: Quality) -> Self {
        let cursor = head.cursor;
        let mut lane = Self {
            head,
            window: 1,
            flights: BTreeMap::new(),
            unacknowledged: 0,
            contiguous: cursor,
            sent: cursor,
            due_ms: WITHHELD,
            paused_ms: None,
            commit: Commit::new(),
            letters: Commit::new(),
            counts: Counts::default(),
        };
        lane.set_window(quality);
        lane
    }

    /// See [`super::Lane::done`].
    pub(super) fn done(&self) -> InstanceId {
        self.contiguous
    }

    /// A new lane, of a subscription that is delivered up to here.
    pub(super) fn begin_behind(&mut self, done: InstanceId) {
        (self.contiguous, self.sent) = (done, done);
    }

    pub(super) fn set_window(&mut self, quality: Quality) {
        self.window = usize::try_from(quality.window()).unwrap_or(AHEAD_MAX).clamp(1, AHEAD_MAX);
    }

    /// The first that is not acknowledged.
    fn first(&self) -> Option<(InstanceId, Flight)> {
        let open = |(_, flight): &(&InstanceId, &Flight)| flight.due_ms().is_some();
        self.flights.range(self.contiguous.next()..).find(open).map(|(id, flight)| (*id, *flight))
    }

    pub(super) fn state(&self) -> LaneState {
        match self.first() {
            Some((id, Flight { stage: Stage::BackingOff { .. }, .. })) => LaneState::BackingOff(id),
            Some((id, _)) => LaneState::InFlight(id),
            None => match self.commit.under_way() {
                Some(instance) => LaneState::Committing(instance),
                None if self.contiguous > self.head.cursor => {
                    LaneState::Committing(self.contiguous)
                }
                None if self.head.granted => LaneState::Idle,
                None => LaneState::Unauthorized,
            },
        }
    }

    pub(super) fn in_flight(&self) -> Option<InFlight> {
        let (instance, Flight { attempt, since_ms, .. }) = self.first()?;
        Some(InFlight { instance, attempt, since_ms })
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    pub(super) fn sent(&self) -> InstanceId {
        self.sent
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn owes_commit(&self) -> bool {
        self.contiguous > self.head.cursor
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let commit = self.commit.free_at().filter(|_| self.owes_commit());
        let due = (self.due_ms != WITHHELD).then_some(self.due_ms);
        let letter = self.letters.free_at().filter(|_| self.letter().is_some());
        [commit, letter, due, self.paused_ms].into_iter().flatten().min()
    }

    pub(super) fn set_granted(&mut self, granted: bool, now_ms: u64) -> bool {
        if self.head.granted == granted {
            return false;
        }
        self.head.granted = granted;
        if granted {
            let withheld = self.flights.values_mut().filter_map(Flight::due_mut);
            for at in withheld.filter(|at| **at == WITHHELD) {
                *at = now_ms;
                self.due_ms = now_ms;
            }
        }
        true
    }

    /// See [`super::Lane::sync`].
    pub(super) fn sync(
        &mut self,
        row: &SubscriptionRow,
        ack_timeout_ms: u32,
    ) -> Option<InstanceId> {
        self.head.take(row, ack_timeout_ms);
        if row.generation != self.head.generation {
            self.head.generation = row.generation;
            self.head.cursor = row.cursor;
            self.flights = BTreeMap::new();
            self.unacknowledged = 0;
            self.contiguous = row.cursor;
            self.sent = row.cursor;
            self.due_ms = WITHHELD;
            self.commit.forget();
            self.letters.forget();
            return None;
        }
        self.head.cursor = self.head.cursor.max(row.cursor);
        let passed = |(_, flight): (&InstanceId, &Flight)| flight.due_ms().is_some();
        let passed = self.flights.range(..=row.cursor).any(passed);
        self.release();
        self.unacknowledged = self.flights.values().filter_map(Flight::due_ms).count();
        self.contiguous = self.contiguous.max(row.cursor);
        self.sent = self.sent.max(row.cursor);
        self.settle();
        self.find_due();
        passed.then_some(row.cursor)
    }

    /// See [`super::Lane::step`].
    pub(super) fn step(&mut self, sight: &Sight<'_>) -> Step {
        let now_ms = sight.now_ms;
        if self.owes_commit() && self.commit.is_free(now_ms) {
            return Step::Commit(self.contiguous);
        }
        if self.letters.is_free(now_ms)
            && let Some((instance, given_up)) = self.letter()
        {
            return Step::GiveUp { instance, cursor: self.head.cursor, given_up };
        }
        if sight.stale {
            let due = self.flights.values_mut().filter_map(Flight::due_mut);
            due.for_each(|at| *at = (*at).max(now_ms + STALE_LOOK_MS));
            self.find_due();
            return Step::Rest;
        }
        if self.paused_ms.is_some_and(|until_ms| until_ms > now_ms) {
            return Step::Rest;
        }
        self.paused_ms = None;
        if self.due_ms <= now_ms
            && let Some(step) = self.send_again(sight)
        {
            return step;
        }
        self.select(sight)
    }

    fn select(&mut self, sight: &Sight<'_>) -> Step {
        let full = self.unacknowledged >= self.window || self.flights.len() >= AHEAD_MAX;
        if full || !self.head.granted {
            return Step::Rest;
        }
        match sight.next(self.head.event, self.sent) {
            Some(instance) if sight.is_given_up(self.head.event, instance.id) => {
                self.pass(instance.id, sight.now_ms)
            }
            Some(instance) => self.transmit(instance.clone(), 1, sight.now_ms),
            None => Step::Rest,
        }
    }

    /// Passes an instance over that an earlier session gave up.
    fn pass(&mut self, instance: InstanceId, now_ms: u64) -> Step {
        let flight = Flight { attempt: 0, since_ms: now_ms, stage: Stage::Acknowledged };
        self.flights.insert(instance, flight);
        self.sent = instance;
        self.settle();
        Step::Again
    }

    /// The first that is to be kept apart.
    fn letter(&self) -> Option<(InstanceId, GivenUp)> {
        self.flights.iter().find_map(|(id, flight)| match flight.stage {
            Stage::GivenUp(given_up) => Some((*id, given_up)),
            Stage::InFlight { .. } | Stage::BackingOff { .. } | Stage::Acknowledged => None,
        })
    }

    /// The letter of an instance that was given up is kept, if it is what was proposed under this token.
    pub(super) fn on_letter_kept(&mut self, token: Token) {
        if !self.letters.awaits(token) {
            return;
        }
        let kept = self.letters.under_way().and_then(|id| self.flights.get_mut(&id));
        if let Some(flight) = kept
            && let Stage::GivenUp(_) = flight.stage
        {
            flight.stage = Stage::Acknowledged;
            self.unacknowledged -= 1;
        }
        self.letters.forget();
        self.settle();
    }

    /// The first that is due; what is due and may not be sent again is settled on the way.
    fn send_again(&mut self, sight: &Sight<'_>) -> Option<Step> {
        let now_ms = sight.now_ms;
        let mut again = None;
        for (id, flight) in &mut self.flights {
            let Some(at) = flight.due_mut().filter(|at| **at <= now_ms) else { continue };
            if !self.head.granted {
                *at = WITHHELD;
                continue;
            }
            match sight.alive(*id) {
                Some(found) if !self.head.exhausted(flight.attempt) => {
                    again = Some((found.clone(), flight.attempt.saturating_add(1)));
                    break;
                }
                // Given up, replaced, evicted or expired.
                given_up => {
                    self.counts.failed += u64::from(given_up.is_some());
                    let letter = self.head.given_up(flight.attempt, LetterCause::Timeout);
                    match letter.filter(|_| given_up.is_some()) {
                        Some(letter) => flight.stage = Stage::GivenUp(letter),
                        None => {
                            flight.stage = Stage::Acknowledged;
                            self.unacknowledged -= 1;
                        }
                    }
                }
            }
        }
        self.settle();
        self.find_due();
        if self.owes_commit() && self.commit.is_free(now_ms) {
            // What is due comes after it.
            return Some(Step::Commit(self.contiguous));
        }
        if again.is_none() && self.letters.is_free(now_ms) && self.letter().is_some() {
            return Some(Step::Again);
        }
        again.map(|(instance, attempt)| self.transmit(instance, attempt, now_ms))
    }

    fn transmit(&mut self, instance: Arc<Instance>, attempt: u32, now_ms: u64) -> Step {
        let resend_ms = now_ms + u64::from(self.head.ack_timeout_ms);
        let stage = Stage::InFlight { resend_ms };
        match self.flights.get_mut(&instance.id) {
            Some(flight) => {
                flight.attempt = attempt;
                flight.stage = stage;
            }
            None => {
                self.flights.insert(instance.id, Flight { attempt, since_ms: now_ms, stage });
                self.unacknowledged += 1;
            }
        }
        self.sent = self.sent.max(instance.id);
        self.due_ms = self.due_ms.min(resend_ms);
        Step::Send { instance, attempt }
    }

    /// Looks how far all are acknowledged.
    fn settle(&mut self) {
        let above = self.flights.range(self.contiguous.next()..);
        let done = above.take_while(|(_, flight)| flight.due_ms().is_none()).last();
        self.contiguous = done.map_or(self.contiguous, |(id, _)| *id);
        if self.unacknowledged == 0 {
            self.due_ms = WITHHELD;
        }
    }

    fn find_due(&mut self) {
        let due = self.flights.values().filter_map(Flight::due_ms);
        self.due_ms = due.min().unwrap_or(WITHHELD);
    }

    /// The instance that the client names, if it is not acknowledged.
    fn named(&mut self, named: &Named) -> Option<&mut Flight> {
        if !self.head.is_named(named, named.instance) {
            return None;
        }
        let open = |flight: &&mut Flight| match flight.stage {
            Stage::InFlight { .. } | Stage::BackingOff { .. } => true,
            Stage::GivenUp(_) | Stage::Acknowledged => false,
        };
        self.flights.get_mut(&named.instance).filter(open)
    }

    /// See [`super::Lane::on_ack`].
    pub(super) fn on_ack(&mut self, named: &Named) -> bool {
        let Some(flight) = self.named(named) else { return false };
        flight.stage = Stage::Acknowledged;
        self.unacknowledged -= 1;
        self.counts.delivered += 1;
        self.settle();
        true
    }

    /// See [`super::Lane::on_nack`].
    pub(super) fn on_nack(&mut self, named: &Named, retry_ms: u64, now_ms: u64) -> bool {
        let until_ms = retry_at(retry_ms, now_ms);
        let Some(flight) = self.named(named) else { return false };
        let attempt = flight.attempt;
        flight.stage = Stage::BackingOff { until_ms };
        self.counts.failed += 1;
        self.due_ms = self.due_ms.min(until_ms);
        let given_up = self.head.exhausted(attempt);
        if given_up && let Some(flight) = self.flights.get_mut(&named.instance) {
            match self.head.given_up(attempt, LetterCause::Returned) {
                Some(letter) => flight.stage = Stage::GivenUp(letter),
                None => {
                    flight.stage = Stage::Acknowledged;
                    self.unacknowledged -= 1;
                }
            }
        }
        self.settle();
        given_up
    }

    /// See [`super::Lane::on_working`].
    pub(super) fn on_working(&mut self, named: &Named, now_ms: u64) {
        let again_ms = now_ms + u64::from(self.head.ack_timeout_ms);
        if let Some(flight) = self.named(named)
            && let Stage::InFlight { resend_ms } = &mut flight.stage
            && *resend_ms != WITHHELD
        {
            *resend_ms = again_ms;
        }
    }

    /// The cursor stands here or higher: answers what was being committed, if it is.
    pub(super) fn on_committed(&mut self, cursor: InstanceId) -> Option<InstanceId> {
        self.head.cursor = self.head.cursor.max(cursor);
        self.release();
        self.commit.done(cursor)
    }

    /// Lets go of what is committed.
    fn release(&mut self) {
        self.flights = self.flights.split_off(&self.head.cursor.next());
    }

    /// See [`super::Lane::pause`].
    pub(super) fn pause(&mut self, now_ms: u64) {
        self.paused_ms = Some(now_ms + 1);
    }
}
