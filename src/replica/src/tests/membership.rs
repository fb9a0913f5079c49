//! What holds for a group beyond a single node, as far as one node can show it.

use std::collections::BTreeSet;
use std::time::Duration;

use ackord_machine::site::SiteName;
use openraft::BasicNode;

use super::fixture::{create_site, options, until};
use crate::{Node, NodeOptions, ProposeError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_second_voter_that_cannot_be_reached_when_proposing_then_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(NodeOptions { partitions: 1, ..options(dir.path()) }).unwrap();
    let site = SiteName::from("plant");
    let at = node.partition_of(&site);
    let raft = at.raft();
    raft.add_learner(2, BasicNode::default(), false).await.unwrap();
    let changing = raft.clone();
    let change =
        tokio::spawn(
            async move { changing.change_membership(BTreeSet::from([1, 2]), false).await },
        );
    // The joint membership counts from its append on: a majority of it is both nodes.
    until(|| raft.voter_ids().count() == 2).await;
    let pending = at.try_propose(create_site(&site)).unwrap();
    match tokio::time::timeout(Duration::from_millis(500), pending).await {
        Ok(Err(ProposeError::Unavailable)) | Err(_) => {}
        Ok(other) => panic!("{other:?} without a majority"),
    }
    assert!(at.linearize().await.is_err());
    assert!(at.read(|state| state.site("plant").is_none()));
    change.abort();
    drop(node);
}
