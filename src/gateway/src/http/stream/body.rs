//! The body of a stream: what the session says as Server-Sent Events, and what left for the peer as
//! acknowledgements.
//!
//! Invariants: a chunk is handed to the connection only when the one before has been taken by the
//! socket, so a peer that reads slowly leaves its events in the queue they come from; an idle
//! stream holds no buffer and no timer of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use ackord_agents::{Inbound, Outbound, Said};
use ackord_machine::site::{ClientId, Epoch, EventKey, Generation, Incarnation, InstanceId};
use ackord_machine::site::{SessionId, SiteName, TokenId};
use ackord_wire::code::{CLOSE_CODES, CloseCode};
use ackord_wire::frame::{Ack, ClientFrame, Closing, EventMessage};
use ackord_wire::{ClientMessage, Code, Codec};
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use futures_channel::mpsc;
use serde_json::json;

use super::super::RETRY_AFTER_S;
use super::UNSENT_MAX;
use super::ask::Format;
use super::frame::{self, Extras};
use super::position::Positions;
use super::proof::AckToken;
use crate::context::Context;
use crate::meter::Meter;
use crate::metrics::close_label;

/// The session of a stateful client, as its ack tokens name it.
#[derive(Clone, Debug)]
pub struct Stateful {
    pub client: ClientId,
    pub credential: Option<TokenId>,
    /// When the session ends with it, where that is known, milliseconds of Unix time.
    pub expires_ms: Option<u64>,
    pub session: SessionId,
    pub epoch: Epoch,
}

impl Stateful {
    /// The token that acknowledges this delivery.
    pub fn ack_token(
        &self,
        site: &SiteName,
        incarnation: Incarnation,
        event: EventKey,
        generation: Generation,
        instance: InstanceId,
    ) -> String {
        let token = AckToken {
            client: self.client.clone(),
            credential: self.credential.clone(),
            expires_ms: self.expires_ms,
            epoch: self.epoch,
            incarnation,
            event,
            generation,
            instance,
        };
        token.text(site, self.session)
    }
}

/// Puts what a session says into the words of a stream.
pub struct Teller {
    pub site: SiteName,
    pub format: Format,
    /// `None` for a guest.
    pub stateful: Option<Stateful>,
    /// Where the client stands once it has read all that was told.
    pub positions: Positions,
    /// Whether it was told that and why the stream ends.
    pub closing: bool,
}

/// What else comes of something that was told.
enum Told {
    Nothing,
    /// To be acknowledged for a guest once it has left.
    Event(Ack),
    /// To be answered once it has left.
    Ping,
    End(Code),
}

impl Teller {
    fn tell(&mut self, outbound: Outbound, out: &mut Vec<u8>) -> Told {
        match outbound {
            Outbound::Ping => {
                out.extend_from_slice(frame::HEARTBEAT);
                Told::Ping
            }
            Outbound::Close { number, .. } => {
                let close = CLOSE_CODES.iter().find(|close| close.number == number);
                let code = close.map_or(Code::Internal, |close| close.code);
                // A session that was cut short could not announce it.
                if !self.closing {
                    self.tell_closing(&closing_of(code), out);
                }
                Told::End(code)
            }
            Outbound::Frame(bytes) | Outbound::Receipted(bytes, _) => {
                match Codec::Json.decode(&bytes) {
                    Ok(ClientMessage::Event(message)) => self.tell_event(&bytes, *message, out),
                    Ok(message) => {
                        self.tell_other(message, out);
                        Told::Nothing
                    }
                    // The session encoded it a moment ago.
                    Err(error) => {
                        tracing::error!(%error, "a session's frame cannot be read");
                        Told::End(Code::Internal)
                    }
                }
            }
        }
    }

    fn tell_event(&mut self, bytes: &[u8], message: EventMessage, out: &mut Vec<u8>) -> Told {
        let (event, generation) = (EventKey(message.subscription), Generation(message.generation));
        let (instance, incarnation) =
            (InstanceId(message.instance_id), Incarnation(message.incarnation));
        // What a guest was told is on its way: there is no timer after which it is told again.
        let stands = self.positions.of(event).map(|position| position.instance);
        if self.stateful.is_none() && stands.is_some_and(|stands| instance <= stands) {
            return Told::Nothing;
        }
        self.positions.set(event, generation, instance);
        let ack = self.stateful.as_ref().map(|stateful| {
            stateful.ack_token(&self.site, incarnation, event, generation, instance)
        });
        let named =
            Ack { subscription: event.0, instance_id: instance.0, generation: Some(generation.0) };
        let (id, name) = (self.positions.text(), message.event.clone());
        let extras = Extras { ack, after: None };
        let data = frame::data(bytes, message, &self.site, self.format, extras);
        frame::write(out, Some(&id), &name, &data);
        Told::Event(named)
    }

    fn tell_other(&mut self, message: ClientMessage, out: &mut Vec<u8>) {
        match message {
            ClientMessage::Subscribed(subscribed) => {
                frame::write_control(out, None, frame::SUBSCRIBED, &subscribed);
            }
            ClientMessage::Authority { subscription, granted } => {
                let data = json!({"subscription": subscription, "granted": granted});
                frame::write_control(out, None, frame::AUTHORITY, &data);
            }
            ClientMessage::Presence(presence) => {
                frame::write_control(out, None, frame::PRESENCE, &presence);
            }
            ClientMessage::Closing(closing) => self.tell_closing(&closing, out),
            // The welcome is over, and whoever acknowledges is answered there.
            // Batches are not for streams.
            ClientMessage::Welcome(_)
            | ClientMessage::Committed(_)
            | ClientMessage::Event(_)
            | ClientMessage::Events(_) => {}
        }
    }

    fn tell_closing(&mut self, closing: &Closing, out: &mut Vec<u8>) {
        self.closing = true;
        if let Some(ms) = closing.retry_after_ms {
            frame::write_retry(out, ms);
        }
        frame::write_control(out, None, frame::CLOSING, closing);
    }
}

/// What is said of a session that ended without a word.
pub fn closing_of(code: Code) -> Closing {
    let close = CloseCode::of(code);
    Closing {
        code: close.code,
        detail: "the session ended".to_owned(),
        reconnect: close.reconnect,
        retry_after_ms: close.reconnect.then_some(u64::from(RETRY_AFTER_S) * 1000),
    }
}

/// What was handed to the connection and may not have left yet.
#[derive(Default)]
struct Unsent {
    /// The flushes before it was handed over: the next one takes it.
    before: u64,
    acks: Vec<Ack>,
    ping: bool,
}

/// How a stream ended.
#[derive(Clone, Copy)]
enum End {
    /// The broker said why.
    Here(Code),
    /// The peer left, or did not read.
    Peer,
}

/// See the module.
pub struct Events {
    pub context: Arc<Context>,
    pub meter: Rc<Meter>,
    pub teller: Teller,
    /// To the session.
    pub inlet: mpsc::Sender<Inbound>,
    pub said: Said,
    /// Said while the stream opened.
    pub waiting: VecDeque<Outbound>,
    /// How the stream begins.
    pub head: Vec<u8>,
    kind: &'static str,
    unsent: Option<Unsent>,
    end: Option<End>,
}

/// What a stream begins with.
pub struct Opening {
    pub meter: Rc<Meter>,
    pub teller: Teller,
    pub inlet: mpsc::Sender<Inbound>,
    pub said: Said,
    pub waiting: VecDeque<Outbound>,
    pub head: Vec<u8>,
}

impl Events {
    pub fn new(context: Arc<Context>, opening: Opening) -> Self {
        let Opening { meter, teller, inlet, said, waiting, head } = opening;
        let kind = if teller.stateful.is_some() { "client" } else { "stateless" };
        context.metrics.streams.with_label_values(&[kind]).inc();
        context.metrics.streams_opened.with_label_values(&[kind]).inc();
        meter.begin_stream(context.limits().write_deadline);
        let (unsent, end) = (None, None);
        Self { context, meter, teller, inlet, said, waiting, head, kind, unsent, end }
    }

    /// Tells the session what has left for the peer.
    fn has_left(&mut self, unsent: Unsent) {
        let guest = self.teller.stateful.is_none();
        let acks = unsent.acks.into_iter().filter(|_| guest);
        let acks =
            acks.map(|ack| Inbound::Frame(Codec::Json.encode(&ClientFrame::Ack(ack)).into()));
        for inbound in acks.chain(unsent.ping.then_some(Inbound::Pong)) {
            match self.inlet.try_send(inbound) {
                Ok(()) => {}
                // The session has ended: what it said last is still to come.
                Err(error) if error.is_disconnected() => return,
                // One instance of a subscription is in flight, so there is room for all.
                Err(_full) => self.end = Some(End::Here(Code::Internal)),
            }
        }
    }

    /// As much as may be on its way at a time; empty when there is nothing to tell.
    fn gather(&mut self, task: &mut TaskContext<'_>) -> (Vec<u8>, Unsent) {
        let mut out = std::mem::take(&mut self.head);
        let mut unsent = Unsent { before: self.meter.flushes(), ..Unsent::default() };
        let outbox = self.context.limits().outbox_messages;
        for _ in 0..UNSENT_MAX.saturating_sub(outbox).max(1) {
            let outbound = match self.waiting.pop_front() {
                Some(outbound) => outbound,
                None => match self.said.poll_next(task) {
                    Poll::Ready(Some(outbound)) => outbound,
                    Poll::Ready(None) => {
                        if !self.teller.closing {
                            self.teller.tell_closing(&closing_of(Code::Internal), &mut out);
                        }
                        self.end = Some(End::Here(Code::Internal));
                        return (out, unsent);
                    }
                    Poll::Pending => return (out, unsent),
                },
            };
            match self.teller.tell(outbound, &mut out) {
                Told::Nothing => {}
                Told::Event(ack) => unsent.acks.push(ack),
                Told::Ping => unsent.ping = true,
                Told::End(code) => {
                    self.end = Some(End::Here(code));
                    return (out, unsent);
                }
            }
        }
        (out, unsent)
    }
}

impl MessageBody for Events {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if this.meter.is_gone() {
            this.end.get_or_insert(End::Peer);
            return Poll::Ready(None);
        }
        if let Some(unsent) = this.unsent.take() {
            if this.meter.flushes() == unsent.before {
                this.unsent = Some(unsent);
                this.meter.register(task.waker());
                return Poll::Pending;
            }
            this.has_left(unsent);
        }
        if this.end.is_some() {
            return Poll::Ready(None);
        }
        let (out, unsent) = this.gather(task);
        if !out.is_empty() {
            this.unsent = Some(unsent);
            return Poll::Ready(Some(Ok(out.into())));
        }
        if this.end.is_some() {
            return Poll::Ready(None);
        }
        this.meter.register(task.waker());
        Poll::Pending
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let slow = self.meter.is_slow().then_some(Code::SlowConsumer);
        let code = slow.or(match self.end {
            Some(End::Here(code)) => Some(code),
            Some(End::Peer) | None => None,
        });
        let metrics = &self.context.metrics;
        metrics.streams.with_label_values(&[self.kind]).dec();
        metrics.streams_closed.with_label_values(&[self.kind, close_label(code)]).inc();
        self.meter.end_stream();
    }
}

#[cfg(test)]
mod tests {
    use ackord_agents::{Broker, BrokerOptions, Room, outbox};
    use ackord_replica::{Node, NodeOptions};
    use ackord_wire::frame::EventMessage;
    use ackord_wire::structure::Category;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::context::Live;
    use crate::meter::Metered;
    use crate::options::GatewayLimits;

    fn context(dir: &std::path::Path) -> Arc<Context> {
        let mut options = NodeOptions::new(dir);
        options.partitions = 1;
        options.log_file_bytes = 1 << 20;
        let node = Arc::new(Node::start(options).unwrap());
        let broker = Broker::new(node, BrokerOptions::default());
        let live = Live {
            admin_hash: [0; 32],
            origins: Vec::new(),
            issuers: Vec::new(),
            limits: GatewayLimits::default(),
        };
        Arc::new(Context::new(broker, live, Vec::new()))
    }

    fn event(subscription: u32, instance_id: u64) -> Outbound {
        let message = EventMessage {
            subscription,
            attempt: 1,
            age: 0,
            generation: 0,
            event: format!("e{subscription}"),
            category: Category::Queueing,
            service: "s".to_owned(),
            incarnation: 5,
            instance_id,
            created_ms: 1,
            args: Some(serde_json::value::to_raw_value(&instance_id).unwrap()),
            data: None,
            content_type: None,
            original_id: None,
            traceparent: None,
            tracestate: None,
        };
        Outbound::Frame(Codec::Json.encode(&ClientMessage::Event(Box::new(message))).into())
    }

    /// A session that has an event for each of its subscriptions, and a peer that reads nothing: what
    /// is on its way is bounded, and none of it is acknowledged before it has left.
    #[test]
    fn of_what_a_slow_guest_does_not_read_sixteen_events_are_on_their_way() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut peer) = tokio::io::duplex(16);
            let mut socket = Metered::new(ours);
            let (says, said) = outbox(context.limits().outbox_messages);
            let (inlet, mut told) = mpsc::channel(1000);
            let teller = Teller {
                site: "demo".into(),
                format: super::super::ask::Format::Ackord,
                stateful: None,
                positions: Positions::new(Incarnation(5)),
                closing: false,
            };
            // Said while the stream opened.
            let waiting: VecDeque<Outbound> = (0..50).map(|number| event(number, 1)).collect();
            let head = Vec::new();
            let opening = Opening { meter: socket.meter(), teller, inlet, said, waiting, head };
            let mut events = Events::new(context.clone(), opening);
            let mut next = || {
                let mut task = TaskContext::from_waker(std::task::Waker::noop());
                match Pin::new(&mut events).poll_next(&mut task) {
                    Poll::Ready(chunk) => Some(chunk.unwrap().unwrap()),
                    Poll::Pending => None,
                }
            };
            // The session says what it can, the connection takes what it gets.
            let (mut said, mut chunks) = (0, Vec::new());
            for subscription in 50..100 {
                if says.say(event(subscription, 1)) == Room::Some {
                    said += 1;
                }
                chunks.extend(next());
            }
            assert_eq!(chunks.len(), 1, "nothing more before that has left");
            let taken = String::from_utf8_lossy(&chunks[0]).matches("event: ").count();
            assert!((2..=UNSENT_MAX).contains(&(taken + said)), "{taken} and {said}");
            assert!(told.try_recv().is_err(), "nothing has left");
            // The peer reads: that is acknowledged, and more goes on its way.
            let first = chunks.swap_remove(0);
            let mut read = vec![0; first.len()];
            let (written, whole) =
                tokio::join!(socket.write_all(&first), peer.read_exact(&mut read));
            written.unwrap();
            whole.unwrap();
            assert!(next().is_some());
            assert!(told.try_recv().is_ok());
        });
    }
}
