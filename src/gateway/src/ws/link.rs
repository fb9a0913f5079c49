//! What the reader and the writer of one socket share. Both run on one thread.
//!
//! Invariant: each direction of the socket is polled by one task at a time: reading by the
//! session through [`super::frames::Frames`] until [`Link::end_reading`], afterwards by the
//! writer, which then only discards; writing by the writer alone.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ackord_wire::Code;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::io::AsyncWrite as _;

use crate::stream::Stream;

/// Why the reader tells the writer to close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The peer sent a close frame with this number.
    Closed(Option<u16>),
    /// The connection broke.
    Broken,
    /// The peer broke the protocol.
    Violation {
        /// The code of the `closing` frame.
        code: Code,
        /// What it did.
        detail: String,
    },
}

/// One socket.
pub struct Link {
    /// `None` once it is closed.
    socket: RefCell<Option<Stream>>,
    /// Wakes the writer for a pong or an ending.
    writer: AtomicWaker,
    /// Wakes the reader when reading ends.
    reader: RefCell<Option<Waker>>,
    reading: Cell<bool>,
    /// The latest ping that is not answered; earlier ones need no answer (RFC 6455, 5.5.3).
    pong: RefCell<Option<Bytes>>,
    ending: RefCell<Option<Ending>>,
}

impl Link {
    pub fn new(socket: Stream) -> Self {
        Self {
            socket: RefCell::new(Some(socket)),
            writer: AtomicWaker::new(),
            reader: RefCell::new(None),
            reading: Cell::new(true),
            pong: RefCell::new(None),
            ending: RefCell::new(None),
        }
    }

    /// The reader saw a ping.
    pub fn pinged(&self, payload: Bytes) {
        // A copy: the payload may be a slice of a large buffer.
        *self.pong.borrow_mut() = Some(Bytes::copy_from_slice(&payload));
        self.writer.wake();
    }

    /// The reader has come to an end, or was dropped. The first ending counts.
    pub fn ended(&self, ending: Ending) {
        self.ending.borrow_mut().get_or_insert(ending);
        self.writer.wake();
    }

    /// A ping to answer.
    pub fn take_pong(&self) -> Option<Bytes> {
        self.pong.borrow_mut().take()
    }

    /// The end that the reader has come to.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.borrow().clone()
    }

    /// Whether there is a ping to answer or an end.
    pub fn has_news(&self) -> bool {
        self.pong.borrow().is_some() || self.ending.borrow().is_some()
    }

    /// Registers the writer to be woken.
    pub fn register_writer(&self, waker: &Waker) {
        self.writer.register(waker);
    }

    /// Whether the session may still read.
    pub fn is_reading(&self) -> bool {
        self.reading.get()
    }

    /// From now on the session's reader is at its end.
    pub fn end_reading(&self) {
        self.reading.set(false);
        if let Some(waker) = self.reader.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Bytes from the socket; 0 is its end.
    pub fn poll_read(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut socket = self.socket.borrow_mut();
        let Some(socket) = socket.as_mut() else { return Poll::Ready(Ok(0)) };
        let polled = socket.poll_take(context, into);
        if polled.is_pending() {
            let mut reader = self.reader.borrow_mut();
            if !reader.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *reader = Some(context.waker().clone());
            }
        }
        polled
    }

    /// Writes what the socket takes.
    pub fn poll_write(&self, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.socket.borrow_mut().as_mut() {
            Some(socket) => socket.poll_give(context, from),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Waits until what was written is on its way.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.borrow_mut().as_mut() {
            Some(socket) => Pin::new(socket).poll_flush(context),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Tells the peer that nothing follows.
    pub fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.borrow_mut().as_mut() {
            Some(socket) => Pin::new(socket).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Closes the socket, whoever still holds the link.
    pub fn close(&self) {
        self.end_reading();
        self.socket.borrow_mut().take();
    }
}
