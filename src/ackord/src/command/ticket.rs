//! `ackord ticket create`: what a page puts into the address of a WebSocket or stream, once.

use ackord_wire::govern::TicketBody;
use serde_json::Value;

use super::site::{admin, site_path, value};
use crate::args::TicketCommand;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::{self, Format};

/// Runs the command.
pub async fn run(command: TicketCommand, format: Format) -> Outcome {
    let TicketCommand::Create { client, expires, connect } = command;
    // Rounded up: a ticket is never good for less than was asked for.
    let seconds = u32::try_from(expires.as_millis().div_ceil(1000))
        .map_err(|_| Failure::usage("--expires: at most 5 min"))?;
    let path = format!("{}/tickets", site_path(&connect.site()?));
    let body = value(&TicketBody { client, expires_in_s: Some(seconds) })?;
    let drawn = admin(&connect)?.post(&path, &body).await?;
    match (format, drawn.get("ticket").and_then(Value::as_str)) {
        (Format::Text, Some(ticket)) => {
            output::line(ticket).map_err(|error| output::closed(&error))?;
            say(format_args!("good once, for {seconds} s: `?ticket=` in the address"));
        }
        (Format::Text, None) | (Format::Json, _) => output::object(format, &drawn)?,
    }
    Ok(Exit::Done)
}
