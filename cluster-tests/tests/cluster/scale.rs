//! A cluster that grows from three nodes to five and shrinks to three again, under load and by the
//! means of an operator: `ackord cluster join`, `drain`, `remove`, and `ackord serve`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackord_wire::resource;
use cluster_tests::admin::Admin;
use cluster_tests::cluster::{Cluster, READY};
use cluster_tests::seed::Seed;
use cluster_tests::wait;
use reqwest::Method;
use tokio::task::JoinHandle;

use cluster_tests::load::Load;

/// How long a publisher may have to wait while votes and leads move; the test allows ten times it.
const WAIT: Duration = Duration::from_millis(500);
/// Between two looks at who votes.
const LOOK: Duration = Duration::from_millis(50);

pub async fn view(cluster: &Cluster, node: usize) -> resource::Cluster {
    let view = cluster.view(node).await.expect("the node answers");
    serde_json::from_value(view).expect("a cluster")
}

/// Each group as the node that leads it sees it: nobody knows better who votes.
async fn groups(cluster: &Cluster) -> Vec<resource::ClusterGroup> {
    let running = cluster.running();
    wait::until("every group to be led", async || {
        let views = running.iter().map(|node| view(cluster, *node));
        let views = futures_util::future::join_all(views).await;
        (0..views[0].groups.len())
            .map(|group| {
                let led = |view: &&resource::Cluster| view.groups[group].leader == Some(view.node);
                views.iter().find(led).map(|view| view.groups[group].clone())
            })
            .collect()
    })
    .await
}

/// Looks, again and again, whether the voters that run are a majority of each group.
struct Lookout {
    running: Arc<Mutex<BTreeMap<u64, Admin>>>,
    seen: Arc<Mutex<Seen>>,
    looking: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// Looks at each group, by its leader.
    looks: BTreeMap<u32, usize>,
    /// Groups without a majority.
    wrong: Vec<String>,
}

impl Seen {
    fn look(&mut self, view: &resource::Cluster, running: &BTreeSet<u64>) {
        for group in view.groups.iter().filter(|group| group.leader == Some(view.node)) {
            *self.looks.entry(group.group).or_default() += 1;
            let up = group.voters.iter().filter(|voter| running.contains(voter)).count();
            if up * 2 <= group.voters.len() {
                let (group, voters) = (group.group, &group.voters);
                self.wrong.push(format!("group {group}: {voters:?} vote, {running:?} run"));
            }
        }
    }
}

impl Lookout {
    fn start(cluster: &Cluster) -> Self {
        let running = cluster.running().into_iter();
        let running = running.map(|node| (node as u64, cluster.admin(node))).collect();
        let running: Arc<Mutex<BTreeMap<u64, Admin>>> = Arc::new(Mutex::new(running));
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (nodes, told) = (running.clone(), seen.clone());
        let looking = tokio::spawn(async move {
            let mut pace = tokio::time::interval(LOOK);
            loop {
                pace.tick().await;
                let nodes = lock(&nodes).clone();
                let running: BTreeSet<u64> = nodes.keys().copied().collect();
                let views =
                    nodes.values().map(|admin| admin.call(Method::GET, "/v1/cluster", None));
                // A node that does not answer is being stopped, or has not yet begun.
                for view in futures_util::future::join_all(views).await.into_iter().flatten() {
                    let view = serde_json::from_value(view).expect("a cluster");
                    lock(&told).look(&view, &running);
                }
            }
        });
        Self { running, seen, looking }
    }

    fn comes(&self, cluster: &Cluster, node: usize) {
        lock(&self.running).insert(node as u64, cluster.admin(node));
    }

    fn leaves(&self, node: usize) {
        lock(&self.running).remove(&(node as u64));
    }

    /// How often the group was looked at that was looked at least.
    fn end(self, groups: usize) -> usize {
        self.looking.abort();
        let seen = lock(&self.seen);
        assert!(seen.wrong.is_empty(), "without a majority: {:#?}", seen.wrong);
        assert_eq!(seen.looks.len(), groups, "every group was looked at");
        seen.looks.values().min().copied().unwrap_or(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until votes and leads of the partitions are spread evenly over these nodes.
pub async fn until_balanced(cluster: &Cluster) {
    let running: Vec<u64> = cluster.running().into_iter().map(|node| node as u64).collect();
    let since = Instant::now();
    let (votes, leads) = wait::until_for(READY, "votes and leads to be balanced", async || {
        let groups = groups(cluster).await;
        let all_stay = |voters: &[u64]| voters.iter().all(|voter| running.contains(voter));
        if !groups.iter().all(|group| !group.changing && all_stay(&group.voters)) {
            return None;
        }
        // The directory's votes are no load.
        let count = |of: &dyn Fn(&resource::ClusterGroup, u64) -> bool| -> Vec<usize> {
            let counts = running
                .iter()
                .map(|node| groups[1..].iter().filter(|group| of(group, *node)).count());
            counts.collect()
        };
        let votes = count(&|group, node| group.voters.contains(&node));
        let leads = count(&|group, node| group.leader == Some(node));
        let even = |counts: &[usize]| {
            counts.iter().max().copied().unwrap_or(0)
                <= counts.iter().min().copied().unwrap_or(0) + 1
        };
        let replicated = groups[1..].iter().all(|group| group.voters.len() == 3);
        (replicated && even(&votes) && even(&leads)).then_some((votes, leads))
    })
    .await;
    println!("nodes {running:?}: votes {votes:?}, leads {leads:?} after {:?}", since.elapsed());
}

async fn join(cluster: &mut Cluster, load: &Load, lookout: &Lookout) {
    let asked = cluster.running()[0];
    let table = cluster.operate(asked, &["cluster", "join"]).await;
    let members: Vec<String> = serde_json::from_value(table["join"].clone()).expect("addresses");
    let node = cluster.add(&members).expect("there is room");
    cluster.start_node(node).await.expect("the node starts");
    lookout.comes(cluster, node);
    cluster.until_ready(node).await;
    assert_eq!(view(cluster, node).await.node, node as u64, "numbers are given out in order");
    load.flows(10).await;
    load.check_waits(&format!("while node {node} joined"), WAIT);
}

async fn leave(cluster: &mut Cluster, load: &Load, lookout: &Lookout, node: usize) {
    let asked = cluster.running().into_iter().find(|other| *other != node).expect("others");
    let since = Instant::now();
    let drained = cluster.operate(asked, &["cluster", "drain", &node.to_string()]).await;
    println!("node {node} drained after {:?}", since.elapsed());
    assert_eq!(drained["done"], true, "{drained}");
    for group in groups(cluster).await {
        assert!(!group.voters.contains(&(node as u64)), "node {node} was safe to stop: {group:?}");
        assert_ne!(group.leader, Some(node as u64), "node {node} was safe to stop: {group:?}");
    }
    load.flows(10).await;
    load.check_waits(&format!("while node {node} drained"), WAIT);
    lookout.leaves(node);
    assert_eq!(cluster.stop(node).await.expect("it runs"), Some(0), "it stops in order");
    load.flows(10).await;
    load.check_waits(&format!("while node {node} stopped"), WAIT);
    cluster.operate(asked, &["cluster", "remove", &node.to_string()]).await;
    let known = view(cluster, asked).await;
    let removed = known.nodes.iter().find(|known| known.id == node as u64);
    assert_eq!(removed.map(|node| node.state), Some(resource::NodeState::Removed));
    load.flows(10).await;
    load.check_waits(&format!("while node {node} was removed"), WAIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_nodes_and_shrinks_to_three_while_it_serves() {
    let mut seed = Seed::of_test("cluster", "grows_to_five_nodes");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let lookout = Lookout::start(&cluster);
    load.longest_waits();
    for _ in 0..super::rounds(1) {
        while cluster.running().len() < 5 {
            join(&mut cluster, &load, &lookout).await;
        }
        until_balanced(&cluster).await;
        load.check_waits("while votes and leads spread over five nodes", WAIT);
        while cluster.running().len() > 3 {
            let mut running = cluster.running();
            // The endpoints know the first three nodes to begin with: one of them stays.
            if running.iter().filter(|node| **node <= 3).count() == 1 {
                running.retain(|node| *node > 3);
            }
            let gone = running[seed.between(0, running.len() as u64) as usize];
            leave(&mut cluster, &load, &lookout, gone).await;
        }
        until_balanced(&cluster).await;
        load.check_waits("while votes and leads spread over three nodes", WAIT);
    }
    let groups = groups(&cluster).await.len();
    println!("each group was looked at {} times or more", lookout.end(groups));
    load.finish(&mut cluster).await;
}
