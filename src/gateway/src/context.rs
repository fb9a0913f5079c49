//! What every worker shares: the broker, the options, the counters, and whether it is stopping.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ackord_agents::Broker;
use ackord_wire::Problem;
use ackord_wire::resource::Reloaded;
use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::issuer::Issuer;
use crate::metrics::Metrics;
use crate::options::GatewayLimits;
use crate::rates::Rates;
use crate::tls::Tls;

/// Reads a configuration again and says what came of it, or why it is not taken. Blocks.
pub type Reload = Arc<dyn Fn() -> Result<Reloaded, Problem> + Send + Sync>;

/// What can be changed while the front runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// SHA-256 of the node's administration token.
    pub admin_hash: [u8; 32],
    /// See [`crate::GatewayOptions::origins`].
    pub origins: Vec<String>,
    /// Whose JWTs are believed.
    pub issuers: Vec<Arc<Issuer>>,
    /// The bounds; those of sockets and of a connection's first request count from the start on.
    pub limits: GatewayLimits,
}

/// Shared by all workers.
pub struct Context {
    pub broker: Broker,
    live: ArcSwap<Live>,
    /// The TLS of the listeners, each once.
    pub tls: Vec<Arc<Tls>>,
    pub metrics: Metrics,
    pub rates: Rates,
    /// Reads the configuration again, where there is one.
    pub reload: OnceLock<Reload>,
    /// Cancelled when the front stops: not ready any more, sockets are closed.
    pub stopping: CancellationToken,
    /// The tasks of the open WebSockets.
    pub sockets: TaskTracker,
    connections: AtomicUsize,
}

impl Context {
    pub fn new(broker: Broker, live: Live, tls: Vec<Arc<Tls>>) -> Self {
        let metrics = Metrics::new();
        for tls in &tls {
            metrics.follow(tls);
        }
        Self {
            broker,
            live: ArcSwap::from_pointee(live),
            tls,
            metrics,
            rates: Rates::default(),
            reload: OnceLock::new(),
            stopping: CancellationToken::new(),
            sockets: TaskTracker::new(),
            connections: AtomicUsize::new(0),
        }
    }

    /// What can be changed, as it is now.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// From now on this counts.
    pub fn set_live(&self, live: Live) {
        self.live.store(Arc::new(live));
    }

    /// The bounds as they are now.
    pub fn limits(&self) -> GatewayLimits {
        self.live.load().limits.clone()
    }

    /// Counts a connection for as long as the guard lives.
    pub fn connected(self: &Arc<Self>) -> ConnectionGuard {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        self.metrics.connections.inc();
        ConnectionGuard { context: self.clone(), over: before >= self.limits().connections_max }
    }
}

/// An open connection.
pub struct ConnectionGuard {
    context: Arc<Context>,
    /// Whether it is one more than allowed: its first request is refused, then it is closed.
    pub over: bool,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.context.connections.fetch_sub(1, Ordering::Relaxed);
        self.context.metrics.connections.dec();
    }
}
