//! The power of nodes goes: whatever no sync covers is undone, wholly or in part. And everything at
//! once.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::{Run, leader, victims};
use crate::disk::Cut;
use crate::mesh::{OUTSIDE, Slow};
use crate::seed::Seed;

/// Steps from one calm to the next when everything goes wrong.
const STEPS: u64 = 14;

fn cut(seed: &mut Seed) -> Cut {
    match seed.between(0, 3) {
        0 => Cut::Everything,
        _ => Cut::Torn(seed.bits()),
    }
}

/// Cuts the power of nodes at one moment; it counts where it undid something.
fn cut_power(run: &mut Run, nodes: &[usize]) {
    for node in nodes {
        run.cluster.kill(*node);
    }
    for node in nodes {
        let cut = cut(&mut run.seed);
        let undone = run.cluster.cut_power(*node, cut).expect("a journal");
        run.injected(u64::from(undone.unsynced > 0));
    }
}

/// Row 12.
pub fn power(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let count = [run.cluster.size(), 1][run.round % 2];
        let victims = victims(&run.cluster, &mut run.seed, count);
        cut_power(run, &victims);
        for victim in victims {
            run.cluster.start_node(victim).await.expect("the node starts again");
        }
    }
    .boxed_local()
}

/// Row 13.
pub fn power_in_work(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        // Snapshots and purges follow each other: a log that is kept holds a few seconds.
        for _ in 0..4 {
            let more = run.seed.between(5, 20);
            run.load.flows(more).await;
            let victim = victims(&run.cluster, &mut run.seed, 1)[0];
            cut_power(run, &[victim]);
            run.cluster.start_node(victim).await.expect("the node starts again");
            run.cluster.until_ready(victim).await;
        }
        // A node that joins loses its power in its first moments, again and again.
        let asked = run.cluster.running()[0];
        let table = run.cluster.operate(asked, &["cluster", "join"]).await;
        let members: Vec<String> =
            serde_json::from_value(table["join"].clone()).expect("addresses");
        let node = run.cluster.add(&members).expect("there is room");
        run.cluster.give_disk(node).await.expect("a disk");
        for _ in 0..3 {
            run.cluster.start_node(node).await.expect("the node starts");
            let moment = run.seed.millis(0, 700);
            run.cluster.lasts(moment).await;
            if !run.cluster.has_ended(node) {
                cut_power(run, &[node]);
            }
        }
        run.cluster.start_node(node).await.expect("the node starts");
        // And so does a leader while votes move to it.
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        cut_power(run, &[victim]);
        run.cluster.start_node(victim).await.expect("the node starts again");
        run.cluster.ready().await;
        leave(run, node).await;
    }
    .boxed_local()
}

/// Takes a node out of the cluster, as an operator does.
async fn leave(run: &mut Run, node: usize) {
    let asked = run.cluster.running().into_iter().find(|other| *other != node).expect("others");
    let number = run.cluster.view(node).await.expect("the node answers")["node"].to_string();
    let drained = run.cluster.operate(asked, &["cluster", "drain", &number]).await;
    assert_eq!(drained["done"], true, "{drained}");
    assert_eq!(run.cluster.stop(node).await.expect("it runs"), Some(0), "it stops in order");
    run.cluster.operate(asked, &["cluster", "remove", &number]).await;
}

/// Row 14.
pub fn power_and_pause(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        let sleeper = super::others(&run.cluster, victim)[0];
        run.cluster.pause(sleeper).expect("the node runs");
        let pause = run.seed.millis(0, 1500);
        run.cluster.lasts(pause).await;
        cut_power(run, &[victim]);
        if run.seed.between(0, 2) == 0 {
            run.cluster.resume(sleeper).expect("the node runs");
            run.cluster.start_node(victim).await.expect("the node starts again");
        } else {
            run.cluster.start_node(victim).await.expect("the node starts again");
            let pause = run.seed.millis(0, 1500);
            run.cluster.lasts(pause).await;
            run.cluster.resume(sleeper).expect("the node runs");
        }
    }
    .boxed_local()
}

/// Row 26.
pub fn everything(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let mut paused = BTreeSet::new();
        for _ in 0..STEPS {
            step(run, &mut paused).await;
            let pause = run.seed.millis(0, 600);
            run.cluster.lasts(pause).await;
        }
        for node in paused {
            run.cluster.resume(node).expect("the node runs");
        }
        run.cluster.mesh().heal();
        for node in run.cluster.nodes().filter(|node| !run.cluster.runs(*node)).collect::<Vec<_>>()
        {
            run.cluster.start_node(node).await.expect("the node starts");
        }
    }
    .boxed_local()
}

/// One step into trouble, or out of it.
async fn step(run: &mut Run, paused: &mut BTreeSet<usize>) {
    let size = run.cluster.size() as u64;
    let node = run.seed.between(1, size + 1) as usize;
    let other = run.seed.between(0, size + 1) as usize;
    match run.seed.between(0, 12) {
        0 if run.cluster.runs(node) => {
            run.cluster.kill(node);
            paused.remove(&node);
            run.injected(1);
        }
        1 if run.cluster.runs(node) => {
            paused.remove(&node);
            cut_power(run, &[node]);
        }
        2 if run.cluster.runs(node) && paused.insert(node) => {
            run.cluster.pause(node).expect("the node runs");
            run.injected(1);
        }
        3 if paused.remove(&node) => run.cluster.resume(node).expect("the node runs"),
        4 | 5 if !run.cluster.runs(node) => {
            run.cluster.start_node(node).await.expect("the node starts");
        }
        6 if other != node => run.cluster.mesh().set_blocked(node, other, true),
        7 if other != node => run.cluster.mesh().set_blocked(other, node, true),
        8 => run.cluster.mesh().reset(node, if other == node { OUTSIDE } else { other }),
        9 if other != node => run.cluster.mesh().half_open(node, other),
        10 if other != node => {
            let (delay, jitter) = (run.seed.millis(1, 40), run.seed.millis(1, 60));
            run.cluster.mesh().set_slow(node, other, Slow { delay, jitter, drip: None });
        }
        11 => run.cluster.mesh().heal(),
        _ => {}
    }
}
