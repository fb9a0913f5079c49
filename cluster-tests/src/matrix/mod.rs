//! The matrix: every fault against every workload, judged by every property.
//!
//! `row ─▶ a cluster under the load ─▶ rounds: flows, the fault, flows ─▶ healed ─▶ judged ─▶ one line`
//!
//! Invariants: each row has a cluster of its own and a seed of its own, made of the run's seed and its
//! number, so that one row is replayed without the others; a row counts what of its fault really
//! happened, and fails when that is nothing; whatever goes wrong in it, also what never comes about,
//! fails the row and not the run.

mod faults;
mod rows;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::load::{Judged, Load};
use crate::oracle::Violation;
use crate::seed::Seed;

pub use faults::replace;
pub use rows::{FOUND, Found, ROWS};

/// Properties of which a violation is an event that was acknowledged and is gone.
const LOST: &[&str] = &["acknowledged_never_lost", "stored_as_acknowledged"];
/// Properties of which a violation is an event that came, or was stored, more than once.
const TWICE: &[&str] = &["handled_once", "committed_never_again", "one_instance_per_content"];

/// What the nodes of a row run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// This machine's disk and clock.
    Plain,
    /// Disks that can lose their power and fail.
    Disks,
    /// Clocks that can be set.
    Clocks,
}

/// One row.
pub struct Row {
    /// Its number, from 1.
    pub number: u32,
    /// What is done to the cluster.
    pub fault: &'static str,
    /// Nodes to begin with.
    pub nodes: usize,
    /// What they run on.
    pub ground: Ground,
    /// Rounds in a short run and in a whole one.
    pub rounds: [usize; 2],
    /// Whether the gate runs it.
    pub gate: bool,
    /// One round: brings the fault about, and ends it.
    strike: for<'a> fn(&'a mut Run) -> LocalBoxFuture<'a, ()>,
}

/// A row while it runs.
pub struct Run {
    /// What decides.
    pub seed: Seed,
    /// Who is attacked.
    pub cluster: Cluster,
    /// What goes on meanwhile.
    pub load: Load,
    /// Which round it is, from 0.
    pub round: usize,
    told: Arc<Told>,
}

/// What a row has told so far; it survives its panic.
#[derive(Default)]
struct Told {
    injected: AtomicU64,
    longest_ms: AtomicU64,
    timeline: Mutex<Vec<(u64, String)>>,
}

impl Run {
    /// So much of the fault has really happened.
    pub fn injected(&self, count: u64) {
        self.told.injected.fetch_add(count, Ordering::Relaxed);
    }

    /// Says what happens now.
    pub fn note(&self, since: Instant, what: String) {
        let at = since.elapsed().as_millis() as u64;
        self.told.timeline.lock().unwrap_or_else(PoisonError::into_inner).push((at, what));
    }
}

/// What became of a row: a line of the run's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The row's number.
    pub row: u32,
    /// What was done to the cluster.
    pub fault: String,
    /// How often it really happened.
    pub injected: u64,
    /// Events acknowledged and instances handled.
    pub ops: u64,
    /// Events that were acknowledged and are gone.
    pub lost: usize,
    /// Events that came, or were stored, more than once.
    pub twice: usize,
    /// `pass` or `fail`.
    pub verdict: String,
    /// Whatever else must not be.
    pub other: usize,
    /// Nodes to begin with.
    pub nodes: usize,
    /// Rounds of the fault.
    pub rounds: usize,
    /// The longest that an event waited for its acknowledgement, over the faults.
    pub longest_wait_ms: u64,
    /// How long the row took.
    pub seconds: u64,
    /// The seed of the run.
    pub seed: u64,
    /// What repeats it.
    pub replay: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What happened when, in milliseconds from the row's begin; only of a row that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<(u64, String)>,
}

/// Runs a row.
pub async fn run(row: &'static Row, seed: u64, rounds: usize) -> Line {
    let (since, told) = (Instant::now(), Arc::<Told>::default());
    let of_row = seed ^ u64::from(row.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let attacked = attack(row, Seed::new(of_row), rounds, since, told.clone());
    let (judged, mut why) = match AssertUnwindSafe(attacked).catch_unwind().await {
        Ok(judged) => (judged, None),
        Err(panic) => (Judged::default(), Some(message(&*panic))),
    };
    let injected = told.injected.load(Ordering::Relaxed);
    let (lost, twice) = (judged.count(LOST), judged.count(TWICE));
    if why.is_none() && !judged.violations.is_empty() {
        why = Some(first_of_each(&judged.violations));
    }
    if why.is_none() && injected == 0 {
        why = Some("the fault did not happen".to_owned());
    }
    let timeline =
        std::mem::take(&mut *told.timeline.lock().unwrap_or_else(PoisonError::into_inner));
    Line {
        row: row.number,
        fault: row.fault.to_owned(),
        injected,
        ops: judged.acknowledged + judged.handled,
        lost,
        twice,
        verdict: if why.is_none() { "pass" } else { "fail" }.to_owned(),
        other: judged.violations.len() - lost - twice,
        nodes: row.nodes,
        rounds,
        longest_wait_ms: told.longest_ms.load(Ordering::Relaxed),
        seconds: since.elapsed().as_secs(),
        seed,
        replay: format!(
            "cargo run --release -p cluster-tests -- matrix --row {} --rounds {rounds} --seed {seed}",
            row.number
        ),
        timeline: if why.is_none() { Vec::new() } else { timeline },
        why,
    }
}

/// The first violation of each property, and how many there are of it.
fn first_of_each(violations: &[Violation]) -> String {
    let mut first: BTreeMap<&str, (usize, &Violation)> = BTreeMap::new();
    for violation in violations {
        first.entry(violation.property).or_insert((0, violation)).0 += 1;
    }
    let said = first.values().map(|(count, violation)| match count {
        1 => violation.to_string(),
        _ => format!("{violation} (and {} more)", count - 1),
    });
    said.collect::<Vec<_>>().join("; ")
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

async fn attack(
    row: &'static Row,
    mut seed: Seed,
    rounds: usize,
    since: Instant,
    told: Arc<Told>,
) -> Judged {
    let cluster = match row.ground {
        Ground::Plain => Cluster::start(row.nodes).await,
        Ground::Disks => Cluster::start_on_disks(row.nodes).await,
        Ground::Clocks => Cluster::start_with_clocks(row.nodes).await,
    };
    let cluster = cluster.expect("the cluster starts");
    let load = Load::start_all(&cluster, &mut seed).await;
    let mut run = Run { seed, cluster, load, round: 0, told };
    for round in 0..rounds {
        run.round = round;
        run.note(since, format!("round {round}"));
        let more = run.seed.between(2, 10);
        run.load.flows(more).await;
        run.load.longest_waits();
        (row.strike)(&mut run).await;
        run.note(since, format!("round {round} is over"));
        run.cluster.mesh().heal();
        run.cluster.ready().await;
        run.load.flows(3).await;
        let waited = run.load.longest_waits().longest().as_millis() as u64;
        run.told.longest_ms.fetch_max(waited, Ordering::Relaxed);
    }
    let Run { mut cluster, load, .. } = run;
    load.judge(&mut cluster).await
}

/// How long the others are watched while something holds.
const HOLDS: Duration = Duration::from_millis(2500);
