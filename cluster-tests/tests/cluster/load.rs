//! Publishers and subscribers on all nodes of a cluster, and what must be true of them at the end.
//!
//! Three sites, each with a service and two clients, every one on another node to begin with:
//!
//! | site | service | clients |
//! |---|---|---|
//! | `memory` | SDK, SPL-1 | SDK with an account, CPL-1; SDK, stateless |
//! | `file` | SDK, SPL-2 | SDK, CPL-2; SDK, CPL-1 |
//! | `tools` | `ackord raise --store` | `ackord subscribe --state`; SDK, stateless |
//!
//! Invariants: no process of theirs is ever killed, so every event is acknowledged once, under one
//! id, and handled once by each client; a service keeps a bounded number of events in flight and
//! ahead of its clients.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use ackord_endpoint::Event;
use cluster_tests::cluster::Cluster;
use cluster_tests::history::{Handled, Subscriber};
use cluster_tests::listener::{Listener, ListenerBuilder};
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::raiser::{Raiser, json};
use cluster_tests::site::{Account, Site, queueing, structure};
use cluster_tests::wait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json as value};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::tools::{Reader, Writer};

/// The event of every site.
pub const EVENT: &str = "reading";
/// Between two events of a service.
const PACE: Duration = Duration::from_millis(15);
/// Events that a service has in flight.
const IN_FLIGHT: u64 = 16;
/// Events that a service is ahead of its slowest client.
const AHEAD: u64 = 100;
/// Bytes of text in an event.
const TEXT: usize = 1200;
/// How long an outcome or a delivery may take, whatever happens to the cluster.
pub const OUTCOME: Duration = Duration::from_secs(90);

/// How far one service and its clients have got.
#[derive(Default)]
pub struct Progress {
    raised: AtomicU64,
    acknowledged: AtomicU64,
    handled: [AtomicU64; 2],
    longest_ms: AtomicU64,
    stopping: AtomicBool,
}

impl Progress {
    /// Whether the next event may be raised.
    pub fn has_room(&self) -> bool {
        let raised = self.raised.load(Ordering::SeqCst);
        let slowest = self.handled.iter().map(|handled| handled.load(Ordering::SeqCst)).min();
        raised - self.acknowledged() < IN_FLIGHT
            && raised - slowest.unwrap_or(0).min(raised) < AHEAD
    }

    /// What the next event says: something of its own, long enough for the log to grow.
    pub fn next(&self) -> Value {
        let n = self.raised.fetch_add(1, Ordering::SeqCst) + 1;
        value!({ "n": n, "text": "x".repeat(TEXT) })
    }

    /// An event was acknowledged so long after it was raised.
    pub fn acknowledge(&self, after: Duration) {
        self.longest_ms.fetch_max(after.as_millis() as u64, Ordering::SeqCst);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// A client was handed an instance.
    pub fn handle(&self, client: usize) {
        self.handled[client].fetch_add(1, Ordering::SeqCst);
    }

    /// How many events are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Whether nothing more is to be raised.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// How long the service of each site waited at most.
pub struct Waits(Vec<(String, Duration)>);

impl Waits {
    /// The longest of all.
    pub fn longest(&self) -> Duration {
        self.0.iter().map(|(_, waited)| *waited).max().unwrap_or_default()
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waits = self.0.iter().map(|(site, waited)| format!("{site} {} ms", waited.as_millis()));
        f.write_str(&waits.collect::<Vec<_>>().join(", "))
    }
}

/// One site with its service and its clients.
struct Scene {
    site: Site,
    service: Account,
    /// Ids of the clients with an account.
    accounts: Vec<String>,
    /// Names of all clients.
    clients: Vec<String>,
    progress: Arc<Progress>,
    publishing: JoinHandle<()>,
    listeners: Vec<Listener>,
    reader: Option<Reader>,
}

/// See the module.
pub struct Load {
    scenes: Vec<Scene>,
    _dir: tempfile::TempDir,
}

impl Load {
    /// Makes the sites, and starts all services and clients.
    pub async fn start(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let scenes = vec![
            memory(cluster, dir.path()).await,
            file(cluster, dir.path()).await,
            tools(cluster, dir.path()).await,
        ];
        let load = Self { scenes, _dir: dir };
        load.flows(10).await;
        load
    }

    /// Waits until every service got so many more acknowledgements and every client handled as many
    /// more instances.
    pub async fn flows(&self, more: u64) {
        let marks: Vec<_> = self.scenes.iter().map(|scene| mark(&scene.progress, more)).collect();
        for (scene, (acknowledged, handled)) in self.scenes.iter().zip(marks) {
            let progress = &scene.progress;
            let what = format!("the service of {} to go on", scene.site.name);
            wait::until_for(OUTCOME, &what, async || {
                (progress.acknowledged() >= acknowledged).then_some(())
            })
            .await;
            for (index, handled) in handled.into_iter().enumerate() {
                let what = format!("{} of {} to go on", scene.clients[index], scene.site.name);
                wait::until_for(OUTCOME, &what, async || {
                    (progress.handled[index].load(Ordering::SeqCst) >= handled).then_some(())
                })
                .await;
            }
        }
    }

    /// The name of one of the sites.
    pub fn site(&self) -> &str {
        &self.scenes[0].site.name
    }

    /// Waits until proposals to all sites are carried out through this node.
    pub async fn served_by(&self, cluster: &Cluster, node: usize) {
        let admin = cluster.admin(node);
        for scene in &self.scenes {
            let site = &scene.site.name;
            let what = format!("{site} to be served by node {node}");
            wait::until_for(OUTCOME, &what, async || admin.put_user(site, "probe", &[]).await.ok())
                .await;
        }
    }

    /// The longest that an event of each service waited for its acknowledgement since this was asked
    /// last. The tool's first attempt to connect again comes after half a second or more.
    pub fn longest_waits(&self) -> Waits {
        let longest = self.scenes.iter().map(|scene| {
            let longest = scene.progress.longest_ms.swap(0, Ordering::SeqCst);
            (scene.site.name.clone(), Duration::from_millis(longest))
        });
        Waits(longest.collect())
    }

    /// Says how long an event waited at most since this was asked last, and fails when that is ten
    /// times what is wanted: machines are busy, figures are measured elsewhere.
    pub fn check_waits(&self, what: &str, wanted: Duration) {
        let waits = self.longest_waits();
        println!("longest wait {what}: {waits}");
        assert!(waits.longest() <= wanted * 10, "{what}: {waits}");
    }

    /// Stops the services, lets the clients finish and judges everything that happened. All nodes
    /// must run.
    pub async fn finish(self, cluster: &mut Cluster) {
        cluster.mesh().heal();
        cluster.ready().await;
        for scene in &self.scenes {
            scene.progress.stopping.store(true, Ordering::SeqCst);
        }
        for scene in self.scenes {
            scene.finish(cluster).await;
        }
        cluster.until_replicas_agree().await;
    }
}

fn mark(progress: &Progress, more: u64) -> (u64, Vec<u64>) {
    let handled = progress.handled.iter().map(|handled| handled.load(Ordering::SeqCst) + more);
    (progress.acknowledged() + more, handled.collect())
}

async fn scene(cluster: &Cluster, name: &str, node: usize) -> (Site, Account, Arc<Progress>) {
    let (admin, urls) = (cluster.admin(node), cluster.urls_from(node));
    let structure = structure(&[queueing(EVENT, 50_000)]);
    let site = Site::new_at(admin, urls, name, &structure).await;
    let service = site.service(&format!("service-of-{name}")).await;
    (site, service, Arc::default())
}

/// Counts what a client handles, and puts it on a node.
fn placed(
    builder: ListenerBuilder,
    cluster: &Cluster,
    node: usize,
    progress: &Arc<Progress>,
    index: usize,
) -> ListenerBuilder {
    let progress = progress.clone();
    builder
        .via_all(cluster.urls_from(node))
        .with(|endpoint| endpoint.keepalive(Duration::from_secs(10)))
        .handles(move |_: Handled| {
            progress.handle(index);
            async { Ok(()) }
        })
        .to(EVENT)
}

async fn memory(cluster: &Cluster, _: &Path) -> Scene {
    let (site, service, progress) = scene(cluster, "memory", 1).await;
    let account = site.guest("reader").await;
    let first = placed(site.listener(&account), cluster, 2, &progress, 0).subscribed(1).await;
    let second = placed(site.stateless("guest"), cluster, 3, &progress, 1).subscribed(1).await;
    let raiser = site.raiser(&service);
    let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
    let raiser = raiser.via_all(cluster.urls_from(1)).start().await;
    Scene {
        publishing: tokio::spawn(publish(raiser, progress.clone())),
        clients: vec!["reader".to_owned(), "guest".to_owned()],
        accounts: vec!["reader".to_owned()],
        listeners: vec![first, second],
        reader: None,
        site,
        service,
        progress,
    }
}

async fn file(cluster: &Cluster, dir: &Path) -> Scene {
    let (site, service, progress) = scene(cluster, "file", 2).await;
    let (kept, plain) = (site.guest("kept").await, site.guest("plain").await);
    let first = site.listener(&kept).state(&dir.join("file.state"));
    let first = placed(first, cluster, 3, &progress, 0).subscribed(1).await;
    let second = placed(site.listener(&plain), cluster, 1, &progress, 1).subscribed(1).await;
    let raiser = site.raiser(&service).store(&dir.join("file.store"));
    let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
    let raiser = raiser.via_all(cluster.urls_from(2)).start().await;
    Scene {
        publishing: tokio::spawn(publish(raiser, progress.clone())),
        clients: vec!["kept".to_owned(), "plain".to_owned()],
        accounts: vec!["kept".to_owned(), "plain".to_owned()],
        listeners: vec![first, second],
        reader: None,
        site,
        service,
        progress,
    }
}

async fn tools(cluster: &Cluster, dir: &Path) -> Scene {
    let (site, service, progress) = scene(cluster, "tools", 3).await;
    let account = site.guest("reader").await;
    let by = Subscriber { name: account.id.clone(), life: 0 };
    let urls = cluster.urls_from(1);
    let reader = Reader::start(&site, &urls, &account, by, &dir.join("tools.state"), &progress);
    let second = placed(site.stateless("guest"), cluster, 2, &progress, 1).subscribed(1).await;
    let urls = cluster.urls_from(3);
    let writer = Writer::start(&site, &urls, &service, &dir.join("tools.store"), &progress);
    Scene {
        // Its waits are not for threads to share.
        publishing: tokio::task::spawn_blocking(move || {
            Handle::current().block_on(writer.publish(PACE));
        }),
        clients: vec!["reader".to_owned(), "guest".to_owned()],
        accounts: vec!["reader".to_owned()],
        listeners: vec![second],
        reader: Some(reader),
        site,
        service,
        progress,
    }
}

/// Raises events until it is told to stop and all are acknowledged.
async fn publish(raiser: Raiser, progress: Arc<Progress>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut flying = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(outcome) = flying.next() => {
                let outcome: Result<_, ackord_endpoint::RaiseError> = outcome;
                outcome.expect("an event is never refused");
            }
            _ = pace.tick() => {
                if progress.is_stopping() && flying.is_empty() {
                    break;
                }
                if progress.is_stopping() || !progress.has_room() {
                    continue;
                }
                let event = Event::new(EVENT, Some(json(progress.next())));
                let since = Instant::now();
                let (raiser, progress) = (&raiser, &progress);
                let mut raising = Box::pin(async move {
                    let outcome = raiser.outcome(event).await?;
                    progress.acknowledge(since.elapsed());
                    Ok(outcome)
                });
                // The first poll hands it over: calls are in order.
                match futures_util::poll!(&mut raising) {
                    Poll::Pending => flying.push(raising),
                    Poll::Ready(outcome) => drop(outcome.expect("an event is never refused")),
                }
            }
        }
    }
    drop(flying);
    assert_eq!(raiser.close().await, 0, "everything is acknowledged");
}

impl Scene {
    async fn finish(self, cluster: &Cluster) {
        let Self { mut site, service, accounts, clients, progress, publishing, listeners, reader } =
            self;
        // The node that it was asked of until now may be gone for good.
        site.admin = cluster.admin(cluster.running()[0]);
        let name = &site.name;
        let published = tokio::time::timeout(OUTCOME, publishing).await;
        published.unwrap_or_else(|_| panic!("{name}: an outcome is missing")).expect("no panic");
        let retained = site.retained(EVENT).await;
        assert_eq!(retained.len() as u64, progress.acknowledged(), "{name}: stored otherwise");
        for client in &clients {
            let what = format!("{client} of {name} to handle {} instances", retained.len());
            wait::until_for(OUTCOME, &what, async || {
                (site.history.count_handled(client) >= retained.len()).then_some(())
            })
            .await;
        }
        let last = retained.last().copied().unwrap_or(0);
        for client in &accounts {
            site.until_cursor(client, EVENT, last).await;
        }
        for listener in listeners {
            listener.close().await;
        }
        if let Some(reader) = reader {
            reader.end().await;
        }
        let names = || BTreeSet::from([EVENT.to_owned()]);
        let expectations = Expectations {
            complete: clients.iter().map(|client| (EVENT.to_owned(), client.clone())).collect(),
            ordered_services: BTreeSet::from([service.id.clone()]),
            unique_events: names(),
            ..Expectations::default()
        };
        oracle::require(&site.history, &expectations);
        for client in &clients {
            let ids: Vec<u64> =
                site.history.handled(client).iter().map(|handled| handled.instance_id).collect();
            assert_eq!(ids, retained, "{client} of {name} handled otherwise than stored");
        }
        cluster.until_equal(name).await;
        println!("{name}: {} events, each handled by {clients:?}", retained.len());
    }
}
