//! Between the frames of the wire and the sessions' own words, as pure functions.
//!
//! Every mapping of a closed enum is exhaustive: a new refusal, rejection or close reason does not
//! compile until it has a public code.

mod codes;
mod structure;

pub use codes::{
    close_code, failed_code, parked_code, propose_code, refusal_code, rejection_code,
    rejection_detail,
};
pub use structure::{category_from_wire, category_to_wire, structure_from_wire, structure_to_wire};

use ackord_machine::session::{
    ClientSession, CloseReason, Delivery, Failed, ListMode, Named, Output, RefusedRaise,
    ServiceHello, ServiceSession, SubscribeItem, SubscriptionSync, ToClient, ToService, View,
    refusal_detail,
};
use ackord_machine::site::{
    self, Arguments, ClientId, Digest, Epoch, EventKey, EventName, Generation, Incarnation,
    InstanceId, Mode, NewEvent, Parked, Place, Position, Quality, Refusal, Sequence, Start,
    StorageUid, SubscriptionRequest,
};
use ackord_replica::ProposeError;
use ackord_wire::frame::{
    self, Accepted, Ack, ClientFrame, ClientMessage, ClientWelcome, Closing, EventMessage,
    Presence, RefusedItem, Rejected, ServiceFrame, ServiceMessage, ServiceState, ServiceWelcome,
    Subscribed, SubscribedItem, Subscription,
};
use ackord_wire::{CloseCode, Code, Codec, EventBody, Payload, SharedEvent, TraceContext};

/// Milliseconds that an endpoint waits before it sends a raise again that was refused as busy.
pub const RETRY_AFTER_MS: u64 = 200;
/// Longest version text of a service that is kept, bytes.
const VERSION_BYTES_MAX: usize = 64;
/// Longest host name that is kept, bytes.
const HOSTNAME_BYTES_MAX: usize = 255;

/// What the welcome says besides what the session knows.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Seconds between pings, as granted.
    pub keepalive_s: u32,
    /// Gives the addresses of the cluster's other nodes.
    pub addresses: &'a dyn Fn() -> Vec<String>,
}

/// What a service is granted, and the randomness that its attach needs.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Raises in flight when the hello asks for no number.
    pub window_default: u32,
    /// Raises in flight at most.
    pub window_max: u32,
    /// A random value for the site's incarnation.
    pub incarnation: Incarnation,
    /// Where the session is.
    pub place: Place,
    /// The service's epoch as applied on this node.
    pub above: Epoch,
}

/// Tells a client's session what its peer said.
pub fn client_frame(
    session: &mut ClientSession,
    frame: ClientFrame,
    view: View<'_>,
    out: &mut Vec<Output<ToClient>>,
) {
    match frame {
        ClientFrame::Hello(hello) => {
            // A hash that is none equals no set: the client sends its list.
            let none = Digest([0; 32]);
            let set = hello.set.map(|text| digest_from_hex(&text).unwrap_or(none));
            session.on_hello(set, view, out);
        }
        ClientFrame::Subscriptions(list) => {
            let items = list.items.into_iter().map(subscribe_item).collect();
            session.on_subscribe(ListMode::Exact, items, view, out);
        }
        ClientFrame::Subscribe(list) => {
            let items = list.items.into_iter().map(subscribe_item).collect();
            session.on_subscribe(ListMode::Add, items, view, out);
        }
        ClientFrame::Unsubscribe { events } => {
            let events = events.into_iter().map(EventName::from).collect();
            session.on_unsubscribe(events, view, out);
        }
        ClientFrame::Ack(ack) => {
            session.on_ack(named(ack.subscription, ack.instance_id, ack.generation), view, out);
        }
        ClientFrame::Nack(nack) => {
            let named = named(nack.subscription, nack.instance_id, nack.generation);
            session.on_nack(named, nack.retry_after_ms, view, out);
        }
        ClientFrame::Working(ack) => {
            session.on_working(named(ack.subscription, ack.instance_id, ack.generation), view, out);
        }
        ClientFrame::Goodbye {} => session.on_goodbye(out),
    }
}

fn named(subscription: u32, instance_id: u64, generation: Option<u32>) -> Named {
    let (event, instance) = (EventKey(subscription), InstanceId(instance_id));
    Named { event, instance, generation: generation.map(Generation) }
}

/// Tells a service's session what its peer said. That needs no look at the state.
pub fn service_frame(
    session: &mut ServiceSession,
    frame: ServiceFrame,
    grant: Grant,
    out: &mut Vec<Output<ToService>>,
) {
    match frame {
        ServiceFrame::Hello(hello) => match service_hello(hello, grant) {
            Ok(hello) => session.on_hello(hello, out),
            Err(detail) => session.close(CloseReason::Invalid, detail, out),
        },
        ServiceFrame::Raise(raise) => {
            let (sequence, event) = new_event(raise);
            session.on_raise(sequence, event, out);
        }
        ServiceFrame::Goodbye {} => session.on_goodbye(out),
    }
}

fn service_hello(hello: frame::ServiceHello, grant: Grant) -> Result<ServiceHello, String> {
    let structure = hello.structure.as_ref().map(structure_from_wire).transpose();
    let structure = structure.map_err(|invalid| format!("structure.{invalid}"))?;
    let uid = |field: &str, text: &str| {
        uid_from_hex(text).ok_or_else(|| format!("{field}: 32 hex digits"))
    };
    Ok(ServiceHello {
        structure,
        uid: uid("store", &hello.store)?,
        continues: hello.continues.as_deref().map(|text| uid("continues", text)).transpose()?,
        version: cut(hello.service_version, VERSION_BYTES_MAX),
        hostname: cut(hello.hostname, HOSTNAME_BYTES_MAX),
        window: hello.window.unwrap_or(grant.window_default).clamp(1, grant.window_max),
        incarnation: grant.incarnation,
        place: grant.place,
        above: grant.above,
    })
}

/// A raise as the state takes it.
pub fn new_event(raise: frame::Raise) -> (Sequence, NewEvent) {
    let payload = Payload::from_fields(raise.content_type, raise.args, raise.data);
    let event = NewEvent {
        name: EventName::from(raise.event),
        category: raise.category.map(category_from_wire),
        arguments: payload
            .map(|payload| Arguments { content_type: payload.content_type, data: payload.data }),
        client: raise.client.map(ClientId::from),
        lifetime_s: raise.lifetime_s,
        trace: raise.traceparent.and_then(|parent| trace(&parent, raise.tracestate.as_deref())),
    };
    (Sequence(raise.seq), event)
}

/// The trace context of these texts, if they are one.
pub fn trace(parent: &str, state: Option<&str>) -> Option<Box<site::TraceContext>> {
    TraceContext::parse(parent, state).map(trace_from_wire)
}

/// The trace context as the state has it.
pub fn trace_from_wire(trace: TraceContext) -> Box<site::TraceContext> {
    let TraceContext { trace_id, parent_id, flags, state } = trace;
    Box::new(site::TraceContext { trace_id, parent_id, flags, state })
}

/// The trace context as frames and resources have it.
pub fn trace_to_wire(trace: &site::TraceContext) -> Option<TraceContext> {
    let site::TraceContext { trace_id, parent_id, flags, state } = trace.clone();
    TraceContext { trace_id, parent_id, flags, state }.sound()
}

fn trace_of(delivery: &Delivery) -> Option<TraceContext> {
    delivery.instance.trace.as_deref().and_then(trace_to_wire)
}

/// A mode with its settings, not judged yet.
pub fn quality_from_wire(
    mode: frame::Mode,
    window: Option<u32>,
    flush_ms: Option<u32>,
    dead_letter: bool,
) -> Quality {
    let mode = match mode {
        frame::Mode::Ordered => Mode::Ordered,
        frame::Mode::Twoway => Mode::Twoway,
        frame::Mode::Oneway => Mode::Oneway,
        frame::Mode::Batch => Mode::Batch,
        frame::Mode::Datagram => Mode::Datagram,
    };
    Quality { mode, window, flush_ms, dead_letter }
}

/// The mode as frames and resources have it.
pub fn mode_to_wire(mode: Mode) -> frame::Mode {
    match mode {
        Mode::Ordered => frame::Mode::Ordered,
        Mode::Twoway => frame::Mode::Twoway,
        Mode::Oneway => frame::Mode::Oneway,
        Mode::Batch => frame::Mode::Batch,
        Mode::Datagram => frame::Mode::Datagram,
    }
}

fn subscribe_item(item: Subscription) -> SubscribeItem {
    SubscribeItem {
        request: SubscriptionRequest {
            event: EventName::from(item.event),
            category: item.category.map(category_from_wire),
            start: match item.start {
                frame::Start::Earliest => Start::Earliest,
                frame::Start::Latest => Start::Latest,
            },
            ack_timeout_ms: item.ack_timeout_ms,
            max_attempts: item.max_attempts,
        },
        resume: item.resume.map(|position| Position {
            incarnation: Incarnation(position.incarnation),
            generation: Generation(position.generation),
            instance: InstanceId(position.instance_id),
        }),
        quality: quality_from_wire(item.mode, item.window, item.flush_ms, item.dead_letter),
    }
}

/// The frame for what a session says to a client. Deliveries are cheaper by [`shared_event`].
pub fn client_message(message: &ToClient, codec: Codec, terms: Terms<'_>) -> ClientMessage {
    match message {
        ToClient::Welcome { client, epoch, incarnation, sync } => {
            ClientMessage::Welcome(ClientWelcome {
                client: client.as_ref().map(|client| client.as_str().to_owned()),
                epoch: epoch.0,
                incarnation: incarnation.0,
                sync: match sync {
                    SubscriptionSync::Equal => frame::Sync::Equal,
                    SubscriptionSync::Send => frame::Sync::Send,
                    SubscriptionSync::Kept => frame::Sync::Kept,
                },
                keepalive_s: terms.keepalive_s,
                addresses: (terms.addresses)(),
            })
        }
        ToClient::Subscribed { accepted, refused, removed } => {
            ClientMessage::Subscribed(Subscribed {
                accepted: accepted
                    .iter()
                    .map(|item| SubscribedItem {
                        event: item.name.as_str().to_owned(),
                        subscription: item.event.0,
                        position: frame::Position {
                            incarnation: item.position.incarnation.0,
                            generation: item.position.generation.0,
                            instance_id: item.position.instance.0,
                        },
                        granted: item.granted,
                        resumed: item.resumed,
                        mode: mode_to_wire(item.mode),
                    })
                    .collect(),
                refused: refused
                    .iter()
                    .map(|item| RefusedItem {
                        event: item.name.as_str().to_owned(),
                        code: refusal_code(&item.refusal),
                        detail: refusal_detail(&item.refusal),
                    })
                    .collect(),
                removed: removed.iter().map(|name| name.as_str().to_owned()).collect(),
            })
        }
        ToClient::Event(delivery) => ClientMessage::Event(Box::new(event_message(delivery, codec))),
        ToClient::Events(deliveries) => {
            let messages = deliveries.iter().map(|delivery| event_message(delivery, codec));
            ClientMessage::Events(messages.collect())
        }
        ToClient::Committed { event, instance } => ClientMessage::Committed(Ack {
            subscription: event.0,
            instance_id: instance.0,
            generation: None,
        }),
        ToClient::Authority { event, granted } => {
            ClientMessage::Authority { subscription: event.0, granted: *granted }
        }
        ToClient::Presence { service, online, hostname, version } => {
            ClientMessage::Presence(Presence {
                service: service.as_str().to_owned(),
                online: *online,
                hostname: hostname.clone(),
                version: version.clone(),
            })
        }
    }
}

/// The whole frame of one delivery; what [`shared_event`] gives in parts.
pub fn event_message(delivery: &Delivery, codec: Codec) -> EventMessage {
    let payload = payload(delivery);
    let (content_type, args, data) = Payload::to_fields(payload.as_ref(), codec);
    let trace = trace_of(delivery);
    EventMessage {
        subscription: delivery.event.0,
        attempt: delivery.attempt,
        age: delivery.age_ms / 1000,
        generation: delivery.generation.0,
        event: delivery.name.as_str().to_owned(),
        category: category_to_wire(delivery.category),
        service: delivery.instance.service.as_str().to_owned(),
        incarnation: delivery.incarnation.0,
        instance_id: delivery.instance.id.0,
        created_ms: delivery.instance.created.0,
        content_type,
        args,
        data,
        original_id: delivery.instance.original.map(|id| id.0),
        traceparent: trace.as_ref().map(TraceContext::traceparent),
        tracestate: trace.map(|trace| trace.state).filter(|state| !state.is_empty()),
    }
}

/// The part of a delivery's frame that is the same for every receiver.
pub fn shared_event(delivery: &Delivery, codec: Codec) -> SharedEvent {
    SharedEvent::new(
        codec,
        EventBody {
            event: delivery.name.as_str(),
            category: category_to_wire(delivery.category),
            service: delivery.instance.service.as_str(),
            incarnation: delivery.incarnation.0,
            instance_id: delivery.instance.id.0,
            created_ms: delivery.instance.created.0,
            payload: payload(delivery),
            original_id: delivery.instance.original.map(|id| id.0),
            trace: trace_of(delivery),
        },
    )
}

fn payload(delivery: &Delivery) -> Option<Payload> {
    delivery.instance.arguments.as_ref().map(|arguments| Payload {
        content_type: arguments.content_type.clone(),
        data: arguments.data.clone(),
    })
}

/// The frame for what a session says to a service.
pub fn service_message(message: &ToService, terms: Terms<'_>) -> ServiceMessage {
    match message {
        ToService::Welcome {
            service,
            epoch,
            incarnation,
            parked,
            last,
            superseded,
            window,
            args_bytes_max,
        } => ServiceMessage::Welcome(ServiceWelcome {
            service: service.as_str().to_owned(),
            epoch: epoch.0,
            incarnation: incarnation.0,
            state: service_state(*parked),
            last: last.0,
            superseded: *superseded,
            window: *window,
            keepalive_s: terms.keepalive_s,
            args_bytes_max: *args_bytes_max,
            addresses: (terms.addresses)(),
        }),
        ToService::Accepted { sequence, instance, ignored, duplicate } => {
            ServiceMessage::Accepted(Accepted {
                seq: sequence.0,
                instance_id: instance.map(|id| id.0),
                ignored: *ignored,
                duplicate: *duplicate,
            })
        }
        ToService::Rejected { sequence, rejection, duplicate } => {
            ServiceMessage::Rejected(Rejected {
                seq: sequence.0,
                code: rejection_code(*rejection),
                detail: rejection_detail(*rejection).into_owned(),
                duplicate: *duplicate,
            })
        }
        ToService::Refused { sequence, cause } => {
            ServiceMessage::Refused(refused(*sequence, cause))
        }
        ToService::State(parked) => ServiceMessage::State(service_state(*parked)),
    }
}

fn refused(sequence: Sequence, cause: &RefusedRaise) -> frame::Refused {
    let (code, detail, expected) = match cause {
        RefusedRaise::Refusal(refusal) => {
            let expected = if let Refusal::OutOfSequence { expected } = refusal {
                Some(expected.0)
            } else {
                None
            };
            (refusal_code(refusal), refusal_detail(refusal), expected)
        }
        RefusedRaise::Failed(failed) => (failed_code(*failed), "send it again".to_owned(), None),
        RefusedRaise::WindowFull => {
            (Code::Busy, "more raises in flight than the window allows".to_owned(), None)
        }
    };
    let retry_after_ms = match cause {
        RefusedRaise::Refusal(Refusal::RateLimited { retry_ms, .. }) => Some(u64::from(*retry_ms)),
        cause => waits(cause).then_some(RETRY_AFTER_MS),
    };
    frame::Refused { seq: sequence.0, code, detail, expected, retry_after_ms }
}

/// Whether the same raise may be sent again after a while. What is out of sequence follows at once,
/// what is parked waits for `state`, the rest needs a new store.
fn waits(cause: &RefusedRaise) -> bool {
    match cause {
        RefusedRaise::WindowFull | RefusedRaise::Failed(_) => true,
        RefusedRaise::Refusal(refusal) => {
            matches!(refusal, Refusal::OverCapacity | Refusal::QuotaExceeded { .. })
        }
    }
}

fn service_state(parked: Option<Parked>) -> ServiceState {
    ServiceState { online: parked.is_none(), reason: parked.map(parked_code) }
}

/// The last frame of a session and the close that follows it.
pub fn closing(reason: CloseReason, detail: &str) -> (Closing, CloseCode) {
    closing_with(close_code(reason), detail)
}

/// As [`closing`], by its code.
pub fn closing_with(code: Code, detail: &str) -> (Closing, CloseCode) {
    let close = CloseCode::of(code);
    let closing = Closing {
        code: close.code,
        detail: detail.to_owned(),
        reconnect: close.reconnect,
        retry_after_ms: None,
    };
    (closing, close)
}

/// Why a proposal failed, in the sessions' words.
pub fn failed(error: ProposeError) -> Failed {
    match error {
        ProposeError::Busy => Failed::Busy,
        ProposeError::OverCapacity => Failed::OverCapacity,
        ProposeError::DiskFull => Failed::DiskFull,
        ProposeError::Unavailable => Failed::Unavailable,
        ProposeError::Unknown => Failed::Unknown,
    }
}

/// A SHA-256 written as 64 hex digits.
pub fn digest_from_hex(text: &str) -> Option<Digest> {
    from_hex(text).map(Digest)
}

/// A store's uid written as 32 hex digits.
pub fn uid_from_hex(text: &str) -> Option<StorageUid> {
    from_hex(text).map(StorageUid)
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// At most so many bytes of a text, cut between characters.
fn cut(mut text: String, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text
}
