//! Resources by which a site is kept in order: quotas, tickets, the record of acts, and the answers
//! to "why" and "may I".

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::frame::{Mode, Position, Start};
use crate::resource::{InFlight, NotReached, Principal, SubscriptionSession};

/// What a site may use; an absent bound is none but the deployment's own limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Connections (WebSockets, event streams, waiting polls) on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Connections of one account, or of all guests together, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_connections: Option<u64>,
    /// Events raised per second, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_s: Option<u64>,
    /// Bytes of arguments raised per second, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
    /// Events raised per second by one service, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_events_per_s: Option<u64>,
    /// Bytes of arguments raised per second by one service, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_bytes_per_s: Option<u64>,
    /// HTTP requests per second on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<u64>,
    /// HTTP requests per second of one account, or of all guests together, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_requests_per_s: Option<u64>,
    /// Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<u64>,
    /// Clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// Subscriptions of all clients together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<u64>,
    /// Subscriptions of one client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_subscriptions: Option<u64>,
    /// Bytes of arguments retained in all queues together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u64>,
}

/// A site's quotas, and what it uses of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteQuotas {
    /// What it may use.
    pub quotas: Quotas,
    /// What it uses now.
    pub used: Usage,
}

/// What a site uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// Services.
    pub services: u64,
    /// Clients.
    pub clients: u64,
    /// Subscriptions of all clients together.
    pub subscriptions: u64,
    /// Bytes of arguments retained in all queues together.
    pub queue_bytes: u64,
    /// Connections on the node that answers.
    pub connections: u64,
}

/// A request for a ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TicketBody {
    /// The client that its bearer shall be; may be left out by the client itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Seconds that it is good for, 1..=300; 60 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u32>,
}

/// A ticket: for the parameter `ticket` of an address, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewTicket {
    /// The ticket.
    pub ticket: String,
    /// What its bearer is.
    pub principal: Principal,
    /// Seconds that it is good for.
    pub expires_in_s: u32,
}

/// One entry of the record of acts and refused attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// Rises with each entry of the site.
    pub number: u64,
    /// When it entered the record.
    pub at_ms: u64,
    /// The credential: `node-admin`, `token:<id>`, `jwt:<issuer>#<subject>`, `anonymous`.
    pub who: String,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// What was done or tried, for instance `client.delete` or `PUT structure`.
    pub act: String,
    /// To what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// `done`, or the code of the refusal.
    pub result: String,
    /// How often: attempts that are alike are counted together.
    pub count: u32,
}

/// What an administrator sets of a subscription. A new one starts as `start` says; a kept one keeps
/// its cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SubscriptionBody {
    /// Where a new one starts.
    #[serde(default)]
    pub start: Start,
    /// Milliseconds until an unacknowledged instance is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout_ms: Option<u32>,
    /// Attempts before an instance is skipped; absent is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// What counts as delivered; absent is `ordered`.
    #[serde(default)]
    pub mode: Mode,
    /// Of `twoway`: instances under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Of `batch`: milliseconds from the first event that waits to the frame with all that wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_ms: Option<u32>,
    /// What is given up after `max_attempts` is kept as a dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead_letter: bool,
}

/// Whether somebody may do something, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CanI {
    /// What was asked.
    pub act: String,
    /// Whether they may now.
    pub allowed: bool,
    /// Why, or why not, for a person.
    pub because: String,
    /// Why not, for a program: stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of an instance, and why a client got it or did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Why {
    /// The instance.
    pub instance_id: u64,
    /// The event that was asked about.
    pub event: String,
    /// The client that was asked about.
    pub client: String,
    /// `acknowledged`, `in-flight`, `next`, `waiting`, `superseded`, `evicted`, `expired`, `removed`,
    /// `unauthorised`, `paused`, `passed`, `not-subscribed`, `not-addressed`, `not-raised`,
    /// `other-event`, `unknown-event`, `unknown-client` or `forgotten`.
    pub verdict: String,
    /// The same for a person.
    pub because: String,
    /// What became of the instance itself.
    pub instance: InstanceFate,
    /// The client's subscription, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<WhySubscription>,
    /// How often it was sent to the client, as far as the nodes remember; absent where the event or
    /// the client is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<WhySent>,
    /// Nodes that did not say in time what they sent and which sessions they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_reached: Vec<NotReached>,
}

/// The transmissions of an instance to a client that the nodes remember.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WhySent {
    /// How many there are.
    pub times: u64,
    /// The newest of them, up to [`TRANSMISSIONS_MAX`], in the order of their time.
    pub transmissions: Vec<Transmission>,
    /// From this moment on every node that answered remembers all that it sent.
    pub known_since_ms: u64,
}

/// Transmissions of an instance that are told at most.
pub const TRANSMISSIONS_MAX: usize = 100;

/// One time that an instance was sent to a client. Times are by the clock of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Transmission {
    /// The node that sent it.
    pub node: u64,
    /// The number of the session on that node.
    pub session: u64,
    /// 1 for the first time in that session.
    pub attempt: u32,
    /// When.
    pub sent_ms: u64,
    /// When the client said to this node that it has handled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_ms: Option<u64>,
    /// When this node saw the cursor committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_ms: Option<u64>,
}

/// What became of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InstanceFate {
    /// `retained`, `superseded`, `evicted`, `expired`, `acknowledged`, `removed`, `not-raised` or
    /// `forgotten`: it was raised, and what became of it is not remembered. To a client that asks
    /// about what is not for it: `withheld`.
    pub fate: String,
    /// Who raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// When it was accepted: committed, on the disks of a majority of the partition's voters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_ms: Option<u64>,
    /// The nodes that vote in its partition: it is on the disks of most of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<u64>,
    /// From when on it is never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// When it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<u64>,
    /// The instance that superseded or evicted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<u64>,
    /// What is forgotten ends here: above this id everything is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered_above: Option<u64>,
}

/// A subscription as far as it explains what became of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WhySubscription {
    /// Its cursor.
    pub position: Position,
    /// Whether the client may receive the event now.
    pub granted: bool,
    /// Since when it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_ms: Option<u64>,
    /// What was sent and is not acknowledged; it may be another instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// The client's newest session, if one is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SubscriptionSession>,
}

/// The code of an outcome that is none of [`Code`]: what the record says of an act that was done.
pub const DONE: &str = "done";

/// Whether a text of the record is the code of a refusal.
///
/// ```
/// assert!(!ackord_wire::govern::is_refusal("done"));
/// assert!(ackord_wire::govern::is_refusal("access-denied"));
/// ```
pub fn is_refusal(result: &str) -> bool {
    Code::ALL.iter().any(|code| code.as_str() == result)
}
