//! What clients over plain HTTP read and send: how a stream or a question goes on, acknowledgements,
//! and events as CloudEvents.
//!
//! The data of an event is the map of the `event` frame, with what a client without connection
//! needs besides; it is put together by the front, from the frame as it is.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::frame::{Ack, Position};
use crate::payload::Data;
use crate::problem::Problem;

/// Ack tokens in one request.
pub const ACK_TOKENS_MAX: usize = 100;

/// Where delivery goes on, and what is known of what went unseen. A number that is absent is not
/// known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// The id that was given, when it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// An id was given that cannot be read: delivery starts at the first event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
    /// The id that stands for where delivery goes on.
    pub resumed_from: String,
    /// Events that this client never saw and never will, over all subscriptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// The same for those that a newer one took the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<u64>,
    /// By subscription; left out of the header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<Resumed>,
}

/// Where one subscription goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// The event's name.
    pub event: String,
    /// The subscription's number.
    pub subscription: u32,
    /// Where it was to go on, as far as the id that was given says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Position>,
    /// Where it goes on: the last event that is taken as seen.
    pub resumed_from: Position,
    /// Whether the client may receive it at the moment.
    pub granted: bool,
    /// As in [`Resume::lost`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// As in [`Resume::superseded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<u64>,
}

/// An acknowledgement: one token, or several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AckBody {
    /// The token of one delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Those of several, at most [`ACK_TOKENS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<String>>,
}

/// What an acknowledgement came to: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AckResult {
    /// Where the cursor stands, durably: this instance and all before it never come again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Ack>,
    /// Why it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What several acknowledgements came to, in the order of their tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AckResults {
    /// One for each.
    pub results: Vec<AckResult>,
}

/// What a request to acknowledge is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum AckAnswer {
    /// To several tokens.
    Several(AckResults),
    /// To one token.
    One(AckResult),
}

/// An event as a CloudEvent 1.0 in the structured mode. Numbers that CloudEvents has no room for
/// (its integers have 32 bits) are texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloudEvent {
    /// `1.0`.
    pub specversion: String,
    /// Incarnation and instance id: the same for every delivery of an instance.
    pub id: String,
    /// `/sites/{site}/services/{service}`.
    pub source: String,
    /// The event's name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was committed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The media type of the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// The arguments where they are JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// The arguments otherwise. Neither is a null-event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<Data>,
    /// The trace that it was raised in: the extension for distributed tracing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What vendors add to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// `replacing`, `queueing` or `private`.
    pub ackordcategory: String,
    /// The subscription's number.
    pub ackordsubscription: u32,
    /// The subscription's generation.
    pub ackordgeneration: u32,
    /// The instance id.
    pub ackordinstance: String,
    /// The life of the site.
    pub ackordincarnation: String,
    /// 1 for the first transmission; above, a redelivery.
    pub ackordattempt: u32,
    /// Whole seconds since it was raised.
    pub ackordage: String,
    /// It is a null-event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ackordnull: bool,
    /// The token that acknowledges this delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ackordack: Option<String>,
    /// What a guest goes on from after this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ackordafter: Option<String>,
}
