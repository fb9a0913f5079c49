//! What a command came to: the answer to its proposer, and the effects that wake local sessions.
//!
//! Codes are part of the public protocol: retired, never reused.

use serde::{Deserialize, Serialize};

use super::command::Principal;
use super::ids::{
    ClientId, Epoch, EventKey, EventName, Generation, Incarnation, InstanceId, Sequence, ServiceId,
    SiteName, Stamp, TokenId,
};
use super::limits::Limit;
use super::quota::Quota;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// A service attached.
    ServiceAttached {
        /// The session's epoch.
        epoch: Epoch,
        /// The site's incarnation (0 while the site is blank).
        incarnation: Incarnation,
        /// The highest sequence that was decided for the store's uid.
        last: Sequence,
        /// The store was retired: the endpoint discards what it holds and takes a new uid.
        superseded: bool,
        /// Why the service exchanges no events for now.
        parked: Option<Parked>,
    },
    /// What became of a raise.
    Raised(Raised),
    /// A stateful client attached.
    ClientAttached {
        /// The session's epoch.
        epoch: Epoch,
        /// The site's incarnation.
        incarnation: Incarnation,
    },
    /// What became of each listed subscription, in the order of the request.
    Subscribed(Vec<SubscribeResult>),
    /// The cursor stands at this id or higher.
    Advanced {
        /// The cursor after the command.
        cursor: InstanceId,
    },
    /// Done; the object's own state is read afterwards.
    Done,
    /// A tick removed this many rows.
    Ticked {
        /// Rows removed; equal to the limit means there may be more.
        removed: u32,
    },
    /// The command was refused and changed nothing.
    Refused(Refusal),
    /// The node that asked to join is a member under this number.
    Joined {
        /// Its number.
        node: u64,
    },
    /// The ticket was good.
    Redeemed {
        /// What its bearer is.
        principal: Principal,
        /// The token that it was drawn with.
        token: Option<TokenId>,
        /// When what it was drawn with ends by itself.
        until: Option<Stamp>,
    },
}

/// What became of a raise that was decided or recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// The same raise had been decided before; this is its original decision.
    pub duplicate: bool,
    /// The decision.
    pub decision: Decision,
}

/// The lasting decision about a raise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Stored under this id.
    Stored(InstanceId),
    /// A null after a null: acknowledged, nobody is told. The id is that of the retained null.
    Ignored(InstanceId),
    /// Rejected for good; the sequence is used up.
    Rejected(Rejection),
    /// Decided long ago; the outcome is no longer kept.
    Forgotten,
}

/// Why an event was rejected for good. The connection and all other events go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rejection {
    /// The site has no event of this name.
    UnknownEvent,
    /// The event has another category.
    WrongCategory,
    /// The arguments are larger than allowed.
    ArgumentsTooLarge {
        /// Bytes given.
        given: u32,
        /// Bytes allowed.
        most: u32,
    },
    /// A null of an event that is not Replacing.
    NullNotAllowed,
    /// A private event needs an addressee.
    ClientRequired,
    /// Only a private event has an addressee.
    ClientNotAllowed,
    /// The addressee is not registered.
    UnknownClient,
    /// The lifetime is zero, longer than the definition's, or given for a Replacing event.
    LifetimeOutOfRange {
        /// Seconds given.
        given: u32,
        /// Seconds allowed; 0 for an event that has no lifetime.
        most: u32,
    },
    /// The media type of the arguments is longer than allowed.
    ContentTypeTooLong {
        /// Bytes given.
        given: u32,
    },
}

/// One listed subscription's fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeResult {
    /// The event as named in the request.
    pub event: EventName,
    /// The subscription's number and generation, or why it was refused.
    pub result: Result<(EventKey, Generation), Refusal>,
}

/// Why a service exchanges no events although it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Parked {
    /// The site is blank and may not be constructed by a service.
    SiteBlank,
    /// The site has another service type or contract author.
    ServiceTypeConflict,
    /// The same type and author, but another structure.
    StructureMismatch,
}

/// Why a command was refused. `decide` writes nothing for a refused command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such site.
    UnknownSite,
    /// No such service.
    UnknownService,
    /// No such client: `not-registered`.
    UnknownClient,
    /// No such user.
    UnknownUser,
    /// No such token.
    UnknownToken,
    /// No such event.
    UnknownEvent,
    /// No such subscription.
    UnknownSubscription,
    /// The event has another category than asked for.
    WrongCategory,
    /// Something of this name exists.
    AlreadyExists,
    /// A newer session has taken over.
    StaleEpoch {
        /// The newest epoch.
        newest: Epoch,
    },
    /// An attach does not know of the newest session, which attached before it.
    Overtaken {
        /// The newest epoch.
        newest: Epoch,
    },
    /// The cursor belongs to another incarnation or generation.
    StalePosition,
    /// The uid is not the one that this session attached with.
    WrongStore,
    /// The store was retired.
    StoreSuperseded,
    /// A number above last + 1; nothing was stored.
    OutOfSequence {
        /// The number to resend from.
        expected: Sequence,
    },
    /// The number was used before, for another event: the store must take a new uid.
    SequenceReused,
    /// The idempotency key was used before, for another event.
    KeyReused,
    /// The service has as many idempotency keys of its site's as it may; new ones wait for old ones to
    /// expire.
    TooManyKeys,
    /// The service is parked.
    Parked(Parked),
    /// The site has no structure yet.
    SiteBlank,
    /// The client may not enter the site, or the subscription is not for such clients.
    AccessDenied,
    /// The partition's state is as large as it may be; acknowledgements and reads go on.
    OverCapacity,
    /// A field is out of bounds or malformed.
    Invalid(Invalid),
    /// The change contradicts the site as it is.
    Conflict {
        /// What it contradicts, for a person.
        detail: String,
    },
    /// An administrator ended the session.
    Kicked,
    /// The object is not as the request expects it.
    Precondition,
    /// Faster than the site or the service may raise.
    RateLimited {
        /// The bound.
        quota: Quota,
        /// Its value.
        most: u64,
        /// When to come again, milliseconds.
        retry_ms: u32,
    },
    /// The site has as much as it may have.
    QuotaExceeded {
        /// The bound.
        quota: Quota,
        /// Its value.
        most: u64,
    },
    /// The event before this one was not decided, so this one is not either.
    NotYet,
    /// As many of this as there may be; room comes with time.
    LimitReached {
        /// The bound.
        limit: Limit,
        /// Its value.
        most: u64,
    },
    /// The mode of a subscription, or a setting that does not belong to it or is out of bounds.
    BadQuality(Invalid),
    /// No such dead letter.
    UnknownDeadLetter,
}

/// A field that broke a rule: names the field and the limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// The path of the field, for instance `events[3].size`.
    pub field: String,
    /// What is allowed and what was given, for instance `1..=1000, was 1001`.
    pub detail: String,
}

/// Tells local sessions that something changed. Level-triggered: it carries no payload, losing
/// one costs only latency because the state is what counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Effect {
    /// An instance of this event was stored, replaced or removed, or its definition changed.
    Event {
        /// The site.
        site: SiteName,
        /// The event.
        event: EventKey,
    },
    /// A private instance for this client was stored.
    Client {
        /// The site.
        site: SiteName,
        /// The client: its session, subscriptions, user or private events changed.
        client: ClientId,
    },
    /// A service's session, account or parked state changed.
    Service {
        /// The site.
        site: SiteName,
        /// The service.
        service: ServiceId,
    },
    /// The site's structure, settings, users or tokens changed: everything is looked at again.
    Site {
        /// The site.
        site: SiteName,
    },
}

impl Effect {
    /// The site that the effect is about.
    pub fn site(&self) -> &SiteName {
        match self {
            Self::Event { site, .. }
            | Self::Client { site, .. }
            | Self::Service { site, .. }
            | Self::Site { site } => site,
        }
    }
}
