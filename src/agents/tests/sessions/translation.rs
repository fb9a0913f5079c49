//! What machine and wire say in common, and the way between them.

use std::sync::Arc;

use ackord_agents::translate;
use ackord_machine::session::{Delivery, set_hash};
use ackord_machine::site::{
    Arguments, Category, EventKey, EventName, Generation, Incarnation, Instance, InstanceId, Mode,
    Stamp, Start,
};
use ackord_wire::frame::{self, ClientMessage, Subscription};
use ackord_wire::{Codec, codec};

use crate::support::structure;

#[test]
fn given_any_set_of_subscriptions_then_broker_and_endpoint_hash_it_alike() {
    let check = |set: &[Subscription]| {
        let names: Vec<EventName> = set.iter().map(|item| item.event.as_str().into()).collect();
        let items = set.iter().zip(&names).map(|(item, name)| {
            let start = match item.start {
                frame::Start::Earliest => Start::Earliest,
                frame::Start::Latest => Start::Latest,
            };
            let quality = translate::quality_from_wire(
                item.mode,
                item.window,
                item.flush_ms,
                item.dead_letter,
            );
            (name, start, item.ack_timeout_ms, item.max_attempts, quality)
        });
        let given = translate::digest_from_hex(&codec::set_hash(set));
        assert_eq!(given, Some(set_hash(items)), "{set:?}");
    };
    let item = |event: &str, start, ack_timeout_ms, max_attempts| Subscription {
        event: event.to_owned(),
        start,
        ack_timeout_ms,
        max_attempts,
        ..Subscription::default()
    };
    check(&[]);
    check(&[item("b", frame::Start::Latest, Some(1), None)]);
    check(&[
        item("b c", frame::Start::Latest, Some(3_600_000), Some(1)),
        item("B", frame::Start::Earliest, None, Some(u32::MAX)),
        item("b", frame::Start::Earliest, None, None),
    ]);
    for mode in frame::Mode::ALL {
        let of = |window, flush_ms| Subscription {
            mode,
            window,
            flush_ms,
            ..item("b", frame::Start::Earliest, None, None)
        };
        check(&[of(None, None)]);
        check(&[of(Some(7), Some(200))]);
        check(&[Subscription { dead_letter: true, ..of(None, None) }]);
    }
}

#[test]
fn given_a_delivery_then_its_shared_encoding_is_that_of_the_whole_frame() {
    for (content_type, data) in [("application/json", r#"{"t":1}"#), ("text/plain", "hello")] {
        let delivery = Delivery {
            event: EventKey(3),
            name: "reading".into(),
            category: Category::Queueing,
            incarnation: Incarnation(7),
            generation: Generation(1),
            attempt: 2,
            age_ms: 300_000,
            mode: Mode::Ordered,
            instance: Arc::new(Instance {
                original: Some(InstanceId(3)),
                trace: None,
                site: "plant".into(),
                id: InstanceId(70_000),
                event: EventKey(3),
                service: "boiler".into(),
                client: None,
                created: Stamp(1_700_000_000_000),
                expires: None,
                arguments: Some(Arguments { content_type: content_type.into(), data: data.into() }),
            }),
        };
        for codec in [Codec::Json, Codec::Cbor] {
            let message = translate::event_message(&delivery, codec);
            let whole = codec.encode(&ClientMessage::Event(Box::new(message)));
            let shared = translate::shared_event(&delivery, codec).frame(3, 2, 300, 1);
            assert_eq!(shared, whole);
        }
    }
}

#[test]
fn given_a_structure_then_it_survives_the_way_to_the_wire_and_back() {
    let there = translate::structure_to_wire(&structure());
    assert_eq!(translate::structure_from_wire(&there), Ok(structure()));
}

#[test]
fn given_fields_of_another_category_then_their_path_is_named() {
    let mut wrong = translate::structure_to_wire(&structure());
    wrong.events[2].size = Some(5);
    let misplaced = translate::structure_from_wire(&wrong).expect_err("replacing has no size");
    assert_eq!(misplaced.field, "events[2].size");
}
