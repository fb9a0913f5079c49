//! What the corpora begin with: real frames, records and files, and bytes that are nasty on
//! purpose. Frames are those of the protocol page.

use std::path::{Path, PathBuf};

use ackord_wire::{ClientFrame, ClientMessage, Codec, ServiceFrame, ServiceMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An input: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Where the corpora are.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let named = |(target, name, bytes): (&'static str, &'static str, Vec<u8>)| {
        (target, name.to_owned(), bytes)
    };
    let mut seeds = crate::commands::seeds();
    seeds.extend(ackord_store::fuzz::seeds().into_iter().map(named));
    seeds.extend(ackord_replica::fuzz::seeds().into_iter().map(named));
    seeds.extend(ackord_gateway::fuzz::seeds().into_iter().map(named));
    seeds.extend(ackord_endpoint::fuzz::seeds().into_iter().map(named));
    seeds.extend(frames());
    seeds.extend(cbor());
    seeds.extend(websocket());
    seeds.extend(http());
    seeds
}

/// The examples of the protocol page, in both codecs.
fn frames() -> Vec<Seed> {
    const PAGE: &str = include_str!("../../../docs/protocol.md");
    let mut seeds = Vec::new();
    for (number, part) in PAGE.split("```json ").skip(1).enumerate() {
        let Some((kind, rest)) = part.split_once('\n') else { continue };
        let text = rest.split("```").next().unwrap_or_default();
        match kind.trim() {
            "ServiceFrame" => push::<ServiceFrame>(number, text, &mut seeds),
            "ClientFrame" => push::<ClientFrame>(number, text, &mut seeds),
            "ServiceMessage" => push::<ServiceMessage>(number, text, &mut seeds),
            "ClientMessage" => push::<ClientMessage>(number, text, &mut seeds),
            _ => {}
        }
    }
    let json = |name: &str, text: String| ("frames_json", name.to_owned(), text.into_bytes());
    seeds.extend([
        json("deep", format!("{{\"ack\":{}", "[".repeat(2000))),
        json(
            "deep-args",
            format!("{{\"raise\":{{\"seq\":1,\"event\":\"e\",\"args\":{}", "[".repeat(500)),
        ),
        json("two-kinds", "{\"ack\":{},\"nack\":{}}".to_owned()),
        json(
            "huge-number",
            "{\"ack\":{\"subscription\":1e999,\"instance_id\":18446744073709551616}}".to_owned(),
        ),
        json("surrogate", "{\"hello\":{\"hostname\":\"\\ud800\"}}".to_owned()),
        json("base64", "{\"raise\":{\"seq\":1,\"event\":\"e\",\"data\":\"A===\"}}".to_owned()),
    ]);
    seeds
}

fn push<T: DeserializeOwned + Serialize>(number: usize, text: &str, seeds: &mut Vec<Seed>) {
    let name = format!("page-{number:02}");
    if let Ok(frame) = serde_json::from_str::<T>(text) {
        seeds.push(("frames_json", name.clone(), text.trim().into()));
        if !text.contains("\"args\"") {
            seeds.push(("frames_cbor", name, Codec::Cbor.encode(&frame)));
        }
    }
}

fn cbor() -> Vec<Seed> {
    let items: [(&str, &[u8]); 10] = [
        ("map", &[0xa2, 0x61, b'a', 0x01, 0x61, b'b', 0x82, 0x02, 0x03]),
        (
            "indefinite",
            &[0xbf, 0x61, b'a', 0x9f, 0x01, 0xff, 0x61, b'b', 0x5f, 0x41, 0x00, 0xff, 0xff],
        ),
        ("tag", &[0xc1, 0xfb, 0x41, 0xd4, 0x52, 0xd9, 0xe2, 0x00, 0x00, 0x00]),
        ("bignum", &[0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("huge-string", &[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("huge-list", &[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]),
        ("lone-break", &[0xff]),
        ("odd-map", &[0xbf, 0x00, 0xff]),
        ("simple", &[0x83, 0xf4, 0xf7, 0xf8, 0x20]),
        ("empty", &[]),
    ];
    let mut seeds: Vec<Seed> = items
        .iter()
        .flat_map(|(name, bytes)| {
            ["cbor", "frames_cbor"].map(|target| (target, (*name).to_owned(), bytes.to_vec()))
        })
        .collect();
    seeds.push(("cbor", "deep".to_owned(), [vec![0x81; 64], vec![0x00]].concat()));
    seeds.push(("cbor", "too-deep".to_owned(), [vec![0x9f; 65], vec![0x00]].concat()));
    seeds
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            out.extend((payload.len() as u16).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn websocket() -> Vec<Seed> {
    // A message may have 255 * 16 bytes, and arrives in pieces of seven.
    let seed = |name: &str, frames: Vec<Vec<u8>>| {
        ("websocket", name.to_owned(), [vec![0xff, 0x07], frames.concat()].concat())
    };
    vec![
        seed("text", vec![frame(0x81, b"{\"hello\":{}}"), frame(0x88, &[0x03, 0xe8])]),
        seed(
            "fragments",
            vec![
                frame(0x01, b"gr\xc3"),
                frame(0x89, b"ping"),
                frame(0x00, b"\xbc"),
                frame(0x80, b"ss"),
                frame(0x8a, b""),
            ],
        ),
        seed("medium", vec![frame(0x82, &[7; 300])]),
        seed("too-large", vec![frame(0x82, &[7; 5000])]),
        seed("huge", vec![[&[0x82, 0xff][..], &u64::MAX.to_be_bytes()].concat()]),
        seed("empty-fragments", vec![frame(0x02, b""), frame(0x00, b"").repeat(20)]),
        seed("broken-text", vec![frame(0x81, b"\xed\xa0\x80")]),
        seed("compressed", vec![frame(0xc1, b"x")]),
        seed("unmasked", vec![vec![0x81, 0x01, b'x']]),
        seed("close", vec![frame(0x88, &[0x03, 0xe8, 0xff])]),
    ]
}

fn http() -> Vec<Seed> {
    let text = |target: &'static str, name: &str, text: &str| {
        (target, name.to_owned(), text.as_bytes().to_vec())
    };
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"reading","data":{"n":1}}"#;
    vec![
        text(
            "batch_lines",
            "lines",
            "{\"event\":\"reading\",\"args\":{\"n\":1},\"key\":\"k\"}\r\n\n{\"event\":\"state\",\"null\":true}\n\
             {\"event\":\"notice\",\"client\":\"c\",\"data\":\"aGk=\",\"content_type\":\"text/plain\",\"lifetime_s\":60}\n",
        ),
        text(
            "batch_lines",
            "bad",
            "{\n[]\n\"\n{\"event\":1}\n{\"event\":\"e\",\"args\":1,\"data\":\"\"}\n\u{0}\n",
        ),
        text(
            "batch_lines",
            "cbor",
            "{\"event\":\"e\",\"data\":\"gQA=\",\"content_type\":\"application/cbor\"}",
        ),
        text("batch_lines", "envelopes", &format!("[{event},{{}},1]")),
        text("cloudevents", "structured", event),
        text("cloudevents", "batched", &format!("[{event},{event}]")),
        text(
            "cloudevents",
            "base64",
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data_base64":"aGk=","ackordclient":"c","ackordlifetime":60,"x":true}"#,
        ),
        text(
            "cloudevents",
            "binary",
            "ce-specversion:1.0\nce-id:%31\nce-source:\"/s\\\"\"\nce-type:gr%C3%BC\nce-ackordlifetime:60\ncontent-type:application/json\n\n{}",
        ),
        text("cloudevents", "mode", "content-type:application/cloudevents+json; charset=utf-8\n\n"),
        text(
            "request_head",
            "socket",
            "/v1/sites/demo/client?x=1\nauthorization: Bearer ak_t1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
             origin: https://app.example\nhost: broker.example\nsec-websocket-protocol: chat, ackord.v1.cbor\n",
        ),
        text(
            "request_head",
            "list",
            "/v1/sites/a%2Fb/clients/c/subscriptions/e%20f/seek?limit=7&after=a%2Bb&null\n",
        ),
        text(
            "request_head",
            "token",
            "ak_t0a1b2c3d4e5f6071_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE",
        ),
        text(
            "request_head",
            "bad",
            "/v1//%ff?limit=-1&limit=%zz\nauthorization: bearer\norigin: null\n",
        ),
    ]
}
