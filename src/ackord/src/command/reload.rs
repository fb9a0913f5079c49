//! `ackord reload`: lets nodes read their configuration again.

use serde_json::json;

use crate::admin::Admin;
use crate::args::Connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};

/// Runs the command: one node after the other, and no further than to the first that refuses.
pub async fn run(connect: &Connect, format: Format) -> Outcome {
    let token = connect.token()?;
    for url in connect.urls()? {
        let admin = Admin::new(vec![url.clone()], Some(token.clone()))?;
        let answer = admin.post("/v1/node/reload", &json!({})).await;
        let mut reloaded = answer.map_err(|error| {
            let failure = Failure::from(error);
            Failure { message: format!("{url}: {}", failure.message), ..failure }
        })?;
        reloaded["url"] = json!(url);
        output::object(format, &reloaded)?;
    }
    Ok(Exit::Done)
}
