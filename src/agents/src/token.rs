//! Tokens: `ak_<id>_<secret>`, the secret being 32 random bytes in unpadded base64url (43
//! characters). The state knows only the SHA-256 of the 32 bytes: they are random, so a fast hash
//! is enough.

use ackord_machine::site::{Digest, TokenId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::Digest as _;
use subtle::ConstantTimeEq as _;

const PREFIX: &str = "ak_";
const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;
/// Longest token worth parsing: prefix, id, separator, secret.
const TOKEN_CHARS_MAX: usize =
    PREFIX.len() + ackord_machine::site::limits::ACCOUNT_CHARS_MAX + 1 + SECRET_CHARS;

/// A token that nobody knows yet.
#[derive(Clone)]
pub struct Minted {
    /// The whole token, to be shown once.
    pub text: String,
    /// What the state keeps.
    pub hash: Digest,
}

/// Draws a new secret for this id.
pub fn mint(id: &TokenId) -> Minted {
    let secret: [u8; SECRET_BYTES] = random();
    Minted { text: format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret)), hash: hash(&secret) }
}

/// The public half and the hash of the secret half; `None` for what is no token.
///
/// ```
/// use ackord_agents::token;
/// let minted = token::mint(&"t1".into());
/// assert_eq!(token::parse(&minted.text), Some(("t1".into(), minted.hash)));
/// assert_eq!(token::parse("ak_t1_short"), None);
/// ```
pub fn parse(text: &str) -> Option<(TokenId, Digest)> {
    if text.len() > TOKEN_CHARS_MAX {
        return None;
    }
    // The secret may itself hold the separator, so it is found by its length.
    let rest = text.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_at_checked(rest.len().checked_sub(SECRET_CHARS)?)?;
    let id = id.strip_suffix('_').filter(|id| !id.is_empty())?;
    let mut bytes = [0; SECRET_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(secret, &mut bytes).ok()?;
    (length == SECRET_BYTES).then(|| (TokenId::from(id), hash(&bytes)))
}

/// Compares two hashes in a time that does not depend on them.
pub fn same(a: &Digest, b: &Digest) -> bool {
    a.0.ct_eq(&b.0).into()
}

fn hash(secret: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(secret).into())
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without the system's random source no identity is safe: better to stop than to go on.
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}
