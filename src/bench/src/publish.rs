//! Publishers raise as fast as their windows allow; what was acknowledged is counted and checked.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ackord_endpoint::{
    Event, Outcome, Payload, RaiseError, ServiceEndpoint, ServiceLevel, Structure,
};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use serde_json::json;

use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::{Recorder, Timeline};
use crate::meter::Moment;
use crate::options::{Options, Workload};
use crate::report::Report;
use crate::verify::{self, Checks, count};

/// The event that is raised.
pub(crate) const EVENT: &str = "load";
/// Instances that its queue keeps.
pub(crate) const QUEUE_SIZE: u32 = 1000;
/// What an event needs in a store beside its arguments, at most, bytes.
const EVENT_OVERHEAD_BYTES: u64 = 1024;
/// How long unacknowledged events are waited for in the end.
const CLOSE_MAX: Duration = Duration::from_secs(10);

type Pending = Pin<Box<dyn Future<Output = (Instant, Result<Outcome, RaiseError>)> + Send>>;

/// A structure with these queueing events.
pub(crate) fn structure(events: &[String], size: u32) -> Result<Structure, Error> {
    let event = |name: &String| json!({"name": name, "category": "queueing", "lifetime_s": 86_400, "size": size});
    let structure = json!({
        "service_type": "bench",
        "contract_author": "Ackord",
        "guests": "guest+stateless",
        "events": events.iter().map(event).collect::<Vec<_>>(),
    });
    serde_json::from_value(structure).map_err(|error| Error::Options(error.to_string()))
}

/// Starts a publisher at level SPL-1 with room for a whole window.
pub(crate) async fn publisher(
    urls: &[String],
    roots_pem: Option<&[u8]>,
    account: &Account,
    options: &Options,
) -> Result<ServiceEndpoint, Error> {
    let each = u64::from(options.size) + EVENT_OVERHEAD_BYTES;
    let bytes = (u64::from(options.window) * each * 2).max(1 << 20);
    let mut builder = ServiceEndpoint::builder()
        .site(account.site.clone())
        .token(account.token.clone())
        .persistence(ServiceLevel::Memory { bytes })
        .window(options.window);
    for url in urls {
        builder = builder.url(url.clone());
    }
    if let Some(roots) = roots_pem {
        builder = builder.tls_roots_pem(roots);
    }
    builder.start().await.map_err(|error| Error::Endpoint(error.to_string()))
}

/// Arguments that name the publisher and the number, filled up to the size.
pub(crate) fn payload(publisher: usize, number: u64, size: u32) -> Payload {
    let mut data = vec![b'.'; size as usize];
    let (publisher, number) = ((publisher as u64).to_be_bytes(), number.to_be_bytes());
    for (byte, name) in data.iter_mut().zip(publisher.into_iter().chain(number)) {
        *byte = name;
    }
    Payload { content_type: "application/octet-stream".to_owned(), data: data.into() }
}

/// Raises until `until`, or until `count` events, with a full window; the ids in order of raising.
pub(crate) async fn raise_all(
    service: &ServiceEndpoint,
    event: &str,
    publisher: usize,
    options: &Options,
    from: Instant,
    until: Option<Instant>,
    count: u64,
) -> Result<Raised, Error> {
    let paced = Paced { start: from, from, until, count, gap: None, timeline: None };
    raise_paced(service, event, publisher, options, paced).await
}

/// When a publisher raises.
#[derive(Clone)]
pub(crate) struct Paced {
    /// The first event is due.
    pub(crate) start: Instant,
    /// What is acknowledged before is not measured.
    pub(crate) from: Instant,
    /// Nothing is raised after it.
    pub(crate) until: Option<Instant>,
    /// Nothing is raised beyond so many.
    pub(crate) count: u64,
    /// From one event to the next, whatever becomes of those before; none is as fast as the window
    /// allows. What is late because the window was full counts from when it was due.
    pub(crate) gap: Option<Duration>,
    /// Where what is measured is noted by the second, too.
    pub(crate) timeline: Option<Arc<Timeline>>,
}

/// As [`raise_all`], at a pace.
pub(crate) async fn raise_paced(
    service: &ServiceEndpoint,
    event: &str,
    publisher: usize,
    options: &Options,
    paced: Paced,
) -> Result<Raised, Error> {
    let Paced { start, from, until, count, gap, timeline } = paced;
    let mut raised = Raised::nothing();
    let mut pending: FuturesOrdered<Pending> = FuturesOrdered::new();
    let mut number = 0_u64;
    let due = |number: u64| gap.map(|gap| start + gap.mul_f64(number as f64));
    loop {
        let now = Instant::now();
        let open = number < count && until.is_none_or(|until| now < until);
        while open
            && number < count
            && pending.len() < options.window as usize
            && due(number).is_none_or(|due| due <= now)
        {
            let begun = due(number).unwrap_or_else(Instant::now);
            number += 1;
            let event = Event::new(event, Some(payload(publisher, number, options.size)));
            let service = service.clone();
            let mut raise: Pending =
                Box::pin(async move { (begun, service.raise_wait(event).await) });
            // The first poll hands the event over, so that the order is that of this loop.
            match futures_util::poll!(&mut raise) {
                std::task::Poll::Ready(done) => {
                    pending.push_back(Box::pin(std::future::ready(done)));
                }
                std::task::Poll::Pending => pending.push_back(raise),
            }
        }
        let has_room = open && number < count && pending.len() < options.window as usize;
        let next_due = due(number).filter(|_| has_room);
        let next = async {
            match next_due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let (begun, result) = tokio::select! {
            Some(done) = pending.next() => done,
            () = next, if next_due.is_some() => continue,
            else => break,
        };
        let outcome = result.map_err(|error| Error::Endpoint(error.to_string()))?;
        raised.acked += u64::from(outcome.instance_id.is_some());
        raised.ids.extend(outcome.instance_id.filter(|_| options.verify));
        let now = Instant::now();
        if now >= from && until.is_none_or(|until| now < until) {
            raised.measured += 1;
            raised.latency.record(now - begun);
            if let Some(timeline) = &timeline {
                timeline.record(now, now - begun);
            }
        }
    }
    Ok(raised)
}

/// What a publisher did.
pub(crate) struct Raised {
    /// What was acknowledged, where that is to be checked.
    pub(crate) ids: Vec<u64>,
    /// How many were acknowledged.
    pub(crate) acked: u64,
    /// How many of them in the measured time.
    pub(crate) measured: u64,
    pub(crate) latency: Recorder,
}

impl Raised {
    pub(crate) fn nothing() -> Self {
        Self { ids: Vec::new(), acked: 0, measured: 0, latency: Recorder::new() }
    }
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let sites = ground::sites(options.sites);
    let structure = structure(&[EVENT.to_owned()], QUEUE_SIZE)?;
    for site in &sites {
        ground.make_site(site, &structure).await.map_err(Error::Ground)?;
    }
    let accounts = ground::accounts(ground, &sites, Kind::Service, options.publishers).await?;
    let mut services = Vec::new();
    for account in &accounts {
        services.push(publisher(ground.urls(), ground.roots_pem(), account, options).await?);
    }
    let start = Moment::now(ground).await?;
    let begun = Instant::now();
    let from = begun + options.warm_up;
    let until = from + options.time;
    let timeline = Arc::new(Timeline::new(from));
    let gap = (options.rate > 0).then(|| Duration::from_secs(1) / options.rate);
    let mut tasks = Vec::new();
    for (at, service) in services.iter().enumerate() {
        let (service, options) = (service.clone(), options.clone());
        let timeline = Some(timeline.clone());
        let paced =
            Paced { start: begun, from, until: Some(until), count: u64::MAX, gap, timeline };
        tasks.push(tokio::spawn(
            async move { raise_paced(&service, EVENT, at, &options, paced).await },
        ));
    }
    tokio::time::sleep_until(from.into()).await;
    let before = Moment::now(ground).await?;
    tokio::time::sleep_until(until.into()).await;
    let after = Moment::now(ground).await?;
    let mut raised = Vec::new();
    for task in tasks {
        raised.push(task.await.map_err(|error| Error::Endpoint(error.to_string()))??);
    }
    let end = Moment::now(ground).await?;
    for service in services {
        service.close_within(CLOSE_MAX).await;
    }
    let mut latency = Recorder::new();
    raised.iter().for_each(|raised| latency.add(&raised.latency));
    let events: u64 = raised.iter().map(|raised| raised.measured).sum();
    let acked: u64 = raised.iter().map(|raised| raised.acked).sum();
    let mut checks = Checks::default();
    if options.verify {
        verify(ground, &sites, &accounts, &raised, &mut checks).await?;
    } else {
        count(&mut checks.counts.acked, acked);
    }
    // From before the first raise to after the last answer: every sync of these events is counted.
    let at_once = u64::from(options.publishers) * u64::from(options.window);
    let durability = end.durability(&start, acked, at_once);
    if options.verify && durability.is_some() {
        let few = (durability == Some("unproven")).then(|| format!("too few for {acked} events"));
        let what = "there were syncs for a majority of nodes to have each event";
        checks.check(what, few.into_iter().collect());
    }
    for site in &sites {
        ground.remove_site(site).await.map_err(Error::Ground)?;
    }
    let seconds = options.time.as_secs_f64();
    let mut report = Report::new(Workload::Publish, options, after.nodes(), seconds).events(events);
    report.sizes = json!({
        "publishers": options.publishers, "window": options.window, "size": options.size,
        "rate": (options.rate > 0).then_some(options.rate),
    });
    report.latency = Some(latency.report());
    report.timeline = timeline.report();
    report.durability = durability;
    after.used(&before, &mut report);
    checks.found(&mut report);
    Ok(report)
}

/// What must be true of everything that was acknowledged.
pub(crate) async fn verify<G: Ground>(
    ground: &G,
    sites: &[String],
    accounts: &[Account],
    raised: &[Raised],
    checks: &mut Checks,
) -> Result<(), Error> {
    let order = accounts.iter().zip(raised);
    let order =
        order.flat_map(|(account, raised)| verify::not_increasing(&account.id, &raised.ids));
    let order: Vec<String> = order.collect();
    count(&mut checks.counts.out_of_order, order.len() as u64);
    checks.check("acknowledged ids increase per publisher", order);
    let (mut twice, mut counts, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    let (mut all, mut lost, mut again) = (0, 0, 0);
    for site in sites {
        let here = || accounts.iter().zip(raised).filter(|(account, _)| account.site == *site);
        twice.extend(verify::repeated(site, here().flat_map(|(_, raised)| &raised.ids)));
        let acknowledged = here().map(|(_, raised)| raised.acked).sum::<u64>();
        let applied = ground.head(site).await.map_err(Error::Ground)?;
        if applied != acknowledged {
            counts.push(format!("{site}: {applied} applied, {acknowledged} acknowledged"));
        }
        all += acknowledged;
        lost += acknowledged.saturating_sub(applied);
        again += applied.saturating_sub(acknowledged);
        let retained = ground.retained(site, EVENT).await.map_err(Error::Ground)?;
        let by_service: BTreeMap<String, Vec<u64>> =
            here().map(|(account, raised)| (account.id.clone(), raised.ids.clone())).collect();
        tails.extend(verify::wrong_tails(&retained, &by_service, QUEUE_SIZE as usize));
    }
    count(&mut checks.counts.acked, all);
    count(&mut checks.counts.lost, lost + tails.len() as u64);
    count(&mut checks.counts.duplicated, again + twice.len() as u64);
    checks.check("every acknowledged id is unique", twice);
    checks.check("as many events applied as acknowledged", counts);
    checks.check("the retained tail is exactly the last acknowledged events", tails);
    Ok(())
}
