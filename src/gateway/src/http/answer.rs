//! What a request is answered with, before it becomes an HTTP response.

use std::convert::Infallible;
use std::io::Write as _;

use ackord_wire::Code;
use ackord_wire::problem::{self, Problem};
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::stream;
use serde::Serialize;

use super::exchange::tag_of;

/// An answer that is no problem.
pub struct Answer {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

enum Body {
    Text(String),
    /// Made piece by piece, as fast as it is taken.
    Pieces(Box<dyn Iterator<Item = Bytes>>),
    /// Goes on until one of the two sides ends it.
    Stream(BoxBody),
}

impl Answer {
    /// 200 with this resource.
    pub fn ok(resource: &impl Serialize) -> Self {
        Self::json(200, resource)
    }

    /// 201 with this resource.
    pub fn created(resource: &impl Serialize) -> Self {
        Self::json(201, resource)
    }

    /// 200 with a line for each of these.
    pub fn lines(resources: &[impl Serialize]) -> Self {
        let mut text = String::new();
        for resource in resources {
            text += &line(resource);
        }
        Self::text("application/x-ndjson", text)
    }

    /// 204.
    pub fn no_content() -> Self {
        Self::new(204, "", Body::Text(String::new()))
    }

    /// 200 with this text.
    pub fn text(content_type: &'static str, text: String) -> Self {
        Self::new(200, content_type, Body::Text(text))
    }

    /// 200 with a body that goes on.
    pub fn stream(content_type: &'static str, body: BoxBody) -> Self {
        Self::new(200, content_type, Body::Stream(body))
    }

    /// 200 with metrics in Prometheus text format.
    pub fn metrics(body: String) -> Self {
        Self::text("text/plain; version=0.0.4; charset=utf-8", body)
    }

    /// 200 with bytes that are made piece by piece.
    pub fn pieces(pieces: impl Iterator<Item = Bytes> + 'static) -> Self {
        Self::new(200, "application/octet-stream", Body::Pieces(Box::new(pieces)))
    }

    /// The same with a header. A value that cannot be one is left out.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The same with the entity tag of this revision.
    pub fn tagged(self, revision: Option<u64>) -> Self {
        match revision {
            Some(revision) => self.header("etag", &tag_of(revision)),
            None => self,
        }
    }

    fn json(status: u16, resource: &impl Serialize) -> Self {
        Self::new(status, "application/json", Body::Text(line(resource)))
    }

    fn new(status: u16, content_type: &'static str, body: Body) -> Self {
        Self { status, content_type, headers: Vec::new(), body }
    }

    pub fn into_response(self) -> HttpResponse {
        let mut response = builder(self.status);
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.insert_header((*name, value));
            }
        }
        if self.status == 204 {
            return response.finish();
        }
        response.insert_header((header::CONTENT_TYPE, self.content_type));
        match self.body {
            Body::Text(text) => response.body(text),
            Body::Stream(body) => response.body(body),
            Body::Pieces(pieces) => {
                response.streaming(stream::iter(pieces.map(Ok::<_, Infallible>)))
            }
        }
    }
}

/// The response to a refused request. `allow` goes with `method-not-allowed`.
pub fn refuse(problem: &Problem, allow: &[&str]) -> HttpResponse {
    let mut response = builder(problem.status);
    response.insert_header((header::CONTENT_TYPE, problem::MEDIA_TYPE));
    if let Some(seconds) = problem.retry_after_s {
        response.insert_header((header::RETRY_AFTER, seconds.to_string()));
    }
    if problem.code == Code::BadCredentials {
        response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    if !allow.is_empty() {
        response.insert_header((header::ALLOW, allow.join(", ")));
    }
    response.body(line(problem))
}

/// The same as raw bytes, for a connection that asked for an upgrade.
pub fn refuse_raw(problem: &Problem, allow: &[&str]) -> Vec<u8> {
    let body = line(problem);
    let status = status(problem.status);
    let mut out = Vec::with_capacity(256 + body.len());
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         connection: close\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Refused"),
        problem::MEDIA_TYPE,
        body.len(),
    );
    if let Some(seconds) = problem.retry_after_s {
        let _ = write!(out, "retry-after: {seconds}\r\n");
    }
    if problem.code == Code::BadCredentials {
        out.extend_from_slice(b"www-authenticate: Bearer\r\n");
    }
    if !allow.is_empty() {
        let _ = write!(out, "allow: {}\r\n", allow.join(", "));
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
    out
}

/// A resource or problem on a line of its own, so that a terminal shows it on one.
fn line(resource: &impl Serialize) -> String {
    // They are maps of plain values with string keys, which the encoder cannot refuse.
    let mut line = serde_json::to_string(resource).expect("a resource is encodable");
    line.push('\n');
    line
}

fn builder(number: u16) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status(number));
    // What it was is over at once, and it is for whoever asked.
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
