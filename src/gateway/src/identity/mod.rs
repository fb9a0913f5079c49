//! Who the bearer of a token is, whatever kind of token it is.
//!
//! `Authorization ─▶ ak_…: the site's own tokens │ else: a JWT of a configured issuer ─▶ Bearer`
//!
//! Invariant: a token is good for one site at a time, and whoever gets no further learns neither
//! whether the site exists nor why, but for one thing: that their JWT was good and is over.

pub mod issuer;
pub mod jwt;
pub mod keys;

use std::time::{SystemTime, UNIX_EPOCH};

use ackord_machine::site::{Principal, TokenId};
use ackord_wire::{Code, Problem};

use crate::context::Context;
use crate::http::authority::unknown;
use jwt::Denied;

/// What the site's own tokens begin with; anything else is a JWT or nothing.
const OWN_PREFIX: &str = "ak_";

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// On the site.
    pub principal: Principal,
    /// The site's own token that proves it; `None` for a JWT.
    pub token: Option<TokenId>,
    /// When that ends, milliseconds of Unix time; `None` for never.
    pub expires_ms: Option<u64>,
}

impl Bearer {
    /// How the record of acts calls whoever has shown this token.
    pub fn who(&self, token: &str) -> String {
        match &self.token {
            Some(id) => format!("token:{id}"),
            None => {
                jwt::claimed(token).map_or_else(|| "jwt".to_owned(), |who| format!("jwt:{who}"))
            }
        }
    }
}

/// Who the bearer of this token is on this site.
pub async fn identify(context: &Context, site: &str, token: &str) -> Result<Bearer, Problem> {
    if token.starts_with(OWN_PREFIX) {
        let principal = context.broker.authenticate(site, token).await.map_err(unknown)?;
        let token = ackord_agents::token::parse(token).map(|(id, _)| id);
        return Ok(Bearer { principal, token, expires_ms: None });
    }
    let live = context.live();
    let issuers = live.issuers.iter().map(AsRef::as_ref);
    let verified = jwt::verify(token, issuers, site, now_ms()).map_err(|denied| {
        tracing::debug!(site, %denied, "a JWT is refused");
        match denied {
            Denied::Expired => Problem::new(Code::CredentialsExpired, "the token has expired")
                .field("Authorization"),
            _ => unknown(Code::BadCredentials),
        }
    })?;
    // Its issuer may name a site that is not there: nobody may make one that way, or learn of it.
    let exists = || context.broker.read_site(site, |_, _| ()).is_some();
    if !exists() {
        context.broker.confirm(site).await.map_err(unknown)?;
        if !exists() {
            return Err(unknown(Code::BadCredentials));
        }
    }
    let jwt::Verified { principal, expires_ms } = verified;
    Ok(Bearer { principal, token: None, expires_ms: Some(expires_ms) })
}

/// Milliseconds of Unix time.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
