//! A node that is asked to stop while push deliveries are under way: what is answered in the time
//! that a stop leaves for it counts, and a receiver that never answers does not hold the stop up.

use cluster_tests::listener::Gate;
use cluster_tests::node::Node;
use cluster_tests::process::Signal;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::receiver::{Arrived, Manner, Receiver};
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;
use reqwest::Method;
use serde_json::{Value, json};

/// How long what is under way may take when the node stops. The receiver that answers takes a
/// hundredth of it; the one that does not would take a minute.
const DRAIN: &str = "push.drain_ms=5000";
const EVENT: &str = "reading";
/// Events; one less than the window of `twoway` and those that wait.
const RAISED: u32 = 8;
const WINDOW: usize = 5;

/// Registers a push subscription with a receiver of its own.
async fn push(site: &Site, id: &str, manner: Manner, settings: Value) -> Receiver {
    let receiver = Receiver::start(manner).await;
    let mut body = json!({ "client": "pushed", "event": EVENT, "url": receiver.url() });
    let settings = settings.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(settings);
    let path = format!("/v1/sites/{}/pushes/{id}", site.name);
    site.admin.call(Method::PUT, &path, Some(body)).await.expect("it is registered");
    receiver
}

/// Waits until so many requests have arrived.
async fn until_arrived(receiver: &Receiver, count: usize) -> Vec<Arrived> {
    let what = format!("{count} requests to arrive");
    wait::until(&what, async || (receiver.count() >= count).then(|| receiver.arrived())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m2_a_stop_counts_the_answers_to_what_is_under_way_and_waits_for_no_others() {
    let node = Node::start_with(&[], &["push.hosts=127.0.0.1", DRAIN]).await;
    let mut node = node.expect("the broker starts");
    let site = Site::new(&node, "stopping", &structure(&[queueing(EVENT, 100)])).await;
    site.guest("pushed").await;
    let gate = Gate::closed();
    let waits = || Manner::Waits(gate.clone());
    let ordered = push(&site, "ordered", waits(), json!({})).await;
    let window = json!({ "mode": "twoway", "window": WINDOW });
    let twoway = push(&site, "twoway", waits(), window).await;
    let stalled = push(&site, "stalled", Manner::Stalls, json!({ "retry_count": -1 })).await;
    let watcher = site.guest("watcher").await;
    let watching = vec![raw::to(EVENT)];
    let watching = RawClient::subscribed(node.url(), &site.name, Some(&watcher.token), watching);
    let (mut watching, _) = watching.await.expect("it is subscribed");
    let raiser = site.raises("boiler").await;
    let ids = raiser.raise_many(EVENT, RAISED).await;
    until_arrived(&ordered, 1).await;
    until_arrived(&twoway, WINDOW).await;
    until_arrived(&stalled, 1).await;

    // It is asked to stop, and says so before what is under way is answered.
    node.signal(Signal::Terminate).expect("it runs");
    while watching.next().await.expect("a message or the end").is_ok() {}
    gate.open();
    assert_eq!(node.ended().await.expect("it ran"), Some(0), "it stops within its limit");
    assert_eq!((ordered.count(), twoway.count()), (1, WINDOW), "a stop sends nothing more");

    // What was answered does not come again; what was not does, under its key.
    node.restart().await.expect("it starts again");
    let all = RAISED as usize;
    for (receiver, name) in [(&ordered, "ordered"), (&twoway, "twoway")] {
        let mut arrived: Vec<u64> = until_arrived(receiver, all)
            .await
            .into_iter()
            .flat_map(|arrived| arrived.ids)
            .collect();
        if name == "twoway" {
            arrived.sort_unstable();
        }
        assert_eq!(arrived, ids, "{name}: each once");
        let path = format!("/v1/sites/stopping/pushes/{name}");
        wait::until_true("every answer to be counted once", async || {
            let shown = site.admin.call(Method::GET, &path, None).await;
            shown.is_ok_and(|shown| shown["delivered"] == RAISED && shown["failures"] == 0)
        })
        .await;
        assert_eq!(receiver.count(), all, "{name}: nothing came again");
    }
    let path = "/v1/sites/stopping/pushes/stalled";
    let again = wait::until("what stalled to come again", async || {
        let shown = site.admin.call(Method::GET, path, None).await.ok()?;
        // A stop is no failure of the receiver.
        assert_eq!(shown["failures"], 0, "{shown}");
        (stalled.count() >= 2).then(|| stalled.arrived())
    })
    .await;
    assert_eq!(again[0], again[1]);
}
