//! The directory of nodes and who votes where.

use std::collections::{BTreeMap, BTreeSet};

use ackord_machine::site::*;

use crate::world::*;

fn info(address: &str, zone: &str) -> NodeInfo {
    NodeInfo { address: address.into(), zone: zone.into(), ..NodeInfo::default() }
}

fn founded(zones: &[&str], partitions: u32) -> World {
    let mut world = World::empty();
    let nodes: BTreeMap<u64, NodeInfo> = (1..)
        .zip(zones.iter().enumerate().map(|(at, zone)| info(&format!("n{at}:1"), zone)))
        .collect();
    let found = DirectoryCommand::Found { partitions, replication: 3, nodes };
    assert_eq!(world.run(Command::Directory(found)), Outcome::Done);
    world
}

fn join(world: &mut World, nonce: u8, address: &str) -> Outcome {
    let info = info(address, "");
    world.run(Command::Directory(DirectoryCommand::Join { nonce: [nonce; 16], info }))
}

fn set_state(world: &mut World, id: u64, state: NodeState) -> Outcome {
    world.run(Command::Directory(DirectoryCommand::SetState { id, state }))
}

fn spread_of(counts: impl Iterator<Item = usize>) -> usize {
    let counts: Vec<usize> = counts.collect();
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

#[test]
fn a_cluster_is_founded_once() {
    let mut world = founded(&["", "", ""], 16);
    let again = DirectoryCommand::Found { partitions: 3, replication: 1, nodes: BTreeMap::new() };
    assert_eq!(world.run(Command::Directory(again)), Outcome::Done);
    let cluster = world.state.directory().cluster().unwrap();
    assert_eq!((cluster.partitions, cluster.next_node), (16, 4));
    assert_eq!(rebuilt(&world.state), world.state);
}

#[test]
fn a_node_joins_under_a_number_that_no_other_ever_had_and_a_repeat_is_recognised() {
    let mut world = founded(&["", "", ""], 16);
    assert_eq!(join(&mut world, 9, "n9:1"), Outcome::Joined { node: 4 });
    assert_eq!(join(&mut world, 9, "n9:1"), Outcome::Joined { node: 4 });
    assert!(matches!(refusal(join(&mut world, 8, "n9:1")), Refusal::Conflict { .. }));
    assert_eq!(set_state(&mut world, 4, NodeState::Removed), Outcome::Done);
    assert_eq!(join(&mut world, 7, "n9:1"), Outcome::Joined { node: 5 });
    assert!(matches!(
        refusal(set_state(&mut world, 4, NodeState::Active)),
        Refusal::Conflict { .. }
    ));
    assert_eq!(rebuilt(&world.state), world.state);
}

#[test]
fn the_last_active_node_stays() {
    let mut world = founded(&["", ""], 4);
    assert_eq!(set_state(&mut world, 1, NodeState::Draining), Outcome::Done);
    for state in [NodeState::Draining, NodeState::Removed] {
        assert!(matches!(refusal(set_state(&mut world, 2, state)), Refusal::Conflict { .. }));
    }
    assert_eq!(set_state(&mut world, 1, NodeState::Active), Outcome::Done);
    assert_eq!(set_state(&mut world, 2, NodeState::Draining), Outcome::Done);
}

#[test]
fn replicas_and_leaders_are_spread_within_one_of_each_other() {
    for nodes in 1..=9 {
        for partitions in 1..=48 {
            let world = founded(&vec![""; nodes], partitions);
            let placement = world.state.directory().placement();
            assert_eq!(placement.len(), partitions as usize + 1);
            let groups = &placement[1..];
            let wanted = if nodes < 3 { 1 } else { 3 };
            for group in groups {
                let distinct: BTreeSet<u64> = group.voters.iter().copied().collect();
                assert_eq!((distinct.len(), group.voters.len()), (wanted, wanted));
            }
            let ids = || 1..=nodes as u64;
            let replicas = ids().map(|id| groups.iter().filter(|g| g.voters.contains(&id)).count());
            assert!(spread_of(replicas) <= 1, "{nodes} nodes, {partitions} partitions");
            let leads = ids().map(|id| groups.iter().filter(|g| g.voters[0] == id).count());
            assert!(spread_of(leads) <= 1, "{nodes} nodes, {partitions} partitions");
            assert_eq!(placement[0].voters.len(), [1, 1, 3, 3, 5, 5, 5, 5, 5][nodes - 1]);
        }
    }
}

#[test]
fn voters_are_in_different_zones_where_there_are_enough() {
    let world = founded(&["a", "a", "b", "b", "c"], 16);
    for group in &world.state.directory().placement()[1..] {
        let zones: BTreeSet<String> = group
            .voters
            .iter()
            .map(|id| world.state.directory().node(*id).unwrap().info.zone.clone())
            .collect();
        assert_eq!(zones.len(), 3, "{group:?}");
    }
}

#[test]
fn a_node_that_drains_or_is_removed_votes_nowhere() {
    let mut world = founded(&["", "", "", ""], 16);
    set_state(&mut world, 2, NodeState::Draining);
    let placement = world.state.directory().placement();
    assert!(placement.iter().all(|group| group.voters.len() == 3 && !group.voters.contains(&2)));
    set_state(&mut world, 2, NodeState::Removed);
    assert_eq!(world.state.directory().placement(), placement);
    assert_eq!(world.state.directory().members().count(), 3);
}
