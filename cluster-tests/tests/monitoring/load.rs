//! What goes on while Prometheus looks: five sites with publishers and subscribers of every kind, and what an operator
//! sees now and then: handlers that fail, receivers that break, raises that are refused, keys that come twice.

use std::time::Duration;

use ackord_endpoint::{Event, HandlerError, Subscription};
use cluster_tests::cluster::Cluster;
use cluster_tests::listener::{Gate, Listener};
use cluster_tests::plain::Plain;
use cluster_tests::raiser::{self, Raiser};
use cluster_tests::raw::RawClient;
use cluster_tests::receiver::{Manner, Receiver};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Account, Site, private, queueing, replacing, structure};
use cluster_tests::wait;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// The sites, the busiest first.
pub const SITES: [&str; 5] = ["heating", "lighting", "metering", "parking", "wards"];
/// Between two events of the busiest site; the next one has twice that, and so on.
const PACE: Duration = Duration::from_millis(100);
/// One event in so many is one that the site does not have.
const UNKNOWN: u64 = 50;
/// One event in so many is not taken by the handler that fails.
const FAILS: u64 = 20;
/// One second in so many a guest knocks in vain.
const KNOCKS: u64 = 20;
/// Events that a stream is read for.
const STREAMED: usize = 60;

/// The load; it goes on until it is dropped.
pub struct Load {
    tasks: JoinSet<()>,
    listeners: Vec<Listener>,
    receivers: Vec<Receiver>,
    /// Clients that stay connected, and one handler in each site that never gets done.
    _held: (Vec<RawClient>, Gate),
}

impl Load {
    /// Starts it.
    pub async fn start(cluster: &Cluster) -> Self {
        let held = (Vec::new(), Gate::closed());
        let (tasks, listeners, receivers) = (JoinSet::new(), Vec::new(), Vec::new());
        let mut load = Self { tasks, listeners, receivers, _held: held };
        for (at, name) in SITES.into_iter().enumerate() {
            let first = at % cluster.size() + 1;
            let events = [queueing("reading", 3000), replacing("state"), private("notice")];
            let (admin, urls) = (cluster.admin(first), cluster.urls_from(first));
            let site = Site::new_at(admin, urls, name, &structure(&events)).await;
            load.site(&site, PACE * (at as u32 + 1)).await;
            if at == 0 {
                load.troubles(&site).await;
                load.pushes(&site).await;
            }
        }
        load
    }

    /// A publisher and subscribers of a site.
    async fn site(&mut self, site: &Site, pace: Duration) {
        let service = site.service("service").await;
        let raiser = site.raiser(&service).start().await;
        self.tasks.spawn(raise(raiser, pace));
        self.tasks.spawn(raise_plainly(site.clone(), service.token, pace * 4));
        let panel = site.guest("panel").await;
        self.listeners.push(site.listener(&panel).to("reading").to("state").start().await);
        let phone = site.guest("phone").await;
        let window = Subscription::new("reading").twoway(20);
        self.listeners.push(site.listener(&phone).subscribes(window).start().await);
        let archive = site.guest("archive").await;
        let gate = self._held.1.clone();
        let held = site.listener(&archive).handles(move |_| {
            let gate = gate.clone();
            async move {
                gate.passed().await;
                Ok(())
            }
        });
        self.listeners.push(held.to("reading").start().await);
        self.tasks.spawn(stream(site.clone(), None));
        let browser = site.guest("browser").await;
        self.tasks.spawn(poll(site.clone(), browser.token));
    }

    /// What goes wrong in one site.
    async fn troubles(&mut self, site: &Site) {
        let printer = site.guest("printer").await;
        let fails = site.listener(&printer).handles(|handled| async move {
            let again = HandlerError::new("out of paper").retry_after(Duration::from_millis(10));
            if handled.instance_id % FAILS == 0 { Err(again) } else { Ok(()) }
        });
        let gives_up = Subscription::new("reading").max_attempts(2).dead_letter();
        self.listeners.push(fails.subscribes(gives_up).start().await);
        let tab = site.guest("tab").await;
        self.tasks.spawn(replace(site.clone(), tab));
        // Guests have room for two connections to a node, and two stay.
        let path = format!("/v1/sites/{}/quotas", site.name);
        let quota = Some(json!({ "principal_connections": 2 }));
        site.admin.call(Method::PUT, &path, quota).await.expect("the quota is set");
        for _ in 0..2 {
            self._held.0.extend(RawClient::open(&site.url, &site.name, None, None).await);
        }
    }

    /// Push subscriptions of one site: healthy ones, one that breaks and one that is cancelled.
    async fn pushes(&mut self, site: &Site) {
        let hooks = site.guest("hooks").await;
        let breaks = Manner::Breaks { one_in: 15, seed: Seed::new(15) };
        let soon = json!({ "retry_count": -1, "discard_interval_ms": 1000 });
        for (id, manner, mut body) in [
            ("billing", Manner::Answers, json!({})),
            ("billing-fast", Manner::Answers, json!({ "mode": "twoway", "window": 20 })),
            ("report", Manner::Answers, json!({ "mode": "batch", "flush_ms": 500 })),
            ("flaky", breaks, soon),
            ("stalled", Manner::Stalls, json!({ "send_timeout_ms": 300 })),
        ] {
            let receiver = Receiver::start(manner).await;
            body["url"] = json!(receiver.url());
            push(site, &hooks, id, body).await;
            self.receivers.push(receiver);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = socket.local_addr().expect("its address");
        push(site, &hooks, "display", json!({ "udp": { "address": address } })).await;
        self.tasks.spawn(async move {
            let mut buffer = [0; 2048];
            while socket.recv(&mut buffer).await.is_ok() {}
        });
    }

    /// That none of it has ended.
    pub fn goes_on(&mut self) {
        assert!(self.tasks.try_join_next().is_none(), "a part of the load has ended");
    }
}

async fn push(site: &Site, client: &Account, id: &str, mut body: Value) {
    body["client"] = json!(client.id);
    body["event"] = json!("reading");
    let path = format!("/v1/sites/{}/pushes/{id}", site.name);
    site.admin.call(Method::PUT, &path, Some(body)).await.expect("it is registered");
}

/// Raises over a session.
async fn raise(raiser: Raiser, pace: Duration) {
    let mut ticks = tokio::time::interval(pace);
    for n in 0_u64.. {
        ticks.tick().await;
        let (name, args) = match n {
            n if n % UNKNOWN == UNKNOWN - 1 => ("unheard-of", json!(n)),
            n if n % 5 == 4 => ("state", json!({ "on": n % 2 == 0 })),
            n => {
                ("reading", json!({ "celsius": 20 + n % 7, "note": "x".repeat(n as usize % 400) }))
            }
        };
        let raised = raiser.send(Event::new(name, Some(raiser::json(args)))).await;
        assert!(raised.is_ok() || name == "unheard-of", "{raised:?}");
    }
}

/// Raises over plain HTTP, every event twice under one key, and some that there are not.
async fn raise_plainly(site: Site, token: String, pace: Duration) {
    let (http, mut ticks) = (reqwest::Client::new(), tokio::time::interval(pace));
    for n in 0_u64.. {
        ticks.tick().await;
        let event = if n % UNKNOWN == UNKNOWN - 1 { "unheard-of" } else { "reading" };
        for url in &site.urls[..2] {
            let request = http.post(format!("{url}/v1/sites/{}/events/{event}", site.name));
            let request = request.bearer_auth(&token).header("Idempotency-Key", format!("key-{n}"));
            let answer = request.json(&json!({ "n": n })).timeout(wait::PATIENCE).send().await;
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
}

/// Follows a site as a browser does that is closed and opened again.
async fn stream(site: Site, token: Option<String>) {
    let client = Plain::new(&site.name, token.as_deref());
    for at in 0.. {
        let url = &site.urls[at % site.urls.len()];
        let opened = client.stream(url, "event=reading&event=state&start=latest", None).await;
        let Ok(mut stream) = opened else {
            tokio::task::yield_now().await;
            continue;
        };
        for _ in 0..STREAMED {
            if stream.event().await.is_err() {
                break;
            }
        }
    }
}

/// Polls and acknowledges, at one node after the other.
async fn poll(site: Site, token: String) {
    let client = Plain::new(&site.name, Some(&token));
    for at in 0.. {
        let url = &site.urls[at % site.urls.len()];
        if let Ok(Some(event)) = client.next(url, "event=reading&wait=2s").await {
            let _ = client.ack(url, &event).await;
        }
    }
}

/// Connects again and again with one account: each session replaces the one before. Now and then a guest asks for room.
async fn replace(site: Site, account: Account) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut before = None;
    for n in 0_u64.. {
        ticks.tick().await;
        if n % KNOCKS == KNOCKS - 1 {
            // At a node where there is no room for another guest.
            let _ = RawClient::refused(&site.url, &site.name, None).await;
        }
        let opened = RawClient::open(&site.url, &site.name, Some(&account.token), None).await;
        drop(before.take());
        before = opened.ok();
    }
}
