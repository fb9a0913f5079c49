//! A model of the mover: every order of steps, faults and orders of an operator in a small cluster.
//!
//! `directory, membership, who is up and close ─▶ next_step (production) ─▶ one entry of raft's log`
//!
//! What decides here is production code: the mover's `next_step`, the directory's placement and what
//! it refuses. Around it is as little of raft as a membership needs: logs that hold memberships alone,
//! terms, elections by the memberships in the candidates' own logs, commits by a majority of each
//! half of a joint membership. A node is *close* when it lacks nothing else of the log.
//!
//! Faults: a node stops at any moment and comes back with the log it had, perhaps no longer close; a
//! voter takes the lead from a live leader at any moment. Orders: join, drain, undrain, leave, and
//! the forced removal of a node that is down. A leader may act upon an older directory.
//!
//! Bounds: [`Bounds`]. Of logs only what tells them apart is kept, and terms are ranks, so that what
//! differs in history alone is one state.

mod raft;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ackord_machine::site::{
    Batch, ClusterRow, Command, DirectoryCommand, NodeInfo, NodeRow, NodeState, Outcome, Placement,
    Row, Stamp, State, Write, apply,
};
use openraft::{BasicNode, ChangeMembers, Membership};
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::{Group, NodeId, Step, next_step};
use raft::{Entry, Nodes, Raft};

/// What the operator has asked for of a node, as far as the model goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Listed {
    Unknown,
    Active,
    Draining,
    Leaving,
    Removed,
}

fn is_member(row: Listed) -> bool {
    match row {
        Listed::Active | Listed::Draining | Listed::Leaving => true,
        Listed::Unknown | Listed::Removed => false,
    }
}

/// The directory: one row per node, or none.
type Rows = Vec<Listed>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    raft: Raft,
    /// The directory as it was before the last order, and as it is.
    directory: Vec<Rows>,
    /// The nodes that have seen only the directory before the last order.
    unaware: Nodes,
    crashes_left: u8,
    elections_left: u8,
    orders_left: u8,
    /// What the last step broke.
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Join,
    Drain(usize),
    Undrain(usize),
    Leave(usize),
    /// Of a node that is down.
    Force(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The leader's mover looks.
    Look,
    /// The leader hears of the last order.
    Hear,
    /// A follower takes what the leader has.
    Replicate(usize),
    /// A follower has all of the log but the last entries.
    CatchUp(usize),
    /// A leader without a vote gives up.
    StepDown,
    /// The directory's leader takes a node out that leaves.
    TakeOut(usize),
    Crash(usize),
    Restart {
        node: usize,
        close: bool,
    },
    Elect(usize),
    Order(Order),
}

/// How far the model goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Nodes that found the cluster.
    founders: usize,
    /// Nodes there are, with those that may join.
    nodes: usize,
    /// The group: 0 is the directory, 1 a partition.
    group: usize,
    crashes: u8,
    elections: u8,
    orders: u8,
    /// The node that draws the lead by its load.
    draws: Option<usize>,
}

/// A directory's rows with the group's placement.
type Known = Arc<(State, Placement)>;

/// What a step depends on: the leader, the membership's voters and nodes, who is close, the rows.
type Asked = (usize, Nodes, Nodes, Nodes, Nodes, Rows);

struct Mover {
    bounds: Bounds,
    known: Mutex<BTreeMap<Rows, Known>>,
    steps: Mutex<BTreeMap<Asked, Option<Step>>>,
    calmed: Mutex<HashSet<(Heal, World)>>,
}

/// Rounds within which everything comes to rest.
const ROUNDS_MAX: usize = 40;

/// Which nodes come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Heal {
    All,
    None,
}

fn address(node: usize) -> String {
    format!("n{}:1", id(node))
}

/// The number of the node at this place.
fn id(node: usize) -> NodeId {
    node as NodeId + 1
}

fn ids(nodes: Nodes) -> BTreeSet<NodeId> {
    raft::each(nodes).map(id).collect()
}

fn nodes_of<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> Nodes {
    ids.into_iter().fold(0, |nodes, id| nodes | 1 << (id - 1))
}

fn membership(entry: &Entry) -> Membership<NodeId, BasicNode> {
    let halves = entry.halves().map(ids).collect();
    let nodes: BTreeMap<_, _> =
        raft::each(entry.nodes).map(|node| (id(node), BasicNode::new(address(node)))).collect();
    Membership::new(halves, nodes).expect("voters are among the nodes")
}

impl Mover {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, known: Mutex::default(), steps: Mutex::default(), calmed: Mutex::default() }
    }

    /// The directory of these rows.
    fn known(&self, rows: &Rows) -> Known {
        let mut known = self.known.lock().expect("no check panics while it holds this");
        let fresh = || {
            let mut state = State::new();
            let joined = rows.iter().filter(|row| **row != Listed::Unknown).count() as u64;
            let cluster = ClusterRow { partitions: 1, replication: 3, next_node: joined + 1 };
            state.absorb(&Write::Put(Row::Cluster(cluster)));
            for (node, row) in rows.iter().enumerate() {
                let listed = match row {
                    Listed::Unknown => continue,
                    Listed::Active => NodeState::Active,
                    Listed::Draining => NodeState::Draining,
                    Listed::Leaving => NodeState::Leaving,
                    Listed::Removed => NodeState::Removed,
                };
                let info = NodeInfo { address: address(node), ..NodeInfo::default() };
                let nonce = [node as u8; 16];
                let row = NodeRow { id: id(node), info, state: listed, nonce };
                state.absorb(&Write::Put(Row::Node(row)));
            }
            let placement = state.directory().placement().swap_remove(self.bounds.group);
            Arc::new((state, placement))
        };
        known.entry(rows.clone()).or_insert_with(fresh).clone()
    }

    /// The rows after a command, unless it is refused or changes nothing.
    fn directed(&self, rows: &Rows, command: DirectoryCommand) -> Option<Rows> {
        let mut state = self.known(rows).0.clone();
        let batch = Batch { stamp: Stamp(1), commands: vec![Command::Directory(command)] };
        let outcomes = apply(&mut state, &batch).outcomes;
        if let [Outcome::Refused(_)] = outcomes.as_slice() {
            return None;
        }
        let mut after = vec![Listed::Unknown; self.bounds.nodes];
        for row in state.directory().nodes() {
            after[row.id as usize - 1] = match row.state {
                NodeState::Active => Listed::Active,
                NodeState::Draining => Listed::Draining,
                NodeState::Leaving => Listed::Leaving,
                NodeState::Removed => Listed::Removed,
            };
        }
        (after != *rows).then_some(after)
    }

    fn set(&self, rows: &Rows, node: usize, state: NodeState) -> Option<Rows> {
        self.directed(rows, DirectoryCommand::SetState { id: id(node), state })
    }

    fn ordered(&self, rows: &Rows, order: Order) -> Option<Rows> {
        match order {
            Order::Join => {
                let node = rows.iter().position(|row| *row == Listed::Unknown)?;
                let info = NodeInfo { address: address(node), ..NodeInfo::default() };
                self.directed(rows, DirectoryCommand::Join { nonce: [node as u8; 16], info })
            }
            Order::Drain(node) => self.set(rows, node, NodeState::Draining),
            Order::Undrain(node) => self.set(rows, node, NodeState::Active),
            Order::Leave(node) => self.set(rows, node, NodeState::Leaving),
            Order::Force(node) => self.set(rows, node, NodeState::Removed),
        }
    }

    /// What the leader's mover wants, with this directory.
    fn step(&self, raft: &Raft, rows: &Rows) -> Option<Step> {
        let leader = raft.lead.filter(|_| raft.may_change())?;
        let entry = raft.effective(leader)?;
        let close = raft.close() & entry.nodes & !(1 << leader);
        let asked = (leader, entry.old, entry.new, entry.nodes, close, rows.clone());
        // It is a function of this, so that it need not be asked twice.
        let known = self.known(rows);
        let ask = || {
            let membership = membership(entry);
            let draws = self.bounds.draws.map(id);
            let group = Group { me: id(leader), membership: &membership, close: ids(close), draws };
            next_step(&group, known.0.directory(), &known.1)
        };
        let mut steps = self.steps.lock().expect("no check panics while it holds this");
        steps.entry(asked).or_insert_with(ask).clone()
    }

    /// The mover looks: the world after its step, `None` when that changes nothing.
    fn look(&self, world: &World, rows: &Rows) -> Option<World> {
        let step = self.step(&world.raft, rows)?;
        let leader = world.raft.lead?;
        let mut next = world.clone();
        next.broken = self.judge(&world.raft, &step, rows);
        let now = *world.raft.effective(leader)?;
        match step {
            Step::Nodes(ChangeMembers::AddNodes(new)) => {
                let new = nodes_of(new.keys());
                // Whoever is new has nothing of the log.
                raft::each(new).for_each(|node| next.raft.nodes[node].close = false);
                next.raft.append(Entry { nodes: now.nodes | new, ..now });
            }
            Step::Nodes(ChangeMembers::RemoveNodes(gone)) => {
                next.raft.append(Entry { nodes: now.nodes & !nodes_of(&gone), ..now });
            }
            Step::Nodes(other) => {
                next.broken = Some("nodes are changed in a way that nobody asked for");
                drop(other);
            }
            Step::Voters(goal) => next.raft.append(now.towards(nodes_of(&goal))),
            Step::Transfer(to) => {
                if !next.raft.transfer(to as usize - 1) && next.broken.is_none() {
                    return None;
                }
            }
        }
        next.raft.tidy();
        Some(next)
    }

    /// What a step breaks at the moment at which it is proposed.
    fn judge(&self, raft: &Raft, step: &Step, rows: &Rows) -> Option<&'static str> {
        let leader = raft.lead?;
        let now = raft.effective(leader)?;
        let there = raft.close() | 1 << leader;
        let known = self.known(rows);
        let wanted = nodes_of(&known.1.voters);
        match step {
            Step::Voters(goal) => {
                let goal = nodes_of(goal);
                let next = now.towards(goal);
                if goal == 0 || goal & !now.nodes != 0 {
                    Some("a vote goes to a node that does not follow")
                } else if now.old == 0 && goal & !now.new & !there != 0 {
                    Some("a vote goes to a node that is not close")
                } else if now.is_quorum(there) && !next.is_quorum(there) {
                    Some("the next voters have no majority that is there")
                } else if goal.count_ones() < now.new.count_ones().min(wanted.count_ones()) {
                    Some("a vote is taken away before another one takes its place")
                } else if now.new & 1 << leader != 0
                    && goal & 1 << leader == 0
                    && goal & !wanted != 0
                {
                    Some("the leader gives its vote away before another one that is not wanted")
                } else {
                    None
                }
            }
            Step::Transfer(to) => {
                let to = 1 << (to - 1);
                (to & there & now.voters() == 0)
                    .then_some("the lead goes to one that cannot take it")
            }
            Step::Nodes(ChangeMembers::RemoveNodes(gone)) => {
                let members = rows.iter().enumerate().filter(|(_, row)| is_member(**row));
                let members = members.fold(0, |nodes, (node, _)| nodes | 1 << node);
                (nodes_of(gone) & (now.voters() | members) != 0)
                    .then_some("a node is given up that votes or is a member")
            }
            Step::Nodes(_) => None,
        }
    }

    /// Whether all comes to its place when there are no more faults and no more orders. `heal`: nodes
    /// that are down come back; without them it is enough that the others come to rest.
    fn calms(&self, world: &World, heal: Heal) -> bool {
        let mut world =
            World { crashes_left: 0, elections_left: 0, orders_left: 0, ..world.clone() };
        world.unaware = 0;
        world.directory = vec![world.rows().clone()];
        if heal == Heal::All {
            for (node, row) in world.rows().clone().into_iter().enumerate() {
                world.raft.nodes[node].up |= row != Listed::Removed;
            }
        }
        let mut passed = Vec::new();
        let well = loop {
            // It goes one way from here: where that leads need not be seen twice.
            let known = self.calmed.lock().expect("no check panics while it holds this");
            if passed.len() > ROUNDS_MAX || known.contains(&(heal, world.clone())) {
                break passed.len() <= ROUNDS_MAX;
            }
            drop(known);
            passed.push((heal, world.clone()));
            if !self.round(&mut world) {
                break heal == Heal::None || self.is_settled(&world);
            }
        };
        if well {
            let mut known = self.calmed.lock().expect("no check panics while it holds this");
            known.extend(passed);
        }
        well
    }

    /// Everybody who can do something does it; whether that changed anything.
    fn round(&self, world: &mut World) -> bool {
        let before = world.clone();
        if world.raft.lead.is_none() {
            let able = (0..self.bounds.nodes).filter(|node| world.raft.may_lead(*node));
            if let Some(node) = able.max_by_key(|node| world.raft.has_vote(*node)) {
                world.raft.elect(node);
            }
        }
        for node in 0..self.bounds.nodes {
            world.raft.catch_up(node);
            world.raft.replicate(node);
        }
        world.raft.step_down();
        world.raft.tidy();
        for node in 0..self.bounds.nodes {
            self.take_out(world, node);
        }
        world.unaware = 0;
        world.directory = vec![world.rows().clone()];
        if let Some(next) = self.look(world, world.rows()) {
            *world = next;
        }
        *world != before
    }

    /// The directory's leader takes a node out that leaves, if nobody needs it.
    fn take_out(&self, world: &mut World, node: usize) -> bool {
        let needless = world.may_take_out(node);
        let rows = needless.then(|| self.set(world.rows(), node, NodeState::Removed)).flatten();
        rows.map(|rows| world.turn(rows)).is_some()
    }

    /// Who leads in the end, of these voters.
    fn shall_lead(&self, wanted: &Placement) -> Option<NodeId> {
        let drawn = self.bounds.draws.map(id).filter(|id| wanted.voters.contains(id));
        drawn.or_else(|| wanted.voters.first().copied())
    }

    /// Whether everything is where the directory wants it, and the lead where it is drawn.
    fn is_settled(&self, world: &World) -> bool {
        let Some(leader) = world.raft.lead else { return false };
        let Some(entry) = world.raft.effective(leader) else { return false };
        let known = self.known(world.rows());
        let members = known.0.directory().members().map(|row| row.id).collect::<Vec<_>>();
        entry.old == 0
            && entry.new == nodes_of(&known.1.voters)
            && entry.nodes == nodes_of(&members)
            && self.shall_lead(&known.1) == Some(id(leader))
            && !world.rows().contains(&Listed::Leaving)
    }
}

impl World {
    fn rows(&self) -> &Rows {
        self.directory.last().expect("it begins with one")
    }

    /// The directory changes; whoever is removed is not connected any more.
    fn turn(&mut self, rows: Rows) {
        for (node, row) in rows.iter().enumerate() {
            if *row == Listed::Removed {
                self.raft.crash(node);
            }
        }
        self.directory = vec![std::mem::take(&mut self.directory).pop().unwrap_or_default(), rows];
        self.unaware = (1 << self.raft.nodes.len()) - 1;
    }

    /// The directory as the leader has seen it.
    fn seen(&self) -> &Rows {
        let unaware = self.raft.lead.is_some_and(|leader| self.unaware & 1 << leader != 0);
        if unaware { &self.directory[0] } else { self.rows() }
    }

    /// The leader hears of the last order.
    fn hear(&mut self) -> bool {
        let Some(leader) = self.raft.lead else { return false };
        let unaware = self.unaware & 1 << leader != 0;
        self.unaware &= !(1 << leader);
        if self.unaware == 0 {
            self.directory = vec![self.rows().clone()];
        }
        unaware
    }

    /// Whether nobody needs a node that leaves, as the group's leader sees it.
    fn may_take_out(&self, node: usize) -> bool {
        let Some(leader) = self.raft.lead else { return false };
        let votes = self.raft.effective(leader).is_some_and(|e| e.voters() & 1 << node != 0);
        self.rows()[node] == Listed::Leaving && leader != node && !votes
    }

    /// Whether a node that is lost may be removed by force: the others do without it.
    fn may_force(&self, node: usize) -> bool {
        let gone = |other: &usize| self.rows()[*other] == Listed::Removed || *other == node;
        let gone = (0..self.raft.nodes.len()).filter(gone).fold(0, |all, other| all | 1 << other);
        let logs = self.raft.nodes.iter().filter_map(|node| node.log.last());
        !self.raft.nodes[node].up && logs.into_iter().all(|entry| entry.is_quorum(!gone))
    }
}

impl Model for Mover {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let Bounds { founders, nodes, crashes, elections, orders, .. } = self.bounds;
        let rows: Rows = (0..nodes)
            .map(|node| if node < founders { Listed::Active } else { Listed::Unknown })
            .collect();
        let voters = nodes_of(&self.known(&rows).1.voters);
        vec![World {
            raft: Raft::new(nodes, (1 << founders) - 1, voters),
            directory: vec![rows],
            unaware: 0,
            crashes_left: crashes,
            elections_left: elections,
            orders_left: orders,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        if world.broken.is_some() {
            return;
        }
        let nodes = 0..self.bounds.nodes;
        acts.extend([Act::Look, Act::Hear, Act::StepDown]);
        acts.extend(nodes.clone().flat_map(|node| {
            [Act::Replicate(node), Act::CatchUp(node), Act::TakeOut(node), Act::Crash(node)]
        }));
        acts.extend(nodes.clone().flat_map(|node| {
            let restart = |close| Act::Restart { node, close };
            [restart(true), restart(false), Act::Elect(node)]
        }));
        if world.orders_left > 0 {
            acts.push(Act::Order(Order::Join));
            acts.extend(nodes.flat_map(|node| {
                [Order::Drain(node), Order::Undrain(node), Order::Leave(node), Order::Force(node)]
                    .map(Act::Order)
            }));
        }
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        if act == Act::Look {
            return self.look(world, world.seen());
        }
        let mut next = world.clone();
        let changed = match act {
            Act::Look => false,
            Act::Hear => next.hear(),
            Act::Replicate(node) => next.raft.replicate(node),
            Act::CatchUp(node) => next.raft.catch_up(node),
            Act::StepDown => next.raft.step_down(),
            Act::TakeOut(node) => self.take_out(&mut next, node),
            Act::Crash(node) => {
                next.crashes_left = world.crashes_left.checked_sub(1)?;
                next.raft.crash(node)
            }
            Act::Restart { node, close } => {
                world.rows()[node] != Listed::Removed && next.raft.restart(node, close)
            }
            Act::Elect(node) => {
                // One that nobody's fault asks for is a fault itself.
                if world.raft.lead.is_some() {
                    next.elections_left = world.elections_left.checked_sub(1)?;
                }
                next.raft.may_lead(node) && next.raft.elect(node)
            }
            Act::Order(order) => {
                if let Order::Force(node) = order
                    && !world.may_force(node)
                {
                    return None;
                }
                next.orders_left -= 1;
                next.turn(self.ordered(world.rows(), order)?);
                true
            }
        };
        next.raft.tidy();
        changed.then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "each step leaves a majority that is there",
                |_: &Self, world: &World| world.broken.is_none(),
            ),
            Property::always("what was committed stays", |_: &Self, world: &World| {
                world.raft.keeps_promises()
            }),
            Property::always(
                "two memberships in a row have no majorities apart",
                |_: &Self, world: &World| world.raft.overlaps(),
            ),
            Property::always("a majority of the voters has the log", |_: &Self, world: &World| {
                world.raft.has_copies()
            }),
            Property::always(
                "once all are back, everything comes to its place",
                |model: &Self, world: &World| model.calms(world, Heal::All),
            ),
            Property::always(
                "whoever is down, the others come to rest",
                |model: &Self, world: &World| model.calms(world, Heal::None),
            ),
            Property::sometimes("a node is removed", |model: &Self, world: &World| {
                world.rows().contains(&Listed::Removed) && model.is_settled(world)
            }),
            Property::sometimes(
                "a joint membership is found by another leader",
                |_: &Self, world: &World| world.raft.has_inherited_a_joint_one(),
            ),
        ]
    }
}

/// Checks all of it.
fn check(name: &str, bounds: Bounds) {
    let begun = Instant::now();
    let checker =
        Mover::new(bounds).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let seconds = begun.elapsed().as_secs_f32();
    println!("{name}: {states} states, depth {depth}, {seconds:.1} s, {bounds:?}");
    for (property, path) in checker.discoveries() {
        let steps = path.into_actions();
        println!("{name}: {property}: after {} steps: {steps:?}", steps.len());
    }
    checker.assert_properties();
    assert!(checker.is_done(), "the search is not complete");
}

/// Whether larger bounds are asked for: `ACKORD_MODEL_SIZE=large`.
fn is_large() -> bool {
    std::env::var("ACKORD_MODEL_SIZE").is_ok_and(|size| size == "large")
}

#[test]
fn given_a_partition_of_three_and_a_fault_then_each_step_is_safe_and_leads_there() {
    let elections = u8::from(is_large());
    let bounds =
        Bounds { founders: 3, nodes: 4, group: 1, crashes: 1, elections, orders: 1, draws: None };
    check("a partition, 3 nodes and 1 to join, a fault", bounds);
}

#[test]
fn given_a_partition_of_three_and_two_orders_then_each_step_is_safe_and_leads_there() {
    let orders = 2 + u8::from(is_large());
    let bounds =
        Bounds { founders: 3, nodes: 4, group: 1, crashes: 0, elections: 0, orders, draws: None };
    check("a partition, 3 nodes and 1 to join", bounds);
}

#[test]
fn given_a_partition_of_four_and_a_fault_then_each_step_is_safe_and_leads_there() {
    let elections = u8::from(is_large());
    let bounds =
        Bounds { founders: 4, nodes: 4, group: 1, crashes: 1, elections, orders: 1, draws: None };
    check("a partition, 4 nodes, a fault", bounds);
}

#[test]
fn given_a_lead_that_load_draws_then_each_step_is_safe_and_leads_there() {
    for draws in [0, 2, 3] {
        let bounds = Bounds {
            founders: 3,
            nodes: 4,
            group: 1,
            crashes: 1,
            elections: 0,
            orders: 1,
            draws: Some(draws),
        };
        check("a partition, 3 nodes and 1 to join, a lead that is drawn", bounds);
    }
}
