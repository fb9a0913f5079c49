//! What a deployment may set about sessions; every bound of this crate that is not fixed.

use std::time::Duration;

use ackord_wire::limits;

use crate::push::PushOptions;
use crate::spans::SpanOptions;

/// How a [`crate::Broker`] serves sessions.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Addresses of the cluster as URLs, told to endpoints in `welcome`.
    pub addresses: Vec<String>,
    /// Sessions of this node; more are refused `limit-reached`.
    pub sessions_max: usize,
    /// Questions for a next event that wait at a time; more are refused `busy`.
    pub polls_max: usize,
    /// Tickets of one client that are not used yet; more are refused `limit-reached`.
    pub principal_tickets_max: u32,
    /// How long the session of a client without connection lasts after its last question.
    pub polling_session: Duration,
    /// Raises in flight per service session when it asks for no number.
    pub window_default: u32,
    /// Raises in flight per service session at most.
    pub window_max: u32,
    /// Seconds between pings when the endpoint asks for none.
    pub keepalive_s_default: u32,
    /// Seconds between pings at least.
    pub keepalive_s_min: u32,
    /// Seconds between pings at most.
    pub keepalive_s_max: u32,
    /// Milliseconds until an unacknowledged instance is sent again, when a subscription says none.
    pub ack_timeout_ms_default: u32,
    /// A connection that has not said hello by then is closed.
    pub hello_timeout: Duration,
    /// A peer that leaves its outbox full for so long is closed as a slow consumer.
    pub write_deadline: Duration,
    /// While events come to a client in a steady stream, how long the confirmation of a cursor may
    /// wait for the next event, to go with it; at once when zero.
    pub confirmation_delay: Duration,
    /// How long an administrative request is tried under one request id.
    pub admin_deadline: Duration,
    /// How long it may take to make sure, against a majority, that a token is not known.
    pub confirm_deadline: Duration,
    /// How long the nodes of a cluster are asked for what only they know.
    pub ask_deadline: Duration,
    /// Transmissions that the node remembers, for whoever asks what was sent; 0 for none. Each takes
    /// 80 bytes.
    pub trace_entries: usize,
    /// How long [`crate::Broker::shutdown`] waits for sessions to end.
    pub shutdown_deadline: Duration,
    /// How push subscriptions are served.
    pub push: PushOptions,
    /// Which spans go where.
    pub spans: SpanOptions,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            sessions_max: 100_000,
            polls_max: 10_000,
            principal_tickets_max: 100,
            polling_session: Duration::from_secs(300),
            window_default: limits::WINDOW_DEFAULT,
            window_max: limits::WINDOW_MAX,
            keepalive_s_default: limits::KEEPALIVE_S_DEFAULT,
            keepalive_s_min: limits::KEEPALIVE_S_MIN,
            keepalive_s_max: limits::KEEPALIVE_S_MAX,
            ack_timeout_ms_default: limits::ACK_TIMEOUT_MS_DEFAULT,
            hello_timeout: Duration::from_secs(10),
            write_deadline: Duration::from_secs(10),
            confirmation_delay: Duration::from_millis(100),
            admin_deadline: Duration::from_secs(10),
            confirm_deadline: Duration::from_secs(3),
            ask_deadline: Duration::from_secs(1),
            trace_entries: 65_536,
            shutdown_deadline: Duration::from_secs(10),
            push: PushOptions::default(),
            spans: SpanOptions::default(),
        }
    }
}
