//! What subscribers that break and such that stall cost the publishers of their site.
//!
//! `five healthy ─▶ [measure] ─▶ + five that break + five that stall ─▶ [measure] ─▶ five healthy ─▶ …`
//!
//! Both are measured in turn, round after round, so that a machine that gets slower meanwhile slows
//! both. The ratio is a figure, not a guarantee: it fails no run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackord_endpoint::{
    ClientBuilder, ClientEndpoint, ClientLevel, Delivery, HandlerError, Mode, ServiceEndpoint,
    Subscription,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::callback::{Callback, Manner};
use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::Recorder;
use crate::meter::Moment;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT, Raised, publisher, raise_all};
use crate::report::{Mixed, MixedRound, Report};
use crate::verify::Checks;

/// Instances that the queue keeps for each publisher.
const QUEUE_SIZE: u32 = 1000;
/// From a change of who is there to the measurement.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long a connection of a client lasts that breaks its connections.
const BREAK_INTERVAL: Duration = Duration::from_millis(200);
/// How long an endpoint may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Until a request to one that stalls has failed.
const SEND_TIMEOUT_MS: u32 = 1000;
/// The client on whose authority receivers are called.
const PUSHED: &str = "subscriber-1";

/// The last id that each subscription of the healthy clients was handed, and how often it did not rise.
type Seen = Arc<Mutex<(BTreeMap<usize, u64>, u64, u64)>>;

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let sites = ground::sites(1);
    let site = &sites[0];
    let structure = publish::structure(&[EVENT.to_owned()], QUEUE_SIZE)?;
    ground.make_site(site, &structure).await.map_err(Error::Ground)?;
    let publishers = ground::accounts(ground, &sites, Kind::Service, options.publishers).await?;
    // Three healthy ones, two that break, one that stalls; the others are called.
    let clients = ground::accounts(ground, &sites, Kind::Client, 6).await?;
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
        called.push(push(ground, site, &id, mode, Manner::Answers).await?);
    }
    let start = Moment::now(ground).await?;
    let mut raised: Vec<Raised> = services.iter().map(|_| nothing()).collect();
    let (mut latency, mut rounds) = (Recorder::new(), Vec::new());
    let (mut alone_bytes, mut mixed_bytes) = (None, None);
    for number in 1..=options.rounds {
        ground.progress(&format!("round {number} of {}", options.rounds));
        let alone = measure(&services, options, &mut raised, None).await?;
        alone_bytes = Moment::now(ground).await?.rss_bytes;
        let others = Others::start(ground, site, &clients[3..]).await?;
        let mixed = measure(&services, options, &mut raised, Some(&mut latency)).await?;
        mixed_bytes = Moment::now(ground).await?.rss_bytes;
        others.end(ground, site).await?;
        rounds.push(MixedRound { healthy_events: alone, mixed_events: mixed });
    }
    let end = Moment::now(ground).await?;
    for service in services {
        service.close_within(CLOSE_MAX).await;
    }
    let mut checks = Checks::default();
    publish::verify(ground, &sites, &publishers, &raised, &mut checks).await?;
    let (handled, wrong) = {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.1, seen.2)
    };
    let wrong = (wrong > 0).then(|| format!("{wrong} of {handled} came twice or out of order"));
    checks.check("healthy clients are handed ids that increase", wrong.into_iter().collect());
    let idle = called.iter().filter(|callback| callback.taken() == 0);
    let idle = idle.map(|callback| format!("{} got nothing", callback.url));
    checks.check("healthy receivers are called", idle.collect());
    for client in healthy {
        client.close_within(CLOSE_MAX).await;
    }
    ground.remove_site(site).await.map_err(Error::Ground)?;
    let sum = |of: fn(&MixedRound) -> u64| rounds.iter().map(of).sum::<u64>();
    let (alone, mixed) = (sum(|round| round.healthy_events), sum(|round| round.mixed_events));
    let seconds = phase(options).as_secs_f64() * f64::from(options.rounds);
    Ok(Report {
        bench: Workload::Mixed.name(),
        sizes: json!({
            "publishers": options.publishers, "window": options.window, "size": options.size,
            "rounds": options.rounds,
        }),
        seconds,
        events: mixed,
        events_per_s: mixed as f64 / seconds,
        latency: latency.report(),
        failover: None,
        quotas: Vec::new(),
        revocation: None,
        mixed: Some(Mixed {
            healthy_per_s: alone as f64 / seconds,
            mixed_per_s: mixed as f64 / seconds,
            ratio: mixed as f64 / alone.max(1) as f64,
            healthy_rss_bytes: alone_bytes,
            mixed_rss_bytes: mixed_bytes,
            rounds,
        }),
        modes: Vec::new(),
        durability: None,
        server: end.server(&start, alone + mixed),
        verified: checks.verified,
        failures: checks.failures,
    })
}

/// How long is measured at a time.
fn phase(options: &Options) -> Duration {
    options.time / options.rounds
}

fn nothing() -> Raised {
    Raised { ids: Vec::new(), measured: 0, latency: Recorder::new() }
}

fn note(seen: &Seen, at: usize, id: u64) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (last, handled, wrong) = &mut *seen;
    let before = last.insert(at, id);
    *handled += 1;
    *wrong += u64::from(before.is_some_and(|before| before >= id));
}

/// All publishers raise all they can; how many events were acknowledged in the time.
async fn measure(
    services: &[ServiceEndpoint],
    options: &Options,
    raised: &mut [Raised],
    latency: Option<&mut Recorder>,
) -> Result<u64, Error> {
    let from = Instant::now() + WARM_UP;
    let until = from + phase(options);
    let mut tasks = Vec::new();
    for (at, service) in services.iter().enumerate() {
        let (service, options) = (service.clone(), options.clone());
        tasks.push(tokio::spawn(async move {
            raise_all(&service, EVENT, at, &options, from, Some(until), u64::MAX).await
        }));
    }
    let (mut events, mut measured) = (0, Recorder::new());
    for (task, raised) in tasks.into_iter().zip(raised) {
        let more = task.await.map_err(|error| Error::Endpoint(error.to_string()))??;
        events += more.measured;
        measured.add(&more.latency);
        raised.ids.extend(more.ids);
    }
    if let Some(latency) = latency {
        latency.add(&measured);
    }
    Ok(events)
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
    let builder = client(ground.urls(), ground.roots_pem(), account);
    let started = builder.subscribe(subscription, handler).start().await;
    started.map_err(|error| Error::Endpoint(error.to_string()))
}

fn client(urls: &[String], roots_pem: Option<&[u8]>, account: &Account) -> ClientBuilder {
    let mut builder = ClientEndpoint::builder()
        .site(account.site.clone())
        .token(Some(account.token.clone()))
        .persistence(ClientLevel::Memory);
    for url in urls {
        builder = builder.url(url.clone());
    }
    match roots_pem {
        Some(roots) => builder.tls_roots_pem(roots),
        None => builder,
    }
}

/// A client that connects and is gone again, until it is told to end.
async fn come_and_go(
    urls: Vec<String>,
    roots_pem: Option<Vec<u8>>,
    account: Account,
    mode: Mode,
    ending: Arc<AtomicBool>,
) {
    while !ending.load(Ordering::Relaxed) {
        let handler = |_: Delivery| async { Ok::<(), HandlerError>(()) };
        let subscription = Subscription::new(EVENT).mode(mode);
        let builder = client(&urls, roots_pem.as_deref(), &account);
        let started = builder.subscribe(subscription, handler).start().await;
        tokio::time::sleep(BREAK_INTERVAL).await;
        if let Ok(client) = started {
            client.close_within(Duration::ZERO).await;
        }
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

/// Who breaks and who stalls, while they are there.
struct Others {
    pushes: Vec<(String, Callback)>,
    breaking: JoinSet<()>,
    ending: Arc<AtomicBool>,
    stalled: ClientEndpoint,
}

impl Others {
    async fn start<G: Ground>(ground: &G, site: &str, accounts: &[Account]) -> Result<Self, Error> {
        let mut pushes = Vec::new();
        let of = |kind: &'static str, manner, modes: &'static [&'static str]| {
            modes.iter().map(move |mode| (format!("{kind}-{mode}"), *mode, manner))
        };
        let breaking = of("breaking", Manner::Breaks, &["ordered", "twoway", "batch"]);
        let modes = &["ordered", "twoway", "oneway", "batch"];
        for (id, mode, manner) in breaking.chain(of("stalled", Manner::Stalls, modes)) {
            pushes.push((id.clone(), push(ground, site, &id, mode, manner).await?));
        }
        // A handler that never returns: its endpoint reads on no longer than its own bounds allow.
        let never = |_: Delivery| std::future::pending::<Result<(), HandlerError>>();
        let subscription = Subscription::new(EVENT).mode(Mode::Oneway);
        let builder = client(ground.urls(), ground.roots_pem(), &accounts[2]);
        let stalled = builder.subscribe(subscription, never).start().await;
        let stalled = stalled.map_err(|error| Error::Endpoint(error.to_string()))?;
        let (mut breaking, ending) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for (account, mode) in accounts.iter().zip([Mode::Ordered, Mode::Twoway]) {
            let (urls, roots) = (ground.urls().to_vec(), ground.roots_pem().map(<[u8]>::to_vec));
            let (account, ending) = (account.clone(), ending.clone());
            breaking.spawn(come_and_go(urls, roots, account, mode, ending));
        }
        Ok(Self { pushes, breaking, ending, stalled })
    }

    async fn end<G: Ground>(self, ground: &G, site: &str) -> Result<(), Error> {
        let Self { pushes, mut breaking, ending, stalled } = self;
        ending.store(true, Ordering::Relaxed);
        while breaking.join_next().await.is_some() {}
        stalled.close_within(Duration::ZERO).await;
        for (id, callback) in pushes {
            ground.push(site, &id, None).await.map_err(Error::Ground)?;
            drop(callback);
        }
        Ok(())
    }
}
