//! From the frames of a session to the text of a stream: Server-Sent Events, their data, CloudEvents.
//!
//! What is not an event of the site has a name that no event can have: it starts with `@`, and names
//! of events start with a letter.

use ackord_machine::site::SiteName;
use ackord_wire::Codec;
use ackord_wire::frame::EventMessage;
use ackord_wire::stream::CloudEvent;
use ackord_wire::structure::Category;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ask::Format;

/// How an `event` frame begins.
const EVENT_FRAME: &[u8] = b"{\"event\":";
/// The heartbeat: a comment, which readers pass over.
pub const HEARTBEAT: &[u8] = b": hb\n\n";
/// Where a stream goes on.
pub const RESUME: &str = "@resume";
/// What became of subscriptions.
pub const SUBSCRIBED: &str = "@subscribed";
/// Whether the client may receive a subscribed event changed.
pub const AUTHORITY: &str = "@authority";
/// A service came or went.
pub const PRESENCE: &str = "@presence";
/// The broker ends the stream.
pub const CLOSING: &str = "@closing";

/// What a client without connection needs with an event.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The token that acknowledges this delivery.
    pub ack: Option<String>,
    /// What a guest goes on from.
    pub after: Option<String>,
}

/// The data of an event, on one line. `frame` is the whole JSON frame that `message` was read from.
pub fn data(
    frame: &[u8],
    message: EventMessage,
    site: &SiteName,
    format: Format,
    extras: Extras,
) -> Vec<u8> {
    let mut data = match format {
        Format::Ackord => native(frame, &message, extras),
        Format::CloudEvents => Codec::Json.encode(&cloud_event(message, site, extras)),
    };
    // Arguments are JSON as they were given: between its tokens there may be ends of lines.
    for byte in &mut data {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    data
}

fn native(frame: &[u8], message: &EventMessage, extras: Extras) -> Vec<u8> {
    let fields = frame.strip_prefix(EVENT_FRAME).and_then(|rest| rest.strip_suffix(b"}}"));
    let mut out = Vec::with_capacity(frame.len() + 256);
    out.extend_from_slice(fields.unwrap_or(b"{"));
    let mut field = |name: &str, value: &str| {
        for part in [",\"", name, "\":", value] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    if is_null(message) {
        field("null", "true");
    }
    if message.attempt > 1 {
        field("redelivery", "true");
    }
    // Both are base64url: nothing in them is to be escaped.
    if let Some(ack) = extras.ack {
        field("ack", &format!("\"{ack}\""));
    }
    if let Some(after) = extras.after {
        field("after", &format!("\"{after}\""));
    }
    out.push(b'}');
    out
}

fn is_null(message: &EventMessage) -> bool {
    message.args.is_none() && message.data.is_none()
}

/// An event as a CloudEvent. Its source and id together are the same for every delivery.
fn cloud_event(message: EventMessage, site: &SiteName, extras: Extras) -> CloudEvent {
    let null = is_null(&message);
    let nanos = i128::from(message.created_ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    let content_type = message.content_type.unwrap_or_else(|| "application/json".to_owned());
    let category = match message.category {
        Category::Replacing => "replacing",
        Category::Queueing => "queueing",
        Category::Private => "private",
    };
    CloudEvent {
        specversion: "1.0".to_owned(),
        id: format!("{}.{}", message.incarnation, message.instance_id),
        source: format!("/sites/{site}/services/{}", message.service),
        event_type: message.event,
        // A time that has no such text is left out.
        time: time.and_then(|time| time.format(&Rfc3339).ok()),
        datacontenttype: (!null).then_some(content_type),
        data: message.args,
        data_base64: message.data,
        traceparent: message.traceparent,
        tracestate: message.tracestate,
        ackordcategory: category.to_owned(),
        ackordsubscription: message.subscription,
        ackordgeneration: message.generation,
        ackordinstance: message.instance_id.to_string(),
        ackordincarnation: message.incarnation.to_string(),
        ackordattempt: message.attempt,
        ackordage: message.age.to_string(),
        ackordnull: null,
        ackordack: extras.ack,
        ackordafter: extras.after,
    }
}

/// Writes one event of a stream. The data has no end of line.
pub fn write(out: &mut Vec<u8>, id: Option<&str>, name: &str, data: &[u8]) {
    if let Some(id) = id {
        line(out, "id", id.as_bytes());
    }
    line(out, "event", name.as_bytes());
    line(out, "data", data);
    out.push(b'\n');
}

/// Writes an event that is none of the site's.
pub fn write_control(out: &mut Vec<u8>, id: Option<&str>, name: &str, data: &impl Serialize) {
    write(out, id, name, &Codec::Json.encode(data));
}

/// Tells a browser how long to wait before it connects again.
pub fn write_retry(out: &mut Vec<u8>, ms: u64) {
    line(out, "retry", ms.to_string().as_bytes());
}

fn line(out: &mut Vec<u8>, field: &str, value: &[u8]) {
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackord_wire::ClientMessage;
    use serde_json::{Value, json};

    fn frame(arguments: &str) -> (Vec<u8>, EventMessage) {
        let frame = format!(
            "{{\"event\":{{\"subscription\":2,\"attempt\":2,\"age\":7,\"generation\":1,\
             \"event\":\"a.reading\",\"category\":\"queueing\",\"service\":\"boiler-1\",\
             \"incarnation\":77,\"instance_id\":1208,\"created_ms\":1763683200123{arguments}}}}}"
        );
        let ClientMessage::Event(message) = Codec::Json.decode(frame.as_bytes()).unwrap() else {
            panic!("no event");
        };
        (frame.into_bytes(), *message)
    }

    fn read(arguments: &str, format: Format) -> Value {
        let (frame, message) = frame(arguments);
        let extras = Extras { ack: Some("AAA".to_owned()), after: None };
        let data = data(&frame, message, &"demo".into(), format, extras);
        assert!(!data.contains(&b'\n') && !data.contains(&b'\r'));
        serde_json::from_slice(&data).unwrap()
    }

    #[test]
    fn data_is_the_frame_and_what_else_is_needed() {
        let expected = json!({
            "subscription": 2, "attempt": 2, "age": 7, "generation": 1, "event": "a.reading",
            "category": "queueing", "service": "boiler-1", "incarnation": 77, "instance_id": 1208,
            "created_ms": 1_763_683_200_123u64, "args": {"n": [1, 2]}, "redelivery": true,
            "ack": "AAA",
        });
        assert_eq!(read(",\"args\":{\"n\":[1,\r\n2]\n}", Format::Ackord), expected);
        let null = read("", Format::Ackord);
        assert_eq!((&null["null"], null.get("args")), (&json!(true), None));
    }

    #[test]
    fn cloud_events_have_their_attributes() {
        let event = read(",\"args\":{\"n\":\n1}", Format::CloudEvents);
        let expected = json!({
            "specversion": "1.0", "id": "77.1208", "source": "/sites/demo/services/boiler-1",
            "type": "a.reading", "time": "2025-11-21T00:00:00.123Z",
            "datacontenttype": "application/json", "data": {"n": 1}, "ackordcategory": "queueing",
            "ackordsubscription": 2, "ackordgeneration": 1, "ackordinstance": "1208",
            "ackordincarnation": "77", "ackordattempt": 2, "ackordage": "7", "ackordack": "AAA",
        });
        assert_eq!(event, expected);
        let bytes = read(",\"content_type\":\"text/plain\",\"data\":\"aGk=\"", Format::CloudEvents);
        assert_eq!(
            (&bytes["datacontenttype"], &bytes["data_base64"], bytes.get("data")),
            (&json!("text/plain"), &json!("aGk="), None)
        );
        let null = read("", Format::CloudEvents);
        assert_eq!((&null["ackordnull"], null.get("datacontenttype")), (&json!(true), None));
        assert_eq!((null.get("data"), null.get("data_base64")), (None, None));
        for name in null.as_object().unwrap().keys().filter(|name| name.starts_with("ackord")) {
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(name.chars().all(legal) && name.len() <= 20, "{name}");
        }
    }

    #[test]
    fn an_event_of_a_stream_is_lines_and_a_blank_one() {
        let mut out = Vec::new();
        write_retry(&mut out, 1000);
        write(&mut out, Some("AQ"), "reading", b"{}");
        write_control(&mut out, None, CLOSING, &json!({"code": "replaced"}));
        let expected = "retry: 1000\nid: AQ\nevent: reading\ndata: {}\n\n\
                        event: @closing\ndata: {\"code\":\"replaced\"}\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
