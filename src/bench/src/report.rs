//! What a run comes to: one JSON object, or lines for a person.

use serde::Serialize;

/// A distribution of times, microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// How many were recorded.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// 90 of 100 took no longer.
    pub p90_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// 999 of 1000 took no longer.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// What the log did meanwhile, from the node's counters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Durability {
    /// Nodes whose logs were watched.
    pub nodes: u64,
    /// `fdatasync` calls of their logs together.
    pub syncs: u64,
    /// Events (or cursors) per sync of one log.
    pub events_per_sync: f64,
    /// Bytes written to the logs together.
    pub log_bytes: u64,
}

/// What the broker's processes used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    /// Processor seconds.
    pub cpu_s: f64,
    /// Processor microseconds per event.
    pub cpu_us_per_event: f64,
    /// Resident memory at the end, bytes.
    pub rss_bytes: u64,
    /// Resident memory that each connected client added, bytes (idle).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes_per_client: Option<f64>,
}

/// A distribution of few values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
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
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)?, each })
    }
}

/// What failing leaders did to publishers, milliseconds, one value per round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failover {
    /// The longest time in which no publisher of the site was acknowledged.
    pub gap_ms: Option<Spread>,
    /// The longest that one publisher waited for one event.
    pub wait_ms: Option<Spread>,
    /// The longest time in which no publisher of a site that another node leads was acknowledged.
    pub elsewhere_gap_ms: Option<Spread>,
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
    pub latency: Latency,
    /// Resident memory of the broker at the end of the last round, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// What one subscription came to, in one delivery mode over one transport.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModeFigures {
    /// `websocket`, `push` or `udp`.
    pub transport: &'static str,
    /// The mode.
    pub mode: &'static str,
    /// Raise to arrival, of events raised at a pace.
    pub latency: Latency,
    /// Events per second that were acknowledged to a publisher that raised all it could.
    pub raised_per_s: f64,
    /// How many of those arrived meanwhile.
    pub delivered: u64,
    /// The same per second.
    pub delivered_per_s: f64,
}

/// The result of a workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The workload.
    pub bench: &'static str,
    /// Its sizes, as far as they count.
    pub sizes: serde_json::Value,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Events that were acknowledged, or deliveries whose cursor was confirmed.
    pub events: u64,
    /// The same per second.
    pub events_per_s: f64,
    /// publish: raise to acknowledgement; deliver: handler to next handler; idle: raise to handler;
    /// quota: raise to acknowledgement of the site beside; mixed: raise to acknowledgement with all
    /// subscribers; modes: raise to arrival, at a pace; revocation: request to last end.
    pub latency: Latency,
    /// What failing leaders did.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// What came of rates that were to be exceeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    /// Milliseconds until the last session of revoked tokens ended, one value per round.
    #[serde(rename = "revocation_ms", skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Spread>,
    /// What subscribers that break or stall cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed: Option<Mixed>,
    /// What each delivery mode came to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<ModeFigures>,
    /// What the log did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// What the broker used, where it runs on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// What was checked and holds.
    pub verified: Vec<String>,
    /// What was checked and does not hold.
    pub failures: Vec<String>,
}

impl Mixed {
    fn lines(&self) -> Vec<String> {
        let beside = self.beside.iter().map(|beside| {
            let Beside { subscribers, paced_per_s, events_per_s, latency, rss_bytes, .. } = beside;
            let pace = paced_per_s.map(|pace| format!(" of {pace:.0}")).unwrap_or_default();
            let memory = rss_bytes.map(|bytes| format!(", {} MiB", bytes >> 20));
            format!(
                "  {subscribers:<15} {events_per_s:>7.0} events/s{pace}, latency ms p50 {:.2}  p99 \
                 {:.2}{}",
                latency.p50_us as f64 / 1000.0,
                latency.p99_us as f64 / 1000.0,
                memory.unwrap_or_default()
            )
        });
        let ratios = format!(
            "  mixed over the five alone: {:.3} ({:.3} at half the rate), over fifteen: {:.3}; restless \
             over the five: {:.3}",
            self.ratio_of_fewer, self.ratio_paced, self.ratio_of_equals, self.ratio_restless
        );
        beside.chain([ratios]).collect()
    }
}

impl Report {
    /// The report for a person.
    pub fn lines(&self) -> Vec<String> {
        let ms = |us: u64| us as f64 / 1000.0;
        let Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. } = &self.latency;
        let mut lines = vec![
            format!("{}  {}", self.bench, self.sizes),
            format!(
                "  {:.0} events/s   ({} in {:.2} s)",
                self.events_per_s, self.events, self.seconds
            ),
            format!(
                "  latency ms   p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}",
                ms(*p50_us),
                ms(*p90_us),
                ms(*p99_us),
                ms(*p999_us),
                ms(*max_us)
            ),
        ];
        if let Some(Failover { gap_ms, wait_ms, elsewhere_gap_ms }) = &self.failover {
            let mut line = |what: &str, spread: &Option<Spread>| {
                if let Some(Spread { p50, p99, max, .. }) = spread {
                    lines.push(format!("  {what} ms   p50 {p50:.0}  p99 {p99:.0}  max {max:.0}"));
                }
            };
            line("gap         ", gap_ms);
            line("longest wait", wait_ms);
            line("elsewhere   ", elsewhere_gap_ms);
        }
        for Quota { quota, allowed_per_s, admitted_per_s, ratio, .. } in &self.quotas {
            lines.push(format!(
                "  {quota:<13}{admitted_per_s:.1} of {allowed_per_s} per second: {ratio:.3}"
            ));
        }
        for Quota { quota, beside_ratio, beside_p50_us, beside_p99_us, .. } in &self.quotas {
            lines.push(format!(
                "  beside {quota}: {beside_ratio:.3} served, p50 {:.2} ms  p99 {:.2} ms",
                ms(*beside_p50_us),
                ms(*beside_p99_us)
            ));
        }
        if let Some(Spread { p50, p99, max, .. }) = &self.revocation {
            lines.push(format!("  last end ms  p50 {p50:.0}  p99 {p99:.0}  max {max:.0}"));
        }
        for ModeFigures { transport, mode, latency, raised_per_s, delivered_per_s, .. } in
            &self.modes
        {
            lines.push(format!(
                "  {transport:<9} {mode:<8} {delivered_per_s:>7.0} events/s of {raised_per_s:.0}, \
                 latency ms p50 {:.2}  p99 {:.2}",
                ms(latency.p50_us),
                ms(latency.p99_us)
            ));
        }
        if let Some(mixed) = &self.mixed {
            lines.extend(mixed.lines());
        }
        if let Some(Durability { nodes, syncs, events_per_sync, log_bytes }) = &self.durability {
            lines.push(format!(
                "  log          {syncs} syncs on {nodes} nodes, {events_per_sync:.1} events each, \
                 {log_bytes} bytes"
            ));
        }
        if let Some(Server { cpu_s, cpu_us_per_event, rss_bytes, rss_bytes_per_client }) =
            &self.server
        {
            let each = rss_bytes_per_client
                .map(|bytes| format!(", {:.1} KiB per client", bytes / 1024.0))
                .unwrap_or_default();
            lines.push(format!(
                "  server       {cpu_s:.2} CPU s, {cpu_us_per_event:.0} us per event, {} MiB{each}",
                rss_bytes >> 20
            ));
        }
        lines.extend(self.verified.iter().map(|check| format!("  verified     {check}")));
        lines.extend(self.failures.iter().map(|failure| format!("  FAILED       {failure}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_of_few_values_takes_the_largest_for_the_99th_of_100() {
        let spread = Spread::of((1..=30).rev().map(f64::from).collect()).unwrap();
        assert_eq!((spread.p50, spread.p99, spread.max), (15.0, 30.0, 30.0));
        assert_eq!(spread.each.len(), 30);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
