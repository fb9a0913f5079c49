//! What became of events.

use super::{Label, Metric, Shown, counter, gauge, histogram};

pub const ABOUT: &str = "Raises, acknowledgements and deliveries count at the node that has the session; what is *applied* counts at every node that has a \
                         replica, so sums over nodes count it once per replica. Gauges of what waits count in the partitions that a node leads.";

/// Codes of the protocol, and a few words beside them.
const CODES_MAX: usize = 80;

const OUTCOME: Label = Label {
    name: "outcome",
    values_max: CODES_MAX,
    from: "`accepted`, `duplicate`, `ignored`, or the code of the rejection or refusal (docs/protocol.md, codes)",
};
const GONE: Label = Label {
    name: "reason",
    values_max: 5,
    from: "`superseded`, `evicted`, `expired`, `acknowledged`, `removed`",
};
const VIOLATION: Label = Label {
    name: "kind",
    values_max: 3,
    from: "`acknowledged-again`, `cursor-backwards`, `sequence-gap`",
};
const SITE: Label = Label {
    name: "site",
    values_max: 10,
    from: "the ten sites whose oldest unacknowledged instance is the oldest",
};

/// Milliseconds are what an event's stamp has.
const DELIVERY: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0, 3600.0];
const PUBLISH: &[f64] =
    &[0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0, 5.0, 30.0];
const SIZES: &[f64] = &[0.0, 64.0, 256.0, 1024.0, 2048.0, 8192.0, 32_768.0, 65_536.0];

pub const METRICS: &[Metric] = &[
    counter("ackord_raises_total", "raises", "Raises of sessions, by what they came to.")
        .by(&[OUTCOME]),
    counter(
        "ackord_keyed_raises_total",
        "raises",
        "Raises without a session, by what they came to.",
    )
    .by(&[OUTCOME]),
    histogram("ackord_raise_bytes", SIZES, "bytes", "Encoded arguments of raises."),
    histogram(
        "ackord_publish_seconds",
        PUBLISH,
        "seconds",
        "From a raise until its acknowledgement, of those that were stored.",
    ),
    counter("ackord_events_applied_total", "instances", "Instances stored by applied log entries."),
    counter(
        "ackord_duplicates_suppressed_total",
        "raises",
        "Raises that applied log entries found to have been decided before.",
    ),
    counter(
        "ackord_instances_departed_total",
        "instances",
        "Instances that applied log entries removed, by why.",
    )
    .by(&[GONE]),
    counter("ackord_deliveries_total", "instances", "Instances sent, first time."),
    counter("ackord_redeliveries_total", "instances", "Instances sent again."),
    counter("ackord_acks_total", "acknowledgements", "Acknowledgements received."),
    counter("ackord_nacks_total", "instances", "Instances returned by clients."),
    counter("ackord_commits_total", "cursors", "Cursors confirmed to clients."),
    histogram(
        "ackord_delivery_seconds",
        DELIVERY,
        "seconds",
        "From the commit of an instance until it was handed out the first time, push deliveries included.",
    ),
    counter(
        "ackord_exactly_once_violations_total",
        "violations",
        "What contradicts exactly-once delivery and was seen by the broker itself: it must stay 0.",
    )
    .by(&[VIOLATION]),
    gauge("ackord_sites", "sites", "Sites."),
    gauge("ackord_retained_instances", "instances", "Instances that are retained."),
    gauge("ackord_retained_bytes", "bytes", "Arguments of the instances that are retained."),
    gauge(
        "ackord_subscriptions",
        "subscriptions",
        "Subscriptions of clients and push subscriptions.",
    ),
    gauge(
        "ackord_subscriptions_lagging",
        "subscriptions",
        "Those of them for which something waits.",
    ),
    gauge(
        "ackord_lag_instances",
        "instances",
        "What waits for them, not acknowledged; at most 1000 are counted of each.",
    ),
    gauge(
        "ackord_oldest_unacknowledged_seconds",
        "seconds",
        "The age of the oldest instance that waits for one of them; 0 when nothing waits.",
    ),
    gauge("ackord_site_lag_instances", "instances", "As ackord_lag_instances, of one site.")
        .by(&[SITE])
        .shown(Shown::Administrator),
    gauge(
        "ackord_site_oldest_unacknowledged_seconds",
        "seconds",
        "As ackord_oldest_unacknowledged_seconds, of one site.",
    )
    .by(&[SITE])
    .shown(Shown::Administrator),
];
