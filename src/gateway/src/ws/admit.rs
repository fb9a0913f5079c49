//! Who may open a WebSocket: decided from the head of the request, before anything is upgraded.

use ackord_machine::site::audit::NODE_ADMIN;
use ackord_machine::site::{Principal, Receiver, Refusal, Site, TokenId};
use ackord_wire::{Code, Codec, Problem};
use actix_http::header::{self, HeaderMap};
use actix_http::ws::{HandshakeError, hash_key, verify_handshake};
use actix_http::{Method, RequestHead};

use crate::context::Context;
use crate::http::cors::Page;
use crate::http::query::Query;
use crate::http::{RETRY_AFTER_S, method_problem, nothing_here};
use crate::http::{authority, exchange};
use crate::identity::{self, Bearer};
use crate::route::{Endpoint, Route};

/// Whoever was let in.
#[derive(Debug)]
pub struct Admitted {
    pub site: String,
    pub endpoint: Endpoint,
    /// `None` is a stateless guest.
    pub principal: Option<Principal>,
    pub token: Option<TokenId>,
    /// When the credentials end, milliseconds of Unix time.
    pub expires_ms: Option<u64>,
    pub codec: Codec,
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
}

/// Lets a request in, or says why not.
pub async fn admit(context: &Context, head: &RequestHead) -> Result<Admitted, Problem> {
    let route = Route::parse(head.uri.path()).ok_or_else(|| nothing_here(head.uri.path()))?;
    let Route::Socket { site, endpoint } = route else {
        return Err(method_problem(&route, &head.method).unwrap_or_else(|| {
            Problem::new(Code::Invalid, "not a WebSocket endpoint").field("Upgrade")
        }));
    };
    // Before anybody is looked up: what it says goes into the record, and only `GET` is one word.
    if head.method != Method::GET {
        return Err(handshake_problem(&HandshakeError::GetMethodRequired));
    }
    if context.stopping.is_cancelled() {
        let problem = Problem::new(Code::ShuttingDown, "the node is shutting down");
        return Err(problem.retry_after(RETRY_AFTER_S));
    }
    if let Some(problem) = Page::of(&context.live().origins, &head.headers).refusal() {
        return Err(problem);
    }
    let query = Query::parse(head.uri.query().unwrap_or_default(), &["ticket"])?;
    let handshake = subprotocol(&head.headers).and_then(|codec| {
        verify_handshake(head).map(|()| codec).map_err(|error| handshake_problem(&error))
    });
    let ticket = query.get("ticket");
    if ticket.is_some() {
        // A ticket is not used up by a handshake that cannot succeed.
        handshake.as_ref().map_err(Clone::clone)?;
    }
    let bearer = enter(context, head, &site, endpoint, ticket).await?;
    let account = bearer.as_ref().map(|bearer| bearer.principal.clone());
    exchange::slow_down(context, &site, &account)?;
    let codec = handshake?;
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY);
    let accept = hash_key(key.map(|key| key.as_bytes()).unwrap_or_default());
    let accept = String::from_utf8_lossy(&accept).into_owned();
    let expires_ms = bearer.as_ref().and_then(|bearer| bearer.expires_ms);
    let (principal, token) = bearer.map(|bearer| (bearer.principal, bearer.token)).unzip();
    let token = token.flatten();
    Ok(Admitted { site, endpoint, principal, token, expires_ms, codec, accept })
}

/// Lets somebody open a session here, if there is room for it: who they are, `None` for a guest, and
/// the token that they have shown. Whoever is turned away is recorded.
pub async fn enter(
    context: &Context,
    head: &RequestHead,
    site: &str,
    endpoint: Endpoint,
    ticket: Option<&str>,
) -> Result<Option<Bearer>, Problem> {
    let known = identify(context, head, site, endpoint, ticket).await;
    let bearer = known.map_err(|Away { who, problem }| {
        if matches!(problem.code, Code::BadCredentials | Code::AccessDenied) {
            let who = who.unwrap_or_else(|| authority::stranger(&head.headers));
            exchange::turned_away(context, head, site, who, problem.code);
        }
        *problem
    })?;
    context.broker.accepts_of(site).map_err(full)?;
    context
        .broker
        .has_room(site, &bearer.as_ref().map(|bearer| bearer.principal.clone()))
        .map_err(|full| {
            let detail = format!("quota {}: at most {}", full.quota, full.most);
            Problem::new(Code::QuotaExceeded, detail).retry_after(RETRY_AFTER_S)
        })?;
    Ok(bearer)
}

/// Somebody is turned away.
struct Away {
    /// How the record calls them, if they have shown a credential that is good.
    who: Option<String>,
    problem: Box<Problem>,
}

impl From<Problem> for Away {
    fn from(problem: Problem) -> Self {
        Self { who: None, problem: Box::new(problem) }
    }
}

/// Who the bearer of the request's ticket or token is, as the peer of this endpoint.
async fn identify(
    context: &Context,
    head: &RequestHead,
    site: &str,
    endpoint: Endpoint,
    ticket: Option<&str>,
) -> Result<Option<Bearer>, Away> {
    let headers = &head.headers;
    let denied = |who: Option<String>, detail: &str| {
        let problem = Problem::new(Code::AccessDenied, detail).field("Authorization");
        Err(Away { who, problem: Box::new(problem) })
    };
    if let Some(ticket) = ticket {
        if headers.contains_key(header::AUTHORIZATION) {
            let detail = "either a ticket or a token, not both";
            return Err(Problem::new(Code::Invalid, detail).field("?ticket").into());
        }
        let bearer = authority::redeem(context, site, ticket).await?;
        return match (&bearer.principal, endpoint) {
            (Principal::Client(_), Endpoint::Client) => Ok(Some(bearer)),
            _ => {
                let who = bearer.token.as_ref().map(|id| format!("token:{id}"));
                denied(who, &format!("the ticket is not that of a {}", endpoint.as_str()))
            }
        };
    }
    let Some(text) = bearer(headers)? else {
        return match endpoint {
            Endpoint::Service => Err(Problem::new(
                Code::BadCredentials,
                "a service needs its token: `Authorization: Bearer <token>`",
            )
            .field("Authorization")
            .into()),
            Endpoint::Client => Ok(guest(context, site).await.map(|()| None)?),
        };
    };
    if authority::is_node_admin(context, text) {
        let detail = "the node's administration token is neither a service nor a client";
        return denied(Some(NODE_ADMIN.to_owned()), detail);
    }
    let bearer = identity::identify(context, site, text).await?;
    match (&bearer.principal, endpoint) {
        (Principal::Service(_), Endpoint::Service) | (Principal::Client(_), Endpoint::Client) => {}
        (Principal::Admin | Principal::Operator | Principal::Observer, _)
        | (Principal::Service(_), Endpoint::Client)
        | (Principal::Client(_), Endpoint::Service) => {
            let detail = format!("the token is not that of a {}", endpoint.as_str());
            return denied(Some(bearer.who(text)), &detail);
        }
    }
    Ok(Some(bearer))
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    authority::bearer(headers)
}

/// Whether a client without a token is let in. An unknown site and one that is closed to guests
/// are told apart by nobody. Nobody is turned away by a node that only lags behind.
async fn guest(context: &Context, site: &str) -> Result<(), Problem> {
    if admits_guests(context, site).is_ok() {
        return Ok(());
    }
    context.broker.confirm(site).await.map_err(|code| {
        let detail = "the site admits nobody as known here, and no other node can be asked now";
        Problem::new(code, detail).retry_after(RETRY_AFTER_S)
    })?;
    match admits_guests(context, site) {
        Ok(()) => Ok(()),
        Err(Code::SiteBlank) => {
            let problem = Problem::new(Code::SiteBlank, "the site has no structure yet");
            Err(problem.retry_after(RETRY_AFTER_S))
        }
        Err(code) => {
            let problem = Problem::new(code, "clients without a token are not admitted here");
            Err(problem.field("Authorization"))
        }
    }
}

/// What the site says, as applied on this node.
fn admits_guests(context: &Context, site: &str) -> Result<(), Code> {
    let admits = |site: &Site, _| match site.admits(&Receiver::Stateless) {
        Ok(()) => Ok(()),
        Err(Refusal::SiteBlank) => Err(Code::SiteBlank),
        Err(_) => Err(Code::AccessDenied),
    };
    context.broker.read_site(site, admits).unwrap_or(Err(Code::AccessDenied))
}

/// The first subprotocol offered that is one of ours.
pub fn subprotocol(headers: &HeaderMap) -> Result<Codec, Problem> {
    let offered = || {
        headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
    };
    offered().find_map(Codec::from_subprotocol).ok_or_else(|| {
        let (json, cbor) = (Codec::Json.subprotocol(), Codec::Cbor.subprotocol());
        let given: Vec<&str> = offered().take(8).collect();
        let given = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
        let detail = format!("offer one of {json}, {cbor}; offered: {given}");
        Problem::new(Code::Invalid, detail).field("Sec-WebSocket-Protocol")
    })
}

fn handshake_problem(error: &HandshakeError) -> Problem {
    let (field, detail) = match error {
        HandshakeError::GetMethodRequired => ("method", "a WebSocket is opened by GET"),
        HandshakeError::NoWebsocketUpgrade => ("Upgrade", "must be `websocket`"),
        HandshakeError::NoConnectionUpgrade => ("Connection", "must be `upgrade`"),
        HandshakeError::NoVersionHeader | HandshakeError::UnsupportedVersion => {
            ("Sec-WebSocket-Version", "must be 13")
        }
        HandshakeError::BadWebsocketKey => ("Sec-WebSocket-Key", "missing or malformed"),
    };
    Problem::new(Code::Invalid, detail).field(field)
}

/// The node takes no more sessions. As a connection that does not come about, that is `busy`.
fn full(code: Code) -> Problem {
    let code = if code == Code::LimitReached { Code::Busy } else { code };
    Problem::new(code, "this node takes no more sessions").retry_after(RETRY_AFTER_S)
}
