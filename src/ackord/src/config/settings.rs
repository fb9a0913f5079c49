//! What a broker is told, as the types that its parts take it in.
//!
//! Invariant: a default is nowhere but in the `Default` of the options that it belongs to; the
//! table of keys reads it from there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ackord_agents::BrokerOptions;
use ackord_gateway::{GatewayLimits, GatewayOptions, IssuerOptions, TlsLimits};
use ackord_replica::{NodeOptions, PeerOptions};

use crate::listen;
use crate::logging::Lines;

/// The log filter where nothing is said. openraft warns of messages that a change of leader
/// overtook, and calls it an error when one comes after a node began to stop: its daily business.
/// What ends it is logged by the node itself, which stops then.
pub const LOG_DEFAULT: &str = "warn,openraft=off,actix_http=off";

/// Everything that a key can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; none until one is given.
    pub data: Option<PathBuf>,
    /// Where endpoints and administrators connect.
    pub listen: Vec<SocketAddr>,
    /// Whether `listen` may cross machines without TLS.
    pub listen_plain: bool,
    /// Where administrators connect, when that is a socket of its own.
    pub admin_listen: Vec<SocketAddr>,
    /// Whether `admin.listen` may cross machines without TLS.
    pub admin_listen_plain: bool,
    /// The certificate of the front.
    pub tls_certificate: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// The bounds of handshakes.
    pub tls: TlsLimits,
    /// How often certificates and keys are looked at.
    pub watch_interval: Duration,
    /// Threads that serve connections; none for one per processor.
    pub workers: Option<u64>,
    /// The administrator's token.
    pub admin_token: Option<String>,
    /// The file that holds it.
    pub admin_token_file: Option<PathBuf>,
    /// What to log.
    pub log: String,
    /// How its lines are written, by name.
    pub log_format: String,
    /// Pages that may use a browser's access.
    pub origins: Vec<String>,
    /// Whose JWTs are believed.
    pub issuers: Vec<IssuerOptions>,
    /// The bounds of the front.
    pub front: GatewayLimits,
    /// How sessions are served.
    pub sessions: BrokerOptions,
    /// Bytes of state of the node; none for half of its memory.
    pub state_bytes_max: Option<u64>,
    /// The node; its directory, state and peers are given by other fields.
    pub node: NodeOptions,
    /// Where other nodes connect; none for a node that is alone.
    pub cluster_listen: Option<SocketAddr>,
    /// How the node talks to other nodes; its address and certificates are given by other fields.
    pub cluster: PeerOptions,
    /// The certificates between nodes.
    pub cluster_tls: ClusterTls,
}

/// The certificates of a cluster's nodes.
#[derive(Clone, Debug, Default)]
pub struct ClusterTls {
    /// Who signs the certificates of the nodes.
    pub authority: Option<PathBuf>,
    /// This node's certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name to expect in the others'.
    pub name: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            data: None,
            listen: vec![listen::DEFAULT],
            listen_plain: false,
            admin_listen: Vec::new(),
            admin_listen_plain: false,
            tls_certificate: None,
            tls_key: None,
            tls: TlsLimits::default(),
            watch_interval: GatewayOptions::default().watch_interval,
            workers: None,
            admin_token: None,
            admin_token_file: None,
            log: LOG_DEFAULT.to_owned(),
            log_format: Lines::Text.name().to_owned(),
            origins: Vec::new(),
            issuers: Vec::new(),
            front: GatewayLimits::default(),
            sessions: BrokerOptions::default(),
            state_bytes_max: None,
            node: NodeOptions::new(""),
            cluster_listen: None,
            cluster: PeerOptions::new(nowhere),
            cluster_tls: ClusterTls::default(),
        }
    }
}
