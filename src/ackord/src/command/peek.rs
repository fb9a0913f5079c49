//! `ackord peek EVENT`: what a queue retains. Nothing is taken out, no cursor moves.

use serde_json::{Value, json};

use super::site::{admin, site_path};
use crate::admin::{Pages, segment};
use crate::args::Peek;
use crate::exit::{Exit, Outcome, say};
use crate::moment::rfc3339;
use crate::output::{self, Format};

/// Runs the command.
pub async fn run(arguments: Peek, format: Format) -> Outcome {
    let (admin, site) = (admin(&arguments.connect)?, arguments.connect.site()?);
    let path = format!("{}/queues/{}", site_path(&site), segment(&arguments.event));
    let most = arguments.limit as usize;
    let wanted = |item: &Value| {
        arguments.service.as_deref().is_none_or(|service| item["service"] == service)
    };
    // Of one service among several, more are looked at than shown.
    let page = if arguments.service.is_some() { usize::MAX } else { most };
    let mut pages = Pages::of(&path, &[], page)
        .behind((arguments.after > 0).then(|| arguments.after.to_string()));
    let (mut items, mut more): (Vec<Value>, bool) = (Vec::new(), false);
    while !more && let Some(page) = pages.next(&admin).await? {
        items.extend(page.items.into_iter().filter(wanted));
        more = items.len() > most || items.len() == most && !pages.over();
    }
    items.truncate(most);
    match format {
        Format::Json => output::list(format, &items, &[])?,
        Format::Text => {
            let rows: Vec<Value> = items.iter().map(row).collect();
            output::list(format, &rows, &["id", "created", "service", "client", "args"])?;
        }
    }
    if let (true, Some(last)) = (more, items.last()) {
        say(format_args!("there may be more: --after {}", last["instance_id"]));
    }
    Ok(Exit::Done)
}

fn row(item: &Value) -> Value {
    let args = match (item["null"].as_bool(), item.get("args"), item["data"].as_str()) {
        (Some(true), _, _) => "(null)".to_owned(),
        (_, Some(args), _) => args.to_string(),
        (_, None, Some(data)) => {
            let media = item["content_type"].as_str().unwrap_or(ackord_wire::payload::JSON);
            format!("{media} {data}")
        }
        (_, None, None) => String::new(),
    };
    json!({
        "id": item["instance_id"],
        "created": item["created_ms"].as_u64().map(rfc3339),
        "service": item["service"],
        "client": item["client"],
        "args": args,
    })
}
