//! Sessions of stateful clients: attaching, subscribing, moving cursors.
//!
//! An attach or a list that comes again is answered and changes nothing. A cursor only moves forward, never above the head, and only for the newest session in the
//! present incarnation and generation. A private instance goes when its addressee's cursor passes
//! it. Authority is no matter here: it gates delivery, not subscription.

use std::collections::BTreeMap;

use super::super::command::{Advance, Claim, Start, Subscribe, SubscribeMode, SubscriptionRequest};
use super::super::ids::{ClientId, EventKey, InstanceId, SiteName};
use super::super::limits::{Limits, SUBSCRIBE_ITEMS_MAX};
use super::super::outcome::{Effect, Outcome, Refusal, SubscribeResult};
use super::super::quality::{Quality, QualityRow};
use super::super::quota::Quota;
use super::super::row::{ClientRow, Row, RowKey, SubscriptionRow};
use super::super::site::{Receiver, Site};
use super::super::state::State;
use super::super::validate::invalid;
use super::govern::check_quota;
use super::{Verdict, check_epoch, find, next_epoch, take_over};

pub(super) fn find_client<'a>(site: &'a Site, client: &ClientId) -> Result<&'a ClientRow, Refusal> {
    site.client(client.as_str()).ok_or(Refusal::UnknownClient)
}

pub(super) fn wake(site: &Site, client: &ClientId, verdict: &mut Verdict) {
    verdict.effects.push(Effect::Client { site: site.name().clone(), client: client.clone() });
}

pub(super) fn attach(
    state: &State,
    site: &SiteName,
    client: &ClientId,
    claim: Claim,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, site)?;
    let client = find_client(site, client)?;
    site.admits(&Receiver::Client(client.id.clone()))?;
    let incarnation = site.incarnation();
    let Some(sessions) = take_over(claim, client.epoch, &client.sessions)? else {
        return Ok(Verdict::new(Outcome::ClientAttached { epoch: client.epoch, incarnation }));
    };
    let epoch = next_epoch(site, client.epoch);
    let mut verdict = Verdict::new(Outcome::ClientAttached { epoch, incarnation });
    verdict.put(Row::Client(ClientRow { epoch, sessions, listed: 0, ..client.clone() }));
    if site.polling(&client.id).is_some() {
        verdict.delete(RowKey::Polling(site.name().clone(), client.id.clone()));
    }
    wake(site, &client.id, &mut verdict);
    Ok(verdict)
}

/// Without `qualities` all are ordered.
pub(super) fn subscribe(
    state: &State,
    subscribe: &Subscribe,
    qualities: Option<&Vec<Quality>>,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &subscribe.site)?;
    let client = find_client(site, &subscribe.client)?;
    check_epoch(subscribe.epoch, client.epoch, &client.sessions)?;
    if subscribe.items.len() > SUBSCRIBE_ITEMS_MAX {
        let detail = format!("0..={SUBSCRIBE_ITEMS_MAX}, was {}", subscribe.items.len());
        return Err(Refusal::Invalid(invalid("items", detail)));
    }
    if let Some(given) = qualities.filter(|given| given.len() != subscribe.items.len()) {
        let detail = format!("{}, was {}", subscribe.items.len(), given.len());
        return Err(Refusal::Invalid(invalid("qualities", detail)));
    }
    let mut wanted: BTreeMap<EventKey, Quality> = BTreeMap::new();
    let before: BTreeMap<EventKey, &SubscriptionRow> =
        site.subscriptions(&client.id).map(|row| (row.event, row)).collect();
    let mut after: BTreeMap<EventKey, SubscriptionRow> =
        before.iter().map(|(key, row)| (*key, (*row).clone())).collect();
    let mut listed = Vec::with_capacity(subscribe.items.len());
    let mut results = Vec::with_capacity(subscribe.items.len());
    for (index, item) in subscribe.items.iter().enumerate() {
        let result = find_event(site, item).and_then(|event| {
            listed.push(event);
            match subscribe.mode {
                SubscribeMode::Exact | SubscribeMode::Add => {
                    let quality = qualities.and_then(|given| given.get(index).copied());
                    let quality = quality.unwrap_or_default();
                    check_options(state.limits(), index, item, quality)?;
                    if !after.contains_key(&event) {
                        let all = (site.subscribed() + after.len()).saturating_sub(before.len());
                        check_room(site, &client.id, all, after.len())?;
                    }
                    let row = subscription(site, client, event, item, after.get(&event));
                    let generation = row.generation;
                    after.insert(event, row);
                    wanted.insert(event, quality);
                    Ok((event, generation))
                }
                SubscribeMode::Remove => {
                    let row = after.remove(&event).ok_or(Refusal::UnknownSubscription)?;
                    Ok((event, row.generation))
                }
            }
        });
        results.push(SubscribeResult { event: item.event.clone(), result });
    }
    match subscribe.mode {
        SubscribeMode::Exact => after.retain(|event, _| listed.contains(event)),
        SubscribeMode::Add | SubscribeMode::Remove => {}
    }
    let mut verdict = Verdict::new(Outcome::Subscribed(results));
    // It came before: what it asked for was done, or something else was asked for since.
    if subscribe.number <= client.listed {
        return Ok(verdict);
    }
    let client = &ClientRow { listed: subscribe.number, ..client.clone() };
    verdict.put(Row::Client(client.clone()));
    let removed: Vec<_> =
        before.values().filter(|row| !after.contains_key(&row.event)).copied().collect();
    remove(site, client, &removed, &mut verdict);
    let mut changed = !removed.is_empty();
    for (event, row) in after {
        if before.get(&event).is_none_or(|known| **known != row) {
            verdict.put(Row::Subscription(row));
            changed = true;
        }
    }
    for (event, quality) in wanted {
        changed |= qualify(site, &client.id, event, quality, &mut verdict);
    }
    if changed {
        wake(site, &client.id, &mut verdict);
    }
    Ok(verdict)
}

/// The event that an item means.
fn find_event(site: &Site, item: &SubscriptionRequest) -> Result<EventKey, Refusal> {
    if site.structure().is_none() {
        return Err(Refusal::SiteBlank);
    }
    let event = site.event_named(item.event.as_str()).ok_or(Refusal::UnknownEvent)?;
    if item.category.is_some_and(|category| category != event.definition.kind.category()) {
        return Err(Refusal::WrongCategory);
    }
    Ok(event.key)
}

fn check_options(
    limits: &Limits,
    index: usize,
    item: &SubscriptionRequest,
    quality: Quality,
) -> Result<(), Refusal> {
    let path = format!("items[{index}]");
    quality.check(&path).map_err(Refusal::BadQuality)?;
    quality.check_attempts(&path, item.max_attempts).map_err(Refusal::BadQuality)?;
    let (min, max) = (limits.ack_timeout_ms_min, limits.ack_timeout_ms_max);
    if let Some(timeout) = item.ack_timeout_ms.filter(|timeout| !(min..=max).contains(timeout)) {
        let field = format!("items[{index}].ack_timeout_ms");
        return Err(Refusal::Invalid(invalid(field, format!("{min}..={max}, was {timeout}"))));
    }
    if item.max_attempts == Some(0) {
        let field = format!("items[{index}].max_attempts");
        return Err(Refusal::Invalid(invalid(field, "at least 1, was 0")));
    }
    Ok(())
}

/// The subscription as asked for: a kept one keeps its cursor and generation.
fn subscription(
    site: &Site,
    client: &ClientRow,
    event: EventKey,
    item: &SubscriptionRequest,
    kept: Option<&SubscriptionRow>,
) -> SubscriptionRow {
    let (cursor, generation) = match (kept, item.start) {
        (Some(kept), _) => (kept.cursor, kept.generation),
        (None, Start::Earliest) => (InstanceId::default(), client.generation_floor),
        (None, Start::Latest) => (site.head(), client.generation_floor),
    };
    SubscriptionRow {
        site: site.name().clone(),
        client: client.id.clone(),
        event,
        cursor,
        generation,
        start: item.start,
        ack_timeout_ms: item.ack_timeout_ms,
        max_attempts: item.max_attempts,
        paused: kept.and_then(|kept| kept.paused),
    }
}

/// One subscription as an administrator asks for it.
pub(super) fn put_one(
    limits: &Limits,
    site: &Site,
    client: &ClientRow,
    item: &SubscriptionRequest,
    quality: Quality,
) -> Result<SubscriptionRow, Refusal> {
    let event = find_event(site, item)?;
    check_options(limits, 0, item, quality)?;
    let kept = site.subscription(&client.id, event);
    if kept.is_none() {
        let own = site.subscriptions(&client.id).count();
        check_room(site, &client.id, site.subscribed(), own)?;
    }
    Ok(subscription(site, client, event, item, kept))
}

/// Judges whether a client with so many subscriptions may have one more, on a site with so many. Those
/// that push count beside them.
pub(super) fn check_room(
    site: &Site,
    client: &ClientId,
    all: usize,
    own: usize,
) -> Result<(), Refusal> {
    let quotas = site.quotas();
    check_quota(Quota::Subscriptions, quotas.subscriptions, all + site.pushes.len())?;
    if quotas.client_subscriptions.is_none() {
        return Ok(());
    }
    let pushes = site.pushes().filter(|push| push.spec.client == *client).count();
    check_quota(Quota::ClientSubscriptions, quotas.client_subscriptions, own + pushes)
}

/// Gives a subscription its quality; whether it has another one than before.
pub(super) fn qualify(
    site: &Site,
    client: &ClientId,
    event: EventKey,
    quality: Quality,
    verdict: &mut Verdict,
) -> bool {
    if site.quality(client, event) == quality {
        return false;
    }
    let (site, client) = (site.name().clone(), client.clone());
    if quality.is_default() {
        verdict.delete(RowKey::Quality(site, client, event));
    } else {
        verdict.put(Row::Quality(QualityRow { site, client, event, quality }));
    }
    true
}

/// Removes some of a client's subscriptions with their cursors; their generation is remembered.
pub(super) fn remove(
    site: &Site,
    client: &ClientRow,
    removed: &[&SubscriptionRow],
    verdict: &mut Verdict,
) {
    for row in removed {
        qualify(site, &row.client, row.event, Quality::default(), verdict);
        verdict.delete(RowKey::Subscription(row.site.clone(), row.client.clone(), row.event));
    }
    let highest = removed.iter().map(|row| row.generation).max();
    if let Some(generation_floor) = highest.filter(|highest| *highest > client.generation_floor) {
        verdict.put(Row::Client(ClientRow { generation_floor, ..client.clone() }));
    }
}

pub(super) fn advance(state: &State, advance: &Advance) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &advance.site)?;
    let client = find_client(site, &advance.client)?;
    check_epoch(advance.epoch, client.epoch, &client.sessions)?;
    if advance.incarnation != site.incarnation() {
        return Err(Refusal::StalePosition);
    }
    let known = site.subscription(&client.id, advance.event).ok_or(Refusal::UnknownSubscription)?;
    if advance.generation != known.generation {
        return Err(Refusal::StalePosition);
    }
    if advance.instance > site.head() {
        let detail = format!("0..={}, was {}", site.head(), advance.instance);
        return Err(Refusal::Invalid(invalid("instance", detail)));
    }
    let cursor = known.cursor.max(advance.instance);
    let mut verdict = Verdict::new(Outcome::Advanced { cursor });
    if cursor == known.cursor {
        return Ok(verdict);
    }
    verdict.put(Row::Subscription(SubscriptionRow { cursor, ..known.clone() }));
    if let Some(addressed) = site.addressed(advance.event, &client.id) {
        for (id, _) in addressed.above(known.cursor).take_while(|(id, _)| *id <= cursor) {
            verdict.delete(RowKey::Instance(site.name().clone(), *id));
        }
    }
    Ok(verdict)
}
