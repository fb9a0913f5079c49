//! The front: connections, HTTP, WebSockets, streams, TLS.

use super::{Label, Metric, counter, gauge, histogram};

const ROUTE: Label = Label {
    name: "route",
    values_max: 100,
    from: "the name of the address in the table of addresses, or `none`",
};
const STATUS: Label =
    Label { name: "status", values_max: 20, from: "the common statuses, or `other`" };
const ENDPOINT: Label = Label { name: "endpoint", values_max: 2, from: "`service`, `client`" };
const CODEC: Label = Label { name: "codec", values_max: 2, from: "`json`, `cbor`" };
const CLOSE: Label = Label {
    name: "code",
    values_max: 80,
    from: "the code of the close (docs/protocol.md, codes), or `peer`",
};
const KIND: Label = Label { name: "kind", values_max: 2, from: "`client`, `stateless`" };
const CERTIFICATE: Label = Label { name: "certificate", values_max: 2, from: "`front`, `peers`" };
const FILE: Label = Label {
    name: "file",
    values_max: 3,
    from: "what the files are for: `tls`, `cluster.tls`, `jwt`",
};
const RELOAD: Label = Label { name: "result", values_max: 2, from: "`loaded`, `failed`" };
const HANDSHAKE: Label =
    Label { name: "result", values_max: 4, from: "`done`, `failed`, `late`, `pushed-out`" };

const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

pub const METRICS: &[Metric] = &[
    gauge("ackord_connections", "connections", "Open connections of the front."),
    counter("ackord_http_requests_total", "requests", "Requests answered, upgrades included.")
        .by(&[ROUTE, STATUS]),
    histogram("ackord_http_request_seconds", SECONDS, "seconds", "Time to answer a request."),
    gauge("ackord_websockets", "sockets", "Open WebSockets.").by(&[ENDPOINT]),
    counter("ackord_websockets_opened_total", "sockets", "WebSockets opened.")
        .by(&[ENDPOINT, CODEC]),
    counter(
        "ackord_websockets_closed_total",
        "sockets",
        "WebSockets closed, by the code of the close; peer is a close or loss by the peer.",
    )
    .by(&[ENDPOINT, CLOSE]),
    counter("ackord_websocket_received_bytes_total", "bytes", "Bytes read from WebSockets."),
    counter("ackord_websocket_sent_bytes_total", "bytes", "Bytes written to WebSockets."),
    counter("ackord_websocket_received_messages_total", "frames", "Frames read from WebSockets."),
    counter("ackord_websocket_sent_messages_total", "frames", "Frames written to WebSockets."),
    gauge("ackord_event_streams", "streams", "Open streams of Server-Sent Events.").by(&[KIND]),
    counter(
        "ackord_event_streams_opened_total",
        "streams",
        "Streams of Server-Sent Events opened.",
    )
    .by(&[KIND]),
    counter(
        "ackord_event_streams_closed_total",
        "streams",
        "Streams closed, by the code of the close; peer is a close or loss by the peer.",
    )
    .by(&[KIND, CLOSE]),
    counter("ackord_tls_handshakes_total", "handshakes", "TLS handshakes of the front.")
        .by(&[HANDSHAKE]),
    gauge(
        "ackord_certificate_expiry_seconds",
        "seconds of Unix time",
        "The end of the certificate in use, Unix time.",
    )
    .by(&[CERTIFICATE]),
    counter("ackord_file_reloads_total", "files", "Files that had changed and were read again.")
        .by(&[FILE, RELOAD]),
];
