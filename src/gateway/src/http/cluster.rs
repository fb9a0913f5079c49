//! The cluster: its nodes, its groups, and what shall become of a node.

use ackord_agents::{ClusterView, GroupView, NodeView};
use ackord_machine::site::{Command, DirectoryCommand, NodeState};
use ackord_wire::resource::{self, ClusterGroup, ClusterNode, ClusterViews, Compared};
use ackord_wire::{Code, Problem};
use futures_util::future::try_join_all;

use super::answer::Answer;
use super::exchange::{Exchange, refused};
use crate::convert::hex;
use crate::route::NodeAct;

/// `GET /v1/cluster`: as this node sees it.
pub fn show(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&[])?;
    Ok(Answer::ok(&cluster(&allowed.context.broker.node().cluster())))
}

/// `GET /v1/cluster/views`: as each of its nodes sees it.
pub async fn views(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&[])?;
    let (views, not_reached) = allowed.context.broker.views().await;
    Ok(Answer::ok(&ClusterViews {
        items: views.values().map(cluster).collect(),
        not_reached: super::live::not_reached(&not_reached),
    }))
}

/// `POST /v1/cluster/compare`: every replica of every group takes the hash of its state at the
/// same entry.
pub async fn compare(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&[])?;
    let broker = &allowed.context.broker;
    // All at once: after a node has gone silent each of its groups has to find a leader first.
    let groups = 0..broker.node().cluster().groups.len() as u32;
    let entries = groups.map(|group| broker.change_group(group, Command::Compare));
    try_join_all(entries).await.map_err(refused)?;
    allowed.record("cluster.compare", String::new());
    Ok(Answer::ok(&cluster(&broker.node().cluster())))
}

/// `POST /v1/cluster/nodes/{id}/drain`, `undrain`, `remove`, `leave`.
pub async fn set_state(exchange: Exchange<'_>, id: &str, act: NodeAct) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&["force"])?;
    let force = allowed.query.flag("force")?;
    let broker = &allowed.context.broker;
    let id: u64 = id
        .parse()
        .map_err(|_| Problem::new(Code::NotFound, format!("{id:?} is no number of a node")))?;
    let view = cluster(&broker.node().cluster());
    let Some(node) = view.nodes.iter().find(|node| node.id == id) else {
        return Err(Problem::new(Code::NotFound, format!("there is no node {id}")));
    };
    let state = match act {
        NodeAct::Drain => NodeState::Draining,
        NodeAct::Undrain => NodeState::Active,
        // Asked again by a command that was cut off, it may be gone already.
        NodeAct::Leave if node.state == resource::NodeState::Removed => {
            return Ok(Answer::ok(&view));
        }
        NodeAct::Leave => NodeState::Leaving,
        NodeAct::Remove if force || node.safe_to_stop => NodeState::Removed,
        NodeAct::Remove => {
            let detail = format!(
                "node {id} votes in {} groups and leads {}: drain it first, or force it if it is \
                 lost",
                node.votes, node.leads
            );
            return Err(Problem::new(Code::Conflict, detail).field("?force"));
        }
    };
    let command = Command::Directory(DirectoryCommand::SetState { id, state });
    if act == NodeAct::Leave && id == view.node {
        broker.leave().await.map_err(refused)?;
    } else {
        broker.change_group(0, command).await.map_err(refused)?;
    }
    if id == view.node {
        broker.node().shall_stay(state == NodeState::Active);
    }
    let act = match act {
        NodeAct::Drain => "node.drain",
        NodeAct::Undrain => "node.undrain",
        NodeAct::Leave => "node.leave",
        NodeAct::Remove => "node.remove",
    };
    allowed.record(act, format!("nodes/{id}"));
    Ok(Answer::ok(&cluster(&broker.node().cluster())))
}

fn cluster(view: &ClusterView) -> resource::Cluster {
    resource::Cluster {
        cluster: hex(&view.cluster),
        node: view.node,
        partitions: view.partitions,
        replication: view.replication,
        settled: view.groups.iter().all(GroupView::settled),
        nodes: view.nodes.iter().map(|node| self::node(node, &view.groups)).collect(),
        groups: view.groups.iter().map(group).collect(),
    }
}

fn node(node: &NodeView, groups: &[GroupView]) -> ClusterNode {
    let id = node.row.id;
    let count = |of: &dyn Fn(&&GroupView) -> bool| groups.iter().filter(of).count() as u32;
    let votes = count(&|group| group.voters.contains(&id));
    let leads = count(&|group| group.leader == Some(id));
    let state = self::state(node.row.state);
    let info = &node.row.info;
    ClusterNode {
        id,
        state,
        address: info.address.clone(),
        urls: info.urls.clone(),
        zone: info.zone.clone(),
        version: info.version.clone(),
        connected: node.connected,
        clock_difference_ms: node.clock_difference_ms,
        votes,
        leads,
        safe_to_stop: state != resource::NodeState::Active && votes == 0 && leads == 0,
    }
}

/// What shall become of a node, as a resource has it.
pub fn state(state: NodeState) -> resource::NodeState {
    match state {
        NodeState::Active => resource::NodeState::Active,
        NodeState::Draining => resource::NodeState::Draining,
        NodeState::Removed => resource::NodeState::Removed,
        NodeState::Leaving => resource::NodeState::Leaving,
    }
}

fn group(group: &GroupView) -> ClusterGroup {
    let applied = group.applied_next;
    let behind = |at: &Option<u64>| applied.saturating_sub(at.map_or(0, |at| at + 1));
    ClusterGroup {
        group: group.group,
        leader: group.leader,
        term: group.term,
        voters: group.voters.clone(),
        learners: group.learners.clone(),
        wanted: group.wanted.clone(),
        changing: group.changing,
        applied,
        behind: group.followers.iter().map(|(id, at)| (*id, behind(at))).collect(),
        compared: group
            .compared
            .as_ref()
            .map(|(index, hash)| Compared { index: *index, hash: hex(&hash.0) }),
    }
}
