//! The metrics of the front. Labels are bounded: route names, statuses and codes, never names of
//! sites or accounts. Counters count events; nothing is derived from live objects.

use ackord_agents::metrics::{
    Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use ackord_wire::Code;

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
    handshakes: IntCounterVec,
    pub certificate_expiry: IntGaugeVec,
    pub file_reloads: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::default();
        let metrics = Self {
            connections: registry.gauge("ackord_connections"),
            requests: registry.counters("ackord_http_requests_total"),
            request_seconds: registry.histogram("ackord_http_request_seconds"),
            sockets: registry.gauges("ackord_websockets"),
            sockets_opened: registry.counters("ackord_websockets_opened_total"),
            sockets_closed: registry.counters("ackord_websockets_closed_total"),
            streams: registry.gauges("ackord_event_streams"),
            streams_opened: registry.counters("ackord_event_streams_opened_total"),
            streams_closed: registry.counters("ackord_event_streams_closed_total"),
            received_bytes: registry.counter("ackord_websocket_received_bytes_total"),
            sent_bytes: registry.counter("ackord_websocket_sent_bytes_total"),
            received_messages: registry.counter("ackord_websocket_received_messages_total"),
            sent_messages: registry.counter("ackord_websocket_sent_messages_total"),
            handshakes: registry.counters("ackord_tls_handshakes_total"),
            certificate_expiry: registry.gauges("ackord_certificate_expiry_seconds"),
            file_reloads: registry.counters("ackord_file_reloads_total"),
            registry,
        };
        for result in ["done", "failed", "late", "pushed-out"] {
            metrics.handshakes.with_label_values(&[result]);
        }
        for endpoint in ["service", "client"] {
            metrics.sockets.with_label_values(&[endpoint]);
        }
        // So that the first failure is an increase.
        for file in ["tls", "cluster.tls", "jwt"] {
            for result in ["loaded", "failed"] {
                metrics.file_reloads.with_label_values(&[file, result]);
            }
        }
        metrics
    }

    /// Lets a TLS count here.
    pub fn follow(&self, tls: &Tls) {
        tls.count_in(&self.handshakes);
    }

    /// Counts an answered request.
    pub fn answered(&self, route: &str, status: u16) {
        self.requests.with_label_values(&[route, status_text(status)]).inc();
    }

    /// Prometheus text of these metrics.
    pub fn text(&self) -> String {
        self.registry.text(false)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ackord_agents::metrics::find;

    use super::*;
    use crate::route::ADDRESSES;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let metrics = Metrics::new();
        metrics.answered("live", 200);
        assert!(
            metrics.text().contains("ackord_http_requests_total{route=\"live\",status=\"200\"} 1")
        );
    }

    #[test]
    fn routes_statuses_and_codes_are_within_the_bounds_of_their_labels() {
        let labels = find("ackord_http_requests_total").unwrap().labels;
        // And `none`.
        assert!(ADDRESSES.len() < labels[0].values_max);
        let statuses: BTreeSet<_> = (0..=999).map(status_text).collect();
        assert!(statuses.len() <= labels[1].values_max);
        let closes = find("ackord_websockets_closed_total").unwrap().labels;
        assert!(Code::ALL.len() < closes[1].values_max);
    }
}
