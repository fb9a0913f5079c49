//! The WebSocket endpoints through real sockets: admission, frames, violations, the way out.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ackord_agents::BrokerOptions;
use ackord_gateway::GatewayLimits;
use ackord_wire::Codec;
use ackord_wire::frame::{
    ClientFrame, ClientHello, ClientMessage, Raise, ServiceFrame, ServiceHello,
};
use ackord_wire::payload::Data;
use serde_json::{Value, json};
use support::{ADMIN, Running, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data as DataFrame, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

const SERVICE: &str = "/v1/sites/demo/service";
const CLIENT: &str = "/v1/sites/demo/client";
const JSON: &str = "ackord.v1.json";
const CBOR: &str = "ackord.v1.cbor";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_from_a_service_to_a_client() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let mut service = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
    let welcome = service.hello_service().await;
    assert_eq!(welcome["state"]["online"], true, "{welcome}");
    let mut client = node.socket(CLIENT, Some(&demo.client), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    let welcome = client.hear_of("welcome").await;
    assert_eq!(welcome["client"], "c");
    client.say(json!({"subscribe": {"items": [{"event": "reading"}]}})).await;
    let mut subscribed = client.hear_of("subscribed").await;
    while subscribed["accepted"].as_array().unwrap().is_empty() {
        subscribed = client.hear_of("subscribed").await;
    }
    let subscription = subscribed["accepted"][0]["subscription"].clone();

    service.say(json!({"raise": {"seq": 1, "event": "reading", "args": {"n": 1}}})).await;
    let accepted = service.hear_of("accepted").await;
    let event = client.hear_of("event").await;
    assert_eq!(event["instance_id"], accepted["instance_id"]);
    assert_eq!(event["args"], json!({"n": 1}));
    let ack = json!({"subscription": subscription, "instance_id": event["instance_id"]});
    client.say(json!({"ack": ack})).await;
    assert_eq!(client.hear_of("committed").await, ack);

    let path = "/v1/sites/demo/clients/c/subscriptions/reading";
    let seen = node.admin("GET", path, None).await.is(200);
    assert_eq!(seen["position"]["instance_id"], event["instance_id"]);
    let mut list = node.admin("GET", "/v1/sites/demo/subscriptions", None).await.is(200);
    list["items"][0]["session"] = seen["session"].clone();
    assert_eq!(list["items"], json!([seen]), "all but what only sessions know");
    let sought = node.admin("POST", &format!("{path}/seek"), Some(json!({"after": 0}))).await;
    assert_eq!(sought.is(200)["position"]["instance_id"], 0);
    assert_eq!(client.hear_of("event").await["generation"], 1, "sought events come again");
    node.admin("DELETE", path, None).await.is(204);
    node.admin("GET", path, None).await.is_problem(404, "not-found", None);
    assert_eq!(client.hear_of("subscribed").await["removed"], json!(["reading"]));

    service.say(json!({"goodbye": {}})).await;
    let (closing, number) = service.end().await;
    assert_eq!((&closing["code"], number), (&json!("goodbye"), Some(4500)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_subprotocol_that_is_known_is_chosen() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let check = async |offer: &str, chosen: &str| {
        let socket = node.socket(CLIENT, Some(&demo.client), offer).await.unwrap();
        assert_eq!(socket.protocol.as_deref(), Some(chosen), "{offer}");
    };
    check(JSON, JSON).await;
    check(CBOR, CBOR).await;
    check("ackord.v1.cbor, ackord.v1.json", CBOR).await;
    check("ackord.v9.json, ackord.v1.json", JSON).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_connect_is_told_before_the_upgrade() {
    let node = Running::start().await;
    let demo = node.demo().await;
    node.admin("PUT", "/v1/sites/blank", None).await.is(201);
    let check = async |path: &str,
                       token: Option<&str>,
                       offer: &str,
                       expected: (u16, &str, Option<&str>)| {
        let refused = node.socket(path, token, offer).await.err().unwrap();
        let (status, code, field) = expected;
        refused.is_problem(status, code, field);
        refused
    };
    let authorization = Some("Authorization");
    let unknown = (401, "bad-credentials", authorization);
    let denied = (403, "access-denied", authorization);
    check(SERVICE, None, JSON, unknown).await;
    check(SERVICE, Some("ak_x_nonsense"), JSON, unknown).await;
    check(CLIENT, Some("ak_x_nonsense"), JSON, unknown).await;
    check("/v1/sites/missing/client", Some(&demo.client), JSON, unknown).await;
    check(SERVICE, Some(&demo.client), JSON, denied).await;
    check(CLIENT, Some(&demo.service), JSON, denied).await;
    check(CLIENT, Some(&demo.admin), JSON, denied).await;
    check(CLIENT, Some(ADMIN), JSON, denied).await;
    check("/v1/sites/missing/client", None, JSON, denied).await;
    check("/v1/sites/blank/client", None, JSON, (409, "site-blank", None)).await;
    check("/v1/nothing", Some(ADMIN), JSON, (404, "not-found", None)).await;
    let protocol = (422, "invalid", Some("Sec-WebSocket-Protocol"));
    for offer in ["", "chat", "ackord.v2.json"] {
        let refused = check(CLIENT, Some(&demo.client), offer, protocol).await;
        assert!(refused.text.contains(JSON) && refused.text.contains(CBOR), "{}", refused.text);
    }
    let plain = node.call(Some(&demo.client), "GET", CLIENT, None).await;
    plain.is_problem(422, "invalid", Some("Upgrade"));

    let mut request =
        format!("{}{CLIENT}", node.base.replacen("http", "ws", 1)).into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", JSON.parse().unwrap());
    headers.insert("Origin", "https://elsewhere.example".parse().unwrap());
    let refused = connect(request).await.err().unwrap();
    refused.is_problem(403, "access-denied", Some("Origin"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cbor_endpoints_speak_binary_messages() {
    let node = Running::start().await;
    node.demo().await;
    let mut guest = node.socket(CLIENT, None, CBOR).await.unwrap();
    let hello = Codec::Cbor.encode(&ClientFrame::Hello(ClientHello::default()));
    guest.send(Message::binary(hello)).await;
    let Some(Message::Binary(bytes)) = guest.next().await else { panic!("no binary message") };
    let message: ClientMessage = Codec::Cbor.decode(&bytes).unwrap();
    let ClientMessage::Welcome(welcome) = message else { panic!("no welcome: {message:?}") };
    assert_eq!((welcome.client, welcome.epoch), (None, 0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_bytes_in_cbor_and_base64_in_json() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let bytes = [0xff, 0x00, 0xfe];
    let mut service = node.socket(SERVICE, Some(&demo.service), CBOR).await.unwrap();
    let hello: ServiceHello = serde_json::from_value(json!({"store": "00".repeat(16)})).unwrap();
    service.send(Message::binary(Codec::Cbor.encode(&ServiceFrame::Hello(hello)))).await;
    let raise = Raise {
        seq: 1,
        event: "reading".to_owned(),
        category: None,
        content_type: Some("application/octet-stream".to_owned()),
        args: None,
        data: Some(Data(bytes.to_vec().into())),
        client: None,
        lifetime_s: None,
        traceparent: None,
        tracestate: None,
    };
    let raise = Codec::Cbor.encode(&ServiceFrame::Raise(raise));
    assert!(raise.windows(4).any(|part| part == [0x43, 0xff, 0x00, 0xfe]), "a byte string");
    let Some(Message::Binary(_welcome)) = service.next().await else { panic!("no welcome") };
    service.send(Message::binary(raise)).await;

    let (hello, set) =
        (json!({"hello": {}}), json!({"subscriptions": {"items": [{"event": "reading"}]}}));
    let mut json_guest = node.socket(CLIENT, None, JSON).await.unwrap();
    json_guest.say(hello.clone()).await;
    json_guest.hear_of("welcome").await;
    json_guest.say(set.clone()).await;
    assert_eq!(json_guest.hear_of("event").await["data"], "/wD+");

    let mut guest = node.socket(CLIENT, None, CBOR).await.unwrap();
    let frame = |frame: &Value| {
        let frame: ClientFrame = serde_json::from_value(frame.clone()).unwrap();
        Message::binary(Codec::Cbor.encode(&frame))
    };
    guest.send(frame(&hello)).await;
    let Some(Message::Binary(_welcome)) = guest.next().await else { panic!("no welcome") };
    guest.send(frame(&set)).await;
    let event = loop {
        let Some(Message::Binary(message)) = guest.next().await else { panic!("no event") };
        if let ClientMessage::Event(event) = Codec::Cbor.decode(&message).unwrap() {
            assert!(message.windows(4).any(|part| part == [0x43, 0xff, 0x00, 0xfe]));
            break event;
        }
    };
    assert_eq!(event.data, Some(Data(bytes.to_vec().into())));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_closes_its_own_connection_only() {
    let limits = GatewayLimits { frame_bytes_max: 4096, ..GatewayLimits::default() };
    let node = Running::start_with(limits, BrokerOptions::default()).await;
    let demo = node.demo().await;
    let mut bystander = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
    bystander.hello_service().await;
    let raw = |opcode: u8, is_final: bool, payload: &'static [u8]| {
        let header = FrameHeader { is_final, ..FrameHeader::default() };
        let mut frame = Frame::from_payload(header, payload.into());
        frame.header_mut().opcode = OpCode::from(opcode);
        Message::Frame(frame)
    };
    static LONG: [u8; 4097] = [b' '; 4097];
    static HALF: [u8; 2100] = [b' '; 2100];
    let violation = ("protocol-violation", 4504);
    let too_large = ("too-large", 4506);
    let cases: [(&str, Vec<Message>, (&str, u16)); 7] = [
        ("not JSON", vec![Message::text("{")], violation),
        ("an unknown kind", vec![Message::text("{\"shout\":{}}")], violation),
        (
            "out of turn",
            vec![Message::text("{\"ack\":{\"subscription\":1,\"instance_id\":1}}")],
            violation,
        ),
        ("a binary message", vec![Message::binary(vec![1, 2, 3])], violation),
        ("a message above the limit", vec![Message::text(" ".repeat(4097))], too_large),
        ("fragments above the limit", vec![raw(1, false, &HALF), raw(0, true, &HALF)], too_large),
        ("a continuation of nothing", vec![raw(0, true, &LONG[..5])], violation),
    ];
    for (name, messages, (code, number)) in cases {
        let mut socket = node.socket(CLIENT, Some(&demo.client), JSON).await.unwrap();
        for message in messages {
            socket.send(message).await;
        }
        let (closing, closed) = socket.end().await;
        assert_eq!((&closing["code"], closed), (&json!(code), Some(number)), "{name}: {closing}");
        assert_eq!(closing["reconnect"], false, "{name}");
    }
    bystander.say(json!({"raise": {"seq": 1, "event": "reading", "args": 1}})).await;
    assert!(bystander.hear_of("accepted").await["instance_id"].is_u64());
    let metrics = node.call(None, "GET", "/metrics", None).await.text;
    let counted = "ackord_websockets_closed_total{code=\"too-large\",endpoint=\"client\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fragmented_hello_around_a_ping_is_one_frame() {
    let node = Running::start().await;
    node.demo().await;
    let mut guest = node.socket(CLIENT, None, JSON).await.unwrap();
    let (head, tail) = br#"{"hello":{"hostname":"h"}}"#.split_at(9);
    let first = Frame::message(head, OpCode::Data(DataFrame::Text), false);
    let last = Frame::message(tail, OpCode::Data(DataFrame::Continue), true);
    guest.send(Message::Frame(first)).await;
    guest.send(Message::Ping("alive".into())).await;
    guest.send(Message::Frame(last)).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.push(guest.next().await.unwrap());
    }
    assert!(heard.contains(&Message::Pong("alive".into())), "{heard:?}");
    let welcome = heard.iter().any(|message| message.to_string().contains("welcome"));
    assert!(welcome, "{heard:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_closed() {
    let options =
        BrokerOptions { hello_timeout: Duration::from_millis(100), ..BrokerOptions::default() };
    let node = Running::start_with(GatewayLimits::default(), options).await;
    node.demo().await;
    let mut guest = node.socket(CLIENT, None, JSON).await.unwrap();
    let (closing, number) = guest.end().await;
    assert_eq!((&closing["code"], number), (&json!("idle-timeout"), Some(4401)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_of_the_peer_is_answered() {
    let node = Running::start().await;
    node.demo().await;
    let mut guest = node.socket(CLIENT, None, JSON).await.unwrap();
    guest.send(Message::Close(None)).await;
    assert!(matches!(guest.next().await, Some(Message::Close(None))));
    assert_eq!(guest.next().await, None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so_and_takes_more_when_there_is_room() {
    let limits = GatewayLimits { connections_max: 3, ..GatewayLimits::default() };
    let node = Running::start_with(limits, BrokerOptions::default()).await;
    node.demo().await;
    // The requests of `demo` left an idle connection or two.
    let mut guests = Vec::new();
    let refused = loop {
        match node.socket(CLIENT, None, JSON).await {
            Ok(guest) => guests.push(guest),
            Err(refused) => break refused,
        }
    };
    assert!((1..=3).contains(&guests.len()), "{} guests", guests.len());
    refused.is_problem(503, "busy", None);
    assert!(refused.headers.contains_key("retry-after"));
    let mut other = tokio::net::TcpStream::connect(&node.base[7..]).await.unwrap();
    other.write_all(b"GET /healthz/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(guests);
    // The connections end when the node has noticed: then there is room again.
    while node.socket(CLIENT, None, JSON).await.is_err() {}
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_sessions_with_a_word() {
    let mut node = Running::start().await;
    let demo = node.demo().await;
    let mut client = node.socket(CLIENT, Some(&demo.client), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    client.hear_of("welcome").await;
    let gateway = node.gateway.take().unwrap();
    let stopping = tokio::spawn(gateway.stop());
    let (closing, number) = client.end().await;
    assert_eq!((&closing["code"], number), (&json!("shutting-down"), Some(4400)));
    assert_eq!(closing["reconnect"], true);
    stopping.await.unwrap();
    assert!(tokio::net::TcpStream::connect(&node.base[7..]).await.is_err());
    node.stop().await;
}
