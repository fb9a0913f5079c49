//! Links that break in every way, and a node that stops for a while without knowing it.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::mesh::OUTSIDE;
use cluster_tests::seed::Seed;
use cluster_tests::wait;
use serde_json::Value;

use cluster_tests::load::Load;

/// How long an event may wait when a node is cut off silently.
const GAP: Duration = Duration::from_millis(2500);

/// How long a link is broken.
const BROKEN: Duration = Duration::from_secs(4);

/// What happens to one node, for a while.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its process is suspended: whatever it led it still believes to lead when it goes on.
    Paused,
    /// Nothing reaches it and nothing comes from it.
    Alone,
    /// Only endpoints reach it.
    WithoutPeers,
    /// Peers do not hear it.
    Mute,
    /// It does not hear its peers.
    Deaf,
    /// It does not hear one peer.
    DeafToOne,
    /// The link to one peer is broken.
    OneLink,
    /// All its links come and go.
    Flapping,
}

const FAULTS: [Fault; 8] = [
    Fault::Paused,
    Fault::Alone,
    Fault::WithoutPeers,
    Fault::Mute,
    Fault::Deaf,
    Fault::DeafToOne,
    Fault::OneLink,
    Fault::Flapping,
];

/// Brings a fault about, and ends it after a while in which the others went on.
async fn strike(cluster: &Cluster, load: &Load, seed: &mut Seed, fault: Fault) {
    let nodes = cluster.some(seed, cluster.size());
    let (victim, other, third) = (nodes[0], nodes[1], nodes[2]);
    let mesh = cluster.mesh();
    println!("{fault:?}: node {victim}, and {other} where two are concerned");
    // Through whom all goes on meanwhile.
    let mut witnesses = vec![other, third];
    match fault {
        Fault::Paused => cluster.pause(victim).expect("the node runs"),
        Fault::Alone => mesh.cut_alone(victim),
        Fault::WithoutPeers => mesh.cut_from_peers(victim),
        Fault::Mute => {
            mesh.set_blocked(victim, other, true);
            mesh.set_blocked(victim, third, true);
        }
        Fault::Deaf => {
            mesh.set_blocked(other, victim, true);
            mesh.set_blocked(third, victim, true);
        }
        Fault::DeafToOne => {
            mesh.set_blocked(other, victim, true);
            witnesses = vec![third];
        }
        Fault::OneLink => {
            mesh.set_blocked(other, victim, true);
            mesh.set_blocked(victim, other, true);
            witnesses = vec![third];
        }
        Fault::Flapping => {
            for _ in 0..8 {
                mesh.cut_alone(victim);
                cluster.lasts(seed.millis(20, 500)).await;
                mesh.heal();
                if seed.between(0, 2) == 0 {
                    mesh.reset(victim, [OUTSIDE, other, third][seed.between(0, 3) as usize]);
                }
                cluster.lasts(seed.millis(20, 300)).await;
            }
        }
    }
    for witness in witnesses {
        load.served_by(cluster, witness).await;
    }
    cluster.lasts(seed.millis(0, 2000)).await;
    if matches!(fault, Fault::Paused) {
        cluster.resume(victim).expect("the node runs");
    }
    mesh.heal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_repeated_whatever_link_breaks() {
    let mut seed = Seed::of_test("cluster", "whatever_link_breaks");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    for fault in FAULTS.into_iter().cycle().take(super::rounds(FAULTS.len())) {
        load.flows(seed.between(5, 40)).await;
        load.longest_waits();
        strike(&cluster, &load, &mut seed, fault).await;
        load.flows(10).await;
        load.check_waits(&format!("over {fault:?}"), GAP);
        cluster.ready().await;
    }
    load.finish(&mut cluster).await;
}

/// Who leads each group, in which term, as a node sees it.
async fn leads(cluster: &Cluster, node: usize) -> Vec<(u64, u64)> {
    let view = cluster.view(node).await.expect("the node answers");
    let groups = view["groups"].as_array().cloned().unwrap_or_default();
    let lead = |group: &Value| Some((group["leader"].as_u64()?, group["term"].as_u64()?));
    groups.iter().filter_map(lead).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broken_link_deposes_nobody() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    // As each of them sees it: what a witness has not heard of yet is no change.
    for node in 1..=3 {
        let settled = async || {
            let view = cluster.view(node).await.ok()?;
            let groups = view["groups"].as_array()?;
            let led = groups.iter().all(|group| group["leader"].is_u64());
            (view["settled"] == true && led).then_some(())
        };
        wait::until("every leader to be in its place", settled).await;
    }
    for (one, other, witness) in [(1, 2, 3), (2, 3, 1), (3, 1, 2)] {
        let before = leads(&cluster, witness).await;
        assert!(before.iter().any(|(leader, _)| *leader == one as u64), "{before:?}");
        cluster.mesh().set_blocked(one, other, true);
        cluster.mesh().set_blocked(other, one, true);
        cluster.mesh().reset(one, other);
        // Longer than any timeout of an election.
        cluster.lasts(BROKEN).await;
        assert_eq!(leads(&cluster, witness).await, before, "{one} and {other} cannot talk");
        cluster.mesh().heal();
        wait::until_true("both to be up to date again", async || {
            leads(&cluster, one).await == before && leads(&cluster, other).await == before
        })
        .await;
    }
}
