//! The scenarios of the modes, over callbacks and datagrams.

#![allow(clippy::unwrap_used)]

mod callbacks;
mod support;

use callbacks::{PATIENCE, Received, Receiver, Then, World};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// What was raised, request by request.
fn numbers(received: &[Received]) -> Vec<Vec<u64>> {
    let number = |frame: &Value| frame["event"]["args"].as_u64().unwrap();
    received
        .iter()
        .map(|request| match request.json() {
            Value::Array(frames) => frames.iter().map(number).collect(),
            frame => vec![number(&frame)],
        })
        .collect()
}

fn flat(received: &[Received]) -> Vec<u64> {
    numbers(received).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_thousand_events_reach_one_receiver_of_each_mode() {
    let mut world = World::wide().await;
    let modes = ["ordered", "twoway", "oneway", "batch"];
    let mut receivers = Vec::new();
    for mode in modes {
        let receiver = Receiver::start().await;
        world.push(mode, &receiver, json!({"mode": mode, "send_timeout_ms": 60_000})).await;
        receivers.push(receiver);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    world.put("datagram", json!({"event": "reading", "udp": {"address": address}})).await.is(201);
    let heard = tokio::spawn(async move {
        let (mut heard, mut packet) = (Vec::new(), [0; 2048]);
        while heard.last() != Some(&1001) {
            let length = timeout(PATIENCE, socket.recv(&mut packet)).await.unwrap().unwrap();
            let frame: Value = serde_json::from_slice(&packet[..length]).unwrap();
            heard.push(frame["event"]["args"].as_u64().unwrap());
        }
        heard
    });
    world.raise(1000).await;
    let all: Vec<u64> = (1..=1000).collect();
    for (mode, receiver) in modes.into_iter().zip(&receivers) {
        let done = |shown: &Value| shown["position"]["instance_id"] == 1000;
        world.until(mode, |shown| done(shown) && shown["delivered"] == 1000).await;
        let mut got = flat(&receiver.received());
        if mode == "twoway" || mode == "oneway" {
            // Several connections: in what order they are read is nobody's promise.
            got.sort_unstable();
        }
        assert_eq!(got, all, "{mode}");
    }
    let shown = world.until("datagram", |shown| shown["position"]["instance_id"] == 1000).await;
    assert_eq!(shown["delivered"].as_u64().unwrap() + shown["dropped"].as_u64().unwrap(), 1000);
    // The last of them says that no more come; it may be lost, so it is said until it is heard.
    loop {
        world.raise_number(1001).await;
        if heard.is_finished() {
            break;
        }
    }
    let heard = heard.await.unwrap();
    assert!(heard.is_sorted(), "of one socket to another on this machine");
    world.running.stop().await;
}

#[tokio::test]
async fn i2_a_batch_waits_while_oneway_has_everything() {
    let (mut world, oneway) = (World::start().await, Receiver::start().await);
    let batch = Receiver::start().await;
    world.push("batch", &batch, json!({"mode": "batch", "flush_ms": 3_600_000})).await;
    world.push("oneway", &oneway, json!({"mode": "oneway"})).await;
    world.raise(20).await;
    world.until("oneway", |shown| shown["delivered"] == 20).await;
    let shown = world.show("batch").await;
    assert_eq!((&shown["delivered"], &shown["queued"]), (&json!(0), &json!(20)));
    assert!(batch.received().is_empty());
    world.running.stop().await;
}

#[tokio::test]
async fn i11_what_is_under_way_and_the_newest_are_delivered_the_others_dropped() {
    let (mut world, receiver) = (World::wide().await, Receiver::start().await);
    let bounded = json!({
        "queue_max": 2000, "on_overflow": "drop-oldest", "send_timeout_ms": 600_000,
    });
    world.push("p", &receiver, bounded).await;
    receiver.will([Then::Until]);
    world.raise(1).await;
    receiver.wait_for(1).await;
    world.raise_many(4999).await;
    world.until("p", |shown| shown["dropped"] == 2999).await;
    receiver.go_on();
    world.until("p", |shown| shown["delivered"] == 2001).await;
    let expected: Vec<u64> = [1].into_iter().chain(3001..=5000).collect();
    assert_eq!(flat(&receiver.received()), expected);
    assert_eq!(world.show("p").await["dropped"], 2999);
    world.running.stop().await;
}

#[tokio::test]
async fn i13_i15_i17_failures_cancel_beyond_what_is_tolerated_and_a_success_counts_anew() {
    let (mut world, none) = (World::start().await, Receiver::start().await);
    let (two, gone) = (Receiver::start().await, Receiver::start().await);
    let untold = json!({"event": "reading", "url": none.url()});
    // Nothing is tolerated unless somebody says so.
    world.put("none", untold).await.is(201);
    world.push("two", &two, json!({"retry_count": 2})).await;
    world.push("gone", &gone, json!({"retry_count": -1})).await;
    none.will([Then::Answer(500)]);
    gone.will([Then::Answer(410)]);
    two.will([500, 200, 500, 500].map(Then::Answer));
    world.raise(3).await;
    for id in ["none", "gone"] {
        let shown = world.until(id, |shown| shown["state"] == "cancelled").await;
        assert_eq!((&shown["failed"], &shown["delivered"]), (&json!(1), &json!(0)), "{shown}");
    }
    let shown = world.until("two", |shown| shown["delivered"] == 3).await;
    assert_eq!((&shown["state"], &shown["failed"]), (&json!("active"), &json!(3)));
    assert_eq!(flat(&two.received()), [1, 1, 2, 2, 2, 3]);
    assert_eq!((none.received().len(), gone.received().len()), (1, 1));
    world.running.stop().await;
}

#[tokio::test]
async fn i21_windows_of_five_and_of_one() {
    let mut world = World::start().await;
    world.raise(12).await;
    for window in [5, 1] {
        let (receiver, id) = (Receiver::start().await, format!("window-{window}"));
        receiver.always(Some(Then::Until));
        let more = json!({"mode": "twoway", "window": window, "send_timeout_ms": 600_000});
        world.push(&id, &receiver, more).await;
        receiver.wait_for(window).await;
        world.until(&id, |shown| shown["in_flight"] == window).await;
        // An answer makes room for one more, once nothing before it is missing.
        for _ in 0..window {
            receiver.go_on();
            let most = world.until(&id, |shown| shown["in_flight"] != 0).await;
            assert!(most["in_flight"].as_u64().unwrap() <= window as u64, "{most}");
        }
        receiver.always(None);
        let received = receiver.wait_for(window + 1).await;
        assert!(receiver.inner.open.lock().1 <= window, "{}", received.len());
    }
    world.running.stop().await;
}

#[tokio::test]
async fn the_metrics_have_no_line_for_each_subscription() {
    let mut world = World::start().await;
    let lines = |text: &str| {
        let names = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name);
        names.map(str::to_owned).collect::<std::collections::BTreeSet<String>>()
    };
    let udp = json!({"event": "reading", "udp": {"address": "127.0.0.1:9"}});
    world.put("p0", udp.clone()).await.is(201);
    world.raise(1).await;
    world.until("p0", |shown| shown["position"]["instance_id"] == 1).await;
    let before = lines(&world.running.broker.metrics_text(false));
    for number in 1..100 {
        world.put(&format!("p{number}"), udp.clone()).await.is(201);
    }
    world.raise(1).await;
    world.until("p99", |shown| shown["position"]["instance_id"] == 2).await;
    let text = world.running.broker.metrics_text(false);
    assert!(text.contains("ackord_push_subscriptions{state=\"active\"} 100"), "{text}");
    let after = lines(&text);
    let more: Vec<_> = after.difference(&before).collect();
    assert!(more.is_empty(), "{more:?}");
    world.running.stop().await;
}

#[tokio::test]
async fn i27_what_comes_after_a_batch_is_in_the_next() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    world.push("p", &receiver, json!({"mode": "batch", "flush_ms": 500})).await;
    let mut raised = 0;
    for count in [3, 1, 2] {
        world.raise(count).await;
        raised += count;
        world.until("p", |shown| shown["delivered"] == raised).await;
        assert_eq!(flat(&receiver.received()), (1..=raised).collect::<Vec<_>>());
    }
    // Each of the three began with a timer of its own, so none went with the one before.
    let batches = numbers(&receiver.received());
    for first in [1, 4, 5] {
        assert!(batches.iter().any(|batch| batch[0] == first), "{batches:?}");
    }
    world.running.stop().await;
}
