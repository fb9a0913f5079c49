//! Every frame survives both codecs, and no bytes make the decoder panic.
#![allow(clippy::unwrap_used)]

use ackord_wire::code::Code;
use ackord_wire::frame::{
    Accepted, Ack, ClientFrame, ClientHello, ClientMessage, ClientWelcome, Closing, EventMessage,
    Mode, Nack, Position, Presence, Raise, Refused, RefusedItem, Rejected, ServiceFrame,
    ServiceHello, ServiceMessage, ServiceState, ServiceWelcome, Start, Subscribed, SubscribedItem,
    Subscription, SubscriptionList, Sync,
};
use ackord_wire::payload::Data;
use ackord_wire::structure::{Access, Category, Event, GuestSupport, Structure};
use ackord_wire::{Codec, Payload};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde::Serialize;
use serde::de::DeserializeOwned;

const CODECS: [Codec; 2] = [Codec::Json, Codec::Cbor];

fn text() -> impl Strategy<Value = String> {
    ".{0,24}"
}

fn code() -> impl Strategy<Value = Code> {
    select(Code::ALL)
}

fn category() -> impl Strategy<Value = Category> {
    select(vec![Category::Replacing, Category::Queueing, Category::Private])
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(incarnation, generation, instance_id)| {
        Position { incarnation, generation, instance_id }
    })
}

fn structure() -> impl Strategy<Value = Structure> {
    let guests =
        select(vec![GuestSupport::None, GuestSupport::Guest, GuestSupport::GuestAndStateless]);
    let access = prop_oneof![
        Just(Access::Everyone),
        Just(Access::GuestsDenied),
        Just(Access::StatelessGuestsDenied),
        vec(text(), 0..3).prop_map(Access::Roles),
    ];
    let event = (text(), category(), any::<Option<u32>>(), any::<Option<u32>>(), of(access))
        .prop_map(|(name, category, lifetime_s, size, access)| Event {
            name,
            category,
            lifetime_s,
            size,
            access,
        });
    (text(), text(), guests, vec(text(), 0..3), of(text()), vec(event, 0..4)).prop_map(
        |(service_type, contract_author, guests, roles, owner_role, events)| Structure {
            service_type,
            contract_author,
            guests,
            roles,
            owner_role,
            events,
        },
    )
}

fn payload() -> impl Strategy<Value = Option<Payload>> {
    let json = prop_oneof![
        Just("null".to_owned()),
        Just(" [1, 2]\n".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        text().prop_map(|text| serde_json::to_string(&text).unwrap()),
        (text(), any::<u32>())
            .prop_map(|(key, n)| serde_json::json!({ key: [n, null] }).to_string()),
    ];
    of(prop_oneof![
        json.prop_map(Payload::json),
        vec(any::<u8>(), 0..64).prop_map(Payload::json),
        (text(), vec(any::<u8>(), 0..64)).prop_map(|(kind, data)| Payload {
            content_type: format!("x/{kind}"),
            data: data.into(),
        }),
    ])
}

fn service_hello() -> impl Strategy<Value = ServiceHello> {
    let numbers = (any::<Option<u32>>(), any::<Option<u32>>());
    (of(structure()), text(), of(text()), text(), text(), numbers).prop_map(
        |(structure, store, continues, service_version, hostname, (window, keepalive_s))| {
            ServiceHello {
                structure,
                store,
                continues,
                service_version,
                hostname,
                window,
                keepalive_s,
            }
        },
    )
}

/// A frame whose payload depends on the codec that will carry it.
type Shaped<T> = Box<dyn Fn(Codec) -> T>;

fn service_frame() -> impl Strategy<Value = ServiceFrameMaker> {
    let raise = (any::<u64>(), text(), of(category()), payload(), of(text()), any::<Option<u32>>());
    prop_oneof![
        service_hello().prop_map(|hello| ServiceFrameMaker(Box::new(move |_| {
            ServiceFrame::Hello(hello.clone())
        }))),
        raise.prop_map(|(seq, event, category, payload, client, lifetime_s)| {
            ServiceFrameMaker(Box::new(move |codec| {
                let (content_type, args, data) = Payload::to_fields(payload.as_ref(), codec);
                ServiceFrame::Raise(Raise {
                    seq,
                    event: event.clone(),
                    category,
                    content_type,
                    args,
                    data,
                    client: client.clone(),
                    lifetime_s,
                    traceparent: (seq % 2 == 0).then(|| event.clone()),
                    tracestate: (seq % 3 == 0).then(|| event.clone()),
                })
            }))
        }),
        Just(()).prop_map(|()| ServiceFrameMaker(Box::new(|_| ServiceFrame::Goodbye {}))),
    ]
}

struct ServiceFrameMaker(Shaped<ServiceFrame>);

impl std::fmt::Debug for ServiceFrameMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (self.0)(Codec::Cbor).fmt(f)
    }
}

fn closing() -> impl Strategy<Value = Closing> {
    (code(), text(), any::<bool>(), any::<Option<u64>>()).prop_map(
        |(code, detail, reconnect, retry_after_ms)| Closing {
            code,
            detail,
            reconnect,
            retry_after_ms,
        },
    )
}

fn service_message() -> impl Strategy<Value = ServiceMessage> {
    let state =
        || (any::<bool>(), of(code())).prop_map(|(online, reason)| ServiceState { online, reason });
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    let limits = (any::<u32>(), any::<u32>(), any::<u32>());
    let welcome = (text(), numbers, state(), any::<bool>(), limits, vec(text(), 0..3)).prop_map(
        |(service, (epoch, incarnation, last), state, superseded, limits, addresses)| {
            let (window, keepalive_s, args_bytes_max) = limits;
            ServiceMessage::Welcome(ServiceWelcome {
                service,
                epoch,
                incarnation,
                state,
                last,
                superseded,
                window,
                keepalive_s,
                args_bytes_max,
                addresses,
            })
        },
    );
    prop_oneof![
        welcome,
        (any::<u64>(), any::<Option<u64>>(), any::<bool>(), any::<bool>()).prop_map(
            |(seq, instance_id, ignored, duplicate)| ServiceMessage::Accepted(Accepted {
                seq,
                instance_id,
                ignored,
                duplicate,
            })
        ),
        (any::<u64>(), code(), text(), any::<bool>()).prop_map(|(seq, code, detail, duplicate)| {
            ServiceMessage::Rejected(Rejected { seq, code, detail, duplicate })
        }),
        (any::<u64>(), code(), text(), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(
            |(seq, code, detail, expected, retry_after_ms)| ServiceMessage::Refused(Refused {
                seq,
                code,
                detail,
                expected,
                retry_after_ms,
            })
        ),
        state().prop_map(ServiceMessage::State),
        closing().prop_map(ServiceMessage::Closing),
    ]
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let start = select(vec![Start::Earliest, Start::Latest]);
    let numbers = (any::<Option<u32>>(), any::<Option<u32>>());
    let quality = (mode(), any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>());
    (text(), of(category()), start, (numbers, quality), of(position())).prop_map(
        |(event, category, start, (numbers, (mode, window, flush_ms, dead_letter)), resume)| {
            Subscription {
                event,
                category,
                start,
                ack_timeout_ms: numbers.0,
                max_attempts: numbers.1,
                resume,
                mode,
                window,
                flush_ms,
                dead_letter,
            }
        },
    )
}

fn ack() -> impl Strategy<Value = Ack> {
    (any::<u32>(), any::<u64>(), any::<Option<u32>>()).prop_map(
        |(subscription, instance_id, generation)| Ack { subscription, instance_id, generation },
    )
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let list = || vec(subscription(), 0..4).prop_map(|items| SubscriptionList { items });
    prop_oneof![
        (of(text()), any::<Option<u32>>(), text()).prop_map(|(set, keepalive_s, hostname)| {
            ClientFrame::Hello(ClientHello { set, keepalive_s, hostname })
        }),
        list().prop_map(ClientFrame::Subscriptions),
        list().prop_map(ClientFrame::Subscribe),
        vec(text(), 0..4).prop_map(|events| ClientFrame::Unsubscribe { events }),
        ack().prop_map(ClientFrame::Ack),
        (ack(), any::<u64>()).prop_map(|(ack, retry_after_ms)| ClientFrame::Nack(Nack {
            subscription: ack.subscription,
            instance_id: ack.instance_id,
            retry_after_ms,
            generation: ack.generation,
        })),
        ack().prop_map(ClientFrame::Working),
        Just(ClientFrame::Goodbye {}),
    ]
}

struct ClientMessageMaker(Shaped<ClientMessage>);

impl std::fmt::Debug for ClientMessageMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (self.0)(Codec::Cbor).fmt(f)
    }
}

fn fixed(message: ClientMessage) -> ClientMessageMaker {
    ClientMessageMaker(Box::new(move |_| message.clone()))
}

fn mode() -> impl Strategy<Value = Mode> {
    select(Mode::ALL.to_vec())
}

fn client_message() -> impl Strategy<Value = ClientMessageMaker> {
    let sync = select(vec![Sync::Equal, Sync::Send, Sync::Kept]);
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>());
    let welcome = (of(text()), numbers, sync, vec(text(), 0..3)).prop_map(
        |(client, (epoch, incarnation, keepalive_s), sync, addresses)| {
            ClientMessage::Welcome(ClientWelcome {
                client,
                epoch,
                incarnation,
                sync,
                keepalive_s,
                addresses,
            })
        },
    );
    let state = (any::<bool>(), any::<Option<bool>>(), mode());
    let accepted = (text(), any::<u32>(), position(), state).prop_map(
        |(event, subscription, position, (granted, resumed, mode))| SubscribedItem {
            event,
            subscription,
            position,
            granted,
            resumed,
            mode,
        },
    );
    let refused = (text(), code(), text()).prop_map(|(event, code, detail)| RefusedItem {
        event,
        code,
        detail,
    });
    let subscribed = (vec(accepted, 0..3), vec(refused, 0..3), vec(text(), 0..3)).prop_map(
        |(accepted, refused, removed)| {
            ClientMessage::Subscribed(Subscribed { accepted, refused, removed })
        },
    );
    let small = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>());
    let large = (any::<u64>(), any::<u64>(), any::<u64>());
    let event = (small, text(), category(), text(), large, payload()).prop_map(
        |(small, event, category, service, large, payload)| {
            ClientMessageMaker(Box::new(move |codec| {
                let (subscription, attempt, age, generation) = small;
                let (incarnation, instance_id, created_ms) = large;
                let (content_type, args, data) = Payload::to_fields(payload.as_ref(), codec);
                ClientMessage::Event(Box::new(EventMessage {
                    subscription,
                    attempt,
                    age,
                    generation,
                    event: event.clone(),
                    category,
                    service: service.clone(),
                    incarnation,
                    instance_id,
                    created_ms,
                    content_type,
                    args,
                    data,
                    original_id: (created_ms % 2 == 0).then_some(instance_id),
                    traceparent: (created_ms % 3 == 0).then(|| event.clone()),
                    tracestate: (created_ms % 5 == 0).then(|| service.clone()),
                }))
            }))
        },
    );
    let presence =
        (text(), any::<bool>(), text(), text()).prop_map(|(service, online, hostname, version)| {
            ClientMessage::Presence(Presence { service, online, hostname, version })
        });
    prop_oneof![
        welcome.prop_map(fixed),
        subscribed.prop_map(fixed),
        event,
        ack().prop_map(|ack| fixed(ClientMessage::Committed(ack))),
        (any::<u32>(), any::<bool>()).prop_map(|(subscription, granted)| {
            fixed(ClientMessage::Authority { subscription, granted })
        }),
        presence.prop_map(fixed),
        closing().prop_map(|closing| fixed(ClientMessage::Closing(closing))),
    ]
}

/// There and back: the same frame, and the same bytes again.
fn survives<T: Serialize + DeserializeOwned + std::fmt::Debug>(
    codec: Codec,
    frame: &T,
) -> Result<T, TestCaseError> {
    let bytes = codec.encode(frame);
    let decoded: T = codec.decode(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(format!("{decoded:?}"), format!("{frame:?}"));
    prop_assert_eq!(codec.encode(&decoded), bytes);
    Ok(decoded)
}

fn decode_all(codec: Codec, bytes: &[u8]) {
    let _ = codec.decode::<ServiceFrame>(bytes);
    let _ = codec.decode::<ServiceMessage>(bytes);
    let _ = codec.decode::<ClientFrame>(bytes);
    let _ = codec.decode::<ClientMessage>(bytes);
}

proptest! {
    #[test]
    fn service_frames_survive(maker in service_frame()) {
        for codec in CODECS {
            survives(codec, &(maker.0)(codec))?;
        }
    }

    #[test]
    fn service_messages_survive(message in service_message()) {
        for codec in CODECS {
            prop_assert_eq!(&survives(codec, &message)?, &message);
        }
    }

    #[test]
    fn client_frames_survive(frame in client_frame()) {
        for codec in CODECS {
            prop_assert_eq!(&survives(codec, &frame)?, &frame);
        }
    }

    #[test]
    fn client_messages_survive(maker in client_message()) {
        for codec in CODECS {
            survives(codec, &(maker.0)(codec))?;
        }
    }

    #[test]
    fn a_payload_is_the_same_behind_either_codec(payload in payload()) {
        for codec in CODECS {
            let (content_type, args, data) = Payload::to_fields(payload.as_ref(), codec);
            let back = Payload::from_fields(content_type, args, data);
            prop_assert_eq!(&back, &payload);
        }
    }

    #[test]
    fn any_bytes_decode_without_a_panic(bytes in vec(any::<u8>(), 0..256)) {
        CODECS.into_iter().for_each(|codec| decode_all(codec, &bytes));
    }

    #[test]
    fn damaged_frames_decode_without_a_panic(
        maker in client_message(),
        raise in service_frame(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        for codec in CODECS {
            for mut bytes in [codec.encode(&(maker.0)(codec)), codec.encode(&(raise.0)(codec))] {
                for (at, byte) in &damage {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                decode_all(codec, &bytes);
                bytes.truncate(cut.index(bytes.len()));
                decode_all(codec, &bytes);
            }
        }
    }
}

#[test]
fn a_length_that_is_not_there_allocates_nothing() {
    // A map with a byte string, a text and an array that claim 2^63 items.
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        let mut bytes = vec![0xa1, head, 0x7f];
        bytes.extend_from_slice(&[0xff; 7]);
        decode_all(Codec::Cbor, &bytes);
        decode_all(Codec::Cbor, &bytes[1..]);
    }
    // Nesting that would exhaust the stack.
    decode_all(Codec::Cbor, &vec![0x81; 100_000]);
    decode_all(Codec::Json, &vec![b'['; 100_000]);
}

#[test]
fn unknown_kinds_are_refused_unknown_fields_are_not() {
    let decode = |text: &str| Codec::Json.decode::<ClientFrame>(text.as_bytes());
    assert!(decode(r#"{"ack":{"subscription":3,"instance_id":17,"mood":"good"}}"#).is_ok());
    for bad in
        [r#"{"hug":{}}"#, "{}", "[]", r#"{"ack":{}}"#, r#""goodbye""#, r#"{"goodbye":{}} "x""#]
    {
        assert!(decode(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_code_of_a_newer_broker_is_unknown_and_not_an_error() {
    let text = r#"{"closing":{"code":"made-up-later","detail":"","reconnect":true}}"#;
    let closing: ClientMessage = Codec::Json.decode(text.as_bytes()).unwrap();
    assert!(matches!(closing, ClientMessage::Closing(c) if c.code == Code::Unknown));
    let text = r#"{"rejected":{"seq":1,"code":"made-up-later","detail":""}}"#;
    let cbor = Codec::Cbor.encode(&serde_json::from_str::<serde_json::Value>(text).unwrap());
    let rejected: ServiceMessage = Codec::Cbor.decode(&cbor).unwrap();
    assert!(matches!(rejected, ServiceMessage::Rejected(r) if r.code == Code::Unknown));
}

#[test]
fn null_arguments_differ_from_a_null_event() {
    let fields = |payload: Option<&Payload>| Payload::to_fields(payload, Codec::Json);
    assert_eq!(fields(None).2, None);
    let json_null = Payload::json("null");
    assert_eq!(fields(Some(&json_null)).2, Some(Data(json_null.data.clone())));
}

#[test]
fn cbor_of_indefinite_length_and_its_errors_are_read_like_any_other() {
    let decode = |bytes: &[u8]| Codec::Cbor.decode::<ClientFrame>(bytes);
    // {_ "hello": {}}, and the same with the key in two pieces.
    let plain = decode(b"\xa1\x65hello\xa0").unwrap();
    assert_eq!(decode(b"\xbf\x65hello\xa0\xff").unwrap(), plain);
    assert_eq!(decode(b"\xbf\x7f\x62he\x63llo\xff\xa0\xff").unwrap(), plain);
    let error = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert!(error(b"\xbf\x65hel").contains("cut short"), "{}", error(b"\xbf\x65hel"));
    assert!(!error(b"\xbf\x65nello\xa0\xff").contains("Semantic"));
    assert!(error(&[0x81; 100]).contains("inside one another"), "{}", error(&[0x81; 100]));
}
