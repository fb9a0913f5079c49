//! Nodes that get too little of the machine, and clocks that jump.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::{HOLDS, Run, leader, victims};
use crate::cluster::READY;
use crate::process;
use crate::wait;

const HOUR_MS: i64 = 3_600_000;
/// How long there is too little.
const LASTS: Duration = Duration::from_secs(8);

/// Memory that a node may still take when it gets no more.
const SPARE_BYTES_MAX: u64 = 1 << 20;

/// Programs that take whatever processor time they get; ended when dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: usize) -> Self {
        let start = |_| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            process::spawn(command).expect("a shell starts")
        };
        Self((0..count).map(start).collect())
    }

    /// How many have got processor time.
    fn busy(&self) -> usize {
        let ran = |hog: &&Child| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", hog.id()));
            let stat = stat.unwrap_or_default();
            // User time in ticks, the twelfth field behind the name.
            let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(11));
            ticks.and_then(|ticks| ticks.parse::<u64>().ok()).is_some_and(|ticks| ticks > 0)
        };
        self.0.iter().filter(ran).count()
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// Row 24. In every second round a node is suspended beside it: those that are left have nobody to
/// spare.
pub fn squeeze(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let hogs = Hogs::start(3 * processors);
        let victim = victims(&run.cluster, &mut run.seed, 1)[0];
        if !run.round.is_multiple_of(2) {
            run.cluster.pause(victim).expect("the node runs");
        }
        run.cluster.lasts(LASTS).await;
        // Slowly, but it goes on.
        run.load.flows(2).await;
        run.injected(hogs.busy() as u64);
        if !run.round.is_multiple_of(2) {
            run.cluster.resume(victim).expect("the node runs");
        }
    }
    .boxed_local()
}

/// Row 27. A node that gets no memory any more ends at once, or goes on with what it has; whatever it
/// does, it must serve when there is memory again.
pub fn memory(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let victim = match run.round % 2 {
            0 => leader(&run.cluster, &mut run.seed).await.0,
            _ => victims(&run.cluster, &mut run.seed, 1)[0],
        };
        let spare = run.seed.between(0, SPARE_BYTES_MAX);
        run.cluster.squeeze_memory(victim, spare).expect("the node runs");
        let end = Instant::now() + LASTS;
        while !run.cluster.has_ended(victim) && Instant::now() < end {
            run.cluster.lasts(wait::POLL).await;
        }
        run.load.flows(2).await;
        if run.cluster.has_ended(victim) {
            run.injected(1);
            let code = run.cluster.ended(victim).await.expect("it ran");
            assert_ne!(code, Some(0), "node {victim} had no memory and called it success");
            run.cluster.start_node(victim).await.expect("the node starts again");
        } else {
            run.cluster.relax_memory(victim).expect("the node runs");
        }
        run.cluster.until_ready(victim).await;
    }
    .boxed_local()
}

/// Row 20.
pub fn clocks(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let victim = victims(&run.cluster, &mut run.seed, 1)[0];
        let ahead = [HOUR_MS, -HOUR_MS][run.round % 2];
        run.cluster.set_clock(victim, ahead).expect("the clock is set");
        let admin = run.cluster.admin(victim);
        let what = format!("node {victim} to notice that its clock is off");
        wait::until_for(READY, &what, async || (!admin.is_ready().await).then_some(())).await;
        run.injected(1);
        run.load.flows(3).await;
        let more = run.seed.millis(0, HOLDS.as_millis() as u64);
        run.cluster.lasts(more).await;
        run.cluster.set_clock(victim, 0).expect("the clock is set");
    }
    .boxed_local()
}
