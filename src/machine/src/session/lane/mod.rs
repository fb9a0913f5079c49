//! The delivery of one subscription: a lane, by its mode.
//!
//! - [`Ordered`]: one instance under way, the next after its commit.
//! - [`Twoway`]: a window under way, acknowledged in any order, the cursor behind the first gap.
//! - [`Streamed`]: delivered as the transport takes it; one by one, in batches, or dropped.
//!
//! A lane knows neither its client nor its neighbours: [`super::ClientSession`] gives it what it
//! needs and carries out what it answers, whatever the mode. Most lanes are ordered and idle, so
//! only that one is held in place.

mod commit;
mod ordered;
mod streamed;
mod twoway;

use std::sync::Arc;

use crate::site::{
    Category, EventKey, EventName, Generation, GivenUp, Instance, InstanceId, LetterCause, Mode,
    Quality, Receiver, Subscriber, SubscriptionRow,
};

use super::{Site, Stamp, Token};

pub use ordered::Ordered;
pub use streamed::Streamed;
pub use twoway::Twoway;

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
pub enum Lane {
    /// See [`Ordered`].
    Ordered(Ordered),
    /// See [`Twoway`].
    Twoway(Box<Twoway>),
    /// See [`Streamed`].
    Streamed(Box<Streamed>),
}

/// What every lane has.
#[derive(Clone, Debug)]
struct Head {
    event: EventKey,
    name: EventName,
    category: Category,
    granted: bool,
    generation: Generation,
    /// The last instance known as delivered, in the state or (stateless) here.
    cursor: InstanceId,
    ack_timeout_ms: u32,
    /// 0 is for ever.
    attempts_max: u32,
    /// What is given up is kept apart.
    dead_letter: bool,
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

/// What a lane has done since its session began, for those who look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged, or taken by the transport.
    pub delivered: u64,
    /// Returned by the client, or given up after the last attempt.
    pub failed: u64,
    /// Not sent, because there was no room.
    pub dropped: u64,
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
    pub(super) quality: Quality,
}

/// What a lane wants done next.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing now.
    Rest,
    /// Something was passed over: ask once more.
    Again,
    /// Transmit; the lane counts it as in flight.
    Send { instance: Arc<Instance>, attempt: u32 },
    /// Transmit together; the lane counts them as in flight.
    Flush(Vec<Arc<Instance>>),
    /// Delivered, or skipped after its last attempt: commit the cursor at it.
    Commit(InstanceId),
    /// Skipped after its last attempt: keep it apart, and commit the cursor.
    GiveUp { instance: InstanceId, cursor: InstanceId, given_up: GivenUp },
}

/// What a lane sees when it takes a step.
pub(super) struct Sight<'a> {
    pub(super) site: &'a Site,
    pub(super) receiver: &'a Receiver,
    pub(super) now_ms: u64,
    pub(super) stamp: Stamp,
    /// Whether this node may know too little to send anything.
    pub(super) stale: bool,
}

impl<'a> Sight<'a> {
    /// The first instance of an event above an id.
    fn next(&self, event: EventKey, after: InstanceId) -> Option<&'a Arc<Instance>> {
        self.site.next_instance(event, after, self.receiver, self.stamp)
    }

    /// Whether the subscription has given an instance up before.
    fn is_given_up(&self, event: EventKey, instance: InstanceId) -> bool {
        match self.receiver {
            Receiver::Client(client) => {
                self.site.is_given_up(&Subscriber::Client(client.clone(), event), instance)
            }
            Receiver::Stateless => false,
        }
    }

    /// An instance that may still be sent: retained, and within its lifetime.
    fn alive(&self, instance: InstanceId) -> Option<&'a Arc<Instance>> {
        let found = self.site.instance(instance);
        found.filter(|instance| instance.expires.is_none_or(|at| self.stamp < at))
    }
}

/// When an instance that was returned is sent again.
fn retry_at(retry_ms: u64, now_ms: u64) -> u64 {
    now_ms + retry_ms.clamp(NACK_RETRY_MS_MIN, NACK_RETRY_MS_MAX)
}

impl Head {
    /// Takes the options of the subscription as the state has it.
    fn take(&mut self, row: &SubscriptionRow, ack_timeout_ms: u32) {
        self.ack_timeout_ms = ack_timeout_ms;
        self.attempts_max = row.max_attempts.unwrap_or(0);
    }

    fn exhausted(&self, attempt: u32) -> bool {
        self.attempts_max != 0 && attempt >= self.attempts_max
    }

    /// What is to be kept of an instance after its last attempt; `None` where nothing is.
    fn given_up(&self, attempts: u32, cause: LetterCause) -> Option<GivenUp> {
        self.dead_letter.then_some(GivenUp { attempts, cause })
    }

    fn is_named(&self, named: &Named, instance: InstanceId) -> bool {
        named.instance == instance
            && named.generation.is_none_or(|generation| generation == self.generation)
    }
}

/// Calls the same on whichever lane it is.
macro_rules! each {
    ($lane:expr, $of:ident => $call:expr) => {
        match $lane {
            Lane::Ordered($of) => $call,
            Lane::Twoway($of) => $call,
            Lane::Streamed($of) => $call,
        }
    };
}

impl Lane {
    pub(super) fn new(setup: LaneSetup) -> Self {
        let quality = setup.quality;
        let head = Head {
            event: setup.event,
            name: setup.name,
            category: setup.category,
            granted: setup.granted,
            generation: setup.generation,
            cursor: setup.cursor,
            ack_timeout_ms: setup.ack_timeout_ms,
            attempts_max: setup.attempts_max.unwrap_or(0),
            dead_letter: quality.dead_letter,
        };
        Self::of(head, quality)
    }

    fn of(head: Head, quality: Quality) -> Self {
        match quality.mode {
            Mode::Ordered => Self::Ordered(Ordered::new(head)),
            Mode::Twoway => Self::Twoway(Box::new(Twoway::new(head, quality))),
            Mode::Oneway | Mode::Batch | Mode::Datagram => {
                Self::Streamed(Box::new(Streamed::new(head, quality)))
            }
        }
    }

    /// Up to here everything is delivered, whether or not that is committed yet.
    fn done(&self) -> InstanceId {
        each!(self, lane => lane.done())
    }

    fn head(&self) -> &Head {
        each!(self, lane => &lane.head)
    }

    /// The subscribed event.
    pub fn event(&self) -> EventKey {
        self.head().event
    }

    /// Its name.
    pub fn name(&self) -> &EventName {
        &self.head().name
    }

    /// Its category.
    pub fn category(&self) -> Category {
        self.head().category
    }

    /// Whether the client may receive it, as last seen.
    pub fn granted(&self) -> bool {
        self.head().granted
    }

    /// The generation that the lane delivers in.
    pub fn generation(&self) -> Generation {
        self.head().generation
    }

    /// The last instance known as delivered.
    pub fn cursor(&self) -> InstanceId {
        self.head().cursor
    }

    /// How it delivers.
    pub fn mode(&self) -> Mode {
        match self {
            Self::Ordered(_) => Mode::Ordered,
            Self::Twoway(_) => Mode::Twoway,
            Self::Streamed(lane) => lane.mode(),
        }
    }

    /// What the lane is doing; of several instances it names the first.
    pub fn state(&self) -> LaneState {
        each!(self, lane => lane.state())
    }

    /// What is sent and not acknowledged, or returned to be sent again; the first of several.
    pub fn in_flight(&self) -> Option<InFlight> {
        each!(self, lane => lane.in_flight())
    }

    /// How many are.
    pub fn in_flight_count(&self) -> usize {
        match self {
            Self::Ordered(lane) => usize::from(lane.in_flight().is_some()),
            Self::Twoway(lane) => lane.unacknowledged(),
            Self::Streamed(lane) => lane.unwritten(),
        }
    }

    /// The last instance that was sent, or is known as delivered: what is above it waits.
    pub fn reached(&self) -> InstanceId {
        match self {
            Self::Ordered(lane) => match lane.state() {
                LaneState::InFlight(at) | LaneState::BackingOff(at) | LaneState::Committing(at) => {
                    at.max(lane.head.cursor)
                }
                LaneState::Idle | LaneState::Unauthorized => lane.head.cursor,
            },
            Self::Twoway(lane) => lane.sent(),
            Self::Streamed(lane) => lane.sent(),
        }
    }

    /// What it has done.
    pub fn counts(&self) -> Counts {
        each!(self, lane => lane.counts())
    }

    /// When [`Lane::step`] has something to do without being woken.
    pub(super) fn deadline(&self) -> Option<u64> {
        each!(self, lane => lane.deadline())
    }

    /// Whether [`Lane::step`] would look at the queue or send again.
    pub(super) fn wants_authority(&self, now_ms: u64) -> bool {
        match self {
            Self::Ordered(lane) => lane.wants_authority(now_ms),
            Self::Twoway(_) | Self::Streamed(_) => true,
        }
    }

    /// Takes note of the client's authority; true when it changed.
    pub(super) fn set_granted(&mut self, granted: bool, now_ms: u64) -> bool {
        each!(self, lane => lane.set_granted(granted, now_ms))
    }

    /// Takes note of the subscription as the state has it. Answers the instance that was in
    /// flight when the state says that it is delivered. In another mode the lane begins anew behind
    /// the last instance before which nothing is open, and commits that; without a quality it keeps its own. What is given up is kept apart
    /// from now on, or not.
    pub(super) fn sync(
        &mut self,
        row: &SubscriptionRow,
        ack_timeout_ms: u32,
        dead_letter: bool,
        quality: Option<Quality>,
    ) -> Option<InstanceId> {
        each!(self, lane => lane.head.dead_letter = dead_letter);
        let delivered = each!(self, lane => lane.sync(row, ack_timeout_ms));
        let Some(quality) = quality else { return delivered };
        if self.mode() != quality.mode {
            let done = self.done();
            *self = Self::of(self.head().clone(), quality);
            each!(self, lane => lane.begin_behind(done));
        }
        match self {
            Self::Ordered(_) => {}
            Self::Twoway(lane) => lane.set_window(quality),
            Self::Streamed(lane) => lane.set_flush(quality),
        }
        delivered
    }

    /// What is to be done now. Repeat until it rests; each other answer moves the lane on.
    pub(super) fn step(&mut self, sight: &Sight<'_>) -> Step {
        each!(self, lane => lane.step(sight))
    }

    /// The client handled this instance: whether there is a step for it. Anything that does not
    /// name an instance in flight is ignored.
    pub(super) fn on_ack(&mut self, named: &Named, now_ms: u64) -> bool {
        match self {
            Self::Ordered(lane) => lane.on_ack(named, now_ms),
            Self::Twoway(lane) => lane.on_ack(named),
            Self::Streamed(_) => false,
        }
    }

    /// The client returned this instance: whether there is a step for it.
    pub(super) fn on_nack(&mut self, named: &Named, retry_ms: u64, now_ms: u64) -> bool {
        match self {
            Self::Ordered(lane) => lane.on_nack(named, retry_ms, now_ms),
            Self::Twoway(lane) => lane.on_nack(named, retry_ms, now_ms),
            Self::Streamed(_) => false,
        }
    }

    /// The client is still at it: the acknowledgement timeout starts anew.
    pub(super) fn on_working(&mut self, named: &Named, now_ms: u64) {
        match self {
            Self::Ordered(lane) => lane.on_working(named, now_ms),
            Self::Twoway(lane) => lane.on_working(named, now_ms),
            Self::Streamed(_) => {}
        }
    }

    /// The transport has taken this instance, and all that were sent before it: whether there is a
    /// step for it.
    pub(super) fn on_written(&mut self, named: &Named) -> bool {
        match self {
            Self::Ordered(_) | Self::Twoway(_) => false,
            Self::Streamed(lane) => lane.on_written(named),
        }
    }

    /// The session has sent much at once: the rest of it waits until the next moment.
    pub(super) fn pause(&mut self, now_ms: u64) {
        match self {
            Self::Ordered(_) | Self::Streamed(_) => {}
            Self::Twoway(lane) => lane.pause(now_ms),
        }
    }

    /// The commit of this instance was proposed.
    pub(super) fn committing(&mut self, instance: InstanceId, token: Token, now_ms: u64) {
        match self {
            Self::Ordered(lane) => lane.committing(instance, token),
            Self::Twoway(lane) => lane.commit.propose(instance, token),
            Self::Streamed(lane) => lane.committing(instance, token, now_ms),
        }
    }

    /// That this instance is given up was proposed.
    pub(super) fn giving_up(&mut self, instance: InstanceId, token: Token) {
        match self {
            Self::Ordered(lane) => lane.committing(instance, token),
            Self::Twoway(lane) => lane.letters.propose(instance, token),
            // Nothing is given up where nothing is acknowledged.
            Self::Streamed(_) => {}
        }
    }

    /// Whether this lane waits for the outcome with this token.
    pub(super) fn awaits(&self, wanted: Token) -> bool {
        match self {
            Self::Ordered(lane) => lane.awaits(wanted),
            Self::Twoway(lane) => lane.commit.awaits(wanted) || lane.letters.awaits(wanted),
            Self::Streamed(lane) => lane.commit.awaits(wanted),
        }
    }

    /// What was proposed under this token is done, the cursor stands here or higher: answers the instance
    /// that is committed by it.
    pub(super) fn on_committed(&mut self, token: Token, cursor: InstanceId) -> Option<InstanceId> {
        match self {
            Self::Ordered(lane) => lane.on_committed(cursor),
            Self::Twoway(lane) => {
                lane.on_letter_kept(token);
                lane.on_committed(cursor)
            }
            Self::Streamed(lane) => {
                lane.head.cursor = lane.head.cursor.max(cursor);
                lane.commit.done(cursor)
            }
        }
    }

    /// The commit could not be proposed: it is proposed again later.
    pub(super) fn delay_commit(&mut self, token: Token, until_ms: u64) {
        match self {
            Self::Ordered(lane) => lane.delay_commit(until_ms),
            Self::Twoway(lane) if lane.letters.awaits(token) => lane.letters.delay(until_ms),
            Self::Twoway(lane) => lane.commit.delay(until_ms),
            Self::Streamed(lane) => lane.commit.delay(until_ms),
        }
    }

    /// Forgets a commit that the state refused: the subscription has moved.
    pub(super) fn drop_commit(&mut self, token: Token) {
        match self {
            Self::Ordered(lane) => lane.drop_commit(),
            Self::Twoway(lane) if lane.letters.awaits(token) => lane.letters.forget(),
            Self::Twoway(lane) => lane.commit.forget(),
            Self::Streamed(lane) => lane.commit.forget(),
        }
    }

    /// A client without cursor in the state handled or skipped this instance.
    pub(super) fn deliver(&mut self, instance: InstanceId, now_ms: u64) {
        match self {
            Self::Ordered(lane) => lane.deliver(instance),
            Self::Twoway(lane) => {
                let _none_under_way = lane.on_committed(instance);
            }
            Self::Streamed(lane) => lane.deliver(instance, now_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_takes_no_more_room_than_an_ordered_one() {
        assert_eq!(size_of::<Lane>(), size_of::<Ordered>());
    }
}
