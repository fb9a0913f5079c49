//! What a run comes to: one JSON object, lines for a person, or a page with charts.

use serde::Serialize;

use crate::options::{Options, Workload};

/// A distribution of times, microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// How many were recorded.
    pub count: u64,
    /// The median.
    #[serde(rename = "p50")]
    pub p50_us: u64,
    /// 90 of 100 took no longer.
    #[serde(rename = "p90")]
    pub p90_us: u64,
    /// 99 of 100 took no longer.
    #[serde(rename = "p99")]
    pub p99_us: u64,
    /// 999 of 1000 took no longer.
    #[serde(rename = "p999")]
    pub p999_us: u64,
    /// The longest.
    #[serde(rename = "max")]
    pub max_us: u64,
}

/// What the logs did meanwhile, from the nodes' counters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Log {
    /// `fdatasync` calls of all nodes together.
    pub syncs: u64,
    /// Events (or cursors) per sync of one log.
    pub events_per_sync: f64,
    /// Bytes written by all nodes together.
    pub bytes: u64,
}

/// What the broker's processes used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    /// Processor seconds.
    pub cpu_s: f64,
    /// Resident memory at the end, bytes.
    pub rss_bytes: u64,
}

/// A distribution of few values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median; of an even number of values the mean of the two in the middle.
    pub p50: f64,
    /// 99 of 100 are no larger; of fewer than 100 this is the largest.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// All of them, ascending.
    pub each: Vec<f64>,
}

impl Spread {
    /// Of these values, if there are any.
    pub(crate) fn of(mut each: Vec<f64>) -> Option<Self> {
        each.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * each.len() as f64).ceil() as usize;
            each.get(rank.saturating_sub(1)).copied()
        };
        let p50 = median(&each)?;
        Some(Self { p50, p99: at(0.99)?, max: at(1.0)?, each })
    }
}

/// Of values in ascending order.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let below = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let above = sorted.get(sorted.len() / 2)?;
    Some(f64::midpoint(*below, *above))
}

/// What failing leaders did to publishers, milliseconds, one value per round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failover {
    /// The median of `gaps_ms`.
    pub gap_ms: Option<f64>,
    /// The longest time in which no publisher of the site was acknowledged.
    pub gaps_ms: Option<Spread>,
    /// The longest that one publisher waited for one event.
    pub wait_ms: Option<Spread>,
    /// The longest time in which no publisher of a site that another node leads was acknowledged.
    pub elsewhere_gap_ms: Option<Spread>,
}

/// What idle clients cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// Resident memory of all nodes that each client beyond the first fifth added, KiB. The kernel's
    /// buffers of its socket are no resident memory.
    pub kib_per_subscriber: Option<f64>,
    /// Processor time that all nodes together take while nothing happens, cores.
    pub idle_cores: Option<f64>,
    /// Seconds from the raise of one event until every client's cursor was confirmed.
    pub all_confirmed_s: f64,
    /// Resident memory of all nodes with all clients, bytes.
    pub rss_bytes: Option<u64>,
}

/// What one publisher's events came to at many subscribers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fanout {
    /// Deliveries per second of the measured time, over all subscribers.
    pub deliveries_per_s: f64,
    /// Processor microseconds of all nodes per delivery.
    pub server_cpu_us_per_delivery: Option<f64>,
    /// Processor microseconds of the subscribers and the publisher per delivery.
    pub client_cpu_us_per_delivery: Option<f64>,
    /// Cursors that were confirmed.
    pub confirmed: u64,
    /// How long after the last event was due the last cursor was confirmed, milliseconds.
    pub behind_ms: f64,
}

/// What came of a rate that one site would exceed, and of another site beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quota {
    /// The quota's name.
    pub quota: &'static str,
    /// What it allows per second: events or bytes.
    pub allowed_per_s: u64,
    /// What was acknowledged per second.
    pub admitted_per_s: f64,
    /// The second over the first.
    pub ratio: f64,
    /// What the other site got acknowledged over what it raised, which was half of its rate.
    pub beside_ratio: f64,
    /// Its raises to their acknowledgements, the median.
    pub beside_p50_us: u64,
    /// 99 of 100 took no longer.
    pub beside_p99_us: u64,
}

/// Publishers beside a company of subscribers, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Beside {
    /// `five-healthy`, `fifteen-healthy`, `mixed`: five healthy, five that abort their connections, five
    /// that stall, or `restless`: as mixed, with five that take much between one break and the next
    /// instead of those that abort.
    pub subscribers: &'static str,
    /// What the publishers raised per second together; none where they raised all they could.
    pub paced_per_s: Option<f64>,
    /// Events per second that were acknowledged.
    pub events_per_s: f64,
    /// Raise to acknowledgement; of what was paced, from when it was due.
    #[serde(rename = "latency_us")]
    pub latency: Latency,
    /// Resident memory of the broker at the end of the last round, bytes.
    pub rss_bytes: Option<u64>,
    /// Events of each round.
    pub rounds: Vec<u64>,
}

/// What subscribers that break or stall cost the publishers of their site.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mixed {
    /// Publishers that raise all they can: those beside `mixed` over those beside `five-healthy`.
    pub ratio_of_fewer: f64,
    /// The same, over those beside `fifteen-healthy`.
    pub ratio_of_equals: f64,
    /// Those beside `restless` over those beside `five-healthy`.
    pub ratio_restless: f64,
    /// Publishers that raise half of what they could: those beside `mixed` over those beside
    /// `five-healthy`.
    pub ratio_paced: f64,
    /// What each company came to.
    pub beside: Vec<Beside>,
}

/// What a load that lasts did to memory and latency: its first third against its last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Steady {
    /// What the publishers could raise per second together beside the same subscribers.
    pub most_per_s: f64,
    /// The same when the time was over: what is less is the machine's doing, or a broker's that gets slower.
    pub most_after_per_s: f64,
    /// What they raised per second.
    pub paced_per_s: f64,
    /// Resident memory of all nodes, bytes, the mean of the first third of the time.
    pub rss_bytes_first: Option<f64>,
    /// The same of the last third.
    pub rss_bytes_last: Option<f64>,
    /// The median of the seconds' 99th percentiles in the first third, microseconds.
    pub p99_us_first: Option<f64>,
    /// The same of the last third.
    pub p99_us_last: Option<f64>,
}

/// What twice as many of the idle cost those that work. A ratio is beside twice as many over beside once as
/// many, one value per round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// What there is twice of: `clients`, `sites`, `subscriptions` or `retained`.
    pub idle: &'static str,
    /// How many there are once.
    pub count: u32,
    /// What publishers reach beside once as many, events per second, the median.
    pub publish_per_s: Option<f64>,
    /// Their events per second.
    pub publish_ratio: Option<Spread>,
    /// Processor time of all nodes for each of their events.
    pub publish_cpu_ratio: Option<Spread>,
    /// What subscriptions with a backlog reach beside once as many, events per second, the median.
    pub deliver_per_s: Option<f64>,
    /// Their events per second.
    pub deliver_ratio: Option<Spread>,
    /// Processor time of all nodes for each of their events.
    pub deliver_cpu_ratio: Option<Spread>,
}

/// What one subscription came to, in one delivery mode over one transport.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModeFigures {
    /// `websocket`, `push` or `udp`.
    pub transport: &'static str,
    /// The mode.
    pub mode: &'static str,
    /// Raise to arrival, of events raised at a pace.
    #[serde(rename = "latency_us")]
    pub latency: Latency,
    /// Events per second that were acknowledged to a publisher that raised all it could.
    pub raised_per_s: f64,
    /// How many of those arrived meanwhile.
    pub delivered: u64,
    /// The same per second.
    pub delivered_per_s: f64,
}

/// What a workload reports beside what all do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// Failing leaders.
    Failover(Failover),
    /// Idle clients.
    Idle(Idle),
    /// One publisher, many subscribers.
    Fanout(Fanout),
    /// Rates that were to be exceeded.
    Quotas {
        /// Each kind of rate.
        quotas: Vec<Quota>,
    },
    /// Revoked tokens.
    Revocation {
        /// Milliseconds until the last session of revoked tokens ended, one value per round.
        revocation_ms: Option<Spread>,
    },
    /// Subscribers that break or stall.
    Mixed {
        /// What they cost.
        mixed: Mixed,
    },
    /// A load that lasts.
    Steady {
        /// What it did.
        steady: Steady,
    },
    /// More of what is idle.
    Growth {
        /// Of each kind.
        growth: Vec<Growth>,
    },
    /// Delivery modes.
    Modes {
        /// Each of them.
        modes: Vec<ModeFigures>,
    },
}

/// A second of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Events that were acknowledged, or deliveries handled, in it.
    pub events: u64,
    /// The median of their latencies, microseconds.
    pub p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
    /// Resident memory of all nodes at its end, bytes, where it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
}

/// What was counted of the events of a run. Nothing is told of what was not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events that were acknowledged to their publishers, warm-up included.
    pub acked: Option<u64>,
    /// Deliveries that were handed to handlers.
    pub received: Option<u64>,
    /// Acknowledged events that are not there, or that a subscription skipped.
    pub lost: Option<u64>,
    /// Events that were applied more often than acknowledged, or handed to a handler again.
    pub duplicated: Option<u64>,
    /// Ids that did not rise.
    pub out_of_order: Option<u64>,
}

/// The result of a workload. What was not measured is none, `null` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The workload.
    pub bench: &'static str,
    /// Its sizes, as far as they count.
    pub sizes: serde_json::Value,
    /// Nodes of the broker.
    pub nodes: u64,
    /// Sites that the accounts were spread over.
    pub sites: u32,
    /// What an acknowledgement meant: `majority+fdatasync` where the syncs of the nodes' logs, counted,
    /// suffice for a majority to have each event synced before it was acknowledged; `unproven` where
    /// they do not.
    pub durability: Option<&'static str>,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Events that were acknowledged, or deliveries whose cursor was confirmed, in that time.
    pub events: u64,
    /// The same per second.
    pub events_per_s: f64,
    /// publish: raise to acknowledgement; deliver: handler to next handler; idle and fanout: raise to
    /// handler; quota: raise to acknowledgement of the site beside; mixed: raise to acknowledgement with
    /// all subscribers; modes: raise to arrival, at a pace; revocation: request to last end. Where events
    /// are paced a raise counts from when it was due.
    #[serde(rename = "latency_us")]
    pub latency: Option<Latency>,
    /// Processor microseconds of all nodes per event.
    pub server_cpu_us_per_event: Option<f64>,
    /// Processor microseconds of the load generator, this process, per event.
    pub client_cpu_us_per_event: Option<f64>,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// Whether everything that was checked holds; none where nothing was to be checked.
    pub verified: Option<bool>,
    /// What was checked and holds.
    pub checks: Vec<String>,
    /// What was checked and does not hold.
    pub failures: Vec<String>,
    /// What the workload adds.
    #[serde(flatten)]
    pub figures: Option<Figures>,
    /// What the logs did.
    pub log: Option<Log>,
    /// What the broker used, where it runs on this machine.
    pub server: Option<Server>,
    /// The run by seconds.
    pub timeline: Vec<Second>,
}

impl Report {
    /// A report that says only what was measured, and for how long.
    pub(crate) fn new(workload: Workload, options: &Options, nodes: u64, seconds: f64) -> Self {
        Self {
            bench: workload.name(),
            sizes: serde_json::Value::Null,
            nodes,
            sites: options.sites,
            durability: None,
            seconds,
            events: 0,
            events_per_s: 0.0,
            latency: None,
            server_cpu_us_per_event: None,
            client_cpu_us_per_event: None,
            counts: Counts::default(),
            verified: None,
            checks: Vec::new(),
            failures: Vec::new(),
            figures: None,
            log: None,
            server: None,
            timeline: Vec::new(),
        }
    }

    /// With so many events of the measured time.
    pub(crate) fn events(mut self, events: u64) -> Self {
        self.events = events;
        self.events_per_s = events as f64 / self.seconds;
        self
    }
}
