//! D: delivering, one at a time, once, in order.

use std::time::Duration;

use ackord_endpoint::{ClientNotice, Code, Event, Subscription};
use ackord_wire::ClientFrame;
use ackord_wire::frame;
use cluster_tests::listener::Gate;
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::raiser::json;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::site::{Account, Site, queueing, replacing, structure};
use cluster_tests::wiretap;

use crate::broker;

fn is_connected(notice: &ClientNotice) -> bool {
    matches!(notice, ClientNotice::Connected { .. })
}

/// A session with one subscription whose acknowledgements time out after `timeout_ms`.
async fn session(site: &Site, client: &Account, event: &str, timeout_ms: u32) -> RawClient {
    let item = frame::Subscription { ack_timeout_ms: Some(timeout_ms), ..raw::to(event) };
    let token = Some(&*client.token);
    let session = RawClient::subscribed(&site.url, &site.name, token, vec![item]).await;
    session.expect("a session").0
}

#[tokio::test]
async fn d1_an_unchanged_set_puts_no_list_on_the_wire() {
    let events = [queueing("reading", 10), replacing("state")];
    let site = Site::new(broker().await, "d1", &structure(&events)).await;
    let (reader, proxy) = (site.guest("reader").await, site.proxy().await);
    // The order of subscribing does not matter.
    let first = site.listener(&reader).via(&proxy.url()).to("reading").to("state");
    first.subscribed(2).await.close().await;
    let second = site.listener(&reader).via(&proxy.url()).to("state").to("reading");
    let second = second.subscribed(2).await;

    let lists = |sent: &[u8]| {
        let is_list = |frame: &ClientFrame| {
            matches!(frame, ClientFrame::Subscriptions(_) | ClientFrame::Subscribe(_))
        };
        wiretap::client_frames(sent).iter().filter(|frame| is_list(frame)).count()
    };
    let sent = proxy.sent();
    assert_eq!(sent.iter().map(|sent| lists(sent)).collect::<Vec<_>>(), [1, 0]);
    second.close().await;
}

#[tokio::test]
async fn d2_a_changed_set_keeps_drops_and_adds() {
    let events = ["a", "b", "c"].map(|name| queueing(name, 10));
    let site = Site::new(broker().await, "d2", &structure(&events)).await;
    let (raiser, reader) = (site.raises("boiler").await, site.guest("reader").await);
    for event in ["a", "b", "c"] {
        raiser.raise(event, format!("{event}1")).await;
    }
    let first = site.listener(&reader).to("a").to("b").start().await;
    for handled in first.until_handled(2).await {
        first.until_committed(&handled.event, handled.instance_id).await;
    }
    first.close().await;

    let second = site.listener(&reader).to("b").to("c").start().await;
    second.until_handled(3).await;
    assert_eq!(second.args()[2], r#""c1""#, "the kept cursor stands, the new one starts first");
    let a = site.admin.cursor(&site.name, "reader", "a").await.expect("an answer");
    assert_eq!(a, None, "the subscription to a is gone");
    second.close().await;

    let third = site.listener(&reader).to("a").to("b").to("c").start().await;
    third.until_handled(4).await;
    assert_eq!(third.args()[3], r#""a1""#, "its cursor was gone with it");
}

#[tokio::test]
async fn d5_never_two_in_flight() {
    let site = Site::new(broker().await, "d5", &structure(&[queueing("reading", 10)])).await;
    let (raiser, reader) = (site.raises("boiler").await, site.guest("reader").await);
    let ids = raiser.raise_many("reading", 4).await;
    let mut session = session(&site, &reader, "reading", 300).await;
    for id in ids {
        // Until it is acknowledged nothing but the same instance comes.
        for attempt in 1..=2 {
            let event = session.event().await.expect("an event");
            assert_eq!((event.instance_id, event.attempt), (id, attempt));
            if attempt == 2 {
                session.handle(&event).await.expect("the cursor is committed");
            }
        }
    }
}

#[tokio::test]
async fn d7_a_late_acknowledgement_of_the_first_transmission_counts() {
    let site = Site::new(broker().await, "d7", &structure(&[queueing("reading", 10)])).await;
    let (raiser, reader) = (site.raises("boiler").await, site.guest("reader").await);
    let ids = raiser.raise_many("reading", 2).await;
    let mut session = session(&site, &reader, "reading", 300).await;
    let first = session.event().await.expect("the first transmission");
    let again = session.event().await.expect("the second transmission");
    assert_eq!((first.attempt, again.attempt), (1, 2));
    assert_eq!((first.instance_id, again.instance_id), (ids[0], ids[0]));
    session.handle(&first).await.expect("the cursor is committed");
    // The answer to the second transmission comes when nothing waits for it any more.
    session.ack(&again).await.expect("sent");
    let next = session.event().await.expect("the next instance");
    assert_eq!(next.instance_id, ids[1]);
    session.handle(&next).await.expect("the connection lives");
}

#[tokio::test]
async fn d15_replaced_in_flight_finishes_then_comes_the_newest() {
    let site = Site::new(broker().await, "d15", &structure(&[replacing("state")])).await;
    let (raiser, gate) = (site.raises("boiler").await, Gate::closed());
    let (reader, other) = (site.guest("reader").await, site.guest("other").await);
    let holding = site.listener(&reader).holds("1", &gate).to("state").subscribed(1).await;
    let mut leaving = session(&site, &other, "state", 30_000).await;
    raiser.raise("state", 1).await;
    holding.until_handled(1).await;
    let in_flight = leaving.event().await.expect("the value");
    raiser.raise("state", 2).await;
    let newest = raiser.raise("state", 3).await;

    gate.open();
    holding.until_committed("state", newest).await;
    assert_eq!(holding.args(), ["1", "3"]);

    // Who reconnects before acknowledging gets only the newest.
    drop(leaving);
    let mut back = session(&site, &other, "state", 30_000).await;
    let event = back.event().await.expect("the newest");
    assert!(in_flight.instance_id < event.instance_id);
    assert_eq!(event.instance_id, newest);
    back.handle(&event).await.expect("the cursor is committed");
}

#[tokio::test]
async fn d16_expired_in_flight_is_not_sent_again_and_its_acknowledgement_counts() {
    let site = Site::new(broker().await, "d16", &structure(&[queueing("reading", 10)])).await;
    let raiser = site.raises("boiler").await;
    let (silent, late) = (site.guest("silent").await, site.guest("late").await);
    let mut silent = session(&site, &silent, "reading", 2500).await;
    let mut late = session(&site, &late, "reading", 30_000).await;
    let short = Event::queueing("reading", json(1)).lifetime_s(1);
    raiser.send(short).await.expect("the event is accepted");
    silent.event().await.expect("the short-lived one");
    let in_flight = late.event().await.expect("the short-lived one");
    site.until_retained("reading", 0).await;
    let second = raiser.raise("reading", 2).await;

    late.handle(&in_flight).await.expect("the acknowledgement counts");
    assert_eq!(late.event().await.expect("the next").instance_id, second);
    let next = silent.event().await.expect("the next, after the timeout");
    assert_eq!((next.instance_id, next.attempt), (second, 1));
}

#[tokio::test]
async fn d17_evicted_in_flight_size_3_raise_6_next_is_4() {
    let site = Site::new(broker().await, "d17", &structure(&[queueing("reading", 3)])).await;
    let (raiser, gate) = (site.raises("boiler").await, Gate::closed());
    let reader = site.guest("reader").await;
    let listener = site.listener(&reader).holds("1", &gate).to("reading").subscribed(1).await;
    raiser.raise("reading", 1).await;
    listener.until_handled(1).await;
    for n in 2..=6 {
        raiser.raise("reading", n).await;
    }
    gate.open();
    listener.until_handled(4).await;
    assert_eq!(listener.args(), ["1", "4", "5", "6"]);
    oracle::require(&site.history, &Expectations::default());
}

#[tokio::test]
async fn d20_a_slow_handler_never_runs_twice_at_once() {
    let site = Site::new(broker().await, "d20", &structure(&[queueing("reading", 10)])).await;
    let (raiser, gate) = (site.raises("boiler").await, Gate::closed());
    let (reader, proxy) = (site.guest("reader").await, site.proxy().await);
    let impatient = Subscription::new("reading").ack_timeout(Duration::from_millis(200));
    let listener = site.listener(&reader).via(&proxy.url()).holds("1", &gate);
    let listener = listener.subscribes(impatient).subscribed(1).await;
    raiser.raise("reading", 1).await;
    listener.until_handled(1).await;
    // Each new session sends it again while the handler runs.
    for sessions in 2..=4 {
        proxy.reset();
        listener.until_subscribed(sessions).await;
    }
    let last = raiser.raise("reading", 2).await;
    gate.open();
    listener.until_committed("reading", last).await;
    assert_eq!(listener.args(), ["1", "2"]);
    oracle::require(&site.history, &Expectations::default());
}

#[tokio::test]
async fn d23_of_two_sessions_of_a_client_the_newest_wins() {
    let site = Site::new(broker().await, "d23", &structure(&[queueing("reading", 10)])).await;
    let (raiser, reader) = (site.raises("boiler").await, site.guest("reader").await);
    let older = site.listener(&reader).to("reading").subscribed(1).await;
    let first = raiser.raise("reading", 1).await;
    older.until_committed("reading", first).await;
    let newer = site.listener(&reader).to("reading").subscribed(1).await;

    let replaced = |notice: &ClientNotice| {
        matches!(notice, ClientNotice::Terminal { code: Code::Replaced, .. })
    };
    older.notices.until("the older one to be replaced", replaced).await;
    let second = raiser.raise("reading", 2).await;
    newer.until_committed("reading", second).await;
    assert_eq!(newer.args(), ["1", "2"]);
    assert_eq!((older.notices.count(is_connected), newer.notices.count(is_connected)), (1, 1));
}
