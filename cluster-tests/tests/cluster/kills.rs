//! kill -9 of one node, of a majority and of all, again and again.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;
use cluster_tests::wait;

use cluster_tests::load::Load;

/// How long an event may wait when one node is killed.
pub const GAP: Duration = Duration::from_millis(1500);

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victims {
    One,
    /// The one that leads a group.
    Leader,
    Majority,
    All,
}

impl Victims {
    async fn choose(self, cluster: &Cluster, seed: &mut Seed) -> Vec<usize> {
        match self {
            Self::One => cluster.some(seed, 1),
            Self::Leader => {
                let group = seed.between(0, 5) as usize;
                let known = async || cluster.leader(group, 1).await;
                vec![wait::until("a leader", known).await]
            }
            Self::Majority => cluster.some(seed, cluster.size() / 2 + 1),
            Self::All => cluster.some(seed, cluster.size()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_repeated_whoever_is_killed() {
    let mut seed = Seed::of_test("cluster", "whoever_is_killed");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let order = [Victims::Leader, Victims::Majority, Victims::One, Victims::All];
    for who in order.into_iter().cycle().take(super::rounds(8)) {
        load.flows(seed.between(5, 40)).await;
        let victims = who.choose(&cluster, &mut seed).await;
        load.longest_waits();
        for victim in &victims {
            cluster.kill(*victim);
        }
        if victims.len() == 1 {
            // The other nodes go on without it.
            load.flows(10).await;
            load.check_waits(&format!("after {who:?} {victims:?} was killed"), GAP);
        }
        cluster.lasts(seed.millis(0, 1000)).await;
        for victim in &victims {
            cluster.start_node(*victim).await.expect("the node starts again");
            cluster.lasts(seed.millis(0, 300)).await;
        }
        if seed.between(0, 2) == 0 {
            cluster.ready().await;
        }
        load.flows(10).await;
        println!("{who:?} {victims:?} back: longest wait {}", load.longest_waits());
        cluster.ready().await;
    }
    load.finish(&mut cluster).await;
}
