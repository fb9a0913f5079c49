//! CloudEvents 1.0 as they come in over HTTP: structured, binary and batched. Pure.
//!
//! `type` names the event, `source` and `id` together are its idempotency key, `data` and
//! `datacontenttype` its arguments; the extensions `ackordclient` and `ackordlifetime` are its
//! addressee and lifetime, `traceparent` and `tracestate` its trace. What else an envelope says is not kept. No data is a null-event.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ackord_agents::translate;
use ackord_machine::site::{Arguments, TraceContext};
use ackord_wire::payload::JSON;
use ackord_wire::{Code, Problem};
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::arguments::{self, Wrong, essence, is_json_like};
use super::body;
use crate::convert;

/// How the media type of an envelope begins.
const ENVELOPE: &str = "application/cloudevents";
/// Before the attributes in the headers of a binary-mode request.
const HEADER_PREFIX: &str = "ce-";
/// The version that is understood.
const SPEC_VERSION: &str = "1.0";

/// How a request carries events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The body is an envelope.
    Structured,
    /// The body is a list of envelopes.
    Batched,
    /// The attributes are headers, the body is the data.
    Binary,
}

/// What an envelope asks to raise.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent {
    /// The attribute `type`.
    pub kind: String,
    /// The idempotency key that `source` and `id` make.
    pub key: String,
    /// `None` is a null-event.
    pub arguments: Option<Arguments>,
    /// The addressee.
    pub client: Option<String>,
    /// Seconds.
    pub lifetime_s: Option<u32>,
    /// The trace that it is raised in.
    pub trace: Option<Box<TraceContext>>,
}

/// Whether and how a request carries CloudEvents.
///
/// # Errors
/// When it does in an encoding that is not understood.
pub fn mode(content_type: &str, headers: &HeaderMap) -> Result<Option<Mode>, Problem> {
    let media_type = essence(content_type).to_ascii_lowercase();
    if let Some(form) = media_type.strip_prefix(ENVELOPE) {
        return match form {
            "+json" => Ok(Some(Mode::Structured)),
            "-batch+json" => Ok(Some(Mode::Batched)),
            _ => {
                let detail = format!("{ENVELOPE}+json or {ENVELOPE}-batch+json");
                Err(Problem::new(Code::Invalid, detail).field("Content-Type"))
            }
        };
    }
    Ok(headers.contains_key("ce-specversion").then_some(Mode::Binary))
}

/// The event of an envelope.
///
/// # Errors
/// Names the attribute that is missing or malformed.
pub fn structured(envelope: &[u8]) -> Result<CloudEvent, Problem> {
    let mut fields: BTreeMap<String, Option<Box<RawValue>>> = body::decode(envelope)?;
    // An attribute that is `null` is not set, and so is data.
    let mut take = |name: &str| fields.remove(name).flatten();
    let (data, base64) = (take("data"), take("data_base64"));
    let attributes =
        Attributes::read("", |name| take(name).map(|raw| text(name, &raw)).transpose())?;
    let json_data = || attributes.content_type.as_deref().is_none_or(is_json_like);
    let bytes = match (data, base64) {
        (Some(_), Some(_)) => return Err(invalid("data_base64", "not beside `data`")),
        (Some(raw), None) if json_data() => Some(Bytes::from(String::from(Box::<str>::from(raw)))),
        (Some(raw), None) => {
            // Data that is not JSON is a text, and its bytes are those of the text.
            let text: String = serde_json::from_str(raw.get())
                .map_err(|_| invalid("data", "a text, as `datacontenttype` is not JSON"))?;
            Some(Bytes::from(text))
        }
        (None, Some(raw)) => {
            let text = text("data_base64", &raw)?;
            let bytes = STANDARD.decode(text.as_bytes());
            Some(bytes.map_err(|error| invalid("data_base64", &error.to_string()))?.into())
        }
        (None, None) => None,
    };
    attributes.event(bytes, "datacontenttype", "data")
}

/// The event of a binary-mode request.
///
/// # Errors
/// Names the header that is missing or malformed.
pub fn binary(
    headers: &HeaderMap,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<CloudEvent, Problem> {
    let mut attributes = Attributes::read(HEADER_PREFIX, |name| {
        let name = format!("{HEADER_PREFIX}{name}");
        let mut values = headers.get_all(&name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(invalid(&name, "may be given once"));
        }
        let value = value.to_str().map_err(|_| invalid(&name, "not visible ASCII text"))?;
        header_text(value).map(Some).map_err(|rule| invalid(&name, rule))
    })?;
    attributes.content_type = content_type.map(str::to_owned);
    attributes.event((!body.is_empty()).then_some(body), "Content-Type", "body")
}

/// The envelopes of a batched-mode request, to be read one by one.
///
/// # Errors
/// When the body is no list.
pub fn batched(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(Code::Invalid, format!("not a JSON list: {error}")).field("body")
    })
}

/// The attributes that mean something here.
struct Attributes {
    id: String,
    source: String,
    kind: String,
    content_type: Option<String>,
    client: Option<String>,
    lifetime_s: Option<u32>,
    trace: Option<Box<TraceContext>>,
}

impl Attributes {
    fn read(
        prefix: &str,
        mut get: impl FnMut(&str) -> Result<Option<String>, Problem>,
    ) -> Result<Self, Problem> {
        let field = |name: &str| format!("{prefix}{name}");
        let mut required = |name: &str| match get(name)? {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(invalid(&field(name), "may not be empty")),
            None => Err(invalid(&field(name), "missing: every CloudEvent has it")),
        };
        let version = required("specversion")?;
        if version != SPEC_VERSION {
            let shown: String = version.chars().take(16).collect();
            let detail = format!("{SPEC_VERSION}, was {shown:?}");
            return Err(invalid(&field("specversion"), &detail));
        }
        let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
        let lifetime_s = get("ackordlifetime")?
            .map(|text| text.parse().map_err(|_| invalid(&field("ackordlifetime"), "seconds")))
            .transpose()?;
        let content_type = get("datacontenttype")?;
        let client = get("ackordclient")?;
        // What is no context is none, whatever is wrong with it.
        let mut lenient = |name: &str| get(name).ok().flatten();
        let (parent, state) = (lenient("traceparent"), lenient("tracestate"));
        let trace = parent.and_then(|parent| translate::trace(&parent, state.as_deref()));
        Ok(Self { id, source, kind, content_type, client, lifetime_s, trace })
    }

    fn event(
        self,
        data: Option<Bytes>,
        content_type_field: &str,
        data_field: &str,
    ) -> Result<CloudEvent, Problem> {
        let content_type = self.content_type.as_deref().unwrap_or(JSON);
        let arguments = data.map(|data| arguments::check(content_type, data)).transpose();
        let arguments = arguments.map_err(|wrong| match wrong {
            Wrong::ContentType(rule) => invalid(content_type_field, &rule),
            Wrong::Data(rule) => invalid(data_field, &rule),
        })?;
        Ok(CloudEvent {
            key: key(&self.source, &self.id),
            kind: self.kind,
            arguments,
            client: self.client,
            lifetime_s: self.lifetime_s,
            trace: self.trace,
        })
    }
}

/// The idempotency key of an event that is known by these two.
fn key(source: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    // The length keeps two texts from being read as other two.
    hash.update((source.len() as u64).to_le_bytes());
    hash.update(source.as_bytes());
    hash.update(id.as_bytes());
    format!("cloudevents/{}", convert::hex(&hash.finalize()))
}

/// The text of an attribute; numbers and booleans are written as they are.
fn text(name: &str, raw: &RawValue) -> Result<String, Problem> {
    let raw = raw.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_err(|error| invalid(name, &error.to_string())),
        Some(b'{' | b'[') | None => Err(invalid(name, "a text, a number, true or false")),
        Some(_) => Ok(raw.to_owned()),
    }
}

/// The value of an attribute's header: quotes are taken off, then percent-encoding, once.
fn header_text(value: &str) -> Result<String, &'static str> {
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        None => Cow::Borrowed(value),
        Some(quoted) => Cow::Owned(unquoted(quoted).ok_or("a quote that is not closed")?),
    };
    let text = percent_decode_str(&value).decode_utf8();
    text.map(Cow::into_owned).map_err(|_| "not percent-encoded UTF-8")
}

/// What stands before the closing quote, which must be the last character.
fn unquoted(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(text),
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
}

fn invalid(field: &str, rule: &str) -> Problem {
    Problem::new(Code::Invalid, rule).field(field)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    const ENOUGH: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"reading""#;

    fn envelope(rest: &str) -> Result<CloudEvent, Problem> {
        structured(format!("{{{ENOUGH}{rest}}}").as_bytes())
    }

    fn data(rest: &str) -> (String, String) {
        let arguments = envelope(rest).unwrap().arguments.unwrap();
        (arguments.content_type, String::from_utf8(arguments.data.to_vec()).unwrap())
    }

    #[test]
    fn data_arrives_as_the_sender_meant_it() {
        let check = |rest: &str, content_type: &str, bytes: &str| {
            assert_eq!(data(rest), (content_type.to_owned(), bytes.to_owned()), "{rest}");
        };
        check(r#","data":{"n": 1}"#, JSON, r#"{"n": 1}"#);
        check(r#","data":"text""#, JSON, r#""text""#);
        check(r#","datacontenttype":"a/b+json","data":[1]"#, "a/b+json", "[1]");
        check(r#","datacontenttype":"text/plain","data":"gr\u00fc\u00df""#, "text/plain", "grüß");
        check(r#","datacontenttype":"text/plain","data_base64":"aGk=""#, "text/plain", "hi");
        check(r#","data_base64":"WzFd""#, JSON, "[1]");
        for nothing in ["", r#","data":null"#, r#","datacontenttype":"text/plain""#] {
            assert_eq!(envelope(nothing).unwrap().arguments, None, "{nothing}");
        }
    }

    #[test]
    fn extensions_name_addressee_and_lifetime_and_others_are_left_alone() {
        let rest =
            r#","ackordclient":"c","ackordlifetime":60,"time":"2025-11-20T10:00:00Z","x":true"#;
        let event = envelope(rest).unwrap();
        assert_eq!((event.client.as_deref(), event.lifetime_s), (Some("c"), Some(60)));
        assert_eq!(envelope(r#","ackordlifetime":"60""#).unwrap().lifetime_s, Some(60));
    }

    #[test]
    fn source_and_id_together_are_the_key() {
        let key = |source: &str, id: &str| key(source, id);
        assert_eq!(key("/s", "1"), envelope("").unwrap().key);
        assert_ne!(key("/s", "1"), key("/s1", ""));
        assert!(key("/s", &"1".repeat(10_000)).len() < 255);
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let check = |text: &str, field: &str| {
            let problem = structured(text.as_bytes()).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field), "{text}: {problem}");
        };
        check("[]", "body");
        check("{", "body");
        check("{}", "specversion");
        check(r#"{"specversion":"0.3"}"#, "specversion");
        check(r#"{"specversion":"1.0"}"#, "id");
        check(r#"{"specversion":"1.0","id":""}"#, "id");
        check(r#"{"specversion":"1.0","id":null}"#, "id");
        check(r#"{"specversion":"1.0","id":"1"}"#, "source");
        check(r#"{"specversion":"1.0","id":"1","source":{}}"#, "source");
        check(r#"{"specversion":"1.0","id":"1","source":"s"}"#, "type");
        let more = |rest: &str| format!("{{{ENOUGH}{rest}}}");
        check(&more(r#","data":1,"data_base64":"""#), "data_base64");
        check(&more(r#","data_base64":"?""#), "data_base64");
        check(&more(r#","datacontenttype":"text/plain","data":1"#), "data");
        check(&more(r#","datacontenttype":"","data":"1""#), "datacontenttype");
        check(&more(r#","datacontenttype":"application/cbor","data_base64":"AAA=""#), "data");
        check(&more(r#","ackordlifetime":-1"#), "ackordlifetime");
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn attributes_in_headers_are_decoded_once() {
        let check = |value: &'static str, expected: Result<&str, ()>| {
            let headers = headers(&[
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-source", "/s"),
                ("ce-type", value),
            ]);
            let kind = binary(&headers, None, Bytes::new()).map(|event| event.kind);
            assert_eq!(kind.as_deref().map_err(|_| ()), expected, "{value}");
        };
        check("reading", Ok("reading"));
        check("gr%C3%BC%C3%9F%20%22x%22", Ok("grüß \"x\""));
        check("%2541", Ok("%41"));
        check("\"quo\\\"ted \\\\ %41\"", Ok("quo\"ted \\ A"));
        check("\"open", Err(()));
        check("\"open\\\"", Err(()));
        check("\"closed\" too early", Err(()));
        check("%ff", Err(()));
        check("", Err(()));
    }

    #[test]
    fn a_header_may_be_given_once() {
        let headers =
            headers(&[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-id", "2"), ("ce-type", "t")]);
        let problem = binary(&headers, None, Bytes::new()).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("ce-id"));
    }

    #[test]
    fn the_mode_follows_from_the_media_type_first() {
        let ce = headers(&[("ce-specversion", "1.0")]);
        let none = HeaderMap::new();
        let check = |content_type: &str, headers: &HeaderMap, expected: Option<Mode>| {
            assert_eq!(mode(content_type, headers).unwrap(), expected, "{content_type}");
        };
        check("application/cloudevents+json; charset=UTF-8", &ce, Some(Mode::Structured));
        check("Application/CloudEvents-Batch+JSON", &none, Some(Mode::Batched));
        check("text/plain", &ce, Some(Mode::Binary));
        check("text/plain", &none, None);
        assert!(mode("application/cloudevents+xml", &none).is_err());
        assert!(mode("application/cloudevents", &none).is_err());
    }
}
