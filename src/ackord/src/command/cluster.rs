//! `ackord cluster …`: the nodes of a cluster, and moving work between them.
//!
//! What the cluster is to become is in its directory; the nodes bring it about by themselves. These
//! commands write the directory, and wait while it comes about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ackord_wire::resource::{Cluster, ClusterNode, ClusterViews, Compared, NodeState, Why};
use futures_util::future::join_all;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::backup;
use super::site::value;
use crate::admin::{Admin, AdminError};
use crate::args::{ClusterCommand, Connect, NodeArgs, RemoveArgs, WaitArgs};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};

/// How often a command that waits looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the replicas may take to reach the entry at which they are compared.
const VERIFY_LIMIT: Duration = Duration::from_secs(30);
/// How long a comparison waits for members of which none answers.
const DOWN_LIMIT: Duration = Duration::from_secs(10);
/// How long a member may take to show its view before it counts as down.
const MEMBER_LIMIT: Duration = Duration::from_secs(3);

/// Runs the command.
pub async fn run(command: ClusterCommand, format: Format) -> Outcome {
    match command {
        ClusterCommand::Status { connect } => status(&connect, format).await,
        ClusterCommand::Nodes { connect } => {
            let nodes = values(&look(&client(&connect)?).await?.nodes)?;
            let columns = ["id", "state", "connected", "votes", "leads", "zone", "address", "urls"];
            output::list(format, &nodes, &columns)?;
            Ok(Exit::Done)
        }
        ClusterCommand::Partitions { connect } => {
            let groups = values(&look(&client(&connect)?).await?.groups)?;
            let columns = ["group", "leader", "voters", "learners", "changing", "applied"];
            output::list(format, &groups, &columns)?;
            Ok(Exit::Done)
        }
        ClusterCommand::Join { connect } => join(&connect, format).await,
        ClusterCommand::Drain(arguments) => {
            let NodeArgs { node, wait } = arguments;
            change(node, "drain", &wait, format, |view| {
                view.nodes.iter().any(|known| known.id == node && known.safe_to_stop)
            })
            .await
        }
        ClusterCommand::Undrain(arguments) => {
            let NodeArgs { node, wait } = arguments;
            change(node, "undrain", &wait, format, |view| view.settled).await
        }
        ClusterCommand::Remove(arguments) => {
            let RemoveArgs { node, force, wait } = arguments;
            let act = if force { "remove?force=true" } else { "remove" };
            change(node, act, &wait, format, |view| view.settled).await
        }
        ClusterCommand::Leave(arguments) => {
            let NodeArgs { node, wait } = arguments;
            change(node, "leave", &wait, format, |view| has_left(view, node)).await
        }
        ClusterCommand::Replace(arguments) => replace(arguments, format).await,
        ClusterCommand::Rebalance(wait) => {
            let admin = client(&wait.connect)?;
            let view = look(&admin).await?;
            finish(&admin, view, &wait, format, |view| view.settled).await
        }
        ClusterCommand::Backup { out, connect } => {
            let admin = client(&connect)?;
            let partitions = look(&admin).await?.partitions;
            backup::save(&admin, partitions, &out, format).await
        }
        ClusterCommand::Restore { file, only, connect } => {
            backup::restore(&client(&connect)?, &file, only.as_deref(), format).await
        }
        ClusterCommand::Verify { connect } => verify(&connect, format).await,
    }
}

/// The administration of the nodes that the flags and the environment name.
pub(super) fn client(connect: &Connect) -> Result<Admin, Failure> {
    Admin::new(connect.urls()?, Some(connect.token()?))
}

fn values<T: serde::Serialize>(items: &[T]) -> Result<Vec<Value>, Failure> {
    items.iter().map(value).collect()
}

/// A cluster as a node answers it.
pub(super) fn parse(answer: Value) -> Result<Cluster, Failure> {
    read(answer)
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::new(Exit::Unreachable, format!("not a cluster: {error}")))
}

async fn look(admin: &Admin) -> Result<Cluster, Failure> {
    parse(admin.get("/v1/cluster").await?)
}

/// How the members see the cluster.
#[derive(Debug, Default)]
pub(super) struct Everywhere {
    /// What each member that said it sees, by its number.
    pub views: BTreeMap<u64, Cluster>,
    /// Members that are there and did not say it.
    pub mute: BTreeSet<u64>,
}

impl Everywhere {
    /// Whether a member is there.
    pub fn up(&self, node: u64) -> bool {
        self.views.contains_key(&node) || self.mute.contains(&node)
    }
}

/// How each member sees the cluster. Every address is asked at once what the members tell the node
/// there: a member that one of them cannot reach may answer another.
pub(super) async fn everywhere(admin: &Admin, view: &Cluster) -> Result<Everywhere, Failure> {
    let asked = admin.each().map(|admin| async move {
        tokio::time::timeout(MEMBER_LIMIT, admin.get("/v1/cluster/views")).await
    });
    let mut all = Everywhere::default();
    let mut refused = None;
    for answer in join_all(asked).await {
        match answer {
            Ok(Ok(answer)) => {
                let theirs: ClusterViews = read(answer)?;
                let here = theirs.items.into_iter().filter(|theirs| theirs.cluster == view.cluster);
                all.views.extend(here.map(|theirs| (theirs.node, theirs)));
                let mute = theirs.not_reached.iter();
                let mute = mute.filter(|it| matches!(it.why, Why::Unsupported | Why::Busy));
                all.mute.extend(mute.map(|it| it.node));
            }
            Ok(Err(AdminError::Problem(problem))) if problem.status < 500 => {
                refused = Some(AdminError::Problem(problem));
            }
            // It is down, hangs, or is not ready.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    match refused {
        Some(refused) if all.views.is_empty() => Err(refused.into()),
        Some(_) | None => {
            all.views.entry(view.node).or_insert_with(|| view.clone());
            Ok(all)
        }
    }
}

/// The nodes that are in the cluster.
pub(super) fn members(view: &Cluster) -> impl Iterator<Item = &ClusterNode> {
    view.nodes.iter().filter(|node| node.state != NodeState::Removed)
}

/// Whether a node is in the cluster no more.
pub(super) fn has_left(view: &Cluster, node: u64) -> bool {
    !members(view).any(|known| known.id == node)
}

async fn status(connect: &Connect, format: Format) -> Outcome {
    let admin = client(connect)?;
    let view = look(&admin).await?;
    let all = everywhere(&admin, &view).await?;
    let leaderless: Vec<u32> = view
        .groups
        .iter()
        .filter(|group| group.leader.is_none())
        .map(|group| group.group)
        .collect();
    // Who leads knows best how far the others are.
    let behind = |id: u64| {
        let groups = all.views.values().flat_map(|view| &view.groups);
        groups.filter_map(|group| group.behind.get(&id)).max().copied()
    };
    let rows: Vec<Value> = members(&view)
        .map(|node| {
            json!({
                "id": node.id,
                "state": node.state,
                "up": all.up(node.id),
                "votes": node.votes,
                "leads": node.leads,
                "behind": behind(node.id),
                "clock_ms": node.clock_difference_ms,
                "version": node.version,
                "urls": node.urls,
            })
        })
        .collect();
    let down = members(&view).filter(|node| !all.up(node.id)).count();
    match format {
        Format::Json => {
            let status = json!({
                "cluster": view.cluster,
                "partitions": view.partitions,
                "replication": view.replication,
                "settled": view.settled,
                "without_leader": leaderless,
                "nodes": rows,
            });
            output::object(format, &status)?;
        }
        Format::Text => {
            let columns = ["id", "state", "up", "votes", "leads", "behind", "clock_ms", "urls"];
            output::list(format, &rows, &columns)?;
            let summary = match (leaderless.len(), down, view.settled) {
                (0, 0, true) => {
                    "all nodes are up, every partition is led, nothing moves".to_owned()
                }
                (0, 0, false) => "every partition is led; votes or leads are moving".to_owned(),
                (0, down, _) => format!("{}, every partition is led", down_text(down)),
                (some, down, _) => {
                    format!("{some} groups have no leader, {}", down_text(down))
                }
            };
            output::line(&summary).map_err(|error| output::closed(&error))?;
        }
    }
    Ok(Exit::Done)
}

async fn join(connect: &Connect, format: Format) -> Outcome {
    let view = look(&client(connect)?).await?;
    let addresses: Vec<&str> = members(&view)
        .filter(|node| node.state == NodeState::Active)
        .map(|node| node.address.as_str())
        .filter(|address| !address.is_empty())
        .collect();
    if addresses.is_empty() {
        return Err(Failure::new(Exit::Refused, "no member listens for other nodes")
            .hint("give the node that runs a [cluster] table with `listen` first"));
    }
    let written = match format {
        Format::Json => output::json(&json!({"join": addresses})),
        Format::Text => {
            let list: Vec<String> = addresses.iter().map(|at| format!("\"{at}\"")).collect();
            let list = list.join(", ");
            output::page(&format!(
                "# For `ackord serve` of the new node, whose data directory is empty.\n[cluster]\n\
                 listen = \"ADDRESS:4656\"     # where the other nodes reach it\njoin = [{list}]"
            ))
        }
    };
    written.map_err(|error| output::closed(&error))?;
    Ok(Exit::Done)
}

async fn change(
    node: u64,
    act: &str,
    wait: &WaitArgs,
    format: Format,
    done: impl Fn(&Cluster) -> bool,
) -> Outcome {
    let admin = client(&wait.connect)?;
    let path = format!("/v1/cluster/nodes/{node}/{act}");
    let view = parse(admin.send(Method::POST, &path, None).await?)?;
    finish(&admin, view, wait, format, done).await
}

/// Waits until it is done, saying how far it is.
async fn finish(
    admin: &Admin,
    mut view: Cluster,
    wait: &WaitArgs,
    format: Format,
    done: impl Fn(&Cluster) -> bool,
) -> Outcome {
    let started = Instant::now();
    let settling = Progress::of("moving votes and leads", None, Unit::Time);
    while !wait.no_wait && !done(&view) {
        if started.elapsed() >= wait.max_time {
            return Err(Failure::new(Exit::Timeout, format!("not done yet: {}", progress(&view))));
        }
        settling.note(progress(&view));
        tokio::time::sleep(LOOK_INTERVAL).await;
        match look(admin).await {
            Ok(now) => view = now,
            // The node that was asked may be the one that is stopped.
            Err(failure) if failure.exit == Exit::Unreachable => {}
            Err(failure) => return Err(failure),
        }
    }
    drop(settling);
    let columns = ["id", "state", "votes", "leads", "safe_to_stop", "address"];
    let done = done(&view);
    if let Some(warning) = fragile(&view) {
        say(warning);
    }
    match format {
        Format::Json => output::object(format, &json!({"done": done, "cluster": value(&view)?}))?,
        Format::Text => output::list(format, &values(&view.nodes)?, &columns)?,
    }
    Ok(Exit::Done)
}

fn down_text(nodes: usize) -> String {
    match nodes {
        1 => "1 node is down".to_owned(),
        nodes => format!("{nodes} nodes are down"),
    }
}

/// What an operator should know who has taken nodes away.
fn fragile(view: &Cluster) -> Option<String> {
    let fewest = view.groups.iter().map(|group| group.voters.len()).min()?;
    let wanted = view.replication as usize;
    (fewest < wanted.min(3) && view.nodes.len() > 1).then(|| {
        let (voters, holds) = match fewest {
            1 => ("one voter", "the loss of its node stops it"),
            _ => ("two voters", "the loss of either stops it"),
        };
        format!(
            "warning: some partitions have {voters} instead of {wanted}: {holds}. Add a node with \
             `ackord cluster join`"
        )
    })
}

fn progress(view: &Cluster) -> String {
    let moving = |group: &&ackord_wire::resource::ClusterGroup| {
        let mut wanted = group.wanted.clone();
        wanted.sort_unstable();
        group.changing || wanted != group.voters || group.leader != group.wanted.first().copied()
    };
    let left = view.groups.iter().filter(moving).count();
    let down = members(view).filter(|node| !node.connected).map(|node| node.id.to_string());
    let down: Vec<String> = down.collect();
    let waits = match down.as_slice() {
        [] => String::new(),
        down => format!("; node {} is down, and no vote goes to it", down.join(" and node ")),
    };
    format!("{left} of {} groups are still to be moved{waits}", view.groups.len())
}

async fn replace(arguments: NodeArgs, format: Format) -> Outcome {
    let NodeArgs { node, wait } = arguments;
    let admin = client(&wait.connect)?;
    let mut view = look(&admin).await?;
    let Some(lost) = view.nodes.iter().find(|known| known.id == node) else {
        return Err(Failure::new(Exit::Refused, format!("there is no node {node}")));
    };
    // A command that was interrupted is taken up where it was.
    if lost.state != NodeState::Removed {
        let newest = view.nodes.iter().map(|node| node.id).max().unwrap_or(0);
        let started = Instant::now();
        say(
            "start an empty node in its place now; `ackord cluster join` prints its configuration. \
             Until it is there the old one keeps its votes, so that no copy is given up",
        );
        while !wait.no_wait && !has_successor(&view, newest) {
            if started.elapsed() >= wait.max_time {
                return Err(Failure::new(Exit::Timeout, "no new node has joined yet"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            view = look(&admin).await?;
        }
        let path = format!("/v1/cluster/nodes/{node}/remove?force=true");
        view = parse(admin.send(Method::POST, &path, None).await?)?;
    }
    finish(&admin, view, &wait, format, |view| view.settled).await
}

/// Whether a node with a number above `newest` has joined and follows every group.
fn has_successor(view: &Cluster, newest: u64) -> bool {
    let follows = |id: u64| {
        view.groups.iter().all(|group| group.learners.contains(&id) || group.voters.contains(&id))
    };
    view.nodes.iter().any(|node| {
        node.id > newest && node.state == NodeState::Active && node.connected && follows(node.id)
    })
}

async fn verify(connect: &Connect, format: Format) -> Outcome {
    let admin = client(connect)?;
    // The node that answers this is the one that is asked to compare.
    look(&admin).await?;
    let started = Instant::now();
    let comparing = Progress::of("comparing", None, Unit::Time);
    // A group whose leader has just gone silent takes the entry once it has another one.
    while let Err(error) = admin.send(Method::POST, "/v1/cluster/compare", None).await {
        let passes = match &error {
            AdminError::Problem(problem) => problem.retryable,
            AdminError::Unreachable(_) => true,
            AdminError::Unreadable(_) => false,
        };
        if !passes || started.elapsed() >= VERIFY_LIMIT {
            return Err(error.into());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let started = Instant::now();
    let (rows, waiting) = loop {
        let view = look(&admin).await?;
        let Everywhere { views, .. } = everywhere(&admin, &view).await?;
        let groups = view.groups.iter().map(|group| compared(&view, group.group, &views));
        let groups: Vec<Comparison> = groups.collect();
        let waiting: BTreeSet<u64> =
            groups.iter().flat_map(|group| &group.waiting).copied().collect();
        let named: Vec<String> = waiting.iter().map(u64::to_string).collect();
        comparing.note(format!("waiting for node {}", named.join(", ")));
        let down = waiting.iter().all(|node| !views.contains_key(node));
        let limit = if down { DOWN_LIMIT } else { VERIFY_LIMIT };
        if waiting.is_empty() || started.elapsed() >= limit {
            let rows: Vec<Value> = groups.iter().map(Comparison::row).collect();
            break (rows, waiting);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    drop(comparing);
    output::list(format, &rows, &["group", "index", "equal", "replicas", "waiting", "hash"])?;
    if rows.iter().any(|row| row["equal"] == json!(false)) {
        return Err(Failure::new(Exit::Refused, "replicas of a group differ")
            .hint("`ackord cluster replace` the node that is alone with its hash, and report it"));
    }
    if !waiting.is_empty() {
        let nodes: Vec<String> = waiting.iter().map(u64::to_string).collect();
        let why = format!("not compared: the replicas of node {}", nodes.join(", "));
        return Err(Failure::new(Exit::Timeout, why));
    }
    Ok(Exit::Done)
}

/// What the replicas of a group say about their state at the newest entry of a comparison.
#[derive(Debug, PartialEq)]
struct Comparison {
    group: u32,
    index: Option<u64>,
    /// Who has which hash.
    hashes: BTreeMap<String, Vec<u64>>,
    /// Members with a replica that have not said it: behind, down, or hanging.
    waiting: Vec<u64>,
}

fn compared(view: &Cluster, group: u32, views: &BTreeMap<u64, Cluster>) -> Comparison {
    let in_view = |view: &Cluster| view.groups.iter().find(|known| known.group == group).cloned();
    let said: BTreeMap<u64, Compared> =
        views.iter().filter_map(|(node, view)| Some((*node, in_view(view)?.compared?))).collect();
    let index = said.values().map(|said| said.index).max();
    let membership = in_view(view).map(|known| [known.voters, known.learners].concat());
    let membership = membership.unwrap_or_default();
    let mut comparison = Comparison { group, index, hashes: BTreeMap::new(), waiting: Vec::new() };
    for node in members(view).map(|node| node.id) {
        match said.get(&node).filter(|said| Some(said.index) == index) {
            Some(said) => comparison.hashes.entry(said.hash.clone()).or_default().push(node),
            None if views.contains_key(&node) || membership.contains(&node) => {
                comparison.waiting.push(node);
            }
            None => {}
        }
    }
    comparison
}

impl Comparison {
    fn row(&self) -> Value {
        let equal = match (self.hashes.len(), self.waiting.is_empty()) {
            (0 | 1, true) => Some(true),
            // Nobody knows yet.
            (0 | 1, false) => None,
            _ => Some(false),
        };
        json!({
            "group": self.group,
            "index": self.index,
            "equal": equal,
            "replicas": self.hashes.values().map(Vec::len).sum::<usize>(),
            "waiting": self.waiting,
            "hash": self.hashes.keys().next(),
            "nodes": self.hashes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster of three as one of them sees it, with what it says about group 0.
    fn view(node: u64, compared: Option<(u64, &str)>) -> Cluster {
        let compared = compared.map(|(index, hash)| json!({"index": index, "hash": hash}));
        let nodes: Vec<Value> = (1..=3)
            .map(|id| {
                json!({"id": id, "state": "active", "address": "", "urls": [], "version": "",
                       "connected": true, "votes": 1, "leads": 0, "safe_to_stop": false})
            })
            .collect();
        let group = json!({"group": 0, "term": 1, "voters": [1, 2, 3], "learners": [],
                           "wanted": [1, 2, 3], "changing": false, "applied": 9,
                           "compared": compared});
        let view = json!({"cluster": "", "node": node, "partitions": 1, "replication": 3,
                          "settled": true, "nodes": nodes, "groups": [group]});
        serde_json::from_value(view).unwrap()
    }

    fn row(views: Vec<Cluster>) -> Value {
        let asked = views[0].clone();
        let views = views.into_iter().map(|view| (view.node, view)).collect();
        compared(&asked, 0, &views).row()
    }

    #[test]
    fn replicas_are_equal_when_all_of_them_say_the_same() {
        let said = |node, hash| view(node, Some((9, hash)));
        let all = row(vec![said(1, "a"), said(2, "a"), said(3, "a")]);
        assert_eq!((&all["equal"], &all["waiting"]), (&json!(true), &json!([])));
        let two = row(vec![said(1, "a"), said(2, "a"), said(3, "b")]);
        assert_eq!((&two["equal"], &two["nodes"]["b"]), (&json!(false), &json!([3])));
    }

    #[test]
    fn a_member_that_does_not_answer_is_waited_for() {
        let row = row(vec![view(1, Some((9, "a"))), view(2, Some((9, "a")))]);
        assert_eq!((&row["equal"], &row["waiting"]), (&json!(null), &json!([3])));
    }

    #[test]
    fn a_member_that_is_behind_is_waited_for_also_when_it_is_the_one_that_is_asked() {
        let row = row(vec![view(1, Some((4, "x"))), view(2, Some((9, "a"))), view(3, None)]);
        assert_eq!((&row["index"], &row["waiting"]), (&json!(9), &json!([1, 3])));
    }
}
