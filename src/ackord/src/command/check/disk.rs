//! `ackord check disk`: how much room the disks of nodes have left.

use ackord_wire::resource::Node;

use super::report::{Bad, Measure, Report, whole};
use super::{each, unanswered};
use crate::admin::Admin;
use crate::args::Connect;
use crate::exit::{Failure, Health};
use crate::moment::bytes;

/// The measure of which less is worse.
const FREE: &str = "disk_free_bytes";

/// Looks at the node at each address.
pub async fn look(
    connect: &Connect,
    warn: Option<u64>,
    crit: Option<u64>,
) -> Result<Report, Failure> {
    connect.token()?;
    let mut report = Report::of("disk");
    let mut least: Option<(u64, u64)> = None;
    for (url, admin) in each(connect)? {
        match node(&admin).await {
            Ok(node) => {
                judge(&url, &node, (warn, crit), &mut report);
                let here = (node.disk.free_bytes, node.id);
                least = Some(least.map_or(here, |least| least.min(here)));
            }
            Err((health, why)) => report.find(health, format!("{url}: {why}")),
        }
    }
    if let Some((free, id)) = least {
        report.summary = format!("the least room has node {id}: {} free", bytes(free));
    }
    Ok(report)
}

async fn node(admin: &Admin) -> Result<Node, (Health, String)> {
    let answer = admin.get("/v1/node").await.map_err(|error| unanswered(&error))?;
    serde_json::from_value(answer)
        .map_err(|error| (Health::Unknown, format!("does not say how full it is: {error}")))
}

fn judge(url: &str, node: &Node, thresholds: (Option<u64>, Option<u64>), report: &mut Report) {
    let (disk, reserve) = (&node.disk, node.disk.reserve_bytes);
    let warn = thresholds.0.unwrap_or_else(|| reserve.saturating_mul(2));
    let crit = thresholds.1.unwrap_or(reserve);
    let (free, id) = (disk.free_bytes, node.id);
    let health = match free {
        // What a node does at its reserve is no matter of taste.
        free if free <= crit || free <= reserve => Health::Critical,
        free if free <= warn => Health::Warning,
        _ => Health::Ok,
    };
    let (left, kept) = (bytes(free), bytes(reserve));
    let what = if free <= reserve {
        format!("node {id} refuses raises: {left} free, its reserve is {kept}")
    } else {
        format!("node {id} at {url} has {left} free, its reserve is {kept}")
    };
    report.find(health, what);
    let mut measure = |name, about, value, warn: Option<u64>, crit: Option<u64>| {
        report.measure(Measure {
            name,
            about,
            labels: vec![("node", id.to_string())],
            value: whole(value),
            unit: "B",
            warn: warn.map(whole),
            crit: crit.map(whole),
            bad: if name == FREE { Bad::Below } else { Bad::Above },
        });
    };
    measure(FREE, "Left on the disk.", free, Some(warn), Some(crit));
    measure("disk_reserve_bytes", "When no more is left, raises are refused.", reserve, None, None);
    measure("log_bytes", "The log, with files written in advance.", disk.log_bytes, None, None);
    let checkpoint = disk.checkpoint_bytes;
    measure("checkpoint_bytes", "The checkpoint of the state.", checkpoint, None, None);
    measure("snapshot_bytes", "Snapshots of the state.", disk.snapshot_bytes, None, None);
    let most = Some(node.state_bytes_max);
    measure("state_bytes", "State in memory.", node.state_bytes, None, most);
}
