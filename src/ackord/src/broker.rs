//! A broker inside this process: node, sessions and front put together, and taken apart in order.
//!
//! `Node (log, state) ◀─ Broker (sessions) ◀─ Gateway (HTTP, WebSocket)`; a stop goes the other
//! way: no new connections, sessions end, the node writes its last checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ackord_agents::Broker;
use ackord_gateway::{Control, Face, Gateway, GatewayOptions, Issuer, Listener, WaitingRoom};
use ackord_replica::{Node, OnFatal, PeerOptions, StartError};
use serde_json::json;

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::listen;
use crate::logging::{self, Level};
use crate::memory;

/// How often a start looks whether its node serves.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// A running broker.
pub struct Running {
    broker: Broker,
    gateway: Gateway,
    node: Arc<Node>,
    urls: Vec<String>,
    admin_urls: Vec<String>,
}

/// What a broker is started with.
pub struct Parts<'a> {
    /// Where the node keeps its data.
    pub dir: &'a Path,
    /// What the configuration says.
    pub settings: &'a Settings,
    /// The sockets to serve.
    pub listeners: Vec<Listener>,
    /// Whose JWTs are believed.
    pub issuers: Vec<Arc<Issuer>>,
    /// The cluster that the node belongs to; `None` for a node that is alone.
    pub cluster: Option<PeerOptions>,
    /// SHA-256 of the administrator's token.
    pub admin_hash: [u8; 32],
}

impl Running {
    /// Starts everything; the front answers when this returns.
    pub async fn start(parts: Parts<'_>) -> Result<Self, Failure> {
        let Parts { dir, settings, listeners, issuers, cluster, admin_hash } = parts;
        let has_endpoints = listeners.iter().any(|listener| listener.face == Face::Endpoints);
        let (mut urls, mut admin_urls) = (Vec::new(), Vec::new());
        for listener in &listeners {
            // A whole socket beside one for endpoints is for the administration.
            let admin = has_endpoints && listener.face == Face::Whole;
            if admin { &mut admin_urls } else { &mut urls }.push(url_of(listener)?);
        }
        let mut options = settings.node.clone();
        options.dir = dir.to_owned();
        if logging::is_json() {
            // As it ends by itself, but in the format of all lines.
            options.on_fatal = OnFatal::Call(Arc::new(|reason| {
                logging::line(Level::Error, "the node cannot go on", json!({"reason": reason}));
                std::process::abort();
            }));
        }
        options.state_bytes_max = settings.state_bytes_max.unwrap_or_else(memory::half);
        options.peers = cluster.map(|mut peers| {
            if peers.urls.is_empty() {
                peers.urls.clone_from(&urls);
            }
            peers
        });
        let unable = |error: ackord_gateway::Error| Failure::configuration(error.to_string());
        let room = WaitingRoom::open(&listeners).map_err(unable)?;
        let started = tokio::task::spawn_blocking(move || Node::start(options)).await;
        let node = match started {
            Ok(node) => Arc::new(node.map_err(|error| start_failure(&error, dir))?),
            Err(error) => return Err(Failure::new(Exit::Disk, format!("start failed: {error}"))),
        };
        // Endpoints are told of other nodes only: this one they have reached, perhaps through a
        // link that its own idea of its address does not know of.
        let broker = Broker::new(node.clone(), settings.sessions.clone());
        let ending = broker.clone();
        tokio::spawn(async move { ending.end_left_behind().await });
        let pushing = broker.clone();
        tokio::spawn(async move { pushing.serve_pushes().await });
        let recording = broker.clone();
        tokio::spawn(async move { recording.keep_record().await });
        let options = GatewayOptions {
            listeners,
            watch_interval: settings.watch_interval,
            admin_hash,
            workers: workers(settings),
            origins: settings.origins.clone(),
            issuers,
            limits: settings.front.clone(),
            ..GatewayOptions::default()
        };
        room.leave().await;
        let gateway = Gateway::start(broker.clone(), options).map_err(unable)?;
        Ok(Self { broker, gateway, node, urls, admin_urls })
    }

    /// The sessions and the administration.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// What can be changed while it runs.
    pub fn handles(&self) -> (Control, Arc<Node>) {
        (self.gateway.control().clone(), self.node.clone())
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

    /// Addresses for administrators on this machine, where those are others.
    pub fn admin_urls(&self) -> &[String] {
        &self.admin_urls
    }

    /// Stops everything in order; the front lets the sessions end before it does.
    pub async fn stop(self) {
        let Self { broker: _, gateway, node, urls: _, admin_urls: _ } = self;
        gateway.stop().await;
        // A panic in there is reported by the panic hook; there is nothing left to stop.
        let _ = tokio::task::spawn_blocking(move || node.shutdown()).await;
    }
}

fn url_of(listener: &Listener) -> Result<String, Failure> {
    let address = listener.socket.local_addr().map_err(|error| {
        Failure::new(Exit::Configuration, format!("the socket has no address: {error}"))
    })?;
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    Ok(listen::url(scheme, address))
}

/// Threads that serve connections.
fn workers(settings: &Settings) -> usize {
    let given = settings.workers.and_then(|workers| usize::try_from(workers).ok());
    given.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from))
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
