//! Single objects of one site, page by page.

use super::{Label, Metric, Shown, gauge};

pub const ABOUT: &str = "`GET /metrics/detailed?site=NAME` shows these to whoever may read the site, page by page (docs/protocol.md). They are not part of \
                         `/metrics`: a site may have any number of objects.";

const PAGE_MAX: usize = 1000;
const FROM: &str = "the objects of the page";

const SITE: Label = Label { name: "site", values_max: 1, from: "the site that is asked for" };
const EVENT: Label = Label { name: "event", values_max: PAGE_MAX, from: FROM };
const CLIENT: Label = Label { name: "client", values_max: PAGE_MAX, from: FROM };
const PUSH: Label = Label { name: "push", values_max: PAGE_MAX, from: FROM };
const STATE: Label = Label {
    name: "state",
    values_max: 5,
    from: "`active`, `offline`, `probing`, `cancelled`, `paused`",
};

const fn queue(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    gauge(name, unit, help).by(&[SITE, EVENT]).shown(Shown::Detailed)
}

const fn subscription(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    gauge(name, unit, help).by(&[SITE, CLIENT, EVENT]).shown(Shown::Detailed)
}

const fn push(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    gauge(name, unit, help).by(&[SITE, PUSH]).shown(Shown::Detailed)
}

pub const METRICS: &[Metric] = &[
    queue(
        "ackord_queue_retained_instances",
        "instances",
        "Instances that are retained of an event.",
    ),
    queue(
        "ackord_queue_oldest_age_seconds",
        "seconds",
        "The age of the oldest of them; absent when there is none.",
    ),
    subscription(
        "ackord_subscription_lag_instances",
        "instances",
        "What waits for a subscription, not acknowledged; at most 1000 are counted.",
    ),
    subscription(
        "ackord_subscription_oldest_unacknowledged_seconds",
        "seconds",
        "The age of the oldest instance that waits; absent when nothing does.",
    ),
    subscription(
        "ackord_subscription_in_flight_instances",
        "instances",
        "Sent and not acknowledged, of a client that is connected to this node; absent for others.",
    ),
    subscription(
        "ackord_subscription_position",
        "instance id",
        "The last instance that is acknowledged with all before it.",
    ),
    push(
        "ackord_push_subscription_lag_instances",
        "instances",
        "What waits for a push subscription, not acknowledged; at most 1000 are counted.",
    ),
    push(
        "ackord_push_subscription_oldest_unacknowledged_seconds",
        "seconds",
        "The age of the oldest instance that waits; absent when nothing does.",
    ),
    push(
        "ackord_push_subscription_in_flight_instances",
        "instances",
        "Under way, of a push subscription that this node serves; absent for others.",
    ),
    push(
        "ackord_push_subscription_position",
        "instance id",
        "The last instance that is acknowledged with all before it.",
    ),
    gauge("ackord_push_subscription_state", "0 or 1", "1 for the state it is in.")
        .by(&[SITE, PUSH, STATE])
        .shown(Shown::Detailed),
];
