//! Raising one event over HTTP, without a session.

use ackord_machine::site::limits::OWN_KEY_START;
use ackord_machine::site::{Arguments, NewEvent, SiteName};
use ackord_wire::payload::JSON;
use ackord_wire::resource::RaiseResult;
use ackord_wire::{Code, Problem};
use actix_web::http::header;

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Exchange, random, refused};
use super::query;
use crate::convert;

/// What `curl -d` and forms say when nobody thought about it.
const FORM: &str = "application/x-www-form-urlencoded";

/// `POST /v1/sites/{site}/events/{event}`.
pub async fn raise(exchange: Exchange<'_>, site: &str, event: &str) -> Result<Answer, Problem> {
    let mut allowed =
        exchange.authorize(site, Need::Member, &["null", "client", "lifetime_s"]).await?;
    let service = allowed.bearer.caller.service()?.clone();
    let key = allowed.key()?.map(str::to_owned);
    let keyed = key.is_some();
    let is_null = allowed.query.flag("null")?;
    let content_type = allowed.header(header::CONTENT_TYPE.as_str())?.unwrap_or(JSON).to_owned();
    let body = allowed.bytes().await?;
    let arguments = if is_null {
        if !body.is_empty() {
            return Err(query::invalid("null", "a null-event has no body"));
        }
        None
    } else {
        Some(arguments(content_type, body)?)
    };
    let new_event = NewEvent {
        name: event.into(),
        category: None,
        arguments,
        client: allowed.query.get("client").map(Into::into),
        lifetime_s: allowed.query.number("lifetime_s")?,
    };
    let key = key.unwrap_or_else(|| format!("{OWN_KEY_START}{}", convert::hex(&random::<16>())));
    let site = SiteName::from(site);
    let raised = allowed.context.broker.raise_keyed(&site, &service, key, new_event).await;
    let accepted = raised.map_err(|(code, detail)| {
        let problem = match field_of(code) {
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
    })?;
    Ok(Answer::ok(&RaiseResult {
        event: event.to_owned(),
        instance_id: accepted.instance_id,
        duplicate: accepted.duplicate,
        ignored: accepted.ignored,
    }))
}

/// Where the cause of a rejection stands in the request. Of other codes none is the request's.
fn field_of(code: Code) -> Option<&'static str> {
    const FIELDS: [(Code, &str); 8] = [
        (Code::UnknownEvent, "{event}"),
        (Code::ArgumentsTooLarge, "body"),
        (Code::NullNotAllowed, "?null"),
        (Code::ClientRequired, "?client"),
        (Code::ClientNotAllowed, "?client"),
        (Code::UnknownClient, "?client"),
        (Code::LifetimeOutOfRange, "?lifetime_s"),
        (Code::KeyReused, "Idempotency-Key"),
    ];
    FIELDS.iter().find(|(of, _)| *of == code).map(|(_, field)| *field)
}

fn arguments(content_type: String, body: actix_web::web::Bytes) -> Result<Arguments, Problem> {
    let wrong = |field: &str, detail: String| Problem::new(Code::Invalid, detail).field(field);
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(FORM) {
        let detail = format!("say what the body is, for instance `Content-Type: {JSON}`");
        return Err(wrong("Content-Type", detail));
    }
    if body.is_empty() {
        return Err(wrong("body", "missing; a null-event is raised with `?null=true`".to_owned()));
    }
    if media_type.eq_ignore_ascii_case(JSON) {
        // What is announced as JSON reaches JSON readers as it is, so it must be.
        serde_json::from_slice::<serde::de::IgnoredAny>(&body)
            .map_err(|error| wrong("body", format!("not JSON: {error}")))?;
        return Ok(Arguments { content_type: JSON.to_owned(), data: body });
    }
    Ok(Arguments { content_type, data: body })
}
