//! A site's structure as endpoints and administrators write it.
//!
//! ```
//! let structure: ackord_wire::structure::Structure = serde_json::from_str(r#"{
//!     "service_type": "boiler", "contract_author": "Example",
//!     "events": [
//!         {"name": "state", "category": "replacing"},
//!         {"name": "reading", "category": "queueing", "lifetime_s": 86400, "size": 1000}
//!     ]
//! }"#).unwrap();
//! assert_eq!(structure.events.len(), 2);
//! ```

use serde::{Deserialize, Serialize};

/// How an event's instances relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A newer instance replaces the older one.
    Replacing,
    /// Instances queue up to a size and for a lifetime.
    Queueing,
    /// As queueing, each instance addressed to one stateful client.
    Private,
}

/// Whether clients without a user may take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum GuestSupport {
    /// Guests are not admitted.
    #[default]
    #[serde(rename = "none")]
    None,
    /// Registered clients without a user are admitted as guests.
    #[serde(rename = "guest")]
    Guest,
    /// Also clients without any account.
    #[serde(rename = "guest+stateless")]
    GuestAndStateless,
}

/// Who may receive a Replacing or Queueing event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everyone the site admits.
    #[default]
    Everyone,
    /// Only clients of users.
    GuestsDenied,
    /// Everyone but stateless guests.
    StatelessGuestsDenied,
    /// Only clients of users with one of these roles.
    Roles(Vec<String>),
}

/// One event definition. Which of the optional fields are required or forbidden depends on the
/// category; the broker says so with the field's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The name.
    pub name: String,
    /// The category.
    pub category: Category,
    /// Seconds an instance is kept: required for queueing and private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u32>,
    /// Instances kept per queue: required for queueing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Who may receive it; absent is everyone. Not for private events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// The whole of a site's structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Structure {
    /// What kind of service this is.
    pub service_type: String,
    /// Who wrote the contract.
    pub contract_author: String,
    /// Whether guests are supported.
    #[serde(default)]
    pub guests: GuestSupport,
    /// Roles that access rules may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The role of the site's owner, one of `roles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_role: Option<String>,
    /// What may be raised.
    pub events: Vec<Event>,
}
