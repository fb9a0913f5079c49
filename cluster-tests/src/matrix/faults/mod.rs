//! The faults of the rows: each function is one round of one row.
//!
//! Every fault says how often it really happened ([`Run::injected`]), by what it met: a process that
//! was gone, a piece that was held, a change that was undone.

mod disks;
mod kills;
mod links;
mod members;
mod power;
mod squeeze;

pub use disks::{bit_flips, failing_syncs, full_disk, old_disk, wiped};
pub use kills::{
    absence, crashes, kill_leader, kill_many, kill_one, kill_while_away, rolling, zombie,
};
pub use links::{flapping, leader_without_peers, one_way, partition, ring_or_bridge, slow_links};
pub use members::members;
pub use power::{everything, power, power_and_pause, power_in_work};
pub use squeeze::{clocks, memory, squeeze};

use super::{HOLDS, Run};
use crate::cluster::{Cluster, READY};
use crate::seed::Seed;
use crate::wait;

/// A node that leads some group, and the group.
async fn leader(cluster: &Cluster, seed: &mut Seed) -> (usize, usize) {
    let group = seed.between(0, 5) as usize;
    let asked = cluster.running()[0];
    let known = async || cluster.leader(group, asked).await.filter(|node| cluster.runs(*node));
    (wait::until_for(READY, "a leader", known).await, group)
}

/// So many of the nodes that run, in random order.
fn victims(cluster: &Cluster, seed: &mut Seed, count: usize) -> Vec<usize> {
    let mut running = cluster.running();
    while running.len() > count {
        running.remove(seed.between(0, running.len() as u64) as usize);
    }
    let turn = seed.between(0, running.len().max(1) as u64) as usize;
    running.rotate_left(turn);
    running
}

/// The nodes that run, without this one.
fn others(cluster: &Cluster, node: usize) -> Vec<usize> {
    cluster.running().into_iter().filter(|other| *other != node).collect()
}

/// Whether a node that was started ended by itself, and did not serve.
async fn refuses_to_start(cluster: &mut Cluster, node: usize) -> bool {
    let admin = cluster.admin(node);
    let what = format!("node {node} to serve or to end");
    let served = wait::until_for(READY, &what, async || {
        if cluster.has_ended(node) {
            return Some(false);
        }
        admin.is_ready().await.then_some(true)
    })
    .await;
    if !served {
        let code = cluster.ended(node).await.expect("it ran");
        assert_ne!(code, Some(0), "node {node} did not serve and called it success");
        assert_ne!(code, Some(101), "node {node} panicked: {}", cluster.log(node));
    }
    !served
}

/// Puts a new node on an empty disk in the place of one that is lost, as an operator does; gives its
/// number.
pub async fn replace(cluster: &mut Cluster, lost: usize) -> usize {
    let asked = cluster.running()[0];
    let words = ["cluster", "replace", &lost.to_string()];
    let mut replacing = cluster.tool(asked, &words);
    let table = cluster.operate(asked, &["cluster", "join"]).await;
    let members: Vec<String> = serde_json::from_value(table["join"].clone()).expect("addresses");
    let node = cluster.add(&members).expect("there is room");
    cluster.start_node(node).await.expect("the node starts");
    let what = "the node to be replaced";
    wait::until_for(READY, what, async || replacing.has_ended().then_some(())).await;
    assert_eq!(replacing.ended().await, Some(0), "{}", replacing.errors());
    cluster.until_ready(node).await;
    node
}
