//! The service endpoint over sockets.

use std::time::Duration;

use ackord_endpoint::{
    Codec, Error, Event, Payload, RaiseError, ServiceBuilder, ServiceEndpoint, ServiceLevel,
    ServiceNotice,
};
use ackord_wire::Code;
use ackord_wire::frame::{Closing, ServiceFrame, ServiceMessage};

use crate::broker::{Broker, service_welcome};
use crate::told::Told;

fn builder(broker: &Broker) -> ServiceBuilder {
    ServiceEndpoint::builder()
        .url(&broker.url)
        .site("site")
        .token("secret")
        .reconnect_scale(0.0)
        .persistence(ServiceLevel::memory())
}

fn event(text: &str) -> Event {
    Event::queueing("reading", Payload::json(text.to_owned()))
}

#[tokio::test]
async fn an_event_reaches_the_broker_and_its_outcome_the_caller_in_both_codecs() {
    for codec in [Codec::Json, Codec::Cbor] {
        let broker = Broker::start().await;
        let service = builder(&broker).codec(codec).start().await.unwrap();
        let waiting = tokio::spawn({
            let service = service.clone();
            async move { service.raise_wait(event(r#"{"celsius":71}"#)).await }
        });
        let mut peer = broker.accept().await;
        assert_eq!(peer.path, "/v1/sites/site/service");
        assert_eq!(peer.token.as_deref(), Some("Bearer secret"));
        assert_eq!(peer.codec, codec);
        peer.welcome_service(0).await;
        let raise = peer.raise().await;
        let payload = Payload::from_fields(raise.content_type, raise.args, raise.data);
        assert_eq!(payload, Some(Payload::json(r#"{"celsius":71}"#)));
        peer.accept(1, 17).await;
        assert_eq!(waiting.await.unwrap().unwrap().instance_id, Some(17));
        let closing = tokio::spawn(service.close());
        assert!(matches!(peer.next().await, Some(ServiceFrame::Goodbye {})));
        drop(peer);
        assert_eq!(closing.await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_a_broken_connection_left_open_is_sent_again() {
    let broker = Broker::start().await;
    let service = builder(&broker).start().await.unwrap();
    service.raise(event("1")).unwrap();
    service.raise(event("2")).unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_service(0).await;
    peer.raise().await;
    peer.accept(1, 1).await;
    peer.raise().await;
    drop(peer);
    let mut peer = broker.accept().await;
    peer.welcome_service(1).await;
    assert_eq!(peer.raise().await.seq, 2);
    peer.accept(2, 2).await;
    drop(service);
    assert!(matches!(peer.next().await, Some(ServiceFrame::Goodbye {})));
}

#[tokio::test]
async fn spl2_survives_the_process_and_the_counter_an_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let broker = Broker::start().await;
    let first = builder(&broker).store(&path).start().await.unwrap();
    first.raise(event("1")).unwrap();
    assert!(matches!(builder(&broker).store(&path).start().await, Err(Error::Locked(_))));
    let mut peer = broker.accept().await;
    peer.welcome_service(0).await;
    assert_eq!(peer.raise().await.seq, 1);
    let closing = tokio::spawn(first.close_within(Duration::ZERO));
    assert!(matches!(peer.next().await, Some(ServiceFrame::Goodbye {})));
    drop(peer);
    assert_eq!(closing.await.unwrap(), 1);

    let second = builder(&broker).store(&path).start().await.unwrap();
    let mut peer = broker.accept().await;
    let hello = peer.welcome_service(0).await;
    assert_eq!(peer.raise().await.seq, 1);
    peer.accept(1, 5).await;
    let closing = tokio::spawn(second.close());
    assert!(matches!(peer.next().await, Some(ServiceFrame::Goodbye {})));
    drop(peer);
    assert_eq!(closing.await.unwrap(), 0);

    let third = builder(&broker).store(&path).start().await.unwrap();
    third.raise(event("2")).unwrap();
    let mut peer = broker.accept().await;
    assert_eq!(peer.welcome_service(1).await.store, hello.store);
    assert_eq!(peer.raise().await.seq, 2);
}

#[tokio::test]
async fn a_full_store_makes_raise_wait_wait_and_raise_drop_the_oldest() {
    let broker = Broker::start().await;
    let told = Told::default();
    let notices = told.clone();
    let level = ServiceLevel::Memory { bytes: 4096 };
    let service = builder(&broker)
        .persistence(level)
        .on_notice(move |notice| notices.add(notice))
        .start()
        .await
        .unwrap();
    let text = format!("\"{}\"", "x".repeat(1700));
    let first = service.enqueue(event(&text)).await.unwrap();
    let _second = service.enqueue(event(&text)).await.unwrap();
    let waiting = tokio::spawn({
        let (service, text) = (service.clone(), text.clone());
        async move { service.enqueue(event(&text)).await.map(|_| ()) }
    });
    let mut peer = broker.accept().await;
    peer.welcome_service(0).await;
    assert_eq!(peer.raise().await.seq, 1);
    assert_eq!(peer.raise().await.seq, 2);
    assert!(!waiting.is_finished());
    peer.accept(1, 1).await;
    waiting.await.unwrap().unwrap();
    assert_eq!(first.await.unwrap().instance_id, Some(1));
    assert_eq!(peer.raise().await.seq, 3);
    assert_eq!(service.raise(event(&text)), Err(RaiseError::StoreFull));
    drop(peer);

    let offline = builder(&broker)
        .persistence(ServiceLevel::Memory { bytes: 4096 })
        .on_notice({
            let told = told.clone();
            move |notice| told.add(notice)
        })
        .start()
        .await
        .unwrap();
    for _ in 0..3 {
        offline.raise(event(&text)).unwrap();
    }
    let dropped = ServiceNotice::Dropped { event: "reading".to_owned() };
    told.one("told of the dropped event", |notice| *notice == dropped).await;
    assert_eq!(offline.pending(), 2);
}

#[tokio::test]
async fn refused_for_good_means_no_second_attempt_and_an_answer_for_everyone() {
    let broker = Broker::start().await;
    let told = Told::default();
    let notices = told.clone();
    let service =
        builder(&broker).on_notice(move |notice| notices.add(notice)).start().await.unwrap();
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { service.raise_wait(event("1")).await }
    });
    broker.refuse(401, None, r#"{"code":"bad-credentials","detail":"who?"}"#).await;
    let code = Code::BadCredentials;
    // Raised before or after the refusal: the answer is the same.
    assert_eq!(waiting.await.unwrap(), Err(RaiseError::Stopped { code }));
    told.one("terminal", |notice| {
        matches!(notice, ServiceNotice::Terminal { code: Code::BadCredentials, .. })
    })
    .await;
    assert_eq!(service.raise(event("2")), Err(RaiseError::Stopped { code }));
    service.close().await;
}

#[tokio::test]
async fn refused_for_good_before_anything_was_raised_it_closes_all_the_same() {
    let broker = Broker::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let told = Told::default();
    let notices = told.clone();
    let service = builder(&broker)
        .persistence(ServiceLevel::File { path, bytes: 1 << 20 })
        .on_notice(move |notice| notices.add(notice))
        .start()
        .await
        .unwrap();
    broker.refuse(401, None, r#"{"code":"bad-credentials","detail":"who?"}"#).await;
    told.one("terminal", |notice| matches!(notice, ServiceNotice::Terminal { .. })).await;
    let closing = service.close_within(Duration::ZERO);
    let left = tokio::time::timeout(Duration::from_secs(60), closing).await;
    assert_eq!(left.expect("it closes"), 0);
}

#[tokio::test]
async fn retry_after_is_honoured_and_the_next_address_is_tried() {
    let (first, second) = (Broker::start().await, Broker::start().await);
    let told = Told::default();
    let notices = told.clone();
    let service = builder(&first)
        .url(&second.url)
        .on_notice(move |notice| notices.add(notice))
        .start()
        .await
        .unwrap();
    let began = std::time::Instant::now();
    first.refuse(503, Some(1), "").await;
    let mut peer = second.accept().await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    peer.welcome_service(0).await;
    told.one("connected", |notice| matches!(notice, ServiceNotice::Connected { .. })).await;
    let failed = told.all().into_iter().find_map(|notice| match notice {
        ServiceNotice::ConnectFailed { retry_in_ms, .. } => Some(retry_in_ms),
        _ => None,
    });
    assert_eq!(failed, Some(1000));
    drop(service);
}

#[tokio::test]
async fn addresses_from_the_welcome_are_used_when_the_given_one_is_gone() {
    let (first, second) = (Broker::start().await, Broker::start().await);
    let service = builder(&first).start().await.unwrap();
    let mut peer = first.accept().await;
    let Some(ServiceFrame::Hello(_)) = peer.next().await else { panic!("no hello") };
    let mut welcome = service_welcome(0);
    welcome.addresses = vec![second.url.clone()];
    peer.send(&ServiceMessage::Welcome(welcome)).await;
    service.raise(event("1")).unwrap();
    peer.raise().await;
    drop((peer, first));
    let mut peer = second.accept().await;
    peer.welcome_service(0).await;
    assert_eq!(peer.raise().await.seq, 1);
}

#[tokio::test]
async fn replaced_is_the_end() {
    let broker = Broker::start().await;
    let told = Told::default();
    let notices = told.clone();
    let service =
        builder(&broker).on_notice(move |notice| notices.add(notice)).start().await.unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_service(0).await;
    let (code, detail) = (Code::Replaced, "newer".to_owned());
    let (reconnect, retry_after_ms) = (false, None);
    peer.send(&ServiceMessage::Closing(Closing { code, detail, reconnect, retry_after_ms })).await;
    told.one("terminal", |notice| matches!(notice, ServiceNotice::Terminal { .. })).await;
    assert!(peer.next::<ServiceFrame>().await.is_none());
    assert_eq!(service.close().await, 0);
}

#[tokio::test]
async fn a_frame_that_is_none_ends_the_connection_and_not_the_endpoint() {
    let broker = Broker::start().await;
    let _service = builder(&broker).start().await.unwrap();
    let mut peer = broker.accept().await;
    let Some(ServiceFrame::Hello(_)) = peer.next().await else { panic!("no hello") };
    peer.send(&"what is this").await;
    assert!(peer.next::<ServiceFrame>().await.is_none());
    broker.accept().await.welcome_service(0).await;
}

#[tokio::test]
async fn options_out_of_range_do_not_start() {
    let broker = Broker::start().await;
    let check = async |builder: ServiceBuilder| {
        let started = builder.start().await;
        assert!(matches!(started, Err(Error::Invalid(_))));
    };
    let base = || ServiceEndpoint::builder().url("http://h").site("s");
    check(base()).await;
    check(builder(&broker).window(0)).await;
    check(builder(&broker).window(1025)).await;
    check(builder(&broker).url("ftp://h")).await;
    check(builder(&broker).token("two words")).await;
    check(builder(&broker).keepalive(Duration::from_secs(9))).await;
    check(builder(&broker).persistence(ServiceLevel::Memory { bytes: 4095 })).await;
    let nowhere = builder(&broker).store("/nowhere/at/all").start().await;
    assert!(matches!(nowhere, Err(Error::Store(_))));
}

/// A figure rather than a rule: `cargo test --release -p ackord-endpoint --test shell -- figures
/// --nocapture` prints it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_raising() {
    const EVENTS: u64 = if cfg!(debug_assertions) { 5_000 } else { 200_000 };
    let broker = Broker::start().await;
    let service = builder(&broker)
        .persistence(ServiceLevel::Memory { bytes: 1 << 20 })
        .window(1024)
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_service(0).await;
    let answering = tokio::spawn(async move {
        let mut expected = 1;
        while expected <= EVENTS {
            let mut frame = peer.next::<ServiceFrame>().await;
            while let Some(ServiceFrame::Raise(raise)) = frame {
                assert_eq!(raise.seq, expected);
                let (ignored, duplicate, instance_id) = (false, false, Some(expected));
                let seq = expected;
                let accepted =
                    ackord_wire::frame::Accepted { seq, instance_id, ignored, duplicate };
                peer.feed(&ServiceMessage::Accepted(accepted)).await;
                expected += 1;
                frame = peer.ready();
            }
            peer.flush().await;
        }
        peer
    });
    let began = std::time::Instant::now();
    let mut last = None;
    for n in 0..EVENTS {
        last = Some(service.enqueue(event(&n.to_string())).await.unwrap());
    }
    assert_eq!(last.unwrap().await.unwrap().instance_id, Some(EVENTS));
    let seconds = began.elapsed().as_secs_f64();
    println!("{:.0} raises a second", EVENTS as f64 / seconds);
    drop(answering.await.unwrap());
}
