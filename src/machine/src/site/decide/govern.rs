//! Acts on somebody's behalf and their record; quotas, pauses, kicks; tickets.
//!
//! The record is written in the same verdict as the act: there is none without the other.

use super::super::audit::{AUDIT_RECORDS_MAX, AuditRow, COMMON, DONE, Note, Told, describe};
use super::super::command::{
    AdminAction, Administer, Precondition, Principal, SubscriptionRequest,
};
use super::super::credential::{
    DrawTicket, IssueTicket, NOTE_BYTES_MAX, RedeemTicket, TICKET_MS_MAX, TicketRow,
};
use super::super::ids::{
    ClientId, Digest, EventName, ServiceId, SessionId, SiteName, Stamp, TokenId,
};
use super::super::limits::{Limit, Limits, SESSIONS_REMEMBERED, TICKETS_MAX, USED_TICKETS_MAX};
use super::super::outcome::{Effect, Outcome, Refusal};
use super::super::quality::Quality;
use super::super::quota::{QUOTA_MAX, Quota, QuotaRow, Quotas};
use super::super::revision::Object;
use super::super::row::{ClientRow, Row, RowKey, ServiceRow, SubscriptionRow, TokenRow};
use super::super::site::Site;
use super::super::state::State;
use super::super::validate::{check_account, invalid};
use super::accounts::{check_principal, wake_client, wake_service};
use super::admin::administer;
use super::{Verdict, find, next_epoch};

pub(super) fn administer_for(
    state: &State,
    now: Stamp,
    asked: &Administer,
) -> Result<Verdict, Refusal> {
    let Administer { request, site, action, by, expected } = asked;
    let known = state.request(site, *request).is_some_and(|known| known.expires > now);
    if let Some(expected) = expected.filter(|_| !known) {
        let found = state.site(site.as_str()).and_then(|site| site.revision(&Object::of(action)));
        let holds = match expected {
            Precondition::Absent => found.is_none(),
            Precondition::Present => found.is_some(),
            Precondition::Revision(revision) => found == Some(revision),
        };
        if !holds {
            return Err(Refusal::Precondition);
        }
    }
    let mut verdict = administer(state, now, *request, site, action, Some(by))?;
    if known {
        return Ok(verdict);
    }
    let (act, target) = describe(action);
    let note = |target: String| Note {
        by: by.clone(),
        act: act.to_owned(),
        target,
        result: DONE.to_owned(),
        count: 1,
    };
    match action {
        // What outlives the site, or begins before it.
        AdminAction::DeleteSite => {
            let common = SiteName::from(COMMON);
            enter(state, now, &common, &[note(format!("sites/{site}"))], &mut verdict);
        }
        AdminAction::CreateSite { .. } => {
            let common = SiteName::from(COMMON);
            enter(state, now, &common, &[note(format!("sites/{site}"))], &mut verdict);
            enter(state, now, site, &[note(target)], &mut verdict);
        }
        _ => enter(state, now, site, &[note(target)], &mut verdict),
    }
    Ok(verdict)
}

/// Records what nodes saw. For a site that is not there nothing is kept.
pub(super) fn record(
    state: &State,
    now: Stamp,
    site: &SiteName,
    notes: &[Note],
) -> Result<Verdict, Refusal> {
    if notes.len() > AUDIT_RECORDS_MAX {
        let detail = format!("0..={AUDIT_RECORDS_MAX}, was {}", notes.len());
        return Err(Refusal::Invalid(invalid("notes", detail)));
    }
    if site.as_str() != COMMON {
        find(state, site)?;
    }
    let mut verdict = Verdict::new(Outcome::Done);
    enter(state, now, site, notes, &mut verdict);
    Ok(verdict)
}

/// Adds entries to a site's record; of each kind the oldest beyond its own bound go.
pub(super) fn enter(
    state: &State,
    now: Stamp,
    site: &SiteName,
    notes: &[Note],
    verdict: &mut Verdict,
) {
    let newest = state.audit_newest(site.as_str());
    for (above, note) in (1..).zip(notes) {
        let number = newest.saturating_add(above);
        let (site, note) = (site.clone(), note.bounded());
        verdict.put(Row::Audit(AuditRow { site, number, at: now, note }));
    }
    for told in Told::ALL {
        let Some(known) = state.audit_numbers(site.as_str(), told) else { continue };
        // A command holds fewer than are kept, so what goes was there before.
        let more = notes.iter().filter(|note| note.told() == told).count();
        let surplus = (known.len() + more).saturating_sub(told.entries_max());
        for number in known.iter().take(surplus) {
            verdict.delete(RowKey::Audit(site.clone(), *number));
        }
    }
}

pub(super) fn set_quotas(site: &Site, quotas: &Quotas) -> Result<Verdict, Refusal> {
    for (name, value) in quotas.named() {
        if let Some(value) = value.filter(|value| *value > QUOTA_MAX) {
            let detail = format!("0..={QUOTA_MAX}, was {value}");
            return Err(Refusal::Invalid(invalid(name, detail)));
        }
    }
    let mut verdict = Verdict::new(Outcome::Done);
    if quotas == site.quotas() {
        return Ok(verdict);
    }
    let name = site.name().clone();
    // What was left of the old rates says nothing about the new ones.
    for service in site.rates.keys() {
        verdict.delete(RowKey::Rate(name.clone(), service.clone()));
    }
    if *quotas == Quotas::default() {
        verdict.delete(RowKey::Quota(name));
    } else {
        verdict.put(Row::Quota(QuotaRow { site: name, quotas: quotas.clone() }));
    }
    verdict.wake_site(site);
    Ok(verdict)
}

/// Judges whether one more of something fits a quota.
pub(super) fn check_quota(quota: Quota, most: Option<u64>, count: usize) -> Result<(), Refusal> {
    match most {
        Some(most) if count as u64 >= most => Err(Refusal::QuotaExceeded { quota, most }),
        Some(_) | None => Ok(()),
    }
}

/// Judges whether one more of something fits a limit.
pub(super) fn check_limit(limit: Limit, most: Option<u64>, count: usize) -> Result<(), Refusal> {
    match most {
        Some(most) if count as u64 >= most => Err(Refusal::LimitReached { limit, most }),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn issue_token(
    limits: &Limits,
    site: &Site,
    now: Stamp,
    token: (&TokenId, Digest, &Principal),
    lifetime_ms: Option<u64>,
    note: &str,
) -> Result<Verdict, Refusal> {
    let (id, hash, principal) = token;
    if note.len() > NOTE_BYTES_MAX || note.chars().any(char::is_control) {
        let detail = format!("at most {NOTE_BYTES_MAX} bytes without control characters");
        return Err(Refusal::Invalid(invalid("note", detail)));
    }
    if lifetime_ms == Some(0) {
        return Err(Refusal::Invalid(invalid("lifetime", "at least 1, was 0")));
    }
    let mut verdict = super::accounts::create_token(limits, site, now, id, hash, principal)?;
    let expires = lifetime_ms.map(|ms| Stamp(now.0.saturating_add(ms)));
    for write in &mut verdict.writes {
        if let super::super::row::Write::Put(Row::Token(row)) = write {
            *row = TokenRow { expires, note: note.to_owned(), ..row.clone() };
        }
    }
    Ok(verdict)
}

fn find_subscription<'a>(
    site: &'a Site,
    client: &ClientId,
    event: &EventName,
) -> Result<&'a SubscriptionRow, Refusal> {
    site.client(client.as_str()).ok_or(Refusal::UnknownClient)?;
    let event = site.event_named(event.as_str()).ok_or(Refusal::UnknownEvent)?;
    site.subscription(client, event.key).ok_or(Refusal::UnknownSubscription)
}

pub(super) fn pause(
    site: &Site,
    client: &ClientId,
    event: &EventName,
    paused: Option<Stamp>,
) -> Result<Verdict, Refusal> {
    let known = find_subscription(site, client, event)?;
    let mut verdict = Verdict::new(Outcome::Done);
    if known.paused.is_some() != paused.is_some() {
        verdict.put(Row::Subscription(SubscriptionRow { paused, ..known.clone() }));
        wake_client(site, client, &mut verdict);
    }
    Ok(verdict)
}

pub(super) fn put_subscription(
    limits: &Limits,
    site: &Site,
    client: &ClientId,
    item: &SubscriptionRequest,
    quality: Quality,
) -> Result<Verdict, Refusal> {
    let account = site.client(client.as_str()).ok_or(Refusal::UnknownClient)?;
    let row = super::client::put_one(limits, site, account, item, quality)?;
    let mut verdict = Verdict::new(Outcome::Done);
    let requalified = super::client::qualify(site, client, row.event, quality, &mut verdict);
    let changed = site.subscription(client, row.event) != Some(&row);
    if changed {
        verdict.put(Row::Subscription(row));
    }
    if changed || requalified {
        wake_client(site, client, &mut verdict);
    }
    Ok(verdict)
}

/// Remembers the end of a session by an administrator as the newest one.
fn kicked(sessions: &[SessionId]) -> Vec<SessionId> {
    let forgotten = (sessions.len() + 1).saturating_sub(SESSIONS_REMEMBERED);
    sessions.iter().skip(forgotten).copied().chain([SessionId::KICKED]).collect()
}

/// Nothing happens to an account whose last session was ended already.
fn is_kicked(sessions: &[SessionId]) -> bool {
    sessions.last().is_none_or(|last| *last == SessionId::KICKED)
}

pub(super) fn kick_client(site: &Site, id: &ClientId) -> Result<Verdict, Refusal> {
    let row = site.client(id.as_str()).ok_or(Refusal::UnknownClient)?;
    let mut verdict = Verdict::new(Outcome::Done);
    if !is_kicked(&row.sessions) {
        let (epoch, sessions) = (next_epoch(site, row.epoch), kicked(&row.sessions));
        verdict.put(Row::Client(ClientRow { epoch, sessions, listed: 0, ..row.clone() }));
        wake_client(site, id, &mut verdict);
    }
    Ok(verdict)
}

pub(super) fn kick_service(site: &Site, id: &ServiceId) -> Result<Verdict, Refusal> {
    let row = site.service(id.as_str()).ok_or(Refusal::UnknownService)?;
    let mut verdict = Verdict::new(Outcome::Done);
    if !is_kicked(&row.sessions) {
        let (epoch, sessions) = (next_epoch(site, row.epoch), kicked(&row.sessions));
        verdict.put(Row::Service(ServiceRow { epoch, sessions, at: None, ..row.clone() }));
        wake_service(site, id, &mut verdict);
    }
    Ok(verdict)
}

pub(super) fn draw_ticket(
    state: &State,
    now: Stamp,
    draw: &DrawTicket,
) -> Result<Verdict, Refusal> {
    issue_ticket(state, now, &draw.ticket, Some(draw.principal_max))
}

/// Makes a ticket. What is bounded are those that are not used yet, of the site and of one principal:
/// nobody's tickets keep others from theirs, and one that is used makes room at once.
pub(super) fn issue_ticket(
    state: &State,
    now: Stamp,
    ticket: &IssueTicket,
    principal_max: Option<u32>,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &ticket.site)?;
    check_account("id", ticket.id.as_str()).map_err(Refusal::Invalid)?;
    if let Some(known) = site.ticket(ticket.id.as_str()) {
        // The same ticket again: the fate of the first attempt was not known.
        let same = known.hash == ticket.hash && known.principal == ticket.principal;
        return if same { Ok(Verdict::new(Outcome::Done)) } else { Err(Refusal::AlreadyExists) };
    }
    if !(1..=TICKET_MS_MAX).contains(&ticket.lifetime_ms) {
        let detail = format!("1..={TICKET_MS_MAX} ms, was {}", ticket.lifetime_ms);
        return Err(Refusal::Invalid(invalid("lifetime", detail)));
    }
    check_principal(site, &ticket.principal)?;
    let own = site.unused_tickets.get(&ticket.principal).copied().unwrap_or(0);
    let unused = site.tickets.len() - site.used_tickets.len();
    check_limit(Limit::PrincipalTickets, principal_max.map(u64::from), own)?;
    check_limit(Limit::Tickets, Some(TICKETS_MAX as u64), unused)?;
    let mut verdict = Verdict::new(Outcome::Done);
    verdict.put(Row::Ticket(TicketRow {
        site: site.name().clone(),
        id: ticket.id.clone(),
        hash: ticket.hash,
        principal: ticket.principal.clone(),
        token: ticket.token.clone(),
        until: ticket.until,
        expires: Stamp(now.0.saturating_add(ticket.lifetime_ms)),
        used: None,
    }));
    Ok(verdict)
}

/// Uses a ticket up. It is remembered until it expires, so that the attempt that used it may ask
/// again; forgotten earlier it opens nothing either, for a ticket that is not known is not good.
pub(super) fn redeem_ticket(
    state: &State,
    now: Stamp,
    redeem: &RedeemTicket,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &redeem.site)?;
    // The order of the log cannot depend on secrets, but how long comparing takes may, and that is
    // safe: these are SHA-256 of 32 random bytes, of which nobody who learns the first few can make a
    // secret with such a hash. Gateways compare what tokens are checked against in constant time.
    let known = site.ticket(redeem.id.as_str()).filter(|known| known.hash == redeem.hash);
    let known = known.filter(|known| known.expires > now).ok_or(Refusal::UnknownToken)?;
    let gone = |token: &TokenId| site.valid_token(token.as_str(), now).is_none();
    let over = known.until.is_some_and(|until| until <= now);
    if over
        || known.token.as_ref().is_some_and(gone)
        || check_principal(site, &known.principal).is_err()
    {
        return Err(Refusal::UnknownToken);
    }
    let mut verdict = Verdict::new(Outcome::Redeemed {
        principal: known.principal.clone(),
        token: known.token.clone(),
        until: known.until,
    });
    match known.used {
        None => {
            let surplus = (site.used_tickets.len() + 1).saturating_sub(USED_TICKETS_MAX);
            for (_, forgotten) in site.used_tickets.iter().take(surplus) {
                verdict.delete(RowKey::Ticket(site.name().clone(), forgotten.clone()));
            }
            let used = Some(redeem.attempt);
            verdict.put(Row::Ticket(TicketRow { used, ..known.clone() }));
        }
        Some(attempt) if attempt == redeem.attempt => {}
        Some(_) => return Err(Refusal::UnknownToken),
    }
    Ok(verdict)
}

/// Wakes everybody whose token has ended.
pub(super) fn token_ended(site: &Site) -> Effect {
    Effect::Site { site: site.name().clone() }
}
