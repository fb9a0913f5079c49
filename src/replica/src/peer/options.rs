//! What the connections between nodes may be told, and the certificates they use.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::directory::NODES_MAX;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::hello;
use crate::error::StartError;

/// Says inside TLS that this is no HTTP for anyone else.
const ALPN: &[u8] = b"ackord-peer";

/// How a node talks to the other nodes of its cluster. Build with [`PeerOptions::new`] and change
/// fields.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// Where other nodes connect. Port 0 takes a free one: see [`crate::Node::peer_address`].
    pub listen: SocketAddr,
    /// Certificates. Without them only a loopback address may be listened on.
    pub tls: Option<PeerTls>,
    /// The difference between the clocks of two nodes above which they do not talk; a fifth of it
    /// is worth a warning.
    pub clock_skew_max: Duration,
    /// Speak the protocol of an earlier release, while nodes of it are still there.
    pub compat_version: Option<u8>,
    /// How long a proposal may be without an answer before its fate counts as unknown. Only a leader
    /// that has lost its majority, or the way to it, takes so long.
    pub answer_limit: Duration,
    /// Connections that may be open to this node at the same time.
    pub connections_max: usize,
    /// Where other nodes reach this one, as `host:port`; `None` for the address listened on.
    pub advertise: Option<String>,
    /// The nodes that found the cluster together, by their advertised addresses, this one included
    /// and in the same order on all. Only an empty data directory asks for it.
    pub initial: Vec<String>,
    /// Members of a cluster that this node shall join, by their advertised addresses. Only an empty
    /// data directory asks for it.
    pub join: Vec<String>,
    /// Where endpoints and browsers reach this node.
    pub urls: Vec<String>,
    /// Nodes of one zone may fail together; empty for none.
    pub zone: String,
    /// Voters per partition of a cluster that is founded, when there are so many nodes.
    pub replication: u32,
}

impl PeerOptions {
    /// Defaults, without TLS.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            clock_skew_max: Duration::from_secs(5),
            compat_version: None,
            answer_limit: Duration::from_secs(5),
            connections_max: 256,
            advertise: None,
            initial: Vec::new(),
            join: Vec::new(),
            urls: Vec::new(),
            zone: String::new(),
            replication: 3,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), StartError> {
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            return bad(
                "peers.listen",
                format!("{} is not a loopback address, which needs peers.tls", self.listen),
            );
        }
        if let Some(version) = self.compat_version
            && !hello::VERSIONS.contains(&version)
        {
            let (oldest, newest) = (hello::VERSIONS.start(), hello::VERSIONS.end());
            return bad("peers.compat_version", format!("{oldest}..={newest}, was {version}"));
        }
        if self.answer_limit.is_zero() {
            return bad("peers.answer_limit", "more than nothing".into());
        }
        if self.replication.is_multiple_of(2) {
            return bad("peers.replication", format!("an odd number, was {}", self.replication));
        }
        if self.initial.len() > NODES_MAX {
            return bad("peers.initial", format!("0..={NODES_MAX}, was {}", self.initial.len()));
        }
        if !self.initial.is_empty() && !self.join.is_empty() {
            let detail = "a node founds a cluster or joins one, not both".to_owned();
            return bad("peers.join", detail);
        }
        if self.connections_max == 0 {
            return bad("peers.connections_max", "at least 1, was 0".into());
        }
        Ok(())
    }
}

/// The certificates of mutual TLS, PEM files. Every node shows its certificate in both directions,
/// so it must be good for a server and for a client.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// Who signs the certificates of this cluster's nodes, and of nobody else.
    pub authority: PathBuf,
    /// This node's certificate and what leads from it to the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The name to expect in the certificates of other nodes; `None` for the host they are
    /// reached at.
    pub name: Option<String>,
}

/// Ready to be used for connections in both directions.
pub(crate) struct TlsSetup {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl TlsSetup {
    pub(super) fn load(options: &PeerTls) -> Result<Self, StartError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&options.authority)? {
            roots.add(certificate).map_err(|error| unusable(&options.authority, &error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&options.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&options.key)
            .map_err(|error| unusable(&options.key, &error))?;
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unusable(&options.authority, &error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                builder
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain.clone(), key.clone_key())
            })
            .map_err(|error| unusable(&options.certificate, &error))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                builder.with_root_certificates(roots).with_client_auth_cert(chain, key)
            })
            .map_err(|error| unusable(&options.certificate, &error))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        client.alpn_protocols = vec![ALPN.to_vec()];
        let name = options.name.clone().map(ServerName::try_from).transpose().map_err(|error| {
            StartError::Options { field: "peers.tls", detail: error.to_string() }
        })?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            name,
        })
    }

    /// The name that the node at `address` must show.
    pub(super) fn name_for(&self, address: &str) -> Result<ServerName<'static>, String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    match read {
        Ok(certificates) if certificates.is_empty() => Err(unusable(path, &"no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::Options { field: "peers.tls", detail: format!("{}: {error}", path.display()) }
}

fn bad(field: &'static str, detail: String) -> Result<(), StartError> {
    Err(StartError::Options { field, detail })
}
