//! Push subscriptions against real receivers: callbacks that fail in every way, and sockets.

#![allow(clippy::unwrap_used)]

mod callbacks;
mod support;

use std::time::Duration;

use callbacks::{PATIENCE, Received, Receiver, Then, World};
use hmac::{Hmac, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use support::reply;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn events_are_carried_to_a_callback_in_order_and_signed() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    let secret = "a secret of enough bytes";
    let made = world.push("p", &receiver, json!({"secret": secret})).await;
    assert_eq!((&made["mode"], &made["signed"]), (&json!("ordered"), &json!(true)));
    assert!(made.get("secret").is_none(), "{made}");
    world.raise(5).await;
    let received = receiver.wait_for(5).await;
    let numbers: Vec<u64> = received.iter().map(Received::number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let first = &received[0];
    let event = &first.json()["event"];
    let key = format!("{}-{}", event["incarnation"], event["instance_id"]);
    assert_eq!(first.header("Idempotency-Key"), key);
    assert_eq!((first.header("Ackord-Attempt"), first.header("Ackord-Push")), ("1", "p"));
    let signature = first.header("Ackord-Signature");
    let (time, given) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(&first.body);
    let expected: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(given, expected);
    assert_eq!(receiver.inner.open.lock().1, 1, "one at a time");
    let shown = world.until("p", |shown| shown["delivered"] == 5).await;
    assert_eq!((&shown["state"], &shown["queued"]), (&json!("active"), &json!(0)));
    world.running.stop().await;
}

#[tokio::test]
async fn whatever_goes_wrong_the_same_event_is_sent_again_under_its_key() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    let other = Receiver::start().await;
    world.push("p", &receiver, json!({})).await;
    receiver.will([
        Then::Hang,
        Then::Abort,
        Then::Answer(500),
        Then::Redirect(other.url()),
        Then::Answer(429),
    ]);
    world.raise(2).await;
    let received = receiver.wait_for(7).await;
    let numbers: Vec<u64> = received.iter().map(Received::number).collect();
    assert_eq!(numbers, [1, 1, 1, 1, 1, 1, 2]);
    let keys: Vec<&str> = received[..6].iter().map(|it| it.header("Idempotency-Key")).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let attempts: Vec<&str> = received.iter().map(|it| it.header("Ackord-Attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3", "4", "5", "6", "1"]);
    assert!(other.received().is_empty(), "redirects are not followed");
    let shown = world.until("p", |shown| shown["delivered"] == 2).await;
    assert_eq!((&shown["failed"], &shown["failures"]), (&json!(5), &json!(0)));
    world.running.stop().await;
}

#[tokio::test]
async fn failures_beyond_the_tolerated_cancel_and_a_resume_starts_again() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    world.push("soft", &receiver, json!({"retry_count": 1})).await;
    receiver.always(Some(Then::Answer(503)));
    world.raise(1).await;
    let shown = world.until("soft", |shown| shown["state"] == "cancelled").await;
    assert_eq!((&shown["failed"], &shown["because"]), (&json!(2), &json!("status 503")));
    assert_eq!(receiver.received().len(), 2);
    let audit = world.running.admin("GET", "/v1/sites/demo/audit?limit=1", None).await.is(200);
    assert_eq!(audit["items"][0]["act"], "push.cancelled", "{audit}");
    receiver.always(None);
    let path = "/v1/sites/demo/pushes/soft/resume";
    world.running.call(Some(&world.demo.client), "POST", path, None).await.is(200);
    world.until("soft", |shown| shown["delivered"] == 1).await;

    for (id, status) in [("gone", 410), ("missing", 404)] {
        let receiver = Receiver::start().await;
        receiver.always(Some(Then::Answer(status)));
        world.push(id, &receiver, json!({})).await;
        let shown = world.until(id, |shown| shown["state"] == "cancelled").await;
        assert_eq!(shown["failed"], 1, "{shown}");
    }
    let metrics = world.running.broker.metrics_text(false);
    assert!(metrics.contains("ackord_push_cancelled_total{kind=\"status\"} 3"), "{metrics}");
    world.running.stop().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_other() {
    let (mut world, slow) = (World::start().await, Receiver::start().await);
    let fast = Receiver::start().await;
    slow.always(Some(Then::Hang));
    world.push("slow", &slow, json!({"send_timeout_ms": 60_000})).await;
    world.push("fast", &fast, json!({})).await;
    world.raise(20).await;
    assert_eq!(fast.wait_for(20).await.len(), 20);
    assert_eq!(slow.received().len(), 1);
    // Nor does it delay the end.
    timeout(PATIENCE, world.running.stop()).await.unwrap();
}

#[tokio::test]
async fn windows_and_batches() {
    let (mut world, twoway) = (World::start().await, Receiver::start().await);
    let (oneway, batch) = (Receiver::start().await, Receiver::start().await);
    twoway.always(Some(Then::Slow(Duration::from_millis(100))));
    world.push("twoway", &twoway, json!({"mode": "twoway", "window": 3})).await;
    world.push("oneway", &oneway, json!({"mode": "oneway"})).await;
    let clouds = json!({"mode": "batch", "flush_ms": 300, "format": "cloudevents"});
    world.push("batch", &batch, clouds).await;
    world.raise(9).await;
    let numbers = |received: &[Received]| {
        let mut numbers: Vec<u64> = received.iter().map(Received::number).collect();
        numbers.sort_unstable();
        numbers
    };
    let all: Vec<u64> = (1..=9).collect();
    assert_eq!(numbers(&twoway.wait_for(9).await), all);
    assert_eq!(numbers(&oneway.wait_for(9).await), all);
    assert_eq!(twoway.inner.open.lock().1, 3);
    let shown = world.until("batch", |shown| shown["delivered"] == 9).await;
    assert_eq!(shown["position"]["instance_id"], 9);
    let batches = batch.received();
    assert!(batches.len() < 9, "{} batches", batches.len());
    let events: Vec<Value> =
        batches.iter().flat_map(|it| it.json().as_array().unwrap().clone()).collect();
    let data: Vec<u64> = events.iter().map(|event| event["data"].as_u64().unwrap()).collect();
    assert_eq!(data, all);
    assert_eq!(events[0]["type"], "reading");
    assert_eq!(batches[0].header("Content-Type"), "application/cloudevents-batch+json");
    for id in ["twoway", "oneway"] {
        world.until(id, |shown| shown["delivered"] == 9 && shown["queued"] == 0).await;
    }
    world.running.stop().await;
}

#[tokio::test]
async fn a_batch_waits_for_its_first_event() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    world.push("p", &receiver, json!({"mode": "batch", "flush_ms": 1000})).await;
    let before = Instant::now();
    world.raise(3).await;
    let received = receiver.wait_for(1).await;
    assert!(received[0].at - before >= Duration::from_millis(900));
    assert_eq!(received[0].json().as_array().unwrap().len(), 3);
    world.running.stop().await;
}

#[tokio::test]
async fn what_may_not_be_called_is_refused_and_leaves_nothing_behind() {
    let (world, receiver) = (World::start().await, Receiver::start().await);
    let to = |url: &str| json!({"event": "reading", "url": url});
    *receiver.inner.wrong_handshake.lock() = true;
    let refused = world.put("p", to(&receiver.url())).await;
    refused.is_problem(422, "callback-unverified", Some("url"));
    let nobody = world.put("p", to("http://127.0.0.1:1/")).await;
    nobody.is_problem(422, "callback-unverified", Some("url"));
    let elsewhere = world.put("p", to("http://10.1.2.3/")).await;
    elsewhere.is_problem(403, "callback-not-allowed", Some("url"));
    world.put("p", to("ftp://127.0.0.1/")).await.is_problem(422, "invalid", Some("url"));
    let udp =
        |mode: &str| json!({"event": "reading", "udp": {"address": "127.0.0.1:9"}, "mode": mode});
    world.put("p", udp("ordered")).await.is_problem(422, "bad-qos", Some("mode"));
    let mut datagrams = to(&receiver.url());
    datagrams["mode"] = json!("datagram");
    world.put("p", datagrams).await.is_problem(422, "bad-qos", Some("mode"));
    let unknown = json!({"event": "nothing", "url": receiver.url()});
    world.put("p", unknown).await.is_problem(404, "unknown-event", None);
    let other = json!({"event": "reading", "url": receiver.url(), "client": "other"});
    world.put("p", other).await.is_problem(403, "access-denied", Some("client"));
    let path = "/v1/sites/demo/pushes/p";
    world.running.admin("GET", path, None).await.is_problem(404, "not-found", None);
    let raises = world.running.call(Some(&world.demo.service), "GET", path, None).await;
    raises.is_problem(403, "access-denied", Some("Authorization"));
    assert!(receiver.received().is_empty());
    world.running.stop().await;
}

#[tokio::test]
async fn a_name_is_judged_by_the_address_that_it_means() {
    let receiver = Receiver::start().await;
    let body = |host: &str| {
        let url = format!("http://{host}:{}/", receiver.address.port());
        json!({"event": "reading", "url": url})
    };
    // The name is listed, but means this machine, which is not.
    let world = World::allowing(&["localhost"]).await;
    let refused = world.put("p", body("localhost")).await;
    refused.is_problem(403, "callback-not-allowed", Some("url"));
    world.running.stop().await;
    let world = World::allowing(&["127.0.0.1"]).await;
    world.put("p", body("localhost")).await.is(201);
    world.running.stop().await;
}

#[tokio::test]
async fn a_client_sees_and_ends_its_own_only() {
    let (world, receiver) = (World::start().await, Receiver::start().await);
    world
        .running
        .admin("PUT", "/v1/sites/demo/clients/d", Some(json!({"user": "u"})))
        .await
        .is(201);
    let other = world.running.token("demo", json!({"client": "d"})).await;
    world.push("p", &receiver, json!({})).await;
    let path = "/v1/sites/demo/pushes/p";
    for method in ["GET", "DELETE"] {
        let refused = world.running.call(Some(&other), method, path, None).await;
        refused.is_problem(404, "not-found", None);
    }
    let list = world.running.call(Some(&other), "GET", "/v1/sites/demo/pushes", None).await.is(200);
    assert_eq!(list["items"], json!([]));
    let own = Some(&*world.demo.client);
    let list = world.running.call(own, "GET", "/v1/sites/demo/pushes", None).await.is(200);
    assert_eq!(list["items"][0]["id"], "p");
    world.running.call(own, "DELETE", path, None).await.is(204);
    world.running.call(own, "GET", path, None).await.is_problem(404, "not-found", None);
    world.running.stop().await;
}

#[tokio::test]
async fn authority_gates_what_is_pushed_and_private_events_come_too() {
    let (world, receiver) = (World::start().await, Receiver::start().await);
    let body = json!({"event": "notice", "url": receiver.url()});
    world.put("p", body).await.is(201);
    let raise = |client: &str, number: u64| {
        let path = format!("/v1/sites/demo/events/notice?client={client}");
        let request = world.running.request(Method::POST, &path);
        reply(request.bearer_auth(&world.demo.service).json(&number))
    };
    world.running.admin("PUT", "/v1/sites/demo/clients/d", None).await.is(201);
    raise("d", 1).await.is(200);
    raise("c", 2).await.is(200);
    assert_eq!(receiver.wait_for(1).await[0].number(), 2);
    world.until("p", |shown| shown["delivered"] == 1).await;
    let queue = world.running.admin("GET", "/v1/sites/demo/queues/notice", None).await.is(200);
    assert_eq!(queue["items"].as_array().unwrap().len(), 1, "an acknowledged one is gone: {queue}");
    world.running.stop().await;
}

#[tokio::test]
async fn datagrams_reach_one_and_a_group() {
    let mut world = World::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let group = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let all = "239.7.7.7".parse().unwrap();
    group.join_multicast_v4(all, "127.0.0.1".parse().unwrap()).unwrap();
    let to = |address: String, more: Value| {
        let mut udp = json!({"address": address});
        udp.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"event": "reading", "udp": udp})
    };
    let one = to(socket.local_addr().unwrap().to_string(), json!({"packet_bytes_max": 512}));
    world.put("one", one).await.is(201);
    let port = group.local_addr().unwrap().port();
    let group_of = to(format!("239.7.7.7:{port}"), json!({"interface": "127.0.0.1"}));
    world.put("group", group_of).await.is(201);
    world.raise(3).await;
    for socket in [&socket, &group] {
        for number in 1..=3 {
            let mut packet = [0; 2048];
            let length = timeout(PATIENCE, socket.recv(&mut packet)).await.unwrap().unwrap();
            let frame: Value = serde_json::from_slice(&packet[..length]).unwrap();
            assert_eq!(frame["event"]["args"], number);
        }
    }
    // What is larger than a packet is one counted drop, and nothing else.
    let path = "/v1/sites/demo/events/reading";
    let request = world.running.request(Method::POST, path).bearer_auth(&world.demo.service);
    reply(request.json(&"x".repeat(600))).await.is(200);
    let shown = world.until("one", |shown| shown["dropped"] == 1).await;
    assert_eq!((&shown["delivered"], &shown["state"]), (&json!(3), &json!("active")));
    world.running.stop().await;
}

#[tokio::test]
async fn what_a_callback_fails_to_take_is_kept_and_raised_again() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    let spec = json!({"max_attempts": 2, "dead_letter": true});
    world.push("p", &receiver, spec).await;
    receiver.will([Then::Answer(500), Then::Answer(500)]);
    world.raise(2).await;
    let received = receiver.wait_for(3).await;
    let numbers: Vec<u64> = received.iter().map(Received::number).collect();
    assert_eq!(numbers, [1, 1, 2]);
    let shown = world.until("p", |shown| shown["delivered"] == 1).await;
    assert_eq!((&shown["dead_letters"], &shown["dropped"]), (&json!(1), &json!(0)), "{shown}");
    let path = "/v1/sites/demo/dead-letters";
    let page = world.running.admin("GET", &format!("{path}?push=p"), None).await.is(200);
    let letter = &page["items"][0];
    assert_eq!((&letter["because"], &letter["attempts"]), (&json!("status 500"), &json!(2)));
    let path = format!("{path}/{}/replay", letter["id"]);
    world.running.admin("POST", &path, None).await.is(200);
    let again = receiver.wait_for(4).await[3].json();
    assert_eq!(again["event"]["original_id"], letter["instance_id"]);
    assert_eq!(again["event"]["args"], 1);
}
