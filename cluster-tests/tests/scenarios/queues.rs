//! Q: what a queue keeps, drops and hands out.

use std::time::{Duration, Instant};

use ackord_endpoint::{ClientNotice, Code, Event, Payload, RaiseError};
use cluster_tests::raw::{RawService, service_hello};
use cluster_tests::site::{Site, private, queueing, replacing, structure, with};
use cluster_tests::wait;
use serde_json::json;

use crate::broker;

#[tokio::test]
async fn q1_of_five_replacing_values_a_late_subscriber_gets_the_last_once() {
    let site = Site::new(broker().await, "q1", &structure(&[replacing("state")])).await;
    let raiser = site.raises("boiler").await;
    let late = site.guest("late").await;
    for value in ["v1", "v2", "v3", "v4", "v5"] {
        raiser.raise("state", value).await;
    }
    let listener = site.listener(&late).to("state").start().await;
    listener.until_handled(1).await;
    // What comes after it shows that nothing else was there.
    raiser.raise("state", "v6").await;
    listener.until_handled(2).await;
    assert_eq!(listener.args(), [r#""v5""#, r#""v6""#]);
}

#[tokio::test]
async fn q2_size_3_raise_5_leaves_3_4_5() {
    let site = Site::new(broker().await, "q2", &structure(&[queueing("reading", 3)])).await;
    let raiser = site.raises("boiler").await;
    let late = site.guest("late").await;
    let ids = raiser.raise_many("reading", 5).await;
    assert_eq!(site.retained("reading").await, ids[2..]);
    let listener = site.listener(&late).to("reading").start().await;
    listener.until_handled(3).await;
    assert_eq!(listener.args(), ["3", "4", "5"]);
}

#[tokio::test]
async fn q3_an_instance_lives_for_its_lifetime_and_tells_its_age() {
    let short = with(queueing("reading", 10), "lifetime_s", json!(4));
    let site = Site::new(broker().await, "q3", &structure(&[short])).await;
    let raiser = site.raises("boiler").await;
    let (half, late) = (site.guest("half").await, site.guest("late").await);
    let before = Instant::now();
    raiser.raise("reading", 1).await;
    let after = Instant::now();

    let half_time = Duration::from_secs(2);
    wait::until_true("half of the lifetime", async || after.elapsed() >= half_time).await;
    let at_half = site.listener(&half).to("reading").start().await;
    let age = at_half.until_handled(1).await[0].age;
    assert!((2..=before.elapsed().as_secs()).contains(&age), "{age} s");

    // Late by a little is allowed, early is not.
    site.until_retained("reading", 0).await;
    assert!(before.elapsed() >= Duration::from_secs(4), "gone after {:?}", before.elapsed());
    let too_late = site.listener(&late).to("reading").subscribed(1).await;
    raiser.raise("reading", 2).await;
    too_late.until_handled(1).await;
    assert_eq!(too_late.args(), ["2"]);
    assert_eq!(too_late.handled()[0].age, 0, "it was pushed at once");
}

#[tokio::test]
async fn q5_a_null_replaces_the_value() {
    let site = Site::new(broker().await, "q5", &structure(&[replacing("state")])).await;
    let raiser = site.raises("boiler").await;
    let late = site.guest("late").await;
    raiser.raise("state", "on").await;
    raiser.null("state").await;
    let listener = site.listener(&late).to("state").start().await;
    listener.until_handled(1).await;
    raiser.raise("state", "off").await;
    listener.until_handled(2).await;
    assert_eq!(listener.args(), ["null", r#""off""#]);
}

#[tokio::test]
async fn q6_a_null_after_a_null_is_acknowledged_and_nobody_is_told() {
    let site = Site::new(broker().await, "q6", &structure(&[replacing("state")])).await;
    let raiser = site.raises("boiler").await;
    let reader = site.guest("reader").await;
    let listener = site.listener(&reader).to("state").subscribed(1).await;
    let first = raiser.null("state").await;
    assert!(!first.ignored, "a null as the first instance is stored");
    listener.until_handled(1).await;
    assert!(raiser.null("state").await.ignored);
    raiser.raise("state", "on").await;
    listener.until_handled(2).await;
    assert_eq!(listener.args(), ["null", r#""on""#]);
}

#[tokio::test]
async fn q8_null_value_null_reach_one_that_keeps_up() {
    let site = Site::new(broker().await, "q8", &structure(&[replacing("state")])).await;
    let raiser = site.raises("boiler").await;
    let reader = site.guest("reader").await;
    let listener = site.listener(&reader).to("state").subscribed(1).await;
    raiser.null("state").await;
    listener.until_handled(1).await;
    raiser.raise("state", "on").await;
    listener.until_handled(2).await;
    raiser.null("state").await;
    listener.until_handled(3).await;
    assert_eq!(listener.args(), ["null", r#""on""#, "null"]);
}

#[tokio::test]
async fn q9_each_service_of_a_site_has_its_own_queue() {
    let site = Site::blank(broker().await, "q9", json!({ "multi_service": true })).await;
    site.apply(&structure(&[queueing("reading", 2)])).await;
    let (a, b) = (site.raises("a").await, site.raises("b").await);
    let reader = site.guest("reader").await;
    for n in 1..=3 {
        a.raise("reading", format!("A{n}")).await;
        b.raise("reading", format!("B{n}")).await;
    }
    let listener = site.listener(&reader).to("reading").start().await;
    let handled = listener.until_handled(4).await;
    assert_eq!(listener.args(), [r#""A2""#, r#""B2""#, r#""A3""#, r#""B3""#]);
    let services: Vec<&str> = handled.iter().map(|handled| &*handled.service).collect();
    assert_eq!(services, ["a", "b", "a", "b"]);
}

#[tokio::test]
async fn q11_of_1001_private_events_the_last_1000_are_kept() {
    let site = Site::new(broker().await, "q11", &structure(&[private("notice")])).await;
    let raiser = site.raises("boiler").await;
    let ann = site.guest("ann").await;
    let raises = (1..=1001).map(|n| raiser.raise_to("ann", "notice", n));
    let ids = futures_util::future::join_all(raises).await;
    assert_eq!(site.retained("notice").await, ids[1..]);
    let listener = site.listener(&ann).to("notice").start().await;
    listener.until_handled(1000).await;
    let expected: Vec<String> = (2..=1001).map(|n: u32| n.to_string()).collect();
    assert_eq!(listener.args(), expected);
}

#[tokio::test]
async fn q13_a_private_event_reaches_its_addressee_only() {
    let site = Site::new(broker().await, "q13", &structure(&[private("notice")])).await;
    let raiser = site.raises("boiler").await;
    let (ann, bob) = (site.guest("ann").await, site.guest("bob").await);
    let anns = site.listener(&ann).to("notice").subscribed(1).await;
    let bobs = site.listener(&bob).to("notice").subscribed(1).await;
    raiser.raise_to("ann", "notice", 1).await;
    raiser.raise_to("bob", "notice", 2).await;
    anns.until_handled(1).await;
    bobs.until_handled(1).await;
    assert_eq!((anns.args().concat(), bobs.args().concat()), ("1".to_owned(), "2".to_owned()));

    let guest = site.stateless("guest").to("notice").start().await;
    let refused = |notice: &ClientNotice| matches!(notice, ClientNotice::Refused { .. });
    let notice = guest.notices.until("the subscription to be refused", refused).await;
    assert!(matches!(notice, ClientNotice::Refused { event, .. } if event == "notice"));
}

#[tokio::test]
async fn q14_an_acknowledged_private_event_is_gone() {
    let site = Site::new(broker().await, "q14", &structure(&[private("notice")])).await;
    let raiser = site.raises("boiler").await;
    let (ann, bob) = (site.guest("ann").await, site.guest("bob").await);
    let acknowledged = raiser.raise_to("ann", "notice", 1).await;
    let kept = raiser.raise_to("bob", "notice", 2).await;
    let anns = site.listener(&ann).to("notice").start().await;
    anns.until_committed("notice", acknowledged).await;
    assert_eq!(site.retained("notice").await, [kept]);
    let bobs = site.listener(&bob).to("notice").start().await;
    bobs.until_committed("notice", kept).await;
    assert!(site.retained("notice").await.is_empty());
}

#[tokio::test]
async fn q15_2048_bytes_are_accepted_2049_refused_and_the_connection_lives() {
    let site = Site::new(broker().await, "q15", &structure(&[queueing("reading", 10)])).await;
    let boiler = site.service("boiler").await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));

    // The broker judges by itself.
    let hello = service_hello(&"b1".repeat(16), None);
    let session = RawService::open(&site.url, &site.name, &boiler.token, hello).await;
    let mut session = session.expect("a session");
    assert_eq!(session.welcome.args_bytes_max, 2048);
    session.raise(1, "reading", &text(2048)).await.expect("sent");
    session.accepted().await.expect("2048 bytes are accepted");
    session.raise(2, "reading", &text(2049)).await.expect("sent");
    let rejected = session.rejected().await.expect("2049 bytes are rejected");
    assert_eq!(rejected.code, Code::ArgumentsTooLarge);
    session.raise(3, "reading", "3").await.expect("sent");
    session.accepted().await.expect("the connection lives");

    // The SDK does not even send it.
    let raiser = site.raiser(&boiler).start().await;
    raiser.until_online().await;
    let event = |bytes| Event::queueing("reading", Payload::json(text(bytes)));
    raiser.send(event(2048)).await.expect("2048 bytes are accepted");
    let refused = raiser.send(event(2049)).await.expect_err("2049 bytes are refused");
    assert_eq!(refused, RaiseError::TooLarge { bytes: 2049, bytes_max: 2048 });
    raiser.raise("reading", 6).await;
}
