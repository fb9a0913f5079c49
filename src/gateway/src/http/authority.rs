//! Who asks, and what they may: denied unless a rule here says otherwise.
//!
//! A token of another site, a revoked one and a site that does not exist are told apart by nobody
//! but the node's administrator: all are `bad-credentials`.

use ackord_agents::Redeemed;
use ackord_machine::site::audit::NODE_ADMIN;
use ackord_machine::site::{Principal, ServiceId, TokenId};
use ackord_wire::{Code, Problem};
use actix_web::http::header::{self, HeaderMap};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::RETRY_AFTER_S;
use crate::context::Context;
use crate::identity::{self, identify};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The node's administrator: everything, on every site.
    Node,
    /// Somebody of the site that the address names.
    Site(Principal),
}

/// Somebody who has shown a credential that is good here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Who they are.
    pub caller: Caller,
    /// How the record of acts calls them.
    pub who: String,
    /// The token that they have shown: sessions end with it.
    pub token: Option<TokenId>,
    /// When that ends by itself, milliseconds of Unix time.
    pub expires_ms: Option<u64>,
}

/// What an act takes.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// To administer the node.
    Node,
    /// To administer the site.
    Admin,
    /// To keep the site running.
    Operate,
    /// To read everything of the site.
    Read,
    /// To be anybody of the site.
    Member,
    /// To read about this service.
    ReadService(&'a str),
    /// To read about this client.
    ReadClient(&'a str),
}

impl Bearer {
    /// Who the bearer of the request's token is, for an address of this site.
    pub async fn of(context: &Context, headers: &HeaderMap, site: &str) -> Result<Self, Problem> {
        let token = bearer(headers)?.ok_or_else(missing)?;
        if is_node_admin(context, token) {
            return Ok(Self::node());
        }
        let known = identify(context, site, token).await?;
        let who = known.who(token);
        let identity::Bearer { principal, token, expires_ms } = known;
        Ok(Self { caller: Caller::Site(principal), who, token, expires_ms })
    }

    /// Who the bearer is, for an address above the sites.
    pub fn of_node(context: &Context, headers: &HeaderMap) -> Result<Self, Problem> {
        let token = bearer(headers)?.ok_or_else(missing)?;
        if is_node_admin(context, token) {
            return Ok(Self::node());
        }
        Err(unknown(Code::BadCredentials))
    }

    /// The node's administrator.
    pub fn node() -> Self {
        Self { caller: Caller::Node, who: NODE_ADMIN.to_owned(), token: None, expires_ms: None }
    }
}

/// Uses a ticket up: who its bearer is.
pub async fn redeem(
    context: &Context,
    site: &str,
    ticket: &str,
) -> Result<identity::Bearer, Problem> {
    let redeemed = context.broker.redeem_ticket(site, ticket).await.map_err(|code| match code {
        Code::BadCredentials => {
            let detail = "the ticket is unknown here, used, expired or revoked: draw another one";
            Problem::new(code, detail).field("?ticket")
        }
        code => unknown(code),
    })?;
    let Redeemed { principal, token, until_ms } = redeemed;
    Ok(identity::Bearer { principal, token, expires_ms: until_ms })
}

impl Caller {
    /// Whether they may.
    pub fn may(&self, need: Need<'_>) -> Result<(), Problem> {
        let allowed = match (need, self) {
            (_, Self::Node) => true,
            (Need::Node, Self::Site(_)) => false,
            (Need::Member, Self::Site(_)) => true,
            (Need::Admin, Self::Site(principal)) => match principal {
                Principal::Admin => true,
                Principal::Operator
                | Principal::Observer
                | Principal::Service(_)
                | Principal::Client(_) => false,
            },
            (Need::Operate, Self::Site(principal)) => match principal {
                Principal::Admin | Principal::Operator => true,
                Principal::Observer | Principal::Service(_) | Principal::Client(_) => false,
            },
            (
                Need::Read | Need::ReadService(_) | Need::ReadClient(_),
                Self::Site(Principal::Admin | Principal::Operator | Principal::Observer),
            ) => true,
            (Need::ReadService(id), Self::Site(Principal::Service(own))) => own.as_str() == id,
            (Need::ReadClient(id), Self::Site(Principal::Client(own))) => own.as_str() == id,
            (
                Need::Read | Need::ReadService(_) | Need::ReadClient(_),
                Self::Site(Principal::Service(_) | Principal::Client(_)),
            ) => false,
        };
        if allowed { Ok(()) } else { Err(denied(need)) }
    }

    /// The service in whose name they may raise events.
    pub fn service(&self) -> Result<&ServiceId, Problem> {
        match self {
            Self::Site(Principal::Service(id)) => Ok(id),
            Self::Node
            | Self::Site(
                Principal::Admin | Principal::Operator | Principal::Observer | Principal::Client(_),
            ) => Err(Problem::new(
                Code::AccessDenied,
                "only the token of a service may raise events",
            )
            .field("Authorization")),
        }
    }
}

/// The token of the request, if it has one.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let malformed = || {
        Problem::new(Code::BadCredentials, "not of the form `Bearer <token>`")
            .field("Authorization")
    };
    let mut values = headers.get_all(header::AUTHORIZATION);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed());
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(Some(token))
    } else {
        Err(malformed())
    }
}

/// Whether this is the node's administration token; takes a time that does not depend on it.
pub fn is_node_admin(context: &Context, token: &str) -> bool {
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    hash.ct_eq(&context.live().admin_hash).into()
}

fn missing() -> Problem {
    Problem::new(Code::BadCredentials, "a token is needed: `Authorization: Bearer <token>`")
        .field("Authorization")
}

/// The token is not one of this site, whatever the reason, or nobody can tell now.
pub fn unknown(code: Code) -> Problem {
    if code == Code::Unavailable {
        let detail = "the token is not known here, and no other node can be asked now";
        return Problem::new(code, detail).retry_after(RETRY_AFTER_S);
    }
    Problem::new(code, "the token is unknown here or revoked").field("Authorization")
}

fn denied(need: Need<'_>) -> Problem {
    let detail = match need {
        Need::Node => "takes the node's administration token",
        Need::Admin => "takes a token that administers the site",
        Need::Operate => "takes a token that administers or operates the site",
        Need::Read | Need::Member => "takes a token that may read the site",
        Need::ReadService(_) => "takes the service's own token, or one that may read the site",
        Need::ReadClient(_) => "takes the client's own token, or one that may read the site",
    };
    Problem::new(Code::AccessDenied, detail).field("Authorization")
}
