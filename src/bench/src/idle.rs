//! Connected idle clients: what each costs, and how long one event takes to all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackord_endpoint::{ClientEndpoint, ClientNotice, Delivery, HandlerError, Subscription};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::sync::Notify;

use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::Recorder;
use crate::meter::Moment;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT};
use crate::report::{Figures, Idle, Report};
use crate::told::Told;
use crate::verify::{Checks, count};

/// How long all clients may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(300);
/// How long the event may take to all of them.
const DELIVER_MAX: Duration = Duration::from_secs(120);
/// How long a client or service may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Clients that connect, or close, at once.
const AT_ONCE: usize = 64;

struct Shared {
    subscribed: AtomicU64,
    handled: Mutex<Vec<u64>>,
    arrived: Mutex<Vec<Instant>>,
    confirmed: AtomicU64,
    changed: Notify,
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let sites = ground::sites(options.sites);
    let structure = publish::structure(&[EVENT.to_owned()], 10)?;
    for site in &sites {
        ground.make_site(site, &structure).await.map_err(Error::Ground)?;
    }
    let one_each = u32::try_from(sites.len()).unwrap_or(u32::MAX);
    let services = ground::accounts(ground, &sites, Kind::Service, one_each).await?;
    let accounts = ground::accounts(ground, &sites, Kind::Client, options.subscribers).await?;
    let shared = Arc::new(Shared {
        subscribed: AtomicU64::new(0),
        handled: Mutex::new(vec![0; accounts.len()]),
        arrived: Mutex::new(Vec::with_capacity(accounts.len())),
        confirmed: AtomicU64::new(0),
        changed: Notify::new(),
    });
    let total = u64::from(options.subscribers);
    let mut clients = Vec::with_capacity(accounts.len());
    // The first fifth pays for what a broker needs once; what each of the others adds is measured.
    let first = total / 5;
    connect(ground, &accounts, first, &shared, &mut clients).await?;
    let fifth = Moment::settled(ground).await?;
    connect(ground, &accounts, total, &shared, &mut clients).await?;
    let before = Moment::settled(ground).await?;
    tokio::time::sleep(options.time).await;
    let after = Moment::now(ground).await?;
    let begun = Instant::now();
    for (at, account) in services.iter().enumerate() {
        let service =
            publish::publisher(ground.urls(), ground.roots_pem(), account, options).await?;
        let now = Instant::now();
        publish::raise_all(&service, EVENT, at, options, now, None, 1).await?;
        service.close_within(CLOSE_MAX).await;
    }
    let all = |shared: &Shared| shared.confirmed.load(Ordering::SeqCst) >= total;
    let complete = wait(&shared, DELIVER_MAX, all).await;
    let seconds = begun.elapsed().as_secs_f64();
    let end = Moment::now(ground).await?;
    stream::iter(clients)
        .for_each_concurrent(AT_ONCE, |client| client.close_within(CLOSE_MAX))
        .await;
    let mut latency = Recorder::new();
    let events = {
        let arrived = shared.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.iter().for_each(|at| latency.record(*at - begun));
        arrived.len() as u64
    };
    let mut checks = Checks::default();
    count(&mut checks.counts.acked, services.len() as u64);
    count(&mut checks.counts.received, events);
    if options.verify {
        verify(&shared, &accounts, complete, &mut checks);
    }
    for site in &sites {
        ground.remove_site(site).await.map_err(Error::Ground)?;
    }
    let kib_per_subscriber = fifth
        .rss_bytes
        .zip(after.rss_bytes)
        .map(|(few, full)| (full as f64 - few as f64) / (total - first) as f64 / 1024.0);
    let mut report = Report::new(Workload::Idle, options, after.nodes(), seconds).events(events);
    report.sizes = json!({
        "subscribers": options.subscribers, "size": options.size,
        "idle_seconds": options.time.as_secs_f64(),
    });
    report.latency = Some(latency.report());
    report.figures = Some(Figures::Idle(Idle {
        kib_per_subscriber,
        idle_cores: after.server_cpu_s(&before).map(|cpu_s| cpu_s / options.time.as_secs_f64()),
        all_confirmed_s: seconds,
        rss_bytes: after.rss_bytes,
    }));
    end.used(&after, &mut report);
    checks.found(&mut report);
    Ok(report)
}

/// Connects clients until there are so many, and waits until their subscriptions are made.
async fn connect<G: Ground>(
    ground: &G,
    accounts: &[Account],
    until: u64,
    shared: &Arc<Shared>,
    clients: &mut Vec<ClientEndpoint>,
) -> Result<(), Error> {
    let next = clients.len();
    let some = accounts.iter().enumerate().take(until as usize).skip(next);
    let connected: Vec<ClientEndpoint> = stream::iter(some)
        .map(|(at, account)| client(ground, at, account, shared))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    clients.extend(connected);
    let all = |shared: &Shared| shared.subscribed.load(Ordering::SeqCst) >= until;
    if !wait(shared, CONNECT_MAX, all).await {
        let have = shared.subscribed.load(Ordering::SeqCst);
        return Err(Error::Stuck(format!("{have} of {until} clients are connected")));
    }
    Ok(())
}

async fn client<G: Ground>(
    ground: &G,
    at: usize,
    account: &Account,
    shared: &Arc<Shared>,
) -> Result<ClientEndpoint, Error> {
    let (notices, handler) = (shared.clone(), shared.clone());
    let builder = ground::client(ground.urls(), ground.roots_pem(), account)
        .on_notice(move |notice| notices.tell(notice))
        .subscribe(Subscription::new(EVENT), move |_: Delivery| {
            let now = Instant::now();
            handler.handled.lock().unwrap_or_else(PoisonError::into_inner)[at] += 1;
            handler.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(now);
            async { Ok::<(), HandlerError>(()) }
        });
    builder.start().await.map_err(|error| Error::Endpoint(error.to_string()))
}

impl Shared {
    fn tell(&self, notice: ClientNotice) {
        let counter = match Told::from(notice) {
            Told::Subscribed => &self.subscribed,
            Told::Committed { .. } => &self.confirmed,
            Told::Other => return,
        };
        counter.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

async fn wait(shared: &Shared, limit: Duration, holds: impl Fn(&Shared) -> bool) -> bool {
    let waiting = async {
        while !holds(shared) {
            shared.changed.notified().await;
        }
    };
    tokio::time::timeout(limit, waiting).await.is_ok()
}

fn verify(shared: &Shared, accounts: &[Account], complete: bool, checks: &mut Checks) {
    let handled = shared.handled.lock().unwrap_or_else(PoisonError::into_inner);
    count(&mut checks.counts.lost, handled.iter().filter(|times| **times == 0).count() as u64);
    count(&mut checks.counts.duplicated, handled.iter().map(|times| times.saturating_sub(1)).sum());
    let wrong = handled.iter().zip(accounts).filter(|(times, _)| **times != 1);
    let wrong = wrong.map(|(times, account)| format!("{} handled it {times} times", account.id));
    checks.check("every client handled the event once", wrong.collect());
    let late = if complete { Vec::new() } else { vec![format!("not within {DELIVER_MAX:?}")] };
    checks.check("every cursor was confirmed", late);
}
