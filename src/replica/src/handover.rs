//! Handing leadership over before a graceful stop, so that nobody has to wait for an election.
//!
//! Bounded: each voter that can be reached is asked once, the one with the most of the log first,
//! and given a moment. raft never takes back a transfer that came to nothing; the next one
//! replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::timeout;

use crate::partition::Partition;
use crate::types::{NodeId, Raft};

/// How long a voter has to take over.
const TAKEOVER_LIMIT: Duration = Duration::from_millis(200);

/// Lets another voter lead, if this node leads and one can.
pub(crate) async fn hand_over(partition: &Arc<Partition>) {
    let Some(raft) = partition.raft.get() else { return };
    for candidate in candidates(partition, raft) {
        if let Err(error) = raft.trigger().transfer_leader(candidate).await {
            tracing::debug!(partition = partition.number, %error, "raft has stopped");
            return;
        }
        if timeout(TAKEOVER_LIMIT, led_elsewhere(raft)).await.is_ok() {
            tracing::debug!(partition = partition.number, candidate, "leadership handed over");
            return;
        }
    }
}

/// The other voters that can be reached, those that have the most of the log first. None when this
/// node does not lead.
fn candidates(partition: &Partition, raft: &Raft) -> Vec<NodeId> {
    let Some(peers) = &partition.shared.peers else { return Vec::new() };
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let voters: Vec<_> = membership.voter_ids().collect();
    let Some(replication) = &metrics.replication else { return Vec::new() };
    let mut ordered = BTreeMap::new();
    for voter in voters.into_iter().filter(|voter| *voter != partition.shared.node) {
        let Some(node) = membership.get_node(&voter) else { continue };
        if peers.links(voter, node).is_up() {
            let matched = replication.get(&voter).and_then(|matched| *matched);
            ordered.insert((matched.map(|id| id.index()), voter), voter);
        }
    }
    ordered.into_values().rev().collect()
}

async fn led_elsewhere(raft: &Raft) {
    let mut metrics = raft.server_metrics();
    loop {
        {
            let now = metrics.borrow_watched();
            let led = now.current_leader.is_some_and(|leader| leader != now.id);
            if now.state != ServerState::Leader && led {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
