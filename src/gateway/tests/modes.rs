//! Modes of delivery through real sockets: what comes, in which frames, and what may be under way.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::raw::Raw;
use support::{Running, Socket};

const CLIENT: &str = "/v1/sites/modes/client";
const JSON: &str = "ackord.v1.json";
const MODES: [&str; 5] = ["ordered", "twoway", "oneway", "batch", "datagram"];
/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A site with one event, a service, and a client for each mode.
struct Modes {
    node: Running,
    service: Socket,
    raised: u64,
}

impl Modes {
    async fn start() -> Self {
        let node = Running::start().await;
        node.admin("PUT", "/v1/sites/modes", Some(json!({}))).await.is(201);
        node.admin("PUT", "/v1/sites/modes/structure", Some(structure())).await.is(200);
        node.admin("PUT", "/v1/sites/modes/services/s", None).await.is(201);
        node.admin("PUT", "/v1/sites/modes/users/u", None).await.is(201);
        for client in MODES {
            let path = format!("/v1/sites/modes/clients/{client}");
            node.admin("PUT", &path, Some(json!({"user": "u"}))).await.is(201);
        }
        let token = node.token("modes", json!({"service": "s"})).await;
        let mut service = node.socket("/v1/sites/modes/service", Some(&token), JSON).await.unwrap();
        let store = "00112233445566778899aabbccddeeff";
        service.say(json!({"hello": {"store": store, "window": 1000}})).await;
        service.hear_of("welcome").await;
        Self { node, service, raised: 0 }
    }

    /// Raises so many; their ids.
    async fn raise(&mut self, count: u64) -> Vec<u64> {
        self.raise_with(count, &json!({"n": 1})).await
    }

    async fn raise_with(&mut self, count: u64, args: &Value) -> Vec<u64> {
        let mut ids = Vec::new();
        // No more at once than the window has.
        for part in (0..count).collect::<Vec<_>>().chunks(500) {
            for _ in part {
                self.raised += 1;
                let raise = json!({"seq": self.raised, "event": "e", "args": args});
                self.service.say(json!({"raise": raise})).await;
            }
            for _ in part {
                ids.push(self.service.hear_of("accepted").await["instance_id"].as_u64().unwrap());
            }
        }
        ids
    }

    /// The client that has the name of the mode, subscribed; and the number of its subscription.
    async fn client(&self, id: &str, item: Value) -> (Socket, u64) {
        let token = self.node.token("modes", json!({"client": id})).await;
        let mut socket = self.node.socket(CLIENT, Some(&token), JSON).await.unwrap();
        // With a hash that is none nothing is delivered before the list.
        socket.say(json!({"hello": {"set": "none"}})).await;
        socket.hear_of("welcome").await;
        socket.say(json!({"subscriptions": {"items": [item]}})).await;
        let subscribed = socket.hear_of("subscribed").await;
        let accepted = &subscribed["accepted"][0];
        let mode = accepted.get("mode").and_then(Value::as_str).unwrap_or("ordered");
        assert!(MODES.contains(&mode), "{subscribed}");
        (socket, accepted["subscription"].as_u64().unwrap())
    }

    async fn subscription(&self, client: &str) -> Value {
        let path = format!("/v1/sites/modes/clients/{client}/subscriptions/e");
        self.node.admin("GET", &path, None).await.is(200)
    }

    /// Looks at a subscription until this holds.
    async fn until(&self, client: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        let begun = Instant::now();
        loop {
            looks.tick().await;
            let seen = self.subscription(client).await;
            if holds(&seen) {
                return seen;
            }
            assert!(begun.elapsed() < PATIENCE, "{seen}");
        }
    }
}

fn structure() -> Value {
    json!({
        "service_type": "test", "contract_author": "Ackord", "guests": "guest+stateless",
        "events": [
            {"name": "e", "category": "queueing", "lifetime_s": 3600, "size": 1000, "access": "everyone"}
        ]
    })
}

fn id(event: &Value) -> u64 {
    event["instance_id"].as_u64().unwrap()
}

/// The next frame with events; what else comes is passed over.
async fn events(client: &mut Socket) -> Vec<u64> {
    loop {
        let frame = tokio::time::timeout(PATIENCE, client.hear()).await.expect("a frame");
        if let Some(event) = frame.get("event") {
            return vec![id(event)];
        }
        if let Some(events) = frame.get("events") {
            return events.as_array().unwrap().iter().map(id).collect();
        }
    }
}

async fn ack(client: &mut Socket, subscription: u64, id: u64) {
    client.say(json!({"ack": {"subscription": subscription, "instance_id": id}})).await;
}

/// Takes so many events, answered where the mode is.
async fn take(client: &mut Socket, subscription: u64, mode: &str, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    while taken.len() < count {
        for id in events(client).await {
            taken.push(id);
            if mode == "ordered" || mode == "twoway" {
                ack(client, subscription, id).await;
            }
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_thousand_events_reach_one_subscriber_of_each_mode() {
    let mut modes = Modes::start().await;
    let mut clients = Vec::new();
    for mode in MODES {
        let item = json!({"event": "e", "mode": mode});
        clients.push((mode, modes.client(mode, item).await));
    }
    let datagrams = clients.pop().unwrap();
    let taking: Vec<_> = clients
        .into_iter()
        .map(|(mode, (mut client, subscription))| {
            tokio::spawn(async move {
                let taken = take(&mut client, subscription, mode, 1000).await;
                (mode, client, taken)
            })
        })
        .collect();
    let ids = modes.raise(1000).await;
    let last = *ids.last().unwrap();
    for taken in taking {
        let (mode, client, taken) = taken.await.unwrap();
        assert_eq!(taken, ids, "{mode}");
        // The cursor follows, by itself.
        let seen = modes.until(mode, |seen| seen["position"]["instance_id"] == last).await;
        assert_eq!(seen["session"]["delivered"], 1000, "{seen}");
        drop(client);
    }
    // A datagram comes at most once and in order, or is counted.
    let (_, (mut client, _)) = datagrams;
    let seen = modes.until("datagram", |seen| seen["position"]["instance_id"] == last).await;
    let count = |name: &str| seen["session"][name].as_u64().unwrap();
    assert_eq!(count("delivered") + count("dropped"), 1000, "{seen}");
    let mut taken = Vec::new();
    while taken.len() < count("delivered") as usize {
        taken.extend(events(&mut client).await);
    }
    assert!(taken.is_sorted_by(|a, b| a < b) && taken.iter().all(|id| ids.contains(id)));
    modes.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i27_a_batch_waits_for_its_timer_while_oneway_has_everything() {
    let mut modes = Modes::start().await;
    let item = json!({"event": "e", "mode": "batch", "flush_ms": 1500});
    let (mut batch, _) = modes.client("batch", item).await;
    let (mut oneway, number) =
        modes.client("oneway", json!({"event": "e", "mode": "oneway"})).await;
    let begun = Instant::now();
    let mut first = modes.raise(1).await;
    first.extend(modes.raise(2).await);
    assert_eq!(take(&mut oneway, number, "oneway", 3).await, first);
    let all_after = begun.elapsed();
    assert_eq!(events(&mut batch).await, first, "in one frame");
    let flushed_after = begun.elapsed();
    assert!(flushed_after >= Duration::from_millis(1500), "{flushed_after:?}");
    assert!(all_after < flushed_after, "{all_after:?}");
    let next = Instant::now();
    let later = modes.raise(1).await;
    assert_eq!(events(&mut batch).await, later, "a frame of its own");
    assert!(next.elapsed() >= Duration::from_millis(1490), "{:?}", next.elapsed());
    let seen = modes.subscription("batch").await;
    assert_eq!((&seen["mode"], &seen["flush_ms"]), (&json!("batch"), &json!(1500)));
    modes.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_a_bad_mode_is_refused_by_name_and_leaves_nothing() {
    let modes = Modes::start().await;
    let token = modes.node.token("modes", json!({"client": "ordered"})).await;
    let mut client = modes.node.socket(CLIENT, Some(&token), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    client.hear_of("subscribed").await;
    let bad = [
        (json!({"event": "e", "window": 5}), "window"),
        (json!({"event": "e", "mode": "twoway", "window": 1001}), "window"),
        (json!({"event": "e", "mode": "oneway", "flush_ms": 10}), "flush_ms"),
    ];
    client.say(json!({"subscribe": {"items": [bad[0].0]}})).await;
    let subscribed = client.hear_of("subscribed").await;
    assert_eq!(subscribed["refused"][0]["code"], "bad-qos", "{subscribed}");
    assert!(subscribed["refused"][0]["detail"].as_str().unwrap().contains("window"));
    let path = "/v1/sites/modes/clients/ordered/subscriptions/e";
    for (mut body, field) in bad {
        body.as_object_mut().unwrap().remove("event");
        modes.node.admin("PUT", path, Some(body)).await.is_problem(422, "bad-qos", Some(field));
    }
    modes.node.admin("GET", path, None).await.is_problem(404, "not-found", None);
    // Over HTTP there is one mode.
    for (query, field) in [("mode=twoway", "?mode"), ("window=5", "?window")] {
        for way in ["events", "next"] {
            let path = format!("/v1/sites/modes/{way}?event=e&{query}");
            let refused = modes.node.call(None, "GET", &path, None).await;
            refused.is_problem(422, "bad-qos", Some(field));
        }
    }
    let put = Some(json!({"mode": "twoway", "window": 7}));
    let made = modes.node.admin("PUT", path, put).await.is(200);
    assert_eq!((&made["mode"], &made["window"]), (&json!("twoway"), &json!(7)));
    client
        .say(json!({"subscribe": {"items": [{"event": "e", "mode": "batch", "window": 1}]}}))
        .await;
    client.hear_of("subscribed").await;
    assert_eq!(modes.subscription("ordered").await["mode"], "twoway");
    modes.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_slow_subscriber_delays_nobody() {
    let mut modes = Modes::start().await;
    let mut slow = Vec::new();
    for mode in ["oneway", "datagram", "batch", "twoway"] {
        let mut raw = Raw::upgraded_narrow(&modes.node, CLIENT).await;
        raw.say(r#"{"hello":{}}"#).await;
        raw.hear_of("welcome").await;
        let item = json!({"event": "e", "mode": mode});
        raw.say(&json!({"subscriptions": {"items": [item]}}).to_string()).await;
        raw.hear_of("subscribed").await;
        // From now on nobody reads.
        slow.push(raw);
    }
    let (mut fast, number) = modes.client("twoway", json!({"event": "e", "mode": "twoway"})).await;
    let args = json!({"text": "x".repeat(1500)});
    let begun = Instant::now();
    let ids = modes.raise_with(1000, &args).await;
    assert_eq!(take(&mut fast, number, "twoway", 1000).await, ids);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    drop(slow);
    modes.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_a_window_is_full_until_something_is_acknowledged() {
    let mut modes = Modes::start().await;
    let ids = modes.raise(12).await;
    for window in [1, 5] {
        let item = json!({"event": "e", "mode": "twoway", "window": window});
        let (mut client, number) = modes.client("twoway", item).await;
        for id in &ids[..window] {
            assert_eq!(events(&mut client).await, [*id]);
        }
        let seen = modes.until("twoway", |seen| seen["session"]["in_flight"] == window).await;
        assert_eq!(seen["session"]["queued"], 12 - window, "{seen}");
        // The last of them first: one more comes, the cursor stays.
        ack(&mut client, number, ids[window - 1]).await;
        assert_eq!(events(&mut client).await, [ids[window]]);
        let nack = json!({"subscription": number, "instance_id": ids[window]});
        client.say(json!({"nack": nack})).await;
        assert_eq!(events(&mut client).await, [ids[window]], "it comes again");
        let cursor = if window == 1 { ids[0] } else { 0 };
        modes.until("twoway", |seen| seen["position"]["instance_id"] == cursor).await;
        let path = "/v1/sites/modes/clients/twoway/subscriptions/e";
        drop(client);
        modes.node.admin("DELETE", path, None).await.is(204);
    }
    modes.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_that_somebody_else_sets_holds_from_the_next_session_on() {
    let mut modes = Modes::start().await;
    let ids = modes.raise(5).await;
    let (mut client, number) = modes.client("ordered", json!({"event": "e"})).await;
    assert_eq!(events(&mut client).await, [ids[0]]);
    let path = "/v1/sites/modes/clients/ordered/subscriptions/e";
    let put = Some(json!({"mode": "twoway", "window": 3}));
    modes.node.admin("PUT", path, put).await.is(200);
    ack(&mut client, number, ids[0]).await;
    assert_eq!(events(&mut client).await, [ids[1]]);
    let seen = modes.subscription("ordered").await;
    assert_eq!((&seen["mode"], &seen["session"]["mode"]), (&json!("twoway"), &json!("ordered")));
    assert_eq!(seen["session"]["in_flight"], 1, "{seen}");
    drop(client);
    let token = modes.node.token("modes", json!({"client": "ordered"})).await;
    let mut client = modes.node.socket(CLIENT, Some(&token), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    assert_eq!(client.hear_of("subscribed").await["accepted"][0]["mode"], "twoway");
    for id in &ids[1..4] {
        assert_eq!(events(&mut client).await, [*id]);
    }
    modes.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_and_not_committed_comes_again_in_a_new_session() {
    let mut modes = Modes::start().await;
    let item = json!({"event": "e", "mode": "oneway"});
    let (mut client, number) = modes.client("oneway", item.clone()).await;
    let ids = modes.raise(10).await;
    assert_eq!(take(&mut client, number, "oneway", 10).await, ids);
    let last = ids[9];
    modes.until("oneway", |seen| seen["position"]["instance_id"] == last).await;
    drop(client);
    let later = modes.raise(3).await;
    let (mut client, number) = modes.client("oneway", item).await;
    assert_eq!(take(&mut client, number, "oneway", 3).await, later);
    modes.node.stop().await;
}
