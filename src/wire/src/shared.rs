//! An event that is encoded once and delivered many times.
//!
//! Of [`EventMessage`](crate::frame::EventMessage) the first four fields differ per delivery
//! (subscription, attempt, age, generation); the rest is the same for every receiver. A
//! [`SharedEvent`] holds the encoded rest; [`SharedEvent::frame`] puts the four in front. The
//! result is byte for byte what encoding the whole frame gives: the field order of `EventMessage`
//! is part of this.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::codec::Codec;
use crate::payload::{Data, Payload};
use crate::structure::Category;
use crate::trace::TraceContext;

/// Fields of an event that differ per delivery.
const OWN_FIELDS: u8 = 4;
/// Room for the part of a frame that differs per delivery, in either codec.
const PREFIX_BYTES: usize = 128;

/// What all deliveries of one instance have in common.
#[derive(Clone, Debug)]
pub struct EventBody<'a> {
    /// The event's name.
    pub event: &'a str,
    /// Its category.
    pub category: Category,
    /// Who raised it.
    pub service: &'a str,
    /// The life of the site that the id belongs to.
    pub incarnation: u64,
    /// The id.
    pub instance_id: u64,
    /// When it was committed, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The arguments; `None` is a null-event.
    pub payload: Option<Payload>,
    /// The instance that it was at first, if it was raised again.
    pub original_id: Option<u64>,
    /// The trace that it was raised in.
    pub trace: Option<TraceContext>,
}

/// The fields of [`EventBody`] as they are written, in the order of `EventMessage`.
#[derive(Serialize)]
struct Fields<'a> {
    event: &'a str,
    category: Category,
    service: &'a str,
    incarnation: u64,
    instance_id: u64,
    created_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

/// The encoded common part of an event. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct SharedEvent {
    codec: Codec,
    fields: u8,
    body: Bytes,
}

impl SharedEvent {
    /// Encodes what is common.
    pub fn new(codec: Codec, body: EventBody<'_>) -> Self {
        let EventBody { event, category, service, .. } = body;
        let EventBody { incarnation, instance_id, created_ms, payload, original_id, trace, .. } =
            body;
        let traceparent = trace.as_ref().map(TraceContext::traceparent);
        let tracestate = trace.map(|trace| trace.state).filter(|state| !state.is_empty());
        let (content_type, args, data) = Payload::to_fields(payload.as_ref(), codec);
        let optional = [
            content_type.is_some(),
            args.is_some(),
            data.is_some(),
            original_id.is_some(),
            traceparent.is_some(),
            tracestate.is_some(),
        ];
        let fields = 6 + optional.iter().map(|present| u8::from(*present)).sum::<u8>();
        let fields_of = Fields {
            event,
            category,
            service,
            incarnation,
            instance_id,
            created_ms,
            content_type,
            args,
            data,
            original_id,
            traceparent,
            tracestate,
        };
        let encoded = Bytes::from(codec.encode(&fields_of));
        let body = match codec {
            // Without the braces.
            Codec::Json => encoded.slice(1..encoded.len() - 1),
            // Without the one-byte head of a map of fewer than 24 entries.
            Codec::Cbor => encoded.slice(1..),
        };
        Self { codec, fields, body }
    }

    /// Bytes of the common part.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether it is empty; it never is.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The whole frame of one delivery.
    pub fn frame(&self, subscription: u32, attempt: u32, age: u64, generation: u32) -> Bytes {
        let mut out = Vec::with_capacity(PREFIX_BYTES + self.body.len());
        match self.codec {
            Codec::Json => out.extend_from_slice(b"{\"event\":"),
            Codec::Cbor => {
                out.push(CBOR_MAP | 1);
                cbor_text(&mut out, "event");
            }
        }
        self.item(subscription, attempt, age, generation, &mut out);
        match self.codec {
            Codec::Json => out.push(b'}'),
            Codec::Cbor => {}
        }
        out.into()
    }

    /// The map of one delivery, without the frame around it.
    fn item(&self, subscription: u32, attempt: u32, age: u64, generation: u32, out: &mut Vec<u8>) {
        let own = [
            ("subscription", u64::from(subscription)),
            ("attempt", u64::from(attempt)),
            ("age", age),
            ("generation", u64::from(generation)),
        ];
        match self.codec {
            Codec::Json => {
                out.push(b'{');
                for (name, value) in own {
                    out.push(b'"');
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(b"\":");
                    json_number(out, value);
                    out.push(b',');
                }
                out.extend_from_slice(&self.body);
                out.push(b'}');
            }
            Codec::Cbor => {
                out.push(CBOR_MAP | (OWN_FIELDS + self.fields));
                for (name, value) in own {
                    cbor_text(out, name);
                    cbor_number(out, value, CBOR_NUMBER);
                }
                out.extend_from_slice(&self.body);
            }
        }
    }
}

/// A frame with several deliveries, put together one by one.
#[derive(Debug)]
pub struct SharedEvents {
    codec: Codec,
    items: u64,
    out: Vec<u8>,
}

impl SharedEvents {
    /// A frame without deliveries.
    pub fn new(codec: Codec) -> Self {
        Self { codec, items: 0, out: Vec::new() }
    }

    /// Adds a delivery of an event in the same codec.
    pub fn push(
        &mut self,
        event: &SharedEvent,
        subscription: u32,
        attempt: u32,
        age: u64,
        generation: u32,
    ) {
        if self.codec == Codec::Json && self.items > 0 {
            self.out.push(b',');
        }
        event.item(subscription, attempt, age, generation, &mut self.out);
        self.items += 1;
    }

    /// The whole frame.
    pub fn frame(self) -> Bytes {
        let mut out = Vec::with_capacity(PREFIX_BYTES + self.out.len());
        match self.codec {
            Codec::Json => out.extend_from_slice(b"{\"events\":["),
            Codec::Cbor => {
                out.push(CBOR_MAP | 1);
                cbor_text(&mut out, "events");
                cbor_number(&mut out, self.items, CBOR_ARRAY);
            }
        }
        out.extend_from_slice(&self.out);
        match self.codec {
            Codec::Json => out.extend_from_slice(b"]}"),
            Codec::Cbor => {}
        }
        out.into()
    }
}

const CBOR_NUMBER: u8 = 0;
const CBOR_ARRAY: u8 = 0x80;
const CBOR_TEXT: u8 = 0x60;
const CBOR_MAP: u8 = 0xa0;

fn json_number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = value;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// A text of fewer than 24 bytes.
fn cbor_text(out: &mut Vec<u8>, text: &str) {
    out.push(CBOR_TEXT | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// The head of an item of this kind with an unsigned number in its shortest form.
fn cbor_number(out: &mut Vec<u8>, value: u64, kind: u8) {
    match value {
        0..=23 => out.push(kind | value as u8),
        24..=0xff => out.extend_from_slice(&[kind | 24, value as u8]),
        0x100..=0xffff => {
            out.push(kind | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(kind | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(kind | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ClientMessage, EventMessage};

    #[test]
    fn given_several_events_then_the_parts_together_are_the_frame_in_both_codecs() {
        for codec in [Codec::Json, Codec::Cbor] {
            for count in [0_u64, 1, 2, 23, 24, 300] {
                let mut parts = SharedEvents::new(codec);
                let mut whole = Vec::new();
                for id in 1..=count {
                    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
                    let state = (id % 4 == 1).then_some("a=1");
                    let trace = TraceContext::parse(parent, state).filter(|_| id % 2 == 1);
                    let payload = Some(Payload::json(format!("[{id}]")));
                    let (content_type, args, data) = Payload::to_fields(payload.as_ref(), codec);
                    let shared = SharedEvent::new(
                        codec,
                        EventBody {
                            event: "reading",
                            category: Category::Queueing,
                            service: "boiler",
                            incarnation: 7,
                            instance_id: id,
                            created_ms: 1_700_000_000_123,
                            payload,
                            original_id: (id % 2 == 0).then_some(id),
                            trace: trace.clone(),
                        },
                    );
                    parts.push(&shared, 4, 1, id, 3);
                    whole.push(EventMessage {
                        subscription: 4,
                        attempt: 1,
                        age: id,
                        generation: 3,
                        event: "reading".to_owned(),
                        category: Category::Queueing,
                        service: "boiler".to_owned(),
                        incarnation: 7,
                        instance_id: id,
                        created_ms: 1_700_000_000_123,
                        content_type,
                        args,
                        data,
                        original_id: (id % 2 == 0).then_some(id),
                        traceparent: trace.as_ref().map(TraceContext::traceparent),
                        tracestate: trace
                            .as_ref()
                            .and_then(|trace| trace.tracestate())
                            .map(str::to_owned),
                    });
                }
                let frame = parts.frame();
                assert_eq!(frame, codec.encode(&ClientMessage::Events(whole)), "{codec:?} {count}");
                let decoded: ClientMessage = codec.decode(&frame).expect("it is a frame");
                assert_eq!(codec.encode(&decoded), frame);
            }
        }
    }

    fn check(codec: Codec, payload: Option<Payload>, subscription: u32, attempt: u32, age: u64) {
        let (content_type, args, data) = Payload::to_fields(payload.as_ref(), codec);
        let whole = ClientMessage::Event(Box::new(EventMessage {
            subscription,
            attempt,
            age,
            generation: 3,
            event: "reading \"1\"".to_owned(),
            category: Category::Queueing,
            service: "boiler".to_owned(),
            incarnation: (1 << 53) - 1,
            instance_id: 77_000,
            created_ms: 1_700_000_000_123,
            content_type,
            args,
            data,
            original_id: None,
            traceparent: None,
            tracestate: None,
        }));
        let shared = SharedEvent::new(
            codec,
            EventBody {
                event: "reading \"1\"",
                category: Category::Queueing,
                service: "boiler",
                incarnation: (1 << 53) - 1,
                instance_id: 77_000,
                created_ms: 1_700_000_000_123,
                payload,
                original_id: None,
                trace: None,
            },
        );
        let frame = shared.frame(subscription, attempt, age, 3);
        assert_eq!(frame, codec.encode(&whole), "{codec:?} {whole:?}");
        let decoded: ClientMessage = codec.decode(&frame).expect("it is a frame");
        assert_eq!(codec.encode(&decoded), frame);
    }

    #[test]
    fn given_any_event_then_the_parts_together_are_the_frame_in_both_codecs() {
        let payloads = [
            None,
            Some(Payload::json("{\"a\":[1,2,\"}\"]}")),
            Some(Payload::json("null")),
            Some(Payload { content_type: "text/plain".to_owned(), data: "x".repeat(300).into() }),
            Some(Payload { content_type: "a/b".to_owned(), data: Bytes::new() }),
        ];
        let numbers = [
            (0, 1, 0),
            (23, 24, 255),
            (256, 65_535, 65_536),
            (u32::MAX, u32::MAX, u64::from(u32::MAX) + 1),
            (1, 2, u64::MAX),
        ];
        for codec in [Codec::Json, Codec::Cbor] {
            for payload in &payloads {
                for (subscription, attempt, age) in numbers {
                    check(codec, payload.clone(), subscription, attempt, age);
                }
            }
        }
    }
}
