//! A leader fails again and again while publishers raise: how long nothing is acknowledged.
//!
//! `round: strike the leader of the site ─▶ every publisher is acknowledged again ─▶ mend ─▶ settled`
//!
//! A gap is the longest time between two acknowledgements of all publishers of the site together; a
//! wait is the longest that one of them waited for one event, connecting again included. Both are
//! taken over the whole round, so that the way back counts as well. A publisher whose own node is
//! suspended waits for as long as that lasts; it is left out. Another site, led elsewhere,
//! shows what the fault does to those whom it does not concern.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackord_endpoint::{Event, ServiceEndpoint};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::ground::{self, Account, Fault, Ground, Kind};
use crate::latency::Recorder;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT, Raised};
use crate::report::{Failover, Figures, Report, Spread};
use crate::verify::{Checks, count};

/// Instances that the queues keep.
const QUEUE_SIZE: u32 = 1000;
/// Sites that are tried until one is led by another node.
const SITES: u32 = 24;
/// How long a round may take.
const ROUND_MAX: Duration = Duration::from_secs(120);
/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long load flows before the first fault.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a publisher may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// The publishers of a site, and what they see.
struct Crowd {
    site: String,
    accounts: Vec<Account>,
    seen: Arc<Seen>,
    publishing: Vec<JoinHandle<Result<Raised, Error>>>,
    services: Vec<ServiceEndpoint>,
}

/// What a crowd sees in a round.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    last: Mutex<Option<Instant>>,
    gap_us: AtomicU64,
    wait_us: AtomicU64,
    since: Mutex<Since>,
}

/// What counts in a round.
#[derive(Default)]
struct Since {
    begun: Option<Instant>,
    /// By publisher: whether it may be stuck, at the node that is suspended.
    stuck: Vec<bool>,
    /// By publisher: whether something was acknowledged that it raised in this round.
    served: Vec<bool>,
}

impl Seen {
    fn begin(&self, stuck: Vec<bool>) {
        let now = Instant::now();
        *locked(&self.last) = Some(now);
        let served = vec![false; stuck.len()];
        *locked(&self.since) = Since { begun: Some(now), stuck, served };
        self.gap_us.store(0, Ordering::SeqCst);
        self.wait_us.store(0, Ordering::SeqCst);
    }

    fn acknowledged(&self, publisher: usize, raised: Instant) {
        let now = Instant::now();
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let last = locked(&self.last).replace(now);
        if let Some(last) = last {
            self.gap_us.fetch_max(us(now.saturating_duration_since(last)), Ordering::SeqCst);
        }
        let mut since = locked(&self.since);
        if !since.stuck.get(publisher).copied().unwrap_or(false) {
            self.wait_us.fetch_max(us(now - raised), Ordering::SeqCst);
        }
        if since.begun.is_some_and(|begun| raised > begun)
            && let Some(served) = since.served.get_mut(publisher)
        {
            *served = true;
        }
    }

    /// Whether every publisher that can be was acknowledged something of this round.
    fn all(&self) -> bool {
        let since = locked(&self.since);
        since.served.iter().zip(&since.stuck).all(|(served, stuck)| *served || *stuck)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    async fn start<G: Ground>(
        ground: &G,
        site: String,
        count: u32,
        options: &Options,
    ) -> Result<Self, Error> {
        let sites = [site.clone()];
        let accounts = ground::accounts(ground, &sites, Kind::Service, count).await?;
        let seen = Arc::new(Seen::default());
        let (mut services, mut publishing) = (Vec::new(), Vec::new());
        for (at, account) in accounts.iter().enumerate() {
            // Each on another node to begin with.
            let mut urls = ground.urls().to_vec();
            let turn = at % urls.len().max(1);
            urls.rotate_left(turn);
            let service = publish::publisher(&urls, ground.roots_pem(), account, options).await?;
            let raising = raise(service.clone(), at, options.clone(), seen.clone());
            publishing.push(tokio::spawn(raising));
            services.push(service);
        }
        Ok(Self { site, accounts, seen, publishing, services })
    }

    /// A round begins in which this node, if any, is suspended.
    fn begin(&self, suspended: Option<u64>, nodes: u32) {
        // Nobody leaves a node that is suspended for so short a time: all are where they began.
        let at = |publisher: usize| publisher as u64 % u64::from(nodes) + 1;
        let publishers = 0..self.accounts.len();
        self.seen.begin(publishers.map(|publisher| suspended == Some(at(publisher))).collect());
    }

    async fn finish(self) -> Result<(String, Vec<Account>, Vec<Raised>), Error> {
        self.seen.stop.store(true, Ordering::SeqCst);
        let mut raised = Vec::new();
        for publisher in self.publishing {
            let done = publisher.await.map_err(|error| Error::Endpoint(error.to_string()))?;
            raised.push(done?);
        }
        for service in self.services {
            service.close_within(CLOSE_MAX).await;
        }
        Ok((self.site, self.accounts, raised))
    }
}

/// Raises one event after the other at the rate that is asked for.
async fn raise(
    service: ServiceEndpoint,
    publisher: usize,
    options: Options,
    seen: Arc<Seen>,
) -> Result<Raised, Error> {
    let mut raised = Raised::nothing();
    let mut pace = (options.rate > 0).then(|| {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / options.rate);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pace
    });
    let mut number = 0;
    while !seen.stop.load(Ordering::SeqCst) {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        number += 1;
        let payload = publish::payload(publisher, number, options.size);
        let begun = Instant::now();
        let outcome = service.raise_wait(Event::new(EVENT, Some(payload))).await;
        let outcome = outcome.map_err(|error| Error::Endpoint(error.to_string()))?;
        seen.acknowledged(publisher, begun);
        raised.acked += u64::from(outcome.instance_id.is_some());
        raised.ids.extend(outcome.instance_id);
        raised.measured += 1;
        raised.latency.record(begun.elapsed());
    }
    Ok(raised)
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let structure = publish::structure(&[EVENT.to_owned()], QUEUE_SIZE)?;
    let mut sites = Vec::new();
    let mut first = None;
    // The first site, and one that another node leads.
    for site in ground::sites(SITES) {
        ground.make_site(&site, &structure).await.map_err(Error::Ground)?;
        let leader = leader(ground, &site).await?;
        let other = *first.get_or_insert(leader) != leader;
        if sites.is_empty() || other {
            sites.push(site);
        } else {
            ground.remove_site(&site).await.map_err(Error::Ground)?;
        }
        if other {
            break;
        }
    }
    let [site, elsewhere] = &sites[..] else {
        return Err(Error::Options("failover needs nodes that lead: --nodes 3".to_owned()));
    };
    let nodes = u32::try_from(ground.urls().len()).unwrap_or(1);
    let begun = Instant::now();
    let crowd = Crowd::start(ground, site.clone(), options.publishers, options).await?;
    let others = Crowd::start(ground, elsewhere.clone(), nodes, options).await?;
    tokio::time::sleep(WARM_UP).await;
    let (mut gaps, mut waits, mut elsewhere_gaps) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let node = leader(ground, site).await?;
        let spared = leader(ground, elsewhere).await? != node;
        let suspended = (options.fault == Fault::Pause).then_some(node);
        crowd.begin(suspended, nodes);
        others.begin(suspended, nodes);
        ground.strike(node, options.fault).await.map_err(Error::Ground)?;
        until(|| crowd.seen.all() && others.seen.all(), "a publisher is not served").await?;
        ground.mend(node, options.fault).await.map_err(Error::Ground)?;
        ground.settle().await.map_err(Error::Ground)?;
        let ms = |us: &AtomicU64| us.load(Ordering::SeqCst) as f64 / 1000.0;
        gaps.push(ms(&crowd.seen.gap_us));
        waits.push(ms(&crowd.seen.wait_us));
        if spared {
            elsewhere_gaps.push(ms(&others.seen.gap_us));
        }
        ground.progress(&format!(
            "round {round} of {}: node {node}, gap {:.0} ms, longest wait {:.0} ms, elsewhere {:.0} ms",
            options.rounds,
            ms(&crowd.seen.gap_us),
            ms(&crowd.seen.wait_us),
            ms(&others.seen.gap_us),
        ));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (mut latency, mut events, mut checks) = (Recorder::new(), 0, Checks::default());
    for crowd in [crowd, others] {
        let (site, accounts, raised) = crowd.finish().await?;
        raised.iter().for_each(|raised| latency.add(&raised.latency));
        events += raised.iter().map(|raised| raised.measured).sum::<u64>();
        if options.verify {
            publish::verify(ground, &[site], &accounts, &raised, &mut checks).await?;
        } else {
            count(&mut checks.counts.acked, raised.iter().map(|raised| raised.acked).sum());
        }
    }
    for site in &sites {
        ground.remove_site(site).await.map_err(Error::Ground)?;
    }
    let gaps_ms = Spread::of(gaps);
    let mut report =
        Report::new(Workload::Failover, options, u64::from(nodes), seconds).events(events);
    report.sizes = json!({
        "publishers": options.publishers, "size": options.size, "rate": options.rate,
        "rounds": options.rounds, "fault": options.fault.name(),
    });
    report.latency = Some(latency.report());
    report.figures = Some(Figures::Failover(Failover {
        gap_ms: gaps_ms.as_ref().map(|gaps| gaps.p50),
        gaps_ms,
        wait_ms: Spread::of(waits),
        elsewhere_gap_ms: Spread::of(elsewhere_gaps),
    }));
    checks.found(&mut report);
    Ok(report)
}

/// The node that leads where a site is kept.
async fn leader<G: Ground>(ground: &G, site: &str) -> Result<u64, Error> {
    let begun = Instant::now();
    loop {
        if let Some(leader) = ground.leader(site).await.map_err(Error::Ground)? {
            return Ok(leader);
        }
        if begun.elapsed() > ROUND_MAX {
            return Err(Error::Stuck(format!("{site} has no leader")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn until(is_so: impl Fn() -> bool, else_: &str) -> Result<(), Error> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > ROUND_MAX {
            return Err(Error::Stuck(else_.to_owned()));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_over_when_every_publisher_is_acknowledged_what_it_raised_in_it() {
        let seen = Seen::default();
        let before = Instant::now();
        seen.begin(vec![false, false, true]);
        seen.acknowledged(0, before);
        seen.acknowledged(1, Instant::now());
        assert!(!seen.all(), "the first one was raised before the round");
        seen.acknowledged(0, Instant::now());
        assert!(seen.all());
    }
}
