//! Whether the node lives, has started and serves, and its metrics. Open to everyone: they name no
//! site and no account, but to who shows the node's administration token.

use ackord_wire::resource::Health;
use ackord_wire::{Code, Problem};

use super::RETRY_AFTER_S;
use super::answer::Answer;
use super::authority;
use super::exchange::Exchange;
use crate::context::Context;

/// The process answers. That depends on nothing but itself.
pub fn live(_exchange: Exchange<'_>) -> Result<Answer, Problem> {
    Ok(ok())
}

/// The node has started: it is a member of its cluster and has applied what was there before. From
/// then on it is so for as long as the process lives.
pub fn startup(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    if exchange.context.broker.node().started() {
        return Ok(ok());
    }
    let detail = "this node is starting: it applies its log, or waits for the other nodes";
    Err(Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER_S))
}

/// The node takes sessions, and will for a while.
pub fn ready(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    is_ready(exchange.context).map(|()| ok())
}

/// Whether sessions should come to this node, and why not.
pub fn is_ready(context: &Context) -> Result<(), Problem> {
    if context.stopping.is_cancelled() {
        let problem = Problem::new(Code::ShuttingDown, "the node is shutting down");
        return Err(problem.retry_after(RETRY_AFTER_S));
    }
    if !context.broker.node().ready() {
        let detail = "a partition has no leader, or this node has not caught up or is cut off";
        return Err(Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER_S));
    }
    if !context.broker.node().stays() {
        let detail = "this node is drained or leaves its cluster";
        return Err(Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER_S));
    }
    match context.broker.accepts() {
        Ok(()) => Ok(()),
        Err(code) => Err(Problem::new(Code::Unavailable, format!("takes no sessions: {code}"))
            .retry_after(RETRY_AFTER_S)),
    }
}

/// The node's metrics: the broker's, then the front's.
pub async fn metrics(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let context = exchange.context;
    // Whoever shows something else, or nothing, sees what everybody sees.
    let shown = authority::bearer(exchange.request().headers()).ok().flatten();
    let with_names = shown.is_some_and(|token| authority::is_node_admin(context, token));
    let ends = context.tls.first().and_then(|tls| tls.not_after());
    let peers_end = context.broker.node().certificate_not_after();
    for (certificate, end) in [("front", ends), ("peers", peers_end)] {
        if let Some(end) = end {
            context.metrics.certificate_expiry.with_label_values(&[certificate]).set(end);
        }
    }
    let broker = context.broker.clone();
    // Files and subscriptions are counted: not on a thread that serves connections.
    let text = actix_web::web::block(move || broker.metrics_text(with_names)).await;
    let mut text = text.map_err(|_| Problem::new(Code::Internal, "the look was given up"))?;
    text.push_str(&context.metrics.text());
    Ok(Answer::metrics(text))
}

fn ok() -> Answer {
    Answer::ok(&Health { status: "ok".to_owned() })
}
