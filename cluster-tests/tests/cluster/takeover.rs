//! Two clients with the same id on two nodes: the newest one wins, and the other one is told so.

use std::time::{Duration, Instant};

use ackord_endpoint::{ClientNotice, Event};
use cluster_tests::cluster::Cluster;
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::raiser::json;
use cluster_tests::site::{Site, queueing, structure};
use serde_json::json as value;

use cluster_tests::load::EVENT;

/// How long the older of two may go on.
const TAKEOVER: Duration = Duration::from_secs(1);
/// Clients that follow each other.
const LIVES: usize = 4;
/// Events per life.
const EVENTS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_of_two_clients_with_one_id_wins_and_one_stream_goes_on() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let structure = structure(&[queueing(EVENT, 50_000)]);
    let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &structure).await;
    let raiser = site.raises("service").await;
    let account = site.guest("reader").await;
    let mut before = None;
    for life in 0..LIVES {
        let node = 1 + life % cluster.size();
        let since = Instant::now();
        let listener = site.listener(&account).via_all(cluster.urls_from(node)).to(EVENT);
        let listener = listener.subscribed(1).await;
        if let Some(older) = before.replace(listener) {
            let told = |notice: &ClientNotice| matches!(notice, ClientNotice::Terminal { .. });
            older.notices.until("the older client to be told", told).await;
            let told = since.elapsed();
            println!("the older client was told after {told:?}");
            assert!(told <= TAKEOVER * 10, "the older client was told after {told:?}");
            // From here on only the newer one is served: what the older one may have been handed
            // and not acknowledged comes once more, as after a kill.
            older.kill().await;
        }
        for n in 0..EVENTS {
            let event = Event::new(EVENT, Some(json(value!({ "life": life, "n": n }))));
            raiser.send(event).await.expect("the event is accepted");
        }
        let retained = site.retained(EVENT).await;
        let last = retained.last().copied().expect("there are events");
        site.until_cursor("reader", EVENT, last).await;
    }
    let complete = vec![(EVENT.to_owned(), "reader".to_owned())];
    oracle::require(&site.history, &Expectations { complete, ..Expectations::default() });
    cluster.until_equal("one").await;
    cluster.until_replicas_agree().await;
}
