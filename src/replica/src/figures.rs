//! How the groups of a node are at one moment, for metrics; and whether its start is over.
//!
//! Everything is read from what is kept anyway: nothing is counted for it on the way of a command.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ackord_machine::session::CUT_OFF_MS;
use ackord_machine::site::NodeState;
use ackord_store::DurationCounts;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::node::Node;
use crate::partition::Partition;
use crate::types::RaftLogId;

/// How long what was asked of this node counts before the directory says it, too.
const TOLD_COUNTS: Duration = Duration::from_secs(10);

/// What this node is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows without a vote.
    Learner,
    /// It has stopped.
    Stopped,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Leader, Self::Follower, Self::Candidate, Self::Learner, Self::Stopped];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

/// How a group is, as this node sees it. The first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has no leader that this node knows.
    Leaderless,
    /// No leader, or no majority, has confirmed this node for too long: it is cut off.
    CutOff,
    /// This node has not applied all that was acknowledged before it started.
    CatchingUp,
    /// Its voters are being changed.
    Changing,
    /// None of these.
    Steady,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 5] =
        [Self::Leaderless, Self::CutOff, Self::CatchingUp, Self::Changing, Self::Steady];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leaderless => "leaderless",
            Self::CutOff => "cut-off",
            Self::CatchingUp => "catching-up",
            Self::Changing => "changing",
            Self::Steady => "steady",
        }
    }
}

/// One group of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFigures {
    /// Its number; 0 is the directory.
    pub group: u32,
    /// What this node is in it.
    pub role: Role,
    /// How it is.
    pub condition: Condition,
    /// Whether votes and lead are where the directory wants them, or the lead where load draws it.
    pub settled: bool,
    /// Log entries that the follower furthest behind does not have; `None` where this node does not
    /// lead.
    pub replication_lag: Option<u64>,
    /// Log entries here that are not applied here.
    pub apply_lag: u64,
    /// Commands that wait for a log entry.
    pub queued_commands: u64,
    /// Log entries on their way.
    pub entries_in_flight: u64,
    /// Whether a snapshot was asked for and is not done.
    pub snapshot_pending: bool,
    /// Rows that changed and are not in the checkpoint yet; of more than are taken down, so many as are.
    pub checkpoint_rows_due: u64,
    /// Milliseconds without a leader's, or a majority's, confirmation.
    pub stale_ms: u64,
}

/// What a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The directory's group, then the partitions.
    pub groups: Vec<GroupFigures>,
    /// Other nodes of the cluster to which there is a connection.
    pub peers_up: u64,
    /// Those to which there is none.
    pub peers_down: u64,
    /// Requests to the log that are not durable yet.
    pub log_requests: u64,
    /// Syncs of the log.
    pub sync_times: DurationCounts,
    /// From proposing an entry here until it was applied here.
    pub commit_times: DurationCounts,
    /// Applying an entry.
    pub apply_times: DurationCounts,
}

impl Node {
    /// What the node is doing.
    pub fn figures(&self) -> Figures {
        let cluster = self.cluster();
        let settled = cluster.groups.iter().map(crate::view::GroupView::settled);
        let other = |row: &&crate::view::NodeView| {
            row.row.id != cluster.node && row.row.state != NodeState::Removed
        };
        let others = cluster.nodes.iter().filter(other);
        let (up, down): (Vec<_>, Vec<_>) = others.partition(|row| row.connected);
        let counters = &self.shared.counters;
        Figures {
            groups: self
                .partitions
                .iter()
                .zip(settled)
                .map(|(partition, settled)| figures_of(partition, settled))
                .collect(),
            peers_up: up.len() as u64,
            peers_down: down.len() as u64,
            log_requests: self.shared.store.waiting() as u64,
            sync_times: self.shared.store.sync_times(),
            commit_times: counters.commit_times.counts(),
            apply_times: counters.apply_times.counts(),
        }
    }

    /// Whether the start is over: once this node is a member of its cluster and has applied, in all of
    /// its groups, everything that was acknowledged before it started. It stays so, whatever happens
    /// then: see [`Node::ready`] for how it is now.
    pub fn started(&self) -> bool {
        if self.shared.started.load(Ordering::Acquire) {
            return true;
        }
        let caught_up = |partition: &Partition| partition.caught_up.load(Ordering::Acquire);
        let started = self.partitions.iter().all(|partition| caught_up(partition)) && self.joined();
        self.shared.started.fetch_or(started, Ordering::AcqRel);
        started
    }

    /// Whether this node is to keep its place: it is neither drained nor leaves its cluster, as far as is
    /// known here. One that is not serves whoever is there, and nobody else should come.
    pub fn stays(&self) -> bool {
        if self.shared.told_to_go.lock().is_some_and(|at| at.elapsed() < TOLD_COUNTS) {
            return false;
        }
        let applied = self.partitions[0].applied.read();
        let row = applied.state.directory().node(self.shared.node);
        row.is_none_or(|row| row.state == NodeState::Active)
    }

    /// Takes note of what was asked of this node here, before the directory says so: it is to stay, or
    /// not. A node that is out at once is told nothing any more, and is soon taken for cut off.
    pub fn shall_stay(&self, stay: bool) {
        *self.shared.told_to_go.lock() = (!stay).then(Instant::now);
    }

    /// Whether the directory has this node as a member; one that is alone has no directory to be in.
    fn joined(&self) -> bool {
        let applied = self.partitions[0].applied.read();
        let row = applied.state.directory().node(self.shared.node);
        self.shared.peers.is_none() || row.is_some_and(|row| row.state != NodeState::Removed)
    }
}

fn figures_of(partition: &Partition, settled: bool) -> GroupFigures {
    let stale_ms = partition.gauges.stale_ms.load(Ordering::Relaxed);
    // A cut is taken and told under the same lock.
    let (changed, cut_rows) = {
        let applied = partition.applied.read();
        (applied.changes.rows(), partition.gauges.cut_rows.load(Ordering::Relaxed))
    };
    let changed = changed.min(partition.shared.options.changed_rows_max()) as u64;
    let mut figures = GroupFigures {
        group: partition.number,
        role: Role::Stopped,
        condition: Condition::Leaderless,
        settled,
        replication_lag: None,
        apply_lag: 0,
        queued_commands: partition.queue.len() as u64,
        entries_in_flight: partition.in_flight.count() as u64,
        snapshot_pending: partition.snapshot_pending.load(Ordering::Relaxed),
        checkpoint_rows_due: changed + cut_rows,
        stale_ms,
    };
    let Some(raft) = partition.raft.get() else { return figures };
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let next = metrics.last_log_index.map_or(0, |last| last + 1);
    figures.role = match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    };
    let followers = metrics.replication.iter().flatten();
    let others = followers.filter(|(id, _)| **id != partition.shared.node);
    let behind =
        |at: &Option<RaftLogId>| next.saturating_sub(at.as_ref().map_or(0, |at| at.index() + 1));
    if metrics.replication.is_some() {
        figures.replication_lag = Some(others.map(|(_, at)| behind(at)).max().unwrap_or(0));
    }
    figures.apply_lag = next.saturating_sub(partition.applied_next());
    let changing = metrics.membership_config.membership().get_joint_config().len() > 1;
    figures.condition = if metrics.current_leader.is_none() {
        Condition::Leaderless
    } else if stale_ms >= CUT_OFF_MS {
        Condition::CutOff
    } else if !partition.caught_up.load(Ordering::Acquire) {
        Condition::CatchingUp
    } else if changing {
        Condition::Changing
    } else {
        Condition::Steady
    };
    figures
}
