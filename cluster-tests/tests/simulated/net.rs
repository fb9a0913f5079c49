//! The network of a host: turmoil's, in which a connection is refused only by a process that is gone.
//!
//! turmoil refuses also where its network loses the first packet. To nodes that would say that a process
//! has died, so such an attempt gets no answer at all here, as on a real network.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ackord_replica::{Listener, Net, Wire};
use parking_lot::Mutex;
use tokio::time::Duration;
use turmoil::net::{TcpListener, TcpStream};

/// What is wrong with the network now, by host names.
#[derive(Default)]
pub struct Weather {
    /// Directions in which everything is lost.
    pub cut: BTreeSet<(String, String)>,
    /// Connections that were tried and lost in a cut.
    pub lost: u64,
    /// Connections that a dead process has refused.
    pub refused: u64,
}

/// All hosts see the same.
pub type SharedWeather = Arc<Mutex<Weather>>;

/// Connects from one host to `host:port`.
pub async fn connect(weather: &SharedWeather, me: &str, address: &str) -> io::Result<TcpStream> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let is_cut = |weather: &Weather| {
        let (there, back) = ((me.into(), host.into()), (host.into(), me.into()));
        weather.cut.contains(&there) || weather.cut.contains(&back)
    };
    let before = is_cut(&weather.lock());
    match TcpStream::connect(address).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let lost = {
                let mut weather = weather.lock();
                let lost = before || is_cut(&weather);
                if lost {
                    weather.lost += 1
                } else {
                    weather.refused += 1
                };
                lost
            };
            if lost {
                std::future::pending::<()>().await;
            }
            Err(error)
        }
        other => other,
    }
}

/// The network between nodes, as one of them has it.
pub struct HostNet {
    pub me: String,
    pub weather: SharedWeather,
}

struct HostListener(TcpListener);

impl Listener for HostListener {
    fn accept(&self) -> futures_util::future::BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async { Ok(Box::new(self.0.accept().await?.0) as Box<dyn Wire>) })
    }
}

impl Net for HostNet {
    fn listen(
        &self,
        at: SocketAddr,
    ) -> futures_util::future::BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, at.port())).await?;
            Ok(Box::new(HostListener(listener)) as Box<dyn Listener>)
        })
    }

    fn connect(
        &self,
        address: String,
    ) -> futures_util::future::BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let stream = connect(&self.weather, &self.me, &address).await?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }
}

/// As [`connect`], with a limit.
pub async fn connect_within(
    weather: &SharedWeather,
    me: &str,
    address: &str,
    limit: Duration,
) -> io::Result<TcpStream> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(limit, connect(weather, me, address)).await.map_err(late)?
}
