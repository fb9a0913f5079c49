//! The nodes of a cluster, and which of them vote in which group.
//!
//! Kept in the state of group 0, which every node holds. Every node also holds a replica of every
//! partition; the table below says which of them vote, so that moving a vote moves no data.
//!
//! Invariants: node numbers are never given out twice; who shall vote is a function of the rows
//! alone; numbers of replicas and of leaders differ by at most one between nodes of equal zones.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Voters of the directory itself at most.
pub const DIRECTORY_VOTERS: u32 = 5;
/// Nodes of a cluster at most.
pub const NODES_MAX: usize = 64;
/// Longest address, zone and version of a node, bytes; and its URLs at most.
pub const NODE_TEXT_BYTES_MAX: usize = 255;
/// URLs of a node at most.
pub const NODE_URLS_MAX: usize = 8;

/// What holds for the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Partitions, fixed for good.
    pub partitions: u32,
    /// Voters per partition, when there are so many nodes.
    pub replication: u32,
    /// The number that the next node gets.
    pub next_node: u64,
}

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Where other nodes reach it.
    pub address: String,
    /// Where endpoints and browsers reach it.
    pub urls: Vec<String>,
    /// Nodes of one zone may fail together; empty for none.
    pub zone: String,
    /// The release that it runs.
    pub version: String,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its number.
    pub id: u64,
    /// What it said last.
    pub info: NodeInfo,
    /// Whether it shall vote and lead.
    pub state: NodeState,
    /// Drawn by the node before it asked to join: a repeated request is recognised by it.
    pub nonce: [u8; 16],
}

/// What shall become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It votes, leads and serves.
    Active,
    /// It serves, but shall neither vote nor lead, so that it can be stopped.
    Draining,
    /// It is no member any more. The row stays: its number is never given out again.
    Removed,
    /// As draining; once no group needs it, it is removed, whether it is still there or not.
    Leaving,
}

/// A change of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryCommand {
    /// Takes down the first nodes, by their numbers. Once; again it changes nothing.
    Found {
        /// See [`ClusterRow::partitions`].
        partitions: u32,
        /// See [`ClusterRow::replication`].
        replication: u32,
        /// The nodes.
        nodes: BTreeMap<u64, NodeInfo>,
    },
    /// Takes in another node, which gets the next number.
    Join {
        /// See [`NodeRow::nonce`].
        nonce: [u8; 16],
        /// What it says about itself.
        info: NodeInfo,
    },
    /// A member says what it is by now.
    Announce {
        /// Its number.
        id: u64,
        /// What it says about itself.
        info: NodeInfo,
    },
    /// Makes a member active, draining or none any more.
    SetState {
        /// Its number.
        id: u64,
        /// What shall become of it.
        state: NodeState,
    },
}

/// The directory as rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub(super) cluster: Option<ClusterRow>,
    pub(super) nodes: BTreeMap<u64, NodeRow>,
}

/// Who votes in a group: the first leads if it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The voters, the preferred leader first.
    pub voters: Vec<u64>,
}

impl Directory {
    /// What holds for the cluster as a whole; `None` before it was founded.
    pub fn cluster(&self) -> Option<&ClusterRow> {
        self.cluster.as_ref()
    }

    /// Every node there ever was, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRow> {
        self.nodes.values()
    }

    /// The nodes that belong to the cluster, by number.
    pub fn members(&self) -> impl Iterator<Item = &NodeRow> {
        self.nodes().filter(|node| node.state != NodeState::Removed)
    }

    /// The node of this number.
    pub fn node(&self, id: u64) -> Option<&NodeRow> {
        self.nodes.get(&id)
    }

    /// Who shall vote in each group: the directory's own group first, then partitions 1, 2, ….
    /// Empty before the cluster was founded.
    pub fn placement(&self) -> Vec<Placement> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let active = || self.members().filter(|node| node.state == NodeState::Active);
        // The directory's votes and lead are no load worth balancing.
        let directory = Spread::new(active()).choose(DIRECTORY_VOTERS);
        let mut spread = Spread::new(active());
        let mut groups: Vec<Vec<u64>> =
            (0..cluster.partitions).map(|_| spread.choose(cluster.replication)).collect();
        balance_leaders(&mut groups);
        std::iter::once(directory).chain(groups).map(|voters| Placement { voters }).collect()
    }
}

/// The largest odd number of voters up to `factor` that so many nodes allow.
fn voters(factor: u32, nodes: usize) -> usize {
    let most = usize::try_from(factor).unwrap_or(usize::MAX).min(nodes);
    if most == 0 { 0 } else { most - (most + 1) % 2 }
}

/// Deals groups out to nodes, each to those that have least.
struct Spread<'a> {
    nodes: Vec<(&'a NodeRow, usize)>,
}

impl<'a> Spread<'a> {
    fn new(active: impl Iterator<Item = &'a NodeRow>) -> Self {
        Self { nodes: active.map(|node| (node, 0)).collect() }
    }

    fn choose(&mut self, factor: u32) -> Vec<u64> {
        let mut chosen: Vec<usize> = Vec::new();
        for _ in 0..voters(factor, self.nodes.len()) {
            let in_zone_of = |at: usize| {
                let zone = |at: usize| &self.nodes[at].0.info.zone;
                chosen.iter().filter(|other| zone(**other) == zone(at)).count()
            };
            let free = (0..self.nodes.len()).filter(|at| !chosen.contains(at));
            let next = free.min_by_key(|at| (in_zone_of(*at), self.nodes[*at].1, *at));
            chosen.extend(next);
        }
        for at in &chosen {
            self.nodes[*at].1 += 1;
        }
        chosen.into_iter().map(|at| self.nodes[at].0.id).collect()
    }
}

/// Reorders the voters of each group so that the first, who shall lead, are spread: while one node
/// leads two more groups than another, leads are passed on along a chain of groups between them.
fn balance_leaders(groups: &mut [Vec<u64>]) {
    let mut leads: BTreeMap<u64, usize> = groups.iter().flatten().map(|id| (*id, 0)).collect();
    for group in &*groups {
        if let Some(leader) = group.first() {
            *leads.entry(*leader).or_default() += 1;
        }
    }
    while let Some(chain) = leads.iter().rev().find_map(|(from, most)| {
        chain_between(groups, *from, |to| leads.get(&to).is_some_and(|least| least + 2 <= *most))
    }) {
        for (group, to) in chain {
            let group = &mut groups[group];
            if let Some(at) = group.iter().position(|voter| *voter == to) {
                leads.entry(group[0]).and_modify(|count| *count -= 1);
                leads.entry(to).and_modify(|count| *count += 1);
                group.swap(0, at);
            }
        }
    }
}

/// The groups whose leads are passed on, and to whom, so that `from` leads one less and the first
/// found node that is `wanted` one more.
fn chain_between(
    groups: &[Vec<u64>],
    from: u64,
    wanted: impl Fn(u64) -> bool,
) -> Option<Vec<(usize, u64)>> {
    let mut reached: BTreeMap<u64, Vec<(usize, u64)>> = BTreeMap::from([(from, Vec::new())]);
    let mut next = VecDeque::from([from]);
    while let Some(at) = next.pop_front() {
        let so_far = reached.get(&at).cloned().unwrap_or_default();
        for (index, group) in groups.iter().enumerate().filter(|(_, g)| g.first() == Some(&at)) {
            for voter in &group[1..] {
                if reached.contains_key(voter) {
                    continue;
                }
                let mut chain = so_far.clone();
                chain.push((index, *voter));
                if wanted(*voter) {
                    return Some(chain);
                }
                reached.insert(*voter, chain);
                next.push_back(*voter);
            }
        }
    }
    None
}
