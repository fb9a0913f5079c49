//! Reads that see whatever was acknowledged before them.
//!
//! `a read ─▶ raft's index for it ─▶ a majority follows, by requests since ─▶ applied up to there`
//!
//! Never a lease: a leader that was suspended cannot know that its lease is over.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::vote::RaftLeaderId as _;
use tokio::time::Instant;

use crate::partition::Partition;
use crate::peer::PeerLinks;
use crate::types::{NodeId, Raft, RaftState, RaftVote};

/// How long a read may wait for this node to catch up with the leader.
const APPLIED_LIMIT: Duration = Duration::from_secs(5);
/// How long a leader waits for a majority that answers requests made since the read, when raft takes it
/// for confirmed. Together with raft's own limit it is less than what another node waits for it.
const CONFIRMED_LIMIT: Duration = Duration::from_millis(600);

impl Partition {
    /// After it, what is applied here has everything that was acknowledged before the call, on whatever
    /// node. Otherwise why that is not confirmed.
    pub(crate) async fn linearize(&self, elsewhere: Option<&PeerLinks>) -> Result<(), String> {
        let index = match elsewhere {
            Some(leader) => leader.read_index(self.number).await.map_err(text)?,
            None => self.read_index().await?,
        };
        if self.wait_applied(index + 1, APPLIED_LIMIT).await {
            Ok(())
        } else {
            Err(format!("index {index} is not applied here in time"))
        }
    }

    /// The index up to which a read at a node that leads has to see.
    pub(crate) async fn read_index(&self) -> Result<u64, String> {
        let raft = self.raft.get().ok_or("this node has not started")?;
        let asked = Instant::now();
        let reading = raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let read = *reading.await.map_err(text)?.read_log_id();
        // Raft has asked everybody, but what it takes for an answer may be one to what it said before the
        // read: see `confirmed`.
        let (vote, voters) = leading(raft).await?;
        let leader = self.shared.node;
        if *read.committed_leader_id() != vote.leader_id.to_committed() {
            return Err("another vote has begun".to_owned());
        }
        if self.confirmed.wait((leader, &vote), &voters, asked, CONFIRMED_LIMIT).await {
            Ok(read.index())
        } else {
            Err("no majority has answered since".to_owned())
        }
    }
}

/// By what vote a node leads, and whose majorities it needs.
async fn leading(raft: &Raft) -> Result<(RaftVote, Vec<BTreeSet<NodeId>>), String> {
    let look = |state: &RaftState| {
        let membership = state.membership_state.effective().membership();
        (*state.vote_ref(), membership.get_joint_config().clone())
    };
    raft.with_raft_state(look).await.map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
