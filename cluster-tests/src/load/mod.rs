//! Publishers and subscribers on all nodes of a cluster, and what must be true of them at the end.
//!
//! Each workload is a site with one service and two clients, every one on another node to begin with:
//!
//! | site | service | clients |
//! |---|---|---|
//! | `memory` | SDK, SPL-1 | SDK with an account, CPL-1; SDK, stateless |
//! | `file` | SDK, SPL-2 | SDK, CPL-2; SDK, CPL-1 |
//! | `tools` | `ackord raise --store` | `ackord subscribe --state`; SDK, stateless |
//! | `crashing` | SDK, SPL-2, killed again and again | SDK, CPL-1 and CPL-2, killed again and again |
//! | `plain` | HTTP under keys, each try at another node | HTTP polling; an HTTP callback |
//! | `newest` | SDK, a Replacing event | two clients that want the newest |
//! | `authority` | SDK, Private events and one for a role | one whose role comes and goes; one that never has it |
//! | `returning` | SDK, of queues that turn over | SDK, CPL-2; SDK, stateless: both away for most of the time |
//!
//! Beside them [`hostile`] attacks, [`lookout`] looks at cursors, [`survey`] measures queues, [`administration`] makes,
//! changes and removes things, and [`twins`] connect while they are connected; [`replay`] ends it. Invariants: a service keeps a bounded number of events in flight and
//! ahead of its clients; what a workload finds wrong at its end it says as violations, and what does
//! not come about at all in time is a panic.

pub mod administration;
pub mod authority;
pub mod crashing;
pub mod hostile;
pub mod lookout;
pub mod newest;
pub mod plain;
pub mod progress;
pub mod replay;
pub mod returning;
pub mod steady;
pub mod survey;
pub mod tools;
pub mod twins;

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ackord_endpoint::Event;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use self::administration::Administration;
use self::authority::Authority;
use self::crashing::Crashing;
use self::hostile::Hostile;
use self::lookout::Lookout;
use self::newest::Newest;
use self::plain::Plain;
use self::progress::{Progress, Waits};
use self::returning::Returning;
use self::survey::Survey;
use self::twins::Twins;
use crate::cluster::{Cluster, PARTITIONS};
use crate::history::{Handled, History};
use crate::oracle::{self, Expectations, Violation};
use crate::raiser::{Raiser, json};
use crate::seed::Seed;
use crate::site::Site;
use crate::wait;

/// The event of every site.
pub const EVENT: &str = "reading";
/// Between two events of a service.
const PACE: Duration = Duration::from_millis(15);
/// How long an outcome or a delivery may take, whatever happens to the cluster.
pub const OUTCOME: Duration = Duration::from_secs(90);

/// Events of each service that may come until a log is purged, looked for every so many.
const PURGED_MAX: u64 = 3_000;
const PURGED_STEP: u64 = 20;

/// What a workload came to.
#[derive(Debug, Default)]
pub struct Judged {
    /// Events that were acknowledged to their service.
    pub acknowledged: u64,
    /// Instances that handlers were called with.
    pub handled: u64,
    /// What must not be.
    pub violations: Vec<Violation>,
}

impl Judged {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.handled += other.handled;
        self.violations.extend(other.violations);
    }

    /// How many violations are of these properties.
    pub fn count(&self, properties: &[&str]) -> usize {
        self.violations.iter().filter(|found| properties.contains(&found.property)).count()
    }
}

/// What all workloads have.
pub struct Cast {
    /// The site.
    pub site: Site,
    /// Its clients, as their progress counts them.
    pub clients: Vec<String>,
    /// How far it is.
    pub progress: Arc<Progress>,
}

impl Cast {
    fn new(site: &Site, clients: &[&str], progress: &Arc<Progress>) -> Self {
        let clients = clients.iter().map(|client| (*client).to_owned()).collect();
        Self { site: site.clone(), clients, progress: progress.clone() }
    }

    /// The same, asked of a node that runs: the one that was asked until now may be gone for good.
    fn at_end(mut self, cluster: &Cluster) -> Self {
        self.site.admin = cluster.admin(cluster.running()[0]);
        self
    }
}

/// A site with its service and its clients.
pub trait Workload: Send + Sync {
    /// Where it is and how far.
    fn cast(&self) -> &Cast;

    /// How often endpoints of it were killed so far.
    fn deaths(&self) -> u64 {
        0
    }

    /// Lets the clients finish and judges everything that happened. Nothing more is raised.
    fn finish<'a>(self: Box<Self>, cluster: &'a Cluster) -> LocalBoxFuture<'a, Judged>;
}

/// See the module.
pub struct Load {
    workloads: Vec<Box<dyn Workload>>,
    hostile: Option<Hostile>,
    lookout: Option<Lookout>,
    administration: Option<Administration>,
    survey: Option<Survey>,
    twins: Option<Twins>,
    history: History,
    dir: tempfile::TempDir,
}

impl Load {
    /// Makes the sites of [`steady`], and starts all services and clients.
    pub async fn start(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let workloads: Vec<Box<dyn Workload>> = vec![
            Box::new(steady::memory(cluster, dir.path()).await),
            Box::new(steady::file(cluster, dir.path()).await),
            Box::new(steady::tools(cluster, dir.path()).await),
        ];
        let load = Self {
            workloads,
            hostile: None,
            lookout: None,
            administration: None,
            survey: None,
            twins: None,
            history: History::new(),
            dir,
        };
        load.flows(10).await;
        load
    }

    /// As [`Load::start`], with all sites, somebody who attacks and somebody who looks.
    pub async fn start_all(cluster: &Cluster, seed: &mut Seed) -> Self {
        let mut load = Self::start(cluster).await;
        let dir = load.dir.path().to_owned();
        load.workloads.extend([
            Box::new(Crashing::start(cluster, &dir, seed.fork()).await) as Box<dyn Workload>,
            Box::new(Plain::start(cluster).await),
            Box::new(Newest::start(cluster).await),
            Box::new(Authority::start(cluster, seed.fork()).await),
            Box::new(Returning::start(cluster, &dir, seed.fork()).await),
        ]);
        load.hostile = Some(Hostile::start(cluster, seed));
        load.survey = Some(Survey::start(cluster, &load.history, seed.fork()));
        load.twins = Some(Twins::start(cluster, seed.fork()).await);
        load.administration = Some(Administration::start(cluster, seed.fork()).await);
        load.lookout = Some(Lookout::start(cluster, load.workloads[0].cast(), seed.fork()));
        load.flows(5).await;
        load
    }

    /// Waits until every service got so many more acknowledgements and every client handled as many
    /// more instances.
    pub async fn flows(&self, more: u64) {
        let marks: Vec<_> = self.casts().map(|cast| mark(&cast.progress, more)).collect();
        for (cast, (acknowledged, handled)) in self.casts().zip(marks) {
            let Cast { site: Site { name, .. }, clients, progress } = cast;
            let what = format!("the service of {name} to go on");
            wait::until_for(OUTCOME, &what, async || {
                (progress.acknowledged() >= acknowledged).then_some(())
            })
            .await;
            for (index, handled) in handled.into_iter().enumerate() {
                let what = format!("{} of {name} to go on", clients[index]);
                wait::until_for(OUTCOME, &what, async || {
                    (progress.handled()[index] >= handled).then_some(())
                })
                .await;
            }
        }
    }

    /// Goes on until the nodes that run have purged what one that is down by now lacks of a group's
    /// log: each has written three snapshots of it since, and purged up to the second.
    ///
    /// # Panics
    /// When that takes more than 3,000 events of each service.
    pub async fn flows_past_a_purge(&self, cluster: &Cluster) {
        let written = |node: usize| {
            let log = cluster.log(node);
            (1..=PARTITIONS)
                .map(|group| log.matches(&format!("snapshot written partition={group} ")).count())
                .collect::<Vec<_>>()
        };
        let nodes = cluster.running();
        let before: Vec<_> = nodes.iter().map(|node| written(*node)).collect();
        for _ in 0..PURGED_MAX / PURGED_STEP {
            self.flows(PURGED_STEP).await;
            let now: Vec<_> = nodes.iter().map(|node| written(*node)).collect();
            let purged = |group: usize| {
                before.iter().zip(&now).all(|(then, now)| now[group] >= then[group] + 3)
            };
            if (0..PARTITIONS).any(purged) {
                return;
            }
        }
        panic!("no log was purged while {PURGED_MAX} events came");
    }

    fn casts(&self) -> impl Iterator<Item = &Cast> {
        self.workloads.iter().map(|one| one.cast())
    }

    /// How often endpoints were killed so far.
    pub fn deaths(&self) -> u64 {
        self.workloads.iter().map(|one| one.deaths()).sum()
    }

    /// The name of one of the sites.
    pub fn site(&self) -> &str {
        &self.workloads[0].cast().site.name
    }

    /// Waits until proposals to all sites are carried out through this node.
    pub async fn served_by(&self, cluster: &Cluster, node: usize) {
        let admin = cluster.admin(node);
        for site in self.casts().map(|cast| &cast.site) {
            let what = format!("{} to be served by node {node}", site.name);
            wait::until_for(OUTCOME, &what, async || {
                admin.put_user(&site.name, "probe", &[]).await.ok()
            })
            .await;
        }
    }

    /// The longest that an event of each service waited for its acknowledgement since this was asked
    /// last. The tool's first attempt to connect again comes after half a second or more.
    pub fn longest_waits(&self) -> Waits {
        let longest =
            self.casts().map(|cast| (cast.site.name.clone(), cast.progress.longest_wait()));
        Waits(longest.collect())
    }

    /// Says how long an event waited at most since this was asked last, and fails when that is ten
    /// times what is wanted: machines are busy, figures are measured elsewhere.
    pub fn check_waits(&self, what: &str, wanted: Duration) {
        let waits = self.longest_waits();
        eprintln!("longest wait {what}: {waits}");
        assert!(waits.longest() <= wanted * 10, "{what}: {waits}");
    }

    /// Stops the services, lets the clients finish and judges everything that happened. All nodes
    /// must run.
    ///
    /// # Panics
    /// When something does not come to its end, and when replicas are different.
    pub async fn judge(self, cluster: &mut Cluster) -> Judged {
        cluster.mesh().heal();
        cluster.ready().await;
        self.casts().for_each(|cast| cast.progress.stop());
        let mut judged = Judged::default();
        if let Some(hostile) = self.hostile {
            assert!(hostile.attacks() > 0, "nobody attacked");
        }
        judged.violations.extend(self.lookout.map(Lookout::end).unwrap_or_default());
        if let Some(twins) = self.twins {
            judged.violations.extend(twins.end().await);
        }
        if let Some(administration) = self.administration {
            judged.violations.extend(administration.end(cluster).await);
        }
        for one in self.workloads {
            judged.add(one.finish(cluster).await);
        }
        cluster.until_replicas_agree().await;
        if let Some(survey) = self.survey {
            survey.end();
            replay::replay(cluster, &self.history).await;
            let found = oracle::judge(&self.history, &Expectations::default());
            judged.violations.extend(found);
        }
        judged
    }

    /// As [`Load::judge`], for a test.
    ///
    /// # Panics
    /// When anything was wrong.
    pub async fn finish(self, cluster: &mut Cluster) {
        let Judged { violations, .. } = self.judge(cluster).await;
        let first: Vec<String> = violations.iter().take(10).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), first.join("\n"));
    }
}

fn mark(progress: &Progress, more: u64) -> (u64, Vec<u64>) {
    let handled = progress.handled().iter().map(|handled| handled + more).collect();
    (progress.acknowledged() + more, handled)
}

/// The number of an event, as its arguments say it.
fn number(handled: &Handled) -> u64 {
    let args = handled.args.as_deref().and_then(|args| serde_json::from_str(args).ok());
    args.and_then(|args: Value| args["n"].as_u64()).expect("a number")
}

/// Waits until handlers of a client were called so often.
async fn until_handled(site: &Site, client: &str, count: usize) {
    let what = format!("{client} of {} to handle {count} instances", site.name);
    wait::until_for(OUTCOME, &what, async || {
        (site.history.count_handled(client) >= count).then_some(())
    })
    .await;
}

/// Raises events until there are no more to be and all are acknowledged.
async fn publish(raiser: Raiser, pace: Duration, progress: Arc<Progress>) {
    let raiser = publish_while(raiser, pace, &progress, || true).await;
    assert_eq!(raiser.close().await, 0, "everything is acknowledged");
}

/// As [`publish`], as long as this holds.
async fn publish_while(
    raiser: Raiser,
    pace: Duration,
    progress: &Progress,
    goes_on: impl Fn() -> bool,
) -> Raiser {
    let mut pace = tokio::time::interval(pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flying = FuturesUnordered::new();
    while goes_on() {
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
                let raiser = &raiser;
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
    raiser
}
