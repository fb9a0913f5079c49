//! The node itself: how it is, and its configuration.

use ackord_wire::resource::{Node, NodeDisk};
use ackord_wire::{Code, Problem};

use super::answer::Answer;
use super::exchange::Exchange;
use super::{cluster, health};

/// `GET /v1/node`: the node that answers, also one that is not ready.
pub async fn show(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&[])?;
    let context = allowed.context.clone();
    // Files are counted: not on a thread that serves connections.
    let disk = actix_web::web::block(move || context.broker.node().disk_usage()).await;
    let disk = disk.map_err(|_| Problem::new(Code::Internal, "the look was given up"))?;
    let disk = disk.map_err(|error| {
        Problem::new(Code::Internal, format!("the disk does not say how full it is: {error}"))
    })?;
    let node = allowed.context.broker.node();
    let id = node.id();
    let known = node.cluster().nodes.into_iter().find(|known| known.row.id == id);
    let ready = health::is_ready(allowed.context);
    let (state_bytes, state_bytes_max) = node.state_bytes();
    Ok(Answer::ok(&Node {
        id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: known.map(|known| cluster::state(known.row.state)),
        ready: ready.is_ok(),
        because: ready.err().map(|problem| problem.detail),
        clock_ahead_ms: node.clock_ahead_ms(),
        state_bytes,
        state_bytes_max,
        disk: NodeDisk {
            free_bytes: disk.free_bytes,
            reserve_bytes: disk.reserve_bytes,
            log_bytes: disk.log_bytes,
            checkpoint_bytes: disk.checkpoint_bytes,
            snapshot_bytes: disk.snapshot_bytes,
        },
    }))
}

/// `POST /v1/node/reload`: reads the configuration again.
pub async fn reload(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&[])?;
    let Some(reload) = allowed.context.reload.get().cloned() else {
        let detail = "this node has no configuration that could be read again";
        return Err(Problem::new(Code::Conflict, detail));
    };
    // Files are read: not on a thread that serves connections.
    let reloaded = actix_web::web::block(move || reload()).await;
    let reloaded = reloaded.map_err(|_| Problem::new(Code::Internal, "the reload was given up"))?;
    let reloaded = reloaded?;
    allowed.record("node.reload", format!("nodes/{}", allowed.context.broker.node().id()));
    Ok(Answer::ok(&reloaded))
}
