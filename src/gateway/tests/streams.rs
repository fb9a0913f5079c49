//! Server-Sent Events over real sockets: guests who keep their own position.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ackord_agents::BrokerOptions;
use ackord_gateway::GatewayLimits;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::events::Stream;
use support::raw::Raw;
use support::{Running, structure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_what_is_retained_and_what_comes_in_order() {
    let node = Running::start().await;
    let demo = node.demo().await;
    for n in 0..30 {
        node.raise(&demo, "reading", n).await;
    }
    let mut stream = node.stream(None, "event=reading&event=state").await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!((first.event.as_str(), first.retry), ("@resume", Some(1000)));
    assert_eq!(first.data["resumed_from"], json!(first.id.unwrap()));
    assert_eq!((first.data.get("requested"), first.data.get("lost")), (None, None));
    let subscribed = stream.until("@subscribed").await;
    assert_eq!(subscribed.data["accepted"].as_array().unwrap().len(), 2);
    assert_eq!(stream.numbers(30).await, (0..30).collect::<Vec<_>>());
    let id = node.raise_json(&demo, "state", json!({"on": true})).await;
    let event = stream.event().await;
    assert_eq!((event.event.as_str(), event.data["instance_id"].as_u64()), ("state", Some(id)));
    assert_eq!((&event.data["args"], &event.data["attempt"]), (&json!({"on": true}), &json!(1)));
    assert_eq!((event.data.get("ack"), event.data.get("redelivery")), (None, None));
    // Arguments keep their ends of lines from the stream's.
    let path = "/v1/sites/demo/events/reading";
    let request = node.request("POST".parse().unwrap(), path).bearer_auth(&demo.service);
    let request = request.header("content-type", "application/json").body("{\n\"n\":\r\n31\n}");
    support::reply(request).await.is(200);
    assert_eq!(stream.numbers(1).await, [31]);
    node.call(Some(&demo.service), "POST", "/v1/sites/demo/events/state?null=true", None).await;
    let null = stream.event().await.data;
    assert_eq!((&null["null"], null.get("args")), (&json!(true), None));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_comes_again_misses_and_repeats_nothing_over_all_its_subscriptions() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let query = "event=reading&event=state&start=latest";
    let mut last: Option<String> = None;
    let mut seen = Vec::new();
    for round in 0..4 {
        let mut stream = match round % 2 {
            0 => node.stream_after(None, query, last.as_deref()).await.unwrap(),
            // A page that opens a new stream has no say in the headers.
            _ => {
                let last = last.as_deref().unwrap();
                node.stream(None, &format!("{query}&last_event_id={last}")).await.unwrap()
            }
        };
        let first = stream.until("@resume").await.data;
        assert_eq!(first.get("requested").and_then(Value::as_str), last.as_deref());
        assert_eq!(stream.resume["requested"], first["requested"]);
        if round == 0 {
            // Nothing was read but where it starts: that is enough to go on from.
            last = stream.last_id.clone();
            drop(stream);
            node.raise(&demo, "reading", 0).await;
            node.raise(&demo, "state", 1).await;
            continue;
        }
        seen.extend(stream.numbers(2).await);
        last = stream.last_id.clone();
        drop(stream);
        node.raise(&demo, "reading", 2 * round).await;
        node.raise(&demo, "state", 2 * round + 1).await;
    }
    assert_eq!(seen, (0..6).collect::<Vec<_>>());
    // Nothing was raised since: that nothing was lost is known.
    node.raise(&demo, "reading", 8).await;
    let mut stream = node.stream(None, "event=reading").await.unwrap();
    assert_eq!(stream.numbers(5).await, [0, 2, 4, 6, 8]);
    let last = stream.last_id.clone();
    let again = node.stream_after(None, "event=reading", last.as_deref()).await.unwrap();
    assert_eq!((&again.resume["lost"], &again.resume["superseded"]), (&json!(0), &json!(0)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_means_nothing_here_starts_at_the_first_event_and_says_so() {
    let node = Running::start().await;
    let demo = node.demo().await;
    node.raise(&demo, "reading", 1).await;
    for unreadable in ["17", "gibberish", "AQ", "%%%"] {
        let query = "event=reading&start=latest";
        let mut stream = node.stream_after(None, query, Some(unreadable)).await.unwrap();
        let said = stream.until("@resume").await.data;
        assert_eq!((&said["unreadable"], said.get("requested")), (&json!(true), None));
        assert_eq!(stream.resume["unreadable"], true);
        assert_eq!(said["subscriptions"][0]["resumed_from"]["instance_id"], 0);
        assert_eq!(stream.numbers(1).await, [1]);
    }
    let mut stream = node.stream(None, "event=reading").await.unwrap();
    stream.numbers(1).await;
    let before = stream.last_id.clone().unwrap();
    let rebuilt = json!({"service_type": "other", "contract_author": "Ackord",
        "guests": "guest+stateless", "events": structure()["events"]});
    node.admin("PUT", "/v1/sites/demo/structure?rebuild=true", Some(rebuilt)).await.is(200);
    let closing = stream.end().await;
    assert_eq!(
        (&closing.data["code"], &closing.data["reconnect"]),
        (&json!("site-rebuilt"), &json!(true))
    );
    for n in 2..4 {
        node.raise(&demo, "reading", n).await;
    }
    let mut stream = node.stream_after(None, "event=reading", Some(&before)).await.unwrap();
    let said = stream.until("@resume").await.data;
    assert_eq!(said["requested"], before.as_str());
    assert_eq!((said.get("lost"), said.get("superseded")), (None, None), "nobody knows");
    assert_eq!(said["subscriptions"][0]["resumed_from"]["instance_id"], 0);
    assert_eq!(stream.numbers(2).await, [2, 3]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_above_the_newest_event_starts_at_the_first_and_says_so() {
    let node = Running::start().await;
    let demo = node.demo().await;
    for n in 1..=3 {
        node.raise(&demo, "reading", n).await;
    }
    let mut stream = node.stream(None, "event=reading").await.unwrap();
    stream.numbers(3).await;
    // The text ends with the instance's number: 3 becomes 100, which nobody has raised.
    let id = stream.last_id.clone().unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(&id).unwrap();
    assert_eq!(bytes.pop(), Some(3));
    bytes.push(100);
    let above = URL_SAFE_NO_PAD.encode(bytes);
    let mut stream = node.stream_after(None, "event=reading", Some(&above)).await.unwrap();
    let said = stream.until("@resume").await.data;
    let subscription = &said["subscriptions"][0];
    assert_eq!(said["requested"], above.as_str());
    assert_eq!(subscription["requested"]["instance_id"], 100);
    assert_eq!(subscription["resumed_from"]["instance_id"], 0);
    assert_eq!((said.get("lost"), said.get("superseded")), (None, None), "nobody knows");
    assert_eq!(stream.numbers(3).await, [1, 2, 3]);
    // And so with a question.
    let polled = node.poll(None, &format!("event=reading&after={above}")).await;
    let resume: Value =
        serde_json::from_str(polled.headers["ackord-resume"].to_str().unwrap()).unwrap();
    assert_eq!((&resume["requested"], resume.get("lost")), (&json!(above), None));
    assert_eq!(polled.is(200)["args"]["n"], 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_have_a_stream_is_told_so_in_a_problem() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let refused = async |token: Option<&str>, query: &str| {
        node.stream(token, query).await.err().expect("it is refused")
    };
    let event = Some("?event");
    refused(None, "").await.is_problem(422, "invalid", event);
    refused(None, "event=").await.is_problem(422, "invalid", event);
    refused(None, "event=nothing").await.is_problem(404, "unknown-event", event);
    refused(None, "event=notice").await.is_problem(403, "access-denied", event);
    let many = (0..101).map(|n| format!("event=e{n}&")).collect::<String>();
    refused(None, &many).await.is_problem(422, "invalid", event);
    refused(None, "event=reading&start=x").await.is_problem(422, "invalid", Some("?start"));
    refused(None, "event=reading&format=x").await.is_problem(422, "invalid", Some("?format"));
    refused(None, "event=reading&wait=1").await.is_problem(422, "invalid", Some("?wait"));
    let timeout = Some("?ack_timeout_ms");
    refused(None, "event=reading&ack_timeout_ms=9").await.is_problem(422, "invalid", timeout);
    let authorization = Some("Authorization");
    refused(Some(&demo.service), "").await.is_problem(403, "access-denied", authorization);
    refused(Some("ak_x_nonsense"), "").await.is_problem(401, "bad-credentials", authorization);
    let path = "/v1/sites/demo/events?event=reading";
    node.call(None, "DELETE", path, None).await.is_problem(405, "method-not-allowed", None);
    let mut old = Raw::connect(&node).await;
    old.send(format!("GET {path} HTTP/1.0\r\nhost: broker\r\n\r\n").as_bytes()).await;
    let said = old.rest().await;
    assert!(said.starts_with("HTTP/1.0 422 ") && said.contains("HTTP/1.1"), "{said}");
    let off = Some(json!({"stateless_guests_allowed": false}));
    let mut stream = node.stream(None, "event=reading").await.unwrap();
    node.admin("PUT", "/v1/sites/demo", off).await.is(200);
    let closing = stream.end().await.data;
    assert_eq!((&closing["code"], &closing["reconnect"]), (&json!("access-denied"), &json!(false)));
    refused(None, "event=reading").await.is_problem(403, "access-denied", authorization);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_has_a_heartbeat_and_lives() {
    let limits = GatewayLimits { heartbeat_s: 1, ..GatewayLimits::default() };
    let options = BrokerOptions { keepalive_s_min: 1, ..BrokerOptions::default() };
    let node = Running::start_with(limits, options).await;
    let demo = node.demo().await;
    for token in [None, Some(demo.client.as_str())] {
        let mut stream = node.stream(token, "event=reading").await.unwrap();
        stream.until("@subscribed").await;
        // More than the two silent intervals after which a peer is given up.
        for _ in 0..4 {
            assert_eq!(stream.next().await.unwrap().comment.as_deref(), Some("hb"));
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_as_cloud_events_on_demand() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let id = node.raise(&demo, "reading", 7).await;
    let mut stream = node.stream(None, "event=reading&format=cloudevents").await.unwrap();
    let event = stream.event().await;
    assert_eq!(event.event, "reading");
    let incarnation =
        node.admin("GET", "/v1/sites/demo", None).await.is(200)["incarnation"].clone();
    assert_eq!(event.data["specversion"], "1.0");
    assert_eq!(event.data["id"], format!("{incarnation}.{id}"));
    assert_eq!(event.data["source"], "/sites/demo/services/s");
    assert_eq!(event.data["type"], "reading");
    assert_eq!(event.data["data"], json!({"n": 7}));
    assert_eq!(event.data["ackordinstance"], id.to_string());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_dropped_and_delays_nobody() {
    let limits =
        GatewayLimits { write_deadline: Duration::from_millis(500), ..GatewayLimits::default() };
    let node = Running::start_with(limits, BrokerOptions::default()).await;
    let demo = node.demo().await;
    let address = node.base.trim_start_matches("http://").to_owned();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = "GET /v1/sites/demo/events?event=reading HTTP/1.1\r\nhost: x\r\n\r\n";
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut some = [0; 16];
    slow.read_exact(&mut some).await.unwrap();
    let mut fast = node.stream(None, "event=reading").await.unwrap();
    let text = "x".repeat(2000);
    let raising = async {
        // More than the buffers of a kernel hold.
        for _ in 0..60 {
            let args = || json!({"n": 1, "text": text});
            let raises = (0..50).map(|_| node.raise_json(&demo, "reading", args()));
            futures_util::future::join_all(raises).await;
            fast.numbers(50).await;
        }
    };
    let dropped = "ackord_event_streams_closed_total{code=\"slow-consumer\",kind=\"stateless\"} 1";
    tokio::select! {
        () = raising => node.until_metric(dropped).await,
        () = node.until_metric(dropped) => {}
    }
    let mut rest = Vec::new();
    // What the kernel had taken is read, then the connection is at its end.
    let _reset = slow.read_to_end(&mut rest).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_leaves_is_noticed_at_once() {
    let node = Running::start().await;
    node.demo().await;
    let stream = node.stream(None, "event=reading").await.unwrap();
    node.until_metric("ackord_event_streams{kind=\"stateless\"} 1").await;
    drop(stream);
    node.until_metric("ackord_event_streams{kind=\"stateless\"} 0").await;
    node.until_metric("ackord_sessions{kind=\"stateless\"} 0").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_tells_its_streams_to_come_again() {
    let mut node = Running::start().await;
    let demo = node.demo().await;
    let mut guest = node.stream(None, "event=reading").await.unwrap();
    let mut client = node.stream(Some(&demo.client), "").await.unwrap();
    let gateway = node.gateway.take().unwrap();
    let end = async |stream: &mut Stream| {
        let closing = stream.end().await;
        assert_eq!(closing.data["code"], "shutting-down");
        assert_eq!((&closing.data["reconnect"], closing.retry.is_some()), (&json!(true), true));
    };
    tokio::join!(gateway.stop(), end(&mut guest), end(&mut client));
    node.stop().await;
}
