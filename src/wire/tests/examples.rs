//! The recorded frames of protocol version 1: what was once on the wire stays readable, and is
//! still what is written. `examples-v1.tsv` holds one frame per line: kind, JSON, CBOR in hex.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ackord_wire::Codec;
use ackord_wire::frame::{ClientFrame, ClientMessage, ServiceFrame, ServiceMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;

const EXAMPLES: &str = include_str!("examples-v1.tsv");

/// Every kind of frame: who says it, then its name.
const KINDS: &[&str] = &[
    "service hello",
    "service raise",
    "service goodbye",
    "to-service welcome",
    "to-service accepted",
    "to-service rejected",
    "to-service refused",
    "to-service state",
    "to-service closing",
    "client hello",
    "client subscriptions",
    "client subscribe",
    "client unsubscribe",
    "client ack",
    "client nack",
    "client working",
    "client goodbye",
    "to-client welcome",
    "to-client subscribed",
    "to-client event",
    "to-client committed",
    "to-client authority",
    "to-client presence",
    "to-client closing",
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn check<T: Serialize + DeserializeOwned + std::fmt::Debug>(kind: &str, json: &str, cbor: &str) {
    let name = kind.split_once(' ').unwrap().1;
    assert!(json.starts_with(&format!("{{\"{name}\":")), "{kind}: {json}");
    let from_json: T = Codec::Json.decode(json.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(Codec::Json.encode(&from_json)).unwrap(), json, "{kind}");
    let from_cbor: T = Codec::Cbor.decode(&unhex(cbor)).unwrap_or_else(|error| {
        panic!("{kind}: {error}");
    });
    assert_eq!(hex(&Codec::Cbor.encode(&from_cbor)), cbor, "{kind}");
    // Arguments travel differently; everything else is the same in both.
    if !json.contains("\"args\"") {
        assert_eq!(format!("{from_json:?}"), format!("{from_cbor:?}"), "{kind}");
    }
}

#[test]
fn recorded_frames_are_still_what_is_read_and_written() {
    let mut seen = BTreeSet::new();
    for line in EXAMPLES.lines() {
        let [kind, json, cbor] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}");
        };
        seen.insert(kind);
        match kind.split_once(' ').unwrap().0 {
            "service" => check::<ServiceFrame>(kind, json, cbor),
            "to-service" => check::<ServiceMessage>(kind, json, cbor),
            "client" => check::<ClientFrame>(kind, json, cbor),
            "to-client" => check::<ClientMessage>(kind, json, cbor),
            other => panic!("{other}"),
        }
    }
    assert_eq!(seen, KINDS.iter().copied().collect());
}
