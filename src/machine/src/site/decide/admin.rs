//! Administration of a site as a whole: its settings, its structure, its end; and the memory that
//! gives a repeated request its first answer. Accounts are in [`super::accounts`].
//!
//! Only what was done is remembered: a refused request changed nothing and is judged anew. The
//! memory outlives the site, so that a repeated deletion is answered as the first. An act that changed
//! nothing is remembered too: judged anew, its repeat could change something after all.

use std::sync::Arc;

use super::super::audit::{By, NODE_ADMIN};
use super::super::command::{AdminAction, SiteSettings};
use super::super::ids::{EventKey, Incarnation, RequestId, SiteName, Stamp};
use super::super::limits::{
    Limit, Limits, REQUEST_MEMORY_MS, REQUESTS_PER_SITE, REQUESTS_RESERVED,
};
use super::super::outcome::{Effect, Outcome, Refusal};
use super::super::quality::Quality;
use super::super::row::{RequestRow, Row, RowKey, SiteRow};
use super::super::site::Site;
use super::super::state::State;
use super::super::structure::Structure;
use super::super::validate::check_account;
use super::govern::check_limit;
use super::structure::{How, install};
use super::{Verdict, accounts, check_incarnation, dead, find, govern, push};

pub(super) fn conflict(detail: impl Into<String>) -> Refusal {
    Refusal::Conflict { detail: detail.into() }
}

pub(super) fn set_limits(state: &State, limits: &Limits) -> Result<Verdict, Refusal> {
    limits.validate().map_err(Refusal::Invalid)?;
    let mut verdict = Verdict::new(Outcome::Done);
    if state.limits() != limits {
        verdict.put(Row::Limits(limits.clone()));
    }
    Ok(verdict)
}

pub(super) fn administer(
    state: &State,
    now: Stamp,
    request: RequestId,
    site: &SiteName,
    action: &AdminAction,
    by: Option<&By>,
) -> Result<Verdict, Refusal> {
    if let Some(known) = state.request(site, request).filter(|known| known.expires > now) {
        return Ok(Verdict::new(known.outcome.clone()));
    }
    let most = requests_max(action, by);
    check_limit(Limit::Requests, Some(most as u64), state.requests(site))?;
    let mut verdict = act(state, now, site, action)?;
    verdict.put(Row::Request(RequestRow {
        site: site.clone(),
        id: request,
        outcome: verdict.outcome.clone(),
        expires: Stamp(now.0.saturating_add(REQUEST_MEMORY_MS)),
    }));
    Ok(verdict)
}

/// How many answers may be remembered for one more such act. Whoever fills the memory with acts never
/// keeps those out who could stop it: what an operator may do leaves places for what only an
/// administrator of the site may, such as revoking the operator's token, and that leaves places for
/// the node's administrator. Judged by the act, since a replica does not know the role in a JWT.
fn requests_max(action: &AdminAction, by: Option<&By>) -> usize {
    // What comes on nobody's behalf is the node's own.
    if by.is_none_or(|by| by.who == NODE_ADMIN) {
        return REQUESTS_PER_SITE;
    }
    match action {
        AdminAction::Seek { .. }
        | AdminAction::Unsubscribe { .. }
        | AdminAction::PutSubscription { .. }
        | AdminAction::PutSubscriptionAs { .. }
        | AdminAction::Pause { .. }
        | AdminAction::Resume { .. }
        | AdminAction::KickClient { .. }
        | AdminAction::KickService { .. }
        | AdminAction::EditDeadLetter { .. }
        | AdminAction::ReplayDeadLetter { .. }
        | AdminAction::DeleteDeadLetter { .. } => REQUESTS_PER_SITE - 2 * REQUESTS_RESERVED,
        // Clients may, for themselves: they leave places for operators.
        AdminAction::PutPush { .. }
        | AdminAction::DeletePush { .. }
        | AdminAction::ResumePush { .. } => REQUESTS_PER_SITE - 3 * REQUESTS_RESERVED,
        AdminAction::CreateSite { .. }
        | AdminAction::UpdateSite { .. }
        | AdminAction::DeleteSite
        | AdminAction::ApplyStructure { .. }
        | AdminAction::ApplyDeclared { .. }
        | AdminAction::CreateService { .. }
        | AdminAction::DeleteService { .. }
        | AdminAction::CreateClient { .. }
        | AdminAction::UpdateClient { .. }
        | AdminAction::DeleteClient { .. }
        | AdminAction::CreateUser { .. }
        | AdminAction::UpdateUser { .. }
        | AdminAction::DeleteUser { .. }
        | AdminAction::CreateToken { .. }
        | AdminAction::IssueToken { .. }
        | AdminAction::RevokeToken { .. }
        | AdminAction::SetQuotas { .. } => REQUESTS_PER_SITE - REQUESTS_RESERVED,
    }
}

fn act(
    state: &State,
    now: Stamp,
    name: &SiteName,
    action: &AdminAction,
) -> Result<Verdict, Refusal> {
    if let AdminAction::CreateSite { settings, incarnation } = action {
        return create_site(state, now, name, settings, *incarnation);
    }
    let (site, site_row) = find(state, name)?;
    let limits = state.limits();
    match action {
        AdminAction::CreateSite { .. } => Err(Refusal::AlreadyExists),
        AdminAction::UpdateSite { settings } => update_site(site, site_row, settings),
        AdminAction::DeleteSite => Ok(delete_site(site)),
        AdminAction::ApplyStructure { structure, rebuild, incarnation } => {
            apply_structure(limits, site, site_row, structure, *rebuild, *incarnation)
        }
        AdminAction::ApplyDeclared { service, rebuild, incarnation } => {
            site.service(service.as_str()).ok_or(Refusal::UnknownService)?;
            let declared = site.declared(service.as_str());
            let declared = declared.ok_or_else(|| conflict("the service declared nothing else"))?;
            apply_structure(limits, site, site_row, declared, *rebuild, *incarnation)
        }
        AdminAction::CreateService { id } => accounts::create_service(limits, site, id),
        AdminAction::DeleteService { id } => accounts::delete_service(site, id),
        AdminAction::CreateClient { id, user } => accounts::create_client(limits, site, id, user),
        AdminAction::UpdateClient { id, user } => accounts::update_client(site, id, user),
        AdminAction::DeleteClient { id } => accounts::delete_client(site, id),
        AdminAction::CreateUser { id, roles } => accounts::create_user(limits, site, id, roles),
        AdminAction::UpdateUser { id, roles } => accounts::update_user(site, id, roles),
        AdminAction::DeleteUser { id } => accounts::delete_user(site, id),
        AdminAction::CreateToken { id, hash, principal } => {
            accounts::create_token(limits, site, now, id, *hash, principal)
        }
        AdminAction::RevokeToken { id } => accounts::revoke_token(site, id),
        AdminAction::Seek { client, event, after } => accounts::seek(site, client, event, *after),
        AdminAction::Unsubscribe { client, event } => accounts::unsubscribe(site, client, event),
        AdminAction::IssueToken { id, hash, principal, lifetime_ms, note } => {
            govern::issue_token(limits, site, now, (id, *hash, principal), *lifetime_ms, note)
        }
        AdminAction::SetQuotas { quotas } => govern::set_quotas(site, quotas),
        AdminAction::PutSubscription { client, item } => {
            govern::put_subscription(limits, site, client, item, Quality::default())
        }
        AdminAction::PutSubscriptionAs { client, item, quality } => {
            govern::put_subscription(limits, site, client, item, *quality)
        }
        AdminAction::Pause { client, event } => govern::pause(site, client, event, Some(now)),
        AdminAction::Resume { client, event } => govern::pause(site, client, event, None),
        AdminAction::KickClient { client } => govern::kick_client(site, client),
        AdminAction::KickService { service } => govern::kick_service(site, service),
        AdminAction::PutPush { id, spec } => push::put(site, now, id, spec),
        AdminAction::DeletePush { id, owner } => push::delete(site, id, owner.as_ref()),
        AdminAction::ResumePush { id, owner } => push::resume(site, id, owner.as_ref()),
        AdminAction::EditDeadLetter { id, arguments, note } => {
            dead::edit(limits, site, now, *id, arguments.as_ref(), note.as_ref())
        }
        AdminAction::ReplayDeadLetter { id } => dead::replay(state, site, now, *id),
        AdminAction::DeleteDeadLetter { id } => dead::delete(site, *id),
    }
}

fn create_site(
    state: &State,
    now: Stamp,
    name: &SiteName,
    settings: &SiteSettings,
    incarnation: Incarnation,
) -> Result<Verdict, Refusal> {
    if state.site(name.as_str()).is_some() {
        return Err(Refusal::AlreadyExists);
    }
    check_account("site", name.as_str()).map_err(Refusal::Invalid)?;
    check_incarnation(incarnation)?;
    // A deleted site's remembered answers stay for a while: creating and deleting in a circle
    // must not grow the state without bound.
    if state.over_capacity() {
        return Err(Refusal::OverCapacity);
    }
    accounts::check_room("sites", state.sites().count(), state.limits().sites_max)?;
    let mut verdict = Verdict::new(Outcome::Done);
    // A new site begins blank, whatever an attempt to restore it has put; only the answers that a
    // deleted one remembers stay.
    let restoring = state.attempt(name).is_some();
    for key in state.hidden_rows(name) {
        if restoring || !matches!(key, RowKey::Request(..)) {
            verdict.delete(key);
        }
    }
    verdict.put(Row::Site(SiteRow {
        site: name.clone(),
        created: now,
        settings: settings.clone(),
        incarnation,
        structure: None,
        next_event: EventKey(1),
    }));
    verdict.effects.push(Effect::Site { site: name.clone() });
    Ok(verdict)
}

fn update_site(
    site: &Site,
    site_row: &SiteRow,
    settings: &SiteSettings,
) -> Result<Verdict, Refusal> {
    if settings.multi_service != site_row.settings.multi_service {
        if site_row.structure.is_some() {
            return Err(conflict("multi_service cannot change while the site has a structure"));
        }
        if !settings.multi_service && site.services().nth(1).is_some() {
            return Err(conflict("the site has several services"));
        }
    }
    let mut verdict = Verdict::new(Outcome::Done);
    if *settings != site_row.settings {
        verdict.put(Row::Site(SiteRow { settings: settings.clone(), ..site_row.clone() }));
        verdict.wake_site(site);
    }
    Ok(verdict)
}

/// Removes every row of the site but the remembered answers.
fn delete_site(site: &Site) -> Verdict {
    let mut verdict = Verdict::new(Outcome::Done);
    for key in site.rows().map(|row| row.key()) {
        if !matches!(key, RowKey::Request(..)) {
            verdict.delete(key);
        }
    }
    verdict.wake_site(site);
    verdict
}

fn apply_structure(
    limits: &Limits,
    site: &Site,
    site_row: &SiteRow,
    structure: &Structure,
    rebuild: bool,
    incarnation: Incarnation,
) -> Result<Verdict, Refusal> {
    check_incarnation(incarnation)?;
    let hash = structure.canonical_hash();
    structure.validate(limits).map_err(Refusal::Invalid)?;
    let how = match site.structure() {
        None if site_row.incarnation == Incarnation::default() => How::Construct(incarnation),
        None => How::Construct(site_row.incarnation),
        Some(now)
            if now.service_type == structure.service_type
                && now.contract_author == structure.contract_author =>
        {
            How::Change
        }
        Some(now) if !rebuild => {
            return Err(conflict(format!(
                "the site is of type {:?} by {:?}: only a rebuild, which drops its queues, makes \
                 it {:?} by {:?}",
                now.service_type,
                now.contract_author,
                structure.service_type,
                structure.contract_author
            )));
        }
        Some(_) if incarnation == site_row.incarnation => {
            return Err(conflict("a rebuild needs another incarnation"));
        }
        Some(_) => How::Rebuild(incarnation),
    };
    let mut verdict = Verdict::new(Outcome::Done);
    install(site, site_row, &Arc::new(structure.clone()), hash, how, &mut verdict)?;
    Ok(verdict)
}
