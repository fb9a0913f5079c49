//! The identities of the site machine: names, numbers and positions, each its own type.
//!
//! Names are shared text: cloning one copies a pointer. Numbers never wrap in practice (64 bit).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text as given. Validity is judged where a name enters the state, not here.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number that follows this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

name!(
    /// The name of a site: the unit of tenancy, order and authority. An account name.
    SiteName
);
name!(
    /// A publisher account of a site. An account name.
    ServiceId
);
name!(
    /// A stateful subscriber account of a site. An account name.
    ClientId
);
name!(
    /// A user of a site, the holder of roles. An account name.
    UserId
);
name!(
    /// The public half of a token; the secret half exists only as a hash. An account name.
    TokenId
);
name!(
    /// A push subscription of a site. An account name.
    PushId
);
name!(
    /// The name of an event definition. A structure name.
    EventName
);
name!(
    /// The name of a role. A structure name; unique in a site ignoring ASCII case.
    RoleName
);

number!(
    /// The number of an event definition inside its site. It survives a re-applied structure that
    /// still holds the same (name, category), and is never given to another definition.
    EventKey(u32)
);
number!(
    /// The number of an event instance: assigned when a raise is applied, strictly increasing over
    /// all queues of a site. The first is 1, so 0 is "before the first".
    InstanceId(u64)
);
number!(
    /// A session's rank: each attach of a service or client takes a higher one; the newest wins.
    Epoch(u64)
);
number!(
    /// The random number of a site's life; another after a rebuild or a restore. Below 2^53.
    Incarnation(u64)
);
number!(
    /// Rises when an administrator seeks a subscription.
    Generation(u32)
);
number!(
    /// The number that a service's store gives an event at its first transmission. The first is 1.
    Sequence(u64)
);
number!(
    /// Milliseconds since the Unix epoch, as stamped into a log entry by the leader.
    Stamp(u64)
);

/// The identity of a session, random: under it the state recognises an attach that comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Stands among an account's sessions for the end of the one before, by an administrator.
    pub const KICKED: Self = Self(0);
}

/// The identity of a service endpoint's event store, random at its creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StorageUid(pub [u8; 16]);

/// The identity of an administrative request, for a retry to get the original answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub [u8; 16]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Debug for StorageUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// The identity of an attempt to restore a site, random: the parts of two do not become one site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId(pub [u8; 16]);

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// Where a subscription stands: ids compare (with `<=`, never `==`) only within an equal
/// (incarnation, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The life of the site that the id belongs to.
    pub incarnation: Incarnation,
    /// How often the subscription had been sought.
    pub generation: Generation,
    /// The last instance that was delivered and acknowledged; 0 for none.
    pub instance: InstanceId,
}

/// Where a session is: one run of one node. Sessions end with the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The node's number.
    pub node: u64,
    /// Random, drawn when the node's process started.
    pub run: u64,
}
