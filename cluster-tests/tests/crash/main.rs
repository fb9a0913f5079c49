//! kill -9 of the broker, of the service's process and of the client's process, at random moments,
//! while ten thousand events are raised, acknowledged and handled.
//!
//! The service is `ackord raise --store` (SPL-2), the client `ackord subscribe --state` (CPL-2):
//! what a user runs. Each event has content of its own; what a killed service had not been
//! acknowledged is never fed again, so that whatever arrives twice was stored twice.

mod feed;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::cli::{self, Tool};
use cluster_tests::history::{Entry, Handled, Subscriber};
use cluster_tests::node::Node;
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Account, Site, queueing, structure};
use cluster_tests::wait;
use serde_json::Value;

use feed::Feed;

/// Events that must have been acknowledged before the end.
const EVENTS: u64 = 10_000;
/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(240);

struct World {
    site: Site,
    feed: Arc<Feed>,
    service: Account,
    client: Account,
    store: PathBuf,
    state: PathBuf,
}

impl World {
    async fn new(node: &Node, name: &str, dir: &Path) -> Self {
        let site = Site::new(node, name, &structure(&[queueing("reading", 50_000)])).await;
        let (service, client) = (site.service("boiler").await, site.guest("reader").await);
        let feed = Feed::new(site.history.clone(), EVENTS);
        let (store, state) = (dir.join("store"), dir.join("state"));
        Self { site, feed, service, client, store, state }
    }

    /// A life of the service's process.
    fn raise(&self) -> Tool {
        let store = Some(&*self.store);
        let command = cli::raise(&self.site, &self.site.url, &self.service, "reading", store);
        let (lines, on_line) = self.feed.life();
        Tool::start(command, Some(lines), on_line).expect("the service starts")
    }

    /// A life of the client's process.
    fn subscribe(&self, life: u32) -> Tool {
        let (url, state) = (&self.site.url, Some(&*self.state));
        let command = cli::subscribe(&self.site, url, &self.client, &["reading"], state);
        let by = Subscriber { name: self.client.id.clone(), life };
        let (history, feed) = (self.site.history.clone(), self.feed.clone());
        let on_line = move |line: &Value| {
            let handled = handled(line);
            let (event, instance_id) = (handled.event.clone(), handled.instance_id);
            history.record(Entry::HandlerStarted { by: by.clone(), handled });
            let by = by.clone();
            history.record(Entry::HandlerEnded { by, event, instance_id, success: true });
            feed.handled(instance_id);
        };
        Tool::start(command, None, Box::new(on_line)).expect("the client starts")
    }
}

fn handled(line: &Value) -> Handled {
    let number = |field: &str| line[field].as_u64().unwrap_or_else(|| panic!("{field} in {line}"));
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    Handled {
        event: text("event"),
        instance_id: number("instance_id"),
        incarnation: 0,
        generation: 0,
        service: text("service"),
        age: number("age"),
        attempt: u32::try_from(number("attempt")).expect("a count"),
        args: Some(line["args"].to_string()),
    }
}

/// Kills the service whenever another random number of events is acknowledged, until enough are;
/// then lets it finish. Gives the number of kills.
async fn service(world: &World, mut seed: Seed) -> u32 {
    let mut kills = 0;
    loop {
        let mut tool = world.raise();
        let at = world.feed.acknowledged() + seed.between(300, 1500);
        wait::until_for(PATIENCE, "the service's next moment", async || {
            let there = world.feed.acknowledged() >= at.min(EVENTS) || tool.has_ended();
            there.then_some(())
        })
        .await;
        if world.feed.acknowledged() >= EVENTS {
            let code = wait::within("the service to finish", tool.ended()).await;
            assert_eq!(code, Some(0), "{}", tool.errors());
            return kills;
        }
        assert!(!tool.has_ended(), "the service gave up: {}", tool.errors());
        world.feed.end_of_life();
        tool.kill();
        kills += 1;
    }
}

/// Kills the client whenever it has handled another random number of events. Ends when it has
/// handled what is retained and nothing is raised any more.
async fn client(world: &World, mut seed: Seed) -> u32 {
    let mut kills = 0;
    loop {
        let mut tool = world.subscribe(kills);
        let at = world.feed.handled_so_far() + seed.between(200, 1200);
        wait::until_for(PATIENCE, "the client's next moment", async || {
            let there = world.feed.handled_so_far() >= at || world.feed.is_complete();
            (there || tool.has_ended()).then_some(())
        })
        .await;
        assert!(!tool.has_ended(), "the client gave up: {}", tool.errors());
        tool.kill();
        let by = Subscriber { name: world.client.id.clone(), life: kills };
        world.site.history.record(Entry::Killed { by });
        if world.feed.is_complete() {
            return kills;
        }
        kills += 1;
    }
}

/// Kills the broker whenever a random number of events is handled, until most are.
async fn broker(world: &World, node: &mut Node, mut seed: Seed) -> u32 {
    let mut kills = 0;
    loop {
        let at = world.feed.handled_so_far() + seed.between(500, 2000);
        if at > EVENTS * 9 / 10 {
            return kills;
        }
        wait::until_for(PATIENCE, "the broker's next moment", async || {
            (world.feed.handled_so_far() >= at).then_some(())
        })
        .await;
        node.crash().await.expect("the broker comes back");
        kills += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_is_handled_once_and_in_order_whoever_is_killed() {
    let mut seed = Seed::of_test("crash", "everything_acknowledged");
    let mut node = Node::start(&["queue_size_max=50000"]).await.expect("the broker starts");
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(&node, "crash", dir.path()).await;

    let (of_service, of_client, of_broker) = (seed.fork(), seed.fork(), seed.fork());
    let raising = async {
        let (of_service, of_broker) =
            tokio::join!(service(&world, of_service), broker(&world, &mut node, of_broker));
        let retained = world.site.retained("reading").await;
        world.feed.complete_with(retained.iter().copied().collect());
        (of_service, of_broker, retained)
    };
    let ((services, brokers, retained), clients) = tokio::join!(raising, client(&world, of_client));
    println!("killed: broker {brokers}, service {services}, client {clients} times");
    assert!(brokers >= 4 && services >= 6 && clients >= 8, "the faults did not happen");

    let complete = vec![("reading".to_owned(), "reader".to_owned())];
    let names = || BTreeSet::from(["reading".to_owned()]);
    let ordered_services = BTreeSet::from(["boiler".to_owned()]);
    let expectations = Expectations {
        complete,
        ordered_services,
        unique_events: names(),
        ..Expectations::default()
    };
    oracle::require(&world.site.history, &expectations);

    // Nothing was evicted, so what is retained is all there ever was: all of it was handled, and
    // in the order in which it was fed, over all lives.
    let mut all = world.site.history.handled("reader");
    all.dedup_by_key(|handled| handled.instance_id);
    let ids: Vec<u64> = all.iter().map(|handled| handled.instance_id).collect();
    assert_eq!(ids, retained);
    let order: Vec<u64> = all.iter().filter_map(feed::number).collect();
    assert!(order.len() == ids.len() && order.is_sorted(), "handled in another order than raised");
}
