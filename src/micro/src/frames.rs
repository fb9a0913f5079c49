//! Frames as endpoints see them: what arrives is decoded, what leaves is encoded.

use std::hint::black_box;

use ackord_machine::session::Delivery;
use ackord_machine::site::{Category as Judged, Instance};
use ackord_wire::frame::{Accepted, Ack, ClientFrame, Raise, ServiceFrame, ServiceMessage};
use ackord_wire::structure::Category;
use ackord_wire::{Codec, EventBody, Payload, SharedEvent};

use crate::delivering::one_delivery;
use crate::world::{EVENT, arguments};
use crate::{HotPath, Repeated};

/// A raise with arguments of 128 bytes, JSON.
pub fn decode_raise_json() -> Box<dyn HotPath> {
    decode_raise(Codec::Json)
}

/// A raise with arguments of 128 bytes, CBOR.
pub fn decode_raise_cbor() -> Box<dyn HotPath> {
    decode_raise(Codec::Cbor)
}

fn decode_raise(codec: Codec) -> Box<dyn HotPath> {
    let payload = Payload::json(arguments());
    let (content_type, args, data) = Payload::to_fields(Some(&payload), codec);
    let frame = codec.encode(&ServiceFrame::Raise(Raise {
        seq: 77_000,
        event: EVENT.to_owned(),
        category: None,
        content_type,
        args,
        data,
        client: None,
        lifetime_s: None,
        traceparent: None,
        tracestate: None,
    }));
    Box::new(Repeated(move || {
        let decoded = codec.decode::<ServiceFrame>(black_box(&frame));
        assert!(matches!(black_box(&decoded), Ok(ServiceFrame::Raise(_))));
    }))
}

/// The answer to a raise, JSON.
pub fn encode_accepted_json() -> Box<dyn HotPath> {
    encode_accepted(Codec::Json)
}

/// The answer to a raise, CBOR.
pub fn encode_accepted_cbor() -> Box<dyn HotPath> {
    encode_accepted(Codec::Cbor)
}

fn encode_accepted(codec: Codec) -> Box<dyn HotPath> {
    let accepted =
        Accepted { seq: 77_000, instance_id: Some(88_000), ignored: false, duplicate: false };
    let message = ServiceMessage::Accepted(accepted);
    Box::new(Repeated(move || {
        black_box(codec.encode(black_box(&message)));
    }))
}

/// A delivery of an event that nobody has got yet, JSON.
pub fn encode_event_json() -> Box<dyn HotPath> {
    encode_event(Codec::Json)
}

/// A delivery of an event that nobody has got yet, CBOR.
pub fn encode_event_cbor() -> Box<dyn HotPath> {
    encode_event(Codec::Cbor)
}

fn encode_event(codec: Codec) -> Box<dyn HotPath> {
    let delivery = one_delivery();
    Box::new(Repeated(move || {
        let delivery = black_box(&delivery);
        black_box(frame(&shared_event(delivery, codec), delivery));
    }))
}

/// What all deliveries of an instance have in common, encoded.
pub fn shared_event(delivery: &Delivery, codec: Codec) -> SharedEvent {
    let instance: &Instance = &delivery.instance;
    let payload = instance.arguments.as_ref().map(|arguments| Payload {
        content_type: arguments.content_type.clone(),
        data: arguments.data.clone(),
    });
    let category = match delivery.category {
        Judged::Replacing => Category::Replacing,
        Judged::Queueing => Category::Queueing,
        Judged::Private => Category::Private,
    };
    let body = EventBody {
        event: delivery.name.as_str(),
        category,
        service: instance.service.as_str(),
        incarnation: delivery.incarnation.0,
        instance_id: instance.id.0,
        created_ms: instance.created.0,
        payload,
        original_id: None,
        trace: None,
    };
    SharedEvent::new(codec, body)
}

/// The frame of one delivery.
pub fn frame(encoded: &SharedEvent, delivery: &Delivery) -> bytes::Bytes {
    let (event, generation) = (delivery.event.0, delivery.generation.0);
    encoded.frame(event, delivery.attempt, delivery.age_ms / 1000, generation)
}

/// A client's acknowledgement, JSON.
pub fn decode_ack_json() -> Box<dyn HotPath> {
    decode_ack(Codec::Json)
}

/// A client's acknowledgement, CBOR.
pub fn decode_ack_cbor() -> Box<dyn HotPath> {
    decode_ack(Codec::Cbor)
}

fn decode_ack(codec: Codec) -> Box<dyn HotPath> {
    let ack = Ack { subscription: 3, instance_id: 77_000, generation: Some(1) };
    let frame = codec.encode(&ClientFrame::Ack(ack));
    Box::new(Repeated(move || {
        let decoded = codec.decode::<ClientFrame>(black_box(&frame));
        assert!(matches!(black_box(&decoded), Ok(ClientFrame::Ack(_))));
    }))
}
