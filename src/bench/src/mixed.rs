//! What subscribers that break and such that stall cost the publishers of their site.
//!
//! ```text
//! round: as fast as they can beside [five healthy] [fifteen healthy] [five healthy, five that
//!        abort, five that stall] [five healthy, five that are restless, five that stall],
//!        then at half of the first rate beside the first and the third
//! ```
//!
//! Who aborts resets the connection in the middle of the first delivery of each, and comes again. Who
//! is restless takes what it can get in between, as a healthy one would: nine requests of ten, or
//! whatever arrives in a fifth of a second. They are measured in turn, round after round, so that a
//! machine that gets slower meanwhile slows all. Where publishers take all that the machine has,
//! whatever is delivered to anybody is taken from them, also what the restless take. The ratios are
//! figures, not guarantees: they fail no run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackord_endpoint::{
    ClientEndpoint, Delivery, HandlerError, Mode, ServiceEndpoint, Subscription,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::callback::{Callback, Manner};
use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::{Recorder, Timeline};
use crate::meter::Moment;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT, Paced, Raised, publisher};
use crate::report::{Beside, Figures, Mixed, Report};
use crate::verify::{Checks, count};

/// Instances that the queue keeps for each publisher.
const QUEUE_SIZE: u32 = 1000;
/// From a change of who is there to the measurement.
const WARM_UP: Duration = Duration::from_millis(500);
/// From one connection to the next of a client that breaks them.
const BREAK_INTERVAL: Duration = Duration::from_millis(200);
/// How long an endpoint may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Until a request to one that stalls has failed.
const SEND_TIMEOUT_MS: u32 = 1000;
/// The client on whose authority receivers are called.
const PUSHED: &str = "subscriber-1";

/// The last id that each subscription of the healthy clients was handed, and how often it did not rise.
type Seen = Arc<Mutex<(BTreeMap<usize, u64>, u64, u64)>>;

/// A site with publishers and the five healthy subscribers.
pub(crate) struct Stage {
    pub(crate) site: String,
    publishers: Vec<Account>,
    /// Of those who come and go.
    clients: Vec<Account>,
    services: Vec<ServiceEndpoint>,
    seen: Seen,
    healthy: Vec<ClientEndpoint>,
    called: Vec<Callback>,
    raised: Vec<Raised>,
}

impl Stage {
    pub(crate) async fn set<G: Ground>(ground: &G, options: &Options) -> Result<Self, Error> {
        let site = ground::sites(1).remove(0);
        let sites = std::slice::from_ref(&site);
        let structure = publish::structure(&[EVENT.to_owned()], QUEUE_SIZE)?;
        ground.make_site(&site, &structure).await.map_err(Error::Ground)?;
        let publishers = ground::accounts(ground, sites, Kind::Service, options.publishers).await?;
        // Three healthy ones, two that break, one that stalls; the others are called.
        let mut clients = ground::accounts(ground, sites, Kind::Client, 6).await?;
        let mut services = Vec::new();
        for account in &publishers {
            services.push(publisher(ground.urls(), ground.roots_pem(), account, options).await?);
        }
        let seen = Seen::default();
        let mut healthy = Vec::new();
        for (at, mode) in [Mode::Ordered, Mode::Oneway, Mode::Batch].into_iter().enumerate() {
            let seen = seen.clone();
            let handle = move |id| note(&seen, at, id);
            healthy.push(subscriber(ground, &clients[at], mode, handle).await?);
        }
        let mut called = Vec::new();
        for mode in ["ordered", "batch"] {
            let id = format!("healthy-{mode}");
            called.push(push(ground, &site, &id, mode, Manner::Answers).await?);
        }
        clients.drain(..3);
        let raised = services.iter().map(|_| Raised::nothing()).collect();
        Ok(Self { site, publishers, clients, services, seen, healthy, called, raised })
    }

    /// Ten more subscribers come.
    pub(crate) async fn others<G: Ground>(
        &self,
        ground: &G,
        company: Company,
    ) -> Result<Others, Error> {
        Others::start(ground, &self.site, &self.clients, company).await
    }

    /// Closes everything, and checks what was acknowledged and handled.
    pub(crate) async fn clear<G: Ground>(
        self,
        ground: &G,
        options: &Options,
        checks: &mut Checks,
    ) -> Result<(), Error> {
        let Self { site, publishers, services, seen, healthy, called, raised, .. } = self;
        for service in services {
            service.close_within(CLOSE_MAX).await;
        }
        let sites = std::slice::from_ref(&site);
        let (handled, wrong) = {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            (seen.1, seen.2)
        };
        if options.verify {
            publish::verify(ground, sites, &publishers, &raised, checks).await?;
            let wrong =
                (wrong > 0).then(|| format!("{wrong} of {handled} came again or out of order"));
            let what = "healthy clients are handed ids that increase";
            checks.check(what, wrong.into_iter().collect());
            let idle = called.iter().filter(|callback| callback.taken() == 0);
            let idle = idle.map(|callback| format!("{} got nothing", callback.url));
            checks.check("healthy receivers are called", idle.collect());
        } else {
            count(&mut checks.counts.acked, raised.iter().map(|raised| raised.acked).sum());
        }
        count(&mut checks.counts.received, handled);
        for client in healthy {
            client.close_within(CLOSE_MAX).await;
        }
        ground.remove_site(&site).await.map_err(Error::Ground)
    }
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let mut stage = Stage::set(ground, options).await?;
    let start = Moment::now(ground).await?;
    let mut measured = Measured::all();
    let mut paced_per_s = 0.0;
    for number in 1..=options.rounds {
        ground.progress(&format!("round {number} of {}", options.rounds));
        for measured in &mut measured {
            let others = match measured.company {
                Company::Five => None,
                company => Some(stage.others(ground, company).await?),
            };
            let pace = (measured.paced_per_s.is_some()).then_some(paced_per_s);
            let time = phase(options);
            let (events, latency) = stage.measure(options, time, pace, None).await?;
            if measured.company == Company::Five && pace.is_none() {
                paced_per_s = (events as f64 / time.as_secs_f64() / 2.0).max(1.0);
            }
            measured.note(events, &latency, pace, Moment::now(ground).await?.rss_bytes);
            if let Some(others) = others {
                others.end(ground, &stage.site).await?;
            }
        }
    }
    let end = Moment::now(ground).await?;
    let mut checks = Checks::default();
    stage.clear(ground, options, &mut checks).await?;
    let seconds = phase(options).as_secs_f64() * f64::from(options.rounds);
    let all: u64 = measured.iter().flat_map(|measured| &measured.rounds).sum();
    let beside: Vec<Beside> = measured.iter().map(|measured| measured.report(seconds)).collect();
    let [five, fifteen, mixed, restless, five_paced, mixed_paced] = &beside[..] else {
        return Err(Error::Stuck("the companies were not all measured".to_owned()));
    };
    let over = |some: &Beside, other: &Beside| some.events_per_s / other.events_per_s.max(1.0);
    let (events, events_per_s) = (mixed.rounds.iter().sum(), mixed.events_per_s);
    let latency = mixed.latency.clone();
    let found = Mixed {
        ratio_of_fewer: over(mixed, five),
        ratio_of_equals: over(mixed, fifteen),
        ratio_restless: over(restless, five),
        ratio_paced: over(mixed_paced, five_paced),
        beside: beside.clone(),
    };
    let mut report = Report::new(Workload::Mixed, options, end.nodes(), seconds).events(all);
    end.used(&start, &mut report);
    // What was used is told of all that was measured, the figures are those beside the mixed ones.
    (report.events, report.events_per_s) = (events, events_per_s);
    report.sizes = json!({
        "publishers": options.publishers, "window": options.window, "size": options.size,
        "rounds": options.rounds,
    });
    report.latency = Some(latency);
    report.figures = Some(Figures::Mixed { mixed: found });
    checks.found(&mut report);
    Ok(report)
}

/// Who is there beside the publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// The five that are always there.
    Five,
    /// Ten more like them.
    Fifteen,
    /// Five that abort and five that stall.
    Mixed,
    /// Five that are restless and five that stall.
    Restless,
}

impl Company {
    fn name(self) -> &'static str {
        match self {
            Self::Five => "five-healthy",
            Self::Fifteen => "fifteen-healthy",
            Self::Mixed => "mixed",
            Self::Restless => "restless",
        }
    }
}

/// What the publishers came to beside a company, round by round.
struct Measured {
    company: Company,
    /// The sum over the rounds, where they are paced.
    paced_per_s: Option<f64>,
    rounds: Vec<u64>,
    latency: Recorder,
    rss_bytes: Option<u64>,
}

impl Measured {
    fn all() -> Vec<Self> {
        let full = [Company::Five, Company::Fifteen, Company::Mixed, Company::Restless];
        let full = full.map(|company| (company, None));
        let paced = [Company::Five, Company::Mixed].map(|company| (company, Some(0.0)));
        let all = full.into_iter().chain(paced).map(|(company, paced_per_s)| Self {
            company,
            paced_per_s,
            rounds: Vec::new(),
            latency: Recorder::new(),
            rss_bytes: None,
        });
        all.collect()
    }

    fn note(&mut self, events: u64, latency: &Recorder, pace: Option<f64>, rss_bytes: Option<u64>) {
        self.rounds.push(events);
        self.latency.add(latency);
        self.rss_bytes = rss_bytes;
        self.paced_per_s = self.paced_per_s.zip(pace).map(|(sum, pace)| sum + pace);
    }

    fn report(&self, seconds: f64) -> Beside {
        let rounds = self.rounds.len().max(1) as f64;
        Beside {
            subscribers: self.company.name(),
            paced_per_s: self.paced_per_s.map(|sum| sum / rounds),
            events_per_s: self.rounds.iter().sum::<u64>() as f64 / seconds,
            latency: self.latency.report(),
            rss_bytes: self.rss_bytes,
            rounds: self.rounds.clone(),
        }
    }
}

/// How long is measured at a time.
fn phase(options: &Options) -> Duration {
    options.time / options.rounds
}

fn note(seen: &Seen, at: usize, id: u64) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (last, handled, wrong) = &mut *seen;
    let before = last.insert(at, id);
    *handled += 1;
    *wrong += u64::from(before.is_some_and(|before| before >= id));
}

impl Stage {
    /// All publishers raise all they can for a time, or so many per second together; what was
    /// acknowledged in the time, and how long each event took.
    pub(crate) async fn measure(
        &mut self,
        options: &Options,
        time: Duration,
        per_s: Option<f64>,
        timeline: Option<Arc<Timeline>>,
    ) -> Result<(u64, Recorder), Error> {
        let start = Instant::now();
        let from = start + WARM_UP;
        let until = from + time;
        let gap = per_s.map(|per_s| Duration::from_secs_f64(self.services.len() as f64 / per_s));
        let paced = Paced { start, from, until: Some(until), count: u64::MAX, gap, timeline };
        let mut tasks = Vec::new();
        for (at, service) in self.services.iter().enumerate() {
            let (service, options, paced) = (service.clone(), options.clone(), paced.clone());
            tasks.push(tokio::spawn(async move {
                publish::raise_paced(&service, EVENT, at, &options, paced).await
            }));
        }
        let (mut events, mut measured) = (0, Recorder::new());
        for (task, raised) in tasks.into_iter().zip(&mut self.raised) {
            let more = task.await.map_err(|error| Error::Endpoint(error.to_string()))??;
            events += more.measured;
            measured.add(&more.latency);
            raised.acked += more.acked;
            raised.ids.extend(more.ids);
        }
        Ok((events, measured))
    }
}

/// A connected client that handles at once.
async fn subscriber<G: Ground>(
    ground: &G,
    account: &Account,
    mode: Mode,
    handle: impl Fn(u64) + Send + Sync + 'static,
) -> Result<ClientEndpoint, Error> {
    let handle = Arc::new(handle);
    let handler = move |delivery: Delivery| {
        handle(delivery.instance_id);
        async { Ok::<(), HandlerError>(()) }
    };
    let subscription = Subscription::new(EVENT).mode(mode);
    let builder = ground::client(ground.urls(), ground.roots_pem(), account);
    let started = builder.subscribe(subscription, handler).start().await;
    started.map_err(|error| Error::Endpoint(error.to_string()))
}

/// A client that connects and is gone again, until it is told to end.
async fn come_and_go(
    urls: Vec<String>,
    roots_pem: Option<Vec<u8>>,
    account: Account,
    mode: Mode,
    company: Company,
    ending: Arc<AtomicBool>,
) {
    while !ending.load(Ordering::Relaxed) {
        let first = Arc::new(Notify::new());
        let told = first.clone();
        let handler = move |_: Delivery| {
            told.notify_one();
            async move {
                match company {
                    Company::Restless => Ok(()),
                    _ => std::future::pending::<Result<(), HandlerError>>().await,
                }
            }
        };
        let subscription = Subscription::new(EVENT).mode(mode);
        let builder = ground::client(&urls, roots_pem.as_deref(), &account);
        let started = builder.subscribe(subscription, handler).start().await;
        let before = Instant::now();
        if company != Company::Restless {
            let _ = tokio::time::timeout(BREAK_INTERVAL, first.notified()).await;
        } else {
            tokio::time::sleep(BREAK_INTERVAL).await;
        }
        if let Ok(client) = started {
            client.close_within(Duration::ZERO).await;
        }
        tokio::time::sleep(BREAK_INTERVAL.saturating_sub(before.elapsed())).await;
    }
}

/// Registers a push subscription; gives its receiver.
async fn push<G: Ground>(
    ground: &G,
    site: &str,
    id: &str,
    mode: &str,
    manner: Manner,
) -> Result<Callback, Error> {
    let callback = Callback::start(manner).await?;
    let mut body = json!({
        "client": PUSHED, "event": EVENT, "url": callback.url, "mode": mode, "retry_count": -1,
        "discard_interval_ms": 1000, "start": "latest",
    });
    if manner == Manner::Stalls {
        body["send_timeout_ms"] = Value::from(SEND_TIMEOUT_MS);
    }
    ground.push(site, id, Some(&body)).await.map_err(Error::Ground)?;
    Ok(callback)
}

/// Ten more subscribers, while they are there: five clients and callbacks that are called in each
/// mode, and abort, are restless or stall unless they are healthy.
pub(crate) struct Others {
    pushes: Vec<(String, Callback)>,
    breaking: JoinSet<()>,
    ending: Arc<AtomicBool>,
    clients: Vec<ClientEndpoint>,
    stalled: Option<Stalled>,
}

impl Others {
    async fn start<G: Ground>(
        ground: &G,
        site: &str,
        accounts: &[Account],
        company: Company,
    ) -> Result<Self, Error> {
        let is_healthy = company == Company::Fifteen;
        let mut pushes = Vec::new();
        let of = |manner, modes: &'static [&'static str]| {
            modes.iter().map(move |mode| (if is_healthy { Manner::Answers } else { manner }, *mode))
        };
        let manner = match company {
            Company::Restless => Manner::Restless,
            Company::Five | Company::Fifteen | Company::Mixed => Manner::Aborts,
        };
        let breaking = of(manner, &["ordered", "twoway", "batch"]);
        let stalling = of(Manner::Stalls, &["ordered", "twoway", "oneway", "batch"]);
        for (at, (manner, mode)) in breaking.chain(stalling).enumerate() {
            let id = format!("other-{at}-{mode}");
            pushes.push((id.clone(), push(ground, site, &id, mode, manner).await?));
        }
        let (mut breaking, ending) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        let mut clients = Vec::new();
        for (account, mode) in accounts.iter().zip([Mode::Ordered, Mode::Twoway]) {
            if is_healthy {
                clients.push(subscriber(ground, account, mode, |_| {}).await?);
                continue;
            }
            let (urls, roots) = (ground.urls().to_vec(), ground.roots_pem().map(<[u8]>::to_vec));
            let (account, ending) = (account.clone(), ending.clone());
            breaking.spawn(come_and_go(urls, roots, account, mode, company, ending));
        }
        let mut stalled = None;
        if is_healthy {
            clients.push(subscriber(ground, &accounts[2], Mode::Oneway, |_| {}).await?);
        } else {
            stalled = Some(Stalled::start(ground, &accounts[2]).await?);
        }
        Ok(Self { pushes, breaking, ending, clients, stalled })
    }

    pub(crate) async fn end<G: Ground>(self, ground: &G, site: &str) -> Result<(), Error> {
        let Self { pushes, mut breaking, ending, clients, stalled } = self;
        ending.store(true, Ordering::Relaxed);
        while breaking.join_next().await.is_some() {}
        for client in clients {
            client.close_within(Duration::ZERO).await;
        }
        if let Some(stalled) = stalled {
            stalled.end().await;
        }
        for (id, callback) in pushes {
            ground.push(site, &id, None).await.map_err(Error::Ground)?;
            drop(callback);
        }
        Ok(())
    }
}

/// A client whose program stands still from its first event on: it reads nothing any more. Its thread
/// is its own, since an endpoint that is served reads on and drops what its handler is too slow for.
struct Stalled {
    ending: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Stalled {
    async fn start<G: Ground>(ground: &G, account: &Account) -> Result<Self, Error> {
        let builder = ground::client(ground.urls(), ground.roots_pem(), account);
        let (ending, ended) = std::sync::mpsc::channel();
        let (connected, connects) = tokio::sync::oneshot::channel();
        let stand_still = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            let first = Arc::new(Notify::new());
            let told = first.clone();
            let handler = move |_: Delivery| {
                told.notify_one();
                std::future::pending::<Result<(), HandlerError>>()
            };
            runtime.block_on(async {
                let subscription = Subscription::new(EVENT).mode(Mode::Oneway);
                let started = builder.subscribe(subscription, handler).start().await;
                let _ = connected.send(started.as_ref().map(drop).map_err(ToString::to_string));
                let _ = tokio::time::timeout(BREAK_INTERVAL, first.notified()).await;
                // Blocks the thread on purpose. An error is an end, too.
                let _ = ended.recv();
                if let Ok(client) = started {
                    client.close_within(Duration::ZERO).await;
                }
            });
        };
        let name = std::thread::Builder::new().name("stalled".to_owned());
        let thread = name.spawn(stand_still).map_err(|error| Error::Endpoint(error.to_string()))?;
        let started = connects.await.map_err(|error| Error::Endpoint(error.to_string()))?;
        started.map_err(Error::Endpoint)?;
        Ok(Self { ending, thread })
    }

    async fn end(self) {
        let _ = self.ending.send(());
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        debug_assert!(matches!(joined, Ok(Ok(()))), "the thread of a stalled client panicked");
    }
}
