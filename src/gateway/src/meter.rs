//! A connection that can be asked what became of its bytes: whether the peer has taken what was
//! written, whether it is still there.
//!
//! An HTTP/1 connection writes into a buffer of its own and says nothing of it. A body that may go
//! on for ever has to know: it hands out little, waits until that has left, and ends when the peer
//! does not take it or is gone.
//!
//! Invariants: a flush is counted only when everything that was given to the connection has been
//! taken by the socket; while a stream is carried, a write that does not get there within the
//! deadline breaks the connection, and whatever the peer sends ends it. Reader and writer run on
//! one thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What is known of a connection's bytes.
#[derive(Debug, Default)]
pub struct Meter {
    /// How often everything that was written had been taken.
    flushes: Cell<u64>,
    /// The peer has closed its half, or the connection broke.
    gone: Cell<bool>,
    /// It broke because the peer did not read.
    slow: Cell<bool>,
    /// While a stream is carried: until what was written must have been taken.
    deadline: Cell<Option<Duration>>,
    waiting: RefCell<Option<Waker>>,
}

impl Meter {
    /// From now on the connection carries a stream.
    pub fn begin_stream(&self, deadline: Duration) {
        self.deadline.set(Some(deadline));
    }

    /// The stream has come to its end.
    pub fn end_stream(&self) {
        self.deadline.set(None);
        self.waiting.take();
    }

    /// How often everything that was written had been taken.
    pub fn flushes(&self) -> u64 {
        self.flushes.get()
    }

    /// Whether the peer is gone.
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Whether the connection broke because the peer did not read.
    pub fn is_slow(&self) -> bool {
        self.slow.get()
    }

    /// Wakes this task at the next flush, or when the peer is gone.
    pub fn register(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *waiting = Some(waker.clone());
        }
    }

    /// Waits until the peer is gone.
    pub async fn gone(&self) {
        poll_fn(|task| {
            self.register(task.waker());
            if self.is_gone() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn flushed(&self) {
        self.flushes.set(self.flushes.get() + 1);
        self.wake();
    }

    fn end(&self) {
        self.gone.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// A connection with its meter.
#[derive(Debug)]
pub struct Metered<T> {
    io: T,
    meter: Rc<Meter>,
    /// Runs while a stream's bytes wait for the peer.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl<T> Metered<T> {
    pub fn new(io: T) -> Self {
        Self { io, meter: Rc::default(), overdue: None }
    }

    /// What is known of it.
    pub fn meter(&self) -> Rc<Meter> {
        self.meter.clone()
    }

    /// The connection itself.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// Some bytes wait for the peer: an error when they have for too long.
    fn wait(&mut self, task: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = self.meter.deadline.get() else { return Ok(()) };
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(deadline)));
        if overdue.as_mut().poll(task).is_pending() {
            return Ok(());
        }
        self.meter.slow.set(true);
        self.meter.end();
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.meter.deadline.get().is_none() {
            let before = into.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(task, into))?;
            if into.filled().len() == before && into.remaining() > 0 {
                this.meter.end();
            }
            return Poll::Ready(Ok(()));
        }
        // Behind a stream nothing can be asked, so nothing is read: who sends all the same is gone.
        let mut byte = [0];
        let mut ignored = ReadBuf::new(&mut byte);
        // However the read ended, it is the end.
        let _end = ready!(Pin::new(&mut this.io).poll_read(task, &mut ignored));
        this.meter.end();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match Pin::new(&mut this.io).poll_write(task, from) {
            Poll::Ready(Ok(written)) if written == from.len() => {
                this.overdue = None;
                this.meter.flushed();
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Ok(written)) => {
                this.wait(task)?;
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => {
                this.meter.end();
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                this.wait(task)?;
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_flush_counts_once_everything_is_taken() {
        let (here, mut there) = tokio::io::duplex(4);
        let mut metered = Metered::new(here);
        let meter = metered.meter();
        metered.write_all(b"1234").await.unwrap();
        assert_eq!(meter.flushes(), 1);
        let reading = async {
            let mut all = [0; 10];
            there.read_exact(&mut all).await.unwrap();
        };
        let (written, ()) = tokio::join!(metered.write_all(b"567890"), reading);
        written.unwrap();
        assert_eq!(meter.flushes(), 2, "a part of it is not it");
        drop(there);
        let mut rest = Vec::new();
        metered.read_to_end(&mut rest).await.unwrap();
        assert!(meter.is_gone());
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_breaks_at_the_deadline() {
        let (here, there) = tokio::io::duplex(4);
        let mut metered = Metered::new(here);
        let meter = metered.meter();
        meter.begin_stream(Duration::from_millis(20));
        let patience = Duration::from_secs(10);
        let written = tokio::time::timeout(patience, metered.write_all(b"12345")).await;
        let error = written.expect("it is given up").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(meter.is_gone() && meter.is_slow());
        drop(there);
    }

    #[tokio::test]
    async fn whoever_speaks_into_a_stream_is_gone() {
        let (here, mut there) = tokio::io::duplex(64);
        let mut metered = Metered::new(here);
        let meter = metered.meter();
        meter.begin_stream(Duration::from_secs(10));
        there.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        metered.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"");
        meter.gone().await;
    }
}
