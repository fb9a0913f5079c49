//! Accounts that connect once more while they are connected: for a while there are two clients of one
//! name and two services of one name, at different nodes, and only the newer one counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ackord_endpoint::{ClientNotice, Event, ServiceNotice};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{EVENT, OUTCOME};
use crate::cluster::Cluster;
use crate::listener::Listener;
use crate::oracle::{self, Expectations, Violation};
use crate::raiser::{self, Raiser};
use crate::seed::Seed;
use crate::site::{Account, Site, queueing, structure};
use crate::wait;

/// Between two events of a service.
const PACE: Duration = Duration::from_millis(100);
/// How long a new one may take to connect before another one is tried.
const CONNECTS: Duration = Duration::from_secs(5);
/// How long a client takes with each.
const HANDLES: Duration = Duration::from_millis(300);
/// What is judged: that two handle the same is what happens here.
const JUDGED: &[&str] = &["epochs_fence", "nothing_invented", "one_id_per_call"];

/// See the module. They stop when it is dropped.
pub struct Twins {
    site: Site,
    stopping: Arc<AtomicBool>,
    living: [JoinHandle<u64>; 2],
}

/// An account over all its lives.
struct Twin {
    site: Site,
    account: Account,
    urls: Vec<String>,
    stopping: Arc<AtomicBool>,
    seed: Seed,
}

impl Twin {
    /// Where the next one connects first.
    fn urls(&mut self) -> Vec<String> {
        let turn = self.seed.between(0, self.urls.len() as u64) as usize;
        self.urls.rotate_left(turn);
        self.urls.clone()
    }

    /// How long there are two: mostly not for long, sometimes longer than a node is suspended.
    fn lasts(&mut self) -> Duration {
        match self.seed.between(0, 3) {
            0 => self.seed.millis(2000, 6000),
            _ => self.seed.millis(100, 900),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }

    /// Clients: how often there were two.
    async fn listens(mut self) -> u64 {
        let (mut older, mut pairs): (Option<Listener>, u64) = (None, 0);
        while self.goes_on() {
            let next = self.site.listener(&self.account).via_all(self.urls());
            let next = next.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
            let next = next.handles(|_| async {
                tokio::time::sleep(HANDLES).await;
                Ok(())
            });
            let next = next.to(EVENT).start().await;
            let connected =
                |notice: &ClientNotice| matches!(notice, ClientNotice::Connected { .. });
            if !within(CONNECTS, || next.notices.count(connected) > 0).await {
                next.kill().await;
                continue;
            }
            let lasts = self.lasts();
            within(lasts, || !self.goes_on()).await;
            if let Some(older) = older.replace(next) {
                pairs += 1;
                older.kill().await;
            }
        }
        if let Some(last) = older {
            last.kill().await;
        }
        pairs
    }

    /// Services: how often there were two.
    async fn raises(mut self) -> u64 {
        let (mut older, mut pairs, mut n): (Option<Raiser>, u64, u64) = (None, 0, 0);
        while self.goes_on() {
            let next = self.site.raiser(&self.account).via_all(self.urls());
            let next = next.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
            let next = next.lives(self.site.next_life(&self.account.id)).start().await;
            let connected =
                |notice: &ServiceNotice| matches!(notice, ServiceNotice::Connected { .. });
            if !within(CONNECTS, || next.notices.count(connected) > 0).await {
                next.kill().await;
                continue;
            }
            let both: Vec<&Raiser> = older.iter().chain([&next]).collect();
            let end = Instant::now() + self.lasts();
            let mut flying = FuturesUnordered::new();
            while Instant::now() < end && self.goes_on() {
                for raiser in &both {
                    n += 1;
                    let event = Event::new(EVENT, Some(raiser::json(json!({ "n": n }))));
                    flying.push(raiser.outcome(event));
                }
                let heard = async { while flying.next().await.is_some() {} };
                // What is still on its way then is heard of later, or never.
                let _ = tokio::time::timeout(PACE, heard).await;
                tokio::time::sleep(PACE).await;
            }
            drop(flying);
            if let Some(older) = older.replace(next) {
                pairs += 1;
                older.kill().await;
            }
        }
        if let Some(last) = older {
            last.kill().await;
        }
        pairs
    }
}

/// Whether this comes about in so long.
async fn within(patience: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() && Instant::now() < deadline {
        tokio::time::sleep(wait::POLL).await;
    }
    holds()
}

impl Twins {
    /// Makes the site and starts everybody.
    pub async fn start(cluster: &Cluster, mut seed: Seed) -> Self {
        let structure = structure(&[queueing(EVENT, 20)]);
        let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "twins", &structure).await;
        let (service, client) = (site.service("speaks").await, site.guest("hears").await);
        let stopping = Arc::<AtomicBool>::default();
        let mut twin = |account| Twin {
            site: site.clone(),
            account,
            urls: cluster.urls_from(2),
            stopping: stopping.clone(),
            seed: seed.fork(),
        };
        let (speaks, hears) = (twin(service), twin(client));
        let living = [tokio::spawn(speaks.raises()), tokio::spawn(hears.listens())];
        Self { site, stopping, living }
    }

    /// Lets them end and judges what happened.
    ///
    /// # Panics
    /// When there never were two.
    pub async fn end(mut self) -> Vec<Violation> {
        self.stopping.store(true, Ordering::Relaxed);
        for living in &mut self.living {
            let ended = tokio::time::timeout(OUTCOME, living).await;
            let pairs = ended.expect("a twin hangs").expect("no panic");
            assert!(pairs > 0, "there never were two");
        }
        let mut found = oracle::judge(&self.site.history, &Expectations::default());
        found.retain(|violation| JUDGED.contains(&violation.property));
        found
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        self.living.iter().for_each(JoinHandle::abort);
    }
}
