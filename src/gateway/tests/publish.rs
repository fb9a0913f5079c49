//! Raising over HTTP in every form: plain bytes, CBOR, CloudEvents in their three modes, batches.

#![allow(clippy::unwrap_used)]

mod support;

use ackord_agents::BrokerOptions;
use ackord_gateway::{GatewayLimits, GatewayOptions};
use serde_json::{Value, json};
use support::{Demo, Reply, Running, reply};

const EVENTS: &str = "/v1/sites/demo/events";
const LINES: &str = "application/x-ndjson";
const ENVELOPE: &str = "application/cloudevents+json";
const ENVELOPES: &str = "application/cloudevents-batch+json";

async fn post(
    node: &Running,
    demo: &Demo,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Reply {
    let mut request = node.request("POST".parse().unwrap(), path).bearer_auth(&demo.service);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    reply(request.body(body)).await
}

/// Sends a batch; the lines of the answer.
async fn batch(node: &Running, demo: &Demo, headers: &[(&str, &str)], lines: &str) -> Vec<Value> {
    let headers: Vec<_> = [("Content-Type", LINES)].iter().chain(headers).copied().collect();
    let answer = post(node, demo, EVENTS, &headers, lines.to_owned()).await;
    results(&answer)
}

fn results(answer: &Reply) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], LINES);
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is retained of an event, the newest last.
async fn retained(node: &Running, event: &str) -> Vec<Value> {
    let path = format!("/v1/sites/demo/queues/{event}?limit=1000");
    let page = node.admin("GET", &path, None).await.is(200);
    page["items"].as_array().unwrap().clone()
}

/// Lines that raise `reading` with these numbers.
fn numbered(numbers: std::ops::Range<u32>) -> String {
    let line = |n| format!("{{\"event\":\"reading\",\"args\":{{\"n\":{n}}}}}\n");
    numbers.map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_body_is_what_its_media_type_says() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let path = "/v1/sites/demo/events/reading";
    let cbor = ("Content-Type", "application/cbor");
    post(&node, &demo, path, &[cbor], vec![0xa1, 0x61, b'n', 0x01]).await.is(200);
    post(&node, &demo, path, &[("Content-Type", "image/png")], vec![0xff, 0x00]).await.is(200);
    // Lines are an event's arguments at an event's own address.
    post(&node, &demo, path, &[("Content-Type", LINES)], "{}\n{}").await.is(200);
    let seen = retained(&node, "reading").await;
    assert_eq!((&seen[0]["content_type"], &seen[0]["data"]), (&json!(cbor.1), &json!("oWFuAQ==")));
    assert_eq!((&seen[1]["content_type"], &seen[1]["data"]), (&json!("image/png"), &json!("/wA=")));
    assert_eq!(seen[2]["content_type"], LINES);

    let deep = [vec![0x81; 65], vec![0x00]].concat();
    for (body, detail) in [(vec![0xa1], "cut short"), (vec![0, 0], "after"), (deep, "more than 64")]
    {
        let refused = post(&node, &demo, path, &[cbor], body).await;
        let problem = refused.is_problem(422, "invalid", Some("body"));
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_doubled_empty_or_too_long_are_named() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let path = "/v1/sites/demo/events/reading";
    let long = "k".repeat(256);
    let long_type = format!("text/{}", "x".repeat(124));
    let check = async |headers: &[(&str, &str)], field: &str| {
        let refused = post(&node, &demo, path, headers, "1").await;
        refused.is_problem(422, "invalid", Some(field));
    };
    check(&[("Idempotency-Key", "a"), ("Idempotency-Key", "b")], "Idempotency-Key").await;
    check(&[("Idempotency-Key", "")], "Idempotency-Key").await;
    check(&[("Idempotency-Key", &long)], "Idempotency-Key").await;
    check(&[("Content-Type", "text/plain"), ("Content-Type", "text/html")], "Content-Type").await;
    check(&[("Content-Type", "")], "Content-Type").await;
    check(&[("Content-Type", &long_type)], "Content-Type").await;
    check(&[("Content-Encoding", "gzip")], "Content-Encoding").await;
    assert!(retained(&node, "reading").await.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_raised_in_its_order_and_answered_line_by_line() {
    let node = Running::start().await;
    let demo = node.demo().await;
    // More than are under way together.
    let results = batch(&node, &demo, &[], &numbered(0..600)).await;
    assert_eq!(results.len(), 600);
    let first = results[0]["instance_id"].as_u64().unwrap();
    for (index, result) in results.iter().enumerate() {
        let expected = json!({"index": index, "event": "reading", "duplicate": false,
                              "ignored": false, "instance_id": first + index as u64});
        assert_eq!(*result, expected);
    }
    let kept: Vec<u64> = retained(&node, "reading").await.iter().map(number).collect();
    assert_eq!(kept, (500..600).collect::<Vec<_>>());
    node.stop().await;
}

fn number(instance: &Value) -> u64 {
    instance["args"]["n"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_line_does_not_stop_the_others() {
    let limits = GatewayLimits { batch_item_bytes_max: 200, ..GatewayLimits::default() };
    let node = Running::start_with(limits, BrokerOptions::default()).await;
    let demo = node.demo().await;
    let long = format!("{{\"event\":\"reading\",\"args\":\"{}\"}}", "x".repeat(200));
    let cases: [(&str, Value); 19] = [
        (r#"{"event":"reading","args":1}"#, json!(null)),
        ("{", json!(["invalid", "item"])),
        ("[]", json!(["invalid", "item"])),
        ("\u{7f}", json!(["invalid", "item"])),
        (r#"{"args":1}"#, json!(["invalid", "event"])),
        (r#"{"event":"reading"}"#, json!(["invalid", "args"])),
        (r#"{"event":"reading","args":null}"#, json!(["invalid", "args"])),
        (r#"{"event":"reading","args":1,"data":"MQ=="}"#, json!(["invalid", "data"])),
        (
            r#"{"event":"reading","args":1,"content_type":"a/b"}"#,
            json!(["invalid", "content_type"]),
        ),
        (r#"{"event":"reading","data":"?"}"#, json!(["invalid", "data"])),
        (r#"{"event":"reading","args":1,"lifetime":1}"#, json!(["invalid", "lifetime"])),
        (r#"{"event":"reading","args":1,"key":""}"#, json!(["invalid", "key"])),
        (r#"{"event":"reading","args":1,"key":"\u0000k"}"#, json!(["invalid", "key"])),
        (r#"{"event":"state","args":1,"null":true}"#, json!(["invalid", "null"])),
        (&long, json!(["too-large", "item"])),
        (r#"{"event":"none","args":1}"#, json!(["unknown-event", "event"])),
        (r#"{"event":"notice","args":1,"client":"x"}"#, json!(["unknown-client", "client"])),
        (r#"{"event":"reading","null":true}"#, json!(["null-not-allowed", "null"])),
        (
            r#"{"event":"notice","data":"aGk=","content_type":"text/plain","client":"c","lifetime_s":60}"#,
            json!(null),
        ),
    ];
    let lines: Vec<&str> = cases.iter().map(|(line, _)| *line).collect();
    // Empty lines do not count, and a line may end as on other systems.
    let results = batch(&node, &demo, &[], &format!("\n{}\r\n \n", lines.join("\r\n\n"))).await;
    assert_eq!(results.len(), cases.len());
    for (index, (result, (line, expected))) in results.iter().zip(&cases).enumerate() {
        assert_eq!(result["index"], index);
        let error = &result["error"];
        if expected.is_null() {
            assert!(error.is_null() && result["instance_id"].is_u64(), "{line}: {result}");
        } else {
            assert_eq!(json!([error["code"], error["field"]]), *expected, "{line}: {result}");
            assert_eq!(error["retryable"], false, "{line}");
            assert!(result.get("attempted").is_none(), "{line}");
        }
    }
    assert_eq!(retained(&node, "reading").await.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_under_a_key_is_raised_once_however_often_it_comes() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let key = [("Idempotency-Key", "b1")];
    let with_own = "{\"event\":\"reading\",\"args\":7,\"key\":\"mine\"}";
    let lines = format!("{}{with_own}", numbered(0..3));
    let first = batch(&node, &demo, &key, &lines).await;
    let again = batch(&node, &demo, &key, &lines).await;
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
        assert_eq!(first["instance_id"], again["instance_id"]);
    }
    // One event of it may be repeated alone, under its key,
    let path = "/v1/sites/demo/events/reading";
    let json_type = ("Content-Type", "application/json");
    let headers = [json_type, ("Idempotency-Key", "b1/2")];
    let alone = post(&node, &demo, path, &headers, "{\"n\":2}").await.is(200);
    assert_eq!(
        (&alone["duplicate"], &alone["instance_id"]),
        (&json!(true), &first[2]["instance_id"])
    );
    // and one that is another now is told so, while what follows goes on.
    let other = batch(&node, &demo, &key, &format!("{}{with_own}", numbered(5..8))).await;
    assert_eq!(other[0]["error"]["code"], "idempotency-key-reused");
    assert_eq!(other[0]["error"]["field"], "Idempotency-Key");
    assert_eq!(other[3]["duplicate"], true);
    assert_eq!(retained(&node, "reading").await.len(), 4);

    let long = [("Content-Type", LINES), ("Idempotency-Key", &"k".repeat(250))];
    let refused = post(&node, &demo, EVENTS, &long, numbered(0..1)).await;
    refused.is_problem(422, "invalid", Some("Idempotency-Key"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_now_is_not_overtaken() {
    let node = Running::start_tuned(GatewayOptions::default(), BrokerOptions::default(), |node| {
        node.limits.keys_max = 2;
    })
    .await;
    let demo = node.demo().await;
    let keyed = |n, key: &str| {
        format!("{{\"event\":\"reading\",\"args\":{{\"n\":{n}}},\"key\":\"{key}\"}}\n")
    };
    // There would be room for what has no key.
    let (room, full) = (keyed(0, "a") + &keyed(1, "b"), keyed(2, "c"));
    let lines = format!("{room}{{\n{full}{}{}", numbered(3..4), keyed(4, "a"));
    let results = batch(&node, &demo, &[], &lines).await;
    let codes: Vec<&Value> = results.iter().map(|result| &result["error"]["code"]).collect();
    let waiting = "too-many-idempotency-keys";
    assert_eq!(
        codes,
        [
            &json!(null),
            &json!(null),
            &json!("invalid"),
            &json!(waiting),
            &json!(waiting),
            &json!(waiting)
        ]
    );
    let attempted: Vec<&Value> = results.iter().map(|result| &result["attempted"]).collect();
    let (null, no) = (json!(null), json!(false));
    assert_eq!(attempted, [&null, &null, &null, &null, &no, &no]);
    assert!(results[3..].iter().all(|result| result["error"]["retryable"] == true));
    // They are told when there is room again: a key is remembered for a day.
    let a_day = 86_300..=86_400;
    let wait = |error: &Value| error["retry_after_s"].as_u64().unwrap();
    assert!(
        results[3..].iter().all(|result| a_day.contains(&wait(&result["error"]))),
        "{results:?}"
    );
    let path = "/v1/sites/demo/events/reading";
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "d")];
    let alone = post(&node, &demo, path, &headers, "{}").await;
    assert!(a_day.contains(&wait(&alone.is_problem(429, waiting, None))));
    let kept: Vec<u64> = retained(&node, "reading").await.iter().map(number).collect();
    assert_eq!(kept, [0, 1]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_bounded_and_names_its_events_itself() {
    let limits = GatewayLimits { batch_items_max: 3, ..GatewayLimits::default() };
    let node = Running::start_with(limits, BrokerOptions::default()).await;
    let demo = node.demo().await;
    assert_eq!(batch(&node, &demo, &[], &numbered(0..3)).await.len(), 3);
    let refused = post(&node, &demo, EVENTS, &[("Content-Type", LINES)], numbered(0..4)).await;
    let problem = refused.is_problem(413, "too-large", Some("body"));
    assert!(problem["detail"].as_str().unwrap().contains("at most 3 events, was 4"));
    let many = format!("[{}]", ["{}"; 4].join(","));
    let refused = post(&node, &demo, EVENTS, &[("Content-Type", ENVELOPES)], many).await;
    refused.is_problem(413, "too-large", Some("body"));
    assert_eq!(batch(&node, &demo, &[], "\n").await, Vec::<Value>::new());
    for content_type in ["", "application/json", "text/plain"] {
        let refused = post(&node, &demo, EVENTS, &[("Content-Type", content_type)], "{}").await;
        refused.is_problem(422, "invalid", Some("Content-Type"));
    }
    let path = format!("{EVENTS}?client=c");
    let refused = post(&node, &demo, &path, &[("Content-Type", LINES)], numbered(0..1)).await;
    refused.is_problem(422, "invalid", Some("?client"));
    let client = node.request("POST".parse().unwrap(), EVENTS).bearer_auth(&demo.client);
    let refused = reply(client.header("Content-Type", LINES).body(numbered(0..1))).await;
    refused.is_problem(403, "access-denied", Some("Authorization"));
    node.call(Some(&demo.service), "PUT", EVENTS, None).await.is(405);
    node.stop().await;
}

fn envelope(id: &str, kind: &str, more: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/here","type":"{kind}"{more}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloudevent_is_raised_once_in_any_mode() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let structured = ("Content-Type", "application/cloudevents+json; charset=UTF-8");
    let event = envelope("1", "reading", r#","time":"2025-11-20T10:00:00Z","data":{"n":1}"#);
    let first = post(&node, &demo, EVENTS, &[structured], event.clone()).await.is(200);
    assert_eq!((&first["event"], &first["duplicate"]), (&json!("reading"), &json!(false)));

    // The same event again, in binary mode this time: id and source say that it is the same.
    let attributes = [("ce-specversion", "1.0"), ("ce-source", "%2Fhere"), ("ce-id", "1")];
    let binary = |more: &[(&'static str, &'static str)]| [&attributes[..], more].concat();
    let headers = binary(&[("ce-type", "reading"), ("Content-Type", "application/json")]);
    let again = post(&node, &demo, EVENTS, &headers, "{\"n\":1}").await.is(200);
    let id = &first["instance_id"];
    assert_eq!((&again["duplicate"], &again["instance_id"]), (&json!(true), id));
    let other = post(&node, &demo, EVENTS, &headers, "{\"n\":2}").await;
    other.is_problem(422, "idempotency-key-reused", Some("ce-id"));
    // A key in the header comes first.
    let headers = [&headers[..], &[("Idempotency-Key", "k")]].concat();
    let under_key = post(&node, &demo, EVENTS, &headers, "{\"n\":2}").await.is(200);
    assert_eq!(under_key["duplicate"], false);

    // No data is a null-event.
    let null = envelope("2", "state", "");
    post(&node, &demo, EVENTS, &[structured], null).await.is(200);
    assert_eq!(retained(&node, "state").await[0]["null"], true);
    let null = envelope("3", "reading", "");
    let refused = post(&node, &demo, EVENTS, &[structured], null).await;
    refused.is_problem(422, "null-not-allowed", Some("data"));

    // Addressee and lifetime are extensions.
    let more =
        r#","ackordclient":"c","ackordlifetime":60,"datacontenttype":"text/plain","data":"hi""#;
    post(&node, &demo, EVENTS, &[structured], envelope("4", "notice", more)).await.is(200);
    let notice = &retained(&node, "notice").await[0];
    assert_eq!((&notice["client"], &notice["data"]), (&json!("c"), &json!("aGk=")));
    let life = notice["expires_ms"].as_u64().unwrap() - notice["created_ms"].as_u64().unwrap();
    assert_eq!(life, 60_000);
    let more = r#","ackordclient":"nobody","data":1"#;
    let refused = post(&node, &demo, EVENTS, &[structured], envelope("5", "notice", more)).await;
    refused.is_problem(404, "unknown-client", Some("ackordclient"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_own_address_names_it_whatever_type_the_cloudevent_has() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let path = "/v1/sites/demo/events/reading";
    let event = envelope("1", "com.example.reading.taken", ",\"data\":1");
    let structured = [("Content-Type", ENVELOPE)];
    let raised = post(&node, &demo, path, &structured, event.clone()).await.is(200);
    assert_eq!(raised["event"], "reading");
    let refused = post(&node, &demo, EVENTS, &structured, envelope("2", "com.example", "")).await;
    refused.is_problem(404, "unknown-event", Some("type"));
    let query = format!("{path}?lifetime_s=60");
    let refused = post(&node, &demo, &query, &structured, event).await;
    refused.is_problem(422, "invalid", Some("?lifetime_s"));
    let xml = [("Content-Type", "application/cloudevents+xml")];
    let refused = post(&node, &demo, path, &xml, "<event/>").await;
    refused.is_problem(422, "invalid", Some("Content-Type"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_cloudevents_is_answered_like_one_of_lines() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let list = [
        envelope("1", "reading", ",\"data\":{\"n\":1}"),
        "{\"specversion\":\"1.0\"}".to_owned(),
        "7".to_owned(),
        envelope("2", "reading", ",\"data\":{\"n\":2}"),
        envelope("1", "reading", ",\"data\":{\"n\":1}"),
    ];
    let body = format!("[{}]", list.join(","));
    let batched = [("Content-Type", ENVELOPES)];
    let first = results(&post(&node, &demo, EVENTS, &batched, body.clone()).await);
    let fields: Vec<&Value> = first.iter().map(|result| &result["error"]["field"]).collect();
    let null = json!(null);
    assert_eq!(fields, [&null, &json!("id"), &json!("item"), &null, &null]);
    assert_eq!((&first[0]["duplicate"], &first[4]["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first[0]["instance_id"], first[4]["instance_id"]);
    let again = results(&post(&node, &demo, EVENTS, &batched, body).await);
    assert_eq!(again[3]["duplicate"], true);
    let broken = post(&node, &demo, EVENTS, &batched, "[{}").await;
    broken.is_problem(422, "invalid", Some("body"));
    let kept: Vec<u64> = retained(&node, "reading").await.iter().map(number).collect();
    assert_eq!(kept, [1, 2]);
    node.stop().await;
}
