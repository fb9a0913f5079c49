//! The resources of the HTTP administration API, as JSON.
//!
//! Invariants: what a caller sends (`…Body`) rejects unknown fields, so that a misspelt option is
//! an error; what the broker answers may gain fields, so readers ignore those they do not know.
//! Times are milliseconds since the Unix epoch, ids integers below 2^53.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::code::Code;
use crate::frame::{Mode, Position, Start};
use crate::payload::Data;
use crate::problem::Problem;
use crate::structure::{Category, Structure};

mod live;
pub use live::{
    Encoding, InFlight, LaneState, NotReached, Session, SessionKind, SessionPage, SessionState,
    SubscriptionSession, Transport, Why,
};

/// Items of a page when the request names no limit.
pub const PAGE_DEFAULT: usize = 100;
/// Items of a page at most.
pub const PAGE_MAX: usize = 1000;

/// A part of a list, in an order that does not change: ascending by name or id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "{T}Page"))]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Settings of a site. In a request an absent field keeps its value, or at creation takes the
/// default of [`SiteSettings`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SiteBody {
    /// See [`SiteSettings::multi_service`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_service: Option<bool>,
    /// See [`SiteSettings::constructible`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constructible: Option<bool>,
    /// See [`SiteSettings::guests_allowed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests_allowed: Option<bool>,
    /// See [`SiteSettings::stateless_guests_allowed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateless_guests_allowed: Option<bool>,
}

/// The settings of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteSettings {
    /// Whether several services share the site, each with its own queues. Cannot change while the
    /// site has a structure.
    pub multi_service: bool,
    /// Whether the first service to connect may construct a blank site.
    pub constructible: bool,
    /// Whether guests are let in, as far as the structure supports them.
    pub guests_allowed: bool,
    /// Whether clients without account are let in, as far as the structure supports them.
    pub stateless_guests_allowed: bool,
}

impl Default for SiteSettings {
    /// One service, which may construct the site; guests as far as the structure, which denies
    /// them by default, supports them.
    fn default() -> Self {
        Self {
            multi_service: false,
            constructible: true,
            guests_allowed: true,
            stateless_guests_allowed: true,
        }
    }
}

impl SiteBody {
    /// The settings that result from `base`.
    pub fn apply_to(&self, base: &SiteSettings) -> SiteSettings {
        SiteSettings {
            multi_service: self.multi_service.unwrap_or(base.multi_service),
            constructible: self.constructible.unwrap_or(base.constructible),
            guests_allowed: self.guests_allowed.unwrap_or(base.guests_allowed),
            stateless_guests_allowed: self
                .stateless_guests_allowed
                .unwrap_or(base.stateless_guests_allowed),
        }
    }
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Site {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created_ms: u64,
    /// The group of the cluster that keeps it.
    pub partition: u32,
    /// Its settings.
    pub settings: SiteSettings,
    /// The number of its life; another after a rebuild.
    pub incarnation: u64,
    /// Its service type; absent while it is blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Who wrote its contract; absent while it is blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract_author: Option<String>,
    /// The canonical hash of its structure, hex; absent while it is blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure_hash: Option<String>,
    /// The id of the newest instance; 0 before the first.
    pub last_instance_id: u64,
}

/// The structure of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteStructure {
    /// Its canonical hash, hex.
    pub hash: String,
    /// The number of the site's life.
    pub incarnation: u64,
    /// The structure.
    pub structure: Structure,
}

/// A publisher account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Whether its newest session is connected.
    pub online: bool,
    /// The epoch of its newest session; 0 before the first.
    pub epoch: u64,
    /// Why it exchanges no events: `site-blank`, `service-type-conflict` or
    /// `site-structure-mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Code>,
    /// The structure it declared when it was parked; only where one service is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<Structure>,
    /// The uid of the store it raises from, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// As declared by its newest session.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// As declared by its newest session.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
}

/// An empty object: a service has nothing that an administrator sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceBody {}

/// What an administrator sets of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClientBody {
    /// Its user; absent or null makes it a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A stateful subscriber account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its user; absent for a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The epoch of its newest session; 0 before the first.
    pub epoch: u64,
}

/// What an administrator sets of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserBody {
    /// The roles it holds; each must be declared once the site has a structure.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// A holder of roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct User {
    /// Its id.
    pub id: String,
    /// The roles it holds.
    pub roles: Vec<String>,
}

/// What a token lets its bearer do, inside one site: `"admin"`, `"operator"`, `"observer"`,
/// `{"service": "s"}` or `{"client": "c"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// Administers the site.
    Admin,
    /// Reads everything of the site, and keeps it running: pauses, seeks, kicks.
    Operator,
    /// Reads everything of the site, changes nothing.
    Observer,
    /// Acts as this service.
    Service(String),
    /// Acts as this client.
    Client(String),
}

/// A request for a new token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// What its bearer may do.
    pub principal: Principal,
    /// Seconds until it ends by itself; absent is until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// What it is for, at most 128 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A token that was just made: the only time its secret is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewToken {
    /// Its public half.
    pub id: String,
    /// The whole of it, for `Authorization: Bearer`.
    pub token: String,
    /// What its bearer may do.
    pub principal: Principal,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Token {
    /// Its public half.
    pub id: String,
    /// What its bearer may do.
    pub principal: Principal,
    /// When it was created.
    pub created_ms: u64,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The queues of an event: one for each service of a multi-service site, seen as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Queue {
    /// The event.
    pub event: String,
    /// The number of the event in this site: that of its subscriptions.
    pub subscription: u32,
    /// Its category.
    pub category: Category,
    /// Instances that are retained.
    pub retained: u64,
    /// The id of the earliest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_instance_id: Option<u64>,
    /// The id of the newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_instance_id: Option<u64>,
}

/// A retained instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Instance {
    /// Its id.
    pub instance_id: u64,
    /// Who raised it.
    pub service: String,
    /// The addressee of a private event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// When it was committed.
    pub created_ms: u64,
    /// From when on it is not sent any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Whether it is a null-event.
    pub null: bool,
    /// The media type of `data`; absent is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The arguments where they are JSON other than `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Value>"))]
    pub args: Option<Box<RawValue>>,
    /// The arguments otherwise, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The instance that it was at first, if it was raised again from a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_id: Option<u64>,
    /// The trace that it was raised in, as W3C Trace Context has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What vendors add to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// A subscription of a stateful client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscription {
    /// The client.
    pub client: String,
    /// The event.
    pub event: String,
    /// Its number in this site.
    pub subscription: u32,
    /// Its category.
    pub category: Category,
    /// Its cursor: the last instance that was delivered and acknowledged.
    pub position: Position,
    /// As asked for.
    pub start: Start,
    /// As asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout_ms: Option<u32>,
    /// As asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// As asked for.
    #[serde(default)]
    pub mode: Mode,
    /// As asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// As asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_ms: Option<u32>,
    /// What is given up after `max_attempts` is kept as a dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead_letter: bool,
    /// Its dead letters that wait.
    #[serde(default)]
    pub dead_letters: u64,
    /// Whether the client may receive it at the moment.
    pub granted: bool,
    /// Since when an administrator holds its deliveries back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_ms: Option<u64>,
    /// Retained instances above the cursor that are for this client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// The same where there are more than are counted: so many at least. One of the two is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_at_least: Option<u64>,
    /// When the first of them was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unacknowledged_ms: Option<u64>,
    /// What was sent and is not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// The client's newest session, if one is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SubscriptionSession>,
    /// Nodes that did not say in time which sessions they have: one that is absent here may be
    /// there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_reached: Vec<NotReached>,
}

/// Where a subscription is to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SeekBody {
    /// Delivery goes on with the first retained instance above this id; 0 is the earliest.
    pub after: u64,
}

/// What became of an event raised over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RaiseResult {
    /// The event.
    pub event: String,
    /// The id of the instance; absent when the outcome is no longer remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<u64>,
    /// The same key had raised it before; this is the first outcome.
    pub duplicate: bool,
    /// A null after a null: acknowledged, nobody is told.
    pub ignored: bool,
}

/// A line of a batch: one event to raise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchItem {
    /// The event.
    pub event: String,
    /// The arguments, when they are JSON other than `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Box<RawValue>>,
    /// The arguments otherwise, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// Media type of `data`; absent is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The addressee of a private event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A lifetime shorter than the definition's, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u32>,
    /// The idempotency key of this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A null-event: no arguments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub null: bool,
    /// The trace that it is raised in, as W3C Trace Context has it; what is none is ignored.
    #[serde(
        default,
        deserialize_with = "crate::trace::lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub traceparent: Option<String>,
    /// What vendors add to it.
    #[serde(
        default,
        deserialize_with = "crate::trace::lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub tracestate: Option<String>,
}

/// What became of one event of a batch: a line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchResult {
    /// The event's place in the batch, from 0 on; empty lines do not count.
    pub index: u32,
    /// The event; absent when the line could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// As in [`RaiseResult`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<u64>,
    /// As in [`RaiseResult`]; absent when there is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// As in [`RaiseResult`]; absent when there is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<bool>,
    /// `false`: the event was not looked at, because one before it was refused for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<bool>,
    /// Why it was not raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// What the health checks answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// The cluster as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cluster {
    /// The cluster's own number, hex.
    pub cluster: String,
    /// The node that answers.
    pub node: u64,
    /// Its partitions; 0 before it was founded.
    pub partitions: u32,
    /// Voters per partition, when there are so many nodes.
    pub replication: u32,
    /// Whether every vote and every lead is where it shall be.
    pub settled: bool,
    /// Every node there ever was.
    pub nodes: Vec<ClusterNode>,
    /// The directory's group (0), then the partitions.
    pub groups: Vec<ClusterGroup>,
}

/// The cluster as each of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterViews {
    /// What each node that answered sees, by its number.
    pub items: Vec<Cluster>,
    /// Nodes that did not answer the one that was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_reached: Vec<NotReached>,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterNode {
    /// Its number, never given out again.
    pub id: u64,
    /// `active`, `draining` or `removed`.
    pub state: NodeState,
    /// Where other nodes reach it.
    pub address: String,
    /// Where endpoints reach it.
    pub urls: Vec<String>,
    /// Nodes of one zone may fail together.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The release that it runs.
    pub version: String,
    /// Whether the node that answers has a connection to it.
    pub connected: bool,
    /// Its clock minus that of the node that answers, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_difference_ms: Option<i64>,
    /// Groups that it votes in.
    pub votes: u32,
    /// Groups that it leads.
    pub leads: u32,
    /// Whether it can be stopped for good: it drains or is removed, and no group needs it.
    pub safe_to_stop: bool,
}

/// What shall become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It votes, leads and serves.
    Active,
    /// It serves, but shall neither vote nor lead.
    Draining,
    /// It is no member any more.
    Removed,
    /// It shall neither vote nor lead, and be no member once no group needs it.
    Leaving,
}

/// A group of a cluster: the directory or a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterGroup {
    /// Its number; 0 is the directory.
    pub group: u32,
    /// The node that leads it, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<u64>,
    /// The term of that leader.
    pub term: u64,
    /// The nodes that vote.
    pub voters: Vec<u64>,
    /// The nodes that follow without a vote.
    pub learners: Vec<u64>,
    /// The nodes that shall vote, the one that shall lead first.
    pub wanted: Vec<u64>,
    /// Whether a change of voters is under way.
    pub changing: bool,
    /// Entries applied by the node that answers.
    pub applied: u64,
    /// Entries that each follower lacks; only from the node that leads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub behind: BTreeMap<u64, u64>,
    /// The state's hash where a comparison was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

/// The hash of a replica's state at one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Compared {
    /// The entry.
    pub index: u64,
    /// SHA-256 over all rows, hex.
    pub hash: String,
}

/// The node that answers, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Its number.
    pub id: u64,
    /// The release that it runs.
    pub version: String,
    /// What shall become of it; absent before the directory names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Whether it takes sessions.
    pub ready: bool,
    /// Why not, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// By how much its clock is ahead of that of most nodes, milliseconds.
    pub clock_ahead_ms: i64,
    /// Bytes of state in its memory.
    pub state_bytes: u64,
    /// From so many on raises are refused.
    pub state_bytes_max: u64,
    /// Its disk.
    pub disk: NodeDisk,
}

/// How full the disk of a node is, and with what; bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeDisk {
    /// Left on the disk.
    pub free_bytes: u64,
    /// When no more than this is left, raises are refused.
    pub reserve_bytes: u64,
    /// The log, with files that are written in advance.
    pub log_bytes: u64,
    /// The checkpoint of the state.
    pub checkpoint_bytes: u64,
    /// Snapshots of the state.
    pub snapshot_bytes: u64,
}

/// What a reload of a node's configuration came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// Keys whose new values count now.
    pub applied: Vec<String>,
    /// Keys whose new values count at the next start.
    pub restart: Vec<String>,
    /// How many keys are as they were.
    pub unchanged: u32,
    /// Files that the configuration names and that may change by themselves.
    pub files: Vec<ReloadedFile>,
}

/// A file that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReloadedFile {
    /// The table of keys that names it: `tls`, `cluster.tls`, `jwt`.
    pub file: String,
    /// Whether it had changed.
    pub changed: bool,
    /// Why it cannot be used, in which case what it held before still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}
