//! Whether the node lives and serves, and its metrics. Open to everyone: they name no site and no
//! account.

use ackord_wire::resource::Health;
use ackord_wire::{Code, Problem};

use super::RETRY_AFTER_S;
use super::answer::Answer;
use super::exchange::Exchange;
use crate::context::Context;

/// The process answers.
pub fn live(_exchange: Exchange<'_>) -> Result<Answer, Problem> {
    Ok(ok())
}

/// The node takes sessions.
pub fn ready(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    is_ready(exchange.context).map(|()| ok())
}

/// Whether the node takes sessions, and why not.
pub fn is_ready(context: &Context) -> Result<(), Problem> {
    if context.stopping.is_cancelled() {
        let problem = Problem::new(Code::ShuttingDown, "the node is shutting down");
        return Err(problem.retry_after(RETRY_AFTER_S));
    }
    if !context.broker.node().ready() {
        let detail = "a partition has no leader, or this node has not caught up or is cut off";
        return Err(Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER_S));
    }
    match context.broker.accepts() {
        Ok(()) => Ok(()),
        Err(code) => Err(Problem::new(Code::Unavailable, format!("takes no sessions: {code}"))
            .retry_after(RETRY_AFTER_S)),
    }
}

/// The node's metrics: the broker's, then the front's.
pub fn metrics(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let context = exchange.context;
    let ends = context.tls.first().and_then(|tls| tls.not_after());
    let peers_end = context.broker.node().certificate_not_after();
    for (certificate, end) in [("front", ends), ("peers", peers_end)] {
        if let Some(end) = end {
            context.metrics.certificate_expiry.with_label_values(&[certificate]).set(end);
        }
    }
    let mut text = context.broker.metrics_text(false);
    text.push_str(&context.metrics.text());
    Ok(Answer::metrics(text))
}

fn ok() -> Answer {
    Answer::ok(&Health { status: "ok".to_owned() })
}
