//! The body of a request: read against a size and a deadline, decoded with the path of what is
//! wrong in it. Called only once its sender is known to be allowed to send it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ackord_wire::{Code, Problem};
use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use super::suggest;

/// How much of a body, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes.
    pub bytes_max: usize,
    /// From now on.
    pub deadline: Duration,
}

/// Reads a body. `announced` is its `Content-Length`.
pub async fn read(
    payload: &mut Payload,
    announced: Option<usize>,
    limits: BodyLimits,
) -> Result<Bytes, Problem> {
    let too_large = |size: String| {
        let detail = format!("at most {} bytes, was {size}", limits.bytes_max);
        Problem::new(Code::TooLarge, detail).field("body")
    };
    if let Some(announced) = announced.filter(|announced| *announced > limits.bytes_max) {
        return Err(too_large(announced.to_string()));
    }
    let reading = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| {
                Problem::new(Code::Invalid, format!("not readable: {error}")).field("body")
            })?;
            if body.len() + chunk.len() > limits.bytes_max {
                return Err(too_large("more".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(limits.deadline, reading).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {:?}", limits.deadline);
        Err(Problem::new(Code::IdleTimeout, detail).field("body"))
    })
}

/// The body of an answer, beside what is left of the request's.
struct Beside {
    answer: BoxBody,
    _rest: Payload,
}

impl MessageBody for Beside {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.answer).poll_next(context)
    }
}

/// Keeps what is left of a request's body until the answer has left. If the body has not arrived
/// as a whole by then, the connection is closed: its rest would be waited for without a deadline
/// if it were dropped before.
pub fn keep_beside(answer: HttpResponse, rest: Payload) -> HttpResponse {
    answer.map_body(|_, answer| BoxBody::new(Beside { answer, _rest: rest }))
}

/// Decodes a JSON body; an empty one is `{}`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    // A list would be taken for the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(Code::Invalid, "an object, was a list").field("body"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // A value of the wrong shape can be called a mistake of syntax too.
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        if (inner.is_syntax() || inner.is_eof()) && !is_json() {
            return Problem::new(Code::Invalid, format!("not JSON: {inner}")).field("body");
        }
        let text = inner.to_string();
        let problem = Problem::new(Code::Invalid, with_suggestion(&text));
        problem.field(field(&path, &text))
    })?;
    json.end().map_err(|error| {
        Problem::new(Code::Invalid, format!("not one JSON value: {error}")).field("body")
    })?;
    Ok(value)
}

/// The path of what is wrong. A field that is missing is not in the path of the object that lacks
/// it, so it is taken from the text.
fn field(path: &str, text: &str) -> String {
    let named = between(text, "missing field `", "`");
    match (path, named) {
        (".", None) => "body".to_owned(),
        (".", Some(name)) => name.to_owned(),
        (path, None) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
    }
}

fn with_suggestion(text: &str) -> String {
    // The position says nothing to somebody who is given the path.
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    let given = between(text, "unknown field `", "`").or(between(text, "unknown variant `", "`"));
    let Some(given) = given else { return text.to_owned() };
    let expected = text.split_once("expected").map_or("", |(_, expected)| expected);
    match suggest::nearest(given, expected.split('`').skip(1).step_by(2)) {
        Some(meant) => format!("{text}; did you mean `{meant}`?"),
        None => text.to_owned(),
    }
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.split_once(open)?.1.split_once(close).map(|(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackord_wire::resource::{TokenBody, UserBody};
    use ackord_wire::structure::Structure;

    fn check<T: DeserializeOwned + std::fmt::Debug>(body: &str, field: &str, detail: &str) {
        let problem = decode::<T>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some(field), "{body}: {problem}");
        assert!(problem.detail.contains(detail), "{body}: {problem}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        check::<UserBody>("{", "body", "not JSON");
        check::<UserBody>("{} x", "body", "not one JSON value");
        check::<UserBody>(r#"{"roles":[1]}"#, "roles[0]", "expected a string");
        check::<UserBody>(r#"{"rols":[]}"#, "rols", "did you mean `roles`?");
        check::<UserBody>("[]", "body", "an object");
        check::<TokenBody>("", "principal", "missing field");
        check::<TokenBody>(r#"{"principal":{}}"#, "principal", "expected");
        check::<TokenBody>(r#"{"principal":"amdin"}"#, "principal", "did you mean `admin`?");
        let structure = |event: &str| {
            format!(r#"{{"service_type":"t","contract_author":"a","events":[{event}]}}"#)
        };
        check::<Structure>(
            &structure(r#"{"name":"e","category":"queueing","size":-1}"#),
            "events[0].size",
            "u32",
        );
        check::<Structure>(
            &structure(r#"{"name":"e","category":"queueing","lifetime":1}"#),
            "events[0].lifetime",
            "did you mean `lifetime_s`?",
        );
        check::<Structure>(&structure(r#"{"category":"queueing"}"#), "events[0].name", "missing");
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(decode::<UserBody>(b" \n").unwrap(), UserBody::default());
    }
}
