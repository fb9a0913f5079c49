//! Hostile peers over real sockets. While each attack goes on a good service and a good client
//! publish and receive: they must be served all the time, and each attacker must get the answer that
//! the protocol page says.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ackord_agents::BrokerOptions;
use ackord_gateway::{GatewayLimits, GatewayOptions, Listener};
use ackord_wire::Codec;
use ackord_wire::frame::{ClientFrame, ClientHello};
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::raw::{Ended, Raw, frame};
use support::{Demo, Running, reply};
use tokio::net::TcpSocket;

const SERVICE: &str = "/v1/sites/demo/service";
const CLIENT: &str = "/v1/sites/demo/client";
const JSON: &str = "ackord.v1.json";

/// Attackers at a time.
const ATTACKERS: usize = 24;
/// Events that go from the good service to the good client while an attack lasts.
const EVENTS: u64 = 20;
/// The longest that one of them may take from raise to `committed`: the machine may be busy.
const GAP: Duration = Duration::from_secs(3);

/// A node with short deadlines and small limits.
async fn node() -> Running {
    let limits = GatewayLimits {
        head_deadline: GatewayLimits::COARSE_MIN,
        body_deadline: Duration::from_millis(400),
        frame_deadline: Duration::from_millis(400),
        write_deadline: Duration::from_millis(400),
        close_deadline: GatewayLimits::COARSE_MIN,
        frame_bytes_max: 64 * 1024,
        body_bytes_max: 64 * 1024,
        fragments_max: 64,
        control_frames_per_s_max: 20,
        ..GatewayLimits::default()
    };
    let options = BrokerOptions {
        hello_timeout: Duration::from_millis(400),
        write_deadline: Duration::from_millis(400),
        ..BrokerOptions::default()
    };
    // Little room for what is written and not read.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(8 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listeners = vec![Listener::plain(socket.listen(1024).unwrap().into_std().unwrap())];
    let front = GatewayOptions { listeners, limits, ..GatewayOptions::default() };
    Running::start_tuned(front, options, |_| ()).await
}

/// The good ones.
struct Good {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Good {
    async fn start(node: &Running, demo: &Demo) -> Self {
        let mut service = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
        service.hello_service().await;
        let mut client = node.socket(CLIENT, Some(&demo.client), JSON).await.unwrap();
        client.say(json!({"hello": {}})).await;
        client.hear_of("welcome").await;
        client
            .say(json!({"subscribe": {"items": [{"event": "reading", "start": "latest"}]}}))
            .await;
        while client.hear_of("subscribed").await["accepted"].as_array().unwrap().is_empty() {}
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), served.clone());
        let task = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            for seq in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let begun = Instant::now();
                service.say(json!({"raise": {"seq": seq, "event": "reading", "args": seq}})).await;
                service.hear_of("accepted").await;
                let event = client.hear_of("event").await;
                assert_eq!((&event["args"], &event["attempt"]), (&json!(seq), &json!(1)));
                let ack = json!({"subscription": event["subscription"], "instance_id": event["instance_id"]});
                client.say(json!({"ack": ack})).await;
                assert_eq!(client.hear_of("committed").await, ack);
                longest = longest.max(begun.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
            }
            longest
        });
        Self { stop, served, task }
    }

    /// Ends them; they were served all the time.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.task.await.expect("the good ones were served");
        assert!(longest < GAP, "an event took {longest:?}");
    }
}

/// Attacks with many at a time, again and again until the good ones had enough to do.
async fn under<F: Future<Output = ()>>(attack: impl Fn(Arc<Running>, Arc<Demo>, usize) -> F) {
    let node = Arc::new(node().await);
    let demo = Arc::new(node.demo().await);
    let good = Good::start(&node, &demo).await;
    let enough = good.served.load(Ordering::Relaxed) + EVENTS;
    loop {
        let attackers = (0..ATTACKERS).map(|number| attack(node.clone(), demo.clone(), number));
        join_all(attackers).await;
        assert!(!good.task.is_finished(), "the good ones were not served");
        if good.served.load(Ordering::Relaxed) >= enough {
            break;
        }
    }
    good.end().await;
    let Ok(node) = Arc::try_unwrap(node) else { panic!("an attacker is left") };
    node.stop().await;
}

/// A client that said hello.
async fn client(node: &Running) -> Raw {
    let mut raw = Raw::upgraded(node, CLIENT, None).await;
    raw.say(r#"{"hello":{}}"#).await;
    raw.hear_of("welcome").await;
    raw
}

fn too_large() -> Ended {
    Ended::new("too-large", 4506, false)
}

fn violation() -> Ended {
    Ended::new("protocol-violation", 4504, false)
}

fn limit_reached() -> Ended {
    Ended::new("limit-reached", 4407, true)
}

fn idle_timeout() -> Ended {
    Ended::new("idle-timeout", 4401, true)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies() {
    under(async |node, demo, number| {
        let mut raw = Raw::connect(&node).await;
        let token = &demo.service;
        let (head, expected) = match number % 3 {
            0 => ("GET /healthz/live HTTP/1.1\r\nhost:".to_owned(), "HTTP/1.1 408"),
            1 => (format!("GET {CLIENT} HTTP/1.1\r\nupgrade: websocket\r\n"), "HTTP/1.1 408"),
            _ => (
                format!(
                    "POST /v1/sites/demo/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\
                     authorization: Bearer {token}\r\ncontent-type: application/x-ndjson\r\n\r\n{{"
                ),
                "\"code\":\"idle-timeout\"",
            ),
        };
        raw.send(head.as_bytes()).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(expected), "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_lengths() {
    under(async |node, demo, number| {
        let request = |length: &str| {
            format!(
                "POST /v1/sites/demo/events/reading HTTP/1.1\r\nhost: x\r\n{length}\r\n\
                 authorization: Bearer {}\r\nconnection: close\r\n\r\n",
                demo.service
            )
        };
        let http = match number % 6 {
            0 => Some((request("content-length: 1099511627776"), "HTTP/1.1 413")),
            1 => Some((request("content-length: 99999999999999999999999"), "HTTP/1.1 400")),
            2 => {
                let body = "ffffffffffffffff\r\n".to_owned() + &"x".repeat(70_000);
                Some((request("transfer-encoding: chunked") + &body, "HTTP/1.1 4"))
            }
            3 => {
                let both = "content-length: 4\r\ntransfer-encoding: chunked";
                Some((request(both) + "0\r\n\r\n", "HTTP/1.1 400"))
            }
            _ => None,
        };
        if let Some((request, expected)) = http {
            let mut raw = Raw::connect(&node).await;
            raw.send(request.as_bytes()).await;
            let answer = raw.rest().await;
            assert!(answer.starts_with(expected), "{request}: {answer}");
            return;
        }
        let mut raw = Raw::upgraded(&node, CLIENT, None).await;
        let claimed = if number % 6 == 4 { u64::MAX } else { 64 * 1024 + 1 };
        raw.send(&[&[0x81, 0xff], &claimed.to_be_bytes()[..]].concat()).await;
        assert_eq!(raw.end().await, too_large());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_heads() {
    under(async |node, _, number| {
        let mut raw = Raw::connect(&node).await;
        let filler = match number % 2 {
            0 => format!("x: {}\r\n", "y".repeat(200_000)),
            _ => "x: y\r\n".repeat(1000),
        };
        raw.send(format!("GET {CLIENT} HTTP/1.1\r\nhost: x\r\n{filler}\r\n").as_bytes()).await;
        let answer = raw.rest().await;
        // The connection may be reset while the rest of the head is under way.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pings_and_pongs() {
    under(async |node, _, number| {
        let mut raw = client(&node).await;
        let control = frame(if number.is_multiple_of(2) { 0x89 } else { 0x8a }, &[b'x'; 125]);
        raw.send(&control.repeat(2000)).await;
        assert_eq!(raw.end().await, limit_reached());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_pings_are_no_flood() {
    under(async |node, _, _| {
        let mut raw = client(&node).await;
        for round in 0..20_u8 {
            raw.send(&frame(0x89, &[round])).await;
        }
        // Of several pings the latest is answered.
        while raw.next().await.expect("it is open") != (10, vec![19]) {}
        raw.say(r#"{"goodbye":{}}"#).await;
        assert_eq!(raw.end().await, Ended::new("goodbye", 4500, false));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8() {
    under(async |node, _, number| {
        let mut raw = Raw::upgraded(&node, CLIENT, None).await;
        let frames: Vec<Vec<u8>> = match number % 4 {
            0 => vec![frame(0x81, b"{\"hello\":{\"hostname\":\"\xff\"}}")],
            // A surrogate, and a character cut in two whose second half never comes.
            1 => {
                vec![frame(0x01, b"{\"hello\":{\"hostname\":\"\xed\xa0"), frame(0x80, b"\x80\"}}")]
            }
            2 => vec![frame(0x01, b"{\"hello\":{\"hostname\":\"\xc3"), frame(0x80, b"\"}}")],
            // One whose second half comes is a character.
            _ => vec![frame(0x01, b"{\"hello\":{\"hostname\":\"\xc3"), frame(0x80, b"\xbc\"}}")],
        };
        for frame in frames {
            raw.send(&frame).await;
        }
        if number % 4 == 3 {
            raw.hear_of("welcome").await;
        } else {
            assert_eq!(raw.end().await, violation());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_tiny_fragments() {
    under(async |node, _, number| {
        let mut raw = client(&node).await;
        let payload: &[u8] = if number.is_multiple_of(2) { b"" } else { b" " };
        raw.send(&frame(0x01, payload)).await;
        raw.send(&frame(0x00, payload).repeat(20_000)).await;
        assert_eq!(raw.end().await, too_large());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_do_not_arrive() {
    under(async |node, _, number| {
        let mut raw = match number % 3 {
            // It has not even said hello.
            0 => Raw::upgraded(&node, CLIENT, None).await,
            _ => client(&node).await,
        };
        match number % 3 {
            0 => {}
            1 => raw.send(&frame(0x81, &[b' '; 1000])[..900]).await,
            // Signs of life between the fragments make the frame no less late.
            _ => {
                raw.send(&frame(0x01, &[b' '; 1000])).await;
                let mut pace = tokio::time::interval(Duration::from_millis(100));
                for _ in 0..6 {
                    pace.tick().await;
                    raw.send(&frame(0x8a, b"")).await;
                }
            }
        }
        assert_eq!(raw.end().await, idle_timeout());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nests_without_end() {
    under(async |node, _, number| {
        let nested = "[".repeat(60_000);
        let mut raw = Raw::upgraded(&node, CLIENT, None).await;
        match number % 3 {
            0 => raw.say(&nested).await,
            1 => raw.say(&format!("{{\"hello\":{{\"x\":{nested}}}}}")).await,
            _ => {
                raw = Raw::upgraded_as(&node, CLIENT, None, "ackord.v1.cbor").await;
                raw.send(&frame(0x82, &[0x81; 60_000])).await;
                let mut last = None;
                while let Some(next) = raw.next().await {
                    last = Some(next);
                }
                let (opcode, payload) = last.expect("a close");
                assert_eq!((opcode, &payload[..2]), (8, &4504_u16.to_be_bytes()[..]));
                return;
            }
        }
        assert_eq!(raw.end().await, violation());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_subscriptions() {
    let list = |count: usize| {
        let items: Vec<Value> = (0..count).map(|n| json!({"event": format!("e{n}")})).collect();
        json!({"subscribe": {"items": items}}).to_string()
    };
    under(async |node, _, number| {
        let mut raw = client(&node).await;
        raw.say(r#"{"subscriptions":{"items":[]}}"#).await;
        raw.hear_of("subscribed").await;
        if number.is_multiple_of(2) {
            raw.say(&list(1001)).await;
        } else {
            raw.send(&frame(0x81, list(500).as_bytes()).repeat(50)).await;
        }
        assert_eq!(raw.end().await, limit_reached());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads() {
    under(async |node, _, _| {
        let mut raw = Raw::upgraded_narrow(&node, CLIENT).await;
        raw.say(r#"{"hello":{}}"#).await;
        raw.hear_of("welcome").await;
        // A list is answered by a refusal of each item: more than the socket takes.
        let items: Vec<Value> = (0..1000).map(|n| json!({"event": format!("e{n}")})).collect();
        raw.say(&json!({"subscriptions": {"items": items}}).to_string()).await;
        // It reads nothing for longer than it may.
        let mut pace = tokio::time::interval(Duration::from_millis(1200));
        pace.tick().await;
        pace.tick().await;
        // There was no room for the reason of its end either: that is in the metrics.
        let counted = "ackord_websockets_closed_total{code=\"slow-consumer\",endpoint=\"client\"}";
        let metrics = node.call(None, "GET", "/metrics", None).await.text;
        assert!(metrics.contains(counted), "{metrics}");
        assert_eq!(raw.end().await.code, "lost");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_for_others() {
    under(async |node, _, number| {
        let mut raw = client(&node).await;
        // The good client's subscription has a number like these, its events ids like these.
        for id in 0..200_u64 {
            let kind = ["ack", "nack", "working"][(number + id as usize) % 3];
            let named = json!({"subscription": id % 4, "instance_id": id, "generation": 0});
            raw.say(&json!({kind: named}).to_string()).await;
        }
        let huge = json!({"ack": {"subscription": u32::MAX, "instance_id": u64::MAX}});
        raw.say(&huge.to_string()).await;
        raw.say(r#"{"goodbye":{}}"#).await;
        assert_eq!(raw.end().await, Ended::new("goodbye", 4500, false));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_nobody_has() {
    under(async |node, _, number| {
        let token = format!("ak_t{number}_{}", "A".repeat(43));
        let request = node.request("GET".parse().unwrap(), "/v1/sites/demo");
        let refused = reply(request.bearer_auth(&token)).await;
        refused.is_problem(401, "bad-credentials", Some("Authorization"));
        let refused = node.socket(CLIENT, Some(&token), JSON).await.err().unwrap();
        refused.is_problem(401, "bad-credentials", Some("Authorization"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_and_go() {
    under(async |node, _, number| {
        for round in 0..5 {
            match (number + round) % 3 {
                0 => drop(Raw::connect(&node).await),
                1 => drop(Raw::upgraded(&node, CLIENT, None).await),
                _ => {
                    let protocol = "ackord.v1.cbor";
                    let mut raw = Raw::upgraded_as(&node, CLIENT, None, protocol).await;
                    let hello = ClientFrame::Hello(ClientHello::default());
                    raw.send(&frame(0x82, &Codec::Cbor.encode(&hello))).await;
                }
            }
        }
    })
    .await;
}
