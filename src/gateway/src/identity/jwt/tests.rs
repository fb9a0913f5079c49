//! Every way in which a JWT can be wrong, and the few in which it is right.

#![allow(clippy::unwrap_used)]

use ackord_machine::site::Principal;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::super::issuer::{Issuer, IssuerOptions, KeyFile};
use super::{Denied, TOKEN_BYTES_MAX, Verified, verify};

/// The time of these tests, seconds.
const NOW: u64 = 1_900_000_000;
/// What PKCS#8 puts before the PKCS#1 of a 2048-bit RSA key.
const PKCS8_RSA_HEAD: usize = 26;

/// A key with which tokens are signed, and what its issuer publishes of it.
struct Key {
    kid: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl Key {
    fn ed(kid: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let public = json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
        let private = EncodingKey::from_ed_der(pkcs8.as_ref());
        Self { kid, algorithm: Algorithm::EdDSA, private, public }
    }

    fn ec(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::of(kid, Algorithm::ES256, EncodingKey::from_ec_der(pkcs8.as_ref()))
    }

    fn rsa(kid: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der>::as_der(&pair).unwrap();
        let private = EncodingKey::from_rsa_der(&pkcs8.as_ref()[PKCS8_RSA_HEAD..]);
        Self::of(kid, Algorithm::RS256, private)
    }

    fn of(kid: &'static str, algorithm: Algorithm, private: EncodingKey) -> Self {
        let mut public =
            serde_json::to_value(Jwk::from_encoding_key(&private, algorithm).unwrap()).unwrap();
        public["kid"] = json!(kid);
        Self { kid, algorithm, private, public }
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) }
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&self.header(), claims, &self.private).unwrap()
    }
}

/// An issuer that publishes these keys.
fn issuer(keys: &[&Key], algorithms: &[&str]) -> Issuer {
    let set = json!({"keys": keys.iter().map(|key| &key.public).collect::<Vec<_>>()});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), set.to_string()).unwrap();
    Issuer::load(options(KeyFile::Jwks(file.path().to_owned()), algorithms)).unwrap()
}

fn options(keys: KeyFile, algorithms: &[&str]) -> IssuerOptions {
    IssuerOptions {
        issuer: "https://issuer.example".to_owned(),
        audience: vec!["ackord".to_owned(), "other".to_owned()],
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        keys,
        site_claim: "ackord_site".to_owned(),
        role_claim: "ackord_role".to_owned(),
        leeway_s: 30,
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "ackord", "sub": "someone", "exp": NOW + 60,
        "ackord_site": "plant", "ackord_role": "service:boiler",
    })
}

/// The claims with another value, or without it.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn judge(token: &str, issuer: &Issuer) -> Result<Verified, Denied> {
    verify(token, [issuer].into_iter(), "plant", NOW * 1000)
}

/// The parts of a token, with another header or payload and the signature as it was.
fn tampered(token: &str, header: Option<Value>, payload: Option<Value>) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let part = |value: Option<Value>, old: &str| {
        value.map_or(old.to_owned(), |value| URL_SAFE_NO_PAD.encode(value.to_string()))
    };
    format!("{}.{}.{}", part(header, parts[0]), part(payload, parts[1]), parts[2])
}

#[test]
fn each_kind_of_signature_that_is_allowed_is_believed() {
    let keys = [Key::ed("ed"), Key::ec("ec"), Key::rsa("rsa")];
    let all: Vec<&Key> = keys.iter().collect();
    let issuer = issuer(&all, &["EdDSA", "ES256", "RS256"]);
    for key in &keys {
        let verified = judge(&key.sign(&claims()), &issuer).unwrap();
        assert_eq!(verified.principal, Principal::Service("boiler".into()));
        assert_eq!(verified.expires_ms, (NOW + 60 + 30) * 1000);
    }
}

#[test]
fn a_token_that_signs_itself_in_another_way_is_denied() {
    let (ed, rsa) = (Key::ed("ed"), Key::rsa("rsa"));
    let issuer = issuer(&[&ed, &rsa], &["EdDSA", "RS256"]);
    let good = ed.sign(&claims());
    judge(&good, &issuer).unwrap();

    // No algorithm at all, with and without a signature.
    for name in ["none", "None", "NONE", ""] {
        let header = json!({"alg": name, "typ": "JWT", "kid": "ed"});
        let none = tampered(&good, Some(header), None);
        assert_eq!(judge(&none, &issuer), Err(Denied::Malformed), "{name}");
        let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
        assert_eq!(judge(&unsigned, &issuer), Err(Denied::Malformed), "{name}");
    }
    // The public key as a shared secret, in each of its spellings.
    let set = rsa.public.to_string();
    let modulus = URL_SAFE_NO_PAD.decode(rsa.public["n"].as_str().unwrap()).unwrap();
    for secret in [set.as_bytes(), &modulus, rsa.public["n"].as_str().unwrap().as_bytes()] {
        let header = Header { kid: Some("rsa".to_owned()), ..Header::new(Algorithm::HS256) };
        let forged = encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(judge(&forged, &issuer), Err(Denied::Algorithm));
    }
    // An algorithm of the same family that the issuer does not use, and one of another key.
    let header = Header { alg: Algorithm::RS384, ..rsa.header() };
    let other = encode(&header, &claims(), &rsa.private).unwrap();
    assert_eq!(judge(&other, &issuer), Err(Denied::Algorithm));
    let header = Header { kid: Some("rsa".to_owned()), ..ed.header() };
    let crossed = encode(&header, &claims(), &ed.private).unwrap();
    assert_eq!(judge(&crossed, &issuer), Err(Denied::Key));
}

#[test]
fn a_key_that_is_not_the_issuers_is_denied_whatever_the_token_brings_along() {
    let (ours, theirs) = (Key::ed("ed"), Key::ed("ed"));
    let issuer = issuer(&[&ours], &["EdDSA"]);
    assert_eq!(judge(&theirs.sign(&claims()), &issuer), Err(Denied::Signature));

    let unnamed = Header { kid: None, ..ours.header() };
    let token = encode(&unnamed, &claims(), &ours.private).unwrap();
    assert_eq!(judge(&token, &issuer), Err(Denied::Key));
    let unknown = Header { kid: Some("new".to_owned()), ..ours.header() };
    let token = encode(&unknown, &claims(), &ours.private).unwrap();
    assert_eq!(judge(&token, &issuer), Err(Denied::Key));
    // Its own key in the header counts for nothing.
    let jwk = serde_json::from_value(theirs.public.clone()).unwrap();
    let brought = Header { jwk: Some(jwk), ..theirs.header() };
    let token = encode(&brought, &claims(), &theirs.private).unwrap();
    assert_eq!(judge(&token, &issuer), Err(Denied::Signature));
    // What it calls critical is not passed over.
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..ours.header() };
    if let Ok(token) = encode(&critical, &claims(), &ours.private) {
        assert!(judge(&token, &issuer).is_err());
    }
    let good = ours.sign(&claims());
    let raised = tampered(&good, None, Some(with("ackord_role", json!("admin"))));
    assert_eq!(judge(&raised, &issuer), Err(Denied::Signature));
}

#[test]
fn every_claim_that_counts_is_required_and_has_its_type() {
    let key = Key::ed("ed");
    let issuer = issuer(&[&key], &["EdDSA"]);
    let check = |name: &str, value: Value, expected: Denied| {
        let judged = judge(&key.sign(&with(name, value.clone())), &issuer).unwrap_err();
        // What is no number and no text at all does not get as far as a claim.
        let shapeless = value.is_array() || value.is_object() || value.is_boolean();
        let malformed = shapeless && judged == Denied::Malformed;
        assert!(judged == expected || malformed, "{name}: {value}: {judged}");
    };
    check("exp", Value::Null, Denied::Claim("exp"));
    check("exp", json!((NOW + 60).to_string()), Denied::Claim("exp"));
    check("exp", json!([NOW + 60]), Denied::Claim("exp"));
    check("exp", json!({}), Denied::Claim("exp"));
    check("exp", json!(true), Denied::Claim("exp"));
    check("exp", json!(-1), Denied::Claim("exp"));
    check("exp", json!(1e300), Denied::Claim("exp"));
    check("exp", json!(u64::MAX), Denied::Claim("exp"));
    check("exp", json!(NOW - 30), Denied::Expired);
    check("exp", json!(0), Denied::Expired);
    check("nbf", json!(NOW + 31), Denied::NotYet);
    check("nbf", json!("soon"), Denied::Claim("nbf"));
    check("iat", json!(NOW + 31), Denied::NotYet);
    check("iss", Value::Null, Denied::Claim("iss"));
    check("iss", json!(["https://issuer.example"]), Denied::Claim("iss"));
    check("iss", json!("https://issuer.example/"), Denied::Issuer);
    check("aud", Value::Null, Denied::Claim("aud"));
    check("aud", json!("ackord2"), Denied::Audience);
    check("aud", json!([]), Denied::Audience);
    check("aud", json!(["a", "b"]), Denied::Audience);
    check("sub", Value::Null, Denied::Claim("sub"));
    check("sub", json!(7), Denied::Claim("sub"));
    check("sub", json!(""), Denied::Claim("sub"));
    check("ackord_site", Value::Null, Denied::Site);
    check("ackord_site", json!("plant2"), Denied::Site);
    check("ackord_site", json!(["a", 7, "plant"]), Denied::Site);
    check("ackord_site", json!([]), Denied::Site);
    check("ackord_site", json!("*"), Denied::Site);
    check("ackord_role", Value::Null, Denied::Role);
    check("ackord_role", json!(["admin"]), Denied::Role);
    for role in ["", "Admin", "root", "service:", "service", "client:", "user:ann", "operators"] {
        check("ackord_role", json!(role), Denied::Role);
    }
    check("ackord_role", json!(format!("client:{}", "x".repeat(65))), Denied::Role);
}

#[test]
fn what_is_within_the_leeway_and_what_is_written_otherwise_is_believed() {
    let key = Key::ed("ed");
    let issuer = issuer(&[&key], &["EdDSA"]);
    let check = |name: &str, value: Value, principal: Principal| {
        let judged = judge(&key.sign(&with(name, value.clone())), &issuer).unwrap();
        assert_eq!(judged.principal, principal, "{name}: {value}");
    };
    let boiler = || Principal::Service("boiler".into());
    check("exp", json!(NOW - 29), boiler());
    check("exp", json!(NOW as f64 + 0.5), boiler());
    check("nbf", json!(NOW + 29), boiler());
    check("aud", json!(["somebody", "other"]), boiler());
    check("ackord_site", json!(["a", "plant"]), boiler());
    check("ackord_role", json!("admin"), Principal::Admin);
    check("ackord_role", json!("operator"), Principal::Operator);
    check("ackord_role", json!("observer"), Principal::Observer);
    check("ackord_role", json!("client:phone:1"), Principal::Client("phone:1".into()));
}

#[test]
fn what_is_no_token_is_malformed_and_never_a_panic() {
    let key = Key::ed("ed");
    let issuer = issuer(&[&key], &["EdDSA"]);
    let good = key.sign(&claims());
    for text in ["", ".", "..", "...", "a.b.c", "ak", "🔑.🔑.🔑", &format!("{good}.x")] {
        assert!(judge(text, &issuer).is_err(), "{text}");
    }
    for length in 0..good.len() {
        assert!(judge(&good[..length], &issuer).is_err(), "{length}");
    }
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(judge(&long, &issuer), Err(Denied::TooLong));
    let nobody = verify(&good, std::iter::empty(), "plant", NOW * 1000);
    assert_eq!(nobody, Err(Denied::Issuer));
}

#[test]
fn a_shared_secret_is_believed_only_where_it_is_configured() {
    let secret = b"thirty-two bytes that both know!";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), secret).unwrap();
    let source = || KeyFile::Secret(file.path().to_owned());
    let issuer = Issuer::load(options(source(), &["HS256"])).unwrap();
    let sign = |secret: &[u8]| {
        let key = EncodingKey::from_secret(secret);
        encode(&Header::new(Algorithm::HS256), &claims(), &key).unwrap()
    };
    judge(&sign(secret), &issuer).unwrap();
    assert_eq!(judge(&sign(b"another secret of thirty-two byte"), &issuer), Err(Denied::Signature));

    let refused = |options: IssuerOptions| Issuer::load(options).unwrap_err().to_string();
    assert!(refused(options(source(), &["EdDSA"])).contains("takes a jwks_file"));
    let jwks = || KeyFile::Jwks(file.path().to_owned());
    assert!(refused(options(jwks(), &["HS256"])).contains("takes a secret_file"));
    assert!(refused(options(jwks(), &["EdDSA"])).contains("no JWK set"));
    assert!(refused(options(jwks(), &["none"])).contains("no algorithm"));
    assert!(refused(options(jwks(), &[])).contains("at least one"));
    std::fs::write(file.path(), "short").unwrap();
    assert!(refused(options(source(), &["HS256"])).contains("at least 32 bytes"));
}

#[test]
fn of_a_set_of_keys_those_count_that_can_verify_and_have_a_name() {
    let key = Key::ed("ed");
    let file = tempfile::NamedTempFile::new().unwrap();
    let load = |keys: Value| {
        std::fs::write(file.path(), json!({"keys": keys}).to_string()).unwrap();
        Issuer::load(options(KeyFile::Jwks(file.path().to_owned()), &["EdDSA"]))
    };
    let others = [
        json!({"kty": "oct", "kid": "ed", "k": "AAAA"}),
        json!({"kty": "of another time", "kid": "x"}),
        json!({"kty": "RSA", "use": "enc", "kid": "e", "n": "AQAB", "e": "AQAB"}),
        json!(7),
    ];
    assert!(load(json!(others)).is_err());
    let mut all = others.to_vec();
    all.push(key.public.clone());
    judge(&key.sign(&claims()), &load(json!(all)).unwrap()).unwrap();
    all.push(key.public.clone());
    assert!(load(json!(all)).unwrap_err().to_string().contains("two keys"));
    let mut encrypts = key.public.clone();
    encrypts["use"] = json!("enc");
    assert!(load(json!([encrypts])).is_err());
    let mut signs = key.public.clone();
    signs["key_ops"] = json!(["sign"]);
    assert!(load(json!([signs])).is_err());
    // One that says what it is for is for nothing else.
    let mut bound = key.public.clone();
    bound["alg"] = json!("ES256");
    assert_eq!(judge(&key.sign(&claims()), &load(json!([bound])).unwrap()), Err(Denied::Key));
}
