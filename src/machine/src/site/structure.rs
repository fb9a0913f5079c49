//! What a service declares about its site: event definitions, roles, access rules, guest support.
//!
//! Two structures are the same when their canonical hashes are: order of roles and events, the
//! owner role and the service's version do not count.

use serde::{Deserialize, Serialize};

use super::ids::{EventName, RoleName};

/// How an event's instances relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Category {
    /// A newer instance replaces the older one; size 1, no expiry.
    Replacing,
    /// Instances queue up to a size and for a lifetime.
    Queueing,
    /// As queueing, but each instance is addressed to one stateful client.
    Private,
}

/// Who may receive an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Every client, guests and stateless guests too where the site admits them.
    Everyone,
    /// Only clients of real users.
    GuestsDenied,
    /// Everyone but stateless guests.
    StatelessGuestsDenied,
    /// Only clients of users that hold one of these declared roles.
    Roles(Vec<RoleName>),
}

/// The part of an event definition that depends on its category.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// See [`Category::Replacing`].
    Replacing {
        /// Who may receive it.
        access: Access,
    },
    /// See [`Category::Queueing`].
    Queueing {
        /// Seconds an instance is kept.
        lifetime_s: u32,
        /// Instances kept per queue.
        size: u32,
        /// Who may receive it.
        access: Access,
    },
    /// See [`Category::Private`]. The size is fixed at [`super::limits::PRIVATE_SIZE`].
    Private {
        /// Seconds an instance is kept.
        lifetime_s: u32,
    },
}

impl Kind {
    /// The category of this kind.
    pub fn category(&self) -> Category {
        match self {
            Self::Replacing { .. } => Category::Replacing,
            Self::Queueing { .. } => Category::Queueing,
            Self::Private { .. } => Category::Private,
        }
    }
}

/// One event that a service may raise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDefinition {
    /// Its name, unique in the structure over all categories.
    pub name: EventName,
    /// Its category with limits and access rule.
    pub kind: Kind,
}

/// Whether clients without a user may take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestSupport {
    /// Guests are not admitted.
    None,
    /// Registered clients without a user are admitted as guests.
    Guest,
    /// Also clients without any account.
    GuestAndStateless,
}

/// What a service declares: the whole of a site's structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// What kind of service this is, for instance `boiler`.
    pub service_type: String,
    /// Who wrote the contract.
    pub contract_author: String,
    /// Whether guests are supported.
    pub guests: GuestSupport,
    /// Roles that access rules may name.
    pub roles: Vec<RoleName>,
    /// The role of the site's owner, one of `roles`. Not part of the hash.
    pub owner_role: Option<RoleName>,
    /// What may be raised.
    pub events: Vec<EventDefinition>,
}
