//! TLS of the front: the certificate in force, and handshakes that cost a bounded amount.
//!
//! Invariants: a handshake has a deadline and so many go on at a time, one more is dropped at once;
//! a certificate that cannot be used never replaces one that can.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ackord_tls::rustls::ServerConfig;
use ackord_tls::tokio_rustls::TlsAcceptor;
use ackord_tls::{Refreshed, Reloading, chain, not_after, private_key, server_config};
use actix_http::Protocol;
use actix_http::error::DispatchError;
use actix_rt::net::TcpStream;
use actix_service::{ServiceFactory, fn_service};
use arc_swap::ArcSwap;
use prometheus::{IntCounterVec, Opts};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::options::Error;
use crate::stream::Stream;

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
    /// Handshakes that may go on at the same time; one more is dropped.
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
    places: Semaphore,
    limits: TlsLimits,
    /// Handshakes by how they ended.
    pub(crate) handshakes: IntCounterVec,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub fn load(files: TlsFiles, limits: TlsLimits) -> Result<Self, Error> {
        let options = Opts::new("ackord_tls_handshakes_total", "TLS handshakes of the front.");
        // The name and the label are constants.
        let handshakes = IntCounterVec::new(options, &["result"]).expect("a metric of constants");
        for result in ["done", "failed", "late", "refused"] {
            handshakes.with_label_values(&[result]);
        }
        Ok(Self {
            certificate: ArcSwap::from_pointee(read(files)?),
            places: Semaphore::new(limits.handshakes_max.min(Semaphore::MAX_PERMITS)),
            limits,
            handshakes,
        })
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

    async fn handshake(&self, tcp: TcpStream) -> std::io::Result<Stream> {
        let count = |result: &str| self.handshakes.with_label_values(&[result]).inc();
        let Ok(_place) = self.places.try_acquire() else {
            count("refused");
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        };
        let acceptor = TlsAcceptor::from(self.certificate.load().current().config.clone());
        match timeout(self.limits.handshake_deadline, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => {
                count("done");
                Ok(Stream::Tls(Box::new(stream)))
            }
            Ok(Err(error)) => {
                count("failed");
                tracing::debug!(%error, "a handshake failed");
                Err(error)
            }
            Err(_elapsed) => {
                count("late");
                Err(std::io::ErrorKind::TimedOut.into())
            }
        }
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

/// What becomes of an accepted socket before HTTP: with `tls` a handshake, else nothing.
pub fn accept(
    tls: Option<Arc<Tls>>,
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
                Some(tls) => Box::pin(async move { tls.handshake(tcp).await }).await?,
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
