//! Founding a cluster, coming back, losing a disk, joining and leaving.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ackord_machine::site::{Command, DirectoryCommand, NodeState, Outcome};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::cluster::{eventually, persist, within};
use super::fixture::{Publisher, options};
use crate::{GroupView, Node, NodeOptions, PeerOptions, StartError};

/// An address that nobody listens on, nor a process that another test is just starting.
fn free() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    socket.local_addr().unwrap()
}

pub(super) struct Place {
    dir: TempDir,
    at: SocketAddr,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), at: free() }
    }
}

fn clustered(dir: &Path, peers: PeerOptions) -> NodeOptions {
    NodeOptions { peers: Some(peers), ..options(dir) }
}

async fn start(options: NodeOptions) -> Result<Arc<Node>, StartError> {
    within("a start", tokio::task::spawn_blocking(move || Node::start(options).map(Arc::new)))
        .await
        .unwrap()
}

fn founding(place: &Place, initial: &[String]) -> NodeOptions {
    let peers = PeerOptions { initial: initial.to_vec(), ..PeerOptions::new(place.at) };
    clustered(place.dir.path(), peers)
}

/// Three empty nodes that found a cluster together, all ready.
pub(super) async fn found(places: &[Place]) -> (Vec<String>, Vec<Arc<Node>>) {
    let initial: Vec<String> = places.iter().map(|place| place.at.to_string()).collect();
    let starting = places.iter().map(|place| start(founding(place, &initial)));
    let nodes: Vec<Arc<Node>> =
        join_all(starting).await.into_iter().map(|node| node.unwrap()).collect();
    ready(&nodes).await;
    (initial, nodes)
}

async fn ready(nodes: &[Arc<Node>]) {
    eventually("all are ready", || nodes.iter().all(|node| node.ready())).await;
}

/// Waits until every group is where the directory wants it, as each node sees it.
pub(super) async fn settled(nodes: &[Arc<Node>]) {
    eventually("votes and leads are where they shall be", || {
        nodes.iter().all(|node| node.cluster().groups.iter().all(GroupView::settled))
    })
    .await;
}

async fn set_state(node: &Node, id: u64, state: NodeState) {
    let command = Command::Directory(DirectoryCommand::SetState { id, state });
    assert_eq!(persist(&node.directory(), command).await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_empty_nodes_when_all_are_there_then_they_are_one_cluster_and_stay_it() {
    let places = [Place::new(), Place::new(), Place::new()];
    let (initial, mut nodes) = found(&places).await;
    let clusters: Vec<_> = nodes.iter().map(|node| node.cluster().cluster).collect();
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]));
    let mut ids: Vec<_> = nodes.iter().map(|node| node.id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    settled(&nodes).await;
    eventually("the directory knows them as they are", || {
        let rows = nodes[1].cluster().nodes;
        rows.len() == 3 && rows.iter().all(|node| !node.row.info.version.is_empty())
    })
    .await;

    let id = nodes[2].id();
    nodes.remove(2).shutdown();
    let again = start(founding(&places[2], &initial)).await.unwrap();
    assert_eq!((again.id(), again.cluster().cluster), (id, clusters[0]));
    nodes.push(again);
    ready(&nodes).await;
    for place in &places {
        let left = std::fs::read_dir(place.dir.path()).unwrap();
        let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!names.into_iter().any(|name| name.starts_with("founding")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_whose_disk_is_lost_then_it_founds_nothing_and_comes_back_as_another_one() {
    let mut places = [Place::new(), Place::new(), Place::new()];
    let (initial, mut nodes) = found(&places).await;
    let mut publisher = Publisher::create(&nodes[1], "plant", 50).await;
    publisher.send(10).unwrap().await.unwrap();

    // The first of the list, which has founded the cluster.
    let lost = nodes.remove(0);
    let old = lost.id();
    lost.shutdown();
    drop(lost);
    places[0].dir = tempfile::tempdir().unwrap();
    let refused = start(founding(&places[0], &initial)).await;
    assert!(matches!(refused, Err(StartError::Lost { .. })), "{:?}", refused.map(drop));

    set_state(&nodes[0], old, NodeState::Removed).await;
    let join = initial[1..].to_vec();
    let peers = PeerOptions { join, ..PeerOptions::new(places[0].at) };
    let another = start(clustered(places[0].dir.path(), peers)).await.unwrap();
    assert_eq!(another.id(), 4);
    nodes.push(another);
    ready(&nodes).await;
    settled(&nodes).await;
    let found = nodes[2]
        .partition_of(&"plant".into())
        .read(|state| state.site("plant").map(|site| site.head().0));
    assert_eq!(found, Some(1));
    publisher.send(10).unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_cluster_that_grows_and_shrinks_under_load_then_nothing_is_lost() {
    let places = [Place::new(), Place::new(), Place::new()];
    let (initial, mut nodes) = found(&places).await;
    let mut publisher = Publisher::create(&nodes[0], "plant", 1000).await;
    let more = [Place::new(), Place::new()];
    for place in &more {
        let peers = PeerOptions { join: initial.clone(), ..PeerOptions::new(place.at) };
        nodes.push(start(clustered(place.dir.path(), peers)).await.unwrap());
        publisher.send(10).unwrap().await.unwrap();
    }
    ready(&nodes).await;
    settled(&nodes).await;
    assert!(nodes[4].cluster().groups.iter().any(|group| group.voters.contains(&5)));

    for id in [4, 5] {
        set_state(&nodes[1], id, NodeState::Draining).await;
        publisher.send(10).unwrap().await.unwrap();
    }
    settled(&nodes).await;
    let safe = |group: &GroupView| !group.voters.iter().any(|voter| *voter > 3);
    assert!(nodes[1].cluster().groups.iter().all(safe));
    for id in [4, 5] {
        set_state(&nodes[1], id, NodeState::Removed).await;
    }
    nodes.truncate(3);
    eventually("they are followed no more", || {
        nodes[1].cluster().groups.iter().all(|group| group.learners.is_empty())
    })
    .await;
    publisher.send(10).unwrap().await.unwrap();
    let head = nodes[2].partition_of(&"plant".into());
    eventually("all is everywhere", || {
        head.read(|state| state.site("plant").is_some_and(|site| site.head().0 == 5))
    })
    .await;
}

/// What every node of a set is started with, whichever it is.
fn either(place: &Place, all: &[String]) -> NodeOptions {
    let (initial, join) = (all.to_vec(), all.to_vec());
    clustered(place.dir.path(), PeerOptions { initial, join, ..PeerOptions::new(place.at) })
}

fn state_of(node: &Node, id: u64) -> Option<NodeState> {
    node.cluster().nodes.iter().find(|node| node.row.id == id).map(|node| node.row.state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_one_configuration_for_all_then_the_first_found_and_those_that_come_later_join() {
    let mut places = [Place::new(), Place::new(), Place::new(), Place::new()];
    let all: Vec<String> = places[..3].iter().map(|place| place.at.to_string()).collect();
    let starting = places[..3].iter().map(|place| start(either(place, &all)));
    let mut nodes: Vec<Arc<Node>> =
        join_all(starting).await.into_iter().map(|node| node.unwrap()).collect();
    ready(&nodes).await;

    // One that none of them knows.
    let fourth = start(either(&places[3], &all)).await.unwrap();
    assert_eq!(fourth.id(), 4);
    nodes.push(fourth);
    ready(&nodes).await;

    // One whose disk is lost: taken in once its old number is out.
    let lost = nodes.remove(0);
    let old = lost.id();
    lost.shutdown();
    drop(lost);
    set_state(&nodes[0], old, NodeState::Removed).await;
    places[0].dir = tempfile::tempdir().unwrap();
    let again = start(either(&places[0], &all)).await.unwrap();
    assert_eq!(again.id(), 5);
    nodes.push(again);
    ready(&nodes).await;
    settled(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_nodes_that_leave_then_the_others_take_them_out_also_when_they_are_gone() {
    let places = [Place::new(), Place::new(), Place::new()];
    let (initial, mut nodes) = found(&places).await;
    let mut publisher = Publisher::create(&nodes[0], "plant", 1000).await;
    let more = [Place::new(), Place::new()];
    for place in &more {
        let peers = PeerOptions { join: initial.clone(), ..PeerOptions::new(place.at) };
        nodes.push(start(clustered(place.dir.path(), peers)).await.unwrap());
    }
    ready(&nodes).await;
    settled(&nodes).await;

    for id in [4, 5] {
        set_state(&nodes[1], id, NodeState::Leaving).await;
    }
    // One of them does not see the end of it.
    nodes.remove(3).shutdown();
    publisher.send(10).unwrap().await.unwrap();
    eventually("both are members no more", || {
        [4, 5].iter().all(|id| state_of(&nodes[1], *id) == Some(NodeState::Removed))
    })
    .await;
    nodes.truncate(3);
    settled(&nodes).await;
    let stays =
        |group: &GroupView| group.voters.len() == 3 && group.voters.iter().all(|id| *id < 4);
    assert!(nodes[1].cluster().groups.iter().all(stays));
    publisher.send(10).unwrap().await.unwrap();

    let leave = DirectoryCommand::SetState { id: 3, state: NodeState::Leaving };
    let refused = persist(&nodes[0].directory(), Command::Directory(leave)).await;
    assert!(matches!(refused, Outcome::Refused(_)), "two would be fewer than three voters");
    assert_eq!(state_of(&nodes[0], 3), Some(NodeState::Active));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_that_has_started_when_the_others_go_then_its_start_stays_over() {
    let places = [Place::new(), Place::new(), Place::new()];
    let (initial, mut nodes) = found(&places).await;
    eventually("all have started", || nodes.iter().all(|node| node.started())).await;
    nodes.truncate(1);
    eventually("it is not ready", || !nodes[0].ready()).await;
    assert!(nodes[0].started());
    nodes.clear();

    // Alone it cannot know what was acknowledged before it came back.
    let alone = start(founding(&places[0], &initial)).await.unwrap();
    assert!(!alone.started());
    let other = start(founding(&places[1], &initial)).await.unwrap();
    eventually("two are a majority", || alone.started() && other.started()).await;
}
