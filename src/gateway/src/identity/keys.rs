//! The keys of an issuer, from a JWK set or a shared secret.
//!
//! Keys that are not for signatures, of a kind that is not known or without a name are passed over:
//! a set may hold them for others (RFC 7517, section 5).

use ackord_tls::{Error, Reloading};
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::issuer::KeyFile;

/// Keys of one issuer.
const KEYS_MAX: usize = 64;
/// The shortest secret that signatures can rest on, bytes (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// The keys of an issuer.
pub enum Keys {
    /// By their names.
    Public(Vec<Named>),
    /// The one that both know.
    Shared(DecodingKey),
}

/// A public key.
pub struct Named {
    kid: String,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// The key for a token of this header; `None` when there is none.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        match self {
            Self::Shared(key) => Some(key),
            Self::Public(keys) => {
                let kid = kid?;
                let fits = |named: &&Named| {
                    named.kid == kid
                        && named.key.family() == algorithm.family()
                        && named.algorithm.is_none_or(|only| only == algorithm)
                };
                keys.iter().find(fits).map(|named| &named.key)
            }
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Public(keys) => write!(f, "{} public keys", keys.len()),
            Self::Shared(_) => f.write_str("a secret"),
        }
    }
}

/// Reads the keys, and again whenever they are looked at and have changed.
pub fn load(file: KeyFile) -> Result<Reloading<Keys>, Error> {
    match file {
        KeyFile::Jwks(path) => {
            let shown = path.display().to_string();
            Reloading::load(vec![path], move |files| {
                public(&files[0]).map_err(|error| Error::new(format!("{shown}: {error}")))
            })
        }
        KeyFile::Secret(path) => {
            let shown = path.display().to_string();
            Reloading::load(vec![path], move |files| {
                shared(&files[0]).map_err(|error| Error::new(format!("{shown}: {error}")))
            })
        }
    }
}

fn shared(secret: &[u8]) -> Result<Keys, Error> {
    let secret = secret.trim_ascii_end();
    if secret.len() < SECRET_BYTES_MIN {
        return Err(Error::new(format!("a secret has at least {SECRET_BYTES_MIN} bytes")));
    }
    Ok(Keys::Shared(DecodingKey::from_secret(secret)))
}

/// The usable keys of a JWK set.
pub fn public(json: &[u8]) -> Result<Keys, Error> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let Set { keys } =
        serde_json::from_slice(json).map_err(|error| Error::new(format!("no JWK set: {error}")))?;
    if keys.len() > KEYS_MAX {
        return Err(Error::new(format!("at most {KEYS_MAX} keys, was {}", keys.len())));
    }
    let keys: Vec<Named> = keys.into_iter().filter_map(named).collect();
    for (at, key) in keys.iter().enumerate() {
        let twin = |other: &Named| other.kid == key.kid && other.key.family() == key.key.family();
        if keys[..at].iter().any(twin) {
            return Err(Error::new(format!("two keys are named {:?}", key.kid)));
        }
    }
    if keys.is_empty() {
        return Err(Error::new("no key in it that has a `kid` and can verify signatures"));
    }
    Ok(Keys::Public(keys))
}

fn named(key: serde_json::Value) -> Option<Named> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|kind| *kind != PublicKeyUse::Signature) {
        return None;
    }
    let verifies = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    if !common.key_operations.as_ref().is_none_or(verifies) {
        return None;
    }
    let kid = common.key_id.clone().filter(|kid| !kid.is_empty())?;
    let algorithm = match common.key_algorithm {
        None => None,
        // One that says what it is for is for nothing else.
        Some(named) => Some(named.to_string().parse().ok()?),
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    // A secret has no place in a set of public keys.
    (key.family() != jsonwebtoken::AlgorithmFamily::Hmac).then_some(Named { kid, algorithm, key })
}
