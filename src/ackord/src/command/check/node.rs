//! `ackord check node`: whether nodes live, are ready, and are to stay.

use ackord_wire::resource::{Node, NodeState};

use super::report::{Bad, Measure, Report};
use super::{each, unanswered};
use crate::admin::{Admin, AdminError};
use crate::args::Connect;
use crate::exit::{Failure, Health};

/// Looks at each address.
pub async fn look(connect: &Connect) -> Result<Report, Failure> {
    let token = connect.token_maybe()?.is_some();
    let mut report = Report::of("node");
    let (mut nodes, mut ready) = (0, 0);
    for (url, admin) in each(connect)? {
        nodes += 1;
        ready += usize::from(one(&url, &admin, token, &mut report).await);
    }
    report.summary = match nodes {
        1 if ready == 1 => "the node is ready".to_owned(),
        nodes => format!("{ready} of {nodes} nodes are ready"),
    };
    Ok(report)
}

/// Whether this one is ready; what is wrong with it goes into the report.
async fn one(url: &str, admin: &Admin, token: bool, report: &mut Report) -> bool {
    let mut measure = |name, about, value, unit| {
        let labels = vec![("url", url.to_owned())];
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
    let live = admin.get("/healthz/live").await;
    measure("live", "Whether the process answers.", i64::from(live.is_ok()), "");
    let asked = match &live {
        Ok(_) => admin.get("/healthz/ready").await,
        Err(error) => Err(error.clone()),
    };
    measure("ready", "Whether the node takes sessions.", i64::from(asked.is_ok()), "");
    // Only the node's administrator learns more.
    let node = if token && live.is_ok() { known(admin).await } else { None };
    if let Some(node) = &node {
        let about = "By how much the node's clock is ahead of that of most nodes.";
        measure("clock_ahead_ms", about, node.clock_ahead_ms, "ms");
        match node.state {
            Some(NodeState::Draining | NodeState::Leaving) => {
                report.find(Health::Warning, format!("{url} is draining"));
            }
            Some(NodeState::Removed) => {
                report.find(Health::Critical, format!("{url} was removed from its cluster"));
            }
            Some(NodeState::Active) | None => {}
        }
    }
    match asked {
        Ok(_) => true,
        Err(AdminError::Problem(problem)) => {
            report.find(Health::Critical, format!("{url} is not ready: {}", problem.detail));
            false
        }
        Err(error) => {
            report.find(Health::Critical, format!("{url} is {}", unanswered(&error).1));
            false
        }
    }
}

async fn known(admin: &Admin) -> Option<Node> {
    serde_json::from_value(admin.get("/v1/node").await.ok()?).ok()
}
