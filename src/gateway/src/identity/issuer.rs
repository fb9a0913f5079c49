//! Whose JWTs are believed, and what of them.

use std::path::PathBuf;
use std::str::FromStr;

use ackord_tls::{Refreshed, Reloading};
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::keys::{self, Keys};
use crate::options::Error;

/// The most seconds by which the clocks of an issuer and a node may differ.
pub const LEEWAY_S_MAX: u64 = 300;
/// That difference where nothing is said, seconds.
pub const LEEWAY_S_DEFAULT: u64 = 30;
/// The claim that names the sites.
pub const SITE_CLAIM_DEFAULT: &str = "ackord_site";
/// The claim that names the role.
pub const ROLE_CLAIM_DEFAULT: &str = "ackord_role";

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// A JWK set with public keys.
    Jwks(PathBuf),
    /// A secret that issuer and node share, for `HS*` only.
    Secret(PathBuf),
}

/// What is configured about an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerOptions {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` must name one of these.
    pub audience: Vec<String>,
    /// Their signatures, as JWA names them; nothing else is accepted, whatever a token says.
    pub algorithms: Vec<String>,
    /// Its keys.
    pub keys: KeyFile,
    /// The claim that names the site, or a list of sites.
    pub site_claim: String,
    /// The claim that names the role.
    pub role_claim: String,
    /// By how much its clock may differ, seconds.
    pub leeway_s: u64,
}

/// An issuer with its keys.
#[derive(Debug)]
pub struct Issuer {
    pub(crate) issuer: String,
    pub(crate) audience: Vec<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) keys: Reloading<Keys>,
    pub(crate) site_claim: String,
    pub(crate) role_claim: String,
    pub(crate) leeway_ms: u64,
}

impl Issuer {
    /// Judges the options and reads the keys.
    ///
    /// # Errors
    /// When an option makes no sense or the keys cannot be used.
    pub fn load(options: IssuerOptions) -> Result<Self, Error> {
        let IssuerOptions { issuer, audience, algorithms, keys, site_claim, role_claim, leeway_s } =
            options;
        let wrong = |what: String| Error::Issuer(format!("{issuer}: {what}"));
        if issuer.is_empty() {
            return Err(wrong("issuer must not be empty".to_owned()));
        }
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            return Err(wrong("audience must name at least one".to_owned()));
        }
        if site_claim.is_empty() || role_claim.is_empty() {
            return Err(wrong("site_claim and role_claim must not be empty".to_owned()));
        }
        if leeway_s > LEEWAY_S_MAX {
            return Err(wrong(format!("leeway_s must be 0..={LEEWAY_S_MAX}, was {leeway_s}")));
        }
        if algorithms.is_empty() {
            return Err(wrong("algorithms must name at least one".to_owned()));
        }
        let parse = |name: &String| {
            Algorithm::from_str(name).map_err(|_| wrong(format!("{name:?} is no algorithm here")))
        };
        let algorithms = algorithms.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        for algorithm in &algorithms {
            let shared = algorithm.family() == AlgorithmFamily::Hmac;
            match (&keys, shared) {
                (KeyFile::Jwks(_), false) | (KeyFile::Secret(_), true) => {}
                (KeyFile::Jwks(_), true) => {
                    return Err(wrong(format!("{algorithm:?} takes a secret_file")));
                }
                (KeyFile::Secret(_), false) => {
                    return Err(wrong(format!("{algorithm:?} takes a jwks_file")));
                }
            }
        }
        let keys = keys::load(keys).map_err(|error| wrong(error.to_string()))?;
        let leeway_ms = leeway_s * 1000;
        Ok(Self { issuer, audience, algorithms, keys, site_claim, role_claim, leeway_ms })
    }

    /// Looks at its keys again.
    pub(crate) fn refresh(&self) -> Refreshed {
        self.keys.refresh()
    }
}
