//! The line of a handled event, in JSON and for people.

use ackord_endpoint::{Delivery, Payload, TraceContext};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::moment::rfc3339;

#[derive(Serialize)]
struct EventLine<'a> {
    event: &'a str,
    instance_id: u64,
    service: &'a str,
    created: String,
    age: u64,
    attempt: u32,
    null: bool,
    args: Option<Args>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Args {
    Json(Box<RawValue>),
    Bytes { base64: String, content_type: String },
}

impl Args {
    fn of(payload: &Payload) -> Self {
        json(payload).unwrap_or_else(|| Self::Bytes {
            base64: STANDARD.encode(&payload.data),
            content_type: payload.content_type.clone(),
        })
    }
}

fn json(payload: &Payload) -> Option<Args> {
    let is_json = payload.content_type == ackord_wire::payload::JSON;
    let text = std::str::from_utf8(&payload.data).ok().filter(|_| is_json)?;
    RawValue::from_string(crate::output::compact(text)).ok().map(Args::Json)
}

/// The JSON line of an event.
pub fn to_json(delivery: &Delivery) -> String {
    let line = EventLine {
        event: &delivery.event,
        instance_id: delivery.instance_id,
        service: &delivery.service,
        created: rfc3339(delivery.created_ms),
        age: delivery.age,
        attempt: delivery.attempt,
        null: delivery.payload.is_none(),
        args: delivery.payload.as_ref().map(Args::of),
        original_id: delivery.original_id,
        traceparent: delivery.trace.as_ref().map(TraceContext::traceparent),
        tracestate: delivery.trace.as_ref().and_then(TraceContext::tracestate),
    };
    // A struct of plain fields with string keys: there is nothing that the encoder could refuse.
    serde_json::to_string(&line).expect("an event line is encodable")
}

/// The line of an event for a person; `width` is that of the longest event name.
pub fn to_text(delivery: &Delivery, width: usize) -> String {
    let args = match delivery.payload.as_ref().map(Args::of) {
        None => "(null)".to_owned(),
        Some(Args::Json(value)) => value.get().to_owned(),
        Some(Args::Bytes { content_type, base64 }) => format!("{content_type} {base64}"),
    };
    let created = rfc3339(delivery.created_ms);
    let clock = created.get(11..23).unwrap_or(&created);
    let again = match delivery.attempt {
        0 | 1 => String::new(),
        attempt => format!("  (attempt {attempt})"),
    };
    let replayed =
        delivery.original_id.map_or_else(String::new, |id| format!("  (raised again: {id})"));
    let Delivery { event, instance_id, service, .. } = delivery;
    format!("{clock}  {event:width$}  {instance_id:>6}  {service}  {args}{again}{replayed}")
}

#[cfg(test)]
mod tests {
    use ackord_endpoint::Category;

    use super::*;

    fn delivery(payload: Option<Payload>) -> Delivery {
        Delivery {
            event: "reading".to_owned(),
            category: Category::Queueing,
            service: "boiler".to_owned(),
            instance_id: 17,
            incarnation: 1,
            generation: 0,
            created_ms: 1_767_323_045_006,
            age: 3,
            attempt: 1,
            payload,
            original_id: None,
            trace: None,
        }
    }

    #[test]
    fn a_json_line_has_the_fields_of_the_contract_in_their_order() {
        let check = |payload: Option<Payload>, null: bool, args: &str| {
            let expected = format!(
                "{{\"event\":\"reading\",\"instance_id\":17,\"service\":\"boiler\",\
                 \"created\":\"2026-01-02T03:04:05.006Z\",\"age\":3,\"attempt\":1,\
                 \"null\":{null},\"args\":{args}}}"
            );
            assert_eq!(to_json(&delivery(payload)), expected);
        };
        check(None, true, "null");
        check(Some(Payload::json("null")), false, "null");
        check(Some(Payload::json("{ \"n\":\n 1e400 }")), false, "{\"n\":1e400}");
        let bytes = Payload { content_type: "image/png".into(), data: vec![0, 255].into() };
        check(Some(bytes), false, r#"{"base64":"AP8=","content_type":"image/png"}"#);
        let broken = Payload::json("{");
        check(Some(broken), false, r#"{"base64":"ew==","content_type":"application/json"}"#);
    }

    #[test]
    fn a_text_line_is_aligned() {
        let text = to_text(&delivery(Some(Payload::json("{}"))), 10);
        assert_eq!(text, "03:04:05.006  reading         17  boiler  {}");
    }
}
