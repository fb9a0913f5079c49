//! What of an answer may differ between two nodes that were asked the same: what they drew at
//! random, and what their clocks say. Everything else counts.

use serde_json::Value;

use crate::raw::Reply;

/// Fields that hold a duration, the port of a peer, or something that was drawn at random.
const OWN: [&str; 14] = [
    "age",
    "ackordage",
    "time",
    "peer",
    // Random: a site's life, a session's number, secrets, and texts that are made of these.
    "incarnation",
    "ackordincarnation",
    "session",
    "token",
    "ticket",
    "ack",
    "ackordack",
    "after",
    "resumed_from",
    "requested",
];
/// From here on a number in a field `…_ms` is a moment, not a duration.
const MOMENT_MS_MIN: u64 = 1_000_000_000_000;
/// Headers that say when, or how long the rest is, or hold JSON with such fields.
const HEADERS: [&str; 3] = ["date", "content-length", "ackord-after"];

/// An answer without what is a node's own.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Told {
    pub fn of(reply: &Reply) -> Self {
        let headers = reply.headers.iter().filter(|(name, _)| !HEADERS.contains(&name.as_str()));
        let headers = headers.map(|(name, value)| match name.as_str() {
            "ackord-resume" => (name.clone(), plain(value.as_bytes())),
            // Made of the moment of creation, among others.
            "etag" => (name.clone(), String::new()),
            _ => (name.clone(), value.clone()),
        });
        let mut headers: Vec<_> = headers.collect();
        // Their order follows from a random hash.
        headers.sort_unstable();
        Self { status: reply.status, headers, body: plain(&reply.body) }
    }
}

fn plain(body: &[u8]) -> String {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        // Lines of JSON, or no JSON at all.
        let text = String::from_utf8_lossy(body).into_owned();
        let lines = text.lines().map(|line| match serde_json::from_str::<Value>(line) {
            Ok(mut value) => {
                strip(&mut value);
                value.to_string()
            }
            Err(_) => line.to_owned(),
        });
        return lines.collect::<Vec<_>>().join("\n");
    };
    strip(&mut value);
    value.to_string()
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // The id of a CloudEvent begins with the life of its site.
            let is_event = map.contains_key("specversion");
            for (name, value) in map {
                let moment = name.ends_with("_ms") && value.as_u64() >= Some(MOMENT_MS_MIN);
                let own = moment || OWN.contains(&name.as_str()) || (is_event && name == "id");
                // That it is there counts.
                if own && (value.is_number() || value.is_string()) {
                    *value = Value::from("own");
                }
                strip(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
