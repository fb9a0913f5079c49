//! Who may open a WebSocket: decided from the head of the request, before anything is upgraded.

use ackord_machine::site::{Principal, Receiver, Refusal, Site, TokenId};
use ackord_wire::{Code, Codec, Problem};
use actix_http::RequestHead;
use actix_http::header::{self, HeaderMap};
use actix_http::ws::{HandshakeError, hash_key, verify_handshake};

use crate::context::Context;
use crate::http::authority;
use crate::http::{RETRY_AFTER_S, method_problem, nothing_here};
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
    if context.stopping.is_cancelled() {
        let problem = Problem::new(Code::ShuttingDown, "the node is shutting down");
        return Err(problem.retry_after(RETRY_AFTER_S));
    }
    origin(context, &head.headers)?;
    let bearer = identify(context, &head.headers, &site, endpoint).await?;
    let codec = subprotocol(&head.headers)?;
    verify_handshake(head).map_err(|error| handshake_problem(&error))?;
    context.broker.accepts().map_err(full)?;
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY);
    let accept = hash_key(key.map(|key| key.as_bytes()).unwrap_or_default());
    let accept = String::from_utf8_lossy(&accept).into_owned();
    let expires_ms = bearer.as_ref().and_then(|bearer| bearer.expires_ms);
    let (principal, token) = bearer.map(|bearer| (bearer.principal, bearer.token)).unzip();
    let token = token.flatten();
    Ok(Admitted { site, endpoint, principal, token, expires_ms, codec, accept })
}

/// Pages of other sites may not use a browser's access to this node.
fn origin(context: &Context, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").map(|(_, authority)| authority);
    if own.is_some() && own == host
        || context.live().origins.iter().any(|allowed| allowed == origin)
    {
        return Ok(());
    }
    Err(Problem::new(Code::AccessDenied, "pages of this origin may not connect").field("Origin"))
}

async fn identify(
    context: &Context,
    headers: &HeaderMap,
    site: &str,
    endpoint: Endpoint,
) -> Result<Option<Bearer>, Problem> {
    let denied = |detail: &str| Problem::new(Code::AccessDenied, detail).field("Authorization");
    let Some(text) = bearer(headers)? else {
        return match endpoint {
            Endpoint::Service => Err(Problem::new(
                Code::BadCredentials,
                "a service needs its token: `Authorization: Bearer <token>`",
            )
            .field("Authorization")),
            Endpoint::Client => guest(context, site).await.map(|()| None),
        };
    };
    if authority::is_node_admin(context, text) {
        return Err(denied("the node's administration token is neither a service nor a client"));
    }
    let bearer = identity::identify(context, site, text).await?;
    match (&bearer.principal, endpoint) {
        (Principal::Service(_), Endpoint::Service) | (Principal::Client(_), Endpoint::Client) => {}
        (Principal::Admin | Principal::Observer, _)
        | (Principal::Service(_), Endpoint::Client)
        | (Principal::Client(_), Endpoint::Service) => {
            let detail = format!("the token is not that of a {}", endpoint.as_str());
            return Err(denied(&detail));
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
fn subprotocol(headers: &HeaderMap) -> Result<Codec, Problem> {
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
