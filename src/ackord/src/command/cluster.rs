//! `ackord cluster …`: the nodes of a cluster, and moving work between them.
//!
//! What the cluster is to become is in its directory; the nodes bring it about by themselves. These
//! commands write the directory, and wait while it comes about.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ackord_wire::resource::{Cluster, ClusterNode, NodeState};
use reqwest::Method;
use serde_json::{Value, json};

use super::backup;
use super::site::value;
use crate::admin::{Admin, AdminError};
use crate::args::{ClusterCommand, Connect, NodeArgs, RemoveArgs, WaitArgs};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::{self, Format};

/// How often a command that waits looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often it says what it waits for.
const SAY_INTERVAL: Duration = Duration::from_secs(2);
/// How long the replicas may take to reach the entry at which they are compared.
const VERIFY_LIMIT: Duration = Duration::from_secs(30);

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

fn client(connect: &Connect) -> Result<Admin, Failure> {
    Admin::new(connect.urls()?, Some(connect.token()?))
}

fn values<T: serde::Serialize>(items: &[T]) -> Result<Vec<Value>, Failure> {
    items.iter().map(value).collect()
}

fn parse(answer: Value) -> Result<Cluster, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::new(Exit::Unreachable, format!("not a cluster: {error}")))
}

async fn look(admin: &Admin) -> Result<Cluster, Failure> {
    parse(admin.get("/v1/cluster").await?)
}

/// The view of each member that answers, by its number.
async fn everywhere(connect: &Connect, view: &Cluster) -> Result<BTreeMap<u64, Cluster>, Failure> {
    let mut views = BTreeMap::from([(view.node, view.clone())]);
    let token = connect.token()?;
    for node in members(view).filter(|node| node.id != view.node && !node.urls.is_empty()) {
        let admin = Admin::new(node.urls.clone(), Some(token.clone()))?;
        match admin.get("/v1/cluster").await {
            Ok(answer) => {
                let theirs = parse(answer)?;
                views.insert(theirs.node, theirs);
            }
            Err(AdminError::Unreachable(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(views)
}

fn members(view: &Cluster) -> impl Iterator<Item = &ClusterNode> {
    view.nodes.iter().filter(|node| node.state != NodeState::Removed)
}

async fn status(connect: &Connect, format: Format) -> Outcome {
    let view = look(&client(connect)?).await?;
    let views = everywhere(connect, &view).await?;
    let leaderless: Vec<u32> = view
        .groups
        .iter()
        .filter(|group| group.leader.is_none())
        .map(|group| group.group)
        .collect();
    // Who leads knows best how far the others are.
    let behind = |id: u64| {
        let groups = views.values().flat_map(|view| &view.groups);
        groups.filter_map(|group| group.behind.get(&id)).max().copied()
    };
    let rows: Vec<Value> = members(&view)
        .map(|node| {
            json!({
                "id": node.id,
                "state": node.state,
                "up": views.contains_key(&node.id),
                "votes": node.votes,
                "leads": node.leads,
                "behind": behind(node.id),
                "clock_ms": node.clock_difference_ms,
                "version": node.version,
                "urls": node.urls,
            })
        })
        .collect();
    let down = members(&view).filter(|node| !views.contains_key(&node.id)).count();
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
            output::line(&format!(
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
    let mut said = started;
    while !wait.no_wait && !done(&view) {
        if started.elapsed() >= wait.max_time {
            return Err(Failure::new(Exit::Timeout, format!("not done yet: {}", progress(&view))));
        }
        if said.elapsed() >= SAY_INTERVAL {
            said = Instant::now();
            say(progress(&view));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        match look(admin).await {
            Ok(now) => view = now,
            // The node that was asked may be the one that is stopped.
            Err(failure) if failure.exit == Exit::Unreachable => {}
            Err(failure) => return Err(failure),
        }
    }
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
    let asked = parse(admin.send(Method::POST, "/v1/cluster/compare", None).await?)?;
    let wanted: BTreeMap<u32, u64> = asked
        .groups
        .iter()
        .filter_map(|group| Some((group.group, group.compared.as_ref()?.index)))
        .collect();
    let started = Instant::now();
    let rows = loop {
        let views = everywhere(connect, &look(&admin).await?).await?;
        let rows: Vec<Value> =
            wanted.iter().map(|(group, index)| row(&views, *group, *index)).collect();
        let complete = rows.iter().all(|row| row["waiting"].as_array().is_some_and(Vec::is_empty));
        if complete || started.elapsed() >= VERIFY_LIMIT {
            break rows;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    output::list(format, &rows, &["group", "index", "equal", "replicas", "waiting", "hash"])?;
    let count = |what: &str, value: &Value| rows.iter().filter(|row| row[what] == *value).count();
    if count("equal", &json!(false)) > 0 {
        return Err(Failure::new(Exit::Refused, "replicas of a group differ")
            .hint("`ackord cluster replace` the node that is alone with its hash, and report it"));
    }
    if rows.iter().any(|row| row["waiting"] != json!([])) {
        return Err(Failure::new(Exit::Timeout, "not every replica has answered"));
    }
    Ok(Exit::Done)
}

/// What the replicas of a group say about their state at an entry.
fn row(views: &BTreeMap<u64, Cluster>, group: u32, index: u64) -> Value {
    let mut hashes: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut waiting = Vec::new();
    for (node, view) in views {
        let known = view.groups.iter().find(|known| known.group == group);
        let compared = known.and_then(|known| known.compared.as_ref());
        match compared.filter(|compared| compared.index == index) {
            Some(compared) => hashes.entry(&compared.hash).or_default().push(*node),
            None => waiting.push(*node),
        }
    }
    json!({
        "group": group,
        "index": index,
        "equal": hashes.len() <= 1,
        "replicas": hashes.values().map(Vec::len).sum::<usize>(),
        "waiting": waiting,
        "hash": hashes.keys().next(),
        "nodes": hashes,
    })
}
