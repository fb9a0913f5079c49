//! A Replacing event: what nobody has got yet is replaced by what is newer, and the newest reaches
//! everybody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::{Cast, EVENT, Judged, OUTCOME, Workload, number, publish};
use crate::cluster::Cluster;
use crate::history::Handled;
use crate::listener::Listener;
use crate::oracle::{self, Expectations, Violation};
use crate::site::{Site, replacing, structure};
use crate::wait;

/// Between two events of the service: faster than a client handles them.
const PACE: Duration = Duration::from_millis(20);
/// How long a client takes with each.
const SLOW: Duration = Duration::from_millis(50);

/// See the module.
pub struct Newest {
    cast: Cast,
    publishing: JoinHandle<()>,
    listeners: Vec<Listener>,
}

impl Newest {
    /// Makes the site and starts everybody.
    pub async fn start(cluster: &Cluster) -> Self {
        let structure = structure(&[replacing(EVENT)]);
        let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "newest", &structure).await;
        let service = site.service("changes").await;
        let progress = Arc::<Progress>::default();
        let mut listeners = Vec::new();
        for (index, id) in ["slow", "fast"].into_iter().enumerate() {
            let account = site.guest(id).await;
            let counter = progress.clone();
            let builder = site.listener(&account).via_all(cluster.urls_from(index + 2));
            let builder = builder.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
            let builder = builder.handles(move |handled: Handled| {
                counter.reach(index, number(&handled));
                async move {
                    if index == 0 {
                        tokio::time::sleep(SLOW).await;
                    }
                    Ok(())
                }
            });
            listeners.push(builder.to(EVENT).subscribed(1).await);
        }
        let raiser = site.raiser(&service).via_all(cluster.urls_from(1));
        let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
        let publishing = publish(raiser.start().await, PACE, progress.clone());
        Self {
            cast: Cast::new(&site, &["slow", "fast"], &progress),
            publishing: tokio::spawn(publishing),
            listeners,
        }
    }

    async fn end(self, cluster: &Cluster) -> Judged {
        let Self { cast, publishing, listeners } = self;
        let Cast { site, clients, progress } = cast.at_end(cluster);
        let ended = tokio::time::timeout(OUTCOME, publishing).await;
        ended.expect("newest: an outcome is missing").expect("no panic");
        let retained = site.retained(EVENT).await;
        let newest = retained.last().copied().unwrap_or(0);
        let mut violations = oracle::judge(&site.history, &Expectations::default());
        for client in &clients {
            let what = format!("{client} to be at the newest");
            wait::until_for(OUTCOME, &what, async || {
                (site.cursor(client, EVENT).await == newest).then_some(())
            })
            .await;
            let last = site.history.handled(client).last().map(number);
            if last != Some(progress.raised()) {
                let (property, raised) = ("acknowledged_never_lost", progress.raised());
                let detail = format!("{client} has {last:?}, the newest is {raised}");
                violations.push(Violation { property, detail });
            }
        }
        let mut handled = 0;
        for listener in listeners {
            handled += listener.handled().len() as u64;
            listener.close().await;
        }
        cluster.until_equal(&site.name).await;
        eprintln!("newest: {} events, {handled} of them handled", progress.acknowledged());
        Judged { acknowledged: progress.acknowledged(), handled, violations }
    }
}

impl Workload for Newest {
    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn finish<'a>(self: Box<Self>, cluster: &'a Cluster) -> LocalBoxFuture<'a, Judged> {
        (*self).end(cluster).boxed_local()
    }
}
