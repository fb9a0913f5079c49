//! Deliveries to receivers that have no connection: callbacks and datagrams.
//!
//! `Keeper (one per partition, while this node leads it) ─▶ PushAgent (one per subscription) ─▶ PushLane`
//! `PushLane ─▶ Gate (room) ─▶ fresh? ─▶ Client | Socket ─▶ answer ─▶ PushLane`
//!
//! Invariants:
//! - Only the node that leads a partition runs its agents; each start takes a new epoch through the log
//!   before the first request.
//! - Right before each request the node makes sure that a majority still follows it: one that was
//!   paused, or cut off, sends nothing.
//! - Nothing goes to an address that the operator does not allow: what is judged is the address that
//!   is connected to, not a name that may mean another one a moment later.
//! - A stop cuts off what is not answered in time. That is no failure of the receiver: nothing is
//!   reported of it.
//! - A receiver that hangs keeps its own deliveries waiting and nobody else's, and a site whose
//!   receivers all hang no other site's.

mod agent;
mod allow;
mod authority;
mod callback;
mod connecting;
mod encode;
mod gate;
mod handshake;
mod keeper;
mod lookup;
mod sign;
mod socket;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ackord_machine::site::{PushId, SiteName};
use ackord_wire::limits::PUSH_PACKET_BYTES_DEFAULT;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use allow::{AllowList, Malformed};

use crate::metrics::Metrics;
use callback::Callbacks;
use gate::Gate;
use lookup::Lookups;

/// What a deployment may set about push subscriptions.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The hosts that may be delivered to: names, `.suffixes`, addresses and networks. Nothing is
    /// delivered to any other.
    pub hosts: Vec<String>,
    /// Push subscriptions of all sites; more are refused.
    pub subscriptions_max: usize,
    /// Requests under way at a node; more wait.
    pub requests_max: usize,
    /// Requests of one site under way at a node; more wait.
    pub site_requests_max: usize,
    /// Requests of one site under way to one host; more wait.
    pub host_requests_max: usize,
    /// Authorities, PEM, whose callbacks are believed besides those of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Largest datagram where a subscription says nothing.
    pub packet_bytes_max: u32,
    /// Shortest time that a subscription may be offline after a failure, milliseconds.
    pub discard_interval_ms_min: u32,
    /// How long requests that are under way may go on when the node stops.
    pub drain: Duration,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            subscriptions_max: 10_000,
            requests_max: 512,
            site_requests_max: 128,
            ca_file: None,
            host_requests_max: 32,
            packet_bytes_max: PUSH_PACKET_BYTES_DEFAULT,
            discard_interval_ms_min: 1000,
            drain: Duration::from_secs(2),
        }
    }
}

type Flights = HashMap<(SiteName, PushId), Arc<AtomicUsize>>;

/// Whether a file holds authorities; why not.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn check_authorities(file: &Path) -> Result<(), String> {
    authority::read(file).map(drop)
}

/// What all push agents of a node share.
pub(crate) struct Pushes {
    pub options: PushOptions,
    pub allow: Arc<AllowList>,
    pub callbacks: Callbacks,
    pub lookups: Lookups,
    pub gate: Gate,
    pub metrics: Arc<Metrics>,
    /// Instances under way, of the subscriptions that are served here.
    flights: Mutex<Flights>,
    /// An agent has ended.
    left: Notify,
    /// The node has stopped waiting for what is under way.
    cut_off: AtomicBool,
}

/// The place of an agent among those that run here.
struct Berth {
    pushes: Arc<Pushes>,
    key: (SiteName, PushId),
    count: Arc<AtomicUsize>,
}

impl Drop for Berth {
    fn drop(&mut self) {
        let mut flights = self.pushes.flights.lock();
        if flights.get(&self.key).is_some_and(|newest| Arc::ptr_eq(newest, &self.count)) {
            flights.remove(&self.key);
        }
        drop(flights);
        self.pushes.left.notify_waiters();
    }
}

impl Pushes {
    /// What is malformed in the list of hosts is left out: the configuration was judged before.
    pub fn new(options: PushOptions, metrics: Arc<Metrics>) -> Self {
        let allow = Arc::new(AllowList::lenient(&options.hosts));
        let lookups = Lookups::default();
        Self {
            callbacks: Callbacks::new(allow.clone(), &lookups, options.ca_file.as_deref()),
            lookups,
            gate: Gate::new(
                options.requests_max,
                options.site_requests_max,
                options.host_requests_max,
            ),
            metrics,
            flights: Mutex::default(),
            left: Notify::new(),
            cut_off: AtomicBool::new(false),
            allow,
            options,
        }
    }

    /// Where an agent says how many instances it has under way, for as long as it lives.
    fn enter(self: &Arc<Self>, site: &SiteName, id: &PushId) -> Berth {
        let (count, key) = (Arc::new(AtomicUsize::new(0)), (site.clone(), id.clone()));
        self.flights.lock().insert(key.clone(), count.clone());
        Berth { pushes: self.clone(), key, count }
    }

    /// Waits until no agent is left, not for longer than they may go on.
    pub async fn ended(&self) {
        let none = async {
            loop {
                let left = self.left.notified();
                if self.flights.lock().is_empty() {
                    return;
                }
                left.await;
            }
        };
        if tokio::time::timeout(self.options.drain, none).await.is_err() {
            tracing::debug!("push deliveries were cut off");
        }
        self.cut_off.store(true, Ordering::Release);
    }

    /// Whether the node has stopped waiting for what is under way: a connection that breaks now is
    /// broken by the node.
    fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }

    /// Instances under way of a subscription that is served here.
    pub fn in_flight(&self, site: &str, id: &str) -> Option<usize> {
        let key = (SiteName::from(site), PushId::from(id));
        self.flights.lock().get(&key).map(|count| count.load(Ordering::Relaxed))
    }
}
