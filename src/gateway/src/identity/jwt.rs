//! Whether a JWT says who somebody is: a pure function over the token, the issuers, the site and
//! the time (RFC 7519, with RFC 8725's advice).
//!
//! Invariants: what a token says about its own verification only ever narrows what the issuer's
//! options say; no claim is looked at, but for the issuer's name, before the signature is known to
//! be right; `exp`, `iss`, `aud` and `sub` are required and have the right types.

use ackord_machine::site::Principal;
use ackord_machine::site::limits::ACCOUNT_CHARS_MAX;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::issuer::Issuer;

/// Longest token that is looked at, bytes.
pub const TOKEN_BYTES_MAX: usize = 8192;
/// The largest time that is one, seconds: what is above would be no end at all.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who its bearer is on the site.
    pub principal: Principal,
    /// When that ends, milliseconds of Unix time.
    pub expires_ms: u64,
}

/// Why a token is not believed. For logs: its bearer is told less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is too long to be looked at.
    #[error("longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It is no JWT.
    #[error("malformed")]
    Malformed,
    /// Nobody who is configured has issued it.
    #[error("unknown issuer")]
    Issuer,
    /// Its signature is of a kind that its issuer does not make, or needs what is not known here.
    #[error("algorithm not allowed")]
    Algorithm,
    /// Its key is not one of its issuer's.
    #[error("unknown key")]
    Key,
    /// It was not signed by that key.
    #[error("wrong signature")]
    Signature,
    /// It is over.
    #[error("expired")]
    Expired,
    /// It has not begun.
    #[error("not valid yet")]
    NotYet,
    /// A claim is missing or of the wrong type.
    #[error("claim {0} is missing or of the wrong type")]
    Claim(&'static str),
    /// It is for somebody else.
    #[error("another audience")]
    Audience,
    /// It is for another site.
    #[error("another site")]
    Site,
    /// Its role is not one.
    #[error("unknown role")]
    Role,
}

/// Who the bearer of this token is on this site.
///
/// # Errors
/// Why that cannot be said.
pub fn verify<'i>(
    token: &str,
    mut issuers: impl Iterator<Item = &'i Issuer>,
    site: &str,
    now_ms: u64,
) -> Result<Verified, Denied> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Denied::TooLong);
    }
    let header = decode_header(token).map_err(|_| Denied::Malformed)?;
    // Only to know whose key to try; it counts once the signature is right.
    let claimed: Map<String, Value> =
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| Denied::Malformed)?;
    let name = text(&claimed, "iss")?;
    let issuer = issuers.find(|issuer| issuer.issuer == name).ok_or(Denied::Issuer)?;
    // What a token calls critical and is not known here must not be passed over.
    if !issuer.algorithms.contains(&header.alg) || header.crit.is_some() {
        return Err(Denied::Algorithm);
    }
    let keys = issuer.keys.current();
    let key = keys.find(header.kid.as_deref(), header.alg).ok_or(Denied::Key)?;
    // The library compares with the system's clock; the time here is the caller's.
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&issuer.issuer]);
    validation.set_audience(&issuer.audience);
    let claims: Map<String, Value> = decode(token, key, &validation).map_err(denied)?.claims;
    judge(&claims, issuer, site, now_ms)
}

/// Whom a token that was verified is of, for the record: its issuer and subject.
pub fn claimed(token: &str) -> Option<String> {
    let claims: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    Some(format!("{}#{}", text(&claims, "iss").ok()?, text(&claims, "sub").ok()?))
}

fn denied(error: jsonwebtoken::errors::Error) -> Denied {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => Denied::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => Denied::Algorithm,
        ErrorKind::InvalidIssuer => Denied::Issuer,
        ErrorKind::InvalidAudience => Denied::Audience,
        ErrorKind::MissingRequiredClaim(name) => match name.as_str() {
            "exp" => Denied::Claim("exp"),
            "iss" => Denied::Claim("iss"),
            "aud" => Denied::Claim("aud"),
            _ => Denied::Claim("sub"),
        },
        // The library's own list may grow.
        _ => Denied::Malformed,
    }
}

fn judge(
    claims: &Map<String, Value>,
    issuer: &Issuer,
    site: &str,
    now_ms: u64,
) -> Result<Verified, Denied> {
    // Once more and strictly: the library is lenient with types, and takes a list of issuers.
    if text(claims, "iss")? != issuer.issuer {
        return Err(Denied::Issuer);
    }
    if text(claims, "sub")?.is_empty() {
        return Err(Denied::Claim("sub"));
    }
    let audience = texts(claims, "aud").ok_or(Denied::Claim("aud"))?;
    if !audience.iter().any(|audience| issuer.audience.iter().any(|own| own == audience)) {
        return Err(Denied::Audience);
    }
    let expires_ms = moment(claims, "exp")?.ok_or(Denied::Claim("exp"))?;
    let expires_ms = expires_ms.saturating_add(issuer.leeway_ms);
    if expires_ms <= now_ms {
        return Err(Denied::Expired);
    }
    for name in ["nbf", "iat"] {
        let from_ms = moment(claims, name)?.unwrap_or(0);
        if from_ms > now_ms.saturating_add(issuer.leeway_ms) {
            return Err(Denied::NotYet);
        }
    }
    let sites = texts(claims, &issuer.site_claim).ok_or(Denied::Site)?;
    if !sites.contains(&site) {
        return Err(Denied::Site);
    }
    let role = claims.get(&issuer.role_claim).and_then(Value::as_str).ok_or(Denied::Role)?;
    Ok(Verified { principal: principal(role).ok_or(Denied::Role)?, expires_ms })
}

/// What a role is on a site. Roles that are not known here are nothing.
fn principal(role: &str) -> Option<Principal> {
    let named = |id: &str| {
        let length = id.chars().count();
        (1..=ACCOUNT_CHARS_MAX).contains(&length).then(|| id.to_owned())
    };
    match role.split_once(':') {
        None => match role {
            "admin" => Some(Principal::Admin),
            "operator" => Some(Principal::Operator),
            "observer" => Some(Principal::Observer),
            _ => None,
        },
        Some(("service", id)) => Some(Principal::Service(named(id)?.into())),
        Some(("client", id)) => Some(Principal::Client(named(id)?.into())),
        Some(_) => None,
    }
}

fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<&'c str, Denied> {
    claims.get(name).and_then(Value::as_str).ok_or(Denied::Claim(name))
}

/// A text or a list of texts; `None` for anything else.
fn texts<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<Vec<&'c str>> {
    match claims.get(name)? {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// A `NumericDate` in milliseconds; `None` when it is not there.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Denied> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
    // Within the range of whole milliseconds, so nothing is cut off but a fraction of one.
    seconds.map(|seconds| Some((seconds * 1000.0) as u64)).ok_or(Denied::Claim(name))
}

#[cfg(test)]
mod tests;
