//! What this node's sessions did, as Prometheus metrics. Counters are never derived from live
//! objects; labels take only values of closed enums.

use std::sync::Arc;

use ackord_replica::{Node, NodeCounters};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use ackord_wire::Code;

/// Upper bounds of the size buckets, bytes.
const SIZE_BUCKETS: [f64; 8] = [0.0, 64.0, 256.0, 1024.0, 2048.0, 8192.0, 32_768.0, 65_536.0];

/// Every metric of this crate.
pub(crate) struct Metrics {
    registry: Registry,
    /// Raises of sessions, by what they came to.
    raises: IntCounterVec,
    /// Raises without a session, by what they came to.
    pub keyed_raises: IntCounterVec,
    pub raise_bytes: Histogram,
    pub deliveries: IntCounter,
    pub redeliveries: IntCounter,
    pub acks: IntCounter,
    pub nacks: IntCounter,
    pub commits: IntCounter,
    pub sessions: IntGaugeVec,
    pub opened: IntCounterVec,
    closes: IntCounterVec,
    pub proposals_refused: IntCounterVec,
    pub frames_received: IntCounter,
    pub received_bytes: IntCounter,
    pub frames_sent: IntCounter,
    pub sent_bytes: IntCounter,
    pub accepted: IntCounter,
    pub duplicate: IntCounter,
    pub ignored: IntCounter,
}

impl Metrics {
    pub fn new(node: &Arc<Node>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let raises = counters(
            "ackord_raises_total",
            "Raises of sessions, by what they came to.",
            "outcome",
        )?;
        let sessions =
            IntGaugeVec::new(Opts::new("ackord_sessions", "Sessions that are open."), &["kind"])?;
        registry.register(Box::new(sessions.clone()))?;
        let sizes = HistogramOpts::new("ackord_raise_bytes", "Encoded arguments of raises.")
            .buckets(SIZE_BUCKETS.to_vec());
        let raise_bytes = Histogram::with_opts(sizes)?;
        registry.register(Box::new(raise_bytes.clone()))?;
        let metrics = Self {
            accepted: raises.with_label_values(&["accepted"]),
            duplicate: raises.with_label_values(&["duplicate"]),
            ignored: raises.with_label_values(&["ignored"]),
            raises,
            keyed_raises: counters(
                "ackord_keyed_raises_total",
                "Raises without a session, by what they came to.",
                "outcome",
            )?,
            raise_bytes,
            deliveries: counter("ackord_deliveries_total", "Instances sent, first time.")?,
            redeliveries: counter("ackord_redeliveries_total", "Instances sent again.")?,
            acks: counter("ackord_acks_total", "Acknowledgements received.")?,
            nacks: counter("ackord_nacks_total", "Instances returned by clients.")?,
            commits: counter("ackord_commits_total", "Cursors confirmed to clients.")?,
            sessions,
            opened: counters("ackord_sessions_opened_total", "Sessions opened.", "kind")?,
            closes: counters(
                "ackord_session_closes_total",
                "Sessions that the broker closed, by reason.",
                "reason",
            )?,
            proposals_refused: counters(
                "ackord_proposals_refused_total",
                "Proposals of sessions that failed, by reason.",
                "reason",
            )?,
            frames_received: counter("ackord_frames_received_total", "Frames received.")?,
            received_bytes: counter(
                "ackord_frame_received_bytes_total",
                "Bytes of frames received.",
            )?,
            frames_sent: counter("ackord_frames_sent_total", "Frames sent.")?,
            sent_bytes: counter("ackord_frame_sent_bytes_total", "Bytes of frames sent.")?,
            registry: registry.clone(),
        };
        // What operators watch is there before it first happens.
        for code in [Code::Replaced, Code::SlowConsumer, Code::IdleTimeout, Code::ShuttingDown] {
            metrics.closes.with_label_values(&[code.as_str()]);
        }
        metrics.proposals_refused.with_label_values(&[Code::Busy.as_str()]);
        registry.register(Box::new(NodeCollector::new(node)?))?;
        Ok(metrics)
    }

    /// A raise was rejected or refused.
    pub fn raise_failed(&self, code: Code) {
        self.raises.with_label_values(&[code.as_str()]).inc();
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

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn text(&self) -> String {
        // Encoding into a string fails only for families without metrics, which are not gathered.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

type Read = fn(&NodeCounters) -> u64;

/// The node's own totals under their names.
const NODE_COUNTERS: &[(&str, &str, Read)] = &[
    ("ackord_log_syncs_total", "Syncs of the log.", |c| c.log_syncs),
    ("ackord_log_writes_total", "Writes to the log.", |c| c.log_writes),
    ("ackord_log_bytes_total", "Bytes written to the log.", |c| c.log_bytes),
    ("ackord_entries_proposed_total", "Log entries proposed here.", |c| c.entries_proposed),
    ("ackord_entries_applied_total", "Log entries applied.", |c| c.entries_applied),
    ("ackord_commands_proposed_total", "Commands taken into a queue.", |c| c.commands_proposed),
    ("ackord_commands_applied_total", "Commands applied.", |c| c.commands_applied),
    ("ackord_commands_coalesced_total", "Commands answered by a later one.", |c| {
        c.commands_coalesced
    }),
    ("ackord_refused_busy_total", "Commands refused for a full queue.", |c| c.refused_busy),
    ("ackord_refused_over_capacity_total", "Raises refused for the state's size.", |c| {
        c.refused_over_capacity
    }),
    ("ackord_refused_disk_full_total", "Raises refused for the disk's reserve.", |c| {
        c.refused_disk_full
    }),
    ("ackord_checkpoints_total", "Checkpoint batches written.", |c| c.checkpoints),
    ("ackord_checkpoint_rows_total", "Rows written to checkpoints.", |c| c.checkpoint_rows),
    ("ackord_snapshots_built_total", "Snapshots built.", |c| c.snapshots_built),
    ("ackord_snapshots_installed_total", "Snapshots installed.", |c| c.snapshots_installed),
    ("ackord_log_purges_total", "Times the log was purged.", |c| c.purges),
];

/// Gathers the node's totals and the size of its state when it is asked.
struct NodeCollector {
    node: std::sync::Weak<Node>,
    state_bytes: IntGauge,
    clock_ahead: Gauge,
    ready: IntGauge,
    descriptions: Vec<Desc>,
}

impl NodeCollector {
    fn new(node: &Arc<Node>) -> Result<Self, prometheus::Error> {
        let state_bytes = IntGauge::new("ackord_state_bytes", "Bytes of state of this node.")?;
        let clock_ahead = Gauge::new(
            "ackord_clock_ahead_seconds",
            "How far this node's wall clock is ahead of what most nodes have.",
        )?;
        let ready = IntGauge::new("ackord_ready", "1 while this node serves, else 0.")?;
        let gauges = [state_bytes.desc(), clock_ahead.desc(), ready.desc()];
        let mut descriptions: Vec<Desc> = gauges.into_iter().flatten().cloned().collect();
        for (name, help, _) in NODE_COUNTERS {
            descriptions.extend(IntCounter::new(*name, *help)?.desc().into_iter().cloned());
        }
        Ok(Self { node: Arc::downgrade(node), state_bytes, clock_ahead, ready, descriptions })
    }
}

impl Collector for NodeCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(node) = self.node.upgrade() else { return Vec::new() };
        let bytes: u64 = node.partitions().iter().map(|p| p.read(|state| state.bytes())).sum();
        self.state_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let totals = node.counters();
        self.clock_ahead.set(node.clock_ahead_ms() as f64 / 1000.0);
        self.ready.set(i64::from(node.ready()));
        let mut families = self.state_bytes.collect();
        families.extend(self.clock_ahead.collect());
        families.extend(self.ready.collect());
        for (name, help, read) in NODE_COUNTERS {
            if let Ok(counter) = IntCounter::new(*name, *help) {
                counter.inc_by(read(&totals));
                families.extend(counter.collect());
            }
        }
        families
    }
}
