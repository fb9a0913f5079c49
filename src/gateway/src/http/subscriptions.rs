//! Subscriptions of stateful clients and their cursors.

use ackord_agents::translate;
use ackord_machine::site::{
    self as machine, AdminAction, InstanceId, Object, Receiver, Site, Stamp,
};
use ackord_wire::Problem;
use ackord_wire::resource::{self, Page, SeekBody};
use actix_web::http::Method;

use super::answer::Answer;
use super::authority::Need;
use super::dead_letters::waiting;
use super::exchange::{Allowed, Exchange, not_found};
use super::list::{LOOKED_AT_MAX, Wanted};
use super::{live, query};
use crate::convert;

/// Instances that are counted for each subscription of a list, and where one is asked for.
const LISTED_LAG_MAX: u64 = 1000;
const LAG_MAX: u64 = 100_000;

/// `GET /v1/sites/{site}/subscriptions`, by client, then by number.
pub async fn list(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "prefix", "client", "event"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let wanted = Wanted::of(&allowed.query)?;
    let window = &wanted.window;
    let (client, event) = (allowed.query.get("client"), allowed.query.get("event"));
    let after = match window.after.as_deref() {
        None => None,
        Some(text) => Some(after_subscription(text)?),
    };
    let look = |site: &Site, now| {
        let start = after.as_ref().map_or("", |(client, _)| client.as_str());
        let start = start.max(wanted.prefix());
        // The client that the last page ended in may have more.
        let start = client.unwrap_or(start);
        let others = site.clients_after(start).take(if client.is_some() { 0 } else { usize::MAX });
        let rows = site
            .client(start)
            .into_iter()
            .chain(others)
            .take_while(|client| wanted.begins(client.id.as_str()))
            .flat_map(|client| site.subscriptions(&client.id))
            .filter(|row| {
                after.as_ref().is_none_or(|(client, number)| {
                    (row.client.as_str(), row.event.0) > (client.as_str(), *number)
                })
            });
        let named = |row: &machine::SubscriptionRow| {
            let name = site.event(row.event).map(|event| event.definition.name.as_str());
            event.is_none_or(|event| name == Some(event))
        };
        take(site, now, rows, named, window.limit)
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `GET /v1/sites/{site}/clients/{id}/subscriptions`, by number.
pub async fn of_client(
    exchange: Exchange<'_>,
    site: &str,
    client: &str,
) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency"];
    let allowed = exchange.authorize(site, Need::ReadClient(client), known).await?;
    let window = allowed.query.window()?;
    let after = match window.after.as_deref() {
        None => None,
        Some(text) => Some(after_subscription(text)?.1),
    };
    let look = |site: &Site, now| {
        let row = site.client(client)?;
        let rows =
            site.subscriptions(&row.id).filter(|row| after.is_none_or(|after| row.event.0 > after));
        Some(take(site, now, rows, |_| true, window.limit))
    };
    let found = allowed.look(site, look).await?;
    let mut page = found.ok_or_else(|| not_found("client", client))?;
    live::complete(&allowed, site, client, &mut page.items).await?;
    Ok(Answer::ok(&page))
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
    let look = |site: &Site, now| {
        let row = site.client(client)?;
        let event = site.event_named(event)?;
        let object = Object::Subscription(row.id.clone(), event.definition.name.clone());
        let row = site.subscription(&row.id, event.key)?;
        Some((subscription_out(site, row, now, LAG_MAX), site.revision(&object)))
    };
    let found = allowed.look(site, look).await?;
    let missing = || not_found("subscription", &format!("{client}/{event}"));
    let (subscription, revision) = found.ok_or_else(missing)?;
    let mut found = [subscription];
    live::complete(allowed, site, client, &mut found).await?;
    let [subscription] = found;
    Ok(Answer::ok(&subscription).tagged(revision))
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
    now: Stamp,
    rows: impl Iterator<Item = &'a machine::SubscriptionRow>,
    keep: impl Fn(&machine::SubscriptionRow) -> bool,
    limit: usize,
) -> Page<resource::Subscription> {
    let mut items = Vec::new();
    let mut last: Option<&machine::SubscriptionRow> = None;
    for (looked_at, row) in rows.enumerate() {
        let full = items.len() == limit;
        if looked_at == LOOKED_AT_MAX || full && keep(row) {
            return Page { items, next: last.map(|row| format!("{}/{}", row.client, row.event)) };
        }
        if !full && keep(row) {
            items.push(subscription_out(site, row, now, LISTED_LAG_MAX));
        }
        last = Some(row);
    }
    Page { items, next: None }
}

fn subscription_out(
    site: &Site,
    row: &machine::SubscriptionRow,
    now: Stamp,
    lag_max: u64,
) -> resource::Subscription {
    let event = site.event(row.event);
    let receiver = Receiver::Client(row.client.clone());
    let lag = site.lag(row.event, row.cursor, &receiver, now, lag_max);
    let quality = site.quality(&row.client, row.event);
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
        mode: translate::mode_to_wire(quality.mode),
        window: quality.window,
        flush_ms: quality.flush_ms,
        dead_letter: quality.dead_letter,
        dead_letters: waiting(site, &machine::Subscriber::Client(row.client.clone(), row.event)),
        granted: site.may_receive(row.event, &receiver),
        paused_ms: row.paused.map(|stamp| stamp.0),
        lag: (!lag.more).then_some(lag.count),
        lag_at_least: lag.more.then_some(lag.count),
        oldest_unacknowledged_ms: lag.oldest.map(|stamp| stamp.0),
        in_flight: None,
        session: None,
        not_reached: Vec::new(),
    }
}
