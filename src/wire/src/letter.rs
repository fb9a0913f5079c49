//! Dead letters as resources.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::payload::Data;

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LetterState {
    /// Nothing yet.
    Waiting,
    /// It was raised again.
    Replayed,
}

/// A dead letter: an instance that a subscription gave up after its last attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetter {
    /// Its id.
    pub id: u64,
    /// What became of it.
    pub state: LetterState,
    /// The event.
    pub event: String,
    /// The client whose subscription gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The push subscription that gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<String>,
    /// The instance that was given up.
    pub instance_id: u64,
    /// The instance that was raised first: the same, unless that one was raised again itself.
    pub original_id: u64,
    /// Who raised it.
    pub service: String,
    /// When it was raised.
    pub created_ms: u64,
    /// When it was given up.
    pub given_up_ms: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// How the last attempt ended: `returned` or `timeout` of a client; of a callback `connect`, `tls`,
    /// `timeout`, `broken`, `status …` or `not-allowed`.
    pub because: String,
    /// As which instance it was raised again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_id: Option<u64>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_ms: Option<u64>,
    /// What somebody says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When its arguments were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_ms: Option<u64>,
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
}

/// How a dead letter is to change; what is absent stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeadLetterChange {
    /// What somebody says of it, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its arguments, where they are JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Value>"))]
    pub args: Option<Box<RawValue>>,
    /// Its arguments otherwise, base64; not beside `args`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The media type of `data`; absent is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}
