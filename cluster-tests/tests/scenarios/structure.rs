//! S: the structure of a site, who makes it and who may change it.

use ackord_endpoint::{Code, Event, ServiceNotice};
use cluster_tests::listener::Gate;
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::raiser::json;
use cluster_tests::raw::{RawService, service_hello};
use cluster_tests::site::{Site, private, queueing, replacing, structure, with};
use cluster_tests::wait;
use serde_json::{Value, json};

use crate::{broker, defaults};

fn is_online(notice: &ServiceNotice) -> bool {
    *notice == ServiceNotice::Online
}

fn is_connected(notice: &ServiceNotice) -> bool {
    matches!(notice, ServiceNotice::Connected { .. })
}

fn is_parked(notice: &ServiceNotice) -> bool {
    matches!(notice, ServiceNotice::Parked { .. })
}

#[tokio::test]
async fn s1_the_first_service_constructs_a_blank_site_and_is_online() {
    let site = Site::blank(broker().await, "s1", json!({})).await;
    let boiler = site.service("boiler").await;
    let declared = structure(&[queueing("reading", 10), replacing("state")]);

    let raiser = site.raiser(&boiler).declares(&declared).start().await;
    raiser.until_online().await;
    let id = raiser.raise("reading", 71).await;

    let there = site.admin.structure(&site.name).await.expect("the site has a structure");
    assert_eq!(there["structure"]["service_type"], declared["service_type"]);
    assert_eq!(there["structure"]["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(site.retained("reading").await, [id]);
    let notices = &raiser.notices;
    assert_eq!((notices.count(is_connected), notices.count(is_parked)), (1, 0));
}

#[tokio::test]
async fn s2_another_order_of_roles_and_another_version_is_the_same_structure() {
    let site = Site::blank(broker().await, "s2", json!({})).await;
    let boiler = site.service("boiler").await;
    let events = structure(&[queueing("reading", 10), replacing("state")]);
    let declared = with(events, "roles", json!(["viewer", "operator"]));
    let first = site.raiser(&boiler).declares(&declared).start().await;
    first.until_online().await;
    first.close().await;

    let mut reordered = with(declared, "roles", json!(["operator", "viewer"]));
    reordered["events"].as_array_mut().expect("events").reverse();
    reordered["owner_role"] = json!("operator");
    let newer = site.raiser(&boiler).declares(&reordered);
    let second = newer.with(|endpoint| endpoint.service_version("2.0")).start().await;
    second.until_online().await;
    second.raise("reading", 1).await;
    assert_eq!(second.notices.count(is_parked), 0);
}

#[tokio::test]
async fn s3_a_parked_service_keeps_its_events_until_an_administrator_reapplies() {
    let site = Site::new(broker().await, "s3", &structure(&[queueing("reading", 10)])).await;
    let boiler = site.service("boiler").await;
    let reader = site.guest("reader").await;
    let longer = with(queueing("reading", 10), "lifetime_s", json!(3600));

    let raiser = site.raiser(&boiler).declares(&structure(&[longer])).start().await;
    let parked = ServiceNotice::Parked { reason: Code::SiteStructureMismatch };
    raiser.notices.until("the service to be parked", |notice| *notice == parked).await;
    for n in 1..=3 {
        raiser.hand_over(Event::queueing("reading", json(n)));
    }
    let service = site.admin.get_service(&site.name, "boiler").await.expect("the service");
    assert_eq!(service["parked"], "site-structure-mismatch");
    assert_eq!(raiser.endpoint().pending(), 3);
    assert!(site.retained("reading").await.is_empty());

    site.admin.apply_declared(&site.name, "boiler").await.expect("the structure is applied");
    raiser.notices.until("the service to be online", is_online).await;
    let listener = site.listener(&reader).to("reading").start().await;
    listener.until_handled(3).await;
    assert_eq!(listener.args(), ["1", "2", "3"]);
    assert_eq!(raiser.notices.count(is_connected), 1, "parking does not end the connection");
}

/// One structure and whether it is allowed; a refusal names this field.
struct Bound {
    what: &'static str,
    structure: Value,
    refused_at: Option<&'static str>,
}

fn fine(what: &'static str, structure: Value) -> Bound {
    Bound { what, structure, refused_at: None }
}

fn refused(what: &'static str, field: &'static str, structure: Value) -> Bound {
    Bound { what, structure, refused_at: Some(field) }
}

fn one(event: Value) -> Value {
    structure(&[event])
}

fn named(name: &str) -> Value {
    one(replacing(name))
}

fn sized(size: u32) -> Value {
    one(queueing("reading", size))
}

fn lives(event: Value, seconds: u32) -> Value {
    one(with(event, "lifetime_s", json!(seconds)))
}

fn roles(count: usize) -> Value {
    let roles: Vec<String> = (0..count).map(|n| format!("role {n}")).collect();
    with(named("state"), "roles", json!(roles))
}

fn events(count: usize) -> Value {
    let events: Vec<Value> = (0..count).map(|n| replacing(&format!("event {n}"))).collect();
    structure(&events)
}

fn bounds_of_names() -> Vec<Bound> {
    let (name, kind) = ("events[0].name", "service_type");
    let all = "aA0 _ - . @ # $ % & * ' : ^ / ! ( ) [ ]";
    let typed = |name: &str| with(named("state"), "service_type", json!(name));
    vec![
        fine("a name of 1", named("a")),
        refused("an empty name", name, named("")),
        fine("a name of 256", named(&"n".repeat(256))),
        refused("a name of 257", name, named(&"n".repeat(257))),
        fine("every character of a name", named(all)),
        refused("another character", name, named("tür")),
        refused("a tab", name, named("a\tb")),
        refused("a digit first", name, named("1a")),
        refused("a trailing space", name, named("a ")),
        refused("two spaces", name, named("a  b")),
        fine("a service type of 256", typed(&"t".repeat(256))),
        refused("a service type of 257", kind, typed(&"t".repeat(257))),
        fine("30 roles", roles(30)),
        refused("31 roles", "roles", roles(31)),
        fine("100 events", events(100)),
        refused("101 events", "events", events(101)),
    ]
}

fn bounds_of_events() -> Vec<Bound> {
    let (size, lifetime) = ("events[0].size", "events[0].lifetime_s");
    let (reading, notice, state) = (queueing("reading", 9), private("notice"), replacing("state"));
    let mut endless = reading.clone();
    endless.as_object_mut().expect("an event").remove("lifetime_s");
    let open = with(notice.clone(), "access", json!("everyone"));
    vec![
        fine("a size of 1", sized(1)),
        refused("a size of 0", size, sized(0)),
        fine("a size of 1000", sized(1000)),
        refused("a size of 1001", size, sized(1001)),
        fine("60 s", lives(reading.clone(), 60)),
        refused("59 s", lifetime, lives(reading.clone(), 59)),
        fine("30 days", lives(reading.clone(), 2_592_000)),
        refused("30 days and 1 s", lifetime, lives(reading, 2_592_001)),
        refused("no lifetime", lifetime, one(endless)),
        fine("60 s, private", lives(notice.clone(), 60)),
        refused("59 s, private", lifetime, lives(notice.clone(), 59)),
        fine("30 days, private", lives(notice.clone(), 2_592_000)),
        refused("30 days and 1 s, private", lifetime, lives(notice.clone(), 2_592_001)),
        refused("a private size", size, one(with(notice, "size", json!(999)))),
        refused("private access", "events[0].access", one(open)),
        refused("a replacing size", size, one(with(state.clone(), "size", json!(2)))),
        refused("a replacing lifetime", lifetime, lives(state, 60)),
    ]
}

#[tokio::test]
async fn s5_every_limit_holds_at_its_bound_and_not_past_it() {
    let site = Site::blank(defaults().await, "s5", json!({})).await;
    let bounds = bounds_of_names().into_iter().chain(bounds_of_events());
    for Bound { what, structure, refused_at } in bounds {
        // Another service type rebuilds the site, which is not what this is about.
        let path = format!("/v1/sites/{}/structure?rebuild=true", site.name);
        let answer = site.admin.ask(reqwest::Method::PUT, &path, Some(structure)).await;
        match (answer.expect("an answer"), refused_at) {
            (Ok(_), None) => {}
            (Err(problem), Some(field)) => {
                assert_eq!((problem.status, problem.code), (422, Code::Invalid), "{what}");
                assert_eq!(problem.field.as_deref(), Some(field), "{what}: {}", problem.detail);
            }
            (answer, _) => panic!("{what}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn s6_names_twice_and_undeclared_roles_are_refused() {
    let site = Site::blank(broker().await, "s6", json!({})).await;
    let boiler = site.service("boiler").await;
    let restricted = with(replacing("state"), "access", json!({ "roles": ["Admin"] }));
    let with_roles =
        |roles: Value| with(structure(std::slice::from_ref(&restricted)), "roles", roles);
    let wrong = [
        structure(&[queueing("reading", 5), replacing("reading")]),
        with_roles(json!(["Admin", "admin"])),
        with_roles(json!(["Viewer"])),
        with(with_roles(json!(["Admin"])), "owner_role", json!("Owner of it")),
    ];
    for (index, wrong) in wrong.iter().enumerate() {
        let answer = site.admin.try_structure(&site.name, wrong).await.expect("an answer");
        let problem = answer.expect_err("it is refused");
        assert_eq!((problem.status, problem.code), (422, Code::Invalid), "{index}");

        let declared = serde_json::from_value(wrong.clone()).expect("a structure");
        let hello = service_hello(&"a1".repeat(16), Some(declared));
        let code = RawService::refused(&site.url, &site.name, &boiler.token, hello).await;
        assert_eq!(code.expect("the session is refused"), Code::Invalid, "{index}");
    }
    site.apply(&with_roles(json!(["Admin", "Viewer"]))).await;
}

#[tokio::test]
async fn s7_a_smaller_queue_keeps_the_newest_and_the_cursor() {
    let site = Site::new(broker().await, "s7", &structure(&[queueing("reading", 10)])).await;
    let raiser = site.raises("boiler").await;
    let reader = site.guest("reader").await;
    let ids = raiser.raise_many("reading", 10).await;
    let gate = Gate::closed();
    let first = site.listener(&reader).holds("5", &gate).to("reading").start().await;
    first.until_handled(5).await;
    site.until_cursor("reader", "reading", ids[3]).await;
    first.kill().await;

    site.apply(&structure(&[queueing("reading", 3)])).await;
    assert_eq!(site.retained("reading").await, ids[7..]);
    let second = site.listener(&reader).to("reading").start().await;
    second.until_committed("reading", ids[9]).await;
    assert_eq!(second.args()[5..], ["8", "9", "10"]);
    oracle::require(&site.history, &Expectations::default());
    wait::within("the endpoint to close", second.close()).await;
}
