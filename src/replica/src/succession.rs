//! A leader whose process is dead is followed at once, without waiting for its lease.
//!
//! `connection lost ─▶ refused on reconnect ─▶ own lease dropped ─▶ pre-vote ─▶ election`
//!
//! A refused connection says that nobody listens there any more: the machine is up and the process
//! is not. A silent peer says nothing of the kind and is left to the election timeout. Invariants: a
//! node drops only its own lease; the others grant a vote only when they have lost the leader too,
//! so one broken link deposes nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::partition::Partition;
use crate::types::{NodeId, Raft};

/// The voters stand one after the other, so that they do not split the votes.
const STAGGER: Duration = Duration::from_millis(40);
/// How long it is tried; then the election timeout has come anyway.
const TRY_LIMIT: Duration = Duration::from_secs(1);

/// The body of the node's task: `groups` are all of it, `dead` the nodes that refuse connections.
pub(crate) async fn run(groups: Vec<Arc<Partition>>, mut dead: watch::Receiver<BTreeSet<NodeId>>) {
    let mut known = BTreeSet::new();
    while dead.changed().await.is_ok() {
        let now = dead.borrow_and_update().clone();
        for node in now.difference(&known) {
            tracing::warn!(node, "a node refuses connections: its process is gone");
            for group in &groups {
                let Some(raft) = group.raft.get() else { continue };
                tokio::spawn(succeed(raft.clone(), group.shared.node, group.number, *node));
            }
        }
        known = now;
    }
}

/// Stands for election in a group that `dead` led, until it has another leader.
pub(crate) async fn succeed(raft: Raft, me: NodeId, group: u32, dead: NodeId) {
    let until = Instant::now() + TRY_LIMIT;
    while Instant::now() < until {
        let Some(turn) = turn(&raft, me, group, dead) else { return };
        let Ok(vote) = raft.with_raft_state(|state| *state.vote_ref()).await else { return };
        // Addressed to another node it only says that this leader's lease is over.
        let request = TransferLeaderRequest::new(vote, dead, None);
        if raft.handle_transfer_leader(request).await.is_err() {
            return;
        }
        sleep(STAGGER * turn).await;
        if self::turn(&raft, me, group, dead).is_none() || raft.trigger().elect(true).await.is_err()
        {
            return;
        }
        sleep(STAGGER * 3).await;
    }
}

/// How many voters stand before this one; `None` when it is not to stand.
fn turn(raft: &Raft, me: NodeId, group: u32, dead: NodeId) -> Option<u32> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    if metrics.current_leader != Some(dead) {
        return None;
    }
    let voters = metrics.membership_config.membership().voter_ids();
    let others: Vec<NodeId> = voters.filter(|voter| *voter != dead).collect();
    let place = others.iter().position(|voter| *voter == me)?;
    // Another one begins in each group, so that the leads are spread.
    let first = group as usize % others.len();
    u32::try_from((place + others.len() - first) % others.len()).ok()
}
