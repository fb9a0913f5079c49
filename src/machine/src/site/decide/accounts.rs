//! Administration of accounts: services, clients, users, tokens; and seeking a subscription.
//!
//! Deleting an account takes along what only it can use. Its epoch stays behind as a floor, so
//! that an account created again under its id is never mistaken for it.

use super::super::command::Principal;
use super::super::ids::{
    ClientId, Digest, Epoch, EventName, InstanceId, RoleName, ServiceId, Stamp, TokenId, UserId,
};
use super::super::limits::Limits;
use super::super::outcome::{Effect, Outcome, Refusal};
use super::super::quality::Quality;
use super::super::quota::Quota;
use super::super::row::{
    ClientRow, HeadRow, Row, RowKey, ServiceRow, SubscriptionRow, TokenRow, UserRow,
};
use super::super::site::{Queue, Site};
use super::super::validate::{check_account, check_declared, check_roles, invalid};
use super::admin::conflict;
use super::govern::check_quota;
use super::{Verdict, head};

/// Judges whether one more fits.
pub(super) fn check_room(what: &str, count: usize, max: u32) -> Result<(), Refusal> {
    if count < usize::try_from(max).unwrap_or(usize::MAX) {
        return Ok(());
    }
    Err(conflict(format!("at most {max} {what}")))
}

fn check_id(id: &str) -> Result<(), Refusal> {
    check_account("id", id).map_err(Refusal::Invalid)
}

fn done() -> Verdict {
    Verdict::new(Outcome::Done)
}

pub(super) fn wake_service(site: &Site, service: &ServiceId, verdict: &mut Verdict) {
    verdict.effects.push(Effect::Service { site: site.name().clone(), service: service.clone() });
}

pub(super) fn wake_client(site: &Site, client: &ClientId, verdict: &mut Verdict) {
    verdict.effects.push(Effect::Client { site: site.name().clone(), client: client.clone() });
}

fn raise_epoch_floor(site: &Site, epoch: Epoch, verdict: &mut Verdict) {
    if epoch > site.epoch_floor() {
        verdict.put(Row::Head(HeadRow { epoch_floor: epoch, ..head(site) }));
    }
}

fn delete_tokens(site: &Site, principal: &Principal, verdict: &mut Verdict) {
    for token in site.tokens_of(principal) {
        verdict.delete(RowKey::Token(site.name().clone(), token.id.clone()));
    }
    for ticket in site.tickets.values().filter(|ticket| ticket.principal == *principal) {
        verdict.delete(RowKey::Ticket(site.name().clone(), ticket.id.clone()));
    }
}

pub(super) fn create_service(
    limits: &Limits,
    site: &Site,
    id: &ServiceId,
) -> Result<Verdict, Refusal> {
    check_id(id.as_str())?;
    if site.service(id.as_str()).is_some() {
        return Err(Refusal::AlreadyExists);
    }
    if !site.settings().multi_service && site.services().next().is_some() {
        return Err(conflict("a single-service site takes one service"));
    }
    check_room("services", site.services.len(), limits.services_max)?;
    check_quota(Quota::Services, site.quotas().services, site.services().count())?;
    let mut verdict = done();
    verdict.put(Row::Service(ServiceRow {
        site: site.name().clone(),
        id: id.clone(),
        epoch: Epoch::default(),
        sessions: Vec::new(),
        at: None,
        uid: None,
        declared: None,
        declared_type: None,
        version: String::new(),
        hostname: String::new(),
    }));
    wake_service(site, id, &mut verdict);
    Ok(verdict)
}

pub(super) fn delete_service(site: &Site, id: &ServiceId) -> Result<Verdict, Refusal> {
    let service = site.service(id.as_str()).ok_or(Refusal::UnknownService)?;
    let mut verdict = done();
    // The account goes first: what was in its queues is then known to have gone with it.
    if let Some(rows) = site.services.get(id) {
        for row in site.rows_of_service(id, rows) {
            verdict.delete(row.key());
        }
    }
    for event in site.events() {
        let mut queue = site.queue(event.key, id).peekable();
        if queue.peek().is_some() {
            verdict.effects.push(Effect::Event { site: site.name().clone(), event: event.key });
        }
        for instance in queue {
            verdict.delete(RowKey::Instance(site.name().clone(), instance.id));
        }
    }
    delete_tokens(site, &Principal::Service(id.clone()), &mut verdict);
    if site.rates.contains_key(&Some(id.clone())) {
        verdict.delete(RowKey::Rate(site.name().clone(), Some(id.clone())));
    }
    raise_epoch_floor(site, service.epoch, &mut verdict);
    wake_service(site, id, &mut verdict);
    Ok(verdict)
}

fn check_user(site: &Site, user: Option<&UserId>) -> Result<(), Refusal> {
    match user {
        Some(user) if site.user(user.as_str()).is_none() => Err(Refusal::UnknownUser),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn create_client(
    limits: &Limits,
    site: &Site,
    id: &ClientId,
    user: &Option<UserId>,
) -> Result<Verdict, Refusal> {
    check_id(id.as_str())?;
    if site.client(id.as_str()).is_some() {
        return Err(Refusal::AlreadyExists);
    }
    check_user(site, user.as_ref())?;
    check_room("clients", site.clients.len(), limits.clients_max)?;
    check_quota(Quota::Clients, site.quotas().clients, site.clients.len())?;
    let mut verdict = done();
    verdict.put(Row::Client(ClientRow {
        site: site.name().clone(),
        id: id.clone(),
        user: user.clone(),
        epoch: Epoch::default(),
        sessions: Vec::new(),
        listed: 0,
        generation_floor: Default::default(),
    }));
    wake_client(site, id, &mut verdict);
    Ok(verdict)
}

pub(super) fn update_client(
    site: &Site,
    id: &ClientId,
    user: &Option<UserId>,
) -> Result<Verdict, Refusal> {
    let client = site.client(id.as_str()).ok_or(Refusal::UnknownClient)?;
    check_user(site, user.as_ref())?;
    let mut verdict = done();
    if client.user != *user {
        verdict.put(Row::Client(ClientRow { user: user.clone(), ..client.clone() }));
        wake_client(site, id, &mut verdict);
    }
    Ok(verdict)
}

pub(super) fn delete_client(site: &Site, id: &ClientId) -> Result<Verdict, Refusal> {
    let client = site.client(id.as_str()).ok_or(Refusal::UnknownClient)?;
    let mut verdict = done();
    let addressed = site.events.values().filter_map(|rows| rows.addressed.get(id));
    for (instance, _) in addressed.flat_map(Queue::iter) {
        verdict.delete(RowKey::Instance(site.name().clone(), *instance));
    }
    for row in site.subscriptions(id) {
        super::client::qualify(site, id, row.event, Quality::default(), &mut verdict);
        verdict.delete(RowKey::Subscription(site.name().clone(), id.clone(), row.event));
    }
    delete_tokens(site, &Principal::Client(id.clone()), &mut verdict);
    for push in site.pushes().filter(|push| push.spec.client == *id) {
        super::push::remove(site, push, &mut verdict);
    }
    super::dead::remove(site, |letter| super::dead::is_of(letter, id), &mut verdict);
    if site.polling(id).is_some() {
        verdict.delete(RowKey::Polling(site.name().clone(), id.clone()));
    }
    verdict.delete(RowKey::Client(site.name().clone(), id.clone()));
    raise_epoch_floor(site, client.epoch, &mut verdict);
    wake_client(site, id, &mut verdict);
    Ok(verdict)
}

/// Judges the roles of a user: while the site is blank any well-formed ones, then declared ones.
fn judge_roles(site: &Site, roles: &[RoleName]) -> Result<(), Refusal> {
    check_roles("roles", roles).map_err(Refusal::Invalid)?;
    match site.structure() {
        None => Ok(()),
        Some(structure) => {
            check_declared("roles", roles, &structure.roles).map_err(Refusal::Invalid)
        }
    }
}

/// A user wakes nobody when it is created: no client can be its yet.
pub(super) fn create_user(
    limits: &Limits,
    site: &Site,
    id: &UserId,
    roles: &[RoleName],
) -> Result<Verdict, Refusal> {
    check_id(id.as_str())?;
    if site.user(id.as_str()).is_some() {
        return Err(Refusal::AlreadyExists);
    }
    judge_roles(site, roles)?;
    check_room("users", site.users.len(), limits.users_max)?;
    let mut verdict = done();
    let (site, id, roles) = (site.name().clone(), id.clone(), roles.to_vec());
    verdict.put(Row::User(UserRow { site, id, roles }));
    Ok(verdict)
}

pub(super) fn update_user(
    site: &Site,
    id: &UserId,
    roles: &[RoleName],
) -> Result<Verdict, Refusal> {
    let user = site.user(id.as_str()).ok_or(Refusal::UnknownUser)?;
    judge_roles(site, roles)?;
    let mut verdict = done();
    if user.roles != roles {
        verdict.put(Row::User(UserRow { roles: roles.to_vec(), ..user.clone() }));
        verdict.wake_site(site);
    }
    Ok(verdict)
}

/// The user's clients become guests; whether they may stay is a matter of authority.
pub(super) fn delete_user(site: &Site, id: &UserId) -> Result<Verdict, Refusal> {
    site.user(id.as_str()).ok_or(Refusal::UnknownUser)?;
    let mut verdict = done();
    verdict.delete(RowKey::User(site.name().clone(), id.clone()));
    for client in site.clients().filter(|client| client.user.as_ref() == Some(id)) {
        verdict.put(Row::Client(ClientRow { user: None, ..client.clone() }));
        wake_client(site, &client.id, &mut verdict);
    }
    verdict.wake_site(site);
    Ok(verdict)
}

/// Judges whether the account that somebody shall act as is there.
pub(super) fn check_principal(site: &Site, principal: &Principal) -> Result<(), Refusal> {
    match principal {
        Principal::Admin | Principal::Operator | Principal::Observer => Ok(()),
        Principal::Service(id) => {
            site.service(id.as_str()).map(|_| ()).ok_or(Refusal::UnknownService)
        }
        Principal::Client(id) => site.client(id.as_str()).map(|_| ()).ok_or(Refusal::UnknownClient),
    }
}

/// A token wakes nobody when it is created: no session can be using it yet.
pub(super) fn create_token(
    limits: &Limits,
    site: &Site,
    now: Stamp,
    id: &TokenId,
    hash: Digest,
    principal: &Principal,
) -> Result<Verdict, Refusal> {
    check_id(id.as_str())?;
    if site.token(id.as_str()).is_some() {
        return Err(Refusal::AlreadyExists);
    }
    check_principal(site, principal)?;
    check_room("tokens", site.tokens.len(), limits.tokens_max)?;
    let mut verdict = done();
    verdict.put(Row::Token(TokenRow {
        site: site.name().clone(),
        id: id.clone(),
        hash,
        principal: principal.clone(),
        created: now,
        expires: None,
        note: String::new(),
    }));
    Ok(verdict)
}

pub(super) fn revoke_token(site: &Site, id: &TokenId) -> Result<Verdict, Refusal> {
    site.token(id.as_str()).ok_or(Refusal::UnknownToken)?;
    let mut verdict = done();
    verdict.delete(RowKey::Token(site.name().clone(), id.clone()));
    verdict.wake_site(site);
    Ok(verdict)
}

/// Sets a cursor, backwards too, and raises the generation: what is in flight under the old one
/// no longer moves it.
pub(super) fn seek(
    site: &Site,
    client: &ClientId,
    event: &EventName,
    after: InstanceId,
) -> Result<Verdict, Refusal> {
    let client = site.client(client.as_str()).ok_or(Refusal::UnknownClient)?;
    let event = site.event_named(event.as_str()).ok_or(Refusal::UnknownEvent)?;
    let known = site.subscription(&client.id, event.key).ok_or(Refusal::UnknownSubscription)?;
    if after > site.head() {
        let detail = format!("0..={}, was {after}", site.head());
        return Err(Refusal::Invalid(invalid("after", detail)));
    }
    let mut verdict = done();
    verdict.put(Row::Subscription(SubscriptionRow {
        cursor: after,
        generation: known.generation.next(),
        ..known.clone()
    }));
    wake_client(site, &client.id, &mut verdict);
    Ok(verdict)
}

pub(super) fn unsubscribe(
    site: &Site,
    client: &ClientId,
    event: &EventName,
) -> Result<Verdict, Refusal> {
    let client = site.client(client.as_str()).ok_or(Refusal::UnknownClient)?;
    let event = site.event_named(event.as_str()).ok_or(Refusal::UnknownEvent)?;
    let known = site.subscription(&client.id, event.key).ok_or(Refusal::UnknownSubscription)?;
    let mut verdict = done();
    super::client::remove(site, client, &[known], &mut verdict);
    wake_client(site, &client.id, &mut verdict);
    Ok(verdict)
}
