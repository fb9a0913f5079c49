//! Raising events over HTTP, without a session: one as it is or as a CloudEvent, or a batch.
//!
//! `head ─▶ service? ─▶ Mode ─▶ body ─▶ Raise ─▶ Broker ─▶ RaiseResult | Problem`

use ackord_agents::{Broker, Refused, translate};
use ackord_machine::site::limits::{KEY_BYTES_MAX, OWN_KEY_START};
use ackord_machine::site::{NewEvent, ServiceId, SiteName, TraceContext};
use ackord_wire::payload::JSON;
use ackord_wire::resource::RaiseResult;
use ackord_wire::{Code, Problem};
use actix_web::http::header::{HeaderMap, HeaderValue};

use super::RETRY_AFTER_S;
use super::answer::Answer;
use super::arguments::{self, Wrong};
use super::authority::Need;
use super::batch;
use super::cloudevents::{self, CloudEvent, Mode};
use super::exchange::{Allowed, Exchange, random, refused};
use super::query;
use crate::convert;

/// What `curl -d` and forms say when nobody thought about it.
const FORM: &str = "application/x-www-form-urlencoded";
/// A batch of lines.
const LINES: &str = "application/x-ndjson";
/// What the query of a plain event may say.
const PARAMETERS: [&str; 3] = ["null", "client", "lifetime_s"];

/// An event to raise.
pub struct Raise {
    /// The key under which it is decided once, if its caller gave one.
    pub key: Option<String>,
    pub event: NewEvent,
}

impl Raise {
    /// In the trace of the request, where the event has none of its own.
    pub fn within(&mut self, trace: &TraceContext) {
        self.event.trace.get_or_insert_with(|| Box::new(trace.clone()));
    }
}

/// What the parts of an event are called where it was written, to name the one that is wrong.
#[derive(Clone, Copy)]
pub struct Fields {
    pub event: &'static str,
    pub data: &'static str,
    pub null: &'static str,
    pub client: &'static str,
    pub lifetime: &'static str,
    pub key: &'static str,
}

const PLAIN: Fields = Fields {
    event: "{event}",
    data: "body",
    null: "?null",
    client: "?client",
    lifetime: "?lifetime_s",
    key: "Idempotency-Key",
};
const HEADERS: Fields = Fields {
    event: "ce-type",
    data: "body",
    null: "body",
    client: "ce-ackordclient",
    lifetime: "ce-ackordlifetime",
    key: "ce-id",
};
const ENVELOPE: Fields = Fields {
    event: "type",
    data: "data",
    null: "data",
    client: "ackordclient",
    lifetime: "ackordlifetime",
    key: "id",
};
const LINE: Fields = Fields {
    event: "event",
    data: "args",
    null: "null",
    client: "client",
    lifetime: "lifetime_s",
    key: "key",
};

/// `POST /v1/sites/{site}/events/{event}`: the address names the event, whatever the request says.
pub async fn raise(exchange: Exchange<'_>, site: &str, event: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Member, &PARAMETERS).await?;
    raise_as(allowed, site, Some(event)).await
}

/// `POST /v1/sites/{site}/events`: the request names the event, or many of them.
pub async fn raise_named(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Member, &[]).await?;
    raise_as(allowed, site, None).await
}

async fn raise_as(
    mut allowed: Allowed<'_>,
    site: &str,
    named: Option<&str>,
) -> Result<Answer, Problem> {
    let service = allowed.bearer.caller.service()?.clone();
    let key = allowed.key()?.map(str::to_owned);
    let content_type = allowed.header("Content-Type")?.map(str::to_owned);
    let given = content_type.as_deref().unwrap_or_default();
    let trace = trace(allowed.headers());
    let mode = cloudevents::mode(given, allowed.headers())?;
    if mode.is_some()
        && let Some(name) = PARAMETERS.into_iter().find(|name| allowed.query.get(name).is_some())
    {
        return Err(query::invalid(name, "not for CloudEvents: their attributes say it"));
    }
    let is_lines = named.is_none() && arguments::essence(given).eq_ignore_ascii_case(LINES);
    match mode {
        Some(Mode::Batched) => {
            let body = allowed.bytes().await?;
            let mut entries = batch::envelopes(&allowed.context.limits(), &body, named)?;
            if key.is_some() {
                entries = entries.into_iter().map(batch::Entry::without_key).collect();
            }
            let fields = fields(ENVELOPE, named, key.is_some());
            let within = |entry: batch::Entry| entry.within(trace.as_deref());
            let entries = entries.into_iter().map(within).collect();
            batch::raise_all(&allowed, site, &service, key, entries, fields).await
        }
        Some(mode @ (Mode::Structured | Mode::Binary)) => {
            let body = allowed.bytes().await?;
            let (event, of) = match mode {
                Mode::Binary => {
                    let content_type = content_type.as_deref();
                    (cloudevents::binary(allowed.headers(), content_type, body)?, HEADERS)
                }
                Mode::Structured | Mode::Batched => (cloudevents::structured(&body)?, ENVELOPE),
            };
            let fields = fields(of, named, key.is_some());
            let mut raise = from_cloudevent(event, named);
            raise.key = key.or(raise.key);
            trace.iter().for_each(|trace| raise.within(trace));
            one(&allowed, site, &service, raise, fields).await
        }
        None if is_lines => {
            let body = allowed.bytes().await?;
            let entries = batch::lines(&allowed.context.limits(), &body)?;
            let within = |entry: batch::Entry| entry.within(trace.as_deref());
            let entries = entries.into_iter().map(within).collect();
            batch::raise_all(&allowed, site, &service, key, entries, LINE).await
        }
        None => {
            let Some(name) = named else { return Err(nothing_named()) };
            let mut raise = plain(&mut allowed, name, content_type, key).await?;
            trace.iter().for_each(|trace| raise.within(trace));
            one(&allowed, site, &service, raise, PLAIN).await
        }
    }
}

/// The trace that a request is part of. Of what is given twice nobody knows which is meant; several headers
/// with what vendors add are one list.
fn trace(headers: &HeaderMap) -> Option<Box<TraceContext>> {
    wire_trace(headers).map(translate::trace_from_wire)
}

/// The same as frames have it.
pub fn wire_trace(headers: &HeaderMap) -> Option<ackord_wire::TraceContext> {
    let mut parents = headers.get_all("traceparent");
    let parent = parents.next().filter(|_| parents.next().is_none())?.to_str().ok()?;
    let states: Result<Vec<&str>, _> =
        headers.get_all("tracestate").map(HeaderValue::to_str).collect();
    let state = states.ok().filter(|states| !states.is_empty()).map(|states| states.join(","));
    ackord_wire::TraceContext::parse(parent, state.as_deref())
}

/// The parts of an event whose name or key may stand elsewhere.
fn fields(of: Fields, named: Option<&str>, has_header_key: bool) -> Fields {
    Fields {
        event: if named.is_some() { PLAIN.event } else { of.event },
        key: if has_header_key { PLAIN.key } else { of.key },
        ..of
    }
}

fn nothing_named() -> Problem {
    let detail = format!(
        "nothing names the event: send {LINES}, CloudEvents, or POST to an event's own address"
    );
    Problem::new(Code::Invalid, detail).field("Content-Type")
}

/// An event as its body is.
async fn plain(
    allowed: &mut Allowed<'_>,
    name: &str,
    content_type: Option<String>,
    key: Option<String>,
) -> Result<Raise, Problem> {
    let wrong = |field: &str, detail: String| Problem::new(Code::Invalid, detail).field(field);
    let is_null = allowed.query.flag("null")?;
    let lifetime_s = allowed.query.number("lifetime_s")?;
    let body = allowed.bytes().await?;
    let content_type = content_type.unwrap_or_else(|| JSON.to_owned());
    let arguments = if is_null {
        if !body.is_empty() {
            return Err(query::invalid("null", "a null-event has no body"));
        }
        None
    } else if arguments::essence(&content_type).eq_ignore_ascii_case(FORM) {
        let detail = format!("say what the body is, for instance `Content-Type: {JSON}`");
        return Err(wrong("Content-Type", detail));
    } else if body.is_empty() {
        return Err(wrong("body", "missing; a null-event is raised with `?null=true`".to_owned()));
    } else {
        Some(arguments::check(&content_type, body).map_err(|error| match error {
            Wrong::ContentType(detail) => wrong("Content-Type", detail),
            Wrong::Data(detail) => wrong("body", detail),
        })?)
    };
    let client = allowed.query.get("client").map(Into::into);
    let trace = None;
    let event =
        NewEvent { name: name.into(), category: None, arguments, client, lifetime_s, trace };
    Ok(Raise { key, event })
}

/// An event as its envelope is; the address may name it instead.
pub fn from_cloudevent(event: CloudEvent, named: Option<&str>) -> Raise {
    let CloudEvent { kind, key, arguments, client, lifetime_s, trace } = event;
    let name = named.map_or_else(|| kind.into(), Into::into);
    let client = client.map(Into::into);
    let event = NewEvent { name, category: None, arguments, client, lifetime_s, trace };
    Raise { key: Some(key), event }
}

async fn one(
    allowed: &Allowed<'_>,
    site: &str,
    service: &ServiceId,
    raise: Raise,
    fields: Fields,
) -> Result<Answer, Problem> {
    let keyed = raise.key.is_some();
    let key = raise.key.unwrap_or_else(own_key);
    let name = raise.event.name.to_string();
    let broker = &allowed.context.broker;
    let site = SiteName::from(site);
    let raised = broker.raise_keyed(&site, service, key, raise.event).await;
    let accepted = raised.map_err(|refused| {
        until_a_key_is_free(broker, &site, service, problem(refused, &fields, keyed))
    })?;
    Ok(Answer::ok(&RaiseResult {
        event: name,
        instance_id: accepted.instance_id,
        duplicate: accepted.duplicate,
        ignored: accepted.ignored,
    }))
}

/// A key of the broker's own, for what came without one.
pub fn own_key() -> String {
    format!("{OWN_KEY_START}{}", convert::hex(&random::<16>()))
}

/// Whether a caller may give this key: none that the broker could have made itself.
pub fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Why an event was not raised.
pub fn problem((code, detail): Refused, fields: &Fields, keyed: bool) -> Problem {
    let problem = match field_of(code, fields) {
        // The field is named in front of what is wrong with it, as it is called in frames.
        Some(field) => {
            let rule = detail.split_once(": ").map_or(detail.as_str(), |(_, rule)| rule);
            Problem::new(code, rule).field(field)
        }
        None => refused((code, detail)),
    };
    // Who holds the key may ask again under it and gets the original answer.
    let again = keyed && problem.code == Code::UnknownOutcome;
    if again { problem.retryable(true) } else { problem }
}

/// Says when to come again to a service that has all the keys it may have: in hours rather than
/// in a moment, so that nobody asks in vain all day.
pub fn until_a_key_is_free(
    broker: &Broker,
    site: &SiteName,
    service: &ServiceId,
    problem: Problem,
) -> Problem {
    if problem.code != Code::TooManyKeys {
        return problem;
    }
    let Some(wait) = broker.key_wait(site, service) else { return problem };
    let wait_s = wait.as_millis().div_ceil(1000).max(u128::from(RETRY_AFTER_S));
    problem.retry_after(u32::try_from(wait_s).unwrap_or(u32::MAX))
}

/// Where the cause of a rejection stands in the request. Of other codes none is the request's.
fn field_of(code: Code, fields: &Fields) -> Option<&'static str> {
    let fields: [(Code, &str); 8] = [
        (Code::UnknownEvent, fields.event),
        (Code::ArgumentsTooLarge, fields.data),
        (Code::NullNotAllowed, fields.null),
        (Code::ClientRequired, fields.client),
        (Code::ClientNotAllowed, fields.client),
        (Code::UnknownClient, fields.client),
        (Code::LifetimeOutOfRange, fields.lifetime),
        (Code::KeyReused, fields.key),
    ];
    fields.iter().find(|(of, _)| *of == code).map(|(_, field)| *field)
}
