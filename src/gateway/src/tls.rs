//! TLS of the front: the certificate in force, and handshakes that cost a bounded amount.
//!
//! Invariants: a handshake has a deadline and so many go on at a time at each listener, see
//! [`places`]; a certificate that cannot be used never replaces one that can.

mod places;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ackord_agents::metrics::IntCounterVec;
use ackord_tls::rustls::ServerConfig;
use ackord_tls::tokio_rustls::TlsAcceptor;
use ackord_tls::{Refreshed, Reloading, chain, not_after, private_key, server_config};
use actix_http::Protocol;
use actix_http::error::DispatchError;
use actix_rt::net::TcpStream;
use actix_service::{ServiceFactory, fn_service};
use arc_swap::ArcSwap;
use tokio::time::timeout;

use crate::options::Error;
use crate::stream::Stream;
use places::Places;

/// What is spoken inside: nothing but HTTP/1.1.
const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// Where the certificate of the front is, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and what leads from it to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The bounds of handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsLimits {
    /// Until a handshake is done.
    pub handshake_deadline: Duration,
    /// Handshakes that may go on at the same time at a listener; one more pushes the oldest out.
    pub handshakes_max: usize,
}

impl Default for TlsLimits {
    fn default() -> Self {
        Self { handshake_deadline: Duration::from_secs(5), handshakes_max: 1024 }
    }
}

/// A certificate in use.
struct Certificate {
    config: Arc<ServerConfig>,
    not_after: Option<i64>,
}

/// The TLS of a front, shared by its listeners.
pub struct Tls {
    certificate: ArcSwap<Reloading<Certificate>>,
    limits: TlsLimits,
    /// Where handshakes are counted by how they ended; nowhere before a front has it.
    handshakes: OnceLock<IntCounterVec>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub fn load(files: TlsFiles, limits: TlsLimits) -> Result<Self, Error> {
        let certificate = ArcSwap::from_pointee(read(files)?);
        Ok(Self { certificate, limits, handshakes: OnceLock::new() })
    }

    /// Handshakes count here from now on; the first front that has it counts.
    pub(crate) fn count_in(&self, handshakes: &IntCounterVec) {
        self.handshakes.get_or_init(|| handshakes.clone());
    }

    /// Takes the certificate from other files.
    ///
    /// # Errors
    /// As [`Tls::load`]; the certificate in force stays then.
    pub fn replace(&self, files: TlsFiles) -> Result<(), Error> {
        self.certificate.store(Arc::new(read(files)?));
        Ok(())
    }

    /// Looks at the files again. Connections that stand are not touched.
    pub(crate) fn refresh(&self) -> Refreshed {
        self.certificate.load_full().refresh()
    }

    /// The end of the certificate in force, seconds of Unix time.
    pub(crate) fn not_after(&self) -> Option<i64> {
        self.certificate.load().current().not_after
    }

    async fn handshake(&self, tcp: TcpStream, places: &Arc<Places>) -> std::io::Result<Stream> {
        let acceptor = TlsAcceptor::from(self.certificate.load().current().config.clone());
        let shaking = timeout(self.limits.handshake_deadline, acceptor.accept(tcp));
        let (result, ended) = match places.take().hold(shaking).await {
            Some(Ok(Ok(stream))) => ("done", Ok(Stream::Tls(Box::new(stream)))),
            Some(Ok(Err(error))) => {
                tracing::debug!(%error, "a handshake failed");
                ("failed", Err(error))
            }
            Some(Err(_elapsed)) => ("late", Err(std::io::ErrorKind::TimedOut.into())),
            None => ("pushed-out", Err(std::io::ErrorKind::ConnectionAborted.into())),
        };
        if let Some(handshakes) = self.handshakes.get() {
            handshakes.with_label_values(&[result]).inc();
        }
        ended
    }
}

fn read(files: TlsFiles) -> Result<Reloading<Certificate>, Error> {
    let paths = vec![files.certificate, files.key];
    let named = paths.clone();
    let build = move |contents: &[Vec<u8>]| {
        let unusable = |file: usize, error: ackord_tls::Error| {
            ackord_tls::Error::new(format!("{}: {error}", named[file].display()))
        };
        let chain = chain(&contents[0]).map_err(|error| unusable(0, error))?;
        let key = private_key(&contents[1]).map_err(|error| unusable(1, error))?;
        let not_after = chain.first().and_then(|own| not_after(own).ok());
        let config = server_config(chain, key, PROTOCOLS).map_err(|error| unusable(0, error))?;
        Ok(Certificate { config: Arc::new(config), not_after })
    };
    Reloading::load(paths, build).map_err(Error::Certificate)
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The TLS of one listener.
#[derive(Clone, Debug)]
pub struct Shaking {
    tls: Arc<Tls>,
    places: Arc<Places>,
}

impl Shaking {
    /// With places of its own.
    pub fn new(tls: Arc<Tls>) -> Self {
        let places = Places::new(tls.limits.handshakes_max);
        Self { tls, places }
    }
}

/// What becomes of an accepted socket before HTTP: with `tls` a handshake, else nothing.
pub fn accept(
    tls: Option<Shaking>,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = (Stream, Protocol, Option<std::net::SocketAddr>),
    Error = DispatchError,
    InitError = (),
> {
    fn_service(move |tcp: TcpStream| {
        let tls = tls.clone();
        async move {
            // What is written is written as a whole: nothing is gained by waiting for more.
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, "cannot switch off coalescing");
            }
            let peer = tcp.peer_addr().ok();
            let stream = match tls {
                None => Stream::Plain(tcp),
                // Boxed: every connection's task would otherwise have room for it.
                Some(Shaking { tls, places }) => {
                    Box::pin(async move { tls.handshake(tcp, &places).await }).await?
                }
            };
            Ok::<_, DispatchError>((stream, Protocol::Http1, peer))
        }
    })
}

#[cfg(test)]
mod tests {
    use actix_service::Service as _;

    use super::*;

    #[actix_rt::test]
    async fn an_event_is_not_held_back_until_the_one_before_it_is_confirmed() {
        let listener = actix_rt::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let service = accept(None).new_service(()).await.unwrap();
        let Ok((Stream::Plain(tcp), ..)) = service.call(tcp).await else { panic!("not plain") };
        assert!(tcp.nodelay().unwrap());
    }
}
