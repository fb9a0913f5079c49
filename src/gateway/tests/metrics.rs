//! The metrics of a node, scraped through a real socket while real events pass.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use ackord_agents::metrics::{Shown, all, find};
use serde_json::{Value, json};
use support::{ADMIN, Running, Socket};

const SERVICE: &str = "/v1/sites/demo/service";
const CLIENT: &str = "/v1/sites/demo/client";
const JSON: &str = "ackord.v1.json";

/// What one scrape said.
struct Scrape {
    text: String,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(text: String) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        Self { values: samples.map(sample).collect(), text }
    }

    /// The value of a series; 0 where there is none.
    fn get(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or(0.0)
    }

    /// What has a type here.
    fn names(&self) -> BTreeSet<&str> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split(' ').next().unwrap()).collect()
    }

    /// The values of each label of each metric.
    fn labels(&self) -> BTreeMap<(String, String), BTreeSet<String>> {
        let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for series in self.values.keys() {
            let Some((name, labels)) = series.split_once('{') else { continue };
            for pair in labels.trim_end_matches('}').split("\",") {
                let (label, value) = pair.split_once("=\"").unwrap();
                let key = (name.to_owned(), label.to_owned());
                found.entry(key).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
        found
    }
}

async fn scrape(node: &Running, token: Option<&str>) -> Scrape {
    let reply = node.call(token, "GET", "/metrics", None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    Scrape::of(reply.text)
}

/// Scrapes until this holds.
async fn until(node: &Running, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..1000 {
        looks.tick().await;
        let scrape = scrape(node, None).await;
        if holds(&scrape) {
            return scrape;
        }
    }
    panic!("waited in vain: {}", scrape(node, None).await.text);
}

fn named(shown: &[Shown]) -> BTreeSet<&'static str> {
    all().filter(|row| shown.contains(&row.shown)).map(|row| row.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_shows_the_table_and_nothing_else() {
    let node = Running::start().await;
    let open = scrape(&node, None).await;
    assert_eq!(open.names(), named(&[Shown::Everyone]).into_iter().collect());
    // Whoever shows another token sees what everybody sees.
    let other = scrape(&node, Some("ack_unknown")).await;
    assert_eq!(other.names(), open.names());
    let whole = scrape(&node, Some(ADMIN)).await;
    let expected = named(&[Shown::Everyone, Shown::Administrator]);
    assert_eq!(whole.names(), expected.into_iter().collect());
    for name in open.names() {
        let row = find(name).unwrap();
        assert!(open.text.contains(&row.head()), "{name}: help and type are those of the table");
    }
    assert_eq!(open.get("ackord_started"), 1.0);
    assert_eq!(open.get("ackord_groups{condition=\"steady\",role=\"leader\"}"), 3.0);
    node.stop().await;
}

async fn raise(service: &mut Socket, seq: u64, event: &str, more: Value) -> Value {
    let mut raise = json!({"seq": seq, "event": event});
    raise.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service.say(json!({"raise": raise})).await;
    loop {
        let frame = service.hear().await;
        for kind in ["accepted", "rejected", "refused"] {
            if let Some(body) = frame.get(kind) {
                assert_eq!(body["seq"], seq, "{frame}");
                return json!({kind: body});
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_events_is_counted() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let mut client = node.socket(CLIENT, Some(&demo.client), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    client.hear_of("welcome").await;
    client.say(json!({"subscribe": {"items": [{"event": "reading"}]}})).await;
    while client.hear_of("subscribed").await["accepted"] == json!([]) {}
    let mut service = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
    service.hello_service().await;
    let before = scrape(&node, None).await;

    // Stored, raised again, rejected.
    let args = json!({"args": 1});
    assert!(raise(&mut service, 1, "reading", args.clone()).await.get("accepted").is_some());
    let again = raise(&mut service, 1, "reading", args.clone()).await;
    assert_eq!(again["accepted"]["duplicate"], true, "{again}");
    let rejected = raise(&mut service, 2, "nothing", args.clone()).await;
    assert_eq!(rejected["rejected"]["code"], "unknown-event", "{rejected}");
    // Delivered, returned, delivered again, acknowledged.
    let event = client.hear_of("event").await;
    let named = json!({"subscription": event["subscription"], "instance_id": event["instance_id"]});
    client.say(json!({"nack": named})).await;
    assert_eq!(client.hear_of("event").await["instance_id"], event["instance_id"]);
    let waiting = until(&node, |scrape| scrape.get("ackord_lag_instances") == 1.0).await;
    assert_eq!(waiting.get("ackord_subscriptions_lagging"), 1.0);
    assert!(waiting.get("ackord_oldest_unacknowledged_seconds") > 0.0);
    client.say(json!({"ack": named})).await;
    client.hear_of("committed").await;
    // Superseded, evicted, expired.
    let mut seq = 2;
    for _ in 0..3 {
        seq += 1;
        raise(&mut service, seq, "state", args.clone()).await;
    }
    for _ in 0..101 {
        seq += 1;
        raise(&mut service, seq, "reading", args.clone()).await;
    }
    let short = json!({"client": "c", "lifetime_s": 1, "args": 1});
    raise(&mut service, seq + 1, "notice", short).await;
    let expired = "ackord_instances_departed_total{reason=\"expired\"}";
    let after = until(&node, |scrape| scrape.get(expired) == before.get(expired) + 1.0).await;

    let moved = |series: &str| after.get(series) - before.get(series);
    for (series, expected) in [
        ("ackord_raises_total{outcome=\"accepted\"}", 106.0),
        ("ackord_raises_total{outcome=\"duplicate\"}", 1.0),
        ("ackord_raises_total{outcome=\"unknown-event\"}", 1.0),
        ("ackord_events_applied_total", 106.0),
        ("ackord_duplicates_suppressed_total", 1.0),
        ("ackord_instances_departed_total{reason=\"superseded\"}", 2.0),
        // One has made room for the last of them, and the one that was acknowledged too.
        ("ackord_instances_departed_total{reason=\"evicted\"}", 2.0),
        ("ackord_deliveries_total", 2.0),
        ("ackord_delivery_seconds_count", 2.0),
        ("ackord_redeliveries_total", 1.0),
        ("ackord_nacks_total", 1.0),
        ("ackord_acks_total", 1.0),
        ("ackord_commits_total", 1.0),
        ("ackord_publish_seconds_count", 106.0),
    ] {
        assert_eq!(moved(series), expected, "{series}\n{}", after.text);
    }
    for kind in ["acknowledged-again", "cursor-backwards", "sequence-gap"] {
        let series = format!("ackord_exactly_once_violations_total{{kind=\"{kind}\"}}");
        assert_eq!(after.values.get(&series), Some(&0.0), "{series}");
    }
    let (syncs, count) = ("ackord_log_syncs_total", "ackord_log_sync_seconds_count");
    assert!(moved(syncs) > 0.0 && after.get(count) >= before.get(syncs), "{}", after.text);
    assert_eq!(moved("ackord_apply_seconds_count"), moved("ackord_entries_applied_total"));
    assert!(moved("ackord_commit_seconds_count") > 0.0);
    assert_eq!(after.get("ackord_sessions{kind=\"client\"}"), 1.0);
    assert_eq!(after.get("ackord_transport_sessions{transport=\"websocket\"}"), 2.0);
    assert_eq!(after.get("ackord_sites"), 1.0);
    assert!(after.get("ackord_disk_used_bytes{part=\"log\"}") > 0.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_stay_bounded_whatever_there_is() {
    let node = Running::start().await;
    for number in 0..100 {
        let site = format!("/v1/sites/plant-{number:03}");
        node.admin("PUT", &site, Some(json!({}))).await.is(201);
        let structure = Some(support::structure());
        node.admin("PUT", &format!("{site}/structure"), structure).await.is(200);
        for account in ["services/s", "users/u"] {
            node.admin("PUT", &format!("{site}/{account}"), None).await.is(201);
        }
        let of_user = Some(json!({"user": "u"}));
        node.admin("PUT", &format!("{site}/clients/c"), of_user).await.is(201);
        let path = format!("{site}/clients/c/subscriptions/reading");
        let made = node.admin("PUT", &path, Some(json!({}))).await;
        assert!(made.status < 300, "{made:?}");
        let token = node.token(&format!("plant-{number:03}"), json!({"service": "s"})).await;
        let path = format!("{site}/events/reading");
        node.call(Some(&token), "POST", &path, Some(json!(1))).await.is(200);
        // What is asked for wrongly, and is not there.
        node.call(None, "GET", &format!("/nowhere-{number}"), None).await;
    }
    let open = until(&node, |scrape| scrape.get("ackord_lag_instances") == 100.0).await;
    assert!(!open.text.contains("plant-"), "{}", open.text);
    let whole = scrape(&node, Some(ADMIN)).await;
    let labels = whole.labels();
    let sites = &labels[&("ackord_site_lag_instances".to_owned(), "site".to_owned())];
    assert_eq!(sites.len(), 10, "{sites:?}");
    assert!(sites.contains("plant-000"), "the oldest waits there: {sites:?}");
    for ((series, label), values) in &labels {
        let name = ["_bucket", "_sum", "_count"].iter().fold(series.as_str(), |name, suffix| {
            name.strip_suffix(suffix).filter(|base| find(base).is_some()).unwrap_or(name)
        });
        if label == "le" {
            continue;
        }
        let row = find(name).unwrap();
        let of = row.labels.iter().find(|of| of.name == label).unwrap();
        assert!(values.len() <= of.values_max, "{series} {label}: {values:?}");
    }
    assert_eq!(whole.get("ackord_sites"), 100.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_objects_are_told_page_by_page() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let mut client = node.socket(CLIENT, Some(&demo.client), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    client.hear_of("welcome").await;
    let items = json!([{"event": "reading"}, {"event": "state"}]);
    client.say(json!({"subscribe": {"items": items}})).await;
    while client.hear_of("subscribed").await["accepted"] == json!([]) {}
    let mut service = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
    service.hello_service().await;
    for seq in 1..=3 {
        raise(&mut service, seq, "reading", json!({"args": 1})).await;
    }
    client.hear_of("event").await;

    let path = "/metrics/detailed?site=demo";
    let whole = node.call(Some(&demo.observer), "GET", path, None).await;
    assert_eq!((whole.status, whole.headers.get("link")), (200, None), "{whole:?}");
    assert_eq!(whole.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let whole = Scrape::of(whole.text);
    let event = "event=\"reading\",site=\"demo\"";
    let of = "client=\"c\",event=\"reading\",site=\"demo\"";
    for (series, expected) in [
        (format!("ackord_queue_retained_instances{{{event}}}"), 3.0),
        (format!("ackord_subscription_lag_instances{{{of}}}"), 3.0),
        (format!("ackord_subscription_in_flight_instances{{{of}}}"), 1.0),
        (format!("ackord_subscription_position{{{of}}}"), 0.0),
    ] {
        let series = whole.find(&series);
        assert_eq!(whole.values.get(&series), Some(&expected), "{series}\n{}", whole.text);
    }

    // Three queues and two subscriptions, two at a time.
    let (mut next, mut pages, mut all_of) = (Some(format!("{path}&limit=2")), 0, BTreeSet::new());
    while let Some(path) = next.take() {
        let page = node.call(Some(&demo.observer), "GET", &path, None).await;
        assert_eq!(page.status, 200, "{page:?}");
        let link = page.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| {
            let link = link.strip_suffix("; rel=\"next\"").unwrap();
            link.trim_matches(['<', '>']).to_owned()
        });
        let told = page.text.lines().find_map(|line| line.strip_prefix("# next page: "));
        assert_eq!(told, next.as_deref());
        pages += 1;
        let series = Scrape::of(page.text).values.into_keys();
        all_of.extend(series);
    }
    assert_eq!(pages, 3);
    assert_eq!(all_of, whole.values.into_keys().collect());

    let check = async |token: Option<&str>, query: &str, status, code, field| {
        let reply = node.call(token, "GET", &format!("/metrics/detailed?{query}"), None).await;
        reply.is_problem(status, code, field);
    };
    let observer = Some(&*demo.observer);
    for wrong in ["limit=0", "limit=1001", "limit=x"] {
        check(observer, &format!("site=demo&{wrong}"), 422, "invalid", Some("?limit")).await;
    }
    check(observer, "site=demo&cursor=x", 422, "invalid", Some("?cursor")).await;
    check(None, "site=demo", 401, "bad-credentials", Some("Authorization")).await;
    check(None, "", 401, "bad-credentials", Some("Authorization")).await;
    check(Some(ADMIN), "", 422, "invalid", Some("?site")).await;
    check(Some(ADMIN), "site=nowhere", 404, "not-found", None).await;
    check(observer, "site=nowhere", 401, "bad-credentials", Some("Authorization")).await;
    check(Some(&demo.client), "site=demo", 403, "access-denied", Some("Authorization")).await;
    node.stop().await;
}

impl Scrape {
    /// A series by its labels, in whatever order they are written.
    fn find(&self, wanted: &str) -> String {
        let parts = |series: &str| {
            let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
            let labels: BTreeSet<String> = labels.split(',').map(str::to_owned).collect();
            (name.to_owned(), labels)
        };
        let same = |series: &&String| series.contains('{') && parts(series) == parts(wanted);
        self.values.keys().find(same).cloned().unwrap_or_else(|| wanted.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_started_node_says_so() {
    let node = Running::start().await;
    let started = node.call(None, "GET", "/healthz/startup", None).await.is(200);
    assert_eq!(started, json!({"status": "ok"}));
    node.call(None, "HEAD", "/healthz/startup", None).await.is(200);
    let deeper = node.call(None, "POST", "/healthz/startup", None).await;
    deeper.is_problem(405, "method-not-allowed", None);
    node.stop().await;
}
