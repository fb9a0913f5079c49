//! What is admitted of more than a rate allows, over all nodes at once, and what a site that keeps to
//! its own rate sees meanwhile.
//!
//! `for each kind of rate: one site raises all it can at every node | another one raises half of its own`
//!
//! A ratio is what was acknowledged in the measured time over what the rate allows in that time. The
//! burst that a full bucket lets through is over before the measurement begins.

use std::time::{Duration, Instant};

use ackord_endpoint::{Event, Outcome, RaiseError, ServiceEndpoint};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;

use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::Recorder;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT, Raised, payload, publisher, raise_all};
use crate::report::{Figures, Quota, Report};
use crate::verify::Checks;

/// Instances that the queues keep.
const QUEUE_SIZE: u32 = 1000;
/// Until the first burst is over and all are held back.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a publisher may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// What a rate may be off by.
const TOLERANCE: f64 = 0.05;
/// The part of its rate that the other site uses.
const QUIET_DIVISOR: u32 = 2;

/// What one kind of rate came to.
struct Held {
    quota: Quota,
    events: u64,
    latency: Recorder,
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let mut checks = Checks::default();
    let (mut quotas, mut events, mut latency) = (Vec::new(), 0, Recorder::new());
    // What an event takes of a rate of bytes: its arguments with their media type.
    let one = payload(0, 0, options.size);
    let bytes = (one.data.len() + one.content_type.len()) as u64;
    for (name, allowed, bytes) in [
        ("events_per_s", u64::from(options.rate), 1),
        ("bytes_per_s", u64::from(options.rate) * bytes, bytes),
    ] {
        ground.progress(&format!("{name} {allowed}"));
        let held = hold(ground, options, name, allowed, bytes, &mut checks).await?;
        events += held.events;
        latency.add(&held.latency);
        quotas.push(held.quota);
    }
    let off = |what: &str, ratio: f64| {
        ((ratio - 1.0).abs() > TOLERANCE).then(|| format!("{what}: {ratio:.3} of it"))
    };
    // Figures, not guarantees: a machine that stands still for a moment moves them. They are told
    // as verified where they are as they should be, and what is off is said.
    let mut figure = |what: &str, off: Vec<String>| match &off[..] {
        [] => checks.verified.push(what.to_owned()),
        off => off.iter().for_each(|off| ground.progress(&format!("not {what}: {off}"))),
    };
    let loud = quotas.iter().filter_map(|it| off(it.quota, it.ratio));
    figure("each rate is held within 5 %", loud.collect());
    let quiet = quotas.iter().filter_map(|it| off(it.quota, it.beside_ratio));
    figure("the other site is served all that it raises", quiet.collect());
    let seconds = options.time.as_secs_f64() * quotas.len() as f64;
    let nodes = ground.urls().len() as u64;
    let mut report = Report::new(Workload::Quota, options, nodes, seconds).events(events);
    report.sizes = json!({
        "publishers": options.publishers, "window": options.window, "size": options.size,
        "rate": options.rate,
    });
    report.latency = Some(latency.report());
    report.figures = Some(Figures::Quotas { quotas });
    checks.found(&mut report);
    Ok(report)
}

/// Loads one site beyond a rate, and another one within the same.
async fn hold<G: Ground>(
    ground: &G,
    options: &Options,
    name: &'static str,
    allowed: u64,
    each: u64,
    checks: &mut Checks,
) -> Result<Held, Error> {
    let structure = publish::structure(&[EVENT.to_owned()], QUEUE_SIZE)?;
    let sites = ground::sites(2);
    for site in &sites {
        ground.make_site(site, &structure).await.map_err(Error::Ground)?;
        ground.set_quotas(site, &json!({ name: allowed })).await.map_err(Error::Ground)?;
    }
    let loud = ground::accounts(ground, &sites[..1], Kind::Service, options.publishers).await?;
    let quiet = ground::accounts(ground, &sites[1..], Kind::Service, 1).await?;
    let from = Instant::now() + WARM_UP;
    let until = from + options.time;
    let (mut tasks, mut services) = (Vec::new(), Vec::new());
    for (at, account) in loud.iter().enumerate() {
        let service = at_a_node(ground, at, account, options).await?;
        services.push(service.clone());
        let options = options.clone();
        tasks.push(tokio::spawn(async move {
            raise_all(&service, EVENT, at, &options, from, Some(until), u64::MAX).await
        }));
    }
    let service = at_a_node(ground, loud.len(), &quiet[0], options).await?;
    let beside = pace(&service, loud.len(), options, from, until).await?;
    services.push(service);
    let mut raised = Vec::new();
    for task in tasks {
        raised.push(task.await.map_err(|error| Error::Endpoint(error.to_string()))??);
    }
    for service in services {
        service.close_within(CLOSE_MAX).await;
    }
    publish::verify(ground, &sites[..1], &loud, &raised, checks).await?;
    for site in &sites {
        ground.remove_site(site).await.map_err(Error::Ground)?;
    }
    let seconds = options.time.as_secs_f64();
    let events: u64 = raised.iter().map(|raised| raised.measured).sum();
    let admitted_per_s = (events * each) as f64 / seconds;
    let wanted = f64::from(quiet_rate(options)) * seconds;
    let told = beside.latency.report();
    Ok(Held {
        quota: Quota {
            quota: name,
            allowed_per_s: allowed,
            admitted_per_s,
            ratio: admitted_per_s / allowed as f64,
            beside_ratio: beside.measured as f64 / wanted,
            beside_p50_us: told.p50_us,
            beside_p99_us: told.p99_us,
        },
        events: events + beside.measured,
        latency: beside.latency,
    })
}

/// A publisher that begins at another node than the one before.
async fn at_a_node<G: Ground>(
    ground: &G,
    at: usize,
    account: &Account,
    options: &Options,
) -> Result<ServiceEndpoint, Error> {
    let mut urls = ground.urls().to_vec();
    let turn = at % urls.len().max(1);
    urls.rotate_left(turn);
    publisher(&urls, ground.roots_pem(), account, options).await
}

fn quiet_rate(options: &Options) -> u32 {
    (options.rate / QUIET_DIVISOR).max(1)
}

/// Raises at an even pace, whatever is still unanswered.
async fn pace(
    service: &ServiceEndpoint,
    at: usize,
    options: &Options,
    from: Instant,
    until: Instant,
) -> Result<Raised, Error> {
    let mut raised = Raised::nothing();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / quiet_rate(options));
    let mut pending = FuturesUnordered::new();
    let mut number = 0;
    let mut take = |begun: Instant, outcome: Result<Outcome, RaiseError>| {
        let outcome = outcome.map_err(|error| Error::Endpoint(error.to_string()))?;
        raised.acked += u64::from(outcome.instance_id.is_some());
        raised.ids.extend(outcome.instance_id);
        // What is raised in the measured time counts, however late it is answered: that shows in
        // the latencies.
        if begun >= from && begun < until {
            raised.measured += 1;
            raised.latency.record(begun.elapsed());
        }
        Ok::<(), Error>(())
    };
    loop {
        tokio::select! {
            _tick = ticks.tick(), if Instant::now() < until => {
                number += 1;
                let event = Event::new(EVENT, Some(payload(at, number, options.size)));
                let (service, begun) = (service.clone(), Instant::now());
                pending.push(async move { (begun, service.raise_wait(event).await) });
            }
            Some((begun, outcome)) = pending.next() => take(begun, outcome)?,
            else => return Ok(raised),
        }
    }
}
