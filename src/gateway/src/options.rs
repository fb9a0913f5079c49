//! What a deployment may set about the front, every bound with its default.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ackord_wire::limits::FRAME_BYTES_MAX;

use crate::http::batch::BATCH_ITEMS_CEILING;
use crate::identity::issuer::Issuer;
use crate::tls::Tls;

/// How a [`crate::Gateway`] listens and whom it trusts.
#[derive(Debug)]
pub struct GatewayOptions {
    /// Addresses to bind and serve everything on, without TLS; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Sockets that are bound already, with what is served on each.
    pub listeners: Vec<Listener>,
    /// How often the files of certificates are looked at for changes.
    pub watch_interval: Duration,
    /// SHA-256 of the node's administration token, as its bearer sends it.
    pub admin_hash: [u8; 32],
    /// Threads that serve connections; at least 1.
    pub workers: usize,
    /// Origins (`https://host[:port]`) whose pages may use this front, beside those of its own host;
    /// `*` is every origin, for a broker that serves the public. Requests without an `Origin` are
    /// not from a page.
    pub origins: Vec<String>,
    /// Whose JWTs are believed.
    pub issuers: Vec<Arc<Issuer>>,
    /// The bounds.
    pub limits: GatewayLimits,
}

/// What is served on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Everything.
    Whole,
    /// What endpoints need: the administration has another socket.
    Endpoints,
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What is served on it.
    pub face: Face,
    /// Its TLS; `None` for none.
    pub tls: Option<Arc<Tls>>,
}

impl Listener {
    /// A socket that serves everything without TLS.
    pub fn plain(socket: TcpListener) -> Self {
        Self { socket, face: Face::Whole, tls: None }
    }

    /// The same socket once more, for somebody who serves it before.
    pub(crate) fn again(&self) -> std::io::Result<Self> {
        let Self { socket, face, tls } = self;
        Ok(Self { socket: socket.try_clone()?, face: *face, tls: tls.clone() })
    }
}

/// The bounds of the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Open connections; beyond, a request is answered `busy` and its connection closed.
    pub connections_max: usize,
    /// Largest message of a WebSocket, fragments added up, bytes.
    pub frame_bytes_max: usize,
    /// Fragments of such a message, the empty ones too.
    pub fragments_max: usize,
    /// Pings and pongs of a WebSocket's peer within a second.
    pub control_frames_per_s_max: u32,
    /// Largest body of a request, bytes.
    pub body_bytes_max: usize,
    /// Seconds between the heartbeats of an idle stream; brought into the broker's bounds for
    /// pings.
    pub heartbeat_s: u32,
    /// How long a request may wait for its next event.
    pub poll_wait_max: Duration,
    /// Events in a batch; at most 100000.
    pub batch_items_max: usize,
    /// Largest event of a batch as it is written, bytes.
    pub batch_item_bytes_max: usize,
    /// Messages that a session may have queued towards its socket.
    pub outbox_messages: usize,
    /// Until the head of a connection's first request has arrived; at least
    /// [`GatewayLimits::COARSE_MIN`].
    pub head_deadline: Duration,
    /// Until its body has arrived, from the head on.
    pub body_deadline: Duration,
    /// Until a message of a WebSocket has arrived, from its first byte on.
    pub frame_deadline: Duration,
    /// Until a read has been confirmed to reflect everything acknowledged before it.
    pub read_deadline: Duration,
    /// Until an idle connection without a session is closed; at least
    /// [`GatewayLimits::COARSE_MIN`].
    pub keep_alive: Duration,
    /// Until what is written to a WebSocket or a stream has left for the peer.
    pub write_deadline: Duration,
    /// Until the peer of a closing connection has closed its half; at least
    /// [`GatewayLimits::COARSE_MIN`].
    pub close_deadline: Duration,
    /// Until connections that are still open at a stop are dropped.
    pub stop_deadline: Duration,
}

impl GatewayLimits {
    /// The shortest of the deadlines that actix-http judges by a clock which it reads twice a
    /// second: a shorter one can be over before it begins, and then its timer never fires.
    pub const COARSE_MIN: Duration = Duration::from_secs(1);

    /// These limits with every coarse deadline at least [`GatewayLimits::COARSE_MIN`] and every
    /// other within its bounds.
    pub(crate) fn raised(mut self) -> Self {
        self.batch_items_max = self.batch_items_max.clamp(1, BATCH_ITEMS_CEILING);
        let coarse = [&mut self.head_deadline, &mut self.keep_alive, &mut self.close_deadline];
        for deadline in coarse {
            *deadline = (*deadline).max(Self::COARSE_MIN);
        }
        self
    }
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            frame_bytes_max: FRAME_BYTES_MAX,
            fragments_max: 1024,
            control_frames_per_s_max: 50,
            body_bytes_max: 1 << 20,
            heartbeat_s: 15,
            poll_wait_max: Duration::from_secs(60),
            batch_items_max: 1000,
            batch_item_bytes_max: FRAME_BYTES_MAX,
            outbox_messages: 8,
            head_deadline: Duration::from_secs(10),
            body_deadline: Duration::from_secs(20),
            frame_deadline: Duration::from_secs(20),
            read_deadline: Duration::from_secs(5),
            keep_alive: Duration::from_secs(60),
            write_deadline: Duration::from_secs(10),
            close_deadline: Duration::from_secs(2),
            stop_deadline: Duration::from_secs(10),
        }
    }
}

impl Default for GatewayOptions {
    /// Listens nowhere, and no token has this hash: both must be given.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            listeners: Vec::new(),
            watch_interval: Duration::from_secs(5),
            admin_hash: [0; 32],
            workers: 2,
            origins: Vec::new(),
            issuers: Vec::new(),
            limits: GatewayLimits::default(),
        }
    }
}

/// Why a front does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Neither an address nor a socket was given.
    #[error("no address to listen on")]
    NoAddress,
    /// A certificate or its key cannot be used.
    #[error("{0}")]
    Certificate(ackord_tls::Error),
    /// An issuer of JWTs cannot be believed as it is configured.
    #[error("jwt: {0}")]
    Issuer(String),
    /// The server's thread cannot run.
    #[error("cannot run the server: {0}")]
    Server(#[from] std::io::Error),
}

impl Error {
    /// Whether starting again may succeed without a change.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Listen { .. } | Self::Server(_) => true,
            Self::NoAddress | Self::Certificate(_) | Self::Issuer(_) => false,
        }
    }
}
