//! Sites and their structures.

use std::collections::BTreeMap;

use ackord_agents::{Broker, translate};
use ackord_machine::site::{self as machine, AdminAction, Object};
use ackord_wire::resource::{self, Page, SiteBody, SiteSettings};
use ackord_wire::structure::Structure;
use ackord_wire::{Code, Problem};
use actix_web::http::Method;

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange, incarnation};
use super::list::Wanted;
use super::query::Consistency;
use crate::convert;

/// `GET /v1/sites`.
pub async fn list(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&["limit", "after", "consistency", "prefix"])?;
    let wanted = Wanted::of(&allowed.query)?;
    let window = &wanted.window;
    // Sites come partition by partition; keep the first of all of them by name, one more than
    // wanted to know whether there is a next page.
    let mut first: BTreeMap<String, resource::Site> = BTreeMap::new();
    let broker = &allowed.context.broker;
    let gather = |site: &machine::Site| {
        let name = site.name().as_str();
        if !wanted.begins(name) || window.after.as_deref().is_some_and(|after| name <= after) {
            return;
        }
        let full = first.len() > window.limit;
        if full && first.last_key_value().is_some_and(|(last, _)| name >= last.as_str()) {
            return;
        }
        first.insert(name.to_owned(), site_out(broker, site));
        if full {
            first.pop_last();
        }
    };
    if allowed.query.consistency()? == Consistency::Linearizable {
        allowed.confirm_all().await?;
    }
    broker.read_all(gather);
    let more = first.len() > window.limit;
    let items: Vec<resource::Site> = first.into_values().take(window.limit).collect();
    let next = items.last().filter(|_| more).map(|site| site.name.clone());
    Ok(Answer::ok(&Page { items, next }))
}

/// `/v1/sites/{site}`.
pub async fn one(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    match *exchange.method() {
        Method::PUT => put(exchange.authorize(site, Need::Admin, &[]).await?, site).await,
        Method::DELETE => {
            let allowed = exchange.authorize(site, Need::Node, &[]).await?;
            let request = allowed.request_id("delete", b"")?;
            allowed.act(site, request, AdminAction::DeleteSite).await?;
            Ok(Answer::no_content())
        }
        _ => {
            let allowed = exchange.authorize(site, Need::Read, &["consistency"]).await?;
            let (shown, revision) = shown(&allowed, site).await?;
            Ok(Answer::ok(&shown).tagged(revision))
        }
    }
}

async fn put(mut allowed: Allowed<'_>, name: &str) -> Result<Answer, Problem> {
    let bytes = allowed.bytes().await?;
    let body: SiteBody = super::body::decode(&bytes)?;
    allowed.confirm(name).await?;
    let broker = &allowed.context.broker;
    let known = broker.read_site(name, |site, _| convert::settings_out(site.settings()));
    let Some(settings) = known else {
        // A token of the site that was deleted meanwhile makes no new one.
        allowed.bearer.caller.may(Need::Node)?;
        let settings = convert::settings_in(&body.apply_to(&SiteSettings::default()));
        let create = AdminAction::CreateSite { settings, incarnation: incarnation() };
        let request = allowed.request_id("create", &bytes)?;
        allowed.act(name, request, create).await?;
        let (shown, revision) = shown(&allowed, name).await?;
        return Ok(Answer::created(&shown).tagged(revision));
    };
    let settings = convert::settings_in(&body.apply_to(&settings));
    let request = allowed.request_id("update", &bytes)?;
    allowed.act(name, request, AdminAction::UpdateSite { settings }).await?;
    let (shown, revision) = shown(&allowed, name).await?;
    Ok(Answer::ok(&shown).tagged(revision))
}

/// `/v1/sites/{site}/structure`.
pub async fn structure(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    if exchange.reads() {
        let allowed = exchange.authorize(site, Need::Member, &["consistency"]).await?;
        return answer_structure(&allowed, site).await;
    }
    let mut allowed = exchange.authorize(site, Need::Admin, &["rebuild", "dry_run"]).await?;
    let rebuild = allowed.query.flag("rebuild")?;
    let dry_run = allowed.query.flag("dry_run")?;
    let bytes = allowed.bytes().await?;
    let structure = convert::structure_in(&super::body::decode::<Structure>(&bytes)?)?;
    let request = allowed.request_id("apply", &bytes)?;
    let action = AdminAction::ApplyStructure { structure, rebuild, incarnation: incarnation() };
    if dry_run {
        allowed.consider(site, action)?;
        return Ok(Answer::no_content());
    }
    allowed.act(site, request, action).await?;
    answer_structure(&allowed, site).await
}

/// `POST /v1/sites/{site}/services/{id}/apply-declared`.
pub async fn apply_declared(
    exchange: Exchange<'_>,
    site: &str,
    id: &str,
) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Admin, &["rebuild"]).await?;
    let rebuild = allowed.query.flag("rebuild")?;
    let request = allowed.request_id("apply", b"")?;
    let action =
        AdminAction::ApplyDeclared { service: id.into(), rebuild, incarnation: incarnation() };
    allowed.act(site, request, action).await?;
    answer_structure(&allowed, site).await
}

async fn answer_structure(allowed: &Allowed<'_>, name: &str) -> Result<Answer, Problem> {
    let found = allowed.look(name, |site, _| {
        let structure = site.structure()?;
        let revision = site.revision(&Object::Structure);
        let structure = resource::SiteStructure {
            hash: site.structure_hash().map(|hash| convert::hex(&hash.0)).unwrap_or_default(),
            incarnation: site.incarnation().0,
            structure: translate::structure_to_wire(structure),
        };
        Some((structure, revision))
    });
    match found.await? {
        Some((structure, revision)) => Ok(Answer::ok(&structure).tagged(revision)),
        None => Err(Problem::new(Code::NotFound, format!("the site {name:?} is blank"))),
    }
}

async fn shown(
    allowed: &Allowed<'_>,
    name: &str,
) -> Result<(resource::Site, Option<u64>), Problem> {
    let broker = allowed.context.broker.clone();
    let look =
        move |site: &machine::Site, _| (site_out(&broker, site), site.revision(&Object::Site));
    allowed.look(name, look).await
}

fn site_out(broker: &Broker, site: &machine::Site) -> resource::Site {
    let structure = site.structure();
    resource::Site {
        name: site.name().to_string(),
        created_ms: site.created().0,
        partition: broker.node().partition_of(site.name()).number(),
        settings: convert::settings_out(site.settings()),
        incarnation: site.incarnation().0,
        service_type: structure.map(|structure| structure.service_type.clone()),
        contract_author: structure.map(|structure| structure.contract_author.clone()),
        structure_hash: site.structure_hash().map(|hash| convert::hex(&hash.0)),
        last_instance_id: site.head().0,
    }
}
