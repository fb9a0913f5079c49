//! What every worker shares: the broker, the options, the counters, and whether it is stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ackord_agents::Broker;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::options::GatewayLimits;
use crate::rates::Rates;

/// Shared by all workers.
pub struct Context {
    pub broker: Broker,
    pub admin_hash: [u8; 32],
    pub origins: Vec<String>,
    pub limits: GatewayLimits,
    pub metrics: Metrics,
    pub rates: Rates,
    /// Cancelled when the front stops: not ready any more, sockets are closed.
    pub stopping: CancellationToken,
    /// The tasks of the open WebSockets.
    pub sockets: TaskTracker,
    connections: AtomicUsize,
}

impl Context {
    pub fn new(
        broker: Broker,
        admin_hash: [u8; 32],
        origins: Vec<String>,
        limits: GatewayLimits,
    ) -> Self {
        Self {
            broker,
            admin_hash,
            origins,
            limits,
            metrics: Metrics::new(),
            rates: Rates::default(),
            stopping: CancellationToken::new(),
            sockets: TaskTracker::new(),
            connections: AtomicUsize::new(0),
        }
    }

    /// Counts a connection for as long as the guard lives.
    pub fn connected(self: &Arc<Self>) -> ConnectionGuard {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        self.metrics.connections.inc();
        ConnectionGuard { context: self.clone(), over: before >= self.limits.connections_max }
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
