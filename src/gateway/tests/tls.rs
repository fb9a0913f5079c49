//! TLS of the front over real sockets: what is served, whose certificate is shown, what a slow
//! handshake costs; and what a socket for endpoints does not serve.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ackord_agents::BrokerOptions;
use ackord_gateway::{Face, GatewayOptions, Listener, Tls, TlsFiles, TlsLimits};
use ackord_tls::Refreshed;
use ackord_tls::rustls::pki_types::ServerName;
use ackord_tls::rustls::{ClientConfig, RootCertStore, crypto};
use ackord_tls::tokio_rustls::TlsConnector;
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use support::{ADMIN, Running, structure};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// An authority and the files that a front reads.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a new certificate for loopback that ends in this year; its DER.
    fn write(&self, year: i32) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path("certificate"), certificate.pem()).unwrap();
        std::fs::write(self.path("key"), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    fn tls(&self, limits: TlsLimits) -> Arc<Tls> {
        let files = TlsFiles { certificate: self.path("certificate"), key: self.path("key") };
        Arc::new(Tls::load(files, limits).unwrap())
    }

    /// What a client trusts that trusts this authority alone.
    fn trust(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    fn http(&self) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.issuer.pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .tls_built_in_root_certs(false)
            .add_root_certificate(root)
            .build()
            .unwrap()
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self, at: SocketAddr) -> Vec<u8> {
        let tcp = TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(self.trust()).connect(name, tcp).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

async fn start(tls: Arc<Tls>) -> (Running, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = vec![
        Listener { socket, face: Face::Whole, tls: Some(tls) },
        Listener::plain(TcpListener::bind("127.0.0.1:0").unwrap()),
    ];
    let front = GatewayOptions {
        listeners,
        watch_interval: Duration::from_millis(50),
        ..GatewayOptions::default()
    };
    let mut node = Running::start_front(BrokerOptions::default(), front).await;
    let addresses = node.gateway.as_ref().unwrap().addresses().to_vec();
    // What is only looked at goes the plain way.
    node.base = format!("http://{}", addresses[1]);
    (node, addresses[0])
}

/// The value of a line of the metrics.
async fn metric(node: &Running, line: &str) -> Option<i64> {
    let text = node.call(None, "GET", "/metrics", None).await.text;
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

/// Waits until a line of the metrics has this value.
async fn until(node: &Running, line: &str, value: i64) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    while metric(node, line).await != Some(value) {
        assert!(tokio::time::Instant::now() < deadline, "{line} is not {value}");
        poll.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_shown_to_who_comes_and_what_stands_goes_on() {
    let authority = Authority::new();
    let first = authority.write(2050);
    let (node, at) = start(authority.tls(TlsLimits::default())).await;
    let demo = node.demo().await;
    let https = authority.http();
    let health = format!("https://{at}/healthz/live");
    assert_eq!(https.get(&health).send().await.unwrap().status(), 200);
    assert_eq!(authority.shown(at).await, first);
    const EXPIRY: &str = "ackord_certificate_expiry_seconds{certificate=\"front\"}";
    assert_eq!(metric(&node, EXPIRY).await, Some(2_524_608_000));

    // A client that stays.
    let mut request = format!("wss://{at}/v1/sites/demo/service").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", "ackord.v1.json".parse().unwrap());
    headers.insert("Authorization", format!("Bearer {}", demo.service).parse().unwrap());
    let connector = Some(Connector::Rustls(authority.trust()));
    let (mut socket, _) =
        tokio_tungstenite::connect_async_tls_with_config(request, None, true, connector)
            .await
            .unwrap();
    let store = "00112233445566778899aabbccddeeff";
    let hello = json!({"hello": {"store": store, "structure": structure()}});
    socket.send(Message::text(hello.to_string())).await.unwrap();

    // One that cannot be used changes nothing, and is told once.
    std::fs::write(authority.path("certificate"), "no certificate").unwrap();
    const FAILED: &str = "ackord_file_reloads_total{file=\"tls\",result=\"failed\"}";
    until(&node, FAILED, 1).await;
    assert_eq!(authority.shown(at).await, first);
    let control = node.gateway.as_ref().unwrap().control().clone();
    let looked = tokio::task::spawn_blocking(move || control.refresh_files()).await.unwrap();
    assert!(matches!(looked[0].refreshed, Refreshed::StillBroken(_)), "{looked:?}");

    let second = authority.write(2060);
    until(&node, "ackord_file_reloads_total{file=\"tls\",result=\"loaded\"}", 1).await;
    assert_eq!(authority.shown(at).await, second);
    assert_eq!(https.get(&health).send().await.unwrap().status(), 200);
    assert_eq!(metric(&node, EXPIRY).await, Some(2_840_140_800));

    // Larger than what TLS sends at once, in both directions' order.
    for seq in 1..=3 {
        let args = "x".repeat(2000);
        let raise = json!({"raise": {"seq": seq, "event": "reading", "args": args}});
        socket.send(Message::text(raise.to_string())).await.unwrap();
    }
    let mut accepted = 0;
    while accepted < 3 {
        let message = socket.next().await.unwrap().unwrap();
        accepted += usize::from(message.to_string().contains("\"accepted\""));
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_socket_at_once_arrives_without_another_word() {
    /// Deliveries of 2 KiB each, all in flight: far more than the buffers of both sockets.
    const EVENTS: usize = 64;
    let authority = Authority::new();
    authority.write(2050);
    // Accepted sockets have the buffers of the one that listens.
    let narrow = tokio::net::TcpSocket::new_v4().unwrap();
    narrow.set_send_buffer_size(4096).unwrap();
    narrow.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let socket = narrow.listen(16).unwrap().into_std().unwrap();
    let at = socket.local_addr().unwrap();
    let tls = Some(authority.tls(TlsLimits::default()));
    let plain = Listener::plain(TcpListener::bind("127.0.0.1:0").unwrap());
    let listeners = vec![plain, Listener { socket, face: Face::Whole, tls }];
    let front = GatewayOptions { listeners, ..GatewayOptions::default() };
    let node = Running::start_front(BrokerOptions::default(), front).await;
    let demo = node.demo().await;
    let names: Vec<String> = (0..EVENTS).map(|at| format!("e{at}")).collect();
    let replacing = |name| json!({"name": name, "category": "replacing", "access": "everyone"});
    let mut structure = structure();
    structure["events"] = names.iter().map(replacing).collect();
    node.admin("PUT", "/v1/sites/demo/structure", Some(structure)).await.is(200);
    for name in &names {
        let path = format!("/v1/sites/demo/events/{name}");
        let args = json!("x".repeat(2000));
        node.call(Some(&demo.service), "POST", &path, Some(args)).await.is(200);
    }

    let tcp = tokio::net::TcpSocket::new_v4().unwrap();
    tcp.set_recv_buffer_size(4096).unwrap();
    let tcp = tcp.connect(at).await.unwrap();
    let mut request = format!("wss://{at}/v1/sites/demo/client").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", "ackord.v1.json".parse().unwrap());
    headers.insert("Authorization", format!("Bearer {}", demo.client).parse().unwrap());
    let connector = Some(Connector::Rustls(authority.trust()));
    let (mut socket, _) =
        tokio_tungstenite::client_async_tls_with_config(request, tcp, None, connector)
            .await
            .unwrap();
    let items: Vec<_> = names.iter().map(|name| json!({"event": name})).collect();
    socket.send(Message::text(json!({"hello": {}}).to_string())).await.unwrap();
    let subscribe = json!({"subscribe": {"items": items}}).to_string();
    socket.send(Message::text(subscribe)).await.unwrap();
    // Nothing is acknowledged, so nothing that is said later pushes what was said before.
    let mut events = 0;
    let hearing = async {
        while events < EVENTS {
            let message = socket.next().await.unwrap().unwrap();
            events += usize::from(message.to_string().starts_with("{\"event\""));
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(20), hearing).await;
    assert!(heard.is_ok(), "{events} of {EVENTS} have arrived");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_costs_a_place_for_a_while_and_no_more() {
    let authority = Authority::new();
    authority.write(2050);
    let deadline = Duration::from_millis(700);
    let limits = TlsLimits { handshake_deadline: deadline, handshakes_max: 4 };
    let (node, at) = start(authority.tls(limits)).await;
    let https = authority.http();
    let health = format!("https://{at}/healthz/live");
    let count = |result: &str| format!("ackord_tls_handshakes_total{{result=\"{result}\"}}");

    // Three that say nothing, and one that is served beside them.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    assert_eq!(https.get(&health).send().await.unwrap().status(), 200);
    for mut tcp in silent {
        // Closed by the other side, without a word.
        let mut buffer = [0; 64];
        let closed = tokio::time::timeout(Duration::from_secs(20), tcp.read(&mut buffer)).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    }
    until(&node, &count("late"), 3).await;

    let failed = metric(&node, &count("failed")).await.unwrap();
    // What is no handshake at all fails at once.
    let plain = reqwest::get(format!("http://{at}/healthz/live")).await;
    assert!(plain.is_err(), "{plain:?}");
    until(&node, &count("failed"), failed + 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_every_place_and_says_nothing_keeps_nobody_out() {
    let authority = Authority::new();
    authority.write(2050);
    let limits = TlsLimits { handshake_deadline: Duration::from_secs(60), handshakes_max: 4 };
    let (node, at) = start(authority.tls(limits)).await;
    let health = format!("https://{at}/healthz/live");
    let mut silent = Vec::new();
    for round in 0..20 {
        for _ in 0..4 {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        // One without a connection yet: it needs a handshake.
        let answer = authority.http().get(&health).send().await;
        assert_eq!(answer.unwrap().status(), 200, "round {round}");
    }
    let line = "ackord_tls_handshakes_total{result=\"pushed-out\"}";
    assert!(metric(&node, line).await >= Some(20));
    let pushed_out = async {
        let mut first = silent.swap_remove(0);
        first.read(&mut [0; 64]).await
    };
    let closed = tokio::time::timeout(Duration::from_secs(20), pushed_out).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    drop(silent);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_for_endpoints_serves_them_and_nothing_else() {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let public = Listener { face: Face::Endpoints, ..Listener::plain(bind()) };
    let front = GatewayOptions {
        listeners: vec![Listener::plain(bind()), public],
        ..GatewayOptions::default()
    };
    let mut node = Running::start_front(BrokerOptions::default(), front).await;
    let demo = node.demo().await;
    let public = node.gateway.as_ref().unwrap().addresses()[1];
    node.base = format!("http://{public}");

    for path in [
        "/metrics",
        "/v1/cluster",
        "/v1/sites",
        "/v1/sites/demo",
        "/v1/sites/demo/structure",
        "/v1/sites/demo/tokens",
        "/v1/sites/demo/clients/c/subscriptions",
    ] {
        let answer = node.call(Some(ADMIN), "GET", path, None).await;
        answer.is_problem(404, "not-found", None);
    }
    node.call(None, "GET", "/healthz/ready", None).await.is(200);
    let path = "/v1/sites/demo/events/reading";
    node.call(Some(&demo.service), "POST", path, Some(json!(1))).await.is(200);
    let path = "/v1/sites/demo/service";
    let mut socket = node.socket(path, Some(&demo.service), "ackord.v1.json").await.unwrap();
    socket.hello_service().await;
    // What receives, too; but not whoever may do everything.
    let tickets = "/v1/sites/demo/tickets";
    node.call(Some(&demo.client), "POST", tickets, Some(json!({}))).await.is(201);
    let next = "/v1/sites/demo/next?event=reading&wait=0";
    node.call(Some(&demo.client), "GET", next, None).await.is(200);
    let body = Some(json!({"client": "c"}));
    let refused = node.call(Some(ADMIN), "POST", tickets, body).await;
    refused.is_problem(403, "access-denied", Some("Authorization"));
    node.stop().await;
}

#[test]
fn a_key_that_does_not_fit_is_refused_at_the_start() {
    let (one, other) = (Authority::new(), Authority::new());
    one.write(2050);
    other.write(2050);
    let load = |key: &Path| {
        let files = TlsFiles { certificate: one.path("certificate"), key: key.to_owned() };
        Tls::load(files, TlsLimits::default())
    };
    assert!(load(&one.path("key")).is_ok());
    let error = load(&other.path("key")).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}
