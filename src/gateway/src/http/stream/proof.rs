//! Ack tokens: what a delivery carries and an acknowledgement gives back.
//!
//! A token names the delivery and proves that the session made it: HMAC-SHA-256 under the session's
//! random id, which the replicated state knows and nobody else is told. So any node can judge it,
//! its bearer needs nothing else, and changing a bit of it makes it worthless.

use ackord_machine::site::{
    ClientId, ClientRow, Epoch, EventKey, Generation, Incarnation, InstanceId, SessionId, SiteName,
    TokenId,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const VERSION: u8 = 1;
/// Bytes of the proof, the first ones of the HMAC.
const PROOF_BYTES: usize = 16;
/// Longest token worth reading: two account names, numbers and the proof.
const TOKEN_CHARS_MAX: usize = 512;

/// What an ack token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckToken {
    pub client: ClientId,
    /// The token that opened the session; with it, what it delivered ends.
    pub credential: Option<TokenId>,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub event: EventKey,
    pub generation: Generation,
    pub instance: InstanceId,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    client: String,
    credential: Option<String>,
    epoch: u64,
    incarnation: u64,
    event: u32,
    generation: u32,
    instance: u64,
}

/// A token that was read, and not judged yet.
#[derive(Debug)]
pub struct Claimed {
    pub token: AckToken,
    signed: Vec<u8>,
    proof: Vec<u8>,
}

impl AckToken {
    /// The text, for a delivery of this session.
    pub fn text(&self, site: &SiteName, session: SessionId) -> String {
        let encoded = Encoded {
            client: self.client.as_str().to_owned(),
            credential: self.credential.as_ref().map(|id| id.as_str().to_owned()),
            epoch: self.epoch.0,
            incarnation: self.incarnation.0,
            event: self.event.0,
            generation: self.generation.0,
            instance: self.instance.0,
        };
        // Texts and numbers into a Vec: neither can fail.
        let mut bytes = postcard::to_extend(&encoded, vec![VERSION]).unwrap_or_default();
        let proof = mac(site, session, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&proof[..PROOF_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text; `None` for what is no token.
    pub fn read(text: &str) -> Option<Claimed> {
        if text.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let mut signed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let proof = signed.split_off(signed.len().checked_sub(PROOF_BYTES)?);
        let (version, rest) = signed.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (encoded, rest): (Encoded, _) = postcard::take_from_bytes(rest).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let token = Self {
            client: encoded.client.as_str().into(),
            credential: encoded.credential.as_deref().map(Into::into),
            epoch: Epoch(encoded.epoch),
            incarnation: Incarnation(encoded.incarnation),
            event: EventKey(encoded.event),
            generation: Generation(encoded.generation),
            instance: InstanceId(encoded.instance),
        };
        Some(Claimed { token, signed, proof })
    }
}

impl Claimed {
    /// Whether one of the client's sessions that are remembered made it. Takes a time that does not
    /// depend on how wrong it is.
    pub fn is_genuine(&self, site: &SiteName, client: &ClientRow) -> bool {
        // What stands for the end of sessions is known to everybody.
        let sessions = client.sessions.iter().filter(|session| **session != SessionId::KICKED);
        sessions.fold(false, |found, session| {
            let mac = mac(site, *session, &self.signed);
            mac.verify_truncated_left(&self.proof).is_ok() | found
        })
    }
}

fn mac(site: &SiteName, session: SessionId, signed: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(&session.0.to_le_bytes()).expect("a key");
    let site = site.as_str().as_bytes();
    mac.update(&(site.len() as u64).to_le_bytes());
    mac.update(site);
    mac.update(signed);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> AckToken {
        AckToken {
            client: "phone-7".into(),
            credential: Some("t1".into()),
            epoch: Epoch(12),
            incarnation: Incarnation(7),
            event: EventKey(2),
            generation: Generation(1),
            instance: InstanceId(1208),
        }
    }

    fn client(sessions: &[u64]) -> ClientRow {
        ClientRow {
            site: "demo".into(),
            id: "phone-7".into(),
            user: None,
            epoch: Epoch(12),
            sessions: sessions.iter().copied().map(SessionId).collect(),
            listed: 0,
            generation_floor: Generation(0),
        }
    }

    #[test]
    fn it_is_genuine_for_its_site_and_session_only() {
        let text = token().text(&"demo".into(), SessionId(5));
        let claimed = AckToken::read(&text).unwrap();
        assert_eq!(claimed.token, token());
        assert!(claimed.is_genuine(&"demo".into(), &client(&[5])));
        assert!(
            claimed.is_genuine(&"demo".into(), &client(&[5, 6])),
            "it was replaced, not forged"
        );
        assert!(!claimed.is_genuine(&"demo".into(), &client(&[6])));
        assert!(!claimed.is_genuine(&"demo".into(), &client(&[])));
        assert!(!claimed.is_genuine(&"other".into(), &client(&[5])));
    }

    #[test]
    fn what_everybody_knows_proves_nothing() {
        // A kick leaves its mark where the sessions are, and nobody's token is made with that.
        let forged = token().text(&"demo".into(), SessionId::KICKED);
        let claimed = AckToken::read(&forged).unwrap();
        assert!(!claimed.is_genuine(&"demo".into(), &client(&[7, SessionId::KICKED.0])));
    }

    #[test]
    fn no_bit_of_it_can_be_changed() {
        let bytes = URL_SAFE_NO_PAD.decode(token().text(&"demo".into(), SessionId(5))).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let genuine = AckToken::read(&URL_SAFE_NO_PAD.encode(other))
                .is_some_and(|claimed| claimed.is_genuine(&"demo".into(), &client(&[5])));
            assert!(!genuine, "bit {bit}");
        }
        for wrong in ["", "AQ", "?", &"A".repeat(511), &"A".repeat(10_000)] {
            assert!(AckToken::read(wrong).is_none(), "{wrong}");
        }
    }
}
