//! `ackord can-i ACT [EVENT]`: whether somebody may do something now, and why. 0 is yes, 4 is no.
//!
//! Invariant: a question that lacks something is a wrong command line, never a no.

use ackord_wire::Code;
use serde_json::Value;

use super::account::filters;
use super::site::{admin, site_path};
use crate::admin::{AdminError, segment};
use crate::args::CanI;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};

/// Runs the command.
pub async fn run(arguments: CanI, format: Format) -> Outcome {
    let (admin, site) = (admin(&arguments.connect)?, arguments.connect.site()?);
    let asked = filters(&[
        ("event", arguments.event.as_deref()),
        ("client", arguments.client.as_deref()),
        ("service", arguments.service.as_deref()),
    ]);
    let mut path = format!("{}/can-i?act={}", site_path(&site), arguments.act.name());
    for (name, value) in asked {
        path.push_str(&format!("&{name}={}", segment(value)));
    }
    // Who bears the token is known to the broker only, and so is what else must be named.
    let answer = admin.get(&path).await.map_err(|error| match error {
        AdminError::Problem(problem) if problem.code == Code::Invalid.as_str() => Failure::coded(
            Exit::Usage,
            problem.detail,
            problem.code,
        )
        .hint(
            "`raise` takes --service, `receive` and `connect` take --client, unless the token is \
                 its own",
        ),
        error => error.into(),
    })?;
    let allowed = answer["allowed"] == Value::Bool(true);
    match format {
        Format::Json => output::object(format, &answer)?,
        Format::Text => {
            let because = answer["because"].as_str().unwrap_or_default();
            let word = if allowed { "yes" } else { "no" };
            output::line(&format!("{word}: {because}")).map_err(|error| output::closed(&error))?;
        }
    }
    Ok(if allowed { Exit::Done } else { Exit::Refused })
}
