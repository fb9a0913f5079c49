//! The counters of the front. Labels are bounded: route names, statuses and codes, never names of
//! sites or accounts. Counters count events; nothing is derived from live objects.

use ackord_wire::Code;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::tls::Tls;

/// The front's metrics.
pub struct Metrics {
    registry: Registry,
    pub connections: IntGauge,
    pub requests: IntCounterVec,
    pub request_seconds: Histogram,
    pub sockets: IntGaugeVec,
    pub sockets_opened: IntCounterVec,
    pub sockets_closed: IntCounterVec,
    /// Open streams of Server-Sent Events, by kind of client.
    pub streams: IntGaugeVec,
    pub streams_opened: IntCounterVec,
    pub streams_closed: IntCounterVec,
    pub received_bytes: IntCounter,
    pub sent_bytes: IntCounter,
    pub received_messages: IntCounter,
    pub sent_messages: IntCounter,
    pub certificate_expiry: IntGaugeVec,
    pub file_reloads: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            register(&registry, IntCounter::with_opts(Opts::new(name, help)))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let seconds =
            HistogramOpts::new("ackord_http_request_seconds", "Time to answer a request.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]);
        Self {
            connections: register(
                &registry,
                IntGauge::new("ackord_connections", "Open connections of the front."),
            ),
            requests: counters(
                "ackord_http_requests_total",
                "Requests answered, upgrades included.",
                &["route", "status"],
            ),
            request_seconds: register(&registry, Histogram::with_opts(seconds)),
            sockets: register(
                &registry,
                IntGaugeVec::new(Opts::new("ackord_websockets", "Open WebSockets."), &["endpoint"]),
            ),
            sockets_opened: counters(
                "ackord_websockets_opened_total",
                "WebSockets opened.",
                &["endpoint", "codec"],
            ),
            sockets_closed: counters(
                "ackord_websockets_closed_total",
                "WebSockets closed, by the code of the close; peer is a close or loss by the peer.",
                &["endpoint", "code"],
            ),
            streams: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("ackord_event_streams", "Open streams of Server-Sent Events."),
                    &["kind"],
                ),
            ),
            streams_opened: counters(
                "ackord_event_streams_opened_total",
                "Streams of Server-Sent Events opened.",
                &["kind"],
            ),
            streams_closed: counters(
                "ackord_event_streams_closed_total",
                "Streams closed, by the code of the close; peer is a close or loss by the peer.",
                &["kind", "code"],
            ),
            received_bytes: counter(
                "ackord_websocket_received_bytes_total",
                "Bytes read from WebSockets.",
            ),
            sent_bytes: counter(
                "ackord_websocket_sent_bytes_total",
                "Bytes written to WebSockets.",
            ),
            received_messages: counter(
                "ackord_websocket_received_messages_total",
                "Frames read from WebSockets.",
            ),
            sent_messages: counter(
                "ackord_websocket_sent_messages_total",
                "Frames written to WebSockets.",
            ),
            certificate_expiry: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "ackord_certificate_expiry_seconds",
                        "The end of the certificate in use, Unix time.",
                    ),
                    &["certificate"],
                ),
            ),
            file_reloads: counters(
                "ackord_file_reloads_total",
                "Files that had changed and were read again.",
                &["file", "result"],
            ),
            registry,
        }
    }

    /// Shows what a TLS counts as well. One registry has one of them, as a front has one
    /// certificate.
    pub fn follow(&self, tls: &Tls) {
        // A second one of the same name is not shown.
        let _ = self.registry.register(Box::new(tls.handshakes.clone()));
    }

    /// Counts an answered request.
    pub fn answered(&self, route: &str, status: u16) {
        self.requests.with_label_values(&[route, status_text(status)]).inc();
    }

    /// Prometheus text of these metrics.
    pub fn text(&self) -> String {
        let mut out = Vec::with_capacity(8192);
        // The text encoder fails only when the writer does, and a Vec takes every write.
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .expect("metrics are encodable");
        String::from_utf8(out).unwrap_or_default()
    }
}

/// What [`Metrics::sockets_closed`] calls an ending.
pub fn close_label(code: Option<Code>) -> &'static str {
    code.map_or("peer", Code::as_str)
}

/// Statuses are few; texts of the common ones are not allocated.
fn status_text(status: u16) -> &'static str {
    match status {
        101 => "101",
        200 => "200",
        201 => "201",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        413 => "413",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        504 => "504",
        507 => "507",
        _ => "other",
    }
}

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    // Names, help and labels are constants of this file, each used once: neither making nor
    // registering one can fail, as the test of this file shows.
    let metric = metric.expect("a metric of constants is valid");
    registry.register(Box::new(metric.clone())).expect("a metric is registered once");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_has_a_text() {
        let metrics = Metrics::new();
        metrics.answered("live", 200);
        assert!(
            metrics.text().contains("ackord_http_requests_total{route=\"live\",status=\"200\"} 1")
        );
    }
}
