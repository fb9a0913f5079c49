//! JWTs of a configured issuer over real sockets: what they open, what they do not, and when
//! that ends. How a single token is judged is tested beside the code.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ackord_agents::BrokerOptions;
use ackord_gateway::{GatewayOptions, Issuer, IssuerOptions, KeyFile, Listener};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use support::{Running, structure};

/// A key of the issuer.
struct Key {
    kid: &'static str,
    private: EncodingKey,
    public: Value,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let public = json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
        Self { kid, private: EncodingKey::from_ed_der(pkcs8.as_ref()), public }
    }

    /// A token of this role on these sites that ends then.
    fn token(&self, role: &str, sites: Value, exp: u64) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({
            "iss": "https://issuer.example", "aud": "ackord", "sub": "someone", "exp": exp,
            "ackord_site": sites, "ackord_role": role,
        });
        encode(&header, &claims, &self.private).unwrap()
    }
}

fn publish(file: &Path, keys: &[&Key]) {
    let keys: Vec<&Value> = keys.iter().map(|key| &key.public).collect();
    std::fs::write(file, json!({"keys": keys}).to_string()).unwrap();
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A node that believes the issuer whose keys are in this file.
async fn start(keys: &Path) -> Running {
    let issuer = Issuer::load(IssuerOptions {
        issuer: "https://issuer.example".to_owned(),
        audience: vec!["ackord".to_owned()],
        algorithms: vec!["EdDSA".to_owned()],
        keys: KeyFile::Jwks(keys.to_owned()),
        site_claim: "ackord_site".to_owned(),
        role_claim: "ackord_role".to_owned(),
        leeway_s: 0,
    });
    let front = GatewayOptions {
        listeners: vec![Listener::plain(TcpListener::bind("127.0.0.1:0").unwrap())],
        issuers: vec![Arc::new(issuer.unwrap())],
        watch_interval: Duration::from_millis(50),
        ..GatewayOptions::default()
    };
    Running::start_front(BrokerOptions::default(), front).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_opens_what_it_opens_on_the_sites_of_the_token_and_nothing_else() {
    let (dir, key) = (tempfile::tempdir().unwrap(), Key::new("1"));
    let file = dir.path().join("jwks.json");
    publish(&file, &[&key]);
    let node = start(&file).await;
    node.demo().await;
    node.admin("PUT", "/v1/sites/other", None).await.is(201);
    let later = now_s() + 600;
    let token = |role: &str| key.token(role, json!(["demo", "ghost"]), later);
    let (admin, observer) = (token("admin"), token("observer"));
    let (service, client) = (token("service:s"), token("client:c"));
    let get = async |token: &str, path: &str| node.call(Some(token), "GET", path, None).await;

    get(&admin, "/v1/sites/demo").await.is(200);
    let put = Some(structure());
    node.call(Some(&admin), "PUT", "/v1/sites/demo/structure", put).await.is(200);
    get(&observer, "/v1/sites/demo/tokens").await.is(200);
    let put = Some(structure());
    let refused = node.call(Some(&observer), "PUT", "/v1/sites/demo/structure", put).await;
    refused.is_problem(403, "access-denied", Some("Authorization"));
    let events = "/v1/sites/demo/events/reading";
    node.call(Some(&service), "POST", events, Some(json!(1))).await.is(200);
    let refused = node.call(Some(&client), "POST", events, Some(json!(1))).await;
    refused.is_problem(403, "access-denied", Some("Authorization"));
    get(&client, "/v1/sites/demo/clients/c").await.is(200);

    // Not another site, not the node, and no site that its issuer has made up.
    for path in ["/v1/sites/other", "/v1/sites", "/v1/cluster", "/v1/sites/ghost"] {
        let refused = get(&admin, path).await;
        refused.is_problem(401, "bad-credentials", Some("Authorization"));
    }
    let refused = node.call(Some(&admin), "PUT", "/v1/sites/ghost", Some(json!({}))).await;
    refused.is_problem(401, "bad-credentials", Some("Authorization"));
    node.admin("GET", "/v1/sites/ghost", None).await.is_problem(404, "not-found", None);

    let over = key.token("admin", json!("demo"), now_s() - 1);
    let refused = get(&over, "/v1/sites/demo").await;
    refused.is_problem(401, "credentials-expired", Some("Authorization"));
    let forged = Key::new("1").token("admin", json!("demo"), later);
    let refused = get(&forged, "/v1/sites/demo").await;
    refused.is_problem(401, "bad-credentials", Some("Authorization"));

    // Sessions: its own kind of endpoint, its own account.
    let (to_client, to_service) = ("/v1/sites/demo/client", "/v1/sites/demo/service");
    let mut socket = node.socket(to_service, Some(&service), "ackord.v1.json").await.unwrap();
    socket.hello_service().await;
    let refused = node.socket(to_client, Some(&service), "ackord.v1.json").await;
    refused.err().unwrap().is_problem(403, "access-denied", Some("Authorization"));
    let refused = node.socket(to_client, Some(&over), "ackord.v1.json").await;
    refused.err().unwrap().is_problem(401, "credentials-expired", Some("Authorization"));
    let stranger = key.token("client:nobody", json!("demo"), later);
    let mut socket = node.socket(to_client, Some(&stranger), "ackord.v1.json").await.unwrap();
    socket.say(json!({"hello": {}})).await;
    let (closing, number) = socket.end().await;
    assert_eq!((closing["code"].as_str(), number), (Some("not-registered"), Some(4502)));
    // Whom nobody has registered reads nothing either.
    get(&client, "/v1/sites/demo/structure").await.is(200);
    for role in ["client:nobody", "service:nobody"] {
        let stranger = key.token(role, json!("demo"), later);
        for path in ["/v1/sites/demo/structure", "/v1/sites/demo/clients/nobody"] {
            let refused = get(&stranger, path).await;
            refused.is_problem(403, "access-denied", Some("Authorization"));
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token_and_says_that_another_one_is_welcome() {
    let (dir, key) = (tempfile::tempdir().unwrap(), Key::new("1"));
    let file = dir.path().join("jwks.json");
    publish(&file, &[&key]);
    let node = start(&file).await;
    node.demo().await;
    let path = "/v1/sites/demo/client";
    let (short, long) = (now_s() + 2, now_s() + 600);
    let short = key.token("client:c", json!("demo"), short);
    let long = key.token("client:c", json!("demo"), long);
    let mut socket = node.socket(path, Some(&short), "ackord.v1.json").await.unwrap();
    socket.say(json!({"hello": {}})).await;
    socket.hear_of("welcome").await;
    let begun = tokio::time::Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(20), socket.end()).await;
    let (closing, number) = ended.expect("the session outlived its token");
    assert_eq!(closing["code"], "credentials-expired", "{closing}");
    assert_eq!((closing["reconnect"].as_bool(), number), (Some(true), Some(4413)));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    let mut socket = node.socket(path, Some(&long), "ackord.v1.json").await.unwrap();
    socket.say(json!({"hello": {}})).await;
    socket.hear_of("welcome").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_of_its_request_and_of_its_ticket() {
    let (dir, key) = (tempfile::tempdir().unwrap(), Key::new("1"));
    let file = dir.path().join("jwks.json");
    publish(&file, &[&key]);
    let node = start(&file).await;
    node.demo().await;
    node.admin("PUT", "/v1/sites/demo/clients/d", None).await.is(201);
    let end = now_s() + 3;
    let of = |client: &str| key.token(&format!("client:{client}"), json!("demo"), end);
    let (c, d) = (of("c"), of("d"));
    let mut direct = node.stream(Some(&c), "event=reading").await.unwrap();
    let drawn = node.call(Some(&d), "POST", "/v1/sites/demo/tickets", Some(json!({}))).await;
    let ticket = drawn.is(201)["ticket"].as_str().unwrap().to_owned();
    let query = format!("event=reading&ticket={ticket}");
    let mut by_ticket = node.stream(None, &query).await.unwrap();
    for stream in [&mut direct, &mut by_ticket] {
        let closing = stream.end().await.data;
        assert_eq!(closing["code"], "credentials-expired", "{closing}");
        assert!(now_s() + 1 >= end, "it ended before its time");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_handed_out_or_acknowledged_once_the_token_is_over() {
    let (dir, key) = (tempfile::tempdir().unwrap(), Key::new("1"));
    let file = dir.path().join("jwks.json");
    publish(&file, &[&key]);
    let node = start(&file).await;
    let demo = node.demo().await;
    let end = now_s() + 3;
    let token = key.token("client:c", json!("demo"), end);
    node.raise(&demo, "reading", 1).await;
    let handed = node.poll(Some(&token), "event=reading").await.is(200);
    // A question waits no longer than the token lasts.
    node.admin("PUT", "/v1/sites/demo/clients/d", None).await.is(201);
    let other = key.token("client:d", json!("demo"), end);
    let waited = node.poll(Some(&other), "event=state&wait=50").await;
    assert_eq!((waited.status, now_s() >= end), (204, true), "{waited:?}");
    assert!(now_s() < end + 20);
    let late = node.ack(handed["ack"].as_str().unwrap()).await;
    late.is_problem(401, "credentials-expired", Some("token"));
    let late = node.poll(Some(&token), "").await;
    late.is_problem(401, "credentials-expired", Some("Authorization"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Key::new("1"), Key::new("2"));
    let file = dir.path().join("jwks.json");
    publish(&file, &[&first]);
    let node = start(&file).await;
    node.demo().await;
    let later = now_s() + 600;
    let (by_first, by_second) = (
        first.token("observer", json!("demo"), later),
        second.token("observer", json!("demo"), later),
    );
    let status =
        async |token: &str| node.call(Some(token), "GET", "/v1/sites/demo", None).await.status;
    assert_eq!((status(&by_first).await, status(&by_second).await), (200, 401));

    // What is no key set changes nothing.
    std::fs::write(&file, "{}").unwrap();
    let control = node.gateway.as_ref().unwrap().control().clone();
    tokio::task::spawn_blocking(move || control.refresh_files()).await.unwrap();
    assert_eq!((status(&by_first).await, status(&by_second).await), (200, 401));

    publish(&file, &[&second]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    while status(&by_second).await != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the new key is not in use");
        poll.tick().await;
    }
    assert_eq!(status(&by_first).await, 401);
    node.stop().await;
}
