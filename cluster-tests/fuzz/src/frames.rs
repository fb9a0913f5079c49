//! Frames of the WebSocket protocol in both codecs, both ways, and CBOR as such.

use std::fmt::Debug;

use ackord_wire::cbor::{self, Malformed};
use ackord_wire::{ClientFrame, ClientMessage, Codec, ServiceFrame, ServiceMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Frames in JSON.
pub fn frames_json(data: &[u8]) {
    every_kind(Codec::Json, data);
}

/// Frames in CBOR.
pub fn frames_cbor(data: &[u8]) {
    every_kind(Codec::Cbor, data);
}

fn every_kind(codec: Codec, data: &[u8]) {
    check::<ServiceFrame>(codec, data);
    check::<ClientFrame>(codec, data);
    check::<ServiceMessage>(codec, data);
    check::<ClientMessage>(codec, data);
}

/// What is understood is the same when it is written and read again.
fn check<T: DeserializeOwned + Serialize + Debug>(codec: Codec, data: &[u8]) {
    let Ok(frame) = codec.decode::<T>(data) else { return };
    let written = codec.encode(&frame);
    let again: T = codec.decode(&written).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{frame:?}"), "it is another one when read again");
    assert_eq!(codec.encode(&again), written, "it is another one when written again");
}

/// What a reader of CBOR takes as one item is well-formed, and nothing else is taken for it.
pub fn cbor(data: &[u8]) {
    let judged = cbor::well_formed(data);
    let mut rest = data;
    let depth = cbor::DEPTH_MAX;
    let read: Result<ciborium::Value, _> =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, depth);
    if read.is_ok() {
        match judged {
            Ok(()) => assert!(rest.is_empty()),
            Err(Malformed::Trailing { bytes }) => assert_eq!(bytes, rest.len()),
            // The reader does not count every way to nest.
            Err(Malformed::Depth) => {}
            // It takes strings of unknown length inside one another, and simple values that are
            // longer than they need to be, which the standard forbids.
            Err(Malformed::Head { at }) if matches!(data.get(at), Some(0x5f | 0x7f | 0xf8)) => {}
            Err(other) => panic!("{other}, but it was read"),
        }
    }
}
