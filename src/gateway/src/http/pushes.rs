//! Push subscriptions: registered by whoever operates the site, or by a client for itself.
//!
//! Invariant: nothing is registered before its target was judged: that it may be delivered to, and,
//! of a callback, that it wants to be. What is refused leaves nothing behind.

use ackord_machine::site::{
    self as machine, AdminAction, ClientId, Object, Principal, PushSpec, PushTarget, Receiver,
    Secret, Site, SiteName, Stamp,
};
use ackord_wire::frame::Position;
use ackord_wire::push::{Push, PushBody, PushFormat, PushMode, PushOverflow, PushState, UdpTarget};
use ackord_wire::{Code, Problem};
use actix_web::http::Method;

use super::answer::Answer;
use super::authority::{Caller, Need};
use super::dead_letters::waiting;
use super::exchange::{Allowed, Exchange, not_found, refused};
use super::list::Wanted;
use crate::convert;

/// Instances that are counted for each push subscription.
const QUEUED_MAX: u64 = 1000;

/// Whose push subscriptions somebody may see and change: `None` is everybody's.
fn owner(caller: &Caller, changes: bool) -> Result<Option<ClientId>, Problem> {
    let denied = || {
        let detail = "takes the client's own token, or one that operates the site";
        Problem::new(Code::AccessDenied, detail).field("Authorization")
    };
    match caller {
        Caller::Node | Caller::Site(Principal::Admin | Principal::Operator) => Ok(None),
        Caller::Site(Principal::Observer) if !changes => Ok(None),
        Caller::Site(Principal::Client(client)) => Ok(Some(client.clone())),
        Caller::Site(Principal::Observer | Principal::Service(_)) => Err(denied()),
    }
}

/// `GET /v1/sites/{site}/pushes`, by id.
pub async fn list(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "prefix", "client"];
    let allowed = exchange.authorize(site, Need::Member, known).await?;
    let owner = owner(&allowed.bearer.caller, false)?;
    let wanted = Wanted::of(&allowed.query)?;
    let of = allowed.query.get("client").map(ClientId::from);
    let broker = &allowed.context.broker;
    let look = |site: &Site, now| {
        let rows = wanted.rows(|id| site.push(id), |after| site.pushes_after(after));
        let keep = |row: &machine::PushRow| {
            let is = |wanted: &Option<ClientId>| {
                wanted.as_ref().is_none_or(|client| *client == row.spec.client)
            };
            is(&owner) && is(&of)
        };
        wanted.page(
            rows,
            |row| row.id.as_str(),
            keep,
            |row| {
                push_out(
                    site,
                    row,
                    now,
                    broker.push_in_flight(site.name().as_str(), row.id.as_str()),
                )
            },
        )
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `/v1/sites/{site}/pushes/{id}`.
pub async fn one(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    match *exchange.method() {
        Method::PUT => put(exchange, site, id).await,
        Method::DELETE => {
            let allowed = exchange.authorize(site, Need::Member, &[]).await?;
            let owner = owner(&allowed.bearer.caller, true)?;
            let action = AdminAction::DeletePush { id: id.into(), owner };
            allowed.act(site, allowed.request_id("delete", b"")?, action).await?;
            Ok(Answer::no_content())
        }
        _ => {
            let allowed = exchange.authorize(site, Need::Member, &["consistency"]).await?;
            answer_one(&allowed, site, id, true, false).await
        }
    }
}

/// `POST /v1/sites/{site}/pushes/{id}/resume`.
pub async fn resume(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Member, &[]).await?;
    let owner = owner(&allowed.bearer.caller, true)?;
    let action = AdminAction::ResumePush { id: id.into(), owner };
    allowed.act(site, allowed.request_id("resume", b"")?, action).await?;
    answer_one(&allowed, site, id, true, true).await
}

async fn put(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    let mut allowed = exchange.authorize(site, Need::Member, &[]).await?;
    let owner = owner(&allowed.bearer.caller, true)?;
    let bytes = allowed.bytes().await?;
    let body: PushBody = super::body::decode(&bytes)?;
    let client = match (body.client.as_deref().map(ClientId::from), owner) {
        (None, Some(own)) => own,
        (Some(named), Some(own)) if named != own => {
            let problem = Problem::new(Code::AccessDenied, "a client registers for itself only");
            return Err(problem.field("client"));
        }
        (Some(named), _) => named,
        (None, None) => return Err(Problem::new(Code::Invalid, "is missing").field("client")),
    };
    let known = allowed.look(site, |site, _| site.push(id).map(|row| row.spec.clone())).await?;
    let mut spec = spec_in(body, client)?;
    // What is another client's is refused below, and lends nothing before.
    if let Some(known) = &known
        && known.client == spec.client
        && spec.secret.is_none()
        && matches!(spec.target, PushTarget::Http { .. })
    {
        spec.secret.clone_from(&known.secret);
    }
    spec.check_mode().map_err(|detail| Problem::new(Code::BadQos, detail).field("mode"))?;
    let action = AdminAction::PutPush { id: id.into(), spec: Box::new(spec.clone()) };
    // Nobody is called about what would be refused.
    allowed.consider(site, action.clone())?;
    let broker = &allowed.context.broker;
    if known.is_none() {
        broker.has_room_for_push().map_err(refused)?;
    }
    // Who was asked once has agreed; another target has not.
    if known.is_none_or(|known| known.target != spec.target || known.secret != spec.secret) {
        broker.verify_push(&SiteName::from(site), &id.into(), &spec).await.map_err(|it| {
            let problem = refused(it);
            match problem.code {
                Code::CallbackNotAllowed | Code::CallbackUnverified => problem.field(target(&spec)),
                _ => problem,
            }
        })?;
    } else {
        broker.judge_push(&spec).map_err(refused)?;
    }
    let made = allowed.look(site, |site, _| site.push(id).is_none()).await?;
    allowed.act(site, allowed.request_id("push", &bytes)?, action).await?;
    answer_one(&allowed, site, id, !made, true).await
}

fn target(spec: &PushSpec) -> &'static str {
    match spec.target {
        PushTarget::Http { .. } => "url",
        PushTarget::Udp { .. } => "udp.address",
    }
}

async fn answer_one(
    allowed: &Allowed<'_>,
    site: &str,
    id: &str,
    known: bool,
    changes: bool,
) -> Result<Answer, Problem> {
    let owner = owner(&allowed.bearer.caller, changes)?;
    let in_flight = allowed.context.broker.push_in_flight(site, id);
    let look = |site: &Site, now| {
        let row = site.push(id)?;
        let own = owner.as_ref().is_none_or(|owner| *owner == row.spec.client);
        let revision = site.revision(&Object::Push(row.id.clone()));
        own.then(|| (push_out(site, row, now, in_flight), revision))
    };
    let found = allowed.look(site, look).await?;
    let (push, revision) = found.ok_or_else(|| not_found("push subscription", id))?;
    let answer = if known { Answer::ok(&push) } else { Answer::created(&push) };
    Ok(answer.tagged(revision))
}

fn spec_in(body: PushBody, client: ClientId) -> Result<PushSpec, Problem> {
    let target = match (body.url, body.udp) {
        (Some(url), None) => PushTarget::Http { url },
        (None, Some(UdpTarget { address, ttl, interface, packet_bytes_max })) => {
            PushTarget::Udp { address, ttl, interface, packet_bytes_max }
        }
        (None, None) => {
            return Err(Problem::new(Code::Invalid, "one of `url` and `udp`").field("url"));
        }
        (Some(_), Some(_)) => {
            return Err(Problem::new(Code::Invalid, "not beside `url`").field("udp"));
        }
    };
    let default = match target {
        PushTarget::Http { .. } => machine::Mode::Ordered,
        PushTarget::Udp { .. } => machine::Mode::Datagram,
    };
    Ok(PushSpec {
        client,
        event: body.event.into(),
        target,
        quality: machine::Quality {
            mode: body.mode.map_or(default, mode_in),
            window: body.window,
            flush_ms: body.flush_ms,
            dead_letter: body.dead_letter,
        },
        start: convert::start_in(body.start),
        send_timeout_ms: body.send_timeout_ms,
        retry_count: body.retry_count,
        discard_interval_ms: body.discard_interval_ms,
        durable: body.durable,
        queue_max: body.queue_max,
        on_overflow: match body.on_overflow {
            PushOverflow::Remove => machine::Overflow::Remove,
            PushOverflow::DropOldest => machine::Overflow::DropOldest,
        },
        max_attempts: body.max_attempts,
        format: match body.format {
            PushFormat::Ackord => machine::PushFormat::Ackord,
            PushFormat::CloudEvents => machine::PushFormat::CloudEvents,
        },
        secret: body.secret.map(Secret),
        paused: body.paused,
    })
}

fn mode_in(mode: PushMode) -> machine::Mode {
    match mode {
        PushMode::Ordered => machine::Mode::Ordered,
        PushMode::Twoway => machine::Mode::Twoway,
        PushMode::Oneway => machine::Mode::Oneway,
        PushMode::Batch => machine::Mode::Batch,
        PushMode::Datagram => machine::Mode::Datagram,
    }
}

fn mode_out(mode: machine::Mode) -> PushMode {
    match mode {
        machine::Mode::Ordered => PushMode::Ordered,
        machine::Mode::Twoway => PushMode::Twoway,
        machine::Mode::Oneway => PushMode::Oneway,
        machine::Mode::Batch => PushMode::Batch,
        machine::Mode::Datagram => PushMode::Datagram,
    }
}

fn push_out(site: &Site, row: &machine::PushRow, now: Stamp, in_flight: Option<usize>) -> Push {
    let spec = &row.spec;
    let receiver = Receiver::Client(spec.client.clone());
    let lag = site.lag(row.event, row.cursor, &receiver, now, QUEUED_MAX);
    let (url, udp) = match &spec.target {
        PushTarget::Http { url } => (Some(url.clone()), None),
        PushTarget::Udp { address, ttl, interface, packet_bytes_max } => {
            let (address, interface) = (address.clone(), interface.clone());
            let (ttl, packet_bytes_max) = (*ttl, *packet_bytes_max);
            (None, Some(UdpTarget { address, ttl, interface, packet_bytes_max }))
        }
    };
    let (because, until, at) = match row.state {
        machine::PushState::Offline { until, because } => (Some(because), Some(until.0), None),
        machine::PushState::Cancelled { at, because } => (Some(because), None, Some(at.0)),
        machine::PushState::Active | machine::PushState::Probing | machine::PushState::Paused => {
            (None, None, None)
        }
    };
    Push {
        id: row.id.to_string(),
        client: spec.client.to_string(),
        event: spec.event.to_string(),
        url,
        udp,
        mode: mode_out(spec.quality.mode),
        window: spec.quality.window,
        flush_ms: spec.quality.flush_ms,
        dead_letter: spec.quality.dead_letter,
        dead_letters: waiting(site, &machine::Subscriber::Push(row.id.clone())),
        send_timeout_ms: spec.send_timeout_ms(),
        retry_count: spec.retry_count,
        discard_interval_ms: spec.discard_interval_ms(),
        durable: spec.durable,
        queue_max: spec.queue_max,
        on_overflow: match spec.on_overflow {
            machine::Overflow::Remove => PushOverflow::Remove,
            machine::Overflow::DropOldest => PushOverflow::DropOldest,
        },
        max_attempts: spec.max_attempts,
        format: match spec.format {
            machine::PushFormat::Ackord => PushFormat::Ackord,
            machine::PushFormat::CloudEvents => PushFormat::CloudEvents,
        },
        signed: spec.secret.is_some(),
        state: match row.state {
            machine::PushState::Active => PushState::Active,
            machine::PushState::Offline { .. } => PushState::Offline,
            machine::PushState::Probing => PushState::Probing,
            machine::PushState::Cancelled { .. } => PushState::Cancelled,
            machine::PushState::Paused => PushState::Paused,
        },
        because: because.map(|because| because.to_string()),
        until_ms: until,
        cancelled_ms: at,
        failures: row.failures,
        position: Position {
            incarnation: site.incarnation().0,
            generation: row.generation.0,
            instance_id: row.cursor.0,
        },
        granted: site.has_authority(row.event, &receiver),
        in_flight: in_flight.map(|count| count as u64),
        queued: (!lag.more).then_some(lag.count),
        queued_at_least: lag.more.then_some(lag.count),
        delivered: row.delivered,
        failed: row.failed,
        dropped: row.dropped,
    }
}
