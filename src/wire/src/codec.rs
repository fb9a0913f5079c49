//! Frames to bytes and back, in JSON (text messages) and CBOR (binary messages).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{Mode, Subscription};

/// The encoding of a connection, chosen by its WebSocket subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// `ackord.v1.json`: one JSON object per text message.
    Json,
    /// `ackord.v1.cbor`: one CBOR map per binary message.
    Cbor,
}

/// A message that is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame: {0}")]
pub struct DecodeError(String);

impl Codec {
    /// The WebSocket subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "ackord.v1.json",
            Self::Cbor => "ackord.v1.cbor",
        }
    }

    /// The codec of a subprotocol.
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        [Self::Json, Self::Cbor].into_iter().find(|codec| codec.subprotocol() == name)
    }

    /// Encodes a frame.
    pub fn encode<T: Serialize>(self, frame: &T) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        // Frames are maps of plain values with string keys: neither encoder can refuse them, and
        // a Vec takes every write.
        match self {
            Self::Json => serde_json::to_writer(&mut out, frame).expect("a frame is encodable"),
            Self::Cbor => ciborium::into_writer(frame, &mut out).expect("a frame is encodable"),
        }
        out
    }

    /// Decodes a frame; bytes behind it are an error.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        match self {
            Self::Json => {
                serde_json::from_slice(bytes).map_err(|error| DecodeError(error.to_string()))
            }
            Self::Cbor => {
                let mut rest = bytes;
                let frame = match from_cbor(&mut rest) {
                    Ok(frame) => frame,
                    // Enums inside items of indefinite length are beyond the direct way.
                    Err(error) => {
                        rest = bytes;
                        let value: ciborium::Value = from_cbor(&mut rest)?;
                        value.deserialized().map_err(|_| error)?
                    }
                };
                if rest.is_empty() {
                    Ok(frame)
                } else {
                    Err(DecodeError(format!("{} bytes after the frame", rest.len())))
                }
            }
        }
    }
}

fn from_cbor<T: DeserializeOwned>(rest: &mut &[u8]) -> Result<T, DecodeError> {
    /// Items inside one another.
    const DEPTH_MAX: usize = 32;
    ciborium::de::from_reader_with_recursion_limit(rest, DEPTH_MAX).map_err(|error| {
        DecodeError(match error {
            ciborium::de::Error::Io(_) => "the frame is cut short".to_owned(),
            ciborium::de::Error::Syntax(at) => format!("no CBOR at byte {at}"),
            ciborium::de::Error::Semantic(_, detail) => detail,
            ciborium::de::Error::RecursionLimitExceeded => {
                format!("more than {DEPTH_MAX} items inside one another")
            }
        })
    })
}

/// The text whose SHA-256 (lowercase hex) is the hash of a set of subscriptions: one line per
/// subscription, sorted bytewise: `event \t start \t ack_timeout_ms or - \t max_attempts or - \n`; where
/// the mode is not `ordered`, or what is given up is kept, with `\t mode \t window or - \t flush_ms or -` and, where it
/// is, `\t dead-letter` before the end of the line.
pub fn set_text(set: &[Subscription]) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mut lines: Vec<String> = set
        .iter()
        .map(|item| {
            let start = match item.start {
                crate::frame::Start::Earliest => "earliest",
                crate::frame::Start::Latest => "latest",
            };
            let (timeout, attempts) = (number(item.ack_timeout_ms), number(item.max_attempts));
            let (window, flush_ms) = (number(item.window), number(item.flush_ms));
            let quality = match (item.mode, item.dead_letter) {
                (Mode::Ordered, false) => String::new(),
                (mode, false) => format!("\t{}\t{window}\t{flush_ms}", mode.as_str()),
                (mode, true) => format!("\t{}\t{window}\t{flush_ms}\tdead-letter", mode.as_str()),
            };
            format!("{}\t{start}\t{timeout}\t{attempts}{quality}\n", item.event)
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// The hash of a set of subscriptions, see [`set_text`].
pub fn set_hash(set: &[Subscription]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(set_text(set).as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
