//! The reader of one socket: a stream of inbound frames, owned and polled by the session.
//!
//! While nothing arrives it holds no buffer. What the peer does wrong ends the stream and tells
//! the writer, which says so to the peer; the session only sees that the peer is gone.
//!
//! Invariants: a message that has begun is there before its deadline, or the connection ends, so
//! what is buffered for a peer is not kept for it; control frames are bounded by the second.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use ackord_agents::Inbound;
use ackord_wire::{Code, Codec};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::Sleep;

use super::framing::{Decoder, Message, Violation};
use super::link::{Ending, Link};
use crate::context::Context;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where bytes are read to before they are known to be needed.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// See the module.
pub struct Frames {
    context: Arc<Context>,
    link: Rc<Link>,
    codec: Codec,
    decoder: Decoder,
    input: BytesMut,
    /// Runs while a message has begun and is not there.
    deadline: Option<Pin<Box<Sleep>>>,
    controls: Controls,
}

/// Control frames of a peer within a second.
struct Controls {
    since: Instant,
    count: u32,
}

impl Controls {
    /// One more; whether there are more than there may be.
    fn overrun(&mut self, max: u32) -> bool {
        let now = Instant::now();
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count > max
    }
}

impl Frames {
    /// `input` was read before the upgrade.
    pub fn new(context: Arc<Context>, link: Rc<Link>, codec: Codec, input: &[u8]) -> Self {
        let limits = context.limits();
        let decoder = Decoder::new(limits.frame_bytes_max, limits.fragments_max);
        let controls = Controls { since: Instant::now(), count: 0 };
        let input = BytesMut::from(input);
        Self { context, link, codec, decoder, input, deadline: None, controls }
    }

    fn end(&self, ending: Ending) -> Poll<Option<Inbound>> {
        self.link.end_reading();
        self.link.ended(ending);
        Poll::Ready(Some(Inbound::Closed))
    }

    fn violation(&self, violation: &Violation) -> Poll<Option<Inbound>> {
        let (code, detail) = match violation {
            Violation::TooLarge => {
                let max = self.context.limits().frame_bytes_max;
                (Code::TooLarge, format!("a frame has at most {max} bytes"))
            }
            Violation::TooManyFragments => {
                let max = self.context.limits().fragments_max;
                (Code::TooLarge, format!("a frame has at most {max} fragments"))
            }
            Violation::Malformed(what) => (Code::ProtocolViolation, (*what).to_owned()),
        };
        self.end(Ending::Violation { code, detail })
    }

    fn control_flood(&self) -> Poll<Option<Inbound>> {
        let max = self.context.limits().control_frames_per_s_max;
        let detail = format!("at most {max} pings and pongs in a second");
        self.end(Ending::Violation { code: Code::LimitReached, detail })
    }

    fn late(&self) -> Poll<Option<Inbound>> {
        let limit = self.context.limits().frame_deadline;
        let detail = format!("a frame did not arrive within {limit:?}");
        self.end(Ending::Violation { code: Code::IdleTimeout, detail })
    }

    fn frame(&mut self, bytes: Bytes) -> Poll<Option<Inbound>> {
        self.deadline = None;
        self.context.metrics.received_messages.inc();
        Poll::Ready(Some(Inbound::Frame(bytes)))
    }
}

impl Stream for Frames {
    type Item = Inbound;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if !this.link.is_reading() {
                return Poll::Ready(None);
            }
            match this.decoder.next(&mut this.input) {
                Err(violation) => return this.violation(&violation),
                Ok(Some(Message::Ping(_) | Message::Pong))
                    if this.controls.overrun(this.context.limits().control_frames_per_s_max) =>
                {
                    return this.control_flood();
                }
                Ok(Some(message)) => match (message, this.codec) {
                    (Message::Text(bytes), Codec::Json) | (Message::Binary(bytes), Codec::Cbor) => {
                        return this.frame(bytes);
                    }
                    (Message::Text(_), Codec::Cbor) => {
                        let what = "a text message, but the subprotocol's messages are binary";
                        return this.violation(&Violation::Malformed(what));
                    }
                    (Message::Binary(_), Codec::Json) => {
                        let what = "a binary message, but the subprotocol's messages are text";
                        return this.violation(&Violation::Malformed(what));
                    }
                    (Message::Ping(payload), _) => this.link.pinged(payload),
                    (Message::Pong, _) => return Poll::Ready(Some(Inbound::Pong)),
                    (Message::Close(number), _) => return this.end(Ending::Closed(number)),
                },
                Ok(None) => {
                    if this.input.is_empty() {
                        // Gives back the memory of the last message.
                        this.input = BytesMut::new();
                    }
                    match this.poll_fill(task) {
                        Poll::Ready(Ok(0) | Err(_)) => return this.end(Ending::Broken),
                        Poll::Ready(Ok(_)) => {}
                        Poll::Pending => {
                            ready!(this.poll_deadline(task));
                            return this.late();
                        }
                    }
                }
            }
        }
    }
}

impl Frames {
    /// Ready when a message that has begun is late.
    fn poll_deadline(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        if self.input.is_empty() && !self.decoder.is_within_message() {
            self.deadline = None;
            return Poll::Pending;
        }
        let limit = self.context.limits().frame_deadline;
        let begun = || Box::pin(tokio::time::sleep(limit));
        self.deadline.get_or_insert_with(begun).as_mut().poll(task)
    }

    fn poll_fill(&mut self, task: &mut TaskContext<'_>) -> Poll<std::io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let read = ready!(self.link.poll_read(task, scratch))?;
            self.input.extend_from_slice(&scratch[..read]);
            self.context.metrics.received_bytes.inc_by(read as u64);
            Poll::Ready(Ok(read))
        })
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // A session that went without a word has left the reader; the writer reads on if it must.
        self.link.end_reading();
    }
}
