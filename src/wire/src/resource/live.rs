//! What only the nodes know that hold the sessions: who is connected where, and what is in flight.

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::frame::Mode;

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SessionKind {
    /// A registered client's.
    Client,
    /// A service's.
    Service,
    /// A guest's without account.
    Stateless,
}

/// How a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// A WebSocket.
    Websocket,
    /// Server-sent events over HTTP.
    EventStream,
    /// One request after the other over HTTP.
    LongPoll,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// Not yet welcomed, or the client's set is awaited.
    Opening,
    /// It exchanges events.
    Open,
    /// A service whose structure does not fit: it exchanges no events.
    Parked,
    /// Over, its last words are on their way.
    Closing,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Session {
    /// Whose it is.
    pub kind: SessionKind,
    /// The client or service; absent when stateless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The node that has it.
    pub node: u64,
    /// Its number on that node, drawn at random.
    pub session: u64,
    /// When it began, by that node's clock.
    pub since_ms: u64,
    /// How it is connected.
    pub transport: Transport,
    /// The encoding of its frames: `json` or `cbor`.
    pub codec: Encoding,
    /// The peer's address.
    pub peer: String,
    /// How far it is.
    pub state: SessionState,
    /// Its epoch; 0 before it is attached, and of a stateless client.
    pub epoch: u64,
    /// Whether its peer does not read what is sent.
    pub stalled: bool,
    /// Its subscriptions.
    pub subscriptions: u32,
    /// Of a client, subscriptions with an instance in flight; of a service, raises not yet answered.
    pub in_flight: u32,
}

/// The encoding of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// JSON.
    Json,
    /// CBOR.
    Cbor,
}

impl From<Codec> for Encoding {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Json => Self::Json,
            Codec::Cbor => Self::Cbor,
        }
    }
}

/// Open sessions of all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionPage {
    /// The sessions, by kind, id, node and number.
    pub items: Vec<Session>,
    /// The `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Nodes whose sessions are missing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_reached: Vec<NotReached>,
}

/// A node that did not say what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotReached {
    /// The node.
    pub node: u64,
    /// Why.
    pub why: Why,
}

/// Why a node did not say what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// There is no connection to it.
    Unreachable,
    /// It, or a part of it, did not answer in time.
    Late,
    /// Its release does not know the question.
    Unsupported,
    /// It was asked too much at once, or failed to answer.
    Busy,
}

/// What of a subscription was sent and is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InFlight {
    /// The instance.
    pub instance_id: u64,
    /// How often it was sent in this session.
    pub attempt: u32,
    /// When it was sent first, by the node's clock.
    pub since_ms: u64,
    /// The node that sent it.
    pub node: u64,
}

/// The session that a subscription is served by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SubscriptionSession {
    /// The node that has it.
    pub node: u64,
    /// Its number on that node, drawn at random.
    pub session: u64,
    /// How the client is connected.
    pub transport: Transport,
    /// When it began, by that node's clock.
    pub since_ms: u64,
    /// What it does for the subscription; absent while it does not serve it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LaneState>,
    /// How it delivers: for a transport that only delivers in order that may be another mode than
    /// the subscription's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Instances that were sent and are not acknowledged, or not taken by the transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// Retained instances that are behind those; counted up to a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// Instances that were delivered in this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<u64>,
    /// Returns by the client, and instances that were given up after their last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// Datagrams that were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// What a session does for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LaneState {
    /// Nothing to deliver.
    Idle,
    /// The client may not receive the event now.
    Unauthorized,
    /// Sent, not acknowledged.
    InFlight,
    /// Returned by the client, to be sent again.
    BackingOff,
    /// Acknowledged, its cursor not yet committed.
    Committing,
}
