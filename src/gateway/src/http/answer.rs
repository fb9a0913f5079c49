//! What a request is answered with, before it becomes an HTTP response.

use std::convert::Infallible;
use std::io::Write as _;

use ackord_wire::Code;
use ackord_wire::problem::{self, Problem};
use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::stream;
use serde::Serialize;

/// An answer that is no problem.
pub struct Answer {
    status: u16,
    content_type: &'static str,
    body: Body,
}

enum Body {
    Text(String),
    /// Made piece by piece, as fast as it is taken.
    Pieces(Box<dyn Iterator<Item = Bytes>>),
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

    /// 204.
    pub fn no_content() -> Self {
        Self { status: 204, content_type: "", body: Body::Text(String::new()) }
    }

    /// 200 with metrics in Prometheus text format.
    pub fn metrics(body: String) -> Self {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Self { status: 200, content_type, body: Body::Text(body) }
    }

    /// 200 with a text that does not change.
    pub fn text(content_type: &'static str, body: &str) -> Self {
        Self { status: 200, content_type, body: Body::Text(body.to_owned()) }
    }

    /// 200 with bytes that are made piece by piece.
    pub fn pieces(pieces: impl Iterator<Item = Bytes> + 'static) -> Self {
        let body = Body::Pieces(Box::new(pieces));
        Self { status: 200, content_type: "application/octet-stream", body }
    }

    fn json(status: u16, resource: &impl Serialize) -> Self {
        // Resources are maps of plain values with string keys, which the encoder cannot refuse.
        let body = serde_json::to_string(resource).expect("a resource is encodable");
        Self { status, content_type: "application/json", body: Body::Text(body) }
    }

    pub fn into_response(self) -> HttpResponse {
        let mut response = builder(self.status);
        if self.status == 204 {
            return response.finish();
        }
        response
            .insert_header((header::CONTENT_TYPE, self.content_type))
            .insert_header((header::CACHE_CONTROL, "no-store"));
        match self.body {
            Body::Text(text) => response.body(text),
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
    response.body(problem_text(problem))
}

/// The same as raw bytes, for a connection that asked for an upgrade.
pub fn refuse_raw(problem: &Problem, allow: &[&str]) -> Vec<u8> {
    let body = problem_text(problem);
    let status = status(problem.status);
    let mut out = Vec::with_capacity(256 + body.len());
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n",
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

fn problem_text(problem: &Problem) -> String {
    // As for resources.
    serde_json::to_string(problem).expect("a problem is encodable")
}

fn builder(number: u16) -> HttpResponseBuilder {
    HttpResponse::build(status(number))
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
