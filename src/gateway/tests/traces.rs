//! Trace contexts through the front: whatever way an event comes in and goes out, its context goes with it,
//! and nothing is refused because of one.

#![allow(clippy::unwrap_used)]

mod callbacks;
mod support;

use callbacks::{Receiver, World};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Demo, Reply, Running, Socket, reply};

const SITE: &str = "/v1/sites/demo";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const STATE: &str = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";

type Headers<'a> = &'a [(&'a str, &'a [u8])];

/// A POST of a service with these headers.
async fn post(
    node: &Running,
    demo: &Demo,
    path: &str,
    headers: Headers<'_>,
    body: String,
) -> Reply {
    let path = format!("{SITE}{path}");
    let mut request = node.request(Method::POST, &path).bearer_auth(&demo.service).body(body);
    for (name, value) in headers {
        let value = reqwest::header::HeaderValue::from_bytes(value).unwrap();
        request = request.header(*name, value);
    }
    reply(request).await
}

/// The contexts of a queue, in order.
async fn kept(node: &Running) -> Vec<(Value, Value)> {
    let page = node.admin("GET", &format!("{SITE}/queues/reading"), None).await.is(200);
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| (item["traceparent"].clone(), item["tracestate"].clone())).collect()
}

const JSON: (&str, &[u8]) = ("content-type", b"application/json");

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_the_context_of_its_request_or_its_own_however_it_comes_in() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let of = |parent: &str, state: &str| {
        let text = |text: &str| if text.is_empty() { json!(null) } else { json!(text) };
        (text(parent), text(state))
    };
    let mut wanted = Vec::new();
    let (parent, other, state) = (PARENT.as_bytes(), OTHER.as_bytes(), STATE.as_bytes());
    let request = ("traceparent", other);

    // As it is.
    let headers = [JSON, ("traceparent", parent), ("tracestate", state)];
    post(&node, &demo, "/events/reading", &headers, "1".into()).await.is(200);
    wanted.push(of(PARENT, STATE));
    post(&node, &demo, "/events/reading", &[JSON], "2".into()).await.is(200);
    wanted.push(of("", ""));
    // Several headers with what vendors add are one list.
    let headers = [JSON, request, ("tracestate", b"a=1"), ("tracestate", b"b=2")];
    post(&node, &demo, "/events/reading", &headers, "3".into()).await.is(200);
    wanted.push(of(OTHER, "a=1,b=2"));

    // Lines: each its own, else that of the request.
    let lines = format!(
        "{}\n{}\n{}\n",
        json!({"event": "reading", "args": 4, "traceparent": PARENT, "tracestate": STATE}),
        json!({"event": "reading", "args": 5}),
        json!({"event": "reading", "args": 6, "traceparent": {"no": [1]}, "tracestate": 7}),
    );
    let headers = [("content-type", &b"application/x-ndjson"[..]), request];
    assert_eq!(post(&node, &demo, "/events", &headers, lines).await.status, 200);
    wanted.extend([of(PARENT, STATE), of(OTHER, ""), of(OTHER, "")]);

    // CloudEvents: one, many, and in headers.
    let event = |id: &str, more: Value| {
        let mut event =
            json!({"specversion": "1.0", "id": id, "source": "/s", "type": "reading", "data": 1});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let own = json!({"traceparent": PARENT, "tracestate": STATE});
    let headers = [("content-type", &b"application/cloudevents+json"[..]), request];
    let one = event("1", own.clone()).to_string();
    post(&node, &demo, "/events", &headers, one).await.is(200);
    wanted.push(of(PARENT, STATE));
    let headers = [("content-type", &b"application/cloudevents-batch+json"[..]), request];
    let many =
        json!([event("2", own), event("3", json!({})), event("4", json!({"traceparent": [1]}))]);
    assert_eq!(post(&node, &demo, "/events", &headers, many.to_string()).await.status, 200);
    wanted.extend([of(PARENT, STATE), of(OTHER, ""), of(OTHER, "")]);
    let binary: [(&str, &[u8]); 5] = [
        JSON,
        ("ce-specversion", b"1.0"),
        ("ce-id", b"5"),
        ("ce-source", b"/s"),
        ("ce-type", b"reading"),
    ];
    let headers = [&binary[..], &[request, ("ce-traceparent", parent), ("ce-tracestate", state)]];
    post(&node, &demo, "/events", &headers.concat(), "1".into()).await.is(200);
    wanted.push(of(PARENT, STATE));

    // A session.
    let path = format!("{SITE}/service");
    let mut service = node.socket(&path, Some(&demo.service), "ackord.v1.json").await.unwrap();
    service.hello_service().await;
    let raise = json!({"seq": 1, "event": "reading", "args": 1, "traceparent": PARENT, "tracestate": STATE});
    service.say(json!({ "raise": raise })).await;
    service.hear_of("accepted").await;
    wanted.push(of(PARENT, STATE));

    assert_eq!(kept(&node).await, wanted);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_refused_for_a_context_that_is_none() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let (parent, huge) = (PARENT.as_bytes(), format!("a={}", "x".repeat(4000)));
    // What is wrong, and whether the parent is kept nevertheless.
    let cases: &[(Headers<'_>, bool)] = &[
        (&[("traceparent", b"")], false),
        (&[("traceparent", b"00-0-0-0")], false),
        (&[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e473\u{fc}".as_bytes())], false),
        (&[("traceparent", &[0xff; 55])], false),
        (&[("traceparent", parent), ("traceparent", parent)], false),
        (&[("tracestate", b"a=1")], false),
        (&[("traceparent", parent), ("tracestate", huge.as_bytes())], true),
        (&[("traceparent", parent), ("tracestate", b"a=1,a=2")], true),
        (&[("traceparent", parent), ("tracestate", &[0xfe])], true),
    ];
    for (headers, _) in cases {
        let headers = [&[JSON], *headers].concat();
        post(&node, &demo, "/events/reading", &headers, "1".into()).await.is(200);
    }
    for (number, (headers, _)) in cases.iter().enumerate() {
        // The same as attributes in headers.
        let id = number.to_string();
        let names: Vec<String> = headers.iter().map(|(name, _)| format!("ce-{name}")).collect();
        let own = names.iter().zip(*headers).map(|(name, (_, value))| (&**name, *value));
        let enough: [(&str, &[u8]); 5] = [
            JSON,
            ("ce-specversion", b"1.0"),
            ("ce-id", id.as_bytes()),
            ("ce-source", b"/s"),
            ("ce-type", b"reading"),
        ];
        let headers: Vec<_> = enough.into_iter().chain(own).collect();
        post(&node, &demo, "/events", &headers, "1".into()).await.is(200);
    }
    let wanted: Vec<(Value, Value)> = cases
        .iter()
        .chain(cases)
        .map(|(_, stands)| (if *stands { json!(PARENT) } else { json!(null) }, json!(null)))
        .collect();
    assert_eq!(kept(&node).await, wanted);

    let mut service = node
        .socket(&format!("{SITE}/service"), Some(&demo.service), "ackord.v1.json")
        .await
        .unwrap();
    service.hello_service().await;
    for (seq, wrong) in
        (1..).zip([json!(null), json!(5), json!([{}]), json!("ü"), json!("x".repeat(9000))])
    {
        let raise = json!({"seq": seq, "event": "reading", "args": 1, "traceparent": wrong, "tracestate": wrong});
        service.say(json!({ "raise": raise })).await;
        service.hear_of("accepted").await;
    }
    node.stop().await;
}

async fn subscribed(node: &Running, demo: &Demo) -> Socket {
    let path = format!("{SITE}/client");
    let mut client = node.socket(&path, Some(&demo.client), "ackord.v1.json").await.unwrap();
    client.say(json!({"hello": {"set": "none"}})).await;
    client.hear_of("welcome").await;
    client.say(json!({"subscriptions": {"items": [{"event": "reading"}]}})).await;
    client.hear_of("subscribed").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_comes_with_the_event_wherever_it_goes_out_and_a_retry_is_the_same_event() {
    let (world, receiver) = (World::start().await, Receiver::start().await);
    let (node, demo) = (&world.running, &world.demo);
    world.push("plain", &receiver, json!({})).await;
    let headers = [
        JSON,
        ("traceparent", PARENT.as_bytes()),
        ("tracestate", STATE.as_bytes()),
        ("idempotency-key", b"k"),
    ];
    let first = post(node, demo, "/events/reading", &headers, "1".into()).await.is(200);
    // Again, as part of another trace: still the same event.
    let headers = [JSON, ("traceparent", OTHER.as_bytes()), ("idempotency-key", b"k")];
    let again = post(node, demo, "/events/reading", &headers, "1".into()).await.is(200);
    assert_eq!((&again["duplicate"], &again["instance_id"]), (&json!(true), &first["instance_id"]));

    let check = |said: &Value, how: &str| {
        assert_eq!(
            (&said["traceparent"], &said["tracestate"]),
            (&json!(PARENT), &json!(STATE)),
            "{how}: {said}"
        );
    };
    let mut client = subscribed(node, demo).await;
    check(&client.hear_of("event").await, "a frame");
    drop(client);
    for format in ["", "&format=cloudevents"] {
        let mut stream = node.stream(None, &format!("event=reading{format}")).await.unwrap();
        check(&stream.event().await.data, "a stream");
        check(&node.poll(None, &format!("event=reading{format}")).await.is(200), "a poll");
        check(
            &node.poll(Some(&demo.client), &format!("event=reading{format}")).await.is(200),
            "a poll",
        );
    }
    let received = receiver.wait_for(1).await;
    check(&received[0].json()["event"], "a callback");
    assert_eq!(received[0].header("traceparent"), PARENT);
    assert_eq!(received[0].header("tracestate"), STATE);
    let other = Receiver::start().await;
    world.push("cloud", &other, json!({"format": "cloudevents"})).await;
    let received = other.wait_for(1).await;
    check(&received[0].json(), "a CloudEvent");
    assert_eq!(received[0].header("traceparent"), PARENT);
    world.running.stop().await;
}
