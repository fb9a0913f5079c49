//! Who leads a group, followed while it runs: the partition is told, changes are counted, and
//! connections to its members are kept up.

use std::sync::Arc;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;

use crate::counters::Counters;
use crate::partition::Partition;
use crate::types::{NodeId, Raft, TypeConfig};

/// Tells the partition whether this node leads it; ends with raft.
pub(crate) async fn follow_leadership(partition: Arc<Partition>, raft: Raft) {
    let mut metrics = raft.server_metrics();
    let mut leading = None;
    let mut elections = Elections::default();
    // Connections to all members are kept up, so that an election finds them ready.
    let mut links = Vec::new();
    loop {
        let now = {
            let now = metrics.borrow_watched();
            if let Some(peers) = &partition.shared.peers {
                let others =
                    now.membership_config.membership().nodes().filter(|(id, _)| **id != now.id);
                links = others.map(|(id, node)| peers.links(*id, node)).collect();
            }
            elections.note(&partition.shared.counters, &now);
            now.state == ServerState::Leader
        };
        if leading != Some(now) {
            leading = Some(now);
            partition.leads(now);
        }
        if metrics.changed().await.is_err() {
            drop(links);
            return;
        }
    }
}

/// What of a group's elections was counted.
#[derive(Default)]
struct Elections {
    term: Option<u64>,
    leader: Option<NodeId>,
}

impl Elections {
    /// Counts what has changed since the last look. What is found first is not a change.
    fn note(&mut self, counters: &Counters, now: &RaftServerMetrics<TypeConfig>) {
        let term = now.vote.leader_id().term;
        let before = self.term.replace(term).unwrap_or(term);
        counters.term_changes.add(term.saturating_sub(before));
        if now.current_leader.is_some() && now.current_leader != self.leader {
            counters.leader_changes.add(u64::from(self.leader.is_some()));
            self.leader = now.current_leader;
        }
    }
}
