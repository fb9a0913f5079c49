//! What the connections between nodes may be told, and the certificates they use.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::directory::NODES_MAX;
use ackord_tls::rustls::pki_types::ServerName;
use ackord_tls::rustls::server::WebPkiClientVerifier;
use ackord_tls::rustls::version::TLS13;
use ackord_tls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use ackord_tls::tokio_rustls::{TlsAcceptor, TlsConnector};
use ackord_tls::{Reloading, chain, not_after, private_key};

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
    /// data directory asks for it. With `initial` beside it, it joins where one of those belongs to
    /// a cluster already, or this node is none of them, and else founds one.
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

impl PeerTls {
    /// Whether the files are there and belong together.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), ackord_tls::Error> {
        TlsSetup::read(self).map(drop)
    }
}

/// Ready to be used for connections in both directions.
pub(crate) struct TlsSetup {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
    /// The end of this node's certificate, seconds of Unix time.
    pub(super) not_after: Option<i64>,
    name: Option<ServerName<'static>>,
}

impl TlsSetup {
    /// Reads the files, and again whenever they are looked at and have changed.
    pub(super) fn load(options: &PeerTls) -> Result<Reloading<Self>, StartError> {
        Self::read(options)
            .map_err(|error| StartError::Options { field: "peers.tls", detail: error.to_string() })
    }

    fn read(options: &PeerTls) -> Result<Reloading<Self>, ackord_tls::Error> {
        let PeerTls { authority, certificate, key, name } = options.clone();
        let name = name.map(ServerName::try_from).transpose().map_err(ackord_tls::Error::new)?;
        let paths = vec![authority, certificate, key];
        let named = paths.clone();
        Reloading::load(paths, move |files| Self::build(files, &named, name.clone()))
    }

    fn build(
        files: &[Vec<u8>],
        paths: &[PathBuf],
        name: Option<ServerName<'static>>,
    ) -> Result<Self, ackord_tls::Error> {
        let [authority, certificate, key] = [0, 1, 2];
        let unusable = |file: usize, error: &dyn std::fmt::Display| {
            ackord_tls::Error::new(format!("{}: {error}", paths[file].display()))
        };
        let mut roots = RootCertStore::empty();
        for root in chain(&files[authority]).map_err(|error| unusable(authority, &error))? {
            roots.add(root).map_err(|error| unusable(authority, &error))?;
        }
        let roots = Arc::new(roots);
        let chain = chain(&files[certificate]).map_err(|error| unusable(certificate, &error))?;
        let not_after = chain.first().and_then(|own| not_after(own).ok());
        let own_key = private_key(&files[key]).map_err(|error| unusable(key, &error))?;
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unusable(authority, &error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                builder
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain.clone(), own_key.clone_key())
            })
            .map_err(|error| unusable(certificate, &error))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                builder.with_root_certificates(roots).with_client_auth_cert(chain, own_key)
            })
            .map_err(|error| unusable(certificate, &error))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        client.alpn_protocols = vec![ALPN.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(client));
        Ok(Self { acceptor, connector, not_after, name })
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

fn bad(field: &'static str, detail: String) -> Result<(), StartError> {
    Err(StartError::Options { field, detail })
}
