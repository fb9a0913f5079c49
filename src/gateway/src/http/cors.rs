//! Which pages may use this front from a browser: asked by WebSockets and by plain requests.
//!
//! Invariants: a page of the very address that it asks is allowed where that address is a number or
//! this machine; others only when their origin is configured, and then it is named in the answer,
//! never `*`. (A name proves nothing: whoever owns one can point it at this node.) A request without an `Origin` is not from a page
//! of somebody else and is judged by its token alone. No answer allows a browser's own credentials
//! (cookies): there are none.

use std::net::{Ipv4Addr, Ipv6Addr};

use ackord_wire::{Code, Problem};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};

use super::answer::refuse;
use crate::route::Route;

/// An entry of the allow-list that stands for every origin.
pub const ANY: &str = "*";

/// Headers that pages may send.
const REQUEST_HEADERS: &str = "authorization, content-type, idempotency-key, request-id, \
                               last-event-id, if-match, if-none-match, traceparent, tracestate";
/// The headers of CloudEvents begin like this; those that a preflight names are allowed.
const REQUEST_HEADER_PREFIX: &str = "ce-";
/// Characters of such a header's name at most.
const REQUEST_HEADER_CHARS_MAX: usize = 64;
/// How many such headers a preflight is answered.
const REQUEST_HEADERS_MAX: usize = 32;
/// Headers of answers that pages may read beside those that they always may.
const EXPOSED_HEADERS: &str = "ackord-after, ackord-resume, etag, retry-after";
/// Seconds that a browser may remember the answer to a preflight.
const MAX_AGE_S: &str = "600";

/// Whose page a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// None, as far as the request says.
    None,
    /// One of this address, or of this configured origin.
    Allowed(HeaderValue),
    /// One of an origin that is not allowed.
    Denied,
}

impl Page {
    /// Judges the head of a request by the allow-list.
    pub fn of(origins: &[String], headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(header::ORIGIN);
        let Some(value) = given.next() else { return Self::None };
        let Some(origin) = value.to_str().ok().filter(|_| given.next().is_none()) else {
            return Self::Denied;
        };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = origin.split_once("://").zip(host);
        let is_own = own.is_some_and(|((scheme, authority), host)| {
            matches!(scheme, "http" | "https")
                && authority.eq_ignore_ascii_case(host)
                && needs_no_name(host)
        });
        let is_listed =
            origins.iter().any(|entry| entry == ANY || entry.eq_ignore_ascii_case(origin));
        if is_own || is_listed { Self::Allowed(value.clone()) } else { Self::Denied }
    }

    /// Why a request may not be served: it could change something, or cannot be kept from the page.
    pub fn refusal(&self) -> Option<Problem> {
        match self {
            Self::None | Self::Allowed(_) => None,
            Self::Denied => {
                let detail = "pages of this origin may not use this broker";
                Some(Problem::new(Code::AccessDenied, detail).field("Origin"))
            }
        }
    }

    /// Why a plain request may not be served. One that only reads may: the browser keeps the answer
    /// from the page.
    pub fn refusal_of(&self, method: &Method) -> Option<Problem> {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        self.refusal().filter(|_| !reads)
    }

    /// Says in an answer who may read it.
    pub fn sign(&self, response: &mut HttpResponse) {
        let headers = response.headers_mut();
        // What is said depends on who asks, also when nothing is said.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Self::Allowed(origin) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let exposed = HeaderValue::from_static(EXPOSED_HEADERS);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// Whether the host (and port) of a request is reached without asking anybody for its address.
fn needs_no_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name.parse::<Ipv4Addr>().is_ok()
        || inside.is_some_and(|name| name.parse::<Ipv6Addr>().is_ok())
        || name.eq_ignore_ascii_case("localhost")
}

/// Whether a browser asks what a page may send to this address.
pub fn is_preflight(request: &HttpRequest) -> bool {
    *request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to it.
pub fn preflight(page: &Page, route: &Route, headers: &HeaderMap) -> HttpResponse {
    if let Some(problem) = page.refusal() {
        return refuse(&problem, &[]);
    }
    let mut response = HttpResponse::build(StatusCode::NO_CONTENT);
    response
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, route.methods().join(", ")))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, request_headers(headers)))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S));
    for varying in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
        response.append_header((header::VARY, varying.as_str()));
    }
    response.finish()
}

/// The headers that a page may send, with those of the asked ones that have no fixed names.
fn request_headers(headers: &HeaderMap) -> String {
    let asked = headers
        .get_all(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| name.starts_with(REQUEST_HEADER_PREFIX))
        .filter(|name| name.len() <= REQUEST_HEADER_CHARS_MAX)
        .filter(|name| HeaderName::try_from(name.as_str()).is_ok())
        .take(REQUEST_HEADERS_MAX);
    asked.fold(REQUEST_HEADERS.to_owned(), |all, name| format!("{all}, {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(origins: &[&str], origin: &'static str, host: &'static str) -> Page {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        headers.insert(header::HOST, HeaderValue::from_static(host));
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Page::of(&origins, &headers)
    }

    #[test]
    fn own_pages_and_listed_ones_are_allowed_and_named() {
        let check = |origins: &[&str], origin: &'static str, allowed: bool| {
            let expected = match allowed {
                true => Page::Allowed(HeaderValue::from_static(origin)),
                false => Page::Denied,
            };
            assert_eq!(page(origins, origin, "broker.example:7400"), expected, "{origin}");
        };
        let listed = ["https://app.example"];
        check(&[], "https://broker.example:7400", false);
        check(&["https://broker.example:7400"], "https://Broker.Example:7400", true);
        check(&[], "https://broker.example", false);
        check(&[], "https://broker.example:7400.evil.example", false);
        check(&listed, "https://app.example", true);
        check(&listed, "HTTPS://APP.example", true);
        check(&listed, "https://app.example.evil.example", false);
        check(&listed, "http://app.example", false);
        check(&listed, "null", false);
        check(&["*"], "null", true);
        check(&["*"], "https://anything.example", true);
        check(&[], "", false);
    }

    #[test]
    fn only_an_address_that_needs_no_name_is_its_own() {
        for host in ["127.0.0.1:4655", "192.0.2.7", "[2001:db8::7]:4655", "[::1]", "LocalHost:80"] {
            assert!(needs_no_name(host), "{host}");
        }
        for host in ["evil.example:4655", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            assert!(!needs_no_name(host), "{host}");
        }
        let own = "http://127.0.0.1:4655";
        let allowed = Page::Allowed(HeaderValue::from_static(own));
        assert_eq!(page(&[], own, "127.0.0.1:4655"), allowed);
        assert_eq!(page(&[], own, "127.0.0.1:4656"), Page::Denied);
        assert_eq!(page(&[], "http://evil.example:4655", "evil.example:4655"), Page::Denied);
        assert_eq!(page(&[], "data://127.0.0.1:4655", "127.0.0.1:4655"), Page::Denied);
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = HeaderMap::new();
        for origin in ["https://app.example", "https://app.example"] {
            headers.append(header::ORIGIN, HeaderValue::from_static(origin));
        }
        assert_eq!(Page::of(&["*".to_owned()], &headers), Page::Denied);
        assert_eq!(Page::of(&[], &HeaderMap::new()), Page::None);
    }

    #[test]
    fn of_the_asked_headers_those_of_cloudevents_are_allowed() {
        let mut headers = HeaderMap::new();
        let asked = "Content-Type, CE-Id, ce-type,ce-bad header, x-other";
        let name = header::ACCESS_CONTROL_REQUEST_HEADERS;
        headers.insert(name, HeaderValue::from_static(asked));
        assert_eq!(request_headers(&headers), format!("{REQUEST_HEADERS}, ce-id, ce-type"));
    }
}
