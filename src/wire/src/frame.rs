//! Every frame of the two endpoint protocols.
//!
//! `ServiceFrame`, `ClientFrame`: endpoint to broker. `ServiceMessage`, `ClientMessage`: broker to
//! endpoint. The first frame of an endpoint is `hello`, the first answer `welcome` or `closing`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::code::Code;
use crate::payload::Data;
use crate::structure::{Category, Structure};

/// The version of these frames; the number in the subprotocol's name.
pub const PROTOCOL_VERSION: u32 = 1;

/// From a service to the broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceFrame {
    /// Opens the session. Must be first, and only once.
    Hello(ServiceHello),
    /// Raises one event. Answered by `accepted`, `rejected` or `refused` with the same number.
    Raise(Raise),
    /// The endpoint is going: the broker closes after it has answered what is in flight.
    Goodbye {},
}

/// See [`ServiceFrame::Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceHello {
    /// The site's structure as this service declares it. Absent: the service takes the site's
    /// structure as it is, and is parked only while the site is blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<Structure>,
    /// The uid of the event store, 32 hex digits, random at its creation.
    pub store: String,
    /// The uid of the store that `store` goes on from: its marks move over, itself is retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<String>,
    /// The service's own version, shown to clients. At most 64 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_version: String,
    /// The host's name, shown to clients. At most 255 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// How many raises it wants to have in flight; the broker may grant fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Seconds between pings that it wants; the broker answers with what holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_s: Option<u32>,
}

/// See [`ServiceFrame::Raise`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Raise {
    /// The number of the event in its store: 1, 2, 3 ... without holes.
    pub seq: u64,
    /// The event's name.
    pub event: String,
    /// The category the service believes; another one is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// The media type of `data`; absent is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// JSON subprotocol: the arguments where they are JSON other than `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Box<RawValue>>,
    /// The arguments otherwise: base64 in JSON, a byte string in CBOR. Neither `args` nor `data`
    /// is a null-event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The addressee of a private event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A lifetime shorter than the definition's, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u32>,
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

/// From the broker to a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceMessage {
    /// The session is open.
    Welcome(ServiceWelcome),
    /// The event is stored (or, a null after a null, acknowledged and ignored) for good.
    Accepted(Accepted),
    /// The event is rejected for good; its number is used up.
    Rejected(Rejected),
    /// The event was not decided; its number is free. Whether and what to resend is in the frame.
    Refused(Refused),
    /// The service went online or was parked.
    State(ServiceState),
    /// The broker closes the connection after this frame.
    Closing(Closing),
}

/// See [`ServiceMessage::Welcome`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceWelcome {
    /// The service's id.
    pub service: String,
    /// The session's epoch: a higher one elsewhere replaces this session.
    pub epoch: u64,
    /// The site's incarnation; 0 while the site is blank.
    pub incarnation: u64,
    /// Whether it exchanges events now.
    pub state: ServiceState,
    /// The highest number decided for the store.
    pub last: u64,
    /// The store was retired: discard what it holds, take a new uid and reconnect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
    /// Raises that may be in flight.
    pub window: u32,
    /// Seconds between the broker's pings; two silent intervals close the connection.
    pub keepalive_s: u32,
    /// Largest encoded arguments, bytes.
    pub args_bytes_max: u32,
    /// Other addresses of the cluster, as URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// Whether a service exchanges events, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// False: parked. The connection stays, raises are refused, nothing is lost.
    pub online: bool,
    /// Why it is parked: `site-blank`, `service-type-conflict` or `site-structure-mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Code>,
}

/// See [`ServiceMessage::Accepted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The number of the raise.
    pub seq: u64,
    /// The id of the instance; absent when the outcome is no longer remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<u64>,
    /// A null after a null: acknowledged, nobody is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    /// It had been decided before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// See [`ServiceMessage::Rejected`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The number of the raise.
    pub seq: u64,
    /// Why.
    pub code: Code,
    /// Why, for a person; names the field and the limit.
    pub detail: String,
    /// It had been decided before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// See [`ServiceMessage::Refused`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The number of the raise.
    pub seq: u64,
    /// Why.
    pub code: Code,
    /// Why, for a person.
    pub detail: String,
    /// With `out-of-sequence`: the number to resend from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// Milliseconds to wait before the resend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// From a client to the broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientFrame {
    /// Opens the session. Must be first, and only once.
    Hello(ClientHello),
    /// The whole set of subscriptions: unlisted ones are removed with their cursors.
    Subscriptions(SubscriptionList),
    /// Adds subscriptions; those that exist keep their cursor and take the new options.
    Subscribe(SubscriptionList),
    /// Removes subscriptions with their cursors.
    Unsubscribe {
        /// The events.
        events: Vec<String>,
    },
    /// The instance in flight was handled.
    Ack(Ack),
    /// The instance in flight was not handled: send it again later.
    Nack(Nack),
    /// The instance in flight is being handled: the acknowledgement timeout starts anew.
    Working(Ack),
    /// The endpoint is going.
    Goodbye {},
}

/// See [`ClientFrame::Hello`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Stateful: the hash of the client's set of subscriptions (see [`crate::codec::set_hash`]).
    /// Equal to the broker's: nothing else is sent. Absent: the set stays as the broker has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Seconds between pings that it wants; the broker answers with what holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_s: Option<u32>,
    /// The host's name, for the operator. At most 255 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
}

/// See [`ClientFrame::Subscriptions`] and [`ClientFrame::Subscribe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionList {
    /// The subscriptions.
    pub items: Vec<Subscription>,
}

/// One subscription as a client asks for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// The event's name.
    pub event: String,
    /// The category the client believes; another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// Where a new subscription starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: Start,
    /// Milliseconds until an unacknowledged instance is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout_ms: Option<u32>,
    /// Attempts before an instance is skipped; absent is forever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Stateless clients only: the position to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Position>,
    /// What counts as delivered, and how many instances are under way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Of `twoway`: instances under way; absent is 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Of `batch`: milliseconds from the first event that waits to the frame with all that wait;
    /// absent is 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_ms: Option<u32>,
    /// What is given up after `max_attempts` is kept as a dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead_letter: bool,
}

/// What counts as delivered, and how many instances of a subscription are under way.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One; the next comes after its acknowledgement is committed.
    #[default]
    Ordered,
    /// A window of them, acknowledged in any order.
    Twoway,
    /// A few that the transport has not taken; what it has taken is delivered, without an
    /// acknowledgement.
    Oneway,
    /// As `oneway`, many in one frame.
    Batch,
    /// As `oneway`; what the transport does not take soon is dropped.
    Datagram,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ordered, Self::Twoway, Self::Oneway, Self::Batch, Self::Datagram];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Twoway => "twoway",
            Self::Oneway => "oneway",
            Self::Batch => "batch",
            Self::Datagram => "datagram",
        }
    }

    /// Whether the subscriber answers each delivery.
    pub fn is_acknowledged(self) -> bool {
        matches!(self, Self::Ordered | Self::Twoway)
    }
}

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the earliest retained instance.
    #[default]
    Earliest,
    /// After the newest.
    Latest,
}

/// Where a subscription stands. Ids compare only within an equal (incarnation, generation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Position {
    /// The life of the site that the id belongs to.
    pub incarnation: u64,
    /// How often the subscription had been sought; 0 for stateless clients.
    #[serde(default)]
    pub generation: u32,
    /// The last instance that was handled.
    pub instance_id: u64,
}

/// Names an instance in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ack {
    /// The subscription's number, from `subscribed`.
    pub subscription: u32,
    /// The instance.
    pub instance_id: u64,
    /// The generation it was delivered in; with another one than the subscription is in by now it
    /// names nothing. Absent, the present one is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// See [`ClientFrame::Nack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// The subscription's number.
    pub subscription: u32,
    /// The instance.
    pub instance_id: u64,
    /// Milliseconds until it is sent again.
    #[serde(default)]
    pub retry_after_ms: u64,
    /// See [`Ack::generation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// From the broker to a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientMessage {
    /// The session is open.
    Welcome(ClientWelcome),
    /// What became of a list of subscriptions.
    Subscribed(Subscribed),
    /// One instance. Answer with `ack` or `nack` where the mode is `ordered` or `twoway`.
    Event(Box<EventMessage>),
    /// Several instances of a subscription in the mode `batch`, in order. They are not answered.
    Events(Vec<EventMessage>),
    /// The cursor stands at this instance: it and all before it never come again.
    Committed(Ack),
    /// Whether the client may receive a subscribed event changed. Informational.
    Authority {
        /// The subscription's number.
        subscription: u32,
        /// Whether delivery goes on.
        granted: bool,
    },
    /// A service of the site came or went. Informational.
    Presence(Presence),
    /// The broker closes the connection after this frame.
    Closing(Closing),
}

/// See [`ClientMessage::Welcome`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientWelcome {
    /// The client's id; absent for a stateless client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The session's epoch: a higher one elsewhere replaces this session. 0 when stateless.
    pub epoch: u64,
    /// The site's incarnation.
    pub incarnation: u64,
    /// What to do about the set of subscriptions.
    pub sync: Sync,
    /// Seconds between the broker's pings; two silent intervals close the connection.
    pub keepalive_s: u32,
    /// Other addresses of the cluster, as URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What a client does about its set of subscriptions after `welcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// The sets are equal: `subscribed` follows, the client sends nothing.
    Equal,
    /// They differ: the client sends `subscriptions`. Deliveries start after it.
    Send,
    /// No hash was given: the set stays; `subscribed` with what there is follows.
    Kept,
}

/// See [`ClientMessage::Subscribed`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The subscriptions that hold now, as far as the request was about them.
    pub accepted: Vec<SubscribedItem>,
    /// Those that were refused, each alone. Reported once per session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedItem>,
    /// The events whose subscriptions were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// A subscription that holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscribedItem {
    /// The event's name.
    pub event: String,
    /// The subscription's number in this site, used in `event`, `ack` and the like.
    pub subscription: u32,
    /// Its position now.
    pub position: Position,
    /// Whether the client may receive it at the moment.
    pub granted: bool,
    /// Stateless, when a position was given: whether delivery goes on from it. False means it
    /// belonged to another incarnation or lay above the head: delivery starts at the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// How it is delivered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
}

/// A subscription that was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedItem {
    /// The event's name as asked for.
    pub event: String,
    /// Why.
    pub code: Code,
    /// Why, for a person.
    pub detail: String,
}

/// See [`ClientMessage::Event`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventMessage {
    /// The subscription's number.
    pub subscription: u32,
    /// 1 for the first transmission of this session, then counted up: above 1 is a redelivery.
    pub attempt: u32,
    /// Whole seconds since it was raised; 0 when pushed at once.
    pub age: u64,
    /// The generation of the subscription.
    pub generation: u32,
    /// The event's name.
    pub event: String,
    /// Its category.
    pub category: Category,
    /// Who raised it.
    pub service: String,
    /// The life of the site that the id belongs to.
    pub incarnation: u64,
    /// The id: strictly increasing within the site.
    pub instance_id: u64,
    /// When it was committed, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The media type of `data`; absent is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// JSON subprotocol: the arguments where they are JSON other than `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Box<RawValue>>,
    /// The arguments otherwise: base64 in JSON, a byte string in CBOR. Neither `args` nor `data`
    /// is a null-event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The instance that it was at first, if it was raised again from a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_id: Option<u64>,
    /// The trace that it was raised in, as W3C Trace Context has it.
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

/// See [`ClientMessage::Presence`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The service.
    pub service: String,
    /// Whether it is connected.
    pub online: bool,
    /// Its host's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// The last frame of a connection that the broker closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Why.
    pub code: Code,
    /// Why, for a person.
    pub detail: String,
    /// Whether to connect again.
    pub reconnect: bool,
    /// Milliseconds to wait before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
