//! Brings every group to the members, voters and leader that the directory wants for it.
//!
//! `directory's placement, membership as it is ─▶ next_step ─▶ one change ─▶ look again`
//!
//! Every leader does this for the groups it leads, so nobody has to be asked and a crash leaves
//! nothing that the next leader would not find and finish. Among the voters that the directory wants
//! the lead goes to the one that [`Draw`]s it by its load, else to the first. Invariants: one change of a group at a
//! time; a joint membership is finished before another one begins; votes go only to nodes that
//! have nearly all of the log, and a leader gives its own vote away last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ackord_machine::site::{Command, Directory, DirectoryCommand, NodeState, Placement};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, ChangeMembers, Membership, RaftMetrics};
use tokio::time::{Instant, timeout};

use crate::handover::hand_over;
use crate::partition::{Partition, Shared};
use crate::sources::Draw;
use crate::types::{NodeId, Raft, TypeConfig};

/// How often a leader looks whether something is to be done.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long one change may take before it is looked at anew.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// How long the directory may take to remove a node before that is looked at anew.
const TAKE_OUT_LIMIT: Duration = Duration::from_secs(1);
/// Entries that a node may lack to be given a vote or the lead.
const LAG_MAX: u64 = 1000;
/// How long a leader has led before it gives the lead away for balance.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the lead is not offered again after an offer came to nothing.
const TRANSFER_PAUSE: Duration = Duration::from_secs(2);
/// How long a lead that is not where the directory wants it has stayed there before nodes that do not
/// lead take it that it is drawn there: longer than it takes to give it back.
const STAYS: Duration = Duration::from_secs(10);
/// How long a new leader has to show itself.
const TRANSFER_LIMIT: Duration = Duration::from_millis(500);

/// A group as its leader sees it.
#[derive(Debug)]
struct Group<'a> {
    me: NodeId,
    membership: &'a Membership<NodeId, BasicNode>,
    /// Nodes that have nearly all of the log and are connected.
    close: BTreeSet<NodeId>,
    /// The node that brings nearly all of the load.
    draws: Option<NodeId>,
}

/// One change towards what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Changes of who follows, and where they are; it costs nothing to anyone else.
    Nodes(ChangeMembers<NodeId, BasicNode>),
    /// Another set of voters.
    Voters(BTreeSet<NodeId>),
    /// Another leader.
    Transfer(NodeId),
}

/// What to do next; `None` when everything is as it should be, or has to wait.
fn next_step(group: &Group<'_>, directory: &Directory, wanted: &Placement) -> Option<Step> {
    let membership = group.membership;
    let configs = membership.get_joint_config();
    if let [_, .., last] = configs.as_slice() {
        return Some(Step::Voters(last.clone()));
    }
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let known: BTreeMap<NodeId, &BasicNode> =
        membership.nodes().map(|(id, node)| (*id, node)).collect();
    let members: BTreeMap<NodeId, BasicNode> =
        directory.members().map(|node| (node.id, BasicNode::new(&node.info.address))).collect();

    let new: BTreeMap<_, _> = members
        .iter()
        .filter(|(id, _)| !known.contains_key(*id))
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    if !new.is_empty() {
        return Some(Step::Nodes(ChangeMembers::AddNodes(new)));
    }
    let moved: BTreeMap<_, _> = members
        .iter()
        .filter(|(id, node)| known.get(*id).is_some_and(|known| known.addr != node.addr))
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    if !moved.is_empty() {
        return Some(Step::Nodes(ChangeMembers::SetNodes(moved)));
    }
    let gone: BTreeSet<_> = known
        .keys()
        .copied()
        .filter(|id| !members.contains_key(id) && !voters.contains(id))
        .collect();
    if !gone.is_empty() {
        return Some(Step::Nodes(ChangeMembers::RemoveNodes(gone)));
    }
    if let Some(step) = next_voters(group, &voters, wanted) {
        return Some(step);
    }
    let ready = |id: &NodeId| voters.contains(id) && group.close.contains(id);
    let drawn = group.draws.filter(|id| wanted.voters.contains(id));
    let drawn = drawn.filter(|id| *id == group.me || ready(id));
    let leader = drawn.or_else(|| wanted.voters.first().copied())?;
    (leader != group.me && ready(&leader)).then_some(Step::Transfer(leader))
}

fn next_voters(group: &Group<'_>, now: &BTreeSet<NodeId>, wanted: &Placement) -> Option<Step> {
    let wanted_set: BTreeSet<NodeId> = wanted.voters.iter().copied().collect();
    if wanted_set.is_empty() || *now == wanted_set {
        return None;
    }
    let ready = |id: &NodeId| *id == group.me || group.close.contains(id);
    let added: Vec<NodeId> = wanted_set.difference(now).copied().collect();
    let removed: Vec<NodeId> = now.difference(&wanted_set).copied().collect();
    if removed == [group.me] && added.iter().all(ready) {
        // Away from here first, so that the change is not made by a node that it takes out.
        let next = wanted.voters.iter().find(|id| now.contains(id) && ready(id));
        if let Some(next) = next {
            return Some(Step::Transfer(*next));
        }
    }
    // A membership that cannot commit its own beginning can never be left again.
    let can_begin = |next: BTreeSet<NodeId>| {
        let up = next.iter().filter(|id| ready(id)).count();
        (up * 2 > next.len()).then_some(Step::Voters(next))
    };
    if added.is_empty() || removed.is_empty() {
        return added.iter().all(ready).then_some(wanted_set).and_then(can_begin);
    }
    let add = added.iter().copied().find(|id| ready(id))?;
    // Who is not there anyway goes first, this node last.
    let remove = removed.iter().copied().min_by_key(|id| (ready(id), *id == group.me))?;
    let mut next = now.clone();
    next.insert(add);
    next.remove(&remove);
    can_begin(next)
}

/// The directory's placement, computed again only when the directory has changed.
#[derive(Default)]
struct Known {
    directory: Directory,
    placement: Vec<Placement>,
}

impl Known {
    fn look(&mut self, directory: &Partition) {
        let applied = directory.applied.read();
        if *applied.state.directory() != self.directory {
            self.directory = applied.state.directory().clone();
            drop(applied);
            self.placement = self.directory.placement();
        }
    }
}

/// What a node remembers of a group between two looks.
#[derive(Default)]
struct Memory {
    draw: Draw,
    /// Who leads instead of the one that the directory wants and that could, and since when.
    elsewhere: Option<(NodeId, Instant)>,
    busy: Arc<AtomicBool>,
    leading_since: Option<Instant>,
    no_transfer_before: Option<Instant>,
}

/// The body of the node's mover; `groups` begins with the directory. Ends with the runtime.
pub(crate) async fn run(shared: Arc<Shared>, groups: Vec<Arc<Partition>>) {
    let mut known = Known::default();
    let (mut was_off, mut was_removed) = (false, false);
    let mut memories: Vec<Memory> = groups.iter().map(|_| Memory::default()).collect();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        known.look(&groups[0]);
        shared.time.refresh();
        groups[1..].iter().for_each(|group| group.look_at_staleness());
        let off = shared.stands_aside();
        if off != was_off {
            was_off = off;
            let (ahead_ms, hangs_ms) = (shared.time.ahead_ms(), shared.disk_hangs_ms());
            if off {
                tracing::error!(ahead_ms, hangs_ms, "clock off or disk hanging: others shall lead");
            } else {
                tracing::warn!("clock and disk are right again");
            }
            for raft in groups.iter().filter_map(|group| group.raft.get()) {
                raft.runtime_config().elect(!off);
            }
        }
        if off {
            futures_util::future::join_all(groups.iter().map(hand_over)).await;
            continue;
        }
        let own = known.directory.node(shared.node).map(|row| row.state);
        if own == Some(NodeState::Removed) && !std::mem::replace(&mut was_removed, true) {
            tracing::error!("this node was removed from the cluster: stop it");
        }
        if let Some(peers) = &shared.peers {
            let removed = known.directory.nodes().filter(|row| row.state == NodeState::Removed);
            peers.set_removed(removed.map(|row| row.id).collect());
        }
        for ((group, memory), wanted) in groups.iter().zip(&mut memories).zip(&known.placement) {
            look(&shared, group, memory, &known.directory, wanted);
        }
        take_out(&groups, &known.directory).await;
    }
}

/// Removes the nodes that leave and that no group needs any more. The directory's leader does this,
/// so that it is done although the node is gone meanwhile.
async fn take_out(groups: &[Arc<Partition>], directory: &Directory) {
    let leads = groups[0].raft.get().is_some_and(|raft| raft.is_leader());
    let leaving = directory.nodes().filter(|row| row.state == NodeState::Leaving);
    for row in leaving.filter(|_| leads) {
        if groups.iter().any(|group| needs(group, row.id)) {
            continue;
        }
        let command = DirectoryCommand::SetState { id: row.id, state: NodeState::Removed };
        match groups[0].propose_until(Command::Directory(command), TAKE_OUT_LIMIT).await {
            Ok(_) => tracing::info!(node = row.id, "a node has left the cluster"),
            Err(error) => tracing::debug!(node = row.id, %error, "not removed yet"),
        }
    }
}

/// Whether a group may need a node: it votes there, or it is not known here that another one leads.
fn needs(group: &Partition, node: NodeId) -> bool {
    let Some(raft) = group.raft.get() else { return true };
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let mut voters = metrics.membership_config.membership().voter_ids();
    voters.any(|voter| voter == node) || metrics.current_leader.is_none_or(|leader| leader == node)
}

fn look(
    shared: &Shared,
    partition: &Arc<Partition>,
    memory: &mut Memory,
    directory: &Directory,
    wanted: &Placement,
) {
    let Some(raft) = partition.raft.get() else { return };
    let draws = memory.draw.look(Instant::now(), partition.sources.take());
    let stays = stays(shared, memory, raft, draws, wanted);
    partition.gauges.stays.store(stays.unwrap_or(0), Ordering::Relaxed);
    if !raft.is_leader() {
        memory.leading_since = None;
        return;
    }
    let since = *memory.leading_since.get_or_insert_with(Instant::now);
    if memory.busy.load(Ordering::Acquire) {
        return;
    }
    let step = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let close = close_nodes(shared, &metrics);
        let membership = metrics.membership_config.membership();
        next_step(&Group { me: shared.node, membership, close, draws }, directory, wanted)
    };
    let Some(step) = step else { return };
    if let Step::Transfer(_) = &step {
        let now = Instant::now();
        if since.elapsed() < SETTLE || memory.no_transfer_before.is_some_and(|at| now < at) {
            return;
        }
        memory.no_transfer_before = Some(now + TRANSFER_PAUSE);
    }
    match &step {
        Step::Nodes(_) => shared.counters.moves_of_nodes.add(1),
        Step::Voters(_) => shared.counters.moves_of_votes.add(1),
        Step::Transfer(_) => shared.counters.moves_of_lead.add(1),
    }
    memory.busy.store(true, Ordering::Release);
    let (raft, number, busy) = (raft.clone(), partition.number, memory.busy.clone());
    tokio::spawn(async move {
        tracing::info!(group = number, ?step, "changing a group");
        if timeout(CHANGE_LIMIT, carry_out(&raft, number, step)).await.is_err() {
            tracing::warn!(group = number, "a change of the group takes long");
        }
        busy.store(false, Ordering::Release);
    });
}

/// The leader, if it is another one than the directory wants and is to stay. It knows that itself; the
/// others see that it does not give the lead back.
fn stays(
    shared: &Shared,
    memory: &mut Memory,
    raft: &Raft,
    draws: Option<NodeId>,
    wanted: &Placement,
) -> Option<NodeId> {
    let leader = raft.server_metrics().borrow_watched().current_leader;
    let leader = leader.filter(|leader| wanted.voters.contains(leader))?;
    let first = wanted.voters.first().filter(|first| **first != leader)?;
    if leader == shared.node {
        memory.elsewhere = None;
        return draws.filter(|draws| *draws == leader);
    }
    let could = shared.peers.as_ref().is_some_and(|peers| peers.is_up(*first));
    if !could && *first != shared.node {
        memory.elsewhere = None;
        return None;
    }
    let (known, since) = *memory.elsewhere.get_or_insert_with(|| (leader, Instant::now()));
    if known != leader {
        memory.elsewhere = Some((leader, Instant::now()));
        return None;
    }
    (since.elapsed() >= STAYS).then_some(leader)
}

/// The nodes that could take a vote or the lead at once.
fn close_nodes(shared: &Shared, metrics: &RaftMetrics<TypeConfig>) -> BTreeSet<NodeId> {
    let Some(peers) = &shared.peers else { return BTreeSet::new() };
    let Some(replication) = &metrics.replication else { return BTreeSet::new() };
    let last = metrics.last_log_index.unwrap_or(0);
    let membership = metrics.membership_config.membership();
    let close = |(id, node): &(&NodeId, &BasicNode)| {
        let matched = replication.get(*id).and_then(|matched| *matched);
        matched.is_some_and(|matched| matched.index() + LAG_MAX >= last)
            && peers.links(**id, node).is_up()
    };
    membership.nodes().filter(close).map(|(id, _)| *id).collect()
}

async fn carry_out(raft: &Raft, number: u32, step: Step) {
    let changed = match step {
        Step::Nodes(change) => raft.change_membership(change, true).await,
        Step::Voters(voters) => {
            raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await
        }
        Step::Transfer(to) => {
            if let Err(error) = raft.trigger().transfer_leader(to).await {
                tracing::debug!(group = number, %error, "raft has stopped");
            }
            let mut metrics = raft.server_metrics();
            let given_up = async { while raft.is_leader() && metrics.changed().await.is_ok() {} };
            // Whether it came about or not is seen at the next look.
            let _ = timeout(TRANSFER_LIMIT, given_up).await;
            return;
        }
    };
    if let Err(error) = changed {
        tracing::warn!(group = number, %error, "a group could not be changed");
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use ackord_machine::site::{Batch, Command, DirectoryCommand, NodeInfo, Stamp, State, apply};

    use super::*;

    fn address(id: NodeId) -> String {
        format!("n{id}:1")
    }

    /// A directory of these nodes, of which some drain and some were removed.
    fn directory(nodes: u64, draining: &[u64], removed: &[u64]) -> State {
        let info = |id| NodeInfo { address: address(id), ..NodeInfo::default() };
        let found = DirectoryCommand::Found {
            partitions: 4,
            replication: 3,
            nodes: (1..=nodes).map(|id| (id, info(id))).collect(),
        };
        let set = |ids: &[u64], state| {
            let set = move |id: &u64| DirectoryCommand::SetState { id: *id, state };
            ids.iter().map(set).collect::<Vec<_>>()
        };
        let commands = std::iter::once(found)
            .chain(set(draining, NodeState::Draining))
            .chain(set(removed, NodeState::Removed));
        let mut state = State::new();
        let commands = commands.map(Command::Directory).collect();
        apply(&mut state, &Batch { stamp: Stamp(1), commands });
        state
    }

    fn membership(voters: &[u64], learners: &[u64]) -> Membership<NodeId, BasicNode> {
        let nodes: BTreeMap<_, _> =
            voters.iter().chain(learners).map(|id| (*id, BasicNode::new(address(*id)))).collect();
        Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap()
    }

    fn step(
        me: u64,
        membership: &Membership<NodeId, BasicNode>,
        close: &[u64],
        directory: &State,
        wanted: &[u64],
    ) -> Option<Step> {
        drawn_step(None, me, membership, close, directory, wanted)
    }

    fn drawn_step(
        draws: Option<u64>,
        me: u64,
        membership: &Membership<NodeId, BasicNode>,
        close: &[u64],
        directory: &State,
        wanted: &[u64],
    ) -> Option<Step> {
        let group = Group { me, membership, close: close.iter().copied().collect(), draws };
        next_step(&group, directory.directory(), &Placement { voters: wanted.to_vec() })
    }

    fn voters(ids: &[u64]) -> Option<Step> {
        Some(Step::Voters(ids.iter().copied().collect()))
    }

    #[test]
    fn given_a_new_node_then_it_follows_first_and_votes_once_it_has_the_log() {
        let directory = directory(3, &[], &[]);
        let alone = membership(&[1], &[]);
        let Some(Step::Nodes(ChangeMembers::AddNodes(new))) =
            step(1, &alone, &[1], &directory, &[1, 2, 3])
        else {
            panic!("others follow first");
        };
        assert_eq!(new.into_keys().collect::<Vec<_>>(), [2, 3]);
        let followed = membership(&[1], &[2, 3]);
        assert_eq!(step(1, &followed, &[1, 2], &directory, &[1, 2, 3]), None);
        assert_eq!(step(1, &followed, &[1, 2, 3], &directory, &[1, 2, 3]), voters(&[1, 2, 3]));
    }

    #[test]
    fn given_a_node_that_drains_then_its_vote_moves_and_a_leader_leaves_last() {
        let directory = directory(4, &[1], &[]);
        let now = membership(&[1, 2, 3], &[4]);
        assert_eq!(step(2, &now, &[1, 2, 3, 4], &directory, &[2, 3, 4]), voters(&[2, 3, 4]));
        assert_eq!(
            step(1, &now, &[1, 2, 3, 4], &directory, &[2, 3, 4]),
            Some(Step::Transfer(2)),
            "it leads itself"
        );
        assert_eq!(step(2, &now, &[1, 2, 3], &directory, &[2, 3, 4]), None, "node 4 is behind");
    }

    #[test]
    fn given_nodes_that_are_down_then_votes_go_only_where_a_majority_is_up() {
        let drained = directory(3, &[1], &[]);
        let now = membership(&[1, 2, 3], &[]);
        assert_eq!(step(3, &now, &[1, 3], &drained, &[2]), None, "node 2 is down");
        assert_eq!(step(3, &now, &[1, 2, 3], &drained, &[2]), voters(&[2]));
        let five = directory(5, &[], &[]);
        let now = membership(&[1, 2, 3, 4, 5], &[]);
        assert_eq!(step(3, &now, &[3, 4, 5], &five, &[1, 2, 3]), None, "1 and 2 are down");
        assert_eq!(step(3, &now, &[1, 3, 4, 5], &five, &[1, 2, 3]), voters(&[1, 2, 3]));
        // Of those that are to go, the one that is down goes first.
        let now = membership(&[1, 2, 3], &[4, 5]);
        assert_eq!(step(3, &now, &[1, 3, 4, 5], &five, &[3, 4, 5]), voters(&[1, 3, 4]));
    }

    #[test]
    fn given_several_votes_to_move_then_one_moves_at_a_time() {
        let directory = directory(5, &[], &[]);
        let now = membership(&[1, 2, 3], &[4, 5]);
        let all = [1, 2, 3, 4, 5];
        assert_eq!(step(1, &now, &all, &directory, &[1, 4, 5]), voters(&[1, 3, 4]));
        let now = membership(&[1, 3, 4], &[2, 5]);
        assert_eq!(step(1, &now, &all, &directory, &[1, 4, 5]), voters(&[1, 4, 5]));
    }

    #[test]
    fn given_a_joint_membership_then_it_is_finished_before_anything_else() {
        let directory = directory(4, &[], &[]);
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let nodes: BTreeMap<_, _> = (1..=4).map(|id| (id, BasicNode::new(address(id)))).collect();
        let joint = Membership::new(configs, nodes).unwrap();
        assert_eq!(step(2, &joint, &[], &directory, &[1, 2, 3]), voters(&[2, 3, 4]));
    }

    #[test]
    fn given_a_removed_node_then_its_vote_goes_and_then_the_node() {
        let directory = directory(4, &[], &[3]);
        let now = membership(&[1, 2, 3], &[4]);
        assert_eq!(step(1, &now, &[1, 2, 4], &directory, &[1, 2, 4]), voters(&[1, 2, 4]));
        let without = membership(&[1, 2, 4], &[3]);
        let gone = Step::Nodes(ChangeMembers::RemoveNodes(BTreeSet::from([3])));
        assert_eq!(step(1, &without, &[1, 2, 4], &directory, &[1, 2, 4]), Some(gone));
    }

    #[test]
    fn given_a_node_at_another_address_then_it_is_followed_there() {
        let directory = directory(2, &[], &[]);
        let mut nodes: BTreeMap<_, _> = BTreeMap::from([(1, BasicNode::new(address(1)))]);
        nodes.insert(2, BasicNode::new("elsewhere:1"));
        let now = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        let Some(Step::Nodes(ChangeMembers::SetNodes(moved))) =
            step(1, &now, &[1], &directory, &[1])
        else {
            panic!("the address is taken over");
        };
        assert_eq!(moved[&2].addr, address(2));
    }

    #[test]
    fn given_everything_in_place_then_the_wanted_leader_gets_the_lead_when_it_can_take_it() {
        let directory = directory(3, &[], &[]);
        let now = membership(&[1, 2, 3], &[]);
        assert_eq!(step(1, &now, &[1, 2, 3], &directory, &[1, 2, 3]), None);
        let transfer = Some(Step::Transfer(2));
        assert_eq!(step(1, &now, &[1, 2, 3], &directory, &[2, 1, 3]), transfer);
        assert_eq!(step(1, &now, &[1, 3], &directory, &[2, 1, 3]), None);
    }

    #[test]
    fn given_a_node_that_draws_the_lead_then_it_gets_it_and_keeps_it_when_it_may_have_it() {
        let directory = directory(4, &[], &[]);
        let now = membership(&[1, 2, 3], &[4]);
        let step = |draws, me, close: &[u64]| {
            drawn_step(Some(draws), me, &now, close, &directory, &[1, 2, 3])
        };
        let all = [1, 2, 3, 4];
        assert_eq!(step(2, 1, &all), Some(Step::Transfer(2)));
        assert_eq!(step(2, 2, &all), None, "it stays there");
        assert_eq!(step(2, 3, &[1, 3]), Some(Step::Transfer(1)), "node 2 is down");
        assert_eq!(step(4, 1, &all), None, "it has no vote");
        assert_eq!(step(4, 2, &all), Some(Step::Transfer(1)), "it has no vote");
        let drains = drawn_step(Some(2), 3, &now, &all, &directory, &[1, 3]);
        assert_eq!(drains, voters(&[1, 3]), "it is to have no vote");
    }
}
