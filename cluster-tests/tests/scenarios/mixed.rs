//! Twenty thousand events, and subscribers of every mode beside each other: five that are healthy,
//! five that break their connections, five that read or answer nothing, one by UDP.
//!
//! The healthy ones get everything exactly once, those that break everything in the end, and what
//! becomes of those that stall is what their settings say. Publishers notice nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackord_endpoint::{Mode, Subscription};
use ackord_wire::frame;
use cluster_tests::history::Handled;
use cluster_tests::listener::Listener;
use cluster_tests::node::Node;
use cluster_tests::proxy::Proxy;
use cluster_tests::raiser::Raiser;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::receiver::{Manner, Receiver};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Each has a publisher of its own.
const EVENTS: [&str; 4] = ["first", "second", "third", "fourth"];
/// Events of each: twenty thousand together.
const EACH: usize = 5000;
/// Bytes of text in an event: what a peer that does not read is sent is more than the buffers of
/// its connection hold.
const TEXT: usize = 600;
/// How long everything may take: ten times what it takes in a debug build on a machine at rest.
const PATIENCE: Duration = Duration::from_secs(400);
/// Requests of a receiver that breaks for one that it breaks.
const BREAKS: u64 = 100;
/// The most memory that the broker may have resident at any time.
///
/// What the documented limits allow here: `limits.state_bytes_max` for what is retained (64 MiB),
/// `node.queue_bytes_max` for the one partition that is used (16 MiB), and for each of the 22 sessions
/// and push subscriptions two batches of 1 MiB on their way, as encoded and as written (88 MiB). The
/// log and the checkpoint keep what they wrote last (64 MiB), and a process in a debug build that does
/// nothing takes 100 MiB. Nothing of it grows with what a stalled subscriber has not read: four such
/// would each have 15 MiB waiting for them, which is why there is no more room than for that.
const RESIDENT_MAX: u64 = 384 << 20;

/// A push subscription and its receiver.
struct Push {
    id: String,
    event: &'static str,
    mode: &'static str,
    receiver: Receiver,
}

impl Push {
    async fn start(
        site: &Site,
        id: String,
        event: &'static str,
        manner: Manner,
        settings: Value,
    ) -> Self {
        let receiver = Receiver::start(manner).await;
        let mode = settings["mode"].as_str().map_or("ordered", |mode| match mode {
            "twoway" => "twoway",
            "batch" => "batch",
            _ => "oneway",
        });
        let url = json!({ "client": "pushed", "event": event, "url": receiver.url() });
        register(site, &id, &[url, settings]).await;
        Self { id, event, mode, receiver }
    }

    /// Everything arrived once, in order where the mode keeps one.
    fn is_exact(&self, ids: &[u64]) {
        let mut arrived: Vec<u64> =
            self.receiver.arrived().into_iter().flat_map(|arrived| arrived.ids).collect();
        if self.mode == "twoway" {
            arrived.sort_unstable();
        }
        assert!(arrived == ids, "{}: {} of {}", self.id, arrived.len(), ids.len());
    }

    /// Everything arrived, and first in order where the mode keeps one.
    fn is_whole(&self, ids: &[u64]) {
        let mut seen = BTreeSet::new();
        let arrived = self.receiver.arrived().into_iter().flat_map(|arrived| arrived.ids);
        let mut firsts: Vec<u64> = arrived.filter(|id| seen.insert(*id)).collect();
        if self.mode == "twoway" {
            firsts.sort_unstable();
        }
        assert!(firsts == ids, "{}: {} of {}", self.id, firsts.len(), ids.len());
        assert!(self.receiver.broken() > 0, "{} never broke a connection", self.id);
    }
}

/// Registers a push subscription with these fields.
async fn register(site: &Site, id: &str, fields: &[Value]) {
    let fields = fields.iter().flat_map(|fields| fields.as_object().expect("an object").clone());
    let (path, body) = (push_path(site, id), Value::Object(fields.collect()));
    site.admin.call(Method::PUT, &path, Some(body)).await.expect("it is registered");
}

fn push_path(site: &Site, id: &str) -> String {
    format!("/v1/sites/{}/pushes/{id}", site.name)
}

/// A push subscription as the API shows it.
async fn shown(site: &Site, id: &str) -> Value {
    let path = push_path(site, id);
    wait::until("the push subscription", async || {
        site.admin.call(Method::GET, &path, None).await.ok()
    })
    .await
}

/// Waits until a push subscription is in this state for this reason.
async fn until_state(site: &Site, id: &str, state: &str, because: &str) -> Value {
    let what = format!("{id} to be {state} because of {because}");
    wait::until_for(PATIENCE, &what, async || {
        let shown = shown(site, id).await;
        (shown["state"] == state && shown["because"] == because).then_some(shown)
    })
    .await
}

/// A client of the SDK that counts what it handles.
async fn client(
    site: &Site,
    id: &str,
    via: Option<&Proxy>,
    counted: &Arc<AtomicUsize>,
    subscriptions: impl IntoIterator<Item = Subscription>,
) -> Listener {
    let account = site.guest(id).await;
    let counted = counted.clone();
    let mut listener = site.listener(&account).handles(move |_: Handled| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    });
    if let Some(proxy) = via {
        listener = listener.via(&proxy.url());
    }
    for subscription in subscriptions {
        listener = listener.subscribes(subscription);
    }
    listener.start_on(&tokio::runtime::Handle::current()).await
}

/// What a client handled of an event.
fn handled(listener: &Listener, event: &str) -> Vec<u64> {
    let of = listener.handled().into_iter().filter(|handled| handled.event == event);
    of.map(|handled| handled.instance_id).collect()
}

/// The highest resident memory of a process so far, bytes.
fn resident_peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let status = status.expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib * 1024
}

/// Raises everything; gives the ids by event. Each publisher waits for every acknowledgement.
fn raise(raisers: Vec<Raiser>) -> JoinHandle<Vec<Vec<u64>>> {
    tokio::spawn(async move {
        let raising = raisers.iter().zip(EVENTS).map(|(raiser, event)| async move {
            let mut ids = Vec::new();
            let text = "x".repeat(TEXT);
            for part in 0..EACH / 250 {
                let events = (0..250).map(|n| {
                    raiser.raise(event, json!({ "n": part * 250 + n, "text": text.clone() }))
                });
                ids.extend(futures_util::future::join_all(events).await);
            }
            ids
        });
        futures_util::future::join_all(raising).await
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_healthy_subscribers_get_all_beside_such_that_break_and_such_that_stall() {
    let mut seed = Seed::of_test("scenarios", "healthy_subscribers");
    let limits = ["queue_size_max=10000", "discard_interval_ms_min=10", "state_bytes_max=67108864"];
    let node = Node::start_with(&limits, &["push.hosts=127.0.0.1"]).await;
    let node = node.expect("the broker starts");
    let site = Site::blank(&node, "mixed", json!({ "multi_service": true })).await;
    site.apply(&structure(&EVENTS.map(|event| queueing(event, 10_000)))).await;
    site.guest("pushed").await;
    let counted = Arc::new(AtomicUsize::new(0));

    // Five that are healthy, three of them connected and two called.
    let ordered = EVENTS.map(Subscription::new);
    let ordered = client(&site, "ordered", None, &counted, ordered).await;
    let twoway = EVENTS.map(|event| Subscription::new(event).twoway(20));
    let twoway = client(&site, "twoway", None, &counted, twoway).await;
    let unanswered = EVENTS.into_iter().zip([0, 1, 0, 1]).map(|(event, kind)| match kind {
        0 => Subscription::new(event).mode(Mode::Oneway),
        _ => Subscription::new(event).batch(Duration::from_millis(100)),
    });
    let unanswered = client(&site, "unanswered", None, &counted, unanswered).await;
    let mut healthy = Vec::new();
    for event in EVENTS {
        let (id, settings) = (format!("ordered-{event}"), json!({}));
        healthy.push(Push::start(&site, id, event, Manner::Answers, settings).await);
    }
    for (event, mode) in EVENTS.into_iter().zip(["twoway", "batch", "twoway", "batch"]) {
        let settings = match mode {
            "twoway" => json!({ "mode": mode, "window": 20 }),
            _ => json!({ "mode": mode, "flush_ms": 100 }),
        };
        let id = format!("{mode}-{event}");
        healthy.push(Push::start(&site, id, event, Manner::Answers, settings).await);
    }
    // One by UDP, which promises nothing but to do no harm.
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("its address");
    let udp = json!({ "client": "pushed", "event": "first", "udp": { "address": address } });
    register(&site, "udp", &[udp]).await;
    let heard = Arc::<Mutex<Vec<u64>>>::default();
    let hearing = tokio::spawn(hear(socket, heard.clone()));

    // Five that break their connections, two of them connected and three called.
    let links = [site.proxy().await, site.proxy().await];
    let breaking = [Subscription::new("first"), Subscription::new("second").twoway(20)];
    let mut breaking_clients = Vec::new();
    for (at, subscription) in breaking.into_iter().enumerate() {
        let id = format!("breaking-{at}");
        let link = Some(&links[at]);
        breaking_clients.push(client(&site, &id, link, &counted, [subscription]).await);
    }
    let mut breaking = Vec::new();
    for (event, mode, one_in) in
        [("second", "ordered", BREAKS), ("third", "twoway", BREAKS), ("fourth", "batch", 3)]
    {
        let settings = json!({
            "mode": mode, "retry_count": -1, "discard_interval_ms": 10,
            "flush_ms": (mode == "batch").then_some(50),
        });
        let manner = Manner::Breaks { one_in, seed: seed.fork() };
        let id = format!("breaking-{mode}");
        breaking.push(Push::start(&site, id, event, manner, settings).await);
    }

    // Five that stall, four of them called and one connected.
    let mut stalled = Vec::new();
    let soon = 300;
    for (id, settings) in [
        ("stalled-none", json!({ "send_timeout_ms": soon })),
        (
            "stalled-two",
            json!({ "send_timeout_ms": soon, "mode": "oneway", "retry_count": 2, "discard_interval_ms": 10 }),
        ),
        (
            "stalled-any",
            json!({
                "send_timeout_ms": soon, "mode": "batch", "flush_ms": 10, "retry_count": -1,
                "discard_interval_ms": 1000,
            }),
        ),
        (
            "stalled-full",
            json!({ "mode": "twoway", "retry_count": -1, "queue_max": 100, "on_overflow": "remove" }),
        ),
    ] {
        stalled.push(Push::start(&site, id.to_owned(), "third", Manner::Stalls, settings).await);
    }
    let reader = site.guest("stalled-reader").await;
    let oneway = |event: &&str| frame::Subscription { mode: Mode::Oneway, ..raw::to(event) };
    let set = EVENTS.iter().map(oneway).collect();
    let reads_nothing = RawClient::subscribed(node.url(), "mixed", Some(&reader.token), set).await;
    let (reads_nothing, _) = reads_nothing.expect("it is subscribed");

    let mut raisers = Vec::new();
    for event in EVENTS {
        raisers.push(site.raises(event).await);
    }
    let began = std::time::Instant::now();
    let raising = raise(raisers);

    // What breaks while it goes on: the links of the clients, at moments that the seed chooses.
    let wanted = 3 * EVENTS.len() * EACH + 2 * EACH;
    let mut next_break = 0;
    wait::until_for(PATIENCE, "every connected client to handle everything", async || {
        let so_far = counted.load(Ordering::Relaxed);
        if so_far >= next_break {
            links[seed.between(0, 2) as usize].reset();
            next_break = so_far + seed.between(500, 2000) as usize;
        }
        (so_far >= wanted).then_some(())
    })
    .await;
    let ids = wait::within("every publisher to be acknowledged", raising).await;
    let ids = ids.expect("publishing does not panic");
    let of = |event: &str| {
        let at = EVENTS.iter().position(|other| *other == event).expect("one of the events");
        &ids[at][..]
    };
    for push in healthy.iter().chain(&breaking) {
        let last = of(push.event).last().copied();
        wait::until_for(PATIENCE, &format!("{} to have everything", push.id), async || {
            let shown = shown(&site, &push.id).await;
            (shown["position"]["instance_id"].as_u64() >= last).then_some(())
        })
        .await;
    }
    println!("all is delivered after {:?}", began.elapsed());

    for (at, event) in EVENTS.into_iter().enumerate() {
        assert_eq!(ids[at].len(), EACH);
        for listener in [&ordered, &unanswered] {
            let got = handled(listener, event);
            assert!(got == ids[at], "{} {event}: {} of {EACH}", listener.name(), got.len());
        }
        let mut got = handled(&twoway, event);
        got.sort_unstable();
        assert!(got == ids[at], "{} {event}: {} of {EACH}", twoway.name(), got.len());
    }
    healthy.iter().for_each(|push| push.is_exact(of(push.event)));
    for (at, listener) in breaking_clients.iter().enumerate() {
        let mut got = handled(listener, EVENTS[at]);
        if at == 1 {
            got.sort_unstable();
        }
        assert!(got == ids[at], "{}: {} of {EACH}", listener.name(), got.len());
        assert!(links[at].accepted() > 1, "its link broke");
    }
    breaking.iter().for_each(|push| push.is_whole(of(push.event)));

    // What stalls, by its settings.
    let none = until_state(&site, "stalled-none", "cancelled", "timeout").await;
    assert_eq!((&none["failures"], &none["delivered"]), (&json!(1), &json!(0)), "{none}");
    let two = until_state(&site, "stalled-two", "cancelled", "timeout").await;
    assert_eq!(two["failures"], 3, "{two}");
    until_state(&site, "stalled-full", "cancelled", "overflow").await;
    let any = until_state(&site, "stalled-any", "offline", "timeout").await;
    assert!(any["failures"].as_u64() >= Some(1) && any["delivered"] == 0, "{any}");
    assert!(any["queued_at_least"].is_u64(), "{any}");
    until_closed_as_slow(&site, &node).await;
    drop(reads_nothing);

    // What UDP came to: everything was handed over or dropped, nothing arrived twice.
    let udp = wait::until_for(PATIENCE, "the datagrams to be counted", async || {
        let udp = shown(&site, "udp").await;
        let count = |name: &str| udp[name].as_u64().unwrap_or(0) as usize;
        (count("delivered") + count("dropped") >= EACH).then_some(udp)
    })
    .await;
    assert_eq!(udp["state"], "active", "{udp}");
    assert!(!hearing.is_finished(), "a datagram was no frame of an event");
    hearing.abort();
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(!heard.is_empty() && heard.len() as u64 <= udp["delivered"].as_u64().unwrap_or(0));
    let distinct: BTreeSet<u64> = heard.iter().copied().collect();
    assert_eq!(distinct.len(), heard.len(), "some datagrams came twice");
    assert!(distinct.iter().all(|id| of("first").contains(id)), "some were never raised");

    let peak = resident_peak(node.ready().pids[0]);
    println!("the broker had {} MiB resident at most", peak >> 20);
    assert!(peak < RESIDENT_MAX, "{} MiB", peak >> 20);
}

/// Reads datagrams and notes the id in each; ends at one that has none.
async fn hear(socket: UdpSocket, heard: Arc<Mutex<Vec<u64>>>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = socket.recv(&mut buffer).await {
        let frame: Value = serde_json::from_slice(&buffer[..length]).expect("a frame");
        let id = frame["event"]["instance_id"].as_u64().expect("an id");
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

/// Waits until the one that reads nothing has no session any more, and says why it has none.
async fn until_closed_as_slow(site: &Site, node: &Node) {
    let path = "/v1/sites/mixed/sessions?id=stalled-reader";
    wait::until_for(PATIENCE, "the one that reads nothing to be offline", async || {
        let shown = site.admin.call(Method::GET, path, None).await.ok()?;
        shown["items"].as_array()?.is_empty().then_some(())
    })
    .await;
    let metrics = reqwest::get(format!("{}/metrics", node.url())).await.expect("the metrics");
    let metrics = metrics.text().await.expect("text");
    let slow = "ackord_websockets_closed_total{code=\"slow-consumer\",endpoint=\"client\"} 1";
    assert!(metrics.lines().any(|line| line == slow), "closed as slow-consumer");
}
