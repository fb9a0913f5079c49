//! As much of raft as a membership needs: logs of memberships, leaders, commits.
//!
//! Invariants: a leader changes the membership only when the last change is committed in its term; a
//! voter takes the lead only with a majority of each half of the membership in its own log.

use std::collections::BTreeSet;

/// A set of nodes, a bit each.
pub(super) type Nodes = u8;

/// The nodes of a set.
pub(super) fn each(nodes: Nodes) -> impl Iterator<Item = usize> {
    (0..8).filter(move |node| nodes & 1 << node != 0)
}

fn has_majority(of: Nodes, there: Nodes) -> bool {
    (of & there).count_ones() * 2 > of.count_ones()
}

/// One entry of a log: a membership. A leader begins with the one that it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) term: u8,
    /// The voters before, in a joint membership; empty in a uniform one.
    pub(super) old: Nodes,
    pub(super) new: Nodes,
    /// All that follow, voters and learners.
    pub(super) nodes: Nodes,
    /// The voters of the membership before: until this one is committed, they may lead too.
    pub(super) before: Nodes,
}

impl Entry {
    pub(super) fn voters(&self) -> Nodes {
        self.old | self.new
    }

    /// The sets of voters, each of which has a say.
    pub(super) fn halves(&self) -> impl Iterator<Item = Nodes> {
        [self.old, self.new].into_iter().filter(|half| *half != 0)
    }

    pub(super) fn is_quorum(&self, there: Nodes) -> bool {
        self.halves().all(|half| has_majority(half, there))
    }

    /// The membership on the way to these voters, as raft takes it.
    pub(super) fn towards(&self, goal: Nodes) -> Self {
        let joint = self.old != goal && self.new != goal;
        Self { old: if joint { self.new } else { 0 }, new: goal, ..*self }
    }

    /// Whether each majority of one meets each majority of the other.
    fn overlaps(&self, other: &Self) -> bool {
        let all = self.voters() | other.voters();
        let mut sets = 0..=all;
        sets.all(|set| !(self.is_quorum(set) && other.is_quorum(all & !set)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) up: bool,
    /// It lacks nothing of the log but memberships.
    pub(super) close: bool,
    /// Empty before it first follows.
    pub(super) log: Vec<Entry>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Raft {
    pub(super) nodes: Vec<Node>,
    pub(super) lead: Option<usize>,
    term: u8,
    /// The last committed entry and its place.
    committed: (usize, Entry),
    /// A leader was chosen without it.
    forgotten: bool,
    /// Two memberships in a row have majorities that do not meet.
    apart: bool,
    /// The leader's last entry is a joint membership that it found.
    inherited: bool,
}

impl Raft {
    /// A group in which the first node leads.
    pub(super) fn new(nodes: usize, members: Nodes, voters: Nodes) -> Self {
        let entry = Entry { term: 0, old: 0, new: voters, nodes: members, before: voters };
        let node = |node: usize| {
            let member = members & 1 << node != 0;
            Node { up: true, close: member, log: if member { vec![entry] } else { Vec::new() } }
        };
        let nodes = (0..nodes).map(node).collect();
        Self {
            nodes,
            lead: Some(0),
            term: 0,
            committed: (0, entry),
            forgotten: false,
            apart: false,
            inherited: false,
        }
    }

    fn of(&self, is: impl Fn(&Node) -> bool) -> Nodes {
        let nodes = (0..self.nodes.len()).filter(|node| is(&self.nodes[*node]));
        nodes.fold(0, |nodes, node| nodes | 1 << node)
    }

    /// The nodes that are up and have nearly all of the log.
    pub(super) fn close(&self) -> Nodes {
        self.of(|node| node.up && node.close)
    }

    /// The membership by which a node goes: the last one of its log.
    pub(super) fn effective(&self, node: usize) -> Option<&Entry> {
        self.nodes[node].log.last()
    }

    fn leader(&self) -> Option<&Node> {
        self.lead.map(|leader| &self.nodes[leader])
    }

    /// Whether the leader's last entry is committed, so that it may change the membership.
    pub(super) fn may_change(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(last) = leader.log.last() else { return false };
        let has = self.of(|node| node.log.get(leader.log.len() - 1) == Some(last));
        last.term == self.term && last.is_quorum(has)
    }

    /// The leader adds an entry.
    pub(super) fn append(&mut self, entry: Entry) {
        let Some(leader) = self.lead else { return };
        self.apart |= self.effective(leader).is_some_and(|last| !last.overlaps(&entry));
        self.inherited = false;
        let before = self.effective(leader).map_or(0, Entry::voters);
        self.nodes[leader].log.push(Entry { term: self.term, before, ..entry });
    }

    pub(super) fn replicate(&mut self, node: usize) -> bool {
        let Some(leader) = self.leader() else { return false };
        let follows = leader.log.last().is_some_and(|entry| entry.nodes & 1 << node != 0);
        let Node { up, close, log } = &self.nodes[node];
        if !follows || !up || !close || *log == leader.log {
            return false;
        }
        self.nodes[node].log = leader.log.clone();
        true
    }

    pub(super) fn catch_up(&mut self, node: usize) -> bool {
        let Some(leader) = self.leader() else { return false };
        let follows = leader.log.last().is_some_and(|entry| entry.nodes & 1 << node != 0);
        let Node { up, close, .. } = self.nodes[node];
        self.nodes[node].close |= follows && up;
        follows && up && !close
    }

    pub(super) fn crash(&mut self, node: usize) -> bool {
        if self.lead == Some(node) {
            self.lead = None;
        }
        std::mem::take(&mut self.nodes[node].up)
    }

    /// A node comes back; the log has gone on meanwhile only where the others could go on.
    pub(super) fn restart(&mut self, node: usize, close: bool) -> bool {
        let Node { up, close: was, ref log } = self.nodes[node];
        if up || close && !was {
            return false;
        }
        if !close && was {
            let Some(leader) = self.leader() else { return false };
            let Some(last) = leader.log.last() else { return false };
            let others = self.of(|node| node.close && node.log == leader.log) & !(1 << node);
            if !leader.log.starts_with(log) || !self.may_change() || !last.is_quorum(others) {
                return false;
            }
        }
        self.nodes[node].up = true;
        self.nodes[node].close = close;
        true
    }

    /// Whether a node has a vote by the membership that it has.
    pub(super) fn has_vote(&self, node: usize) -> bool {
        self.effective(node).is_some_and(|entry| entry.voters() & 1 << node != 0)
    }

    /// Whether a node gets the votes of a majority by the membership that it has.
    pub(super) fn may_lead(&self, node: usize) -> bool {
        let me = &self.nodes[node];
        let Some(last) = me.log.last() else { return false };
        let committed = me.log.get(self.committed.0) == Some(&self.committed.1)
            && me.log.len() == self.committed.0 + 1;
        let before = if committed { 0 } else { last.before };
        if !me.up || (last.voters() | before) & 1 << node == 0 {
            return false;
        }
        let age = |node: &Node| (node.log.last().map(|entry| entry.term), node.log.len());
        let votes =
            self.of(|voter| voter.up && age(voter) <= age(me) && (me.close || !voter.close));
        self.lead != Some(node) && last.is_quorum(votes)
    }

    /// A node leads from now on.
    pub(super) fn elect(&mut self, node: usize) -> bool {
        self.lead = Some(node);
        self.term += 1;
        let (place, entry) = self.committed;
        self.forgotten |= self.nodes[node].log.get(place) != Some(&entry);
        if let Some(entry) = self.effective(node).copied() {
            self.nodes[node].log.push(Entry { term: self.term, ..entry });
            self.inherited = entry.old != 0;
        }
        true
    }

    /// The leader hands the lead over, if the other one can take it at once.
    pub(super) fn transfer(&mut self, to: usize) -> bool {
        let has_all = self.leader().is_some_and(|leader| leader.log == self.nodes[to].log);
        has_all && self.may_lead(to) && self.elect(to)
    }

    /// A leader that has no vote any more gives up.
    pub(super) fn step_down(&mut self) -> bool {
        let Some(leader) = self.lead.filter(|_| self.may_change()) else { return false };
        let votes = self.effective(leader).is_some_and(|entry| entry.voters() & 1 << leader != 0);
        if !votes {
            self.lead = None;
        }
        !votes
    }

    /// Notes what is committed, and forgets what makes no difference.
    pub(super) fn tidy(&mut self) {
        self.note_committed();
        // Logs are compared by their lasts: places that are nobody's last make no difference.
        let lasts = self.nodes.iter().filter_map(|node| node.log.len().checked_sub(1));
        let places: BTreeSet<usize> = lasts.chain([self.committed.0]).collect();
        for node in &mut self.nodes {
            let kept = places.iter().filter_map(|place| node.log.get(*place).copied());
            node.log = kept.collect();
        }
        self.committed.0 = places.range(..self.committed.0).count();
        let entries = self.nodes.iter().flat_map(|node| node.log.iter().map(|entry| entry.term));
        let terms: BTreeSet<u8> = entries.chain([self.term, self.committed.1.term]).collect();
        let rank = |term: u8| terms.range(..term).count() as u8;
        let ranked = |entry: &mut Entry| entry.term = rank(entry.term);
        self.nodes.iter_mut().flat_map(|node| &mut node.log).for_each(ranked);
        ranked(&mut self.committed.1);
        self.term = rank(self.term);
    }

    fn note_committed(&mut self) {
        if self.may_change()
            && let Some(leader) = self.leader()
            && let Some(last) = leader.log.last()
        {
            self.committed = (leader.log.len() - 1, *last);
        }
    }

    /// Whether no leader was chosen who had forgotten what was committed.
    pub(super) fn keeps_promises(&self) -> bool {
        !self.forgotten
    }

    /// Whether memberships that followed each other in a log had no majorities apart.
    pub(super) fn overlaps(&self) -> bool {
        !self.apart
    }

    /// Whether a majority of the voters has the log.
    pub(super) fn has_copies(&self) -> bool {
        let close = self.of(|node| node.close);
        self.committed.1.is_quorum(close)
    }

    /// Whether the leader found the change of another one half done.
    pub(super) fn has_inherited_a_joint_one(&self) -> bool {
        self.inherited
    }
}
