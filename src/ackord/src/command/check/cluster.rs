//! `ackord check cluster`: members, leaders, quorums, and replicas that are behind.

use std::collections::{BTreeMap, BTreeSet};

use ackord_wire::resource::{Cluster, ClusterGroup, NodeState};

use super::report::{Bad, Measure, Report, whole};
use super::unanswered;
use crate::admin::Admin;
use crate::args::Connect;
use crate::command::cluster::{Everywhere, client, everywhere, members, parse};
use crate::exit::{Exit, Failure, Health};

/// Looks at the cluster as each of its members sees it.
pub async fn look(
    connect: &Connect,
    wanted: Option<usize>,
    lag: (u64, u64),
) -> Result<Report, Failure> {
    let admin = client(connect)?;
    let mut report = Report::of("cluster");
    match views(&admin).await {
        Ok((view, all)) => judge(&view, &all, wanted, lag, &mut report),
        Err((health, why)) => report.find(health, why),
    }
    Ok(report)
}

type Views = (Cluster, Everywhere);

async fn views(admin: &Admin) -> Result<Views, (Health, String)> {
    let answer = admin.get("/v1/cluster").await.map_err(|error| unanswered(&error))?;
    let failed = |failure: Failure| {
        let health =
            if failure.exit == Exit::Unreachable { Health::Critical } else { Health::Unknown };
        (health, failure.message)
    };
    let view = parse(answer).map_err(failed)?;
    let all = everywhere(admin, &view).await.map_err(failed)?;
    Ok((view, all))
}

fn judge(
    view: &Cluster,
    seen: &Everywhere,
    wanted: Option<usize>,
    (warn, crit): (u64, u64),
    report: &mut Report,
) {
    let views = &seen.views;
    let all: Vec<u64> = members(view).map(|node| node.id).collect();
    let here: BTreeSet<u64> = all.iter().copied().filter(|id| seen.up(*id)).collect();
    if let Some(wanted) = wanted.filter(|wanted| *wanted != all.len()) {
        report.find(Health::Critical, format!("{} members, not {wanted}", all.len()));
    }
    for node in members(view) {
        if !here.contains(&node.id) {
            report.find(Health::Warning, format!("node {} is down", node.id));
        } else if matches!(node.state, NodeState::Draining | NodeState::Leaving) {
            report.find(Health::Warning, format!("node {} is draining", node.id));
        }
    }
    let active = members(view).filter(|node| node.state == NodeState::Active).count();
    let wanted = voters_wanted(view.replication as usize, active);
    let mut found = Found::default();
    for group in &view.groups {
        found.add(group, views, &here, wanted);
    }
    found.tell(report);
    let behind = behind(views);
    for (node, entries) in &behind {
        let health = match *entries {
            entries if entries >= crit => Health::Critical,
            entries if entries >= warn => Health::Warning,
            _ => Health::Ok,
        };
        report.find(health, format!("node {node} is {entries} entries behind"));
    }
    report.summary = format!(
        "{} of {} nodes are up, {} of {} groups are led",
        here.len(),
        all.len(),
        view.groups.len() - found.leaderless.len(),
        view.groups.len()
    );
    let mut plain = |name, about, value: usize| {
        let value = whole(value as u64);
        let (labels, unit) = (Vec::new(), "");
        report.measure(Measure {
            name,
            about,
            labels,
            value,
            unit,
            warn: None,
            crit: None,
            bad: Bad::Above,
        });
    };
    plain("nodes", "Nodes that are members.", all.len());
    plain("nodes_up", "Nodes that are members and answer.", here.len());
    plain("groups", "Groups: the directory and the partitions.", view.groups.len());
    plain("groups_without_leader", "Groups that nobody leads.", found.leaderless.len());
    plain("groups_without_quorum", "Groups of whose voters no majority is up.", found.lost.len());
    plain(
        "groups_with_few_voters",
        "Groups with fewer voters than there shall be.",
        found.few.len(),
    );
    for (node, entries) in behind {
        report.measure(Measure {
            name: "behind_entries",
            about: "Entries that the farthest of the node's replicas lacks.",
            labels: vec![("node", node.to_string())],
            value: whole(entries),
            unit: "",
            warn: Some(whole(warn)),
            crit: Some(whole(crit)),
            bad: Bad::Above,
        });
    }
}

/// Groups with which something is wrong.
#[derive(Default)]
struct Found {
    leaderless: Vec<u32>,
    lost: Vec<u32>,
    few: Vec<u32>,
}

impl Found {
    fn add(
        &mut self,
        group: &ClusterGroup,
        views: &BTreeMap<u64, Cluster>,
        up: &BTreeSet<u64>,
        wanted: usize,
    ) {
        let of_group = |view: &Cluster| {
            view.groups.iter().find(|known| known.group == group.group).and_then(|it| it.leader)
        };
        // A leader that is down is one that is remembered.
        let led = views.values().filter_map(of_group).any(|leader| up.contains(&leader));
        if !led {
            self.leaderless.push(group.group);
        }
        let here = group.voters.iter().filter(|voter| up.contains(voter)).count();
        if 2 * here <= group.voters.len() {
            self.lost.push(group.group);
        }
        if group.voters.len() < wanted {
            self.few.push(group.group);
        }
    }

    fn tell(&self, report: &mut Report) {
        let mut tell = |health, groups: &[u32], what: &str| {
            if let [first, rest @ ..] = groups {
                let named = match rest.len() {
                    0 => format!("group {first}"),
                    more => format!("group {first} and {more} more"),
                };
                report.find(health, format!("{named}: {what}"));
            }
        };
        tell(Health::Critical, &self.lost, "no majority of its voters is up");
        tell(Health::Critical, &self.leaderless, "no leader");
        tell(Health::Warning, &self.few, "fewer voters than there shall be");
    }
}

/// The largest odd number of voters that there are nodes for.
fn voters_wanted(replication: usize, nodes: usize) -> usize {
    let most = replication.min(nodes).max(1);
    if most.is_multiple_of(2) { most - 1 } else { most }
}

/// How far each node is behind, by those that lead.
fn behind(views: &BTreeMap<u64, Cluster>) -> BTreeMap<u64, u64> {
    let mut behind = BTreeMap::new();
    for (node, entries) in
        views.values().flat_map(|view| &view.groups).flat_map(|group| &group.behind)
    {
        let most = behind.entry(*node).or_insert(0);
        *most = (*entries).max(*most);
    }
    behind
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A cluster of three as seen by node 1, which leads group 0, with node 3 so far behind.
    fn check(up: &[u64], voters: &[u64], behind: u64) -> Report {
        check_members(up, voters, behind, None)
    }

    fn check_members(up: &[u64], voters: &[u64], behind: u64, wanted: Option<usize>) -> Report {
        let node = |id: u64| {
            json!({"id": id, "state": "active", "address": "", "urls": [format!("http://{id}")],
                   "version": "", "connected": true, "votes": 1, "leads": 0,
                   "safe_to_stop": false})
        };
        let view: Cluster = serde_json::from_value(json!({
            "cluster": "", "node": 1, "partitions": 1, "replication": 3, "settled": true,
            "nodes": [node(1), node(2), node(3)],
            "groups": [{"group": 0, "leader": 1, "term": 1, "voters": voters, "learners": [],
                        "wanted": voters, "changing": false, "applied": 9,
                        "behind": {"3": behind}}],
        }))
        .unwrap();
        let views = up.iter().map(|id| (*id, Cluster { node: *id, ..view.clone() })).collect();
        let seen = Everywhere { views, mute: BTreeSet::new() };
        let mut report = Report::of("cluster");
        judge(&view, &seen, wanted, (10, 100), &mut report);
        report
    }

    #[test]
    fn each_fault_is_found_and_judged() {
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3], 0).health(), Health::Ok);
        assert_eq!(check(&[1, 2], &[1, 2, 3], 0).health(), Health::Warning);
        assert_eq!(check(&[1, 2, 3], &[1], 0).health(), Health::Warning, "fewer voters");
        assert_eq!(check(&[1], &[1, 2, 3], 0).health(), Health::Critical, "no majority");
        assert_eq!(check(&[2, 3], &[1, 2, 3], 0).health(), Health::Critical, "leader is down");
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3], 10).health(), Health::Warning);
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3], 100).health(), Health::Critical);
        let of = |wanted| check_members(&[1, 2, 3], &[1, 2, 3], 0, Some(wanted)).health();
        assert_eq!([2, 3, 4].map(of), [Health::Critical, Health::Ok, Health::Critical]);
    }
}
