//! The delivery of one push subscription: what is sent to a receiver that has no connection.
//!
//! `attach ─▶ look ─▶ request ─▶ answer ─▶ report ─(committed)─▶ look`
//!
//! Invariants:
//! - Nothing is sent before the lane's own epoch is committed, and nothing by a node that no leader
//!   confirms: of two agents the older one sends nothing once it can know of the newer one.
//! - `ordered`: one instance between its selection and the commit of the cursor behind it.
//! - `twoway`: a window behind the committed cursor; `oneway`: five that the transport has not taken;
//!   `batch` and datagrams: one request.
//! - What is reported is numbered: a report whose fate is not known is proposed again and counts once.
//! - While a failure is on its way to the log nothing new is sent.
//!
//! The rules of failures are not here: the state applies them to what is reported.

mod lane;
mod pick;

#[cfg(test)]
mod tests;

pub use lane::PushLane;

use std::sync::Arc;

use super::{Token, View};
use crate::site::{
    Command, Epoch, EventKey, EventName, Generation, Incarnation, Instance, PushId, PushSpec,
    PushState, Trouble,
};

/// Milliseconds between two looks at whether more waits than may.
const OVERFLOW_LOOK_MS: u64 = 100;
/// Milliseconds until a proposal that failed is proposed again.
const PROPOSE_AGAIN_MS: u64 = 100;
/// Milliseconds until a node that no leader confirms, or a request that was not sent, is looked at
/// again.
const LOOK_AGAIN_MS: u64 = 500;
/// Requests of `oneway` whose answers are outstanding.
const OPEN_MAX: usize = 32;
/// Requests of `twoway` whose answers are outstanding, however large the window: more would only
/// wait for room at the node.
const TWOWAY_OPEN_MAX: usize = 64;
/// Datagrams that are handed to the socket before their cursor is committed.
const DATAGRAMS_MAX: usize = 64;

/// What a lane sees of one instance that it wants sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Parcel {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Its category.
    pub category: crate::site::Category,
    /// Which transmission it is, from 1 on.
    pub attempt: u32,
    /// Milliseconds since it was committed.
    pub age_ms: u64,
}

/// One request, or one handful of datagrams.
#[derive(Clone, Debug, PartialEq)]
pub struct PushRequest {
    /// The push subscription.
    pub push: PushId,
    /// As registered.
    pub spec: PushSpec,
    /// The lane's epoch.
    pub epoch: Epoch,
    /// The site's life.
    pub incarnation: Incarnation,
    /// The subscription's generation.
    pub generation: Generation,
    /// The event.
    pub event: EventKey,
    /// Its name.
    pub name: EventName,
    /// What is sent, in order; one in the modes without batches.
    pub parcels: Vec<Parcel>,
}

impl PushRequest {
    /// Whether it may still go: what has waited for room may have been paused, changed, revoked or taken
    /// over meanwhile, or is past its lifetime. What was replaced or evicted meanwhile goes: newer ones
    /// would else keep it from ever going.
    pub fn is_wanted(&self, view: View<'_>) -> bool {
        let Some(site) = view.site else { return false };
        let Some(row) = site.push(self.push.as_str()) else { return false };
        let lives =
            |parcel: &Parcel| parcel.instance.expires.is_none_or(|expires| view.stamp < expires);
        !view.is_stale()
            && matches!(row.state, PushState::Active | PushState::Probing)
            && (row.epoch, row.generation) == (self.epoch, self.generation)
            && site.incarnation() == self.incarnation
            && row.spec == self.spec
            && site.has_authority(row.event, &pick::receiver(row))
            && self.parcels.iter().all(lives)
    }
}

/// What a lane wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum PushOutput {
    /// Send it and tell with `on_answer` what became of it.
    Request {
        /// What to tell it under.
        token: Token,
        /// What to send.
        request: Box<PushRequest>,
    },
    /// Propose it and report with `on_outcome`.
    Propose {
        /// What to report under.
        token: Token,
        /// What to propose.
        command: Command,
    },
    /// There is nothing for this lane to do any more: what is under way is dropped.
    Over(Over),
}

/// Why a lane is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The subscription is gone.
    Gone,
    /// A newer agent has attached.
    Replaced,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushAnswer {
    /// The receiver acknowledged all of it.
    Delivered,
    /// The transport has taken all of it; the answer is still to come.
    Written,
    /// The socket took so many; the others were larger than a packet or had no room.
    Sent {
        /// Taken.
        sent: u32,
        /// Not taken.
        dropped: u32,
    },
    /// It failed.
    Failed(Trouble),
    /// It was not sent: the node may not, or has no room.
    NotSent,
}
