//! Processes that are killed, suspended, stopped in order, and away for long.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::{Run, leader, others, victims};

/// Kills a node; the others go on.
async fn kill_and_start(run: &mut Run, victim: usize) {
    run.cluster.kill(victim);
    run.injected(1);
    run.load.flows(3).await;
    let away = run.seed.millis(0, 1000);
    run.cluster.lasts(away).await;
    run.cluster.start_node(victim).await.expect("the node starts again");
}

/// Row 1.
pub fn kill_one(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let victim = victims(&run.cluster, &mut run.seed, 1)[0];
        kill_and_start(run, victim).await;
    }
    .boxed_local()
}

/// Row 2.
pub fn kill_leader(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        kill_and_start(run, victim).await;
    }
    .boxed_local()
}

/// Row 3.
pub fn kill_many(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let size = run.cluster.size();
        let count = [size / 2 + 1, size][run.round % 2];
        let victims = victims(&run.cluster, &mut run.seed, count);
        for victim in &victims {
            run.cluster.kill(*victim);
            run.injected(1);
            let pause = run.seed.millis(0, 60);
            run.cluster.lasts(pause).await;
        }
        for victim in victims {
            let pause = run.seed.millis(0, 500);
            run.cluster.lasts(pause).await;
            run.cluster.start_node(victim).await.expect("the node starts again");
        }
    }
    .boxed_local()
}

/// Row 4.
pub fn zombie(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let (victim, group) = leader(&run.cluster, &mut run.seed).await;
        run.cluster.pause(victim).expect("the node runs");
        for witness in others(&run.cluster, victim) {
            run.load.served_by(&run.cluster, witness).await;
        }
        // It believes to lead what another one leads.
        let witness = others(&run.cluster, victim)[0];
        let now = run.cluster.leader(group, witness).await;
        run.injected(u64::from(now.is_some_and(|now| now != victim)));
        let away = run.seed.millis(0, 2000);
        run.cluster.lasts(away).await;
        run.cluster.resume(victim).expect("the node runs");
    }
    .boxed_local()
}

/// Row 11.
pub fn kill_while_away(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        let away = run.seed.millis(100, 2500);
        if run.round.is_multiple_of(2) {
            run.cluster.pause(victim).expect("the node runs");
            run.cluster.lasts(away).await;
            run.cluster.kill(victim);
            run.injected(1);
            run.cluster.start_node(victim).await.expect("the node starts again");
            return;
        }
        let held = run.cluster.mesh().held();
        run.cluster.mesh().cut_alone(victim);
        run.cluster.lasts(away).await;
        run.cluster.kill(victim);
        run.injected(u64::from(run.cluster.mesh().held() > held));
        // Back, and nobody there.
        run.cluster.start_node(victim).await.expect("the node starts again");
        let alone = run.seed.millis(0, 1500);
        run.cluster.lasts(alone).await;
        run.cluster.mesh().heal();
    }
    .boxed_local()
}

/// Row 22.
pub fn absence(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let sleeper = victims(&run.cluster, &mut run.seed, 1)[0];
        let snapshots = |run: &Run| -> usize {
            let logs = run.cluster.nodes().map(|node| run.cluster.log(node));
            logs.map(|log| log.matches("sending a snapshot").count()).sum()
        };
        let before = snapshots(run);
        run.cluster.kill(sleeper);
        run.load.flows_past_a_purge(&run.cluster).await;
        run.cluster.start_node(sleeper).await.expect("the node starts again");
        run.cluster.until_ready(sleeper).await;
        run.injected((snapshots(run) - before) as u64);
    }
    .boxed_local()
}

/// Row 23. The oldest peer protocol that there is, and back.
pub fn rolling(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let version = ["compat_version = 1\n", ""][run.round % 2];
        for node in run.cluster.running() {
            run.load.flows(2).await;
            assert_eq!(run.cluster.stop(node).await.expect("the node runs"), Some(0));
            run.cluster.configure(node, version).expect("a configuration");
            run.cluster.start_node(node).await.expect("the node starts again");
            run.cluster.until_ready(node).await;
            run.injected(1);
        }
    }
    .boxed_local()
}

/// Row 25. Who crashes are the endpoints; in every other round a node dies beside them.
pub fn crashes(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let before = run.load.deaths();
        run.load.flows(15).await;
        if !run.round.is_multiple_of(2) {
            let (victim, _) = leader(&run.cluster, &mut run.seed).await;
            run.cluster.kill(victim);
            run.load.flows(5).await;
            run.cluster.start_node(victim).await.expect("the node starts again");
        }
        run.cluster.lasts(Duration::from_secs(1)).await;
        run.injected(run.load.deaths() - before);
    }
    .boxed_local()
}
