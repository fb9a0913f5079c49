//! What this node's sessions did. Counters are never derived from live objects; labels take only
//! values of closed enums.

use std::sync::Arc;

use ackord_machine::site::{Mode, Trouble};
use ackord_replica::Node;
use ackord_wire::Code;

use super::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, node};
use crate::connection::Transport;

/// Codes of rejections, which are there before the first one.
const REJECTIONS: &[Code] = &[
    Code::UnknownEvent,
    Code::WrongCategory,
    Code::ArgumentsTooLarge,
    Code::NullNotAllowed,
    Code::ClientRequired,
    Code::ClientNotAllowed,
    Code::UnknownClient,
    Code::LifetimeOutOfRange,
];

/// What the broker itself can see of a delivery that is not exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An instance that was acknowledged is about to be delivered again to the same life of the
    /// subscription.
    AcknowledgedAgain,
    /// A cursor was committed below where it was.
    CursorBackwards,
    /// A raise was decided although one before it was not.
    SequenceGap,
}

impl Violation {
    pub const ALL: [Self; 3] = [Self::AcknowledgedAgain, Self::CursorBackwards, Self::SequenceGap];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AcknowledgedAgain => "acknowledged-again",
            Self::CursorBackwards => "cursor-backwards",
            Self::SequenceGap => "sequence-gap",
        }
    }
}

/// Every metric of this crate.
pub(crate) struct Metrics {
    registry: Registry,
    /// Raises of sessions, by what they came to.
    raises: IntCounterVec,
    /// Raises without a session, by what they came to.
    pub keyed_raises: IntCounterVec,
    pub raise_bytes: Histogram,
    pub spans_exported: IntCounter,
    spans_dropped: IntCounterVec,
    pub publish: Histogram,
    pub deliveries: IntCounter,
    pub redeliveries: IntCounter,
    pub delivery: Histogram,
    pub acks: IntCounter,
    pub nacks: IntCounter,
    pub commits: IntCounter,
    violations: IntCounterVec,
    pub sessions: IntGaugeVec,
    pub transports: IntGaugeVec,
    pub stalled: IntGauge,
    pub opened: IntCounterVec,
    refusals: IntCounterVec,
    closes: IntCounterVec,
    pub resumed: IntCounter,
    pub restarted: IntCounter,
    pub proposals_refused: IntCounterVec,
    pub frames_received: IntCounter,
    pub received_bytes: IntCounter,
    pub frames_sent: IntCounter,
    pub sent_bytes: IntCounter,
    pub accepted: IntCounter,
    pub duplicate: IntCounter,
    pub ignored: IntCounter,
    push_delivered: IntCounterVec,
    push_failed: IntCounterVec,
    push_dropped: IntCounterVec,
    push_cancelled: IntCounterVec,
}

impl Metrics {
    pub fn new(node: &Arc<Node>) -> Self {
        let registry = Registry::default();
        node::register(&registry, node);
        let raises = registry.counters("ackord_raises_total");
        let resumes = registry.counters("ackord_resumes_total");
        let metrics = Self {
            accepted: raises.with_label_values(&["accepted"]),
            duplicate: raises.with_label_values(&["duplicate"]),
            ignored: raises.with_label_values(&["ignored"]),
            raises,
            keyed_raises: registry.counters("ackord_keyed_raises_total"),
            spans_exported: registry.counter("ackord_spans_exported_total"),
            spans_dropped: registry.counters("ackord_spans_dropped_total"),
            raise_bytes: registry.histogram("ackord_raise_bytes"),
            publish: registry.histogram("ackord_publish_seconds"),
            deliveries: registry.counter("ackord_deliveries_total"),
            redeliveries: registry.counter("ackord_redeliveries_total"),
            delivery: registry.histogram("ackord_delivery_seconds"),
            acks: registry.counter("ackord_acks_total"),
            nacks: registry.counter("ackord_nacks_total"),
            commits: registry.counter("ackord_commits_total"),
            violations: registry.counters("ackord_exactly_once_violations_total"),
            sessions: registry.gauges("ackord_sessions"),
            transports: registry.gauges("ackord_transport_sessions"),
            stalled: registry.gauge("ackord_sessions_stalled"),
            opened: registry.counters("ackord_sessions_opened_total"),
            refusals: registry.counters("ackord_sessions_refused_total"),
            closes: registry.counters("ackord_session_closes_total"),
            resumed: resumes.with_label_values(&["resumed"]),
            restarted: resumes.with_label_values(&["restarted"]),
            proposals_refused: registry.counters("ackord_proposals_refused_total"),
            frames_received: registry.counter("ackord_frames_received_total"),
            received_bytes: registry.counter("ackord_frame_received_bytes_total"),
            frames_sent: registry.counter("ackord_frames_sent_total"),
            sent_bytes: registry.counter("ackord_frame_sent_bytes_total"),
            push_delivered: registry.counters("ackord_push_delivered_total"),
            push_failed: registry.counters("ackord_push_failed_total"),
            push_dropped: registry.counters("ackord_push_dropped_total"),
            push_cancelled: registry.counters("ackord_push_cancelled_total"),
            registry,
        };
        metrics.begin();
        metrics
    }

    /// What operators watch is there before it first happens.
    fn begin(&self) {
        for code in [Code::Replaced, Code::SlowConsumer, Code::IdleTimeout, Code::ShuttingDown] {
            self.closes.with_label_values(&[code.as_str()]);
        }
        for code in [Code::LimitReached, Code::QuotaExceeded, Code::ShuttingDown] {
            self.refusals.with_label_values(&[code.as_str()]);
        }
        for code in REJECTIONS {
            self.raises.with_label_values(&[code.as_str()]);
        }
        for kind in ["service", "client", "stateless", "poll"] {
            self.sessions.with_label_values(&[kind]);
        }
        for transport in [Transport::WebSocket, Transport::EventStream, Transport::LongPoll] {
            self.transport(transport);
        }
        for violation in Violation::ALL {
            self.violations.with_label_values(&[violation.as_str()]);
        }
        for reason in ["queue-full", "collector"] {
            self.spans_dropped.with_label_values(&[reason]);
        }
        self.proposals_refused.with_label_values(&[Code::Busy.as_str()]);
        for mode in Mode::ALL {
            self.push_delivered.with_label_values(&[mode.as_str()]);
        }
        for trouble in Trouble::KINDS {
            self.push_failed.with_label_values(&[trouble.kind()]);
            self.push_cancelled.with_label_values(&[trouble.kind()]);
        }
    }

    /// The sessions of a transport.
    pub fn transport(&self, transport: Transport) -> IntGauge {
        self.transports.with_label_values(&[match transport {
            Transport::WebSocket => "websocket",
            Transport::EventStream => "event-stream",
            Transport::LongPoll => "long-poll",
        }])
    }

    /// A raise was rejected or refused.
    pub fn raise_failed(&self, code: Code) {
        self.raises.with_label_values(&[code.as_str()]).inc();
    }

    /// An instance is handed out, so long after it was committed.
    pub fn delivered(&self, attempt: u32, age_ms: u64) {
        if attempt == 1 {
            self.deliveries.inc();
            self.delivery.observe(age_ms as f64 / 1000.0);
        } else {
            self.redeliveries.inc();
        }
    }

    /// The broker saw something that must not be: a person must look at it.
    pub fn violated(&self, violation: Violation, detail: &str) {
        self.violations.with_label_values(&[violation.as_str()]).inc();
        tracing::error!(violation = violation.as_str(), detail, "exactly-once was violated");
    }

    /// Spans were not exported.
    pub fn span_dropped(&self, reason: &str, count: u64) {
        self.spans_dropped.with_label_values(&[reason]).inc_by(count);
    }

    /// A session was refused.
    pub fn refused(&self, code: Code) {
        self.refusals.with_label_values(&[code.as_str()]).inc();
    }

    /// The broker closed a session.
    pub fn closed(&self, code: Code) {
        self.closes.with_label_values(&[code.as_str()]).inc();
    }

    /// A session's proposal failed.
    pub fn proposal_failed(&self, code: Code) {
        self.proposals_refused.with_label_values(&[code.as_str()]).inc();
    }

    /// A frame was handed to the front.
    pub fn sent(&self, bytes: usize) {
        self.frames_sent.inc();
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// Receivers of push subscriptions took so many instances.
    pub fn push_delivered(&self, mode: Mode, count: u64) {
        self.push_delivered.with_label_values(&[mode.as_str()]).inc_by(count);
    }

    /// A request of a push subscription failed.
    pub fn push_failed(&self, trouble: Trouble) {
        self.push_failed.with_label_values(&[trouble.kind()]).inc();
    }

    /// Datagrams of a push subscription were not sent.
    pub fn push_dropped(&self, mode: Mode, count: u64) {
        self.push_dropped.with_label_values(&[mode.as_str()]).inc_by(count);
    }

    /// A push subscription ended by itself.
    pub fn push_cancelled(&self, trouble: Trouble) {
        self.push_cancelled.with_label_values(&[trouble.kind()]).inc();
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::find;

    #[test]
    fn the_codes_of_the_protocol_are_within_the_bounds_of_their_labels() {
        for (name, more) in [("ackord_raises_total", 3), ("ackord_session_closes_total", 0)] {
            let row = find(name).unwrap();
            assert!(Code::ALL.len() + more <= row.labels[0].values_max, "{name}");
        }
    }
}
