//! A peer connection's bytes, plain or encrypted, that can be cut off from elsewhere.
//!
//! Whoever finds garbage in a message closes the connection it came over, and only that; whoever
//! keeps a connection learns at once when it is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use ackord_tls::tokio_rustls::TlsStream;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::transport::server::Connected;

use super::hello::Agreed;
use crate::ground::PeerTcp;

/// A connection on which the hello is done, seen from whoever holds none of its bytes.
pub(super) struct Line {
    pub(super) agreed: Agreed,
    closing: AtomicBool,
    reader: AtomicWaker,
    gone: watch::Sender<bool>,
}

impl Line {
    pub(super) fn new(agreed: Agreed) -> Arc<Self> {
        Arc::new(Self {
            agreed,
            closing: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            gone: watch::Sender::new(false),
        })
    }

    /// Ends the connection with everything that is under way on it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Whether the connection has ended.
    pub(super) fn has_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Returns when the connection has ended.
    pub(super) async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        // The sender lives as long as `self`.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

/// The bytes below a [`Line`].
pub(super) enum Stream {
    Plain(PeerTcp),
    Tls(Box<TlsStream<PeerTcp>>),
}

/// What HTTP/2 runs on.
pub(super) struct PeerIo {
    stream: Stream,
    line: Arc<Line>,
    /// The place among the connections that may be open.
    _place: Option<OwnedSemaphorePermit>,
}

impl PeerIo {
    pub(super) fn new(
        stream: Stream,
        line: Arc<Line>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { stream, line, _place: place }
    }
}

impl Drop for PeerIo {
    fn drop(&mut self) {
        self.line.gone.send_replace(true);
    }
}

impl Connected for PeerIo {
    type ConnectInfo = Arc<Line>;

    fn connect_info(&self) -> Arc<Line> {
        self.line.clone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.line.reader.register(context.waker());
        if self.line.closing.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.line.closing.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
