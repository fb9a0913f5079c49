//! P: raising events, what is acknowledged and what is not.

use std::time::Duration;

use ackord_endpoint::{ClientNotice, Code, Event, RaiseError, ServiceNotice};
use ackord_wire::ServiceMessage;
use ackord_wire::frame::ServiceHello;
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::raiser::json;
use cluster_tests::raw::{RawService, service_hello};
use cluster_tests::site::{Site, queueing, replacing, structure};
use cluster_tests::wait;
use serde_json::json as value;

use crate::{broker, own_broker};

async fn raw_session(site: &Site, store: &str) -> RawService {
    let boiler = site.service("boiler").await;
    let hello = service_hello(&store.repeat(16), None);
    let session = RawService::open(&site.url, &site.name, &boiler.token, hello).await;
    session.expect("a session")
}

#[tokio::test]
async fn p3_the_same_number_twice_is_two_acknowledgements_of_one_instance() {
    let site = Site::new(broker().await, "p3", &structure(&[queueing("reading", 10)])).await;
    let mut session = raw_session(&site, "c1").await;
    for _ in 0..2 {
        session.raise(1, "reading", "71").await.expect("sent");
    }
    let first = session.accepted().await.expect("an acknowledgement");
    let second = session.accepted().await.expect("another one");
    assert_eq!((first.seq, first.duplicate), (1, false));
    assert_eq!((second.seq, second.duplicate), (1, true));
    assert_eq!(first.instance_id, second.instance_id);
    assert_eq!(site.retained("reading").await, [first.instance_id.expect("an id")]);

    // The same number with other content is another event under a number that is used up.
    session.raise(1, "reading", "72").await.expect("sent");
    let refused = session.refusal().await.expect("a refusal");
    assert_eq!(refused.code, Code::SequenceReused);
    assert_eq!(site.retained("reading").await.len(), 1);
}

#[tokio::test]
async fn p4_a_broker_that_dies_between_commit_and_acknowledgement_stores_it_once() {
    let mut node = own_broker().await;
    let site = Site::new(&node, "p4", &structure(&[queueing("reading", 10)])).await;
    let (boiler, reader) = (site.service("boiler").await, site.guest("reader").await);
    let proxy = site.proxy().await;
    let raiser = site.raiser(&boiler).via(&proxy.url()).start().await;
    raiser.until_online().await;

    proxy.lose_answers();
    let crash = async {
        let stored = site.until_retained("reading", 1).await;
        node.crash().await.expect("the broker comes back");
        proxy.heal();
        stored
    };
    let (outcome, stored) = tokio::join!(raiser.send(Event::queueing("reading", json(1))), crash);
    let outcome = outcome.expect("the event is accepted");
    assert_eq!((outcome.duplicate, outcome.instance_id), (true, Some(stored[0])));
    assert_eq!(site.retained("reading").await, stored);

    raiser.raise("reading", 2).await;
    let listener = site.listener(&reader).to("reading").start().await;
    listener.until_handled(2).await;
    assert_eq!(listener.args(), ["1", "2"]);
    oracle::require(&site.history, &Expectations::default());
}

#[tokio::test]
async fn p6_a_broker_that_cannot_commit_never_acknowledges() {
    let mut node = own_broker().await;
    let site = Site::new(&node, "p6", &structure(&[queueing("reading", 10)])).await;
    let raiser = site.raises("boiler").await;
    raiser.until_online().await;

    let mut raise = Box::pin(raiser.send(Event::queueing("reading", json(1))));
    let suspended = node.suspend().expect("the broker is suspended");
    let early = tokio::time::timeout(Duration::from_millis(500), &mut raise).await;
    assert!(early.is_err(), "acknowledged by a broker that does not run: {early:?}");
    drop(suspended);
    node.crash().await.expect("the broker comes back");
    let outcome = raise.await.expect("the event is accepted in the end");
    assert_eq!(site.retained("reading").await, [outcome.instance_id.expect("an id")]);
}

#[tokio::test]
async fn p7_an_unknown_name_is_rejected_and_the_next_event_flows() {
    let site = Site::new(broker().await, "p7", &structure(&[queueing("reading", 10)])).await;
    let raiser = site.raises("boiler").await;
    let refused = raiser.send(Event::new("reeding", Some(json(1)))).await;
    let refused = refused.expect_err("there is no such event");
    assert_eq!(refused.code(), Code::UnknownEvent);
    let id = raiser.raise("reading", 2).await;
    assert_eq!(site.retained("reading").await, [id]);
    let connected = |notice: &ServiceNotice| matches!(notice, ServiceNotice::Connected { .. });
    assert_eq!(raiser.notices.count(connected), 1);
}

#[tokio::test]
async fn p8_a_wrong_category_is_rejected_and_the_next_event_flows() {
    let events = [queueing("reading", 10), replacing("state")];
    let site = Site::new(broker().await, "p8", &structure(&events)).await;
    let raiser = site.raises("boiler").await;
    let wrong = [
        (Event::replacing("reading", json(1)), Code::WrongCategory),
        (Event::queueing("state", json(2)), Code::WrongCategory),
        (Event::new("reading", None), Code::NullNotAllowed),
        (
            Event { client: Some("ann".into()), ..Event::new("state", Some(json(3))) },
            Code::ClientNotAllowed,
        ),
    ];
    for (event, code) in wrong {
        let refused = raiser.send(event).await.expect_err("the event is rejected");
        assert_eq!(refused.code(), code);
    }
    let id = raiser.raise("reading", 4).await;
    assert_eq!(site.retained("reading").await, [id]);
    assert!(site.retained("state").await.is_empty());
}

#[tokio::test]
async fn p9_what_was_raised_offline_arrives_in_order_without_what_it_replaced() {
    let events = [queueing("reading", 10), replacing("state")];
    let site = Site::new(broker().await, "p9", &structure(&events)).await;
    let (boiler, reader) = (site.service("boiler").await, site.guest("reader").await);
    let listener = site.listener(&reader).to("reading").to("state").subscribed(2).await;
    let proxy = site.proxy().await;
    proxy.cut();
    let raiser = site.raiser(&boiler).via(&proxy.url()).start().await;
    raiser.hand_over(Event::replacing("state", json("r1")));
    raiser.hand_over(Event::queueing("reading", json("q1")));
    raiser.hand_over(Event::replacing("state", json("r2")));
    raiser.hand_over(Event::queueing("reading", json("q2")));

    proxy.heal();
    let mut handled = listener.until_handled(3).await;
    handled.sort_by_key(|handled| handled.instance_id);
    let args: Vec<String> = handled.into_iter().filter_map(|handled| handled.args).collect();
    assert_eq!(args, [r#""q1""#, r#""r2""#, r#""q2""#]);
}

#[tokio::test]
async fn p21_a_number_after_a_refused_one_is_out_of_sequence() {
    let site = Site::new(broker().await, "p21", &structure(&[queueing("reading", 1000)])).await;
    let boiler = site.service("boiler").await;
    let hello = ServiceHello { window: Some(2), ..service_hello(&"d1".repeat(16), None) };
    let session = RawService::open(&site.url, &site.name, &boiler.token, hello).await;
    let mut session = session.expect("a session");
    assert_eq!(session.welcome.window, 2);

    // Four at once into a window of two, until the third finds it full.
    let mut ids = Vec::new();
    let busy = loop {
        let first = ids.len() as u64 + 1;
        assert!(first < 900, "the window was never full");
        for seq in first..first + 4 {
            session.raise(seq, "reading", &seq.to_string()).await.expect("sent");
        }
        let mut refused = Vec::new();
        for _ in 0..4 {
            match session.next().await.expect("a message") {
                Ok(ServiceMessage::Accepted(accepted)) => ids.push(accepted.instance_id),
                Ok(ServiceMessage::Refused(refusal)) => refused.push(refusal),
                other => panic!("{other:?}"),
            }
        }
        if let [busy, after] = &refused[..] {
            assert_eq!((after.code, after.expected), (Code::OutOfSequence, Some(busy.seq)));
            assert_eq!(after.seq, busy.seq + 1);
            break busy.clone();
        }
        if let [busy] = &refused[..] {
            break busy.clone();
        }
    };
    assert_eq!((busy.code, busy.seq), (Code::Busy, ids.len() as u64 + 1));
    // Nothing of what came after it was stored, whenever it came.
    session.raise(busy.seq + 1, "reading", "0").await.expect("sent");
    let refused = session.refusal().await.expect("a refusal");
    assert_eq!((refused.code, refused.expected), (Code::OutOfSequence, Some(busy.seq)));
    assert_eq!(site.retained("reading").await.len(), ids.len());
    for seq in busy.seq..busy.seq + 2 {
        session.raise(seq, "reading", &seq.to_string()).await.expect("sent");
        ids.push(session.accepted().await.expect("accepted").instance_id);
    }
    let stored: Vec<_> = site.retained("reading").await.into_iter().map(Some).collect();
    assert_eq!(stored, ids);
}

#[tokio::test]
async fn p22_of_two_processes_of_a_service_the_newest_wins() {
    let site = Site::new(broker().await, "p22", &structure(&[queueing("reading", 10)])).await;
    let (boiler, reader) = (site.service("boiler").await, site.guest("reader").await);
    let older = site.raiser(&boiler).start().await;
    older.raise("reading", 1).await;
    let newer = site.raiser(&boiler).start().await;
    newer.raise("reading", 2).await;

    let replaced = |notice: &ServiceNotice| {
        matches!(notice, ServiceNotice::Terminal { code: Code::Replaced, .. })
    };
    older.notices.until("the older one to be replaced", replaced).await;
    let refused = older.send(Event::queueing("reading", json(3))).await;
    assert_eq!(refused, Err(RaiseError::Stopped { code: Code::Replaced }));
    newer.raise("reading", 4).await;
    let listener = site.listener(&reader).to("reading").start().await;
    listener.until_handled(3).await;
    assert_eq!(listener.args(), ["1", "2", "4"]);
    let failed = |notice: &ClientNotice| matches!(notice, ClientNotice::Disconnected { .. });
    assert_eq!(listener.notices.count(failed), 0);
    let service = site.admin.get_service(&site.name, "boiler").await.expect("the service");
    assert_eq!(service["online"], value!(true));
    wait::within("the endpoint to close", newer.close()).await;
}
