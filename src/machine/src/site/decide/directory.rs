//! The directory of nodes: founding, joining, leaving.

use super::super::directory::{
    ClusterRow, Directory, DirectoryCommand, NODE_TEXT_BYTES_MAX, NODE_URLS_MAX, NODES_MAX,
    NodeInfo, NodeRow, NodeState,
};
use super::super::outcome::{Outcome, Refusal};
use super::super::row::Row;
use super::super::validate::invalid;
use super::Verdict;
use super::admin::conflict;

pub(super) fn change(
    directory: &Directory,
    command: &DirectoryCommand,
) -> Result<Verdict, Refusal> {
    match command {
        DirectoryCommand::Found { partitions, replication, nodes } => {
            for info in nodes.values() {
                check(info)?;
            }
            let mut verdict = Verdict::new(Outcome::Done);
            if directory.cluster().is_some() {
                return Ok(verdict);
            }
            let next_node = nodes.keys().next_back().map_or(1, |last| last.saturating_add(1));
            verdict.put(Row::Cluster(ClusterRow {
                partitions: *partitions,
                replication: *replication,
                next_node,
            }));
            for (id, info) in nodes {
                let (info, state) = (info.clone(), NodeState::Active);
                verdict.put(Row::Node(NodeRow { id: *id, info, state, nonce: [0; 16] }));
            }
            Ok(verdict)
        }
        DirectoryCommand::Join { nonce, info } => join(directory, *nonce, info),
        DirectoryCommand::Announce { id, info } => {
            check(info)?;
            let node = find(directory, *id)?;
            let mut verdict = Verdict::new(Outcome::Done);
            if node.info != *info {
                verdict.put(Row::Node(NodeRow { info: info.clone(), ..node.clone() }));
            }
            Ok(verdict)
        }
        DirectoryCommand::SetState { id, state } => set_state(directory, *id, *state),
    }
}

fn join(directory: &Directory, nonce: [u8; 16], info: &NodeInfo) -> Result<Verdict, Refusal> {
    check(info)?;
    let Some(cluster) = directory.cluster() else {
        return Err(conflict("the cluster is not founded yet"));
    };
    if let Some(known) = directory.nodes().find(|node| node.nonce == nonce) {
        return Ok(Verdict::new(Outcome::Joined { node: known.id }));
    }
    if let Some(other) = directory.members().find(|node| node.info.address == info.address) {
        let detail = format!(
            "node {} has the address {}: remove or replace it first",
            other.id, info.address
        );
        return Err(conflict(detail));
    }
    if directory.members().count() >= NODES_MAX {
        return Err(conflict(format!("a cluster has at most {NODES_MAX} nodes")));
    }
    let id = cluster.next_node;
    let mut verdict = Verdict::new(Outcome::Joined { node: id });
    verdict.put(Row::Cluster(ClusterRow { next_node: id.saturating_add(1), ..cluster.clone() }));
    let (info, state) = (info.clone(), NodeState::Active);
    verdict.put(Row::Node(NodeRow { id, info, state, nonce }));
    Ok(verdict)
}

fn set_state(directory: &Directory, id: u64, state: NodeState) -> Result<Verdict, Refusal> {
    let node = find(directory, id)?;
    let mut verdict = Verdict::new(Outcome::Done);
    if node.state == state {
        return Ok(verdict);
    }
    let others = directory
        .members()
        .filter(|other| other.id != id && other.state == NodeState::Active)
        .count();
    if state != NodeState::Active && others == 0 {
        return Err(conflict("another active node must remain"));
    }
    let replication = directory.cluster().map_or(0, |cluster| cluster.replication);
    if state == NodeState::Leaving && others < usize::try_from(replication).unwrap_or(usize::MAX) {
        return Err(conflict(format!(
            "{others} active nodes would remain, and every partition shall have {replication} \
             voters: add a node first"
        )));
    }
    verdict.put(Row::Node(NodeRow { state, ..node.clone() }));
    Ok(verdict)
}

fn find(directory: &Directory, id: u64) -> Result<&NodeRow, Refusal> {
    directory
        .node(id)
        .filter(|node| node.state != NodeState::Removed)
        .ok_or_else(|| conflict(format!("there is no node {id}")))
}

fn check(info: &NodeInfo) -> Result<(), Refusal> {
    let texts = [("address", &info.address), ("zone", &info.zone), ("version", &info.version)];
    let urls = info.urls.iter().map(|url| ("urls", url));
    for (field, text) in texts.into_iter().chain(urls) {
        if text.len() > NODE_TEXT_BYTES_MAX {
            let detail = format!("0..={NODE_TEXT_BYTES_MAX} bytes, was {}", text.len());
            return Err(Refusal::Invalid(invalid(field, detail)));
        }
    }
    if info.urls.len() > NODE_URLS_MAX {
        let detail = format!("0..={NODE_URLS_MAX}, was {}", info.urls.len());
        return Err(Refusal::Invalid(invalid("urls", detail)));
    }
    Ok(())
}
