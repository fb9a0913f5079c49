//! Dead letters through the front: what a subscription gives up is kept, mended and raised again.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Demo, Running, Socket};

const SITE: &str = "/v1/sites/demo";
const JSON: &str = "ackord.v1.json";
/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    node: Running,
    demo: Demo,
}

impl World {
    async fn start() -> Self {
        let node = Running::start().await;
        let demo = node.demo().await;
        Self { node, demo }
    }

    /// The demo's client, subscribed to its readings.
    async fn client(&self, mode: &str, attempts: u32) -> Socket {
        let path = format!("{SITE}/client");
        let mut client = self.node.socket(&path, Some(&self.demo.client), JSON).await.unwrap();
        client.say(json!({"hello": {"set": "none"}})).await;
        client.hear_of("welcome").await;
        let item = json!({"event": "reading", "mode": mode, "max_attempts": attempts, "dead_letter": true});
        client.say(json!({"subscriptions": {"items": [item]}})).await;
        let subscribed = client.hear_of("subscribed").await;
        assert_eq!(subscribed["refused"], json!(null), "{subscribed}");
        client
    }

    async fn raise(&self, args: Value) -> u64 {
        let (token, path) = (Some(&*self.demo.service), format!("{SITE}/events/reading"));
        let raised = self.node.call(token, "POST", &path, Some(args)).await.is(200);
        raised["instance_id"].as_u64().unwrap()
    }

    async fn letters(&self, query: &str) -> Vec<Value> {
        let path = format!("{SITE}/dead-letters{query}");
        let page = self.node.admin("GET", &path, None).await.is(200);
        page["items"].as_array().unwrap().clone()
    }
}

async fn next(client: &mut Socket) -> Value {
    tokio::time::timeout(PATIENCE, client.hear_of("event")).await.expect("an event")
}

async fn answer(client: &mut Socket, kind: &str, event: &Value) {
    let of = json!({"subscription": event["subscription"], "instance_id": event["instance_id"]});
    client.say(json!({ kind: of })).await;
}

async fn committed(client: &mut Socket) {
    tokio::time::timeout(PATIENCE, client.hear_of("committed")).await.expect("a commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_returned_to_the_last_attempt_is_kept_mended_and_raised_again() {
    let world = World::start().await;
    let first = world.raise(json!({"celsius": "warm"})).await;
    let second = world.raise(json!({"celsius": 21})).await;
    let mut client = world.client("ordered", 2).await;
    for attempt in 1..=2 {
        let event = next(&mut client).await;
        assert_eq!((&event["instance_id"], &event["attempt"]), (&json!(first), &json!(attempt)));
        answer(&mut client, "nack", &event).await;
    }
    let event = next(&mut client).await;
    assert_eq!(event["instance_id"], json!(second), "the next one follows");
    answer(&mut client, "ack", &event).await;

    let [letter] = &world.letters("?state=waiting&client=c").await[..] else { panic!() };
    let expected = json!({
        "state": "waiting", "event": "reading", "instance_id": first, "original_id": first,
        "attempts": 2, "because": "returned", "args": {"celsius": "warm"}, "null": false,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&letter[name], value, "{name} of {letter}");
    }
    assert_eq!(world.letters("?state=replayed").await.len(), 0);
    assert_eq!(world.letters("?push=p").await.len(), 0);
    let path =
        format!("{SITE}/clients/{}/subscriptions/reading", letter["client"].as_str().unwrap());
    let shown = world.node.admin("GET", &path, None).await.is(200);
    assert_eq!((&shown["dead_letter"], &shown["dead_letters"]), (&json!(true), &json!(1)));

    // Mended, with a note of why.
    let path = format!("{SITE}/dead-letters/{}", letter["id"]);
    let change = json!({"args": {"celsius": 30}, "note": "it said a word"});
    let mended = world.node.admin("PATCH", &path, Some(change)).await.is(200);
    assert_eq!(
        (&mended["args"], &mended["note"]),
        (&json!({"celsius": 30}), &json!("it said a word"))
    );
    assert!(mended["edited_ms"].is_u64(), "{mended}");

    let replayed = world.node.admin("POST", &format!("{path}/replay"), None).await.is(200);
    assert_eq!(replayed["state"], "replayed");
    let event = next(&mut client).await;
    assert_eq!(event["instance_id"], replayed["replayed_id"]);
    assert_eq!((&event["original_id"], &event["attempt"]), (&json!(first), &json!(1)));
    assert_eq!(event["args"], json!({"celsius": 30}));
    answer(&mut client, "ack", &event).await;
    committed(&mut client).await;
    let again = world.node.admin("POST", &format!("{path}/replay"), None).await;
    again.is_problem(409, "conflict", None);
    let queue = world.node.admin("GET", &format!("{SITE}/queues/reading"), None).await.is(200);
    assert_eq!(queue["items"][2]["original_id"], json!(first), "{queue}");

    world.node.admin("DELETE", &path, None).await.is(204);
    world.node.admin("GET", &path, None).await.is_problem(404, "not-found", None);
    assert_eq!(world.letters("").await.len(), 0);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_window_one_is_given_up_and_no_later_session_is_sent_it() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(world.raise(json!(n)).await);
    }
    let mut client = world.client("twoway", 1).await;
    let mut events = Vec::new();
    for _ in &ids {
        events.push(next(&mut client).await);
    }
    answer(&mut client, "nack", &events[1]).await;
    let letters = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while world.letters("").await.is_empty() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, letters).await.expect("a letter");
    drop(client);
    let mut client = world.client("twoway", 1).await;
    for id in [ids[0], ids[2]] {
        let event = next(&mut client).await;
        assert_eq!(event["instance_id"], json!(id));
        answer(&mut client, "ack", &event).await;
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_operate_changes_nothing_and_what_is_wrong_is_named() {
    let world = World::start().await;
    world.raise(json!(1)).await;
    let mut client = world.client("ordered", 1).await;
    let event = next(&mut client).await;
    answer(&mut client, "nack", &event).await;
    committed(&mut client).await;
    let [letter] = &world.letters("").await[..] else { panic!() };
    let path = format!("{SITE}/dead-letters/{}", letter["id"]);
    let token = Some(&*world.demo.client);
    for method in ["GET", "PATCH", "DELETE"] {
        let refused = world.node.call(token, method, &path, Some(json!({}))).await;
        refused.is_problem(403, "access-denied", Some("Authorization"));
    }
    let observer = world.node.token("demo", json!("observer")).await;
    world.node.call(Some(&observer), "GET", &path, None).await.is(200);
    let refused = world.node.call(Some(&observer), "POST", &format!("{path}/replay"), None).await;
    refused.is_problem(403, "access-denied", Some("Authorization"));
    for (change, field) in [
        (json!({"args": 1, "data": "AA=="}), "data"),
        (json!({"content_type": "text/plain"}), "content_type"),
        (json!({"args": "x".repeat(3000)}), "args"),
        (json!({"note": "x".repeat(1025)}), "note"),
        (json!({"arg": 1}), "arg"),
    ] {
        let refused = world.node.admin("PATCH", &path, Some(change)).await;
        refused.is_problem(422, "invalid", Some(field));
    }
    let stale = world.node.admin("GET", &format!("{SITE}/dead-letters?state=x"), None).await;
    stale.is_problem(422, "invalid", Some("?state"));
    for id in ["x", "-1", "99999999999999999999"] {
        let path = format!("{SITE}/dead-letters/{id}");
        world.node.admin("GET", &path, None).await.is_problem(404, "not-found", None);
    }
    // Without a last attempt nothing can be given up.
    let path = format!("{SITE}/clients/c/subscriptions/reading");
    let body = Some(json!({"dead_letter": true}));
    let refused = world.node.admin("PUT", &path, body).await;
    refused.is_problem(422, "bad-qos", Some("dead_letter"));
    world.node.stop().await;
}
