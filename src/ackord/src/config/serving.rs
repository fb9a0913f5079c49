//! The keys of the front and of sessions: a part of the table of [`super::table`].

use ackord_gateway::BATCH_ITEMS_CEILING;

use super::key::Key;
use super::key::Slot::{Millis, Path, TextMaybe, Texts, U32, Usize};
use super::table::{HOUR, KIB, MIB, SECOND};

/// What is exported of events, and where to.
pub static OTEL: &[Key] = &[
    Key::new(
        "otel.endpoint",
        TextMaybe(|s| &mut s.sessions.spans.endpoint),
        "The collector that takes spans, OTLP over HTTP with protobuf: its address without `/v1/traces`. Without one nothing is exported. `OTEL_EXPORTER_OTLP_ENDPOINT` is taken too, `ACKORD_OTEL__ENDPOINT` wins over it.",
    )
    .like("\"http://127.0.0.1:4318\""),
    Key::new(
        "otel.sample_per_million",
        U32(|s| &mut s.sessions.spans.sample_per_million),
        "Of a million events that come without a trace context, so many begin a trace. Those that come with one are exported if it says so.",
    )
    .within(0, 1_000_000),
    Key::new(
        "otel.queue_max",
        Usize(|s| &mut s.sessions.spans.queue_max),
        "Spans that wait to be exported; one more is dropped and counted (`ackord_spans_dropped_total`).",
    )
    .within(1, 1_000_000),
    Key::new(
        "otel.timeout_ms",
        Millis(|s| &mut s.sessions.spans.timeout),
        "How long the collector may take for a request; then its spans are dropped and counted.",
    )
    .within(10, 60 * SECOND),
];

/// What the front allows its peers.
pub static FRONT: &[Key] = &[
    Key::new(
        "front.connections_max",
        Usize(|s| &mut s.front.connections_max),
        "Open connections; beyond, a request is answered `busy` and its connection closed.",
    )
    .within(1, 10_000_000),
    Key::new(
        "front.frame_bytes_max",
        Usize(|s| &mut s.front.frame_bytes_max),
        "Largest message of a WebSocket, its fragments added up.",
    )
    .within(KIB, 64 * MIB)
    .live(),
    Key::new(
        "front.fragments_max",
        Usize(|s| &mut s.front.fragments_max),
        "Fragments of such a message, the empty ones too.",
    )
    .within(1, 1_000_000)
    .live(),
    Key::new(
        "front.control_frames_per_s_max",
        U32(|s| &mut s.front.control_frames_per_s_max),
        "Pings and pongs that the peer of a WebSocket may send within a second.",
    )
    .within(1, 1_000_000)
    .live(),
    Key::new(
        "front.body_bytes_max",
        Usize(|s| &mut s.front.body_bytes_max),
        "Largest body of a request.",
    )
    .within(KIB, 256 * MIB)
    .live(),
    Key::new(
        "front.batch_items_max",
        Usize(|s| &mut s.front.batch_items_max),
        "Events of a batch.",
    )
    .within(1, BATCH_ITEMS_CEILING as u64)
    .live(),
    Key::new(
        "front.batch_item_bytes_max",
        Usize(|s| &mut s.front.batch_item_bytes_max),
        "Largest event of a batch as it is written.",
    )
    .within(KIB, 64 * MIB)
    .live(),
    Key::new(
        "front.heartbeat_s",
        U32(|s| &mut s.front.heartbeat_s),
        "Time between the heartbeats of an idle event stream; brought into the bounds for pings.",
    )
    .within(1, 3600)
    .live(),
    Key::new(
        "front.poll_wait_max_ms",
        Millis(|s| &mut s.front.poll_wait_max),
        "How long a request may wait for its next event.",
    )
    .within(1, HOUR)
    .live(),
    Key::new(
        "front.outbox_messages",
        Usize(|s| &mut s.front.outbox_messages),
        "Messages that a session may have queued towards its socket.",
    )
    .within(2, 1024)
    .live(),
    Key::new(
        "front.head_deadline_ms",
        Millis(|s| &mut s.front.head_deadline),
        "Until the head of a connection's first request has arrived.",
    )
    .within(SECOND, HOUR),
    Key::new(
        "front.body_deadline_ms",
        Millis(|s| &mut s.front.body_deadline),
        "Until the body of a request has arrived, from its head on.",
    )
    .within(1, HOUR)
    .live(),
    Key::new(
        "front.frame_deadline_ms",
        Millis(|s| &mut s.front.frame_deadline),
        "Until a message of a WebSocket has arrived, from its first byte on.",
    )
    .within(1, HOUR)
    .live(),
    Key::new(
        "front.read_deadline_ms",
        Millis(|s| &mut s.front.read_deadline),
        "Until a read has been confirmed to reflect everything acknowledged before it.",
    )
    .within(1, HOUR)
    .live(),
    Key::new(
        "front.keep_alive_ms",
        Millis(|s| &mut s.front.keep_alive),
        "Until an idle connection without a session is closed.",
    )
    .within(SECOND, HOUR),
    Key::new(
        "front.write_deadline_ms",
        Millis(|s| &mut s.front.write_deadline),
        "Until what is written to a WebSocket has left for the peer.",
    )
    .within(1, HOUR)
    .live(),
    Key::new(
        "front.close_deadline_ms",
        Millis(|s| &mut s.front.close_deadline),
        "Until the peer of a closing connection has closed its half.",
    )
    .within(SECOND, HOUR),
    Key::new(
        "front.stop_deadline_ms",
        Millis(|s| &mut s.front.stop_deadline),
        "Until connections that are still open at a stop are dropped.",
    )
    .within(1, HOUR),
];

/// What sessions and whoever asks for them are allowed.
pub static SESSIONS: &[Key] = &[
    Key::new(
        "sessions.addresses",
        Texts(|s| &mut s.sessions.addresses),
        "Addresses of the cluster as URLs, told to endpoints beside those of the other nodes.",
    )
    .like("[\"https://ackord.example\"]"),
    Key::new(
        "sessions.sessions_max",
        Usize(|s| &mut s.sessions.sessions_max),
        "Sessions of the node; one more is refused as `limit-reached`.",
    )
    .within(1, 10_000_000),
    Key::new(
        "sessions.polls_max",
        Usize(|s| &mut s.sessions.polls_max),
        "Questions for a next event that may wait at the same time; one more is `busy`.",
    )
    .within(1, 10_000_000),
    Key::new(
        "sessions.principal_tickets_max",
        U32(|s| &mut s.sessions.principal_tickets_max),
        "Tickets of one client that are not used yet; one more is refused as `limit-reached`.",
    )
    .within(1, ackord_machine::site::limits::TICKETS_MAX as u64),
    Key::new(
        "sessions.polling_session_ms",
        Millis(|s| &mut s.sessions.polling_session),
        "How long the session of a client without a connection lasts after its last question.",
    )
    .within(SECOND, 24 * HOUR),
    Key::new(
        "sessions.window_default",
        U32(|s| &mut s.sessions.window_default),
        "Raises in flight of a service that asks for no number.",
    )
    .within(1, ackord_wire::limits::WINDOW_MAX as u64),
    Key::new(
        "sessions.window_max",
        U32(|s| &mut s.sessions.window_max),
        "Raises in flight of a service at most.",
    )
    .within(1, ackord_wire::limits::WINDOW_MAX as u64),
    Key::new(
        "sessions.keepalive_s_default",
        U32(|s| &mut s.sessions.keepalive_s_default),
        "Time between pings of an endpoint that asks for none.",
    )
    .within(1, 3600),
    Key::new(
        "sessions.keepalive_s_min",
        U32(|s| &mut s.sessions.keepalive_s_min),
        "Least time between pings.",
    )
    .within(1, 3600),
    Key::new(
        "sessions.keepalive_s_max",
        U32(|s| &mut s.sessions.keepalive_s_max),
        "Longest time between pings.",
    )
    .within(1, 3600),
    Key::new(
        "sessions.ack_timeout_ms_default",
        U32(|s| &mut s.sessions.ack_timeout_ms_default),
        "Until an unacknowledged instance is sent again, where a subscription says nothing.",
    )
    .within(1, ackord_wire::limits::ACK_TIMEOUT_MS_MAX as u64),
    Key::new(
        "sessions.hello_timeout_ms",
        Millis(|s| &mut s.sessions.hello_timeout),
        "A connection that has not said hello by then is closed.",
    )
    .within(100, HOUR),
    Key::new(
        "sessions.write_deadline_ms",
        Millis(|s| &mut s.sessions.write_deadline),
        "A peer that leaves its outbox full for so long is closed as `slow-consumer`.",
    )
    .within(100, HOUR),
    Key::new(
        "sessions.confirmation_delay_ms",
        Millis(|s| &mut s.sessions.confirmation_delay),
        "While events come to a client in a steady stream: how long the confirmation of a cursor may wait for the next event, to go with it; 0 is at once.",
    )
    .within(0, 10 * SECOND),
    Key::new(
        "sessions.admin_deadline_ms",
        Millis(|s| &mut s.sessions.admin_deadline),
        "How long an administrative request is tried under one request id.",
    )
    .within(100, HOUR),
    Key::new(
        "sessions.confirm_deadline_ms",
        Millis(|s| &mut s.sessions.confirm_deadline),
        "How long it may take to make sure, against a majority, that a token is not known.",
    )
    .within(100, HOUR),
    Key::new(
        "sessions.ask_deadline_ms",
        Millis(|s| &mut s.sessions.ask_deadline),
        "How long the nodes of a cluster are asked for what only they know.",
    )
    .within(10, HOUR),
    Key::new(
        "sessions.trace_entries",
        Usize(|s| &mut s.sessions.trace_entries),
        "Transmissions that the node remembers for whoever asks what was sent, 80 bytes each; 0 for none.",
    )
    .within(0, 100_000_000),
    Key::new(
        "sessions.shutdown_deadline_ms",
        Millis(|s| &mut s.sessions.shutdown_deadline),
        "How long a stop waits for sessions to end.",
    )
    .within(100, HOUR),
];

pub static PUSH: &[Key] = &[
    Key::new(
        "push.hosts",
        Texts(|s| &mut s.sessions.push.hosts),
        "Where deliveries may go: host names, `.suffixes`, addresses, networks, `*` for every name. A name allows public addresses only; nothing is allowed where the list is empty.",
    )
    .like("[\"hooks.example.com\", \".internal.example\", \"10.1.0.0/16\"]"),
    Key::new(
        "push.subscriptions_max",
        Usize(|s| &mut s.sessions.push.subscriptions_max),
        "Push subscriptions of all sites; one more is `limit-reached`.",
    )
    .within(0, 1_000_000),
    Key::new(
        "push.requests_max",
        Usize(|s| &mut s.sessions.push.requests_max),
        "Requests to callbacks that may be under way at this node; more wait.",
    )
    .within(1, 65_536),
    Key::new(
        "push.site_requests_max",
        Usize(|s| &mut s.sessions.push.site_requests_max),
        "Requests of one site that may be under way at this node; more wait.",
    )
    .within(1, 65_536),
    Key::new(
        "push.host_requests_max",
        Usize(|s| &mut s.sessions.push.host_requests_max),
        "Requests of one site to one host that may be under way at this node; more wait.",
    )
    .within(1, 65_536),
    Key::new(
        "push.ca_file",
        Path(|s| &mut s.sessions.push.ca_file),
        "Certificate authorities, PEM, whose callbacks are believed besides those of the usual ones.",
    )
    .like("\"/etc/ackord/callbacks.pem\""),
    Key::new(
        "push.packet_bytes_max",
        U32(|s| &mut s.sessions.push.packet_bytes_max),
        "Largest datagram where a push subscription says nothing.",
    )
    .within(512, 65_507),
    Key::new(
        "push.drain_ms",
        Millis(|s| &mut s.sessions.push.drain),
        "How long requests that are under way may go on when the node stops.",
    )
    .within(0, HOUR),
];
