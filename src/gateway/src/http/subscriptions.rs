//! Subscriptions of stateful clients and their cursors.

use ackord_agents::translate;
use ackord_machine::site::{
    self as machine, AdminAction, ClientId, EventKey, InstanceId, Object, Receiver, Site,
};
use ackord_wire::Problem;
use ackord_wire::resource::{self, Page, SeekBody};
use actix_web::http::Method;

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange, not_found};
use super::query;
use crate::convert;

const PAGED: &[&str] = &["limit", "after", "consistency"];

/// `GET /v1/sites/{site}/subscriptions`, by client, then by number.
pub async fn list(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Read, PAGED).await?;
    let window = allowed.query.window()?;
    let after = match window.after.as_deref() {
        None => None,
        Some(text) => Some(after_subscription(text)?),
    };
    let look = |site: &Site, _| {
        let behind = |row: &machine::SubscriptionRow| {
            after.as_ref().is_none_or(|(client, number)| {
                (row.client.as_str(), row.event.0) > (client.as_str(), *number)
            })
        };
        // The client that the last page ended in may have more.
        let first = after.as_ref().and_then(|(client, _)| site.client(client));
        let others = site.clients_after(after.as_ref().map_or("", |(client, _)| client.as_str()));
        let rows = first
            .into_iter()
            .chain(others)
            .flat_map(|client| site.subscriptions(&client.id))
            .filter(|row| behind(row));
        take(site, rows, window.limit)
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `GET /v1/sites/{site}/clients/{id}/subscriptions`, by number.
pub async fn of_client(
    exchange: Exchange<'_>,
    site: &str,
    client: &str,
) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::ReadClient(client), PAGED).await?;
    let window = allowed.query.window()?;
    let after = match window.after.as_deref() {
        None => None,
        Some(text) => Some(after_subscription(text)?.1),
    };
    let look = |site: &Site, _| {
        let row = site.client(client)?;
        let rows =
            site.subscriptions(&row.id).filter(|row| after.is_none_or(|after| row.event.0 > after));
        Some(take(site, rows, window.limit))
    };
    let found = allowed.look(site, look).await?;
    found.map(|page| Answer::ok(&page)).ok_or_else(|| not_found("client", client))
}

/// `/v1/sites/{site}/clients/{id}/subscriptions/{event}`.
pub async fn one(
    exchange: Exchange<'_>,
    site: &str,
    client: &str,
    event: &str,
) -> Result<Answer, Problem> {
    if *exchange.method() == Method::PUT {
        return super::govern::put_subscription(exchange, site, client, event).await;
    }
    if *exchange.method() == Method::DELETE {
        let allowed = exchange.authorize(site, Need::Operate, &[]).await?;
        let action = AdminAction::Unsubscribe { client: client.into(), event: event.into() };
        allowed.act(site, allowed.request_id("delete", b"")?, action).await?;
        return Ok(Answer::no_content());
    }
    let allowed = exchange.authorize(site, Need::ReadClient(client), &["consistency"]).await?;
    answer_one(&allowed, site, client, event).await
}

/// `POST /v1/sites/{site}/clients/{id}/subscriptions/{event}/seek`.
pub async fn seek(
    exchange: Exchange<'_>,
    site: &str,
    client: &str,
    event: &str,
) -> Result<Answer, Problem> {
    let mut allowed = exchange.authorize(site, Need::Operate, &[]).await?;
    let bytes = allowed.bytes().await?;
    let body: SeekBody = super::body::decode(&bytes)?;
    let action = AdminAction::Seek {
        client: client.into(),
        event: event.into(),
        after: InstanceId(body.after),
    };
    allowed.act(site, allowed.request_id("seek", &bytes)?, action).await?;
    answer_one(&allowed, site, client, event).await
}

pub async fn answer_one(
    allowed: &Allowed<'_>,
    site: &str,
    client: &str,
    event: &str,
) -> Result<Answer, Problem> {
    let look = |site: &Site, _| {
        let row = site.client(client)?;
        let event = site.event_named(event)?;
        let object = Object::Subscription(row.id.clone(), event.definition.name.clone());
        let row = site.subscription(&row.id, event.key)?;
        Some((subscription_out(site, row), site.revision(&object)))
    };
    let found = allowed.look(site, look).await?;
    found
        .map(|(subscription, revision)| Answer::ok(&subscription).tagged(revision))
        .ok_or_else(|| not_found("subscription", &format!("{client}/{event}")))
}

/// `client/number`, as a page's `next` has it.
fn after_subscription(text: &str) -> Result<(String, u32), Problem> {
    let parsed = text
        .rsplit_once('/')
        .and_then(|(client, number)| Some((client.to_owned(), number.parse().ok()?)));
    parsed.ok_or_else(|| query::invalid("after", &format!("the `next` of a page, was {text:?}")))
}

fn take<'a>(
    site: &Site,
    rows: impl Iterator<Item = &'a machine::SubscriptionRow>,
    limit: usize,
) -> Page<resource::Subscription> {
    let mut rest = rows;
    let items: Vec<_> = rest.by_ref().take(limit).map(|row| subscription_out(site, row)).collect();
    let next = match (rest.next(), items.last()) {
        (Some(_), Some(last)) => Some(format!("{}/{}", last.client, last.subscription)),
        (Some(_), None) | (None, _) => None,
    };
    Page { items, next }
}

fn subscription_out(site: &Site, row: &machine::SubscriptionRow) -> resource::Subscription {
    let event = site.event(row.event);
    resource::Subscription {
        client: row.client.to_string(),
        event: event.map(|event| event.definition.name.to_string()).unwrap_or_default(),
        subscription: row.event.0,
        category: translate::category_to_wire(
            event.map_or(machine::Category::Replacing, |event| event.definition.kind.category()),
        ),
        position: convert::position_out(site.incarnation(), row),
        start: convert::start_out(row.start),
        ack_timeout_ms: row.ack_timeout_ms,
        max_attempts: row.max_attempts,
        granted: may_receive(site, row.event, &row.client),
        paused_ms: row.paused.map(|stamp| stamp.0),
    }
}

fn may_receive(site: &Site, event: EventKey, client: &ClientId) -> bool {
    site.may_receive(event, &Receiver::Client(client.clone()))
}
