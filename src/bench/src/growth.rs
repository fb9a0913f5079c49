//! What those that are idle cost those that work: publishers, and subscriptions with a backlog, beside so
//! many idle clients, sites, subscriptions and retained events, and beside twice as many.
//!
//! ```text
//! once ─▶ twice ─▶ once ─▶ twice ─▶ … ─▶ once      each: publish, then deliver
//! ```
//!
//! A ratio is what was reached beside twice as many over the mean of what was reached before and after
//! beside once as many, so that a machine that becomes slower meanwhile does not show in it. All of the idle
//! are in sites of their own. The figures fail no run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ackord_endpoint::{ClientEndpoint, Delivery, HandlerError, Subscription};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::sync::watch;

use crate::deliver;
use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::meter::Moment;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT, QUEUE_SIZE};
use crate::report::{Figures, Growth, Report, Spread};
use crate::told::Told;
use crate::verify::{Checks, count};

/// One idle site for so many idle clients.
const CLIENTS_PER_SITE: u32 = 10;
/// Queues that retain events.
const QUEUES: u32 = 10;
/// How long all clients of a group may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(300);
/// How long a client or the publisher may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Clients that close, or sites that are made, at once.
const AT_ONCE: usize = 16;

/// What there is more and more of.
#[derive(Clone, Copy)]
enum Kinds {
    Clients,
    Sites,
    Subscriptions,
    Retained,
}

/// A group of the idle.
struct Group {
    sites: Vec<String>,
    clients: Vec<ClientEndpoint>,
}

impl Kinds {
    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Sites => "sites",
            Self::Subscriptions => "subscriptions",
            Self::Retained => "retained",
        }
    }

    /// How many a group has.
    fn count(self, options: &Options) -> u32 {
        match self {
            Self::Clients | Self::Subscriptions => options.subscribers,
            Self::Sites => options.subscribers.div_ceil(CLIENTS_PER_SITE),
            Self::Retained => options.subscribers.min(QUEUE_SIZE).saturating_mul(QUEUES),
        }
    }

    async fn add<G: Ground>(
        self,
        ground: &G,
        options: &Options,
        group: u32,
    ) -> Result<Group, Error> {
        let (name, count) = (format!("bench-idle-{}-{group}", self.name()), self.count(options));
        let (sites, events) = match self {
            Self::Sites => {
                ((1..=count).map(|n| format!("{name}-{n}")).collect(), vec![EVENT.to_owned()])
            }
            Self::Retained => (vec![name], (1..=QUEUES).map(|n| format!("idle-{n}")).collect()),
            Self::Clients | Self::Subscriptions => (vec![name], vec![EVENT.to_owned()]),
        };
        let structure = publish::structure(&events, QUEUE_SIZE)?;
        stream::iter(&sites)
            .map(|site| ground.make_site(site, &structure))
            .buffered(AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(Error::Ground)?;
        let mut group = Group { sites, clients: Vec::new() };
        match self {
            Self::Sites => {}
            Self::Clients => group.clients = connected(ground, &group.sites, count).await?,
            Self::Subscriptions => {
                close(connected(ground, &group.sites, count).await?).await;
            }
            Self::Retained => retain(ground, options, &group.sites, &events, count).await?,
        }
        Ok(group)
    }
}

impl Group {
    async fn remove<G: Ground>(self, ground: &G) -> Result<(), Error> {
        close(self.clients).await;
        stream::iter(&self.sites)
            .map(|site| ground.remove_site(site))
            .buffered(AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(Error::Ground)
    }
}

async fn close(clients: Vec<ClientEndpoint>) {
    stream::iter(clients)
        .for_each_concurrent(AT_ONCE, |client| client.close_within(CLOSE_MAX))
        .await;
}

async fn retain<G: Ground>(
    ground: &G,
    options: &Options,
    sites: &[String],
    events: &[String],
    count: u32,
) -> Result<(), Error> {
    let services = ground::accounts(ground, sites, Kind::Service, 1).await?;
    let service =
        publish::publisher(ground.urls(), ground.roots_pem(), &services[0], options).await?;
    for event in events {
        let each = u64::from(count / QUEUES);
        publish::raise_all(&service, event, 0, options, Instant::now(), None, each).await?;
    }
    service.close_within(CLOSE_MAX).await;
    Ok(())
}

/// Clients with one subscription each that have nothing to take.
async fn connected<G: Ground>(
    ground: &G,
    sites: &[String],
    count: u32,
) -> Result<Vec<ClientEndpoint>, Error> {
    let accounts = ground::accounts(ground, sites, Kind::Client, count).await?;
    let (told, mut subscribed) = watch::channel(0_u32);
    let told = Arc::new(told);
    let start = async |account: &Account| {
        let told = told.clone();
        let builder = ground::client(ground.urls(), ground.roots_pem(), account)
            .on_notice(move |notice| {
                if matches!(Told::from(notice), Told::Subscribed) {
                    told.send_modify(|count| *count += 1);
                }
            })
            .subscribe(Subscription::new(EVENT), |_: Delivery| async {
                Ok::<(), HandlerError>(())
            });
        builder.start().await.map_err(|error| Error::Endpoint(error.to_string()))
    };
    let clients = stream::iter(&accounts).map(start).buffered(AT_ONCE).try_collect().await?;
    let all = subscribed.wait_for(|subscribed| *subscribed >= count);
    match tokio::time::timeout(CONNECT_MAX, all).await {
        Ok(Ok(_)) => Ok(clients),
        Ok(Err(_)) | Err(_) => Err(Error::Stuck(format!("{count} clients are not connected"))),
    }
}

/// What was reached at a time, each with the processor time of the nodes, microseconds per event.
struct Reached {
    publish: Work,
    deliver: Work,
}

struct Work {
    per_s: f64,
    cpu_us: Option<f64>,
}

impl Work {
    /// Takes what a run counted and checked over into that of the whole.
    fn of(report: Report, events: &mut u64, checks: &mut Checks) -> Self {
        let Report { counts, failures, bench, events_per_s, server_cpu_us_per_event, .. } = report;
        *events += report.events;
        let all = &mut checks.counts;
        for (all, more) in [
            (&mut all.acked, counts.acked),
            (&mut all.received, counts.received),
            (&mut all.lost, counts.lost),
            (&mut all.duplicated, counts.duplicated),
            (&mut all.out_of_order, counts.out_of_order),
        ] {
            if let Some(more) = more {
                count(all, more);
            }
        }
        checks.failures.extend(failures.into_iter().map(|failure| format!("{bench}: {failure}")));
        Self { per_s: events_per_s, cpu_us: server_cpu_us_per_event }
    }
}

/// Measures once, and again and again with the second group.
async fn grow<G: Ground>(
    kind: Kinds,
    ground: &G,
    options: &Options,
    (events, checks): (&mut u64, &mut Checks),
) -> Result<Growth, Error> {
    let working = Options { subscribers: options.subscriptions, ..options.clone() };
    let mut measure = async || -> Result<Reached, Error> {
        // What the last change left to write is written first.
        Moment::settled(ground).await?;
        let publish = Work::of(publish::run(ground, &working).await?, events, checks);
        let deliver = Work::of(deliver::run(ground, &working).await?, events, checks);
        Ok(Reached { publish, deliver })
    };
    let first = kind.add(ground, options, 1).await?;
    let (mut once, mut twice) = (vec![measure().await?], Vec::new());
    for round in 1..=options.rounds {
        ground.progress(&format!("{}: round {round} of {}", kind.name(), options.rounds));
        let second = kind.add(ground, options, 2).await?;
        twice.push(measure().await?);
        second.remove(ground).await?;
        once.push(measure().await?);
    }
    first.remove(ground).await?;
    let of = |figure: fn(&Reached) -> Option<f64>| ratios(&once, &twice, figure);
    let median = |figure: fn(&Reached) -> Option<f64>| {
        Spread::of(once.iter().filter_map(figure).collect()).map(|spread| spread.p50)
    };
    Ok(Growth {
        idle: kind.name(),
        count: kind.count(options),
        publish_per_s: median(|reached| Some(reached.publish.per_s)),
        publish_ratio: of(|reached| Some(reached.publish.per_s)),
        publish_cpu_ratio: of(|reached| reached.publish.cpu_us),
        deliver_per_s: median(|reached| Some(reached.deliver.per_s)),
        deliver_ratio: of(|reached| Some(reached.deliver.per_s)),
        deliver_cpu_ratio: of(|reached| reached.deliver.cpu_us),
    })
}

/// The figure beside twice as many over the mean of those before and after.
fn ratios(
    once: &[Reached],
    twice: &[Reached],
    figure: fn(&Reached) -> Option<f64>,
) -> Option<Spread> {
    let around = once.windows(2).zip(twice);
    let ratio = |(around, twice): (&[Reached], &Reached)| {
        let [before, after] = around else { return None };
        Some(figure(twice)? * 2.0 / (figure(before)? + figure(after)?))
    };
    Spread::of(around.filter_map(ratio).collect())
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let (mut events, mut checks, mut growth) = (0, Checks::default(), Vec::new());
    let begun = Instant::now();
    for kind in [Kinds::Clients, Kinds::Sites, Kinds::Subscriptions, Kinds::Retained] {
        growth.push(grow(kind, ground, options, (&mut events, &mut checks)).await?);
    }
    if options.verify && checks.failures.is_empty() {
        checks.verified.push("every run beside the idle verified what it did".to_owned());
    }
    let nodes = Moment::now(ground).await?.nodes();
    let seconds = begun.elapsed().as_secs_f64();
    let mut report = Report::new(Workload::Growth, options, nodes, seconds).events(events);
    report.sizes = json!({
        "publishers": options.publishers, "window": options.window, "size": options.size,
        "subscriptions": options.subscriptions, "backlog": options.backlog,
        "idle": options.subscribers, "rounds": options.rounds,
    });
    report.figures = Some(Figures::Growth { growth });
    checks.found(&mut report);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_becomes_slower_does_not_show_in_a_ratio() {
        let reached = |per_s| Reached {
            publish: Work { per_s, cpu_us: None },
            deliver: Work { per_s: 1.0, cpu_us: Some(per_s) },
        };
        let once: Vec<Reached> = [100.0, 80.0, 60.0].map(reached).into();
        let twice: Vec<Reached> = [90.0, 35.0].map(reached).into();
        let of = |figure| ratios(&once, &twice, figure);
        let each = of(|reached| Some(reached.publish.per_s)).map(|spread| spread.each);
        assert_eq!(each, Some(vec![0.5, 1.0]));
        assert_eq!(of(|reached| reached.publish.cpu_us), None);
        assert_eq!(of(|reached| reached.deliver.cpu_us).map(|spread| spread.p50), Some(0.75));
    }
}
