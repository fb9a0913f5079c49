//! `ackord subscription …` and `ackord session …`: how far clients are, where they are connected, and
//! what operators do about it.

use ackord_wire::resource::SeekBody;
use serde_json::{Value, json};

use super::account::{filters, most};
use super::site::{admin, site_path, value};
use crate::admin::{Pages, segment};
use crate::args::{Connect, SessionCommand, SubscriptionArgs, SubscriptionCommand};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::moment::{now_ms, rfc3339, span};
use crate::output::{self, Format};

/// Runs `ackord subscription …`.
pub async fn run(command: SubscriptionCommand, format: Format) -> Outcome {
    match command {
        SubscriptionCommand::List { client, event, listing, connect } => {
            let (admin, site) = (admin(&connect)?, connect.site()?);
            let narrowed = filters(&[
                ("client", client.as_deref()),
                ("event", event.as_deref()),
                ("prefix", listing.prefix.as_deref()),
            ]);
            let path = format!("{}/subscriptions", site_path(&site));
            print(format, admin.list_where(&path, &narrowed, most(listing.limit)).await?)?;
        }
        SubscriptionCommand::Show(of) => {
            let found = admin(&of.connect)?.get(&path(&of)?).await?;
            output::object(format, &found)?;
        }
        SubscriptionCommand::Pause(of) => act(&of, "pause", &json!({}), format).await?,
        SubscriptionCommand::Resume(of) => act(&of, "resume", &json!({}), format).await?,
        SubscriptionCommand::Seek { of, after } => {
            act(&of, "seek", &value(&SeekBody { after })?, format).await?;
        }
        SubscriptionCommand::Kick { client, connect } => {
            kick(&connect, "clients", &client, format).await?;
        }
    }
    Ok(Exit::Done)
}

fn path(of: &SubscriptionArgs) -> Result<String, Failure> {
    let site = site_path(&of.connect.site()?);
    Ok(format!("{site}/clients/{}/subscriptions/{}", segment(&of.client), segment(&of.event)))
}

async fn act(
    of: &SubscriptionArgs,
    act: &str,
    body: &Value,
    format: Format,
) -> Result<(), Failure> {
    let answer = admin(&of.connect)?.post(&format!("{}/{act}", path(of)?), body).await?;
    output::object(format, &answer)
}

/// Ends the session of an account.
pub async fn kick(connect: &Connect, kind: &str, id: &str, format: Format) -> Result<(), Failure> {
    let path = format!("{}/{kind}/{}/kick", site_path(&connect.site()?), segment(id));
    output::object(format, &admin(connect)?.post(&path, &json!({})).await?)
}

/// Prints subscriptions: as they are, or as a table with how far each is behind.
pub fn print(format: Format, mut items: Vec<Value>) -> Result<(), Failure> {
    if format == Format::Text {
        let now = now_ms();
        for item in &mut items {
            item["cursor"] = item["position"]["instance_id"].clone();
            if let Some(least) = item["lag_at_least"].as_u64() {
                item["lag"] = json!(format!("{least}+"));
            }
            let oldest = item["oldest_unacknowledged_ms"].as_u64();
            let age = |at: u64| std::time::Duration::from_millis(now.saturating_sub(at));
            item["oldest"] = json!(oldest.map(|at| span(age(at))));
            item["paused"] = json!(item["paused_ms"].as_u64().map(rfc3339));
        }
    }
    let columns = ["client", "event", "category", "cursor", "lag", "oldest", "granted", "paused"];
    output::list(format, &items, &columns)
}

/// Runs `ackord session …`.
pub async fn session(command: SessionCommand, format: Format) -> Outcome {
    let SessionCommand::List { kind, id, limit, connect } = command;
    let (admin, site) = (admin(&connect)?, connect.site()?);
    let narrowed = filters(&[("kind", kind.map(|kind| kind.name())), ("id", id.as_deref())]);
    let most = most(limit);
    let mut pages = Pages::of(&format!("{}/sessions", site_path(&site)), &narrowed, most);
    let (mut items, mut silent): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    while items.len() < most
        && let Some(mut page) = pages.next(&admin).await?
    {
        items.append(&mut page.items);
        if let Some(Value::Array(nodes)) = page.rest.remove("not_reached") {
            silent.extend(
                nodes.into_iter().filter(|node| !silent.contains(node)).collect::<Vec<_>>(),
            );
        }
    }
    items.truncate(most);
    if format == Format::Text {
        for item in &mut items {
            item["since"] = json!(item["since_ms"].as_u64().map(rfc3339));
        }
    }
    let columns =
        ["kind", "id", "node", "session", "since", "transport", "peer", "state", "in_flight"];
    output::list(format, &items, &columns)?;
    for node in &silent {
        let why = node["why"].as_str().unwrap_or("not reached");
        say(format_args!("node {} did not say which sessions it has: {why}", node["node"]));
    }
    Ok(Exit::Done)
}
