//! Callbacks on ports of this machine that do as they are told, and a broker that calls them.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ackord_agents::{BrokerOptions, PushOptions};
use ackord_gateway::GatewayOptions;
use ackord_replica::NodeOptions;
use ackord_tls::tokio_rustls::TlsAcceptor;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::support::{self, Demo, Running, reply};

/// How long anything may take that is not meant to.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a receiver does with one request.
#[derive(Clone, Debug)]
pub enum Then {
    Answer(u16),
    /// It goes somewhere else.
    Redirect(String),
    /// It breaks the connection without an answer.
    Abort,
    /// It does so where a request came over the connection before.
    AbortKept,
    /// It never answers.
    Hang,
    /// It answers 200 when it is told to go on.
    Until,
    /// It answers 200 after so long.
    Slow(Duration),
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// How many came over its connection before it.
    pub before: usize,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The number that was raised.
    pub fn number(&self) -> u64 {
        self.json()["event"]["args"].as_u64().unwrap()
    }
}

#[derive(Default)]
pub struct Inner {
    received: Mutex<Vec<Received>>,
    then: Mutex<VecDeque<Then>>,
    always: Mutex<Option<Then>>,
    arrived: Notify,
    go: Notify,
    pub open: Mutex<(usize, usize)>,
    pub wrong_handshake: Mutex<bool>,
}

/// A callback on a port of this machine.
#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    pub inner: Arc<Inner>,
    scheme: &'static str,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::listening(None).await
    }

    /// A callback that shows a certificate.
    pub async fn secured(tls: TlsAcceptor) -> Self {
        Self::secured_by(Arc::new(Mutex::new(tls))).await
    }

    /// A callback that shows the certificate of the day.
    pub async fn secured_by(tls: Arc<Mutex<TlsAcceptor>>) -> Self {
        Self::listening(Some(tls)).await
    }

    async fn listening(tls: Option<Arc<Mutex<TlsAcceptor>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (inner, scheme) =
            (Arc::<Inner>::default(), if tls.is_some() { "https" } else { "http" });
        let serving = inner.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.as_ref().map(|tls| tls.lock().clone());
                let serving = serving.clone();
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, serving).await,
                        Some(tls) => {
                            // Who does not believe the certificate goes.
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, serving).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, inner, scheme }
    }

    pub fn url(&self) -> String {
        format!("{}://{}/hook", self.scheme, self.address)
    }

    /// What it does with the next requests; then 200.
    pub fn will(&self, then: impl IntoIterator<Item = Then>) {
        self.inner.then.lock().extend(then);
    }

    pub fn always(&self, then: Option<Then>) {
        *self.inner.always.lock() = then;
    }

    /// One that waits to be told goes on.
    pub fn go_on(&self) {
        self.inner.go.notify_one();
    }

    pub fn received(&self) -> Vec<Received> {
        self.inner.received.lock().clone()
    }

    /// Waits for so many requests.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let arrived = async {
            loop {
                let next = self.inner.arrived.notified();
                let received = self.received();
                if received.len() >= count {
                    return received;
                }
                next.await;
            }
        };
        let waited = timeout(PATIENCE, arrived).await;
        waited.unwrap_or_else(|_| panic!("{} of {count} requests", self.received().len()))
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, inner: Arc<Inner>) {
    let (mut buffer, mut count) = (Vec::new(), 0);
    while let Some(mut request) = read_request(&mut stream, &mut buffer).await {
        let before = count;
        count += 1;
        request.before = before;
        if request.header("Ackord-Handshake") == "1" {
            let challenge = request.json()["challenge"].as_str().unwrap().to_owned();
            let said = if *inner.wrong_handshake.lock() { "no".to_owned() } else { challenge };
            answer(&mut stream, 200, "", &said).await;
            continue;
        }
        let next = inner.then.lock().pop_front().or_else(|| inner.always.lock().clone());
        {
            let mut open = inner.open.lock();
            open.0 += 1;
            open.1 = open.1.max(open.0);
        }
        inner.received.lock().push(request);
        inner.arrived.notify_waiters();
        let next = next.unwrap_or(Then::Answer(200));
        let ends = match &next {
            Then::Answer(status) => {
                answer(&mut stream, *status, "", "").await;
                false
            }
            Then::Redirect(to) => {
                answer(&mut stream, 307, &format!("Location: {to}\r\n"), "").await;
                false
            }
            Then::Abort => true,
            Then::AbortKept if before > 0 => true,
            Then::AbortKept => {
                answer(&mut stream, 200, "", "").await;
                false
            }
            Then::Hang => {
                // Until the other side gives up.
                let _gone = stream.read(&mut [0; 64]).await;
                true
            }
            Then::Until => {
                inner.go.notified().await;
                answer(&mut stream, 200, "", "").await;
                false
            }
            Then::Slow(time) => {
                sleep_until(Instant::now() + *time).await;
                answer(&mut stream, 200, "", "").await;
                false
            }
        };
        inner.open.lock().0 -= 1;
        if ends {
            return;
        }
    }
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), status: u16, headers: &str, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    // The other side may have gone.
    let _gone = stream.write_all(head.as_bytes()).await;
}

async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<Received> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let headers: Vec<(String, String)> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some(Received { headers, body, at: Instant::now(), before: 0 })
}

/// A broker that runs push agents.
pub struct World {
    pub running: Running,
    pub demo: Demo,
    raised: u64,
}

impl World {
    pub async fn start() -> Self {
        Self::allowing(&["127.0.0.0/8", "239.0.0.0/8"]).await
    }

    pub async fn allowing(hosts: &[&str]) -> Self {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Self::with(PushOptions { hosts, ..PushOptions::default() }).await
    }

    pub async fn with(options: PushOptions) -> Self {
        Self::tuned(options, |_| ()).await
    }

    async fn tuned(options: PushOptions, tune: impl FnOnce(&mut NodeOptions)) -> Self {
        let push = PushOptions { discard_interval_ms_min: 1, ..options };
        let options = BrokerOptions { push, ..BrokerOptions::default() };
        let running = Running::start_tuned(GatewayOptions::default(), options, tune).await;
        let broker = running.broker.clone();
        tokio::spawn(async move { broker.serve_pushes().await });
        let demo = running.demo().await;
        Self { running, demo, raised: 0 }
    }

    /// As [`World::start`]; its queue holds ten thousand.
    pub async fn wide() -> Self {
        let hosts = vec!["127.0.0.0/8".to_owned()];
        let size = 10_000;
        let wide = |node: &mut NodeOptions| node.limits.queue_size_max = size;
        let world = Self::tuned(PushOptions { hosts, ..PushOptions::default() }, wide).await;
        let mut structure = support::structure();
        structure["events"][0]["size"] = json!(size);
        let path = "/v1/sites/demo/structure";
        world.running.admin("PUT", path, Some(structure)).await.is(200);
        world
    }

    pub async fn put(&self, id: &str, body: Value) -> support::Reply {
        let path = format!("/v1/sites/demo/pushes/{id}");
        self.running.call(Some(&self.demo.client), "PUT", &path, Some(body)).await
    }

    /// Registers a callback.
    pub async fn push(&self, id: &str, receiver: &Receiver, more: Value) -> Value {
        let mut body = json!({
            "event": "reading", "url": receiver.url(), "retry_count": -1,
            "discard_interval_ms": 50, "send_timeout_ms": 500,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.put(id, body).await.is(201)
    }

    /// Raises the next numbers, from 1 on.
    pub async fn raise(&mut self, count: u64) {
        for _ in 0..count {
            self.raised += 1;
            self.raise_number(self.raised).await;
        }
    }

    /// As [`World::raise`], hundreds in one request.
    pub async fn raise_many(&mut self, count: u64) {
        let last = self.raised + count;
        while self.raised < last {
            let many = self.raised + 1..=last.min(self.raised + 500);
            self.raised = *many.end();
            let line = |number| format!("{}\n", json!({"event": "reading", "args": number}));
            let request = self.running.request(Method::POST, "/v1/sites/demo/events");
            let request = request.header("Content-Type", "application/x-ndjson");
            let request = request.bearer_auth(&self.demo.service);
            let answer = request.body(many.map(line).collect::<String>()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let lines = answer.text().await.unwrap();
            assert!(!lines.contains("\"error\""), "{lines}");
        }
    }

    pub async fn raise_number(&self, number: u64) {
        let request = self.running.request(Method::POST, "/v1/sites/demo/events/reading");
        reply(request.bearer_auth(&self.demo.service).json(&number)).await.is(200);
    }

    pub async fn show(&self, id: &str) -> Value {
        self.running.admin("GET", &format!("/v1/sites/demo/pushes/{id}"), None).await.is(200)
    }

    /// Waits until the push subscription looks like this.
    pub async fn until(&self, id: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut ticks = interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let shown = self.show(id).await;
            if is(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "{shown}");
        }
    }
}
