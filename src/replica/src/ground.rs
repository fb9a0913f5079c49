//! What a node stands on: the network and the wall clock. They are the system's, but in a simulation.
//!
//! Monotonic time is tokio's throughout this crate, so that a runtime whose time is simulated
//! simulates it for the node.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

pub use ackord_store::WriterTurns;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The bytes of a connection of a network that is not the system's.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A listener of a network that is not the system's.
pub trait Listener: Send + Sync {
    /// The next connection.
    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>>;
}

/// A network that is not the system's.
pub trait Net: Send + Sync {
    /// Listens; other nodes come to the address that is advertised.
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects to `host:port`. Refused means that the process there is known to be gone.
    fn connect(&self, address: String) -> BoxFuture<'_, io::Result<Box<dyn Wire>>>;
}

/// What simulations give a node in place of the system's. Everything of the node but the disk's
/// work then runs on the runtime that it is started on, see [`crate::Node::start_here`].
#[derive(Clone)]
pub struct Ground {
    /// The network between nodes.
    pub net: Arc<dyn Net>,
    /// The wall clock, milliseconds since 1970.
    pub wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// When the log writer may write.
    pub turns: Arc<dyn WriterTurns>,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ground")
    }
}

/// A wall clock.
#[derive(Clone, Default)]
pub(crate) struct Wall(Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl Wall {
    pub(crate) fn of(ground: Option<&Ground>) -> Self {
        Self(ground.map(|ground| ground.wall.clone()))
    }

    /// Milliseconds since 1970; earlier counts as 1970.
    pub(crate) fn ms(&self) -> u64 {
        match &self.0 {
            Some(wall) => wall(),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
        }
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "given" } else { "system" })
    }
}

/// Listens for other nodes.
pub(crate) enum PeerListener {
    System(TcpListener),
    Given(Box<dyn Listener>, SocketAddr),
}

impl PeerListener {
    pub(crate) async fn bind(ground: Option<&Ground>, at: SocketAddr) -> io::Result<Self> {
        Ok(match ground {
            None => Self::System(TcpListener::bind(at).await?),
            Some(ground) => Self::Given(ground.net.listen(at).await?, at),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::System(listener) => listener.local_addr(),
            Self::Given(_, at) => Ok(*at),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<PeerTcp> {
        match self {
            Self::System(listener) => Ok(PeerTcp::System(listener.accept().await?.0)),
            Self::Given(listener, _) => Ok(PeerTcp::Given(listener.accept().await?)),
        }
    }
}

/// The bytes between two nodes, below TLS.
pub(crate) enum PeerTcp {
    System(TcpStream),
    Given(Box<dyn Wire>),
}

impl PeerTcp {
    /// Connects from the interface that this node listens on, where that is one.
    pub(crate) async fn connect(
        ground: Option<&Ground>,
        from: IpAddr,
        address: &str,
    ) -> io::Result<Self> {
        if let Some(ground) = ground {
            return ground.net.connect(address.to_owned()).await.map(Self::Given);
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} is no address"));
        for to in tokio::net::lookup_host(address).await? {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            if !from.is_unspecified() && from.is_ipv4() == to.is_ipv4() {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            match socket.connect(to).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self::System(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::System(stream) => stream.set_nodelay(true),
            Self::Given(_) => Ok(()),
        }
    }
}

impl AsyncRead for PeerTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_read(context, into),
            Self::Given(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for PeerTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Given(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_flush(context),
            Self::Given(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Given(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
