//! The cluster as one of its nodes sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ackord_machine::site::{Digest, Directory, NodeRow, NodeState, Placement};
use openraft::async_runtime::watch::WatchReceiver;
use serde::{Deserialize, Serialize};

use crate::partition::{Partition, Shared};
use crate::types::NodeId;

/// What a node knows of its cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterView {
    /// The node that looks.
    pub node: NodeId,
    /// The cluster, as its members name it to each other.
    pub cluster: [u8; 16],
    /// Its partitions; 0 before it was founded.
    pub partitions: u32,
    /// Voters per partition when there are so many nodes.
    pub replication: u32,
    /// Every node there ever was, by number.
    pub nodes: Vec<NodeView>,
    /// The directory's group, then the partitions.
    pub groups: Vec<GroupView>,
}

/// A node, as another one sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeView {
    /// What the directory has.
    pub row: NodeRow,
    /// Whether there is a connection to it now; always to oneself.
    pub connected: bool,
    /// Its wall clock minus that of the node that looks, milliseconds, as last compared.
    pub clock_difference_ms: Option<i64>,
}

/// A group, as one of its members sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupView {
    /// Its number; 0 is the directory.
    pub group: u32,
    /// Who leads it, as far as known here.
    pub leader: Option<NodeId>,
    /// The term of the leader.
    pub term: u64,
    /// Who votes. While a change of voters is under way, those before and after it.
    pub voters: Vec<NodeId>,
    /// Who follows without a vote.
    pub learners: Vec<NodeId>,
    /// Whether a change of voters is under way.
    pub changing: bool,
    /// Who shall vote, the one that shall lead first: the directory's choice, or the leader when load
    /// draws the lead to it.
    pub wanted: Vec<NodeId>,
    /// The next entry that is applied here.
    pub applied_next: u64,
    /// The last entry that each follower is known to have; only where the group is led.
    pub followers: BTreeMap<NodeId, Option<u64>>,
    /// The state's hash at the entry that last asked for a comparison.
    pub compared: Option<(u64, Digest)>,
}

impl GroupView {
    /// Whether votes and lead are where they shall be.
    pub fn settled(&self) -> bool {
        let mut wanted = self.wanted.clone();
        wanted.sort_unstable();
        let mut voters = self.voters.clone();
        voters.sort_unstable();
        !self.changing && voters == wanted && self.leader == self.wanted.first().copied()
    }
}

pub(crate) fn look(shared: &Shared, groups: &[Arc<Partition>]) -> ClusterView {
    let directory = groups[0].applied.read().state.directory().clone();
    let placement = directory.placement();
    let identity = shared.store.identity();
    ClusterView {
        node: shared.node,
        cluster: identity.cluster,
        partitions: directory.cluster().map_or(0, |cluster| cluster.partitions),
        replication: directory.cluster().map_or(0, |cluster| cluster.replication),
        nodes: nodes(shared, &directory),
        groups: groups
            .iter()
            .enumerate()
            .map(|(at, partition)| group(partition, placement.get(at)))
            .collect(),
    }
}

fn nodes(shared: &Shared, directory: &Directory) -> Vec<NodeView> {
    let clocks = shared.peers.as_ref().map(|peers| peers.clock_differences()).unwrap_or_default();
    let out = shared.peers.as_ref().is_some_and(|peers| peers.told_removed());
    let view = |row: &NodeRow| {
        let own = row.id == shared.node;
        let mut row = row.clone();
        // The entry that says it never gets here: a node that is out is sent nothing.
        if own && out {
            row.state = NodeState::Removed;
        }
        NodeView {
            connected: own || shared.peers.as_ref().is_some_and(|peers| peers.is_up(row.id)),
            clock_difference_ms: clocks.get(&row.id).copied(),
            row,
        }
    };
    directory.nodes().map(view).collect()
}

fn group(partition: &Partition, wanted: Option<&Placement>) -> GroupView {
    let mut view = GroupView {
        group: partition.number,
        leader: None,
        term: 0,
        voters: Vec::new(),
        learners: Vec::new(),
        changing: false,
        wanted: wanted.map(|placement| placement.voters.clone()).unwrap_or_default(),
        applied_next: partition.applied_next(),
        followers: BTreeMap::new(),
        compared: *partition.compared.lock(),
    };
    let Some(raft) = partition.raft.get() else { return view };
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    view.leader = metrics.current_leader;
    view.term = metrics.current_term;
    view.voters = membership.voter_ids().collect();
    view.learners = membership.learner_ids().collect();
    view.changing = membership.get_joint_config().len() > 1;
    let stays = partition.gauges.stays.load(Ordering::Relaxed);
    if view.leader == Some(stays)
        && let Some(at) = view.wanted.iter().position(|id| *id == stays)
    {
        view.wanted[..=at].rotate_right(1);
    }
    let followers = metrics.replication.iter().flatten();
    view.followers = followers.map(|(id, at)| (*id, at.map(|at| at.index()))).collect();
    view
}
