//! The writer of one socket: carries what the session says to the peer, answers pings, and closes.
//!
//! Runs in a task of its own and ends with the connection. Messages that wait together
//! are written together. While nothing is to be written it holds no buffer.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use ackord_agents::{Outbound, Receipt, Said};
use ackord_wire::code::CloseCode;
use ackord_wire::frame::{ClientMessage, Closing};
use ackord_wire::{Code, Codec};
use tokio::time::timeout;

use super::framing::{self, Opcode};
use super::link::{Ending, Link};
use crate::context::Context;
use crate::http::RETRY_AFTER_S;

/// Bytes after which waiting messages are written before more are taken.
const BATCH_BYTES: usize = 64 * 1024;
/// Bytes that a peer may go on sending while its connection closes.
const DISCARD_BYTES_MAX: usize = 16 << 20;

/// See the module.
pub struct Writer {
    pub context: Arc<Context>,
    pub link: Rc<Link>,
    pub codec: Codec,
    pub outbox: Said,
    /// Of what is being written.
    pub receipts: Vec<Receipt>,
}

/// What the writer does next.
enum Step {
    /// The session said this.
    Say(Outbound),
    /// The session ended without a close.
    Silent,
    /// A ping is to be answered or the reader has come to an end.
    Look,
    /// The front stops.
    Stop,
}

/// How the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Closed by this side, for this reason.
    Here(Code),
    /// Closed or lost by the peer.
    Peer,
}

impl Writer {
    /// Serves the connection until it is closed; the code is `None` when the peer closed it.
    pub async fn run(mut self) -> Option<Code> {
        let end = self.serve().await;
        self.link.close();
        match end {
            End::Here(code) => Some(code),
            End::Peer => None,
        }
    }

    async fn serve(&mut self) -> End {
        let stopping = self.context.stopping.clone();
        loop {
            let step = tokio::select! {
                biased;
                () = woken(&self.link) => Step::Look,
                said = self.outbox.next() => said.map_or(Step::Silent, Step::Say),
                () = stopping.cancelled() => Step::Stop,
            };
            let mut out = Vec::new();
            let end = match step {
                Step::Say(first) => self.gather(first, &mut out),
                Step::Silent => Some(self.closing(Code::Internal, "the session ended", &mut out)),
                Step::Stop => {
                    let waiting = self.outbox.try_next();
                    let said = waiting.and_then(|first| self.gather(first, &mut out));
                    Some(said.unwrap_or_else(|| {
                        self.closing(Code::ShuttingDown, "the node is shutting down", &mut out)
                    }))
                }
                Step::Look => self.look(&mut out),
            };
            let written = self.write(&out).await;
            match (written, end) {
                (Err(end), _) => return end,
                (Ok(()), None) => self.tell_written(),
                (Ok(()), Some(end)) => {
                    self.farewell().await;
                    return end;
                }
            }
        }
    }

    /// What was gathered is with the transport: those who asked are told.
    fn tell_written(&mut self) {
        // Nothing is held while nothing is to be written.
        std::mem::take(&mut self.receipts).into_iter().for_each(Receipt::written);
    }

    /// Encodes this message and those that wait behind it.
    fn gather(&mut self, first: Outbound, out: &mut Vec<u8>) -> Option<End> {
        let mut next = Some(first);
        while let Some(outbound) = next {
            match outbound {
                Outbound::Frame(bytes) => {
                    self.context.metrics.sent_messages.inc();
                    framing::encode(opcode(self.codec), &bytes, out);
                }
                Outbound::Receipted(bytes, receipt) => {
                    self.context.metrics.sent_messages.inc();
                    framing::encode(opcode(self.codec), &bytes, out);
                    self.receipts.push(receipt);
                }
                Outbound::Ping => framing::encode(Opcode::Ping, b"", out),
                Outbound::Close { number, reason } => {
                    framing::encode_close(number, &reason, out);
                    let close =
                        ackord_wire::code::CLOSE_CODES.iter().find(|close| close.number == number);
                    return Some(End::Here(close.map_or(Code::Unknown, |close| close.code)));
                }
            }
            next = if out.len() < BATCH_BYTES { self.outbox.try_next() } else { None };
        }
        None
    }

    /// Answers a ping, or reacts to the reader's end.
    fn look(&mut self, out: &mut Vec<u8>) -> Option<End> {
        if let Some(payload) = self.link.take_pong() {
            framing::encode(Opcode::Pong, &payload, out);
        }
        match self.link.ending()? {
            Ending::Broken => Some(End::Peer),
            Ending::Closed(number) => {
                match number {
                    Some(number) => framing::encode_close(number, "", out),
                    None => framing::encode(Opcode::Close, b"", out),
                }
                Some(End::Peer)
            }
            Ending::Violation { code, detail } => {
                // What was decided before is still told.
                while let Some(waiting) = self.outbox.try_next() {
                    if let Some(end) = self.gather(waiting, out) {
                        return Some(end);
                    }
                }
                Some(self.closing(code, &detail, out))
            }
        }
    }

    /// Encodes the last frame and the close behind it.
    fn closing(&self, code: Code, detail: &str, out: &mut Vec<u8>) -> End {
        let close = CloseCode::of(code);
        let closing = Closing {
            code: close.code,
            detail: detail.to_owned(),
            reconnect: close.reconnect,
            retry_after_ms: close.reconnect.then_some(u64::from(RETRY_AFTER_S) * 1000),
        };
        // The `closing` frame is the same for services and clients.
        let frame = self.codec.encode(&ClientMessage::Closing(closing));
        framing::encode(opcode(self.codec), &frame, out);
        framing::encode_close(close.number, close.code.as_str(), out);
        End::Here(close.code)
    }

    async fn write(&self, mut bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.metrics.sent_bytes.inc_by(bytes.len() as u64);
        let writing = async {
            while !bytes.is_empty() {
                match poll_fn(|task| self.link.poll_write(task, bytes)).await {
                    Ok(0) | Err(_) => return Err(End::Peer),
                    Ok(written) => bytes = &bytes[written..],
                }
            }
            // What was written counts as written once it has left the buffers of TLS, too.
            poll_fn(|task| self.link.poll_flush(task)).await.map_err(|_| End::Peer)
        };
        let deadline = self.context.limits().write_deadline;
        timeout(deadline, writing).await.unwrap_or(Err(End::Here(Code::SlowConsumer)))
    }

    /// Waits, not long, for the peer to close its half: a socket that is closed with bytes unread
    /// is reset, and the reset would overtake the last frame.
    async fn farewell(&self) {
        self.link.end_reading();
        let waiting = async {
            if poll_fn(|task| self.link.poll_shutdown(task)).await.is_err() {
                return;
            }
            let mut discarded = 0;
            let mut buffer = vec![0; 512];
            while discarded < DISCARD_BYTES_MAX {
                match poll_fn(|task| self.link.poll_read(task, &mut buffer)).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => discarded += read,
                }
            }
        };
        // Past the deadline the connection is dropped as it is.
        let deadline = self.context.limits().close_deadline;
        let _ = timeout(deadline, waiting).await;
    }
}

/// Ready when there is a pong or an ending to look at.
async fn woken(link: &Link) {
    poll_fn(|task| {
        link.register_writer(task.waker());
        if link.has_news() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn opcode(codec: Codec) -> Opcode {
    match codec {
        Codec::Json => Opcode::Text,
        Codec::Cbor => Opcode::Binary,
    }
}
