//! Stateful clients over plain HTTP, through real sockets: streams with acknowledgements by request,
//! and long polls.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ackord_agents::BrokerOptions;
use ackord_gateway::GatewayLimits;
use serde_json::{Value, json};
use support::Running;

/// The ack token of an event's data.
fn token(data: &Value) -> &str {
    data["ack"].as_str().unwrap_or_else(|| panic!("no ack token: {data}"))
}

async fn cursor(node: &Running, event: &str) -> u64 {
    let path = format!("/v1/sites/demo/clients/c/subscriptions/{event}");
    let subscription = node.admin("GET", &path, None).await.is(200);
    subscription["position"]["instance_id"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_client_goes_on_with_each_acknowledgement() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(node.raise(&demo, "reading", n).await);
    }
    let client = Some(demo.client.as_str());
    let mut stream = node.stream(client, "event=reading&event=state").await.unwrap();
    let state = node.raise(&demo, "state", 100).await;
    // One of each subscription is in flight, whatever is retained.
    let (first, second) = (stream.event().await, stream.event().await);
    assert_eq!(
        (first.data["instance_id"].as_u64(), second.data["instance_id"].as_u64()),
        (Some(ids[0]), Some(state))
    );
    let mut due = first;
    for id in &ids {
        assert_eq!(due.data["instance_id"], *id);
        assert_eq!((&due.data["attempt"], due.id.is_some()), (&json!(1), true));
        let committed = node.ack(token(&due.data)).await.is(200)["committed"].clone();
        assert_eq!(committed["instance_id"], *id);
        assert_eq!(cursor(&node, "reading").await, *id, "it is committed when it is answered");
        // Again, it moves nothing and is answered the same.
        node.ack(token(&due.data)).await.is(200);
        if id != ids.last().unwrap() {
            due = stream.event().await;
        }
    }
    drop(stream);
    // The set is the client's: it goes on without naming it, with what is not acknowledged.
    let mut again = node.stream(client, "").await.unwrap();
    let resumed = again.until("@resume").await.data;
    assert_eq!(resumed["subscriptions"].as_array().unwrap().len(), 2);
    assert_eq!(again.event().await.data["instance_id"], state);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_is_told_again_and_any_transmission_may_be_acknowledged() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let ids = [node.raise(&demo, "reading", 1).await, node.raise(&demo, "reading", 2).await];
    let query = "event=reading&ack_timeout_ms=1000";
    let mut stream = node.stream(Some(&demo.client), query).await.unwrap();
    let first = stream.event().await.data;
    let again = stream.event().await.data;
    assert_eq!((&again["instance_id"], &again["attempt"]), (&json!(ids[0]), &json!(2)));
    assert_eq!((first.get("redelivery"), &again["redelivery"]), (None, &json!(true)));
    node.ack(token(&first)).await.is(200);
    let next = stream.event().await.data;
    assert_eq!((&next["instance_id"], &next["attempt"]), (&json!(ids[1]), &json!(1)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_replaces_a_stream_and_what_it_delivered() {
    let node = Running::start().await;
    let demo = node.demo().await;
    node.raise(&demo, "reading", 1).await;
    let client = Some(demo.client.as_str());
    let mut older = node.stream(client, "event=reading").await.unwrap();
    let event = older.event().await.data;
    let mut newer = node.stream(client, "").await.unwrap();
    let closing = older.end().await.data;
    assert_eq!((&closing["code"], &closing["reconnect"]), (&json!("replaced"), &json!(false)));
    let same = newer.event().await.data;
    assert_eq!(same["instance_id"], event["instance_id"]);
    node.ack(token(&event)).await.is_problem(409, "replaced", None);
    assert_eq!(cursor(&node, "reading").await, 0);
    let mut socket = node.socket("/v1/sites/demo/client", client, "ackord.v1.json").await.unwrap();
    socket.say(json!({"hello": {}})).await;
    socket.hear_of("welcome").await;
    assert_eq!(newer.end().await.data["code"], "replaced");
    node.ack(token(&same)).await.is_problem(409, "replaced", None);
    // Sought: the position is of another generation.
    let mut newest = node.stream(client, "").await.unwrap();
    let event = newest.event().await.data;
    let path = "/v1/sites/demo/clients/c/subscriptions/reading/seek";
    node.admin("POST", path, Some(json!({"after": 0}))).await.is(200);
    node.ack(token(&event)).await.is_problem(409, "conflict", None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_token_is_worth_what_it_proves() {
    let node = Running::start().await;
    let demo = node.demo().await;
    node.admin("PUT", "/v1/sites/demo/clients/d", Some(json!({"user": "u"}))).await.is(201);
    let other = node.token("demo", json!({"client": "d"})).await;
    let credential = node.token("demo", json!({"client": "c"})).await;
    for n in 0..3 {
        node.raise(&demo, "reading", n).await;
    }
    let mut stream = node.stream(Some(&credential), "event=reading").await.unwrap();
    let event = stream.event().await.data;
    let (good, ack) = (token(&event), "/v1/sites/demo/ack");
    let mut forged = good.to_owned();
    forged.replace_range(9..10, if &good[9..10] == "A" { "B" } else { "A" });
    for garbage in ["", "x", "gibberish", &forged, &good[1..], &"A".repeat(600)] {
        node.ack(garbage).await.is_problem(422, "invalid", Some("token"));
    }
    let with = async |bearer: &str| {
        node.call(Some(bearer), "POST", ack, Some(json!({"token": good}))).await
    };
    for wrong in [&other, &demo.admin, &demo.service] {
        with(wrong).await.is_problem(403, "access-denied", Some("Authorization"));
    }
    with("ak_x_nonsense").await.is_problem(401, "bad-credentials", Some("Authorization"));
    let elsewhere = node.call(None, "POST", "/v1/sites/no/ack", Some(json!({"token": good}))).await;
    elsewhere.is_problem(422, "invalid", Some("token"));
    for (body, field) in [
        (json!({}), "token"),
        (json!({"token": good, "tokens": []}), "token"),
        (json!({"tokens": vec!["x"; 101]}), "tokens"),
        (json!({"tken": "x"}), "tken"),
    ] {
        node.call(None, "POST", ack, Some(body)).await.is_problem(422, "invalid", Some(field));
    }
    let large = Some(json!({"token": "x".repeat(70_000)}));
    node.call(None, "POST", ack, large).await.is_problem(413, "too-large", Some("body"));
    assert_eq!(cursor(&node, "reading").await, 0);
    // With the client's own bearer, and several at once, each for itself.
    with(&demo.client).await.is(200);
    let next = stream.event().await.data;
    let body = json!({"tokens": ["x", token(&next)]});
    let results = node.call(None, "POST", ack, Some(body)).await.is(200)["results"].clone();
    assert_eq!(results[0]["problem"]["field"], "tokens[0]");
    assert_eq!(results[1]["committed"]["instance_id"], next["instance_id"]);
    // With the token that opened the session, what the session delivered ends.
    let last = stream.event().await.data;
    let id = credential.split('_').nth(1).unwrap();
    node.admin("DELETE", &format!("/v1/sites/demo/tokens/{id}"), None).await.is(204);
    let closing = stream.end().await.data;
    assert_eq!(
        (&closing["code"], &closing["reconnect"]),
        (&json!("bad-credentials"), &json!(false))
    );
    node.ack(token(&last)).await.is_problem(401, "bad-credentials", Some("token"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_hands_out_the_same_until_it_is_acknowledged() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let client = Some(demo.client.as_str());
    let none = node.poll(client, "event=reading&event=state&wait=0").await;
    assert_eq!((none.status, none.text.as_str()), (204, ""));
    let mut ids = Vec::new();
    for (event, n) in [("reading", 0), ("state", 1), ("reading", 2)] {
        ids.push(node.raise(&demo, event, n).await);
    }
    // In the order of the site, over all subscriptions.
    for id in ids {
        let first = node.poll(client, "wait=5s").await.is(200);
        assert_eq!((&first["instance_id"], &first["attempt"]), (&json!(id), &json!(1)));
        let again = node.poll(client, "wait=5s").await.is(200);
        assert_eq!((&again["instance_id"], &again["attempt"]), (&json!(id), &json!(2)));
        assert_eq!((first.get("redelivery"), &again["redelivery"]), (None, &json!(true)));
        node.ack(token(&first)).await.is(200);
    }
    assert_eq!(node.poll(client, "wait=0").await.status, 204);
    let epochs = node.admin("GET", "/v1/sites/demo/clients/c", None).await.is(200);
    assert_eq!(epochs["epoch"], 1, "all of it was one session");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_waits_for_an_event_and_not_for_longer() {
    let limits =
        GatewayLimits { poll_wait_max: Duration::from_secs(10), ..GatewayLimits::default() };
    let options = BrokerOptions { polls_max: 2, ..BrokerOptions::default() };
    let node = Running::start_with(limits, options).await;
    let demo = node.demo().await;
    let client = Some(demo.client.as_str());
    node.poll(client, "event=reading&wait=50ms").await;
    let (first, guest) =
        (node.asking(client, "wait=10s"), node.asking(None, "event=reading&wait=10s"));
    node.until_metric("ackord_sessions{kind=\"poll\"} 2").await;
    let busy = node.poll(None, "event=reading&wait=10s").await;
    busy.is_problem(503, "busy", None);
    let id = node.raise(&demo, "reading", 7).await;
    for asked in [first, guest] {
        assert_eq!(asked.await.unwrap().is(200)["instance_id"], id);
    }
    node.poll(client, "wait=11s").await.is_problem(422, "invalid", Some("?wait"));
    node.poll(client, "after=x").await.is_problem(422, "invalid", Some("?after"));
    node.poll(client, "event=nothing").await.is_problem(404, "unknown-event", Some("?event"));
    node.poll(None, "event=notice").await.is_problem(403, "access-denied", None);
    node.poll(None, "").await.is_problem(422, "invalid", Some("?event"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_question_and_the_newest_session_win() {
    let mut node = Running::start().await;
    let demo = node.demo().await;
    let client = Some(demo.client.as_str());
    node.poll(client, "event=reading&wait=0").await;
    let older = node.asking(client, "wait=30s");
    node.until_metric("ackord_sessions{kind=\"poll\"} 1").await;
    let newer = node.asking(client, "wait=30s");
    older.await.unwrap().is_problem(409, "replaced", None);
    let mut stream = node.stream(client, "").await.unwrap();
    newer.await.unwrap().is_problem(409, "replaced", None);
    // A question is a deliberate act: it takes over as any session does.
    let taking = node.asking(client, "wait=30s");
    assert_eq!(stream.end().await.data["code"], "replaced");
    node.admin("DELETE", "/v1/sites/demo/clients/c", None).await.is(204);
    taking.await.unwrap().is_problem(404, "not-registered", None);
    let waiting = node.asking(None, "event=reading&wait=30s");
    node.until_metric("ackord_sessions{kind=\"poll\"} 1").await;
    node.gateway.take().unwrap().stop().await;
    waiting.await.unwrap().is_problem(503, "shutting-down", None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_acknowledged_by_sending_it_back() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let ack = async |body: Value| node.call(None, "POST", "/v1/sites/demo/ack", Some(body)).await;
    for (n, format) in [(0, "ackord"), (1, "cloudevents"), (2, "ackord")] {
        node.raise(&demo, "reading", n).await;
        let query = format!("event=reading&wait=20s&format={format}");
        let event = node.poll(Some(&demo.client), &query).await.is(200);
        let committed = ack(event).await.is(200)["committed"]["instance_id"].as_u64();
        let id = cursor(&node, "reading").await;
        assert_eq!(committed, Some(id));
        // What a question was answered is remembered as any other transmission.
        let path = format!("/v1/sites/demo/why?client=c&event=reading&instance_id={id}");
        let why = node.admin("GET", &path, None).await.is(200);
        assert_eq!(why["verdict"], "acknowledged", "{why}");
        assert!(why["sent"]["transmissions"][0]["committed_ms"].is_u64(), "{why}");
    }
    ack(json!({"ack": "x", "args": 1})).await.is_problem(422, "invalid", Some("ack"));
    ack(json!({"ackordack": "x"})).await.is_problem(422, "invalid", Some("ackordack"));
    ack(json!({"ack": "x", "token": "y"})).await.is_problem(422, "invalid", Some("ack"));
    ack(json!({"args": 1})).await.is_problem(422, "invalid", Some("args"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_refused_leaves_no_subscription_behind() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let client = Some(demo.client.as_str());
    let refused = node.poll(client, "event=reading&event=nothing&wait=0").await;
    refused.is_problem(404, "unknown-event", Some("?event"));
    let field = Some("?ack_timeout_ms");
    for timeout in ["1", "4294967295", "4294967296", "x"] {
        let query = format!("event=reading&event=state&wait=0&ack_timeout_ms={timeout}");
        node.poll(client, &query).await.is_problem(422, "invalid", field);
    }
    let path = "/v1/sites/demo/clients/c/subscriptions";
    let subscriptions = node.admin("GET", path, None).await.is(200);
    assert_eq!(subscriptions["items"], json!([]), "{subscriptions}");
    let none = node.poll(client, "event=reading&event=state&wait=0").await;
    assert_eq!(none.status, 204);
    assert_eq!(none.headers["cache-control"], "no-store");
    let subscriptions = node.admin("GET", path, None).await.is(200);
    assert_eq!(subscriptions["items"].as_array().unwrap().len(), 2, "{subscriptions}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_carries_its_position_from_question_to_question() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let after = |reply: &support::Reply| reply.headers["ackord-after"].to_str().unwrap().to_owned();
    let none = node.poll(None, "event=reading&event=state&start=latest&wait=0").await;
    assert_eq!(none.status, 204);
    let mut position = after(&none);
    for n in 0..3 {
        node.raise(&demo, "reading", 2 * n).await;
        node.raise(&demo, "state", 2 * n + 1).await;
        for expected in [2 * n, 2 * n + 1] {
            let query = format!("event=reading&event=state&start=latest&after={position}");
            let reply = node.poll(None, &query).await;
            let data = reply.is(200);
            assert_eq!(
                (&data["args"]["n"], &data["after"]),
                (&json!(expected), &json!(after(&reply)))
            );
            assert_eq!(data.get("ack"), None);
            position = after(&reply);
        }
    }
    let lost = node.poll(None, "event=reading&after=gibberish").await;
    let resume: Value =
        serde_json::from_str(lost.headers["ackord-resume"].to_str().unwrap()).unwrap();
    assert_eq!(resume["unreadable"], true);
    assert_eq!(lost.is(200)["args"]["n"], 0);
    // Whoever wants to begin at the newest has stood somewhere: it is at the first one, not nowhere.
    let lost = node.poll(None, "event=reading&start=latest&wait=0&after=gibberish").await;
    assert_eq!(lost.is(200)["args"]["n"], 0);
    let cloud = node.poll(None, "event=reading&format=cloudevents").await;
    assert_eq!(cloud.headers["content-type"], "application/cloudevents+json");
    let cloud = cloud.is(200);
    assert_eq!((&cloud["specversion"], &cloud["data"]), (&json!("1.0"), &json!({"n": 0})));
    assert!(cloud["ackordafter"].is_string());
    node.stop().await;
}
