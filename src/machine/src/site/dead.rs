//! Dead letters: instances that a subscriber did not handle in as many attempts as it gives them,
//! kept apart to be looked at, mended and raised again.
//!
//! A letter is a copy: what its queue does with the instance is no matter to it. It belongs to the
//! subscription that gave the instance up, and outlives it.
//!
//! Invariants: a subscriber has one letter of an instance at most, and is not sent an instance of
//! which it has one; what is raised again is raised once.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::command::Arguments;
use super::ids::{
    ClientId, Epoch, EventKey, EventName, Generation, Incarnation, InstanceId, PushId, ServiceId,
    SiteName, Stamp,
};
use super::push::Trouble;
use super::site::Site;

/// Letters that are kept of one subscription: one more pushes out the oldest, first of those that
/// were raised again.
pub const DEAD_LETTERS_MAX: usize = 1000;
/// Longest note, bytes.
pub const LETTER_NOTE_BYTES_MAX: usize = 1024;

/// Whose letter it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subscriber {
    /// A subscription of a client.
    Client(ClientId, EventKey),
    /// A push subscription.
    Push(PushId),
}

/// How the last attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LetterCause {
    /// The client returned it.
    Returned,
    /// The client did not acknowledge it in time.
    Timeout,
    /// The callback failed.
    Failed(Trouble),
}

impl fmt::Display for LetterCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("returned"),
            Self::Timeout => f.write_str("timeout"),
            Self::Failed(trouble) => trouble.fmt(f),
        }
    }
}

/// How a delivery ended that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// How often the instance was sent.
    pub attempts: u32,
    /// How the last attempt ended.
    pub cause: LetterCause,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LetterState {
    /// Nothing yet.
    Waiting,
    /// It was raised again.
    Replayed {
        /// When.
        at: Stamp,
        /// As this instance.
        instance: InstanceId,
    },
    /// It was deleted while its subscription's cursor was still before it: only that it was given
    /// up is remembered.
    Deleted,
}

impl LetterState {
    /// The name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Replayed { .. } => "replayed",
            Self::Deleted => "deleted",
        }
    }
}

/// One letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterRow {
    /// The site.
    pub site: SiteName,
    /// Its id, from the same numbers as those of instances.
    pub id: InstanceId,
    /// Whose it is.
    pub subscriber: Subscriber,
    /// The event.
    pub event: EventKey,
    /// The event's name when it was given up.
    pub name: EventName,
    /// The instance that was given up.
    pub instance: InstanceId,
    /// The instance that was raised first: that one, unless it was raised again itself.
    pub original: InstanceId,
    /// Who raised it.
    pub service: ServiceId,
    /// The addressee, of a private event.
    pub client: Option<ClientId>,
    /// When the instance was raised.
    pub created: Stamp,
    /// Its arguments, as they are to be raised again.
    pub arguments: Option<Arguments>,
    /// When it was given up.
    pub at: Stamp,
    /// How.
    pub given_up: GivenUp,
    /// What somebody says of it.
    pub note: String,
    /// When somebody changed its arguments.
    pub edited: Option<Stamp>,
    /// What became of it.
    pub state: LetterState,
}

/// See [`super::Command::GiveUp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveUp {
    /// The site.
    pub site: SiteName,
    /// The client.
    pub client: ClientId,
    /// The subscription.
    pub event: EventKey,
    /// The epoch of the session.
    pub epoch: Epoch,
    /// The incarnation in which it was delivered.
    pub incarnation: Incarnation,
    /// The generation in which it was delivered.
    pub generation: Generation,
    /// What is given up.
    pub instance: InstanceId,
    /// Where the cursor may stand then.
    pub cursor: InstanceId,
    /// How its delivery ended.
    pub given_up: GivenUp,
}

impl Site {
    /// The dead letter of this id.
    pub fn dead_letter(&self, id: InstanceId) -> Option<&DeadLetterRow> {
        self.dead_letters.get(&id)
    }

    /// How many dead letters there are.
    pub fn dead_letter_count(&self) -> usize {
        self.dead_letters.len()
    }

    /// All dead letters, the oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = &DeadLetterRow> {
        self.dead_letters.values()
    }

    /// Dead letters above an id, the oldest first: the next page.
    pub fn dead_letters_after(
        &self,
        after: InstanceId,
    ) -> impl Iterator<Item = &DeadLetterRow> + use<'_> {
        self.dead_letters.range(after.next()..).map(|(_, row)| row)
    }

    /// The dead letters of a subscriber, by instance.
    pub fn letters_of(
        &self,
        subscriber: &Subscriber,
    ) -> impl Iterator<Item = &DeadLetterRow> + use<'_> {
        let ids = self.letters.get(subscriber).into_iter().flat_map(BTreeMap::values);
        ids.filter_map(|id| self.dead_letters.get(id))
    }

    /// Whether a subscriber has given an instance up, so that it is not sent it any more.
    pub fn is_given_up(&self, subscriber: &Subscriber, instance: InstanceId) -> bool {
        // Where there are none nothing is looked up.
        self.letters.get(subscriber).is_some_and(|letters| letters.contains_key(&instance))
    }
}
