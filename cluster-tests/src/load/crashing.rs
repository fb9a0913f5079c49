//! A service and two clients that are killed again and again: within a handler, around the
//! acknowledgement, and at any other moment.
//!
//! Invariants: a client that is killed comes back at another node, with its file (CPL-2) or without
//! anything (CPL-1); the service comes back with its file (SPL-2) and raises nothing again itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, pending};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::{Cast, EVENT, Judged, OUTCOME, Workload, number, publish_while};
use crate::cluster::Cluster;
use crate::history::Handled;
use crate::oracle::{self, Expectations};
use crate::seed::Seed;
use crate::site::{Account, Site, queueing, structure};
use crate::wait;

/// Between two events of the service.
const PACE: Duration = Duration::from_millis(25);

/// See the module.
pub struct Crashing {
    cast: Cast,
    /// The last instance that there is, once that is known.
    last: Arc<AtomicU64>,
    /// How often somebody was killed.
    deaths: Arc<AtomicU64>,
    publishing: JoinHandle<u64>,
    living: Vec<JoinHandle<u64>>,
}

/// When a client dies.
#[derive(Clone, Copy)]
enum Moment {
    /// The handler never returns.
    Within,
    /// The handler returns, and the acknowledgement may be on its way.
    Around,
    /// A while later.
    Later(Duration),
}

impl Moment {
    fn of(seed: &mut Seed) -> Self {
        match seed.between(0, 4) {
            0 => Self::Within,
            1 | 2 => Self::Around,
            _ => Self::Later(seed.millis(0, 40)),
        }
    }
}

/// A client over all its lives.
struct Client {
    site: Site,
    account: Account,
    urls: Vec<String>,
    state: Option<PathBuf>,
    progress: Arc<Progress>,
    index: usize,
    last: Arc<AtomicU64>,
    deaths: Arc<AtomicU64>,
    seed: Seed,
}

impl Client {
    /// One life: whether it was the last one, in which everything was handled.
    async fn lives(&mut self) -> bool {
        let turn = self.seed.between(0, self.urls.len() as u64) as usize;
        self.urls.rotate_left(turn);
        let moment = Moment::of(&mut self.seed);
        let fatal = self.progress.handled()[self.index] + self.seed.between(2, 25);
        let (reached, handled) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
        let dying = Arc::new(AtomicBool::new(false));
        let mut builder = self.site.listener(&self.account).via_all(self.urls.clone());
        builder = builder.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
        if let Some(state) = &self.state {
            until_free(state).await;
            builder = builder.state(state);
        }
        let (progress, index, newest) = (self.progress.clone(), self.index, handled.clone());
        let (told, dies) = (reached.clone(), dying.clone());
        let builder = builder.handles(move |handled: Handled| {
            let n = number(&handled);
            progress.reach(index, n);
            newest.fetch_max(handled.instance_id, Ordering::SeqCst);
            let fatal = n >= fatal && !dies.load(Ordering::SeqCst);
            if fatal {
                told.notify_one();
            }
            async move {
                if fatal && matches!(moment, Moment::Within) {
                    pending::<()>().await;
                }
                Ok(())
            }
        });
        let listener = builder.to(EVENT).start().await;
        let is_last = loop {
            let looked = tokio::time::timeout(Duration::from_millis(50), reached.notified()).await;
            if looked.is_ok() {
                break false;
            }
            // It may have been confirmed in an earlier life, and nothing comes any more.
            let last = self.last.load(Ordering::SeqCst);
            let newest = handled.load(Ordering::SeqCst);
            if newest.max(self.site.history.committed(&self.account.id, EVENT)) >= last {
                break true;
            }
        };
        if let Moment::Later(while_long) = moment {
            tokio::time::sleep(while_long).await;
        }
        dying.store(true, Ordering::SeqCst);
        if is_last {
            listener.close().await;
        } else {
            listener.kill().await;
        }
        is_last
    }

    async fn run(mut self) -> u64 {
        let mut killed = 0;
        while !self.lives().await {
            killed += 1;
            self.deaths.fetch_add(1, Ordering::Relaxed);
        }
        killed
    }
}

/// Waits until nobody holds the lock of a file that an endpoint had. The endpoint is gone, but a
/// process that is just being started was forked from this one, and has its descriptors until it
/// begins.
pub(super) async fn until_free(path: &Path) {
    let lock = PathBuf::from(format!("{}.lock", path.display()));
    loop {
        match std::fs::File::options().write(true).open(&lock) {
            Err(_) => return,
            Ok(file) if file.try_lock().is_ok() => return,
            Ok(_) => tokio::time::sleep(wait::POLL).await,
        }
    }
}

/// The service over all its lives; how often it was killed.
async fn serve(
    site: Site,
    account: Account,
    mut urls: Vec<String>,
    store: PathBuf,
    progress: Arc<Progress>,
    mut seed: Seed,
) -> u64 {
    let mut killed = 0;
    loop {
        let turn = seed.between(0, urls.len() as u64) as usize;
        urls.rotate_left(turn);
        until_free(&store).await;
        let raiser = site.raiser(&account).via_all(urls.clone()).store(&store);
        let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
        let raiser = raiser.start().await;
        let fatal = progress.acknowledged() + seed.between(10, 80);
        let goes_on = || progress.acknowledged() < fatal;
        let raiser = publish_while(raiser, PACE, &progress, goes_on).await;
        if progress.is_stopping() {
            // What earlier lives left in the file goes out too.
            assert_eq!(raiser.close().await, 0, "everything is acknowledged");
            return killed;
        }
        raiser.kill().await;
        progress.forget_in_flight();
        killed += 1;
    }
}

impl Crashing {
    /// Makes the site and starts everybody.
    pub async fn start(cluster: &Cluster, dir: &Path, mut seed: Seed) -> Self {
        let structure = structure(&[queueing(EVENT, 50_000)]);
        let site =
            Site::new_at(cluster.admin(1), cluster.urls_from(1), "crashing", &structure).await;
        let service = site.service("mortal").await;
        let (progress, last) = (Arc::<Progress>::default(), Arc::new(AtomicU64::new(u64::MAX)));
        let (mut living, deaths) = (Vec::new(), Arc::<AtomicU64>::default());
        let clients = ["forgets", "remembers"];
        for (index, id) in clients.into_iter().enumerate() {
            let client = Client {
                account: site.guest(id).await,
                site: site.clone(),
                urls: cluster.urls_from(1),
                state: (index == 1).then(|| dir.join("crashing.state")),
                progress: progress.clone(),
                index,
                last: last.clone(),
                deaths: deaths.clone(),
                seed: seed.fork(),
            };
            // Subscribed before the first event: everything is for both.
            let listener = client.site.listener(&client.account).to(EVENT).subscribed(1).await;
            listener.close().await;
            living.push(tokio::spawn(client.run()));
        }
        let (store, urls) = (dir.join("crashing.store"), cluster.urls_from(2));
        let serving = serve(site.clone(), service, urls, store, progress.clone(), seed.fork());
        Self {
            publishing: tokio::spawn(serving),
            cast: Cast::new(&site, &clients, &progress),
            last,
            deaths,
            living,
        }
    }

    async fn end(self, cluster: &Cluster) -> Judged {
        let Self { cast, last, publishing, living, .. } = self;
        let Cast { site, clients, progress } = cast.at_end(cluster);
        let ended = tokio::time::timeout(OUTCOME, publishing).await;
        let killed = ended.expect("crashing: an outcome is missing").expect("no panic");
        let retained = site.retained(EVENT).await;
        last.store(retained.last().copied().unwrap_or(0), Ordering::SeqCst);
        let mut deaths = vec![killed];
        for (client, living) in clients.iter().zip(living) {
            let ended = tokio::time::timeout(OUTCOME, living).await;
            let ended = ended.unwrap_or_else(|_| panic!("{client} does not drain"));
            deaths.push(ended.expect("no panic"));
            let newest = retained.last().copied().unwrap_or(0);
            let what = format!("the cursor of {client} to stand at the end");
            wait::until_for(OUTCOME, &what, async || {
                (site.cursor(client, EVENT).await == newest).then_some(())
            })
            .await;
        }
        assert!(deaths.iter().all(|deaths| *deaths > 0), "somebody was never killed: {deaths:?}");
        let expectations = Expectations {
            complete: clients.iter().map(|client| (EVENT.to_owned(), client.clone())).collect(),
            unique_events: BTreeSet::from([EVENT.to_owned()]),
            ..Expectations::default()
        };
        let violations = oracle::judge(&site.history, &expectations);
        cluster.until_equal(&site.name).await;
        eprintln!("crashing: {} events, killed {deaths:?} times", retained.len());
        let handled = clients.iter().map(|client| site.history.count_handled(client) as u64).sum();
        Judged { acknowledged: progress.acknowledged(), handled, violations }
    }
}

impl Workload for Crashing {
    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    fn finish<'a>(self: Box<Self>, cluster: &'a Cluster) -> LocalBoxFuture<'a, Judged> {
        (*self).end(cluster).boxed_local()
    }
}
