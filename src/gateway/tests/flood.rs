//! A tenant cannot slow another down: while one does all it can to use the node up, every request of
//! the other is served, and what it may use is its own.
//!
//! The bounds that both share are small here, so that they are reached: the test fails when one of
//! them was not.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ackord_agents::BrokerOptions;
use ackord_gateway::{GatewayLimits, GatewayOptions};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Demo, Running, structure};

const JSON: &str = "ackord.v1.json";
/// The loud tenant. One partition holds both: nearer they cannot be.
const LOUD: &str = "/v1/sites/loud";
/// How long the quiet one goes on, and how often it asks.
const ROUNDS: u32 = 60;
const PACE: Duration = Duration::from_millis(50);
/// No answer takes as long unless it waits behind the other's. The machine may be busy with both.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a flood is told, by kind of flood.
#[derive(Default)]
struct Tally {
    served: AtomicU64,
    limited: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    fn count(&self, status: u16) {
        let of = match status {
            200..=299 => &self.served,
            429 | 503 => &self.limited,
            _ => &self.refused,
        };
        of.fetch_add(1, Ordering::Relaxed);
    }

    fn told(&self) -> [u64; 3] {
        [&self.served, &self.limited, &self.refused].map(|of| of.load(Ordering::Relaxed))
    }
}

/// Repeats a request as fast as it is answered, on so many connections.
fn repeat(
    make: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder + Clone + Send + 'static,
    connections: u32,
    over: &Arc<AtomicBool>,
) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    for _ in 0..connections {
        let (make, over, tally) = (make.clone(), over.clone(), tally.clone());
        tokio::spawn(async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            while !over.load(Ordering::Relaxed) {
                if let Ok(answer) = make(&client).send().await {
                    tally.count(answer.status().as_u16());
                    // To its end, so that the connection is used again.
                    drop(answer.bytes().await);
                }
            }
        });
    }
    tally
}

/// Opens something again and again, and keeps what it gets.
fn hoard<T: Send + 'static, F>(
    open: impl Fn() -> F + Send + 'static,
    over: &Arc<AtomicBool>,
) -> Arc<Tally>
where
    F: Future<Output = Result<T, u16>> + Send,
{
    let (tally, over) = (Arc::new(Tally::default()), over.clone());
    let counting = tally.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while !over.load(Ordering::Relaxed) {
            match open().await {
                Ok(opened) => {
                    counting.count(200);
                    kept.push(opened);
                }
                Err(status) => counting.count(status),
            }
        }
    });
    tally
}

/// The loud tenant with its tokens.
async fn loud(node: &Running) -> Demo {
    node.admin("PUT", LOUD, None).await.is(201);
    node.admin("PUT", &format!("{LOUD}/structure"), Some(structure())).await.is(200);
    for account in ["services/s", "users/u", "clients/c"] {
        node.admin("PUT", &format!("{LOUD}/{account}"), None).await.is(201);
    }
    let quotas = json!({"events_per_s": 50});
    node.admin("PUT", &format!("{LOUD}/quotas"), Some(quotas)).await.is(200);
    Demo {
        service: node.token("loud", json!({"service": "s"})).await,
        client: node.token("loud", json!({"client": "c"})).await,
        admin: node.token("loud", json!("admin")).await,
        observer: node.token("loud", json!("observer")).await,
    }
}

/// What the quiet tenant does, each time a little else.
async fn ask(node: &Running, demo: &Demo, round: u32) {
    let site = "/v1/sites/demo";
    let n = u64::from(round);
    match round % 6 {
        0 | 3 => drop(node.raise(demo, "reading", n).await),
        1 => {
            let path = format!("{site}/next?event=reading&wait=0");
            let polled = node.call(Some(&demo.client), "GET", &path, None).await;
            let ack = polled.is(200)["ack"].as_str().unwrap().to_owned();
            node.ack(&ack).await.is(200);
        }
        2 => {
            let path = "/v1/sites/demo/service";
            let service = node.socket(path, Some(&demo.service), JSON).await;
            let mut service = service.unwrap_or_else(|refused| panic!("{refused:?}"));
            service.hello_service().await;
        }
        4 => drop(node.call(Some(&demo.observer), "GET", site, None).await.is(200)),
        _ => {
            // A token that no node has heard of before the request.
            let token = node.token("demo", json!("observer")).await;
            let path = format!("{site}/queues/reading?limit=2");
            node.call(Some(&token), "GET", &path, None).await.is(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_one_tenant_does_the_other_is_served() {
    let options = BrokerOptions { sessions_max: 200, polls_max: 60, ..BrokerOptions::default() };
    let limits =
        GatewayLimits { poll_wait_max: Duration::from_secs(20), ..GatewayLimits::default() };
    let front = GatewayOptions { limits, ..GatewayOptions::default() };
    let node = Running::start_tuned(front, options, |node| {
        node.partitions = 1;
        node.queue_commands_max = 16;
    });
    let node = Arc::new(node.await);
    let demo = node.demo().await;
    let quotas = json!({"events_per_s": 200, "requests_per_s": 60,
                        "principal_requests_per_s": 20, "connections": 20});
    node.admin("PUT", "/v1/sites/demo/quotas", Some(quotas)).await.is(200);
    node.raise(&demo, "reading", 0).await;
    let loud = loud(&node).await;

    let over = Arc::new(AtomicBool::new(false));
    let base = node.base.clone();
    let flood = |method: Method, path: &str, token: Option<&str>, body: Value| {
        let (url, token) = (format!("{base}{path}"), token.map(str::to_owned));
        repeat(
            move |client| {
                let mut request = client.request(method.clone(), &url).json(&body);
                if let Some(token) = &token {
                    request = request.bearer_auth(token);
                }
                request
            },
            4,
            &over,
        )
    };
    let raise = format!("{LOUD}/events/reading");
    let raises = flood(Method::POST, &raise, Some(&loud.service), json!({"n": 1}));
    let wrong = json!({"nonsense": "x".repeat(1000)});
    let bad = flood(Method::PUT, LOUD, Some(&loud.admin), wrong.clone());
    let strangers = flood(Method::GET, LOUD, Some(&demo.admin), json!({}));
    // At the other's own addresses: a token that is none of its, a guest, and what is no token.
    let own = flood(Method::GET, "/v1/sites/demo", Some(&loud.admin), json!({}));
    let guests = flood(Method::GET, "/v1/sites/demo/next?event=state&wait=0", None, json!({}));
    let acks = flood(Method::POST, "/v1/sites/demo/ack", None, json!({"token": "AQdwaG9uZS03"}));
    let hoarding = node.clone();
    let sockets = hoard(
        move || {
            let node = hoarding.clone();
            async move {
                let opened = node.socket("/v1/sites/loud/client", None, JSON).await;
                opened.map_err(|refused| refused.status)
            }
        },
        &over,
    );
    let mut polls = Vec::new();
    for _ in 0..70 {
        let url = format!("{}{LOUD}/next?event=state&wait=20s", node.base);
        polls.push(repeat(move |client| client.get(&url), 1, &over));
    }
    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..1500 {
            if is_so() {
                return;
            }
            looks.tick().await;
        }
        panic!("the flood never came to {what}");
    };
    until("the bound of sessions", &|| sockets.told()[1] > 0).await;
    until("the bound of polls", &|| polls.iter().any(|poll| poll.told()[1] > 0)).await;

    let mut took = Vec::new();
    let mut ticks = tokio::time::interval(PACE);
    for round in 0..ROUNDS {
        ticks.tick().await;
        let begun = Instant::now();
        let asked = tokio::time::timeout(2 * PATIENCE, ask(&node, &demo, round)).await;
        asked.unwrap_or_else(|_| panic!("no answer in time, round {round}"));
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let late = took[took.len() * 99 / 100];
    // Its rate is its own: all of a burst passes.
    let path = "/v1/sites/demo/service";
    let mut service = node.socket(path, Some(&demo.service), JSON).await.ok().unwrap();
    let last = service.hello_service().await["last"].as_u64().unwrap();
    for seq in last + 1..=last + 40 {
        service.say(json!({"raise": {"seq": seq, "event": "state", "args": seq}})).await;
    }
    for seq in last + 1..=last + 40 {
        let frame = service.hear().await;
        assert_eq!(frame["accepted"]["seq"], seq, "{frame}");
    }
    over.store(true, Ordering::Relaxed);
    let [raised, rate_limited, _] = raises.told();
    println!("the quiet one: p50 {:?}, p99 {late:?}", took[took.len() / 2]);
    for (name, tally) in [
        ("raises", &raises),
        ("bad", &bad),
        ("strangers", &strangers),
        ("own", &own),
        ("guests", &guests),
        ("acks", &acks),
        ("sockets", &sockets),
    ] {
        println!("{name}: served, limited, refused {:?}", tally.told());
    }
    assert!(late < PATIENCE, "{late:?}");
    assert!(raised > 0 && rate_limited > 0, "the loud one was held to its rate");
    assert!(guests.told()[1] > 0, "guests were held to theirs");
    for (what, tally) in [("bad", &bad), ("strangers", &strangers), ("own", &own), ("acks", &acks)]
    {
        assert!(tally.told()[2] > 100 && tally.told()[0] == 0, "{what}: {:?}", tally.told());
    }
    drop(node);
}
