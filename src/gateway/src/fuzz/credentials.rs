//! Whatever is shown as a proof: tokens, ack tokens, positions, JWTs and the keys they are made by.
//!
//! A JWT is sealed here with a key that is known, so that what is behind the signature is reached.

use std::sync::OnceLock;

use ackord_machine::site::{
    EventKey, Generation, Incarnation, InstanceId, SessionId, SiteName, TokenId,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::http::stream::position::Positions;
use crate::http::stream::proof::AckToken;
use crate::identity::issuer::{Issuer, IssuerOptions, KeyFile};
use crate::identity::{jwt, keys};

/// With it JWTs are sealed.
const SECRET: &[u8] = b"a secret that everybody may know, as this is";
/// The time at which JWTs are judged, milliseconds.
const NOW_MS: u64 = 1_900_000_000_000;
/// The header that a sealed JWT has when it says nothing else.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Everything short that is a text: a token of a site or a ticket, an ack token, a position.
pub fn tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((id, _hash)) = ackord_agents::token::parse(text) {
        assert!(!id.as_str().is_empty() && text.contains(id.as_str()));
    }
    if let Some(claimed) = AckToken::read(text) {
        let again = claimed.token.text(&SiteName::from("plant"), SessionId(7));
        let read = AckToken::read(&again).map(|read| read.token);
        assert_eq!(read, Some(claimed.token), "an ack token means the same written again");
    }
    if let Some(positions) = Positions::read(text) {
        let again = positions.text();
        assert_eq!(Positions::read(&again), Some(positions), "and so does a position");
    }
}

/// A JWT, in one of three forms by the first byte: as it is; its claims, to be sealed; its header
/// and its claims in lines, to be sealed. A fourth is a set of keys.
pub fn jwt(data: &[u8]) {
    let [form, data @ ..] = data else { return };
    let token = match form % 4 {
        0 => String::from_utf8_lossy(data).into_owned(),
        1 => sealed(HEADER.as_bytes(), data),
        2 => {
            let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
            sealed(&data[..line], data.get(line + 1..).unwrap_or_default())
        }
        _ => {
            let _keys = keys::public(data);
            return;
        }
    };
    let _for_the_record = jwt::claimed(&token);
    if let Ok(verified) = jwt::verify(&token, [issuer()].into_iter(), "plant", NOW_MS) {
        assert!(form % 4 != 0 || token.split('.').count() == 3);
        assert!(verified.expires_ms > NOW_MS, "nobody is let in who is late");
    }
}

/// The token of this header and these claims.
fn sealed(header: &[u8], claims: &[u8]) -> String {
    let (header, claims) = (URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut token = format!("{header}.{claims}");
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key");
    mac.update(token.as_bytes());
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    token
}

/// Who issues the sealed ones.
fn issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(|| {
        let name = format!("ackord-fuzz-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, SECRET).expect("a temporary file");
        let issuer = Issuer::load(IssuerOptions {
            issuer: "https://issuer.example".to_owned(),
            audience: vec!["ackord".to_owned()],
            algorithms: vec!["HS256".to_owned()],
            keys: KeyFile::Secret(path.clone()),
            site_claim: "ackord_site".to_owned(),
            role_claim: "ackord_role".to_owned(),
            leeway_s: 30,
        });
        std::fs::remove_file(path).expect("it is there");
        issuer.expect("the options are good")
    })
}

/// What the corpora begin with.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let client = "phone-7";
    let own = ackord_agents::token::mint(&TokenId::from("t1")).text;
    let ack = AckToken {
        client: client.into(),
        credential: Some("t1".into()),
        expires_ms: None,
        epoch: ackord_machine::site::Epoch(3),
        incarnation: Incarnation(1),
        event: EventKey(2),
        generation: Generation(1),
        instance: InstanceId(77),
    };
    let mut positions = Positions::new(Incarnation(1));
    for event in 0..3 {
        positions.set(EventKey(event), Generation(1), InstanceId(u64::from(event) * 1000));
    }
    let claims = |role: &str, site: &str, exp: &str| {
        format!(
            r#"{{"iss":"https://issuer.example","aud":["ackord"],"sub":"ann","exp":{exp},"nbf":0,"ackord_site":{site},"ackord_role":"{role}"}}"#
        )
    };
    let good = claims("client:phone-7", r#""plant""#, "1900000060");
    let form = |form: u8, rest: &str| [&[form], rest.as_bytes()].concat();
    let none = format!("{{\"alg\":\"none\"}}\n{good}");
    let critical = format!("{{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}}\n{good}");
    let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    vec![
        ("tokens", "own", own.into_bytes()),
        ("tokens", "own-short", b"ak_t1_short".to_vec()),
        ("tokens", "ack", ack.text(&"plant".into(), SessionId(7)).into_bytes()),
        ("tokens", "position", positions.text().into_bytes()),
        ("tokens", "position-empty", Positions::new(Incarnation(9)).text().into_bytes()),
        ("jwt", "whole", form(0, &sealed(HEADER.as_bytes(), good.as_bytes()))),
        ("jwt", "claims", form(1, &good)),
        ("jwt", "claims-sites", form(1, &claims("admin", r#"["a","plant"]"#, "1900000060.5"))),
        ("jwt", "claims-huge-end", form(1, &claims("observer", r#""plant""#, "1e300"))),
        ("jwt", "header-none", form(2, &none)),
        ("jwt", "header-critical", form(2, &critical)),
        ("jwt", "keys", form(3, set)),
    ]
}
