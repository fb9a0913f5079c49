//! `ackord can-i ACT [EVENT]`: whether somebody may do something now, and why. 0 is yes, 4 is no.

use serde_json::Value;

use super::account::filters;
use super::site::{admin, site_path};
use crate::admin::segment;
use crate::args::CanI;
use crate::exit::{Exit, Outcome};
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
    let answer = admin.get(&path).await?;
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
