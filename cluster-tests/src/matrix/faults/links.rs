//! Links that break in every way.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::{HOLDS, Run, leader, others, victims};
use crate::mesh::{OUTSIDE, Slow};

/// Lets what holds now last a while, and ends it; it counts when it held something back.
async fn hold(run: &mut Run, before: u64, low: u64) {
    let more = run.seed.millis(low, HOLDS.as_millis() as u64);
    run.cluster.lasts(more).await;
    let held = run.cluster.mesh().held() - before;
    run.injected(u64::from(held > 0));
    run.cluster.mesh().heal();
}

fn cut(run: &Run, one: usize, other: usize) {
    run.cluster.mesh().set_blocked(one, other, true);
    run.cluster.mesh().set_blocked(other, one, true);
}

/// Row 5.
pub fn partition(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let before = run.cluster.mesh().held();
        if run.round.is_multiple_of(2) {
            let victim = victims(&run.cluster, &mut run.seed, 1)[0];
            run.cluster.mesh().cut_alone(victim);
            for witness in others(&run.cluster, victim) {
                run.load.served_by(&run.cluster, witness).await;
            }
        } else {
            for node in run.cluster.running() {
                run.cluster.mesh().cut_from_peers(node);
            }
        }
        hold(run, before, 500).await;
    }
    .boxed_local()
}

/// Row 6.
pub fn ring_or_bridge(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let before = run.cluster.mesh().held();
        let nodes = victims(&run.cluster, &mut run.seed, 5);
        let size = nodes.len();
        if run.round.is_multiple_of(2) {
            // Each sees its two neighbours.
            for at in 0..size {
                for distance in 2..size - 1 {
                    cut(run, nodes[at], nodes[(at + distance) % size]);
                }
            }
        } else {
            // Two halves that see one node in common, and not each other.
            for left in &nodes[..2] {
                for right in &nodes[3..] {
                    cut(run, *left, *right);
                }
            }
        }
        hold(run, before, 2000).await;
    }
    .boxed_local()
}

/// Row 7.
pub fn leader_without_peers(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let before = run.cluster.mesh().held();
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        run.cluster.mesh().cut_from_peers(victim);
        for witness in others(&run.cluster, victim) {
            run.load.served_by(&run.cluster, witness).await;
        }
        hold(run, before, 0).await;
    }
    .boxed_local()
}

/// Row 8.
pub fn one_way(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let before = run.cluster.mesh().held();
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        let others = others(&run.cluster, victim);
        let mut witnesses = others.clone();
        match run.round % 3 {
            // Peers do not hear it.
            0 => {
                for other in &others {
                    run.cluster.mesh().set_blocked(victim, *other, true);
                }
            }
            // It does not hear its peers.
            1 => {
                for other in &others {
                    run.cluster.mesh().set_blocked(*other, victim, true);
                }
            }
            // It does not hear one.
            _ => {
                run.cluster.mesh().set_blocked(others[0], victim, true);
                witnesses.remove(0);
            }
        }
        for witness in witnesses {
            run.load.served_by(&run.cluster, witness).await;
        }
        hold(run, before, 0).await;
    }
    .boxed_local()
}

/// Row 9.
pub fn flapping(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let before = run.cluster.mesh().held();
        let victim = victims(&run.cluster, &mut run.seed, 1)[0];
        let others = others(&run.cluster, victim);
        for _ in 0..8 {
            run.cluster.mesh().cut_alone(victim);
            let cut = run.seed.millis(20, 500);
            run.cluster.lasts(cut).await;
            run.cluster.mesh().heal();
            if run.seed.between(0, 2) == 0 {
                let whom = [OUTSIDE, others[0], others[1]][run.seed.between(0, 3) as usize];
                run.cluster.mesh().reset(victim, whom);
            }
            let open = run.seed.millis(20, 300);
            run.cluster.lasts(open).await;
        }
        hold(run, before, 0).await;
    }
    .boxed_local()
}

/// Row 10.
pub fn slow_links(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let before = run.cluster.mesh().held();
        let nodes = run.cluster.running();
        let victim = victims(&run.cluster, &mut run.seed, 1)[0];
        let mesh = run.cluster.mesh();
        match run.round % 3 {
            // Far from each other, and from everybody.
            0 => {
                let slow = Slow {
                    delay: run.seed.millis(5, 40),
                    jitter: run.seed.millis(10, 80),
                    drip: None,
                };
                for one in nodes.iter().chain([&OUTSIDE]) {
                    for other in nodes.iter().chain([&OUTSIDE]).filter(|other| *other != one) {
                        mesh.set_slow(*one, *other, slow);
                    }
                }
            }
            // One at the end of a thin line.
            1 => {
                let slow = Slow {
                    delay: Duration::ZERO,
                    jitter: Duration::from_millis(20),
                    drip: Some(run.seed.between(50_000, 200_000) as u32),
                };
                for other in nodes.iter().filter(|other| **other != victim) {
                    mesh.set_slow(victim, *other, slow);
                    mesh.set_slow(*other, victim, slow);
                }
            }
            // Connections whose other end is gone, and nobody says so.
            _ => {
                for other in nodes.iter().chain([&OUTSIDE]).filter(|other| **other != victim) {
                    mesh.half_open(victim, *other);
                }
            }
        }
        run.load.flows(2).await;
        hold(run, before, 1000).await;
    }
    .boxed_local()
}
