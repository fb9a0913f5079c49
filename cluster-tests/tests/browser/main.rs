//! A page in a real browser: plain HTML and JavaScript (`page.html`), shown by a headless Chromium, that follows a site of
//! three nodes while each of them is killed and restarted.
//!
//! The page comes from a server of its own, so that it is of another origin than the nodes, and it goes on by what a
//! browser can do: `EventSource`, `WebSocket`, `fetch`. It needs Chromium; without one the test fails and says so.

mod backend;
mod chromium;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::{Backend, Followed, Follower, Place};
use chromium::Chromium;
use cluster_tests::cluster::Cluster;
use cluster_tests::mesh::OUTSIDE;
use cluster_tests::raiser::Raiser;
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const EVENT: &str = "reading";
const GUESTS: [&str; 2] = ["guest-stream", "guest-socket"];
const ACCOUNTS: [&str; 2] = ["account-stream", "account-socket"];
/// Between two events, at least.
const PACE: Duration = Duration::from_millis(20);
/// Events that the slowest follower may be behind: raising goes on all the time, and a slow machine has no mountain of
/// events to work off in the end.
const BEHIND_MAX: usize = 25;
/// A browser starts, or all followers find a node: ten times what that takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a fault lasts before the node comes back.
const FAULT: Duration = Duration::from_millis(500);

/// Raises events one after the other until it is told to stop, no faster than they are seen.
struct Raising {
    task: JoinHandle<Vec<u64>>,
    /// The id of the newest event.
    newest: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
}

impl Raising {
    fn start(raiser: Raiser, backend: Arc<Backend>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (tell, newest) = watch::channel(0);
        let task = tokio::spawn(async move {
            let (mut ids, mut pace) = (Vec::new(), tokio::time::interval(PACE));
            while !*stopped.borrow() {
                pace.tick().await;
                if ids.len() >= seen_by_all(&backend) + BEHIND_MAX {
                    continue;
                }
                let id = raiser.raise(EVENT, ids.len()).await;
                ids.push(id);
                tell.send_replace(id);
            }
            ids
        });
        Self { task, newest, stop }
    }

    /// The id of an event that is raised after now.
    async fn next(&self) -> u64 {
        let mut newest = self.newest.clone();
        newest.mark_unchanged();
        // The one that is on its way, and the one behind it.
        for _ in 0..2 {
            let changed = wait::within("another event", newest.changed()).await;
            changed.expect("the raising goes on");
        }
        *newest.borrow()
    }

    /// The ids of all events.
    async fn stop(self) -> Vec<u64> {
        self.stop.send_replace(true);
        wait::within("the last event", self.task).await.expect("everything is raised")
    }
}

/// How many events the slowest follower has seen.
fn seen_by_all(backend: &Backend) -> usize {
    let followers = backend.followers();
    let count = |name: &&str| followers.get(*name).map_or(0, |follower| follower.seen.len());
    GUESTS.iter().chain(&ACCOUNTS).map(count).min().unwrap_or(0)
}

/// Waits until every follower has seen this event.
async fn until_seen(backend: &Backend, id: u64) {
    let what = format!("everybody on the page to see {id}");
    let deadline = Instant::now() + PATIENCE;
    let mut looks = tokio::time::interval(wait::POLL);
    loop {
        let followers = backend.followers();
        let has_seen =
            |name: &&str| followers.get(*name).is_some_and(|follower| follower.seen.contains(&id));
        if GUESTS.iter().chain(&ACCOUNTS).all(has_seen) {
            return;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}: {}", brief(&followers));
        looks.tick().await;
    }
}

/// What there is to say of followers without all that they saw.
fn brief(followers: &BTreeMap<String, Follower>) -> Value {
    let brief = |(name, follower): (&String, &Follower)| {
        let Follower { seen, opened, again, notes } = follower;
        let (count, last) = (seen.len(), seen.last());
        let brief =
            json!({"saw": count, "last": last, "opened": opened, "again": again, "notes": notes});
        (name.clone(), brief)
    };
    Value::Object(followers.iter().map(brief).collect())
}

/// The nodes, the one that leads the site's partition first.
async fn leader_first(cluster: &Cluster, site: &Site) -> Vec<usize> {
    let path = format!("/v1/sites/{}", site.name);
    let shown = cluster.admin(1).call(reqwest::Method::GET, &path, None).await.expect("the site");
    let group = shown["partition"].as_u64().expect("a number") as usize;
    let leader = wait::until("a leader", async || cluster.leader(group, 1).await).await;
    let others = cluster.nodes().filter(|node| *node != leader);
    std::iter::once(leader).chain(others).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_sees_everything_once_whichever_node_is_killed_or_restarted() {
    let place = Place::new().await.expect("a socket");
    let origin = place.origin().expect("an origin");
    let mut cluster = Cluster::prepare(3).expect("a cluster");
    cluster.allow_pages_of(&origin);
    cluster.start_all().await.expect("the cluster starts");
    let structure = structure(&[queueing(EVENT, 50_000)]);
    let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &structure).await;
    let mut tokens = BTreeMap::new();
    for account in ACCOUNTS {
        tokens.insert(account.to_owned(), site.guest(account).await.token);
    }
    let service = site.service("service").await;
    let order = leader_first(&cluster, &site).await;
    let (nodes, name, event) = (cluster.urls_from(order[0]), site.name.clone(), EVENT.to_owned());
    let followed = Followed { nodes, site: name, event, tokens };
    let backend = Arc::new(place.serve(followed).expect("a server"));
    let raising = Raising::start(site.raiser(&service).start().await, backend.clone());

    let browser = Chromium::open(&origin).expect("a browser");
    until_seen(&backend, raising.next().await).await;
    let refused =
        json!({"stream": "refused", "socket": "refused", "poll": "refused", "ack": "refused"});
    assert_eq!(backend.stranger().await, refused, "a page of an origin that is not allowed");
    // Links break, and the nodes are still there.
    for node in cluster.nodes() {
        cluster.mesh().reset(OUTSIDE, node);
    }
    until_seen(&backend, raising.next().await).await;
    for restart in [false, true] {
        // Wherever a follower is by now: its node goes down once.
        for &victim in &order {
            if restart {
                assert_eq!(cluster.stop(victim).await.expect("it ends"), Some(0));
            } else {
                cluster.kill(victim);
            }
            cluster.lasts(FAULT).await;
            cluster.start_node(victim).await.expect("the node starts again");
            cluster.ready().await;
            until_seen(&backend, raising.next().await).await;
        }
    }
    let raised = raising.stop().await;
    until_seen(&backend, raised[raised.len() - 1]).await;

    let followers = backend.followers();
    println!("{} events: {}", raised.len(), brief(&followers));
    for name in GUESTS.iter().chain(&ACCOUNTS) {
        let Follower { seen, opened, again: _, notes } = &followers[*name];
        let parts = seen.iter().zip(&raised).position(|(seen, raised)| seen != raised);
        let from = parts.unwrap_or(seen.len().min(raised.len())).saturating_sub(3);
        let around: Vec<&u64> = seen.iter().skip(from).take(10).collect();
        assert!(seen == &raised, "the {name} saw {around:?}: repeated, left out or out of order");
        assert!(*opened > 3, "the {name} had not to come again after each kind of fault");
        assert!(notes.is_empty(), "the {name}: {notes:?}");
    }
    assert!(followers[GUESTS[0]].again > 0, "the browser never came again by itself");
    drop(browser);
    cluster.until_replicas_agree().await;
}
