//! Pages in browsers: whose may ask what of this front, and what they are told.

#![allow(clippy::unwrap_used)]

mod support;

use ackord_agents::BrokerOptions;
use ackord_gateway::GatewayOptions;
use support::{ADMIN, Reply, Running, connect, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const APP: &str = "https://app.example";
const ELSEWHERE: &str = "https://elsewhere.example";

async fn serving(origins: &[&str]) -> Running {
    let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let front = GatewayOptions { origins, ..GatewayOptions::default() };
    Running::start_tuned(front, BrokerOptions::default(), |_| ()).await
}

async fn ask(node: &Running, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = node.request(method.parse().unwrap(), path).bearer_auth(ADMIN);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    reply(request).await
}

fn header<'a>(answer: &'a Reply, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_says_what_a_page_may_send() {
    let node = serving(&[APP]).await;
    let path = "/v1/sites/demo/events/reading";
    let asked = [
        ("Origin", APP),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,ce-id"),
    ];
    let allowed = ask(&node, "OPTIONS", path, &asked).await;
    assert_eq!((allowed.status, allowed.text.as_str()), (204, ""));
    assert_eq!(header(&allowed, "access-control-allow-origin"), Some(APP));
    assert_eq!(header(&allowed, "access-control-allow-methods"), Some("POST"));
    let headers = header(&allowed, "access-control-allow-headers").unwrap();
    for name in ["authorization", "content-type", "idempotency-key", "ce-id"] {
        assert!(headers.split(", ").any(|given| given == name), "{headers}");
    }
    assert_eq!(header(&allowed, "access-control-max-age"), Some("600"));
    assert_eq!(header(&allowed, "access-control-allow-credentials"), None);

    let asked = [("Origin", ELSEWHERE), ("Access-Control-Request-Method", "POST")];
    let refused = ask(&node, "OPTIONS", path, &asked).await;
    refused.is_problem(403, "access-denied", Some("Origin"));
    assert_eq!(header(&refused, "access-control-allow-origin"), None);
    let asked = [("Origin", APP), ("Access-Control-Request-Method", "POST")];
    let nowhere = ask(&node, "OPTIONS", "/v1/nothing", &asked).await;
    nowhere.is_problem(404, "not-found", None);
    // What is no preflight is a method like others.
    let plain = ask(&node, "OPTIONS", path, &[("Origin", APP)]).await;
    plain.is_problem(405, "method-not-allowed", None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_problems_name_the_page_that_may_read_them() {
    let node = serving(&[APP]).await;
    let own = node.base.clone();
    for origin in [APP, own.as_str()] {
        for (method, path, status) in [
            ("PUT", "/v1/sites/demo", None),
            ("GET", "/v1/sites/x", Some(404)),
            ("GET", "/x", Some(404)),
        ] {
            let answer = ask(&node, method, path, &[("Origin", origin)]).await;
            assert!(status.is_none_or(|status| status == answer.status), "{answer:?}");
            assert_eq!(header(&answer, "access-control-allow-origin"), Some(origin), "{path}");
            assert_eq!(header(&answer, "vary"), Some("origin"));
            let exposed = header(&answer, "access-control-expose-headers").unwrap();
            assert!(exposed.contains("retry-after") && exposed.contains("ackord-resume"));
        }
    }
    // Whoever is no page is told nothing, and that this depends on who asks.
    let answer = ask(&node, "GET", "/v1/sites/demo", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(header(&answer, "access-control-allow-origin"), None);
    assert_eq!(header(&answer, "vary"), Some("origin"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_not_allowed_changes_nothing() {
    let node = serving(&[APP]).await;
    for method in ["PUT", "DELETE"] {
        let refused = ask(&node, method, "/v1/sites/demo", &[("Origin", ELSEWHERE)]).await;
        refused.is_problem(403, "access-denied", Some("Origin"));
    }
    // It may ask, and its browser keeps the answer from it.
    let answer = ask(&node, "GET", "/v1/sites/demo", &[("Origin", ELSEWHERE)]).await;
    answer.is_problem(404, "not-found", None);
    assert_eq!(header(&answer, "access-control-allow-origin"), None);

    // It is refused before its body is there.
    let mut socket = TcpStream::connect(&node.base[7..]).await.unwrap();
    let head = format!(
        "PUT /v1/sites/demo HTTP/1.1\r\nhost: x\r\norigin: {ELSEWHERE}\r\n\
         authorization: Bearer {ADMIN}\r\ncontent-length: 1000\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), "HTTP/1.1 403");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_broker_names_every_origin_and_never_a_star() {
    let node = serving(&["*"]).await;
    for origin in [ELSEWHERE, "null"] {
        let answer = ask(&node, "PUT", "/v1/sites/demo", &[("Origin", origin)]).await;
        assert!(answer.status < 300, "{answer:?}");
        assert_eq!(header(&answer, "access-control-allow-origin"), Some(origin));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_are_judged_by_the_same_list() {
    let node = serving(&[APP]).await;
    let demo = node.demo().await;
    let open = async |origin: &str| {
        let url = format!("{}/v1/sites/demo/client", node.base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", "ackord.v1.json".parse().unwrap());
        headers.insert("Authorization", format!("Bearer {}", demo.client).parse().unwrap());
        headers.insert("Origin", origin.parse().unwrap());
        connect(request).await
    };
    assert!(open(APP).await.is_ok());
    assert!(open(&node.base).await.is_ok());
    let refused = open(ELSEWHERE).await.err().unwrap();
    refused.is_problem(403, "access-denied", Some("Origin"));
    node.stop().await;
}
