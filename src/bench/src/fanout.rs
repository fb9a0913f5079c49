//! One publisher at a fixed rate, many connected subscribers that acknowledge each event: how long from
//! the raise to each handler, and what a delivery costs.
//!
//! `publisher ─ rate ─▶ queue ─▶ subscribers × (deliver ─▶ handle ─▶ acknowledge ─▶ cursor confirmed)`
//!
//! The publisher does not wait for what it raised before: an event counts from when it was due, so a broker
//! that falls behind shows it. Events are numbered, and each subscriber must be handed 1, 2, 3… to the last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ackord_endpoint::{ClientEndpoint, Delivery, HandlerError, Subscription};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::sync::Notify;

use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::{Recorder, Timeline};
use crate::meter::Moment;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT, Paced};
use crate::report::{Fanout, Figures, Report};
use crate::told::Told;
use crate::verify::{Checks, count};

/// How long all clients may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(300);
/// How long after the last event the last cursor may be confirmed.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// How long a client or the publisher may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Clients that connect, or close, at once.
const AT_ONCE: usize = 64;

/// What one subscriber was handed.
#[derive(Clone, Copy, Default)]
struct Handed {
    events: u64,
    last: u64,
    again: u64,
    skipped: u64,
}

/// When events are due, and which are measured.
struct Plan {
    start: Instant,
    gap: Duration,
    from: Instant,
    until: Instant,
    timeline: Timeline,
}

struct Shared {
    subscribed: AtomicU64,
    confirmed: AtomicU64,
    /// By subscriber.
    handed: Vec<Mutex<Handed>>,
    latency: Mutex<Recorder>,
    plan: OnceLock<Plan>,
    /// Confirmed cursors to wait for; the last event is known when all are acknowledged.
    awaited: AtomicU64,
    changed: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn handle(&self, at: usize, delivery: &Delivery) {
        let now = Instant::now();
        let Some(number) = number(delivery) else { return };
        {
            let mut handed = locked(&self.handed[at]);
            handed.events += 1;
            handed.again += u64::from(number <= handed.last);
            handed.skipped += number.saturating_sub(handed.last + 1);
            handed.last = handed.last.max(number);
        }
        let Some(plan) = self.plan.get() else { return };
        // As the publisher reckons it.
        let due = plan.start + plan.gap.mul_f64((number - 1) as f64);
        if due >= plan.from && due < plan.until {
            let latency = now.saturating_duration_since(due);
            locked(&self.latency).record(latency);
            plan.timeline.record(now, latency);
        }
    }

    fn tell(&self, told: Told) {
        match told {
            Told::Subscribed => {
                self.subscribed.fetch_add(1, Ordering::SeqCst);
                self.changed.notify_one();
            }
            Told::Committed { .. } => {
                let confirmed = self.confirmed.fetch_add(1, Ordering::SeqCst) + 1;
                if confirmed >= self.awaited.load(Ordering::SeqCst) {
                    self.changed.notify_one();
                }
            }
            Told::Other => {}
        }
    }

    /// Waits for a condition; whether it came true in time.
    async fn wait(&self, limit: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let waiting = async {
            while !holds(self) {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }
}

/// The number of an event, as [`publish::payload`] writes it.
fn number(delivery: &Delivery) -> Option<u64> {
    let data = &delivery.payload.as_ref()?.data;
    Some(u64::from_be_bytes(data.get(8..16)?.try_into().ok()?))
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let sites = ground::sites(1);
    let structure = publish::structure(&[EVENT.to_owned()], publish::QUEUE_SIZE)?;
    ground.make_site(&sites[0], &structure).await.map_err(Error::Ground)?;
    let services = ground::accounts(ground, &sites, Kind::Service, 1).await?;
    let accounts = ground::accounts(ground, &sites, Kind::Client, options.subscribers).await?;
    let shared = Arc::new(Shared {
        subscribed: AtomicU64::new(0),
        confirmed: AtomicU64::new(0),
        handed: accounts.iter().map(|_| Mutex::default()).collect(),
        latency: Mutex::new(Recorder::new()),
        plan: OnceLock::new(),
        awaited: AtomicU64::new(u64::MAX),
        changed: Notify::new(),
    });
    let subscribers = u64::from(options.subscribers);
    let clients: Vec<ClientEndpoint> = stream::iter(accounts.iter().enumerate())
        .map(|(at, account)| client(ground, at, account, &shared))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let all = |shared: &Shared| shared.subscribed.load(Ordering::SeqCst) >= subscribers;
    if !shared.wait(CONNECT_MAX, all).await {
        let have = shared.subscribed.load(Ordering::SeqCst);
        return Err(Error::Stuck(format!("{have} of {subscribers} clients are connected")));
    }
    let service =
        publish::publisher(ground.urls(), ground.roots_pem(), &services[0], options).await?;
    let start = Instant::now();
    let from = start + options.warm_up;
    let until = from + options.time;
    let gap = Duration::from_secs(1) / options.rate;
    let timeline = Timeline::new(from);
    // Nothing has set it before.
    let _ = shared.plan.set(Plan { start, gap, from, until, timeline });
    let before_all = Moment::now(ground).await?;
    let paced =
        Paced { start, from, until: Some(until), count: u64::MAX, gap: Some(gap), timeline: None };
    let (raising, own) = (service.clone(), options.clone());
    let raising =
        tokio::spawn(async move { publish::raise_paced(&raising, EVENT, 0, &own, paced).await });
    tokio::time::sleep_until(from.into()).await;
    let (before, counted) = (Moment::now(ground).await?, locked(&shared.latency).report().count);
    tokio::time::sleep_until(until.into()).await;
    let (after, in_time) = (Moment::now(ground).await?, locked(&shared.latency).report().count);
    let raised = raising.await.map_err(|error| Error::Endpoint(error.to_string()))??;
    let expected = raised.acked * subscribers;
    shared.awaited.store(expected, Ordering::SeqCst);
    let drained = |shared: &Shared| shared.confirmed.load(Ordering::SeqCst) >= expected;
    let complete = shared.wait(DRAIN_MAX, drained).await;
    let behind = until.elapsed();
    let end = Moment::now(ground).await?;
    service.close_within(CLOSE_MAX).await;
    stream::iter(clients)
        .for_each_concurrent(AT_ONCE, |client| client.close_within(CLOSE_MAX))
        .await;
    let handed: Vec<Handed> = shared.handed.iter().map(|handed| *locked(handed)).collect();
    let mut checks = Checks::default();
    count(&mut checks.counts.acked, raised.acked);
    count(&mut checks.counts.received, handed.iter().map(|handed| handed.events).sum());
    if options.verify {
        verify(&accounts, &handed, raised.acked, complete, &mut checks);
    }
    ground.remove_site(&sites[0]).await.map_err(Error::Ground)?;
    let seconds = options.time.as_secs_f64();
    let mut report =
        Report::new(Workload::Fanout, options, after.nodes(), seconds).events(raised.measured);
    report.sites = 1;
    report.sizes = json!({
        "subscribers": options.subscribers, "rate": options.rate, "size": options.size,
    });
    report.latency = Some(locked(&shared.latency).report());
    if let Some(plan) = shared.plan.get() {
        report.timeline = plan.timeline.report();
    }
    let deliveries = in_time - counted;
    let each = |cpu_s: f64| cpu_s * 1e6 / deliveries.max(1) as f64;
    report.figures = Some(Figures::Fanout(Fanout {
        deliveries_per_s: deliveries as f64 / seconds,
        server_cpu_us_per_delivery: after.server_cpu_s(&before).map(each),
        client_cpu_us_per_delivery: after.own_cpu_s(&before).map(each),
        confirmed: shared.confirmed.load(Ordering::SeqCst),
        behind_ms: behind.as_secs_f64() * 1000.0,
    }));
    // Each subscriber has one cursor under way, and the publisher its window.
    let at_once = subscribers + u64::from(options.window);
    report.durability = end.durability(&before_all, expected + raised.acked, at_once);
    after.used(&before, &mut report);
    checks.found(&mut report);
    Ok(report)
}

async fn client<G: Ground>(
    ground: &G,
    at: usize,
    account: &Account,
    shared: &Arc<Shared>,
) -> Result<ClientEndpoint, Error> {
    let (notices, handler) = (shared.clone(), shared.clone());
    let builder = ground::client(ground.urls(), ground.roots_pem(), account)
        .on_notice(move |notice| notices.tell(Told::from(notice)))
        .subscribe(Subscription::new(EVENT), move |delivery: Delivery| {
            handler.handle(at, &delivery);
            async { Ok::<(), HandlerError>(()) }
        });
    builder.start().await.map_err(|error| Error::Endpoint(error.to_string()))
}

fn verify(
    accounts: &[Account],
    handed: &[Handed],
    acked: u64,
    complete: bool,
    checks: &mut Checks,
) {
    let missing = |handed: &Handed| handed.skipped + acked.saturating_sub(handed.last);
    let sum = |of: &dyn Fn(&Handed) -> u64| handed.iter().map(of).sum::<u64>();
    count(&mut checks.counts.lost, sum(&missing));
    // What comes again is not more than what came before: whether the one or the other, it shows here.
    count(&mut checks.counts.duplicated, sum(&|handed| handed.again));
    count(&mut checks.counts.out_of_order, sum(&|handed| handed.again + handed.skipped));
    let whole =
        |handed: &Handed| handed.events == acked && handed.last == acked && handed.again == 0;
    let wrong = handed.iter().zip(accounts).filter(|(handed, _)| !whole(handed));
    let wrong = wrong.map(|(handed, account)| {
        let Handed { events, last, again, skipped } = handed;
        format!(
            "{}: {events} of {acked}, the last {last}, {again} again, {skipped} skipped",
            account.id
        )
    });
    checks.check("every subscriber was handed every event, in order, each once", wrong.collect());
    let late = if complete { Vec::new() } else { vec![format!("not within {DRAIN_MAX:?}")] };
    checks.check("every cursor was confirmed", late);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_comes_again_or_is_missing_in_the_end_fails_the_run() {
        let account = Account { site: "s".to_owned(), id: "c".to_owned(), token: String::new() };
        let judge = |events, last, again, skipped| {
            let mut checks = Checks::default();
            let handed = Handed { events, last, again, skipped };
            verify(std::slice::from_ref(&account), &[handed], 3, true, &mut checks);
            (checks.failures.is_empty(), checks.counts.lost, checks.counts.duplicated)
        };
        assert_eq!(judge(3, 3, 0, 0), (true, Some(0), Some(0)));
        assert_eq!(judge(2, 2, 0, 0), (false, Some(1), Some(0)));
        assert_eq!(judge(2, 3, 0, 1), (false, Some(1), Some(0)));
        assert_eq!(judge(4, 3, 1, 0), (false, Some(0), Some(1)));
    }
}
