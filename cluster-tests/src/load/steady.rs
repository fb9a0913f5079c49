//! Services and clients that are never killed: every event is acknowledged once, under one id, and
//! handled once by each client.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::tools::{Reader, Writer};
use super::{Cast, EVENT, Judged, OUTCOME, PACE, Workload, publish};
use crate::cluster::Cluster;
use crate::history::{Handled, Subscriber};
use crate::listener::{Listener, ListenerBuilder};
use crate::oracle::{self, Expectations, Violation};
use crate::site::{Account, Site, queueing, structure};

/// A site with its service and its two clients, of which nothing is ever killed.
pub struct Scene {
    cast: Cast,
    service: Account,
    /// How many of the clients have an account: the first ones.
    accounts: usize,
    publishing: JoinHandle<()>,
    listeners: Vec<Listener>,
    reader: Option<Reader>,
}

async fn scene(cluster: &Cluster, name: &str, node: usize) -> (Site, Account, Arc<Progress>) {
    let (admin, urls) = (cluster.admin(node), cluster.urls_from(node));
    let structure = structure(&[queueing(EVENT, 50_000)]);
    let site = Site::new_at(admin, urls, name, &structure).await;
    let service = site.service(&format!("service-of-{name}")).await;
    (site, service, Arc::default())
}

/// Counts what a client handles, and puts it on a node.
fn placed(
    builder: ListenerBuilder,
    cluster: &Cluster,
    node: usize,
    progress: &Arc<Progress>,
    index: usize,
) -> ListenerBuilder {
    let progress = progress.clone();
    builder
        .via_all(cluster.urls_from(node))
        .with(|endpoint| endpoint.keepalive(Duration::from_secs(10)))
        .handles(move |_: Handled| {
            progress.handle(index);
            async { Ok(()) }
        })
        .to(EVENT)
}

/// Site `memory`, see [`super`].
pub async fn memory(cluster: &Cluster, _: &Path) -> Scene {
    let (site, service, progress) = scene(cluster, "memory", 1).await;
    let account = site.guest("reader").await;
    let first = placed(site.listener(&account), cluster, 2, &progress, 0).subscribed(1).await;
    let second = placed(site.stateless("guest"), cluster, 3, &progress, 1).subscribed(1).await;
    let raiser = site.raiser(&service);
    let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
    let raiser = raiser.via_all(cluster.urls_from(1)).start().await;
    Scene {
        publishing: tokio::spawn(publish(raiser, PACE, progress.clone())),
        cast: Cast::new(&site, &["reader", "guest"], &progress),
        accounts: 1,
        listeners: vec![first, second],
        reader: None,
        service,
    }
}

/// Site `file`, see [`super`].
pub async fn file(cluster: &Cluster, dir: &Path) -> Scene {
    let (site, service, progress) = scene(cluster, "file", 2).await;
    let (kept, plain) = (site.guest("kept").await, site.guest("plain").await);
    let first = site.listener(&kept).state(&dir.join("file.state"));
    let first = placed(first, cluster, 3, &progress, 0).subscribed(1).await;
    let second = placed(site.listener(&plain), cluster, 1, &progress, 1).subscribed(1).await;
    let raiser = site.raiser(&service).store(&dir.join("file.store"));
    let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
    let raiser = raiser.via_all(cluster.urls_from(2)).start().await;
    Scene {
        publishing: tokio::spawn(publish(raiser, PACE, progress.clone())),
        cast: Cast::new(&site, &["kept", "plain"], &progress),
        accounts: 2,
        listeners: vec![first, second],
        reader: None,
        service,
    }
}

/// Site `tools`, see [`super`].
pub async fn tools(cluster: &Cluster, dir: &Path) -> Scene {
    let (site, service, progress) = scene(cluster, "tools", 3).await;
    let account = site.guest("reader").await;
    let by = Subscriber { name: account.id.clone(), life: 0 };
    let urls = cluster.urls_from(1);
    let reader = Reader::start(&site, &urls, &account, by, &dir.join("tools.state"), &progress);
    let second = placed(site.stateless("guest"), cluster, 2, &progress, 1).subscribed(1).await;
    let urls = cluster.urls_from(3);
    let writer = Writer::start(&site, &urls, &service, &dir.join("tools.store"), &progress);
    Scene {
        // Its waits are not for threads to share.
        publishing: tokio::task::spawn_blocking(move || {
            Handle::current().block_on(writer.publish(PACE));
        }),
        cast: Cast::new(&site, &["reader", "guest"], &progress),
        accounts: 1,
        listeners: vec![second],
        reader: Some(reader),
        service,
    }
}

impl Workload for Scene {
    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn finish<'a>(self: Box<Self>, cluster: &'a Cluster) -> LocalBoxFuture<'a, Judged> {
        (*self).end(cluster).boxed_local()
    }
}

impl Scene {
    async fn end(self, cluster: &Cluster) -> Judged {
        let Self { cast, service, accounts, publishing, listeners, reader } = self;
        let Cast { site, clients, progress } = cast.at_end(cluster);
        let name = &site.name;
        let published = tokio::time::timeout(OUTCOME, publishing).await;
        published.unwrap_or_else(|_| panic!("{name}: an outcome is missing")).expect("no panic");
        let retained = site.retained(EVENT).await;
        for client in &clients {
            super::until_handled(&site, client, retained.len()).await;
        }
        let last = retained.last().copied().unwrap_or(0);
        for client in &clients[..accounts] {
            site.until_cursor(client, EVENT, last).await;
        }
        for listener in listeners {
            listener.close().await;
        }
        if let Some(reader) = reader {
            reader.end().await;
        }
        let expectations = Expectations {
            complete: clients.iter().map(|client| (EVENT.to_owned(), client.clone())).collect(),
            ordered_services: BTreeSet::from([service.id.clone()]),
            unique_events: BTreeSet::from([EVENT.to_owned()]),
            ..Expectations::default()
        };
        let mut violations = oracle::judge(&site.history, &expectations);
        let wrong = |detail: String| Violation { property: "stored_as_acknowledged", detail };
        if retained.len() as u64 != progress.acknowledged() {
            let (stored, known) = (retained.len(), progress.acknowledged());
            violations.push(wrong(format!("{name}: {known} are acknowledged, {stored} stored")));
        }
        for client in &clients {
            let ids: Vec<u64> =
                site.history.handled(client).iter().map(|handled| handled.instance_id).collect();
            if ids != retained {
                violations.push(wrong(format!("{client} of {name} handled otherwise than stored")));
            }
        }
        cluster.until_equal(name).await;
        eprintln!("{name}: {} events, each handled by {clients:?}", retained.len());
        Judged {
            handled: progress.handled().iter().sum(),
            acknowledged: progress.acknowledged(),
            violations,
        }
    }
}
