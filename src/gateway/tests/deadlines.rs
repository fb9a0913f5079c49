//! Peers that send slowly, too much, or nonsense instead of HTTP: each is bounded, others go on.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ackord_agents::BrokerOptions;
use ackord_gateway::GatewayLimits;
use support::{ADMIN, Running, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn short() -> Running {
    let limits = GatewayLimits {
        head_deadline: GatewayLimits::COARSE_MIN,
        body_deadline: Duration::from_millis(200),
        close_deadline: GatewayLimits::COARSE_MIN,
        body_bytes_max: 1024,
        ..GatewayLimits::default()
    };
    Running::start_with(limits, BrokerOptions::default()).await
}

/// What the node answers to these bytes until it closes.
async fn answer(node: &Running, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(&node.base[7..]).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_arrive_is_given_up() {
    let node = short().await;
    let answer = answer(&node, b"GET /healthz/live HTTP/1.1\r\nhost:").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    node.call(None, "GET", "/healthz/live", None).await.is(200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_given_up() {
    let node = short().await;
    let head = format!(
        "PUT /v1/sites/demo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\
         content-length: 100\r\n\r\n{{"
    );
    let answer = answer(&node, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"idle-timeout\""), "{answer}");
    node.call(None, "GET", "/healthz/live", None).await.is(200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_asked_for_is_not_waited_for() {
    let node = short().await;
    for head in [
        "PUT /v1/sites/demo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n",
        "GET /healthz/live HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let answer = answer(&node, head.as_bytes()).await;
        assert!(answer.contains("connection: close"), "{answer}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_refused_announced_or_not() {
    let node = short().await;
    let request = || node.request("PUT".parse().unwrap(), "/v1/sites/demo").bearer_auth(ADMIN);
    let announced = reply(request().body(" ".repeat(1025))).await;
    let problem = announced.is_problem(413, "too-large", Some("body"));
    assert!(problem["detail"].as_str().unwrap().contains("at most 1024 bytes"));
    let chunked = format!(
        "PUT /v1/sites/demo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\
         connection: close\r\ntransfer-encoding: chunked\r\n\r\n401\r\n{}\r\n0\r\n\r\n",
        " ".repeat(1025)
    );
    let answer = answer(&node, chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_refused_and_nobody_else_is_hurt() {
    let node = short().await;
    let answer = answer(&node, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    node.call(None, "GET", "/healthz/live", None).await.is(200);
    node.stop().await;
}
