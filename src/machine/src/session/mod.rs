//! What one connection does, as data in and data out.
//!
//! - [`ClientSession`]: the subscriptions of one connected client, one [`Lane`] each.
//! - [`ServiceSession`]: the publish window of one connected service.
//! - [`PushLane`]: a push subscription, which has no connection.
//! - [`Keepalive`]: when to ping a peer and when to give it up.
//!
//! A session is told what happened (`on_x`) together with a [`View`] of its site as applied on
//! this node, and pushes what shall be done ([`Output`]) in order. Its driver carries the outputs
//! out: it proposes commands and reports their outcome under the same [`Token`], sends messages,
//! closes. A driver calls `on_time` at [`ClientSession::next_deadline`]: one timer per session.
//!
//! A partition that is away for a while is the session's matter: what it asked for and what came to
//! nothing, or to nobody knows what, it proposes again under the same identity.
//!
//! Invariants: a session never asks for anything after its [`Output::Close`]; it never waits for
//! anything but outcomes it asked for, wakes and its deadline; waking it without a reason, twice
//! or late changes nothing but latency.
//!
//! Deliberately absent: encodings, sockets, actors, and knowledge of other sessions.

mod client;
mod credential;
mod keepalive;
mod lane;
mod message;
mod opening;
pub mod push;
mod raises;
mod service;
mod set;
mod subscriptions;

#[cfg(test)]
mod tests;

pub use client::{ClientSession, Modes, SessionOptions, Wake};
pub use keepalive::{Keepalive, KeepaliveAct};
pub use lane::{Counts, InFlight, Lane, LaneState, Named};
pub use message::{
    AcceptedSubscription, Delivery, RefusedRaise, RefusedSubscription, SubscriptionSync, ToClient,
    ToService,
};
pub use push::{Over, Parcel, PushAnswer, PushLane, PushOutput, PushRequest};
pub use service::{ServiceHello, ServiceSession};
pub use set::{set_hash, set_text};
pub use subscriptions::{ListMode, SubscribeItem};

use super::site::{Command, Epoch, Limits, Refusal, Site, SiteName, Stamp, State};

/// Names one thing that a session waits for; never reused for another within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What a session sees when it is told something.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The session's site as applied on this node; `None` when there is none.
    pub site: Option<&'a Site>,
    /// The partition's limits.
    pub limits: &'a Limits,
    /// Milliseconds of a monotonic clock, for deadlines.
    pub now_ms: u64,
    /// The log's time, for expiry and age.
    pub stamp: Stamp,
    /// Milliseconds since a leader last confirmed to this node that it follows it.
    pub stale_ms: u64,
}

/// A node that no leader has confirmed for so long starts no transmission: another node may have
/// taken the session over, or deliver what this one does not know is gone.
pub const STALE_MS: u64 = 1000;
/// After so long it closes its sessions, whose peers find a better node.
pub const CUT_OFF_MS: u64 = 5000;

impl<'a> View<'a> {
    /// The view of one site in a partition's state. The stamp is never behind the state's clock.
    pub fn new(state: &'a State, site: &SiteName, now_ms: u64, stamp: Stamp) -> Self {
        Self {
            site: state.site(site.as_str()),
            limits: state.limits(),
            now_ms,
            stamp: stamp.max(state.clock()),
            stale_ms: 0,
        }
    }

    /// The same on a node that a leader last confirmed so long ago.
    pub fn confirmed_before(self, stale_ms: u64) -> Self {
        Self { stale_ms, ..self }
    }

    fn is_stale(&self) -> bool {
        self.stale_ms >= STALE_MS
    }

    fn is_cut_off(&self) -> bool {
        self.stale_ms >= CUT_OFF_MS
    }
}

/// What a session on a node that is cut off tells its peer.
const CUT_OFF: &str = "this node is cut off from the others: try another one";

/// What a session wants done. `M` is what it says to its peer.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<M> {
    /// Propose the command and report with `on_outcome` under the token.
    Propose {
        /// What to report under.
        token: Token,
        /// What to propose.
        command: Command,
    },
    /// Wait until reads see everything acknowledged before now, then report with `on_outcome`:
    /// any `Ok` will do.
    Linearize {
        /// What to report under.
        token: Token,
    },
    /// Ask the peer for a sign of life, and report with `on_alive` that it answered this.
    Probe,
    /// Say this to the peer.
    Send(M),
    /// Say why and close. Nothing follows.
    Close {
        /// Why.
        reason: CloseReason,
        /// Why, for a person.
        detail: String,
    },
}

/// Why a proposal has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Too much is queued; nothing was proposed.
    Busy,
    /// The state is as large as it may be; nothing was proposed.
    OverCapacity,
    /// The disk is nearly full; nothing was proposed.
    DiskFull,
    /// The partition cannot be reached now; nothing was proposed.
    Unavailable,
    /// It may have been applied, or may be applied later.
    Unknown,
}

/// Why a session closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// The peer said goodbye.
    Goodbye,
    /// A newer session of the same account has taken over.
    Replaced,
    /// An administrator ended the session; it may come again.
    Kicked,
    /// The account or its site does not exist, or was deleted.
    NotRegistered,
    /// The account may not enter.
    AccessDenied,
    /// The token that opened the session was revoked.
    TokenRevoked,
    /// The site was rebuilt: connect again.
    SiteRebuilt,
    /// The peer spoke out of turn.
    ProtocolViolation,
    /// What the peer declared is malformed or out of bounds.
    Invalid,
    /// The peer asks for more at once than it may.
    LimitReached,
    /// The partition is too busy to open the session.
    Busy,
    /// This node cannot serve the session now, another one may.
    Unavailable,
    /// The store must take a new uid.
    SequenceReused,
    /// The store was retired.
    StoreSuperseded,
    /// The peer did not say hello, or was silent for too long.
    IdleTimeout,
    /// The peer did not read fast enough.
    SlowConsumer,
    /// The nodes of the cluster are others than the peer was told.
    AddressesChanged,
    /// The node is shutting down.
    ShuttingDown,
    /// The broker contradicts itself.
    Internal,
    /// The credentials that opened the session are over: connect again with new ones.
    CredentialsExpired,
}

/// What a session is told that an administrator ends.
const KICKED: &str = "an administrator ended the session";
/// Milliseconds until a proposal that failed is proposed again.
pub const PROPOSE_RETRY_MS: u64 = 100;
/// Milliseconds that an attach, a list of subscriptions or a raise is proposed again and again: more
/// than an election takes.
pub const PATIENCE_MS: u64 = 10_000;
/// Milliseconds that a raise is proposed again and again while too much is queued: then its endpoint
/// shall send less.
pub const PATIENCE_BUSY_MS: u64 = 1_000;

/// Counts how long something has failed.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    since_ms: Option<u64>,
}

impl Patience {
    /// It failed: when to try again; `None` when it has failed for too long.
    fn again(&mut self, now_ms: u64) -> Option<u64> {
        (now_ms < self.end_ms(now_ms)).then_some(now_ms + PROPOSE_RETRY_MS)
    }

    /// When it will have failed for too long.
    fn end_ms(&mut self, now_ms: u64) -> u64 {
        *self.since_ms.get_or_insert(now_ms) + PATIENCE_MS
    }
}

/// The close of a session that has failed to be served for too long.
fn close_of_failed(failed: Failed) -> (CloseReason, &'static str) {
    match failed {
        Failed::Busy | Failed::OverCapacity | Failed::DiskFull => {
            (CloseReason::Busy, "too much is waiting: connect again")
        }
        Failed::Unavailable | Failed::Unknown => {
            (CloseReason::Unavailable, "the partition is away")
        }
    }
}

/// The close that a refusal of a session's own command means. An epoch below the session's own is
/// that of an account that was deleted and created again.
fn close_of(refusal: &Refusal, own: Epoch) -> CloseReason {
    match refusal {
        Refusal::UnknownSite | Refusal::UnknownService | Refusal::UnknownClient => {
            CloseReason::NotRegistered
        }
        Refusal::StaleEpoch { newest } if *newest < own => CloseReason::NotRegistered,
        Refusal::StaleEpoch { .. } | Refusal::Overtaken { .. } => CloseReason::Replaced,
        Refusal::AccessDenied => CloseReason::AccessDenied,
        Refusal::StalePosition | Refusal::WrongStore => CloseReason::SiteRebuilt,
        Refusal::StoreSuperseded => CloseReason::StoreSuperseded,
        Refusal::SequenceReused => CloseReason::SequenceReused,
        Refusal::Kicked => CloseReason::Kicked,
        Refusal::OverCapacity | Refusal::RateLimited { .. } | Refusal::QuotaExceeded { .. } => {
            CloseReason::Busy
        }
        Refusal::Invalid(_) | Refusal::BadQuality(_) | Refusal::Conflict { .. } => {
            CloseReason::Invalid
        }
        Refusal::SiteBlank | Refusal::Parked(_) => CloseReason::Unavailable,
        Refusal::UnknownUser
        | Refusal::UnknownToken
        | Refusal::UnknownEvent
        | Refusal::UnknownSubscription
        | Refusal::WrongCategory
        | Refusal::AlreadyExists
        | Refusal::OutOfSequence { .. }
        | Refusal::KeyReused
        | Refusal::Precondition
        | Refusal::TooManyKeys
        | Refusal::LimitReached { .. }
        | Refusal::UnknownDeadLetter
        | Refusal::NotYet => CloseReason::Internal,
    }
}

/// What a refusal says to a person.
pub fn refusal_detail(refusal: &Refusal) -> String {
    match refusal {
        Refusal::UnknownSite => "no such site".to_owned(),
        Refusal::UnknownService => "no such service".to_owned(),
        Refusal::UnknownClient => "no such client".to_owned(),
        Refusal::UnknownUser => "no such user".to_owned(),
        Refusal::UnknownToken => "no such token".to_owned(),
        Refusal::UnknownEvent => "the site has no event of this name".to_owned(),
        Refusal::UnknownSubscription => "no such subscription".to_owned(),
        Refusal::UnknownDeadLetter => "no such dead letter".to_owned(),
        Refusal::WrongCategory => "the event has another category".to_owned(),
        Refusal::AlreadyExists => "something of this name exists".to_owned(),
        Refusal::StaleEpoch { newest } | Refusal::Overtaken { newest } => {
            format!("a newer session, epoch {newest}, took over")
        }
        Refusal::StalePosition => "the position belongs to an earlier life or seek".to_owned(),
        Refusal::WrongStore => "the session attached with another store".to_owned(),
        Refusal::StoreSuperseded => "another store continued this one".to_owned(),
        Refusal::OutOfSequence { expected } => format!("resend from {expected}"),
        Refusal::SequenceReused => "the number was used for another event".to_owned(),
        Refusal::KeyReused => "the idempotency key was used for another event".to_owned(),
        Refusal::TooManyKeys => {
            "limit keys_max: the service has its share of the site's idempotency keys".to_owned()
        }
        Refusal::Parked(_) => "the service is parked".to_owned(),
        Refusal::SiteBlank => "the site has no structure yet".to_owned(),
        Refusal::AccessDenied => "not allowed for this client".to_owned(),
        Refusal::OverCapacity => "the partition holds as much as it may".to_owned(),
        Refusal::Invalid(invalid) | Refusal::BadQuality(invalid) => {
            format!("{}: {}", invalid.field, invalid.detail)
        }
        Refusal::Conflict { detail } => detail.clone(),
        Refusal::Kicked => KICKED.to_owned(),
        Refusal::Precondition => "the object is not as the request expects it".to_owned(),
        Refusal::RateLimited { quota, most, .. } => {
            format!("quota {}: at most {most}", quota.as_str())
        }
        Refusal::QuotaExceeded { quota, most } => {
            format!("quota {}: at most {most}", quota.as_str())
        }
        Refusal::LimitReached { limit, most } => {
            format!("limit {}: at most {most}", limit.as_str())
        }
        Refusal::NotYet => "the event before it is not decided".to_owned(),
    }
}
