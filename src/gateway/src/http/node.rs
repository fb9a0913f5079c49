//! The node itself: its configuration.

use ackord_wire::{Code, Problem};

use super::answer::Answer;
use super::exchange::Exchange;

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
    Ok(Answer::ok(&reloaded?))
}
