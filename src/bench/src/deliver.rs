//! Subscriptions take a backlog in one mode, every cursor confirmed: in order with one unacknowledged event
//! each. What nobody acknowledges does not wait for a handler, so in those modes the measurement begins
//! with the first connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ackord_endpoint::{ClientEndpoint, ClientNotice, Delivery, HandlerError, Mode, Subscription};
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::{Recorder, Timeline};
use crate::meter::Moment;
use crate::options::{EVENTS_MAX, Options, Workload};
use crate::publish::{self, Paced};
use crate::report::Report;
use crate::told::Told;
use crate::verify::{self, Checks, count};

/// How long the preparation of all subscriptions may take.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(120);
/// How long a client may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// What is raised before the measurement, and taken by nobody.
const WARM_UP: &str = "warm-up";
/// Of each site so often.
const WARM_UP_GAP: Duration = Duration::from_millis(1);

/// What one subscription did.
#[derive(Default)]
struct Lane {
    handled: Vec<u64>,
    confirmed: u64,
    last_at: Option<Instant>,
}

/// What all subscriptions share.
pub(crate) struct Shared {
    /// By client and event.
    lanes: Mutex<BTreeMap<(usize, String), Lane>>,
    latency: Mutex<Recorder>,
    subscribed: AtomicU64,
    finished: AtomicU64,
    changed: Notify,
    gate: watch::Sender<bool>,
    timeline: OnceLock<Timeline>,
    /// Ids that are expected per (site, event).
    expected: BTreeMap<(String, String), Vec<u64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let sites = ground::sites(options.sites);
    let events: Vec<String> = (1..=options.per_subscriber()).map(|n| format!("load-{n}")).collect();
    // A structure that is full has no room for what nobody takes: then nothing comes before.
    let warms_up = !options.warm_up.is_zero() && events.len() < EVENTS_MAX as usize;
    let warm_up = warms_up.then(|| WARM_UP.to_owned());
    let made: Vec<String> = events.iter().cloned().chain(warm_up).collect();
    let structure = publish::structure(&made, options.backlog)?;
    for site in &sites {
        ground.make_site(site, &structure).await.map_err(Error::Ground)?;
    }
    let expected = backlog(ground, &sites, &events, warms_up, options).await?;
    let accounts = ground::accounts(ground, &sites, Kind::Client, options.subscribers).await?;
    let shared = Arc::new(Shared {
        lanes: Mutex::default(),
        latency: Mutex::new(Recorder::new()),
        subscribed: AtomicU64::new(0),
        finished: AtomicU64::new(0),
        changed: Notify::new(),
        gate: watch::Sender::new(false),
        timeline: OnceLock::new(),
        expected,
    });
    let total = u64::from(options.subscriptions);
    let early = if options.mode.is_acknowledged() {
        None
    } else {
        shared.gate.send_replace(true);
        Some((Moment::now(ground).await?, Instant::now()))
    };
    let mut clients = Vec::new();
    let mut left = options.subscriptions as usize;
    for (at, account) in accounts.iter().enumerate() {
        // Spread evenly: the first clients have one more where it does not divide.
        let mine = left.div_ceil(accounts.len() - at);
        left -= mine;
        let events = &events[..mine.min(events.len())];
        clients.push(client(ground, at, account, events, options.mode, &shared).await?);
    }
    let prepared = wait(&shared, SUBSCRIBE_MAX, |s| s.subscribed.load(Ordering::SeqCst) >= total);
    if !prepared.await {
        let have = shared.subscribed.load(Ordering::SeqCst);
        return Err(Error::Stuck(format!("{have} of {total} subscriptions hold")));
    }
    let (before, begun) = match early {
        Some(early) => early,
        None => (Moment::now(ground).await?, Instant::now()),
    };
    // Nothing has set it before.
    let _ = shared.timeline.set(Timeline::new(begun));
    // Nobody listening means that there is no subscription to open the gate for.
    let _ = shared.gate.send(true);
    let complete =
        wait(&shared, options.time, |s| s.finished.load(Ordering::SeqCst) >= total).await;
    let seconds = begun.elapsed().as_secs_f64();
    let handled: u64 = locked(&shared.lanes).values().map(|lane| lane.handled.len() as u64).sum();
    let after = Moment::now(ground).await?;
    for client in &clients {
        client.pause();
    }
    for client in clients {
        client.close_within(CLOSE_MAX).await;
    }
    let mut checks = Checks::default();
    let backlog = shared.expected.values().map(|ids| ids.len() as u64).sum();
    count(&mut checks.counts.acked, backlog);
    if options.verify {
        verify_lanes(&shared, &accounts, complete, options.mode, &mut checks);
    } else {
        count(&mut checks.counts.received, handled);
    }
    for site in &sites {
        ground.remove_site(site).await.map_err(Error::Ground)?;
    }
    let mut report =
        Report::new(Workload::Deliver, options, after.nodes(), seconds).events(handled);
    report.sizes = json!({
        "subscriptions": options.subscriptions, "subscribers": options.subscribers,
        "backlog": options.backlog, "mode": options.mode.as_str(), "size": options.size,
    });
    report.latency = Some(locked(&shared.latency).report());
    if let Some(timeline) = shared.timeline.get() {
        report.timeline = timeline.report();
    }
    // Each subscription has one cursor under way; other modes commit many at once.
    if options.mode == Mode::Ordered {
        report.durability = after.durability(&before, handled, total);
    }
    after.used(&before, &mut report);
    checks.found(&mut report);
    Ok(report)
}

/// Raises the backlog of every event of every site, and what nobody takes for as long as the load is
/// to come before the measurement: in that time the lead comes to it, too. The ids of the backlog.
async fn backlog<G: Ground>(
    ground: &G,
    sites: &[String],
    events: &[String],
    warms_up: bool,
    options: &Options,
) -> Result<BTreeMap<(String, String), Vec<u64>>, Error> {
    let mut expected = BTreeMap::new();
    let count = u32::try_from(sites.len()).unwrap_or(u32::MAX);
    let accounts = ground::accounts(ground, sites, Kind::Service, count).await?;
    let mut services = Vec::new();
    for account in &accounts {
        let service =
            publish::publisher(ground.urls(), ground.roots_pem(), account, options).await?;
        for (at, event) in events.iter().enumerate() {
            let count = u64::from(options.backlog);
            let now = Instant::now();
            let raised = publish::raise_all(&service, event, at, options, now, None, count).await?;
            expected.insert((account.site.clone(), event.clone()), raised.ids);
        }
        services.push(service);
    }
    let start = Instant::now();
    let until = start + options.warm_up;
    let warm_up = services.iter().filter(|_| warms_up).map(|service| {
        let until = Some(until);
        let gap = Some(WARM_UP_GAP);
        let paced = Paced { start, from: start, until, count: u64::MAX, gap, timeline: None };
        publish::raise_paced(service, WARM_UP, 0, options, paced)
    });
    try_join_all(warm_up).await?;
    for service in services {
        service.close_within(CLOSE_MAX).await;
    }
    Ok(expected)
}

async fn client<G: Ground>(
    ground: &G,
    at: usize,
    account: &Account,
    events: &[String],
    mode: Mode,
    shared: &Arc<Shared>,
) -> Result<ClientEndpoint, Error> {
    let (notices, site) = (shared.clone(), account.site.clone());
    let mut builder = ground::client(ground.urls(), ground.roots_pem(), account)
        .on_notice(move |notice| notices.tell(at, &site, notice));
    for event in events {
        let shared = shared.clone();
        builder = builder.subscribe(
            Subscription::new(event.clone()).mode(mode),
            move |delivery: Delivery| {
                let shared = shared.clone();
                async move {
                    shared.open().await;
                    shared.handled(at, delivery);
                    Ok::<(), HandlerError>(())
                }
            },
        );
    }
    builder.start().await.map_err(|error| Error::Endpoint(error.to_string()))
}

impl Shared {
    /// Waits until the measurement begins.
    async fn open(&self) {
        if *self.gate.borrow() {
            return;
        }
        // The sender lives as long as this does: the wait ends only with the value.
        let _ = self.gate.subscribe().wait_for(|open| *open).await;
    }

    fn handled(&self, at: usize, delivery: Delivery) {
        let now = Instant::now();
        let last = {
            let mut lanes = locked(&self.lanes);
            let lane = lanes.entry((at, delivery.event)).or_default();
            lane.handled.push(delivery.instance_id);
            lane.last_at.replace(now)
        };
        let Some(last) = last else { return };
        locked(&self.latency).record(now - last);
        if let Some(timeline) = self.timeline.get() {
            timeline.record(now, now - last);
        }
    }

    fn tell(&self, at: usize, site: &str, notice: ClientNotice) {
        match Told::from(notice) {
            Told::Subscribed => {
                self.subscribed.fetch_add(1, Ordering::SeqCst);
                self.changed.notify_one();
            }
            Told::Committed { event, instance_id } => {
                let last = self
                    .expected
                    .get(&(site.to_owned(), event.clone()))
                    .and_then(|ids| ids.last().copied());
                let finished = {
                    let mut lanes = locked(&self.lanes);
                    let lane = lanes.entry((at, event)).or_default();
                    let was = lane.confirmed;
                    lane.confirmed = instance_id.max(was);
                    last.is_some_and(|last| was < last && lane.confirmed >= last)
                };
                if finished {
                    self.finished.fetch_add(1, Ordering::SeqCst);
                    self.changed.notify_one();
                }
            }
            Told::Other => {}
        }
    }
}

/// Waits for a condition; whether it came true in time.
async fn wait(shared: &Shared, limit: Duration, holds: impl Fn(&Shared) -> bool) -> bool {
    let waiting = async {
        while !holds(shared) {
            shared.changed.notified().await;
        }
    };
    tokio::time::timeout(limit, waiting).await.is_ok()
}

fn verify_lanes(
    shared: &Shared,
    accounts: &[Account],
    complete: bool,
    mode: Mode,
    checks: &mut Checks,
) {
    let lanes = locked(&shared.lanes);
    for ((at, event), lane) in lanes.iter() {
        let Some(all) = shared.expected.get(&(accounts[*at].site.clone(), event.clone())) else {
            continue;
        };
        let last = lane.handled.iter().max();
        let reached = all.partition_point(|id| last.is_some_and(|last| id <= last));
        let expected = if complete { all } else { &all[..reached] };
        verify::count_deliveries(&mut checks.counts, &lane.handled, expected);
    }
    let wrong = lanes.iter().filter_map(|((at, event), lane)| {
        let account = &accounts[*at];
        let all = shared.expected.get(&(account.site.clone(), event.clone()))?;
        if mode == Mode::Datagram {
            // Some may be missing; what came must be part of the whole, in order.
            let came: BTreeSet<u64> = lane.handled.iter().copied().collect();
            let expected: Vec<u64> = all.iter().copied().filter(|id| came.contains(id)).collect();
            return verify::wrong_deliveries(&account.id, &lane.handled, &expected);
        }
        // What was cut off by the time limit must be a beginning of the whole.
        let expected = if complete { all } else { all.get(..lane.handled.len())? };
        verify::wrong_deliveries(&format!("{}/{event}", account.id), &lane.handled, expected)
    });
    let what = if mode == Mode::Datagram {
        "every subscription handled a part of its backlog, in order, each once"
    } else if complete {
        "every subscription handled its whole backlog, in order, each once, cursors confirmed"
    } else {
        "every subscription handled the beginning of its backlog, in order, each once"
    };
    checks.check(what, wrong.collect());
}
