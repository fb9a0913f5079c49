//! What is written to a receiver: events as frames or as CloudEvents. Pure.

use ackord_machine::session::{Delivery, Parcel, PushRequest};
use ackord_machine::site::{PushFormat, PushId, SiteName, Stamp};
use ackord_wire::payload::JSON;
use ackord_wire::{Codec, TraceContext};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::translate;

/// A body with its media type.
pub(crate) struct Encoded {
    pub media: &'static str,
    pub body: Bytes,
}

/// Everything of a request in one body. A batch is a list, also of one.
pub(crate) fn body(site: &SiteName, request: &PushRequest, is_batch: bool) -> Encoded {
    let media = match (request.spec.format, is_batch) {
        (PushFormat::Ackord, _) => JSON,
        (PushFormat::CloudEvents, false) => "application/cloudevents+json",
        (PushFormat::CloudEvents, true) => "application/cloudevents-batch+json",
    };
    let mut events = request.parcels.iter().map(|parcel| event(site, request, parcel));
    let body = if is_batch { list(events) } else { events.next().unwrap_or_default() };
    Encoded { media, body }
}

/// A JSON list of what is JSON already.
pub(crate) fn list(events: impl Iterator<Item = Bytes>) -> Bytes {
    let mut list = vec![b'['];
    for (at, event) in events.enumerate() {
        if at > 0 {
            list.push(b',');
        }
        list.extend_from_slice(&event);
    }
    list.push(b']');
    list.into()
}

/// One event.
pub(crate) fn event(site: &SiteName, request: &PushRequest, parcel: &Parcel) -> Bytes {
    let delivery = Delivery {
        event: request.event,
        name: request.name.clone(),
        category: parcel.category,
        mode: request.spec.quality.mode,
        incarnation: request.incarnation,
        generation: request.generation,
        attempt: parcel.attempt,
        age_ms: parcel.age_ms,
        instance: parcel.instance.clone(),
    };
    match request.spec.format {
        PushFormat::Ackord => {
            let shared = translate::shared_event(&delivery, Codec::Json);
            let (event, generation) = (delivery.event.0, delivery.generation.0);
            shared.frame(event, delivery.attempt, delivery.age_ms / 1000, generation)
        }
        PushFormat::CloudEvents => cloud_event(site, request, &delivery),
    }
}

/// Under which key a receiver knows an instance that comes again.
pub(crate) fn key(request: &PushRequest) -> String {
    let incarnation = request.incarnation;
    match &request.parcels[..] {
        [first, .., last] => format!("{incarnation}-{}-{}", first.instance.id, last.instance.id),
        [only] => format!("{incarnation}-{}", only.instance.id),
        [] => String::new(),
    }
}

/// The headers that say in which trace the event of a request was raised; several events have none.
pub(crate) fn trace(request: &PushRequest) -> impl Iterator<Item = (&'static str, String)> {
    let trace = match &request.parcels[..] {
        [only] => only.instance.trace.as_deref().and_then(translate::trace_to_wire),
        [] | [_, ..] => None,
    };
    let parent = trace.as_ref().map(|trace| ("traceparent", trace.traceparent()));
    let state = trace.map(|trace| trace.state).filter(|state| !state.is_empty());
    parent.into_iter().chain(state.map(|state| ("tracestate", state)))
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: &'a str,
    time: String,
    ackordinstance: String,
    ackordpush: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ackordoriginal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

fn cloud_event(site: &SiteName, request: &PushRequest, delivery: &Delivery) -> Bytes {
    let instance = &delivery.instance;
    let arguments = instance.arguments.as_ref();
    let is_json = |media: &str| media == JSON || media.ends_with("+json");
    let json = arguments.filter(|arguments| is_json(&arguments.content_type));
    // What says that it is JSON and is not goes as bytes.
    let json = json.and_then(|arguments| {
        serde_json::from_str::<&RawValue>(std::str::from_utf8(&arguments.data).ok()?).ok()
    });
    let trace = instance.trace.as_deref().and_then(translate::trace_to_wire);
    let event = CloudEvent {
        specversion: "1.0",
        id: format!("{}-{}", delivery.incarnation, instance.id),
        source: format!("/v1/sites/{site}/services/{}", instance.service),
        r#type: delivery.name.as_str(),
        time: rfc3339(instance.created),
        traceparent: trace.as_ref().map(TraceContext::traceparent),
        tracestate: trace.map(|trace| trace.state).filter(|state| !state.is_empty()),
        ackordoriginal: instance.original.map(|id| id.to_string()),
        ackordinstance: instance.id.to_string(),
        ackordpush: request.push.as_str(),
        datacontenttype: arguments.map(|arguments| arguments.content_type.as_str()),
        data: json,
        data_base64: arguments
            .filter(|_| json.is_none())
            .map(|arguments| STANDARD.encode(&arguments.data)),
    };
    // Texts and JSON that was parsed are always written.
    serde_json::to_vec(&event).unwrap_or_default().into()
}

fn rfc3339(stamp: Stamp) -> String {
    let nanos = i128::from(stamp.0) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// What a callback is asked before anything is delivered to it.
pub(crate) fn challenge(site: &SiteName, id: &PushId, challenge: &str) -> Bytes {
    let asked = serde_json::json!({
        "challenge": challenge, "site": site.as_str(), "push": id.as_str(),
    });
    asked.to_string().into()
}
