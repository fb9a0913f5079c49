//! Somebody who measures: at whatever node, as it has it itself, no queue is ever longer than it may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{EVENT, returning};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::history::{Entry, History};
use crate::seed::Seed;

/// Between two measures.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Sites, their events, and what a queue may hold.
const BOUNDS: &[(&str, &str, u64)] = &[
    ("returning", returning::SHORT, returning::SIZE as u64),
    ("newest", EVENT, 1),
    ("memory", EVENT, 50_000),
];

/// See the module. It stops when it is dropped.
pub struct Survey {
    measuring: JoinHandle<()>,
    measured: Arc<AtomicU64>,
}

impl Survey {
    /// Measures from now on.
    pub fn start(cluster: &Cluster, history: &History, seed: Seed) -> Self {
        let admins = cluster.nodes().map(|node| cluster.admin(node)).collect();
        let measured = Arc::<AtomicU64>::default();
        let measuring = measure(admins, history.clone(), measured.clone(), seed);
        Self { measuring: tokio::spawn(measuring), measured }
    }

    /// Stops.
    ///
    /// # Panics
    /// When nothing was ever measured.
    pub fn end(self) {
        assert!(self.measured.load(Ordering::Relaxed) > 0, "nobody ever showed a queue");
    }
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.measuring.abort();
    }
}

async fn measure(admins: Vec<Admin>, history: History, measured: Arc<AtomicU64>, mut seed: Seed) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let node = seed.between(0, admins.len() as u64) as usize;
        let (site, event, bound) = BOUNDS[seed.between(0, BOUNDS.len() as u64) as usize];
        let list = format!("/v1/sites/{site}/queues");
        let asked = tokio::time::timeout(ANSWER, admins[node].local(&list)).await;
        let Ok(Ok(queues)) = asked else { continue };
        let Some(queue) = queues.iter().find(|queue| queue["event"] == *event) else { continue };
        let Some(found) = queue["retained"].as_u64() else { continue };
        let what = format!("{event} of {site} at node {}", node + 1);
        history.record(Entry::Measured { what, found, bound });
        measured.fetch_add(1, Ordering::Relaxed);
    }
}
