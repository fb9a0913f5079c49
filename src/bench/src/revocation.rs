//! Tokens are revoked while their sessions are open at every node: how long the last session lasts.
//!
//! `round: a client and a service at every node ─▶ revoke all tokens at once ─▶ every endpoint was told`
//!
//! The time is taken from before the first revocation is asked for to the moment the last endpoint
//! knows that its session has ended and that it must not come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ackord_endpoint::{
    ClientEndpoint, ClientLevel, ClientNotice, Delivery, HandlerError, ServiceEndpoint,
    ServiceLevel, ServiceNotice, Subscription,
};
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::sync::Notify;

use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::Recorder;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT};
use crate::report::{Figures, Report, Spread};
use crate::verify::Checks;

/// Instances that the queue keeps.
const QUEUE_SIZE: u32 = 10;
/// How long sessions may take to open, or to end.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the endpoints of a round were told.
#[derive(Default)]
struct Told {
    open: AtomicU64,
    ended: AtomicU64,
    changed: Notify,
}

impl Told {
    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    async fn until(&self, counter: &AtomicU64, count: u64) -> bool {
        let waiting = async {
            while counter.load(Ordering::SeqCst) < count {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, waiting).await.is_ok()
    }
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let structure = publish::structure(&[EVENT.to_owned()], QUEUE_SIZE)?;
    let nodes = ground.urls().len() as u32;
    let (mut times, mut late, mut latency) = (Vec::new(), Vec::new(), Recorder::new());
    let begun = Instant::now();
    for number in 1..=options.rounds {
        let sites = ground::sites(1);
        ground.make_site(&sites[0], &structure).await.map_err(Error::Ground)?;
        match round(ground, &sites, nodes).await? {
            Some(took) => {
                ground.progress(&format!("round {number}: {} ms", took.as_millis()));
                latency.record(took);
                times.push(took.as_secs_f64() * 1000.0);
            }
            None => late.push(format!("round {number}")),
        }
        ground.remove_site(&sites[0]).await.map_err(Error::Ground)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let events = u64::from(options.rounds) * u64::from(nodes) * 2;
    let mut checks = Checks::default();
    checks.check("every session of a revoked token ended", late);
    let mut report =
        Report::new(Workload::Revocation, options, u64::from(nodes), seconds).events(events);
    report.sizes = json!({"rounds": options.rounds, "sessions": nodes * 2});
    report.latency = Some(latency.report());
    report.figures = Some(Figures::Revocation { revocation_ms: Spread::of(times) });
    checks.found(&mut report);
    Ok(report)
}

/// One round; `None` when a session went on.
async fn round<G: Ground>(
    ground: &G,
    sites: &[String],
    nodes: u32,
) -> Result<Option<Duration>, Error> {
    let clients = ground::accounts(ground, sites, Kind::Client, nodes).await?;
    let services = ground::accounts(ground, sites, Kind::Service, nodes).await?;
    let told = Arc::new(Told::default());
    let (mut readers, mut raisers) = (Vec::new(), Vec::new());
    for (account, url) in clients.iter().zip(ground.urls()) {
        readers.push(client(account, url, &told).await?);
    }
    for (account, url) in services.iter().zip(ground.urls()) {
        raisers.push(service(account, url, &told).await?);
    }
    let all = u64::from(nodes) * 2;
    if !told.until(&told.open, all).await {
        return Err(Error::Stuck("not all sessions opened".to_owned()));
    }
    let begun = Instant::now();
    let revoking = clients.iter().chain(&services);
    let revoking = revoking.map(|account| ground.revoke(&account.site, &account.token));
    let (revoked, ended) = tokio::join!(try_join_all(revoking), told.until(&told.ended, all));
    revoked.map_err(Error::Ground)?;
    let took = begun.elapsed();
    for reader in readers {
        reader.close_within(WAIT_MAX).await;
    }
    for raiser in raisers {
        raiser.close_within(WAIT_MAX).await;
    }
    Ok(ended.then_some(took))
}

async fn client(account: &Account, url: &str, told: &Arc<Told>) -> Result<ClientEndpoint, Error> {
    let told = told.clone();
    ClientEndpoint::builder()
        .site(account.site.clone())
        .token(Some(account.token.clone()))
        .persistence(ClientLevel::Memory)
        .url(url.to_owned())
        .on_notice(move |notice| {
            if matches!(notice, ClientNotice::Subscribed { .. }) {
                told.count(&told.open);
            } else if matches!(notice, ClientNotice::Terminal { .. }) {
                told.count(&told.ended);
            }
        })
        .subscribe(Subscription::new(EVENT), |_: Delivery| async { Ok::<(), HandlerError>(()) })
        .start()
        .await
        .map_err(|error| Error::Endpoint(error.to_string()))
}

async fn service(account: &Account, url: &str, told: &Arc<Told>) -> Result<ServiceEndpoint, Error> {
    let told = told.clone();
    ServiceEndpoint::builder()
        .site(account.site.clone())
        .token(account.token.clone())
        .persistence(ServiceLevel::Memory { bytes: 1 << 16 })
        .url(url.to_owned())
        .on_notice(move |notice| {
            if matches!(notice, ServiceNotice::Online) {
                told.count(&told.open);
            } else if matches!(notice, ServiceNotice::Terminal { .. }) {
                told.count(&told.ended);
            }
        })
        .start()
        .await
        .map_err(|error| Error::Endpoint(error.to_string()))
}
