//! A report for a person who reads a terminal.

use crate::report::{
    Beside, Failover, Fanout, Figures, Growth, Idle, Latency, Log, Mixed, ModeFigures, Quota,
    Report, Server, Spread, Steady,
};

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn spread(what: &str, spread: Option<&Spread>) -> Option<String> {
    let Spread { p50, p99, max, .. } = spread?;
    Some(format!("  {what} ms   p50 {p50:.0}  p99 {p99:.0}  max {max:.0}"))
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
                ms(latency.p50_us),
                ms(latency.p99_us),
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

fn quotas(quotas: &[Quota]) -> Vec<String> {
    let held = quotas.iter().map(|quota| {
        let Quota { quota, allowed_per_s, admitted_per_s, ratio, .. } = quota;
        format!("  {quota:<13}{admitted_per_s:.1} of {allowed_per_s} per second: {ratio:.3}")
    });
    let beside = quotas.iter().map(|quota| {
        let Quota { quota, beside_ratio, beside_p50_us, beside_p99_us, .. } = quota;
        format!(
            "  beside {quota}: {beside_ratio:.3} served, p50 {:.2} ms  p99 {:.2} ms",
            ms(*beside_p50_us),
            ms(*beside_p99_us)
        )
    });
    held.chain(beside).collect()
}

impl Steady {
    fn lines(&self) -> Vec<String> {
        let Self { most_per_s, most_after_per_s, paced_per_s, .. } = self;
        let mut lines = vec![format!(
            "  paced        {paced_per_s:.0} of {most_per_s:.0} events/s, {most_after_per_s:.0} at the end"
        )];
        if let (Some(first), Some(last)) = (self.rss_bytes_first, self.rss_bytes_last) {
            let mib = |bytes: f64| bytes / 1024.0 / 1024.0;
            lines.push(format!(
                "  memory MiB   first third {:.0}, last third {:.0}",
                mib(first),
                mib(last)
            ));
        }
        if let (Some(first), Some(last)) = (self.p99_us_first, self.p99_us_last) {
            lines.push(format!(
                "  p99 ms       first third {:.2}, last third {:.2}",
                first / 1000.0,
                last / 1000.0
            ));
        }
        lines
    }
}

impl Figures {
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Failover(Failover { gaps_ms, wait_ms, elsewhere_gap_ms, .. }) => [
                spread("gap         ", gaps_ms.as_ref()),
                spread("longest wait", wait_ms.as_ref()),
                spread("elsewhere   ", elsewhere_gap_ms.as_ref()),
            ]
            .into_iter()
            .flatten()
            .collect(),
            Self::Idle(Idle { kib_per_subscriber, idle_cores, all_confirmed_s, rss_bytes: _ }) => {
                let kib = kib_per_subscriber.map(|kib| format!("{kib:.1} KiB each, "));
                let cores = idle_cores.map(|cores| format!("{cores:.3} cores idle, "));
                vec![format!(
                    "  clients      {}{}one event confirmed by all in {all_confirmed_s:.2} s",
                    kib.unwrap_or_default(),
                    cores.unwrap_or_default()
                )]
            }
            Self::Fanout(fanout) => {
                let Fanout { deliveries_per_s, behind_ms, server_cpu_us_per_delivery, .. } = fanout;
                let cpu = server_cpu_us_per_delivery.map(|us| format!(", {us:.1} us of CPU each"));
                vec![format!(
                    "  deliveries   {deliveries_per_s:.0}/s{}, the last confirmed {behind_ms:.0} ms after it was due",
                    cpu.unwrap_or_default()
                )]
            }
            Self::Quotas { quotas: each } => quotas(each),
            Self::Revocation { revocation_ms } => {
                spread("last end    ", revocation_ms.as_ref()).into_iter().collect()
            }
            Self::Mixed { mixed } => mixed.lines(),
            Self::Steady { steady } => steady.lines(),
            Self::Growth { growth } => growth.iter().map(twice).collect(),
            Self::Modes { modes } => modes.iter().map(mode).collect(),
        }
    }
}

fn twice(growth: &Growth) -> String {
    let Growth { idle, count, publish_ratio, deliver_ratio, .. } = growth;
    let ratio = |what: &str, spread: &Option<Spread>| {
        spread.as_ref().map(|spread| format!(", {what} {:.3}", spread.p50)).unwrap_or_default()
    };
    format!(
        "  {:<13} {count} to {}{}{}",
        idle,
        2 * count,
        ratio("publish", publish_ratio),
        ratio("deliver", deliver_ratio)
    )
}

fn mode(figures: &ModeFigures) -> String {
    let ModeFigures { transport, mode, latency, raised_per_s, delivered_per_s, .. } = figures;
    format!(
        "  {transport:<9} {mode:<8} {delivered_per_s:>7.0} events/s of {raised_per_s:.0}, \
         latency ms p50 {:.2}  p99 {:.2}",
        ms(latency.p50_us),
        ms(latency.p99_us)
    )
}

impl Report {
    /// The report for a person.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("{}  {}", self.bench, self.sizes),
            format!(
                "  {:.0} events/s   ({} in {:.2} s)",
                self.events_per_s, self.events, self.seconds
            ),
        ];
        if let Some(Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. }) = &self.latency {
            lines.push(format!(
                "  latency ms   p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}",
                ms(*p50_us),
                ms(*p90_us),
                ms(*p99_us),
                ms(*p999_us),
                ms(*max_us)
            ));
        }
        lines.extend(self.figures.iter().flat_map(Figures::lines));
        if let Some(durability) = self.durability {
            lines.push(format!("  durability   {durability} ({} nodes)", self.nodes));
        }
        if let Some(Log { syncs, events_per_sync, bytes }) = &self.log {
            lines.push(format!(
                "  log          {syncs} syncs, {events_per_sync:.1} events each, {bytes} bytes"
            ));
        }
        if let Some(Server { cpu_s, rss_bytes }) = &self.server {
            lines.push(format!("  server       {cpu_s:.2} CPU s, {} MiB", rss_bytes >> 20));
        }
        let each = [
            ("servers", self.server_cpu_us_per_event),
            ("load generator", self.client_cpu_us_per_event),
        ];
        let each: Vec<String> = each
            .into_iter()
            .filter_map(|(who, us)| us.map(|us| format!("{who} {us:.1}")))
            .collect();
        if !each.is_empty() {
            lines.push(format!("  CPU us/event {}", each.join(", ")));
        }
        lines.extend(self.checks.iter().map(|check| format!("  verified     {check}")));
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
        assert_eq!((spread.p50, spread.p99, spread.max), (15.5, 30.0, 30.0));
        assert_eq!(spread.each.len(), 30);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
