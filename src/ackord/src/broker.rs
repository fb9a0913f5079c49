//! A broker inside this process: node, sessions and front put together, and taken apart in order.
//!
//! `Node (log, state) ◀─ Broker (sessions) ◀─ Gateway (HTTP, WebSocket)`; a stop goes the other
//! way: no new connections, sessions end, the node writes its last checkpoint.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ackord_agents::{Broker, BrokerOptions};
use ackord_gateway::{Gateway, GatewayOptions, WaitingRoom};
use ackord_replica::{Node, NodeOptions, StartError};

use crate::config::{Cluster, Deployment};
use crate::exit::{Exit, Failure};
use crate::listen;
use crate::memory;

/// How often a start looks whether its node serves.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// A running broker.
pub struct Running {
    broker: Broker,
    gateway: Gateway,
    node: Arc<Node>,
    urls: Vec<String>,
}

/// What a broker is started with.
pub struct Parts<'a> {
    /// Where the node keeps its data.
    pub dir: &'a Path,
    /// Limits.
    pub deployment: &'a Deployment,
    /// The socket to serve.
    pub listener: TcpListener,
    /// The cluster that the node belongs to; `None` for a node that is alone.
    pub cluster: Option<Cluster>,
    /// SHA-256 of the administrator's token.
    pub admin_hash: [u8; 32],
}

impl Running {
    /// Starts everything; the front answers when this returns.
    pub async fn start(parts: Parts<'_>) -> Result<Self, Failure> {
        let Parts { dir, deployment, listener, cluster, admin_hash } = parts;
        let address = listener.local_addr().map_err(|error| {
            Failure::new(Exit::Configuration, format!("the socket has no address: {error}"))
        })?;
        let urls = vec![listen::url(address)];
        let mut options = NodeOptions::new(dir);
        options.partitions = deployment.partitions;
        options.limits = deployment.limits.clone();
        options.state_bytes_max = deployment.state_bytes_max.unwrap_or_else(memory::half);
        options.disk_reserve_bytes = deployment.disk_reserve_bytes;
        options.snapshot_log_bytes_min = deployment.snapshot_log_bytes_min;
        options.log_file_bytes = deployment.log_file_bytes;
        options.log_purge_bytes = deployment.log_purge_bytes;
        options.peers = cluster.map(|cluster| cluster.peers(&urls));
        let unable = |error: ackord_gateway::Error| Failure::configuration(error.to_string());
        let room = WaitingRoom::open(&listener).map_err(unable)?;
        let started = tokio::task::spawn_blocking(move || Node::start(options)).await;
        let node = match started {
            Ok(node) => Arc::new(node.map_err(|error| start_failure(&error, dir))?),
            Err(error) => return Err(Failure::new(Exit::Disk, format!("start failed: {error}"))),
        };
        // Endpoints are told of other nodes only: this one they have reached, perhaps through a
        // link that its own idea of its address does not know of.
        let broker = Broker::new(node.clone(), BrokerOptions::default());
        let ending = broker.clone();
        tokio::spawn(async move { ending.end_left_behind().await });
        let recording = broker.clone();
        tokio::spawn(async move { recording.keep_record().await });
        let options = GatewayOptions {
            listeners: vec![listener],
            admin_hash,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            ..GatewayOptions::default()
        };
        room.leave().await;
        let gateway = Gateway::start(broker.clone(), options).map_err(unable)?;
        Ok(Self { broker, gateway, node, urls })
    }

    /// The sessions and the administration.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Waits until the node serves: every group has a leader and has caught up.
    pub async fn ready(&self) {
        while !self.node.ready() {
            tokio::time::sleep(READY_INTERVAL).await;
        }
    }

    /// Addresses for endpoints on this machine.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Stops everything in order; the front lets the sessions end before it does.
    pub async fn stop(self) {
        let Self { broker: _, gateway, node, urls: _ } = self;
        gateway.stop().await;
        // A panic in there is reported by the panic hook; there is nothing left to stop.
        let _ = tokio::task::spawn_blocking(move || node.shutdown()).await;
    }
}

fn start_failure(error: &StartError, dir: &Path) -> Failure {
    let failure = Failure::new(Exit::Configuration, error.to_string());
    match error {
        StartError::Options { .. } => failure,
        StartError::Lost { .. } => failure.hint(
            "the disk of this node is new: `ackord cluster remove` its old number, then start it \
             with cluster.join",
        ),
        StartError::Partitions { .. } => {
            failure.hint("the number of partitions is fixed by the first start")
        }
        StartError::Store(_) | StartError::Restore { .. } => failure.hint(format!(
            "`ackord recover --data {}` says what is damaged and what can be done; it changes \
             nothing",
            dir.display()
        )),
        StartError::NotReady { .. } | StartError::Threads(_) => {
            Failure { exit: Exit::Disk, ..failure }
        }
    }
}
