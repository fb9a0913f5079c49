//! A site under load whose acknowledgements are remembered, to be compared with what a node has
//! after whatever happened to its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ackord_endpoint::{Event, ServiceEndpoint, ServiceLevel};
use cluster_tests::admin::Admin;
use cluster_tests::node::Node;
use cluster_tests::raiser::json;
use cluster_tests::site::{Account, Site, queueing, replacing, structure};
use serde_json::json as value;

/// The site's name.
pub const SITE: &str = "disk";
/// Its event, kept in full.
pub const EVENT: &str = "reading";
/// An event of which only the last instance is kept.
const STATE: &str = "state";
/// The limit that lets it be kept in full.
pub const LIMITS: &[&str] = &["queue_size_max=100000"];
/// Raises in flight.
const IN_FLIGHT: usize = 32;

/// The ids that were acknowledged so far, and when.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<BTreeMap<u64, Instant>>>);

impl Acknowledged {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of them.
    pub fn ids(&self) -> BTreeSet<u64> {
        self.lock().keys().copied().collect()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// When this one was.
    pub fn when(&self, id: u64) -> Option<Instant> {
        self.lock().get(&id).copied()
    }

    fn add(&self, id: u64) {
        self.lock().insert(id, Instant::now());
    }
}

/// Makes the site with its service.
pub async fn site(node: &Node) -> (Site, Account) {
    let events = [queueing(EVENT, 100_000), replacing(STATE)];
    let site = Site::new(node, SITE, &structure(&events)).await;
    let service = site.service("meter").await;
    (site, service)
}

/// Raises a value that replaces the last, this often: the log grows and the state does not.
pub async fn churn(site: &Site, service: &Account, count: u64) {
    let endpoint = endpoint(site, service).await;
    for number in 0..count {
        let args = json(value!({"number": number, "padding": "x".repeat(1_000)}));
        let raised = endpoint.raise_wait(Event::replacing(STATE, args)).await;
        raised.expect("it is acknowledged");
    }
    endpoint.close().await;
}

async fn endpoint(site: &Site, service: &Account) -> ServiceEndpoint {
    ServiceEndpoint::builder()
        .url(&site.url)
        .site(&site.name)
        .token(&service.token)
        .persistence(ServiceLevel::Memory { bytes: 1 << 20 })
        .reconnect_scale(0.02)
        .start()
        .await
        .expect("the endpoint starts")
}

/// Raises until it is dropped, many at a time, and remembers what was acknowledged.
pub struct Load {
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    /// Starts raising.
    pub async fn start(site: &Site, service: &Account, acknowledged: &Acknowledged) -> Self {
        let endpoint = Arc::new(endpoint(site, service).await);
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..IN_FLIGHT {
            let (endpoint, acknowledged) = (Arc::clone(&endpoint), acknowledged.clone());
            tasks.spawn(async move {
                for number in 0_u64.. {
                    let args = json(value!({"lane": lane, "number": number}));
                    let event = Event::queueing(EVENT, args);
                    let Ok(outcome) = endpoint.raise_wait(event).await else { return };
                    if let Some(id) = outcome.instance_id {
                        acknowledged.add(id);
                    }
                }
            });
        }
        Self { tasks }
    }

    /// Stops raising at once.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What was acknowledged and is not there.
pub async fn missing(node: &Node, acknowledged: &Acknowledged) -> Vec<u64> {
    let admin = Admin::new(node.url(), &node.ready().admin_token);
    let retained = admin.retained(SITE, EVENT).await.expect("the queue can be read");
    let retained: BTreeSet<u64> = retained.into_iter().collect();
    acknowledged.ids().difference(&retained).copied().collect()
}
