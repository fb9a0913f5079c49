//! Push subscriptions as resources.

use serde::{Deserialize, Serialize};

use crate::frame::{Position, Start};

/// How a push subscription delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PushMode {
    /// One at a time, each after the one before was acknowledged.
    Ordered,
    /// A window, acknowledged in any order.
    Twoway,
    /// Delivered once the transport has it.
    Oneway,
    /// Many in one request.
    Batch,
    /// Handed to a socket.
    Datagram,
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PushFormat {
    /// The `event` frame.
    #[default]
    Ackord,
    /// A CloudEvents envelope.
    CloudEvents,
}

/// What happens when more waits than may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PushOverflow {
    /// The subscription is cancelled.
    #[default]
    Remove,
    /// The oldest are passed over.
    DropOldest,
}

/// A receiver of datagrams, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UdpTarget {
    /// `host:port`.
    pub address: String,
    /// Hops of a group's packets; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// The address of the interface that a group's packets leave by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Largest packet, bytes; the node's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_bytes_max: Option<u32>,
}

/// What a push subscription is to be. It has a `url` or a `udp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PushBody {
    /// The client on whose authority it receives; may be left out by the client itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The event; it stays.
    pub event: String,
    /// The callback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpTarget>,
    /// `ordered` for a callback and `datagram` for a socket when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PushMode>,
    /// Of `twoway`: instances under way; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Of `batch`: milliseconds from the first event to the request; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_ms: Option<u32>,
    /// What is given up after `max_attempts` is kept as a dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead_letter: bool,
    /// Where a new one starts.
    #[serde(default)]
    pub start: Start,
    /// Milliseconds until a request has failed; 60 000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_timeout_ms: Option<u32>,
    /// Consecutive failures that are tolerated; -1 is any number.
    #[serde(default)]
    pub retry_count: i32,
    /// Milliseconds offline after a tolerated failure; 60 000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard_interval_ms: Option<u32>,
    /// Whether events wait while it is offline; true when absent.
    #[serde(default = "yes")]
    pub durable: bool,
    /// The most instances that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u32>,
    /// What happens when more do.
    #[serde(default)]
    pub on_overflow: PushOverflow,
    /// Attempts before an instance is passed over; absent is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How events are written.
    #[serde(default)]
    pub format: PushFormat,
    /// What bodies are signed with, 16..=256 bytes. It is never shown; absent keeps the one that is
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether its deliveries are held back.
    #[serde(default)]
    pub paused: bool,
}

impl PushBody {
    /// Of an event, with everything else as when nothing is said; a `url` or a `udp` is still needed.
    pub fn new(event: impl Into<String>) -> Self {
        Self {
            client: None,
            event: event.into(),
            url: None,
            udp: None,
            mode: None,
            window: None,
            flush_ms: None,
            dead_letter: false,
            start: Start::default(),
            send_timeout_ms: None,
            retry_count: 0,
            discard_interval_ms: None,
            durable: true,
            queue_max: None,
            on_overflow: PushOverflow::default(),
            max_attempts: None,
            format: PushFormat::default(),
            secret: None,
            paused: false,
        }
    }
}

/// What a push subscription is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PushState {
    /// It delivers.
    Active,
    /// A failure was tolerated: nothing is sent for a while.
    Offline,
    /// One delivery is tried.
    Probing,
    /// It delivers no more.
    Cancelled,
    /// It is held back.
    Paused,
}

fn yes() -> bool {
    true
}

/// A push subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Push {
    /// Its id.
    pub id: String,
    /// The client on whose authority it receives.
    pub client: String,
    /// The event.
    pub event: String,
    /// The callback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpTarget>,
    /// How it delivers.
    pub mode: PushMode,
    /// As registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// As registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_ms: Option<u32>,
    /// What is given up after `max_attempts` is kept as a dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead_letter: bool,
    /// Its dead letters that wait.
    #[serde(default)]
    pub dead_letters: u64,
    /// Until a request has failed.
    pub send_timeout_ms: u32,
    /// Consecutive failures that are tolerated; -1 is any number.
    pub retry_count: i32,
    /// Milliseconds offline after a tolerated failure.
    pub discard_interval_ms: u32,
    /// Whether events wait while it is offline.
    pub durable: bool,
    /// As registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u32>,
    /// As registered.
    pub on_overflow: PushOverflow,
    /// As registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// As registered.
    pub format: PushFormat,
    /// Whether bodies are signed.
    pub signed: bool,
    /// `active`, `offline`, `probing`, `cancelled` or `paused`.
    pub state: PushState,
    /// The failure that made it offline or cancelled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Until when it is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Since when it is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_ms: Option<u64>,
    /// Consecutive failures.
    pub failures: u32,
    /// Its cursor.
    pub position: Position,
    /// Whether its client may receive the event at the moment.
    pub granted: bool,
    /// Instances under way; only where the node that answers serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// Retained instances above the cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// The same where there are more than are counted: so many at least. One of the two is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at_least: Option<u64>,
    /// Instances delivered.
    pub delivered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Instances passed over.
    pub dropped: u64,
}
