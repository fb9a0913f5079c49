//! What the broker used between two moments: log syncs, processor time, memory.
//!
//! Processes are read through `/proc`; on another machine or system there is nothing to read, and
//! the report says nothing about it.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::ground::Ground;
use crate::report::{Log, Report, Server};

/// Clock ticks per second in `/proc/PID/stat`: fixed at 100 for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// How often it is looked whether the nodes have written their checkpoints.
const SETTLE_STEP: Duration = Duration::from_secs(1);
/// How long it is waited for that: after a batch that took long they pause nineteen times as long.
const SETTLE_MAX: Duration = Duration::from_secs(180);

/// A moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    nodes: u64,
    syncs: Option<u64>,
    log_bytes: Option<u64>,
    checkpoint_rows_due: Option<u64>,
    cpu_s: Option<f64>,
    own_cpu_s: Option<f64>,
    pub(crate) rss_bytes: Option<u64>,
}

impl Moment {
    /// Now.
    pub(crate) async fn now<G: Ground>(ground: &G) -> Result<Self, Error> {
        let metrics = ground.metrics().await.map_err(Error::Ground)?;
        Ok(Self {
            nodes: metrics.len() as u64,
            syncs: counter(&metrics, "ackord_log_syncs_total"),
            log_bytes: counter(&metrics, "ackord_log_bytes_total"),
            checkpoint_rows_due: counter(&metrics, "ackord_checkpoint_rows_due"),
            cpu_s: sum(&ground.pids(), cpu_s),
            own_cpu_s: cpu_s(std::process::id()),
            rss_bytes: resident(&ground.pids()),
        })
    }

    /// As soon as the nodes have written what changed to their checkpoints: until then they hold it twice.
    /// Now when that takes long, as where others change something all the time.
    pub(crate) async fn settled<G: Ground>(ground: &G) -> Result<Self, Error> {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(SETTLE_STEP).await;
            let now = Self::now(ground).await?;
            if now.checkpoint_rows_due.is_none_or(|rows| rows == 0) {
                return Ok(now);
            }
            if begun.elapsed() > SETTLE_MAX {
                ground.progress(
                    "the nodes have not written their checkpoints: memory is told as it is",
                );
                return Ok(now);
            }
        }
    }

    /// Nodes of the broker.
    pub(crate) fn nodes(&self) -> u64 {
        self.nodes
    }

    /// Processor seconds of all nodes since `before`.
    pub(crate) fn server_cpu_s(&self, before: &Self) -> Option<f64> {
        Some(self.cpu_s? - before.cpu_s?)
    }

    /// Processor seconds of this process since `before`.
    pub(crate) fn own_cpu_s(&self, before: &Self) -> Option<f64> {
        Some(self.own_cpu_s? - before.own_cpu_s?)
    }

    /// Writes into a report what was used since `before`, for the events that it has.
    pub(crate) fn used(&self, before: &Self, report: &mut Report) {
        let each = |cpu_s: f64| cpu_s * 1e6 / report.events.max(1) as f64;
        report.server_cpu_us_per_event = self.server_cpu_s(before).map(each);
        report.client_cpu_us_per_event = self.own_cpu_s(before).map(each);
        report.log = self.log(before, report.events);
        report.server = self.server(before);
    }

    /// What an acknowledgement meant since `before`: of so many events at most `at_once` were
    /// unacknowledged at a time, so that many share a sync at most, and a majority has to sync each.
    pub(crate) fn durability(
        &self,
        before: &Self,
        events: u64,
        at_once: u64,
    ) -> Option<&'static str> {
        let syncs = self.log(before, events)?.syncs;
        let copies = events.saturating_mul(self.nodes / 2 + 1);
        let enough = syncs.saturating_mul(at_once) >= copies;
        Some(if enough { "majority+fdatasync" } else { "unproven" })
    }

    /// What the logs did since `before`, for so many events.
    fn log(&self, before: &Self, events: u64) -> Option<Log> {
        let syncs = self.syncs?.saturating_sub(before.syncs?);
        let bytes = self.log_bytes.unwrap_or(0).saturating_sub(before.log_bytes.unwrap_or(0));
        let events_per_sync = (events * self.nodes) as f64 / syncs.max(1) as f64;
        Some(Log { syncs, events_per_sync, bytes })
    }

    fn server(&self, before: &Self) -> Option<Server> {
        Some(Server { cpu_s: self.server_cpu_s(before)?, rss_bytes: self.rss_bytes? })
    }
}

fn sum(pids: &[u32], of: fn(u32) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = pids.iter().copied().map(of).collect();
    values.filter(|values| !values.is_empty()).map(|values| values.iter().sum::<f64>())
}

/// Resident memory of these processes together, bytes.
pub(crate) fn resident(pids: &[u32]) -> Option<u64> {
    sum(pids, rss_bytes).map(|bytes| bytes as u64)
}

/// The sum of a counter over its labels and the nodes.
fn counter(metrics: &[String], name: &str) -> Option<u64> {
    let values = metrics.iter().flat_map(|text| text.lines()).filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
}

fn cpu_s(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; the fields after it do not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

fn rss_bytes(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_labels_and_nodes_and_only_its_own() {
        let text = "# TYPE a_total counter\na_total{n=\"1 2\"} 3\na_total{n=\"2\"} 4\n\
                    a_total_more 9\nb_total 5\n";
        let nodes = &[text.to_owned(), "a_total 1\n".to_owned()];
        assert_eq!(counter(nodes, "a_total"), Some(8));
        assert_eq!(counter(nodes, "b_total"), Some(5));
        assert_eq!(counter(nodes, "c_total"), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let me = std::process::id();
        assert!(rss_bytes(me).unwrap() > 0.0);
        assert!(cpu_s(me).unwrap() >= 0.0);
    }
}
