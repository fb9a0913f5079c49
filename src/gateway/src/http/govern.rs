//! What keeps a site in order: its quotas, and the acts of whoever operates it.

use ackord_agents::translate::quality_from_wire;
use ackord_machine::site::{self as machine, AdminAction, Object, Quotas as Known, Site};
use ackord_wire::Problem;
use ackord_wire::govern::{Quotas, SiteQuotas, SubscriptionBody, Usage};

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange};
use super::{accounts, subscriptions};
use crate::convert;
use crate::route::Flow;

/// `/v1/sites/{site}/quotas`.
pub async fn quotas(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    if exchange.reads() {
        let allowed = exchange.authorize(site, Need::Read, &["consistency"]).await?;
        return answer_quotas(&allowed, site).await;
    }
    // A tenant does not widen its own bounds.
    let mut allowed = exchange.authorize(site, Need::Node, &[]).await?;
    let bytes = allowed.bytes().await?;
    let body: Quotas = super::body::decode(&bytes)?;
    let action = AdminAction::SetQuotas { quotas: quotas_in(&body) };
    allowed.act(site, allowed.request_id("quotas", &bytes)?, action).await?;
    answer_quotas(&allowed, site).await
}

async fn answer_quotas(allowed: &Allowed<'_>, name: &str) -> Result<Answer, Problem> {
    let connections = allowed.context.broker.connections(name);
    let look = |site: &Site, _| {
        let used = Usage {
            services: site.services().count() as u64,
            clients: site.clients().count() as u64,
            subscriptions: (site.subscribed() + site.pushes().count()) as u64,
            queue_bytes: site.queued_bytes(),
            connections,
        };
        (SiteQuotas { quotas: quotas_out(site.quotas()), used }, site.revision(&Object::Quotas))
    };
    let (quotas, revision) = allowed.look(name, look).await?;
    Ok(Answer::ok(&quotas).tagged(revision))
}

/// `POST …/subscriptions/{event}/pause`, `resume`.
pub async fn flow(
    exchange: Exchange<'_>,
    site: &str,
    client: &str,
    event: &str,
    flow: Flow,
) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Operate, &[]).await?;
    let (id, name) = (client.into(), event.into());
    let action = match flow {
        Flow::Pause => AdminAction::Pause { client: id, event: name },
        Flow::Resume => AdminAction::Resume { client: id, event: name },
    };
    allowed.act(site, allowed.request_id("flow", b"")?, action).await?;
    subscriptions::answer_one(&allowed, site, client, event).await
}

/// `PUT …/subscriptions/{event}`.
pub async fn put_subscription(
    exchange: Exchange<'_>,
    site: &str,
    client: &str,
    event: &str,
) -> Result<Answer, Problem> {
    let mut allowed = exchange.authorize(site, Need::Operate, &[]).await?;
    let bytes = allowed.bytes().await?;
    let body: SubscriptionBody = super::body::decode(&bytes)?;
    let item = machine::SubscriptionRequest {
        event: event.into(),
        category: None,
        start: convert::start_in(body.start),
        ack_timeout_ms: body.ack_timeout_ms,
        max_attempts: body.max_attempts,
    };
    let quality = quality_from_wire(body.mode, body.window, body.flush_ms, body.dead_letter);
    let client_id = client.into();
    let action = if quality.is_default() {
        AdminAction::PutSubscription { client: client_id, item }
    } else {
        AdminAction::PutSubscriptionAs { client: client_id, item, quality }
    };
    let act = allowed.act(site, allowed.request_id("put", &bytes)?, action).await;
    act.map_err(|problem| match problem.field.as_deref() {
        // The machine names the place in a list of one.
        Some(field) if field.starts_with("items[0].") => {
            let field = field.trim_start_matches("items[0].").to_owned();
            problem.field(field)
        }
        Some(_) | None => problem,
    })?;
    subscriptions::answer_one(&allowed, site, client, event).await
}

/// `POST /v1/sites/{site}/clients/{id}/kick`.
pub async fn kick_client(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Operate, &[]).await?;
    let action = AdminAction::KickClient { client: id.into() };
    allowed.act(site, allowed.request_id("kick", b"")?, action).await?;
    accounts::answer_client(&allowed, site, id, true).await
}

/// `POST /v1/sites/{site}/services/{id}/kick`.
pub async fn kick_service(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Operate, &[]).await?;
    let action = AdminAction::KickService { service: id.into() };
    allowed.act(site, allowed.request_id("kick", b"")?, action).await?;
    accounts::answer_service(&allowed, site, id, true).await
}

macro_rules! each_quota {
    ($from:ident => $to:ident { $($name:ident),* $(,)? }) => {
        $to { $($name: $from.$name),* }
    };
}

fn quotas_in(from: &Quotas) -> Known {
    each_quota!(from => Known {
        connections, principal_connections, events_per_s, bytes_per_s, service_events_per_s,
        service_bytes_per_s, requests_per_s, principal_requests_per_s, services, clients,
        subscriptions, client_subscriptions, queue_bytes,
    })
}

fn quotas_out(from: &Known) -> Quotas {
    each_quota!(from => Quotas {
        connections, principal_connections, events_per_s, bytes_per_s, service_events_per_s,
        service_bytes_per_s, requests_per_s, principal_requests_per_s, services, clients,
        subscriptions, client_subscriptions, queue_bytes,
    })
}
