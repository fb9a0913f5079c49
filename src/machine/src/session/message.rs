//! What sessions say to their peers, before any encoding.

use std::sync::Arc;

use crate::site::{
    Category, ClientId, Decision, Epoch, EventKey, EventName, Generation, Incarnation, Instance,
    InstanceId, Mode, Parked, Position, Refusal, Rejection, Sequence, ServiceId,
};

use super::Failed;

/// What a client does about its set of subscriptions after the welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionSync {
    /// The sets are equal: deliveries start.
    Equal,
    /// They differ: the client sends its set, deliveries start after it.
    Send,
    /// The client gave no hash: the broker's set stays, deliveries start.
    Kept,
}

/// A subscription that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedSubscription {
    /// The event's name.
    pub name: EventName,
    /// Its number.
    pub event: EventKey,
    /// Where it stands.
    pub position: Position,
    /// Whether the client may receive it now.
    pub granted: bool,
    /// Whether a given position was taken up; `None` when none was given.
    pub resumed: Option<bool>,
    /// How it is delivered.
    pub mode: Mode,
}

/// A subscription that was refused alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSubscription {
    /// The name as asked for.
    pub name: EventName,
    /// Why.
    pub refusal: Refusal,
}

/// One transmission of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The subscription.
    pub event: EventKey,
    /// The event's name.
    pub name: EventName,
    /// Its category.
    pub category: Category,
    /// The site's life.
    pub incarnation: Incarnation,
    /// The subscription's generation.
    pub generation: Generation,
    /// 1 for the first transmission in this session.
    pub attempt: u32,
    /// Milliseconds since it was raised.
    pub age_ms: u64,
    /// How it is delivered: whether the client is to answer, or the transport.
    pub mode: Mode,
    /// The instance.
    pub instance: Arc<Instance>,
}

/// From a client's session to the client.
#[derive(Clone, Debug, PartialEq)]
pub enum ToClient {
    /// The session is open.
    Welcome {
        /// The client; `None` when stateless.
        client: Option<ClientId>,
        /// The session's epoch; 0 when stateless.
        epoch: Epoch,
        /// The site's life.
        incarnation: Incarnation,
        /// What to do about the set.
        sync: SubscriptionSync,
    },
    /// What became of subscriptions.
    Subscribed {
        /// Those that hold, as far as it was asked about them.
        accepted: Vec<AcceptedSubscription>,
        /// Those that were refused, each reported once per session.
        refused: Vec<RefusedSubscription>,
        /// Those that hold no more.
        removed: Vec<EventName>,
    },
    /// An instance.
    Event(Delivery),
    /// Several instances of one subscription, together.
    Events(Vec<Delivery>),
    /// The instance and all before it never come again.
    Committed {
        /// The subscription.
        event: EventKey,
        /// The instance.
        instance: InstanceId,
    },
    /// Whether the client may receive the event changed.
    Authority {
        /// The subscription.
        event: EventKey,
        /// Whether delivery goes on.
        granted: bool,
    },
    /// A service came or went.
    Presence {
        /// The service.
        service: ServiceId,
        /// Whether it is connected.
        online: bool,
        /// Its host.
        hostname: String,
        /// Its version.
        version: String,
    },
}

/// From a service's session to the service.
#[derive(Clone, Debug, PartialEq)]
pub enum ToService {
    /// The session is open.
    Welcome {
        /// The service.
        service: ServiceId,
        /// The session's epoch.
        epoch: Epoch,
        /// The site's life; 0 while it is blank.
        incarnation: Incarnation,
        /// Why it exchanges no events; `None` is online.
        parked: Option<Parked>,
        /// The highest number decided for the store.
        last: Sequence,
        /// The store was retired.
        superseded: bool,
        /// Raises that may be in flight.
        window: u32,
        /// Largest encoded arguments, bytes.
        args_bytes_max: u32,
    },
    /// A raise was decided in its favour, or recognised.
    Accepted {
        /// Its number.
        sequence: Sequence,
        /// The instance; `None` when the decision is no longer remembered.
        instance: Option<InstanceId>,
        /// A null after a null.
        ignored: bool,
        /// Decided before.
        duplicate: bool,
    },
    /// A raise was rejected for good.
    Rejected {
        /// Its number.
        sequence: Sequence,
        /// Why.
        rejection: Rejection,
        /// Decided before.
        duplicate: bool,
    },
    /// A raise was not decided: its number is to be sent again.
    Refused {
        /// Its number.
        sequence: Sequence,
        /// Why.
        cause: RefusedRaise,
    },
    /// The service went online (`None`) or was parked.
    State(Option<Parked>),
}

/// Why a raise was not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusedRaise {
    /// The replicated state, or this session in its stead, refused it.
    Refusal(Refusal),
    /// It could not be proposed.
    Failed(Failed),
    /// More raises are in flight than the window allows.
    WindowFull,
}

impl ToService {
    /// The answer to a raise that was decided.
    pub(super) fn decided(sequence: Sequence, decision: &Decision, duplicate: bool) -> Self {
        let accepted =
            |instance, ignored| Self::Accepted { sequence, instance, ignored, duplicate };
        match decision {
            Decision::Stored(id) => accepted(Some(*id), false),
            Decision::Ignored(id) => accepted(Some(*id), true),
            Decision::Forgotten => accepted(None, false),
            Decision::Rejected(rejection) => {
                Self::Rejected { sequence, rejection: *rejection, duplicate }
            }
        }
    }
}
