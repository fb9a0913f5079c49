//! What a workload needs of the world: sites, tokens, counters and processes of a broker.

use std::collections::BTreeMap;

use ackord_endpoint::{ClientBuilder, ClientEndpoint, ClientLevel, Structure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::error::Error;

/// Requests of the preparation that run at once.
const AT_ONCE: usize = 64;

/// The ids that a queue retains, ascending, by service.
pub type Retained = BTreeMap<String, Vec<u64>>;

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its process is killed, and started again.
    Kill,
    /// It is asked to stop, and started again.
    Stop,
    /// It is suspended, as if it were cut off silently, and goes on.
    Pause,
}

impl Fault {
    /// The fault as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
        }
    }
}

/// A broker as a workload sees it. Errors are sentences for a person.
pub trait Ground: Sync {
    /// Addresses for endpoints.
    fn urls(&self) -> &[String];
    /// The authorities to trust instead of the web's for `https` and `wss`, PEM.
    fn roots_pem(&self) -> Option<&[u8]> {
        None
    }
    /// The broker's processes on this machine; empty when they are elsewhere.
    fn pids(&self) -> Vec<u32>;
    /// Makes a multi-service site with this structure; a site of the name is removed first.
    fn make_site(
        &self,
        site: &str,
        structure: &Structure,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// Removes a site.
    fn remove_site(&self, site: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// Sets what a site may use, by name; it may use as much as it likes of everything else.
    fn set_quotas(
        &self,
        site: &str,
        quotas: &serde_json::Value,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// Revokes a token, given as a whole.
    fn revoke(&self, site: &str, token: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// Registers a service and makes a token for it.
    fn service(&self, site: &str, id: &str) -> impl Future<Output = Result<String, String>> + Send;
    /// Registers a client and makes a token for it.
    fn client(&self, site: &str, id: &str) -> impl Future<Output = Result<String, String>> + Send;
    /// Registers a push subscription with these settings, or removes it.
    fn push(
        &self,
        site: &str,
        id: &str,
        settings: Option<&serde_json::Value>,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// The id of the newest instance of a site.
    fn head(&self, site: &str) -> impl Future<Output = Result<u64, String>> + Send;
    /// What the queue of an event retains.
    fn retained(
        &self,
        site: &str,
        event: &str,
    ) -> impl Future<Output = Result<Retained, String>> + Send;
    /// The counters of each node, Prometheus text.
    fn metrics(&self) -> impl Future<Output = Result<Vec<String>, String>> + Send;
    /// The node that leads where a site is kept, from 1; none while nobody does.
    fn leader(&self, site: &str) -> impl Future<Output = Result<Option<u64>, String>> + Send;
    /// Lets a node fail. An error where the nodes are not this machine's own.
    fn strike(&self, node: u64, fault: Fault) -> impl Future<Output = Result<(), String>> + Send;
    /// Undoes a fault.
    fn mend(&self, node: u64, fault: Fault) -> impl Future<Output = Result<(), String>> + Send;
    /// Waits until all nodes serve and every leader is where it should be; not for a broker that
    /// is not this machine's own.
    fn settle(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// Tells whoever waits how far the run is.
    fn progress(&self, line: &str);
}

/// An account of the run: the site it belongs to, its id, its token.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) site: String,
    pub(crate) id: String,
    pub(crate) token: String,
}

/// The kind of an account.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Service,
    Client,
}

/// The names of the run's sites.
pub(crate) fn sites(count: u32) -> Vec<String> {
    (1..=count).map(|n| format!("bench-{n}")).collect()
}

/// Makes accounts, spread over the sites in turn.
pub(crate) async fn accounts<G: Ground>(
    ground: &G,
    sites: &[String],
    kind: Kind,
    count: u32,
) -> Result<Vec<Account>, Error> {
    let make = async |n: u32| -> Result<Account, Error> {
        let site = sites[n as usize % sites.len()].clone();
        let token;
        let id;
        match kind {
            Kind::Service => {
                id = format!("publisher-{}", n + 1);
                token = ground.service(&site, &id).await;
            }
            Kind::Client => {
                id = format!("subscriber-{}", n + 1);
                token = ground.client(&site, &id).await;
            }
        }
        Ok(Account { token: token.map_err(Error::Ground)?, site, id })
    };
    stream::iter(0..count).map(make).buffered(AT_ONCE).try_collect().await
}

/// A client with its position in memory, before it has subscriptions.
pub(crate) fn client(
    urls: &[String],
    roots_pem: Option<&[u8]>,
    account: &Account,
) -> ClientBuilder {
    let mut builder = ClientEndpoint::builder()
        .site(account.site.clone())
        .token(Some(account.token.clone()))
        .persistence(ClientLevel::Memory);
    for url in urls {
        builder = builder.url(url.clone());
    }
    match roots_pem {
        Some(roots) => builder.tls_roots_pem(roots),
        None => builder,
    }
}
