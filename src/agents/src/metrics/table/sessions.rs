//! Sessions, and push subscriptions.

use super::{Label, Metric, counter, gauge};

const KIND: Label =
    Label { name: "kind", values_max: 4, from: "`service`, `client`, `stateless`, `poll`" };
const TRANSPORT: Label =
    Label { name: "transport", values_max: 3, from: "`websocket`, `event-stream`, `long-poll`" };
const CODE: Label = Label {
    name: "reason",
    values_max: 80,
    from: "the code of the protocol (docs/protocol.md, codes)",
};
const RESUME: Label = Label {
    name: "outcome",
    values_max: 2,
    from: "`resumed` where the client wanted to go on, `restarted` where that was not possible",
};
const MODE: Label = Label {
    name: "mode",
    values_max: 5,
    from: "`ordered`, `twoway`, `oneway`, `batch`, `datagram`",
};
const FAILURE: Label = Label {
    name: "kind",
    values_max: 7,
    from: "`connect`, `tls`, `timeout`, `broken`, `status`, `not-allowed`, `overflow`",
};
const PUSH_STATE: Label = Label {
    name: "state",
    values_max: 5,
    from: "`active`, `offline`, `probing`, `cancelled`, `paused`",
};

const UNEXPORTED: Label = Label {
    name: "reason",
    values_max: 2,
    from: "`queue-full` (`otel.queue_max` spans waited), `collector` (it was away, too slow or refused)",
};

pub const METRICS: &[Metric] = &[
    gauge("ackord_sessions", "sessions", "Sessions that are open.").by(&[KIND]),
    gauge("ackord_transport_sessions", "sessions", "Sessions that are open, by transport.")
        .by(&[TRANSPORT]),
    gauge(
        "ackord_sessions_stalled",
        "sessions",
        "Sessions whose peer does not read: they wait for room.",
    ),
    counter("ackord_sessions_opened_total", "sessions", "Sessions opened.").by(&[KIND]),
    counter("ackord_sessions_refused_total", "sessions", "Sessions refused, by reason.")
        .by(&[CODE]),
    counter(
        "ackord_session_closes_total",
        "sessions",
        "Sessions that the broker closed, by reason.",
    )
    .by(&[CODE]),
    counter(
        "ackord_resumes_total",
        "subscriptions",
        "Subscriptions that a client wanted to go on with at a position, by what came of it.",
    )
    .by(&[RESUME]),
    counter(
        "ackord_proposals_refused_total",
        "proposals",
        "Proposals of sessions that failed, by reason.",
    )
    .by(&[CODE]),
    counter(
        "ackord_spans_exported_total",
        "spans",
        "Spans that the collector of `otel.endpoint` took.",
    ),
    counter(
        "ackord_spans_dropped_total",
        "spans",
        "Spans that were not exported: no event waited for them.",
    )
    .by(&[UNEXPORTED]),
    counter("ackord_frames_received_total", "frames", "Frames received."),
    counter("ackord_frame_received_bytes_total", "bytes", "Bytes of frames received."),
    counter("ackord_frames_sent_total", "frames", "Frames sent."),
    counter("ackord_frame_sent_bytes_total", "bytes", "Bytes of frames sent."),
];

pub const PUSHES: &[Metric] = &[
    gauge(
        "ackord_push_subscriptions",
        "subscriptions",
        "Push subscriptions that this node serves, by state.",
    )
    .by(&[PUSH_STATE]),
    counter(
        "ackord_push_delivered_total",
        "instances",
        "Instances that receivers of push subscriptions took, by mode.",
    )
    .by(&[MODE]),
    counter(
        "ackord_push_failed_total",
        "requests",
        "Requests of push subscriptions that failed, by kind.",
    )
    .by(&[FAILURE]),
    counter(
        "ackord_push_dropped_total",
        "instances",
        "Datagrams of push subscriptions that were not sent, by mode.",
    )
    .by(&[MODE]),
    counter(
        "ackord_push_cancelled_total",
        "subscriptions",
        "Push subscriptions that ended by themselves, by kind of failure.",
    )
    .by(&[FAILURE]),
    gauge("ackord_dead_letters", "dead letters", "Dead letters of the sites that this node leads."),
];
