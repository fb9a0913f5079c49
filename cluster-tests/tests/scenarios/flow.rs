//! D28: many clients, many events, and links that break all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_tests::oracle::{self, Expectations};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;

use crate::broker;

const CLIENTS: u64 = 100;
const EVENTS: u32 = 1000;
const LINKS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d28_a_hundred_clients_get_a_thousand_events_each_over_breaking_links() {
    let mut seed = Seed::of_test("scenarios", "d28");
    let site = Site::new(broker().await, "d28", &structure(&[queueing("reading", EVENTS)])).await;
    let raiser = site.raises("boiler").await;
    let mut links = Vec::new();
    for _ in 0..LINKS {
        links.push(site.proxy().await);
    }
    let handled = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Handle::current();
    let mut listeners = Vec::new();
    for n in 0..CLIENTS {
        let account = site.guest(&format!("client-{n}")).await;
        let counter = handled.clone();
        let listener = site.listener(&account).via(&links[(n % LINKS) as usize].url());
        let listener = listener.handles(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        });
        listeners.push(listener.to("reading").start_on(&runtime).await);
    }
    let raised = tokio::spawn(async move { raiser.raise_many("reading", EVENTS).await });

    let total = CLIENTS * u64::from(EVENTS);
    let mut next_break = 0;
    let patience = Duration::from_secs(120);
    wait::until_for(patience, "every client to handle every event", async || {
        let so_far = handled.load(Ordering::Relaxed);
        if so_far >= next_break {
            links[seed.between(0, LINKS) as usize].reset();
            next_break = so_far + seed.between(total / 60, total / 30);
        }
        (so_far >= total).then_some(())
    })
    .await;
    let ids = raised.await.expect("raising does not panic");
    for listener in &listeners {
        let got: Vec<u64> = listener.handled().iter().map(|handled| handled.instance_id).collect();
        assert_eq!(got, ids, "{}", listener.name());
    }
    assert!(links.iter().map(|link| link.accepted() as u64).sum::<u64>() > CLIENTS, "links broke");
    let complete = listeners.iter().map(|listener| ("reading".into(), listener.name().into()));
    let complete = complete.collect();
    oracle::require(&site.history, &Expectations { complete, ..Expectations::default() });
}
