//! Long poll: one event for each request.

use std::rc::Rc;
use std::time::Duration;

use ackord_agents::{Ask, Asker, Turn};
use ackord_machine::session::SubscribeItem;
use ackord_machine::site::{
    EventName, Generation, Incarnation, InstanceId, Position, Principal, Quality, Receiver, Site,
    SiteName, Start, SubscriptionRequest,
};
use ackord_wire::frame::{self as wire, SubscribedItem, Subscription};
use ackord_wire::{ClientMessage, Code, Codec, Problem};

use super::super::RETRY_AFTER_S;
use super::super::answer::Answer;
use super::super::exchange::{Exchange, slow_down};
use super::super::query::{Query, invalid};
use super::ask::{COMMON, Given, REPEATED, Wanted};
use super::body::Stateful;
use super::frame::{self, Extras};
use super::open::unconfirmed;
use super::position::Positions;
use super::resume::{self, resume};
use crate::identity::now_ms;
use crate::meter::Meter;
use crate::route::Endpoint;
use crate::ws::admit::enter;

/// How long is waited when the request does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// The header that says where a guest goes on, also when there was no event.
const AFTER: &str = "ackord-after";

/// `GET /v1/sites/{site}/next`.
pub async fn next(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let (context, request) = (exchange.context, exchange.request());
    let known: Vec<&str> = COMMON.into_iter().chain(["wait", "after"]).collect();
    let query = Query::parse_repeated(request.query_string(), &known, REPEATED)?;
    let bearer = enter(context, request.head(), site, Endpoint::Client, None).await?;
    let expires_ms = bearer.as_ref().and_then(|bearer| bearer.expires_ms);
    let (principal, token) = bearer.map(|bearer| (bearer.principal, bearer.token)).unzip();
    let token = token.flatten();
    slow_down(context, site, &principal)?;
    let left = expires_ms.map(|expires_ms| expires_ms.saturating_sub(now_ms()));
    // Nobody is handed anything once the token is over.
    let wait = wait(&query, context.limits().poll_wait_max)?
        .min(left.map_or(Duration::MAX, Duration::from_millis));
    let after = query.get("after");
    if principal.is_some() && after.is_some() {
        return Err(invalid("after", "the broker keeps where a registered client stands"));
    }
    let wanted = Wanted::of(&query, Given::read(after), principal.as_ref())?;
    let name = SiteName::from(site);
    let who = match principal {
        Some(Principal::Client(client)) => {
            let subscribe = wanted.events.iter().map(|event| request_of(&wanted, event)).collect();
            Asker::Client { client, token: token.clone(), subscribe }
        }
        _ => {
            context.broker.confirm(site).await.map_err(unconfirmed)?;
            let items = |site: &Site, _| wanted.subscriptions(site);
            let items = context.broker.read_site(site, items).unwrap_or_default();
            let items = items.iter().map(|item| item_of(&wanted, item)).collect();
            Asker::Stateless { items }
        }
    };
    let stateful = match &who {
        Asker::Client { client, .. } => Some((client.clone(), token)),
        Asker::Stateless { .. } => None,
    };
    let meter = request.conn_data::<Rc<Meter>>().cloned().unwrap_or_default();
    let asking = context.broker.next(Ask { site: name.clone(), who, wait });
    let turn = tokio::select! {
        turn = asking => turn.map_err(refused)?,
        () = meter.gone() => return Err(Problem::new(Code::IdleTimeout, "the peer is gone")),
    };
    match stateful {
        None => guest(&context.broker, name, wanted, turn),
        Some((client, credential)) => {
            let Some(handed) = turn.handed else { return Ok(Answer::no_content()) };
            let (epoch, session) = turn.session.ok_or_else(|| {
                Problem::new(Code::Internal, "an event without a session to acknowledge it")
            })?;
            let stateful = Stateful { client, credential, expires_ms, session, epoch };
            let (event, generation, instance) = (handed.event, handed.generation, handed.instance);
            let ack = stateful.ack_token(&name, turn.incarnation, event, generation, instance);
            let extras = Extras { ack: Some(ack), after: None };
            answer(&handed.frame, &name, &wanted, extras)
        }
    }
}

/// The answer to a guest, who is told where it goes on, with or without an event.
fn guest(
    broker: &ackord_agents::Broker,
    name: SiteName,
    wanted: Wanted,
    turn: Turn,
) -> Result<Answer, Problem> {
    let mut positions = Positions::new(turn.incarnation);
    let mut accepted = Vec::with_capacity(turn.subscriptions.len());
    for item in &turn.subscriptions {
        let position = item.position;
        positions.set(item.event, position.generation, position.instance);
        accepted.push(SubscribedItem {
            event: item.name.as_str().to_owned(),
            subscription: item.event.0,
            position: wire::Position {
                incarnation: position.incarnation.0,
                generation: position.generation.0,
                instance_id: position.instance.0,
            },
            granted: item.granted,
            resumed: item.resumed,
            mode: wire::Mode::Ordered,
        });
    }
    let who = Receiver::Stateless;
    let say = |site: &Site, _| resume(site, &who, &wanted.given, &accepted, &positions);
    let said = broker.read_site(name.as_str(), say);
    let handed = match &turn.handed {
        None => Answer::no_content().header(AFTER, &positions.text()),
        Some(handed) => {
            positions.set(handed.event, handed.generation, handed.instance);
            let after = positions.text();
            let extras = Extras { ack: None, after: Some(after.clone()) };
            answer(&handed.frame, &name, &wanted, extras)?.header(AFTER, &after)
        }
    };
    Ok(match said {
        Some(said) => handed.header(resume::HEADER, &resume::header(&said)),
        None => handed,
    })
}

fn answer(
    bytes: &[u8],
    site: &SiteName,
    wanted: &Wanted,
    extras: Extras,
) -> Result<Answer, Problem> {
    let Ok(ClientMessage::Event(message)) = Codec::Json.decode(bytes) else {
        return Err(Problem::new(Code::Internal, "the broker's frame cannot be read"));
    };
    let mut data = frame::data(bytes, *message, site, wanted.format, extras);
    // As every other answer.
    data.push(b'\n');
    let content_type = match wanted.format {
        super::ask::Format::Ackord => "application/json",
        super::ask::Format::CloudEvents => "application/cloudevents+json",
    };
    // What was composed of texts is text.
    Ok(Answer::text(content_type, String::from_utf8_lossy(&data).into_owned()))
}

fn request_of(wanted: &Wanted, event: &str) -> SubscriptionRequest {
    SubscriptionRequest {
        event: EventName::from(event),
        category: None,
        start: match wanted.start {
            wire::Start::Earliest => Start::Earliest,
            wire::Start::Latest => Start::Latest,
        },
        ack_timeout_ms: wanted.ack_timeout_ms,
        max_attempts: None,
    }
}

fn item_of(wanted: &Wanted, item: &Subscription) -> SubscribeItem {
    let resume = item.resume.map(|position| Position {
        incarnation: Incarnation(position.incarnation),
        generation: Generation(position.generation),
        instance: InstanceId(position.instance_id),
    });
    let quality = Quality::default();
    SubscribeItem { request: request_of(wanted, &item.event), resume, quality }
}

fn refused((code, detail): ackord_agents::Refused) -> Problem {
    let problem = match code {
        Code::UnknownEvent => super::ask::refused_event(code, detail),
        // `items[0].ack_timeout_ms: …`: here it is a parameter.
        Code::Invalid => match detail.split_once(": ") {
            Some((field, rule)) => invalid(field.rsplit('.').next().unwrap_or(field), rule),
            None => Problem::new(code, detail),
        },
        _ => Problem::new(code, detail),
    };
    if problem.retryable { problem.retry_after(RETRY_AFTER_S) } else { problem }
}

/// `30s`, `500ms`, or seconds as a bare number.
fn wait(query: &Query, max: Duration) -> Result<Duration, Problem> {
    let Some(text) = query.get("wait") else { return Ok(WAIT_DEFAULT.min(max)) };
    let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 1000),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let ms = number.parse::<u64>().ok().filter(|_| digits).and_then(|it| it.checked_mul(unit_ms));
    let ms = ms.map(Duration::from_millis).filter(|wait| *wait <= max);
    ms.ok_or_else(|| {
        let detail = format!("0ms..={}ms as `30s`, `500ms` or `30`, was {text:?}", max.as_millis());
        invalid("wait", &detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_three_ways_and_bounded() {
        let max = Duration::from_secs(60);
        let read = |text: &str| {
            let query = Query::parse(&format!("wait={text}"), &["wait"]).unwrap();
            wait(&query, max).map(|wait| wait.as_millis())
        };
        for (text, ms) in
            [("30s", 30_000), ("500ms", 500), ("30", 30_000), ("0", 0), ("60s", 60_000)]
        {
            assert_eq!(read(text), Ok(ms), "{text}");
        }
        for text in
            ["61s", "60001ms", "-1", "%2B1", "1m", "s", "ms", "", "1.5s", "99999999999999999999"]
        {
            let problem = read(text).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("?wait"), "{text}");
        }
        let none = Query::parse("", &[]).unwrap();
        assert_eq!(wait(&none, max), Ok(WAIT_DEFAULT));
        assert_eq!(wait(&none, Duration::from_secs(5)), Ok(Duration::from_secs(5)));
    }
}
