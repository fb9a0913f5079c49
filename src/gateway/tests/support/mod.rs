//! A broker node with its front on a free port of this machine, and what talks to it.

#![allow(dead_code, clippy::unwrap_used)]

pub mod events;
pub mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ackord_agents::{Broker, BrokerOptions};
use ackord_gateway::{Gateway, GatewayLimits, GatewayOptions};
use ackord_replica::{Node, NodeOptions};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The node's administration token in these tests.
pub const ADMIN: &str = "node-admin-token";

/// A running node with its front.
pub struct Running {
    pub gateway: Option<Gateway>,
    pub broker: Broker,
    pub base: String,
    node: Arc<Node>,
    http: reqwest::Client,
    /// Tokens that were made: each has a key, so that its id follows from when it was made.
    tokens: AtomicU64,
    _dir: tempfile::TempDir,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts a problem document of this status, code and field.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str, field: Option<&str>) -> Value {
        let content_type = self.headers.get("content-type").map(|value| value.to_str().unwrap());
        assert_eq!(content_type, Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(self.status, status, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["type"], format!("urn:ackord:problem:{code}"), "{problem}");
        assert_eq!(problem.get("field").and_then(Value::as_str), field, "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
        problem
    }

    /// Asserts an answer of this status with a body.
    #[track_caller]
    pub fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(GatewayLimits::default(), BrokerOptions::default()).await
    }

    pub async fn start_with(limits: GatewayLimits, options: BrokerOptions) -> Self {
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        Self::start_front(options, GatewayOptions { listen, limits, ..GatewayOptions::default() })
            .await
    }

    /// With a front of these options; requests go to its first socket.
    pub async fn start_front(options: BrokerOptions, front: GatewayOptions) -> Self {
        Self::start_tuned(front, options, |_| ()).await
    }

    /// The administration token is set here, and a socket where the front has none.
    pub async fn start_tuned(
        mut front: GatewayOptions,
        options: BrokerOptions,
        tune: impl FnOnce(&mut NodeOptions),
    ) -> Self {
        if front.listen.is_empty() && front.listeners.is_empty() {
            front.listen.push("127.0.0.1:0".parse().unwrap());
        }
        let dir = tempfile::tempdir().unwrap();
        let mut node_options = NodeOptions::new(dir.path());
        node_options.partitions = 2;
        node_options.log_file_bytes = 1 << 20;
        tune(&mut node_options);
        let started = tokio::task::spawn_blocking(move || Node::start(node_options));
        let node = Arc::new(started.await.unwrap().unwrap());
        let broker = Broker::new(node.clone(), options);
        let gateway = Gateway::start(
            broker.clone(),
            GatewayOptions { admin_hash: sha2::Sha256::digest(ADMIN).into(), ..front },
        )
        .unwrap();
        let base = format!("http://{}", gateway.addresses()[0]);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let tokens = AtomicU64::new(0);
        Self { gateway: Some(gateway), broker, base, node, http, tokens, _dir: dir }
    }

    /// A request, ready for headers and a body.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// A request of this bearer with this JSON body, sent.
    pub async fn call(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        let mut request = self.request(method.parse().unwrap(), path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        reply(request).await
    }

    /// A request of the node's administrator.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.call(Some(ADMIN), method, path, body).await
    }

    /// A site with a structure, the service `s`, the client `c` of the user `u`, and their tokens.
    pub async fn demo(&self) -> Demo {
        self.admin("PUT", "/v1/sites/demo", Some(json!({}))).await.is(201);
        self.admin("PUT", "/v1/sites/demo/structure", Some(structure())).await.is(200);
        self.admin("PUT", "/v1/sites/demo/services/s", None).await.is(201);
        self.admin("PUT", "/v1/sites/demo/users/u", None).await.is(201);
        self.admin("PUT", "/v1/sites/demo/clients/c", Some(json!({"user": "u"}))).await.is(201);
        Demo {
            service: self.token("demo", json!({"service": "s"})).await,
            client: self.token("demo", json!({"client": "c"})).await,
            admin: self.token("demo", json!("admin")).await,
            observer: self.token("demo", json!("observer")).await,
        }
    }

    /// A new token.
    pub async fn token(&self, site: &str, principal: Value) -> String {
        let path = format!("/v1/sites/{site}/tokens");
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let request = self.request(Method::POST, &path).bearer_auth(ADMIN);
        let request = request.header("Idempotency-Key", format!("token-{number}"));
        let made = reply(request.json(&json!({"principal": principal}))).await.is(201);
        made["token"].as_str().unwrap().to_owned()
    }

    /// A WebSocket with these subprotocols.
    pub async fn socket(
        &self,
        path: &str,
        token: Option<&str>,
        subprotocols: &str,
    ) -> Result<Socket, Reply> {
        let url = format!("{}{path}", self.base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        if !subprotocols.is_empty() {
            headers.insert("Sec-WebSocket-Protocol", subprotocols.parse().unwrap());
        }
        if let Some(token) = token {
            headers.insert("Authorization", format!("Bearer {token}").parse().unwrap());
        }
        connect(request).await
    }

    /// Stops it. Whatever a test did: the broker must have seen nothing that exactly-once forbids.
    pub async fn stop(mut self) {
        let text = self.broker.metrics_text(false);
        let mut counts =
            text.lines().filter(|line| line.starts_with("ackord_exactly_once_violations_total{"));
        assert!(counts.all(|line| line.ends_with(" 0")), "{text}");
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        let node = self.node.clone();
        tokio::task::spawn_blocking(move || node.shutdown()).await.unwrap();
    }
}

/// Tokens of the demo site.
pub struct Demo {
    pub service: String,
    pub client: String,
    pub admin: String,
    pub observer: String,
}

/// The structure of the demo site.
pub fn structure() -> Value {
    json!({
        "service_type": "test", "contract_author": "Ackord", "guests": "guest+stateless",
        "roles": ["operator"],
        "events": [
            {"name": "reading", "category": "queueing", "lifetime_s": 3600, "size": 100, "access": "everyone"},
            {"name": "state", "category": "replacing", "access": "everyone"},
            {"name": "notice", "category": "private", "lifetime_s": 3600}
        ]
    })
}

/// Sends a request.
pub async fn reply(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}

/// Opens a WebSocket, or gives the answer that refused it.
pub async fn connect(request: tungstenite::handshake::client::Request) -> Result<Socket, Reply> {
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, response)) => {
            let protocol = response.headers().get("sec-websocket-protocol");
            let protocol = protocol.map(|value| value.to_str().unwrap().to_owned());
            Ok(Socket { socket, protocol })
        }
        Err(tungstenite::Error::Http(response)) => Err(Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: String::from_utf8(response.into_body().unwrap_or_default()).unwrap(),
        }),
        Err(other) => panic!("no answer to the handshake: {other}"),
    }
}

/// A WebSocket of an endpoint.
pub struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The subprotocol that was chosen.
    pub protocol: Option<String>,
}

impl Socket {
    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub async fn say(&mut self, frame: Value) {
        self.send(Message::text(frame.to_string())).await;
    }

    /// The next message that is no ping.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next JSON frame.
    pub async fn hear(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a text message, got {other:?}"),
        }
    }

    /// The next JSON frame of this kind; others are passed over.
    pub async fn hear_of(&mut self, kind: &str) -> Value {
        loop {
            let mut frame = self.hear().await;
            if let Some(body) = frame.get_mut(kind) {
                return body.take();
            }
        }
    }

    /// The `closing` frame and the number of the close behind it.
    pub async fn end(&mut self) -> (Value, Option<u16>) {
        let mut closing = Value::Null;
        loop {
            match self.next().await {
                Some(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if let Some(body) = frame.get("closing") {
                        closing = body.clone();
                    }
                }
                Some(Message::Close(close)) => {
                    return (closing, close.map(|close| close.code.into()));
                }
                Some(_) => {}
                None => return (closing, None),
            }
        }
    }

    /// Opens a service session; the welcome.
    pub async fn hello_service(&mut self) -> Value {
        let store = "00112233445566778899aabbccddeeff";
        self.say(json!({"hello": {"store": store, "structure": structure()}})).await;
        self.hear_of("welcome").await
    }
}
