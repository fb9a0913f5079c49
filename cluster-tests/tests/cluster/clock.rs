//! A wall clock that is an hour off, in either direction: of a node that leads, and of one that
//! starts.

use std::time::{Duration, Instant};

use ackord_endpoint::Event;
use cluster_tests::admin::Admin;
use cluster_tests::cluster::Cluster;
use cluster_tests::raiser::{Raiser, json};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Site, queueing, structure, with};
use cluster_tests::wait;
use serde_json::json as value;

use cluster_tests::load::{Load, OUTCOME};

const HOUR_MS: i64 = 3_600_000;
/// How long an event of this test lives.
const LIFETIME: Duration = Duration::from_secs(4);
/// How long a node may take to see that its clock is off, and a little.
const SEEN: Duration = Duration::from_millis(400);
/// What a lifetime may lack: clocks that are right differ by less, on one machine.
const EARLY: Duration = Duration::from_millis(100);
const EVENT: &str = "short-lived";

/// A site of which it is known which group keeps it.
struct Timed {
    site: Site,
    raiser: Raiser,
    group: usize,
    raised: u64,
}

impl Timed {
    /// Of a cluster in which nothing else happens.
    async fn new(cluster: &Cluster) -> Self {
        let applied = async || {
            let view = cluster.view(1).await.expect("the node answers");
            let groups = view["groups"].as_array().cloned().unwrap_or_default();
            groups.iter().filter_map(|group| group["applied"].as_u64()).collect::<Vec<_>>()
        };
        let event = with(queueing(EVENT, 1000), "lifetime_s", value!(LIFETIME.as_secs()));
        let structure = structure(&[event]);
        let (admin, urls) = (cluster.admin(1), cluster.urls_from(1));
        let site = Site::new_at(admin, urls, "timed", &structure).await;
        let raiser = site.raises("clockwork").await;
        let before = applied().await;
        for n in 0..50 {
            raiser.raise(EVENT, n).await;
        }
        let after = applied().await;
        let grown = |group: &usize| after[*group] - before[*group];
        let group = (0..after.len()).max_by_key(grown).expect("there are groups");
        Self { site, raiser, group, raised: 0 }
    }

    /// Raises an event through a cluster in which a clock is wrong or about to be; when.
    async fn raise(&mut self) -> (u64, Instant) {
        self.raised += 1;
        let event = Event::new(EVENT, Some(json(value!({ "raised": self.raised }))));
        let before = Instant::now();
        let outcome = self.raiser.send(event).await.expect("the event is accepted");
        (outcome.instance_id.expect("it has an id"), before)
    }

    /// Raises one event after the other until the node whose clock is off has had time to see it: what
    /// it stamps until then must not be its own time. The last of them.
    async fn raise_on(&mut self) -> (u64, Instant) {
        let since = Instant::now();
        loop {
            let raised = self.raise().await;
            if since.elapsed() >= SEEN {
                return raised;
            }
        }
    }

    /// Waits until an instance is gone, as a node whose clock is right sees it, and judges when
    /// that was; the time it lived.
    async fn lives(&self, right: &Admin, (instance, raised): (u64, Instant)) -> Duration {
        wait::until_for(OUTCOME, &format!("instance {instance} to expire"), async || {
            // No answer is none: its groups may have no leader for a moment.
            let retained = right.retained(&self.site.name, EVENT).await.ok()?;
            (!retained.contains(&instance)).then_some(())
        })
        .await;
        let lived = raised.elapsed();
        assert!(lived + EARLY >= LIFETIME, "instance {instance} was gone after {lived:?}");
        lived
    }
}

/// Waits until a node neither leads nor serves.
pub async fn until_set_aside(cluster: &Cluster, node: usize) {
    let other = 1 + node % cluster.size();
    wait::until_true(&format!("node {node} to lead nothing"), async || {
        let Ok(view) = cluster.view(other).await else { return false };
        let groups = view["groups"].as_array().cloned().unwrap_or_default();
        let leads = |group: &serde_json::Value| group["leader"].as_u64() == Some(node as u64);
        groups.iter().all(|group| group["leader"].is_u64() && !leads(group))
            && !cluster.admin(node).is_ready().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lifetime_ends_early_and_nothing_is_lost_when_a_clock_is_an_hour_off() {
    let mut seed = Seed::of_test("cluster", "a_clock_is_an_hour_off");
    let mut cluster = Cluster::start_with_clocks(3).await.expect("the cluster starts");
    let mut timed = Timed::new(&cluster).await;
    let load = Load::start(&cluster).await;
    for ahead_ms in [HOUR_MS, -HOUR_MS].into_iter().cycle().take(super::rounds(2)) {
        // While it leads.
        let known = async || cluster.leader(timed.group, 1).await;
        let leader = wait::until("a leader", known).await;
        let since = Instant::now();
        let before = timed.raise().await;
        cluster.set_clock(leader, ahead_ms).expect("the clock is set");
        let after = timed.raise_on().await;
        until_set_aside(&cluster, leader).await;
        println!("node {leader}, {ahead_ms} ms: set aside after {:?}", since.elapsed());
        let later = timed.raise().await;
        load.flows(10).await;
        let right = cluster.admin(1 + leader % cluster.size());
        for event in [before, after, later] {
            println!("lived {:?}", timed.lives(&right, event).await);
        }
        cluster.set_clock(leader, 0).expect("the clock is set");
        cluster.ready().await;
        // From its start on.
        let late = cluster.some(&mut seed, 1)[0];
        let before = timed.raise().await;
        cluster.kill(late);
        cluster.set_clock(late, ahead_ms).expect("the clock is set");
        cluster.start_node(late).await.expect("the node starts");
        let after = timed.raise().await;
        load.flows(10).await;
        until_set_aside(&cluster, late).await;
        let right = cluster.admin(1 + late % cluster.size());
        for event in [before, after] {
            println!("lived {:?}", timed.lives(&right, event).await);
        }
        cluster.set_clock(late, 0).expect("the clock is set");
        cluster.ready().await;
        println!("longest wait {}", load.longest_waits());
    }
    timed.raiser.close().await;
    load.finish(&mut cluster).await;
}
