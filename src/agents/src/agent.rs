//! The actor around a session machine. It turns frames, wakes, answers and time into calls on the
//! machine and carries out what that pushes; it decides nothing.
//!
//! Invariants:
//! - While the outbox is full the actor does nothing at all: it reads no frame, looks at no queue
//!   and sends nothing, until there is room or the write deadline has passed (slow consumer).
//! - What the machine pushes is carried out in order; a close is the last thing said.
//! - Leaving, for whatever reason, removes every trace of the session on its arbiter.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};

use ackord_machine::session::{CloseReason, Failed, Named, Output, Token, View, Wake};
use ackord_machine::site::{Command, Decision, EventKey, Outcome};
use ackord_replica::PartitionHandle;
use ackord_wire::frame::Closing;
use ackord_wire::{CloseCode, DecodeError};
use actix::prelude::{
    Actor, ActorContext, ActorFuture, ActorFutureExt, AsyncContext, Context, Handler, StreamHandler,
};
use bytes::Bytes;
use futures_util::Stream;

use crate::arbiter::Arbiter;
use crate::broker::Inner;
use crate::connection::{Connection, Inbound, Outbound};
use crate::cork::{KEPT_MAX, Rhythm, Urgency};
use crate::hub::Who;
use crate::live::LiveSession;
use crate::notice::{Bell, Notice, Notified};
use crate::outbox::Room;
use crate::outcomes::Answer;
use crate::seat::{Clocks, Facts, Seat, wall_ms};
use crate::shell::{Counted, Shell, ShellSetup};
use crate::translate;

/// A session machine as its actor drives it.
pub(crate) trait Serve: Unpin + 'static {
    /// What it says to its peer.
    type Message: Unpin + 'static;

    /// Tells it what the peer said.
    fn on_frame(
        &mut self,
        frame: &[u8],
        shell: &mut Shell,
        out: &mut Vec<Output<Self::Message>>,
    ) -> Result<(), DecodeError>;
    /// Tells it what became of something it asked for.
    fn on_outcome(
        &mut self,
        token: Token,
        result: Result<Outcome, Failed>,
        shell: &Shell,
        out: &mut Vec<Output<Self::Message>>,
    );
    /// Tells it to look at the state.
    fn on_wake(&mut self, wake: &Wake, view: View<'_>, out: &mut Vec<Output<Self::Message>>);
    /// Tells it that time has passed.
    fn on_time(&mut self, view: View<'_>, out: &mut Vec<Output<Self::Message>>);
    /// Tells it that the peer answered a ping.
    fn on_alive(&mut self, out: &mut Vec<Output<Self::Message>>);
    /// When it wants to be told.
    fn next_deadline(&self) -> Option<u64>;
    /// Looks at something that it decided to say, before it is sent.
    fn watch(&self, message: &Self::Message, shell: &Shell);
    /// Ends it.
    fn close(&mut self, reason: CloseReason, detail: &str, out: &mut Vec<Output<Self::Message>>);
    /// Tells it that the transport has taken something.
    fn on_written(
        &mut self,
        _named: &Named,
        _view: View<'_>,
        _out: &mut Vec<Output<Self::Message>>,
    ) {
    }
    /// What it is to be told of when the transport has taken this.
    fn receipt(&self, _message: &Self::Message) -> Option<Named> {
        None
    }
    /// Whether its peer waits for this.
    fn urgency(_message: &Self::Message) -> Urgency {
        Urgency::Now
    }
    /// The frame for what it says.
    fn encode(&self, message: &Self::Message, shell: &Shell) -> Bytes;
    /// The frame that announces the close.
    fn encode_closing(&self, closing: Closing, shell: &Shell) -> Bytes;
    /// The events it wants to be woken for, sorted.
    fn interests(&self) -> impl Iterator<Item = EventKey>;
    /// What to propose after its end.
    fn on_ended(&self) -> Option<Command>;
    /// Tells those who look how it stands.
    fn tell(&self, clocks: Clocks, lanes: bool, session: &mut LiveSession);
}

/// The actor of one session.
pub(crate) struct Agent<S: Serve> {
    seat: Rc<Seat<S>>,
    shell: Shell,
    /// Events that the hub wakes this session for, sorted.
    interests: Vec<EventKey>,
    /// Said by the session, not yet taken by the outbox: what is kept for the next event, or what there
    /// was no room for.
    unsent: VecDeque<S::Message>,
    rhythm: Rhythm,
    closing: Option<Box<(Closing, CloseCode)>>,
}

/// What an agent is started with, besides its session and its frames.
pub(crate) struct AgentSetup {
    pub broker: Arc<Inner>,
    pub arbiter: Rc<Arbiter>,
    pub partition: PartitionHandle,
    pub connection: Connection,
    pub who: Who,
    pub counted: Counted,
}

impl<S: Serve> Agent<S> {
    /// Starts the actor on this arbiter.
    pub fn open(session: S, setup: AgentSetup, frames: impl Stream<Item = Inbound> + 'static) {
        Self::create(|context| {
            let AgentSetup { broker, arbiter, partition, connection, who, counted } = setup;
            let Connection {
                site,
                codec,
                outbox,
                peer,
                transport,
                expires_ms,
                principal: _,
                token: _,
            } = connection;
            let facts = Facts {
                node: broker.place.node,
                id: broker.next_session(),
                who,
                since_ms: wall_ms(),
                transport,
                codec,
                peer,
                stalled: Cell::new(false),
            };
            let seat = Rc::new(Seat { session: RefCell::new(session), facts });
            let notice =
                Notice::new(Bell::Actor(context.address().recipient())).seated(seat.clone());
            let setup = ShellSetup {
                broker,
                arbiter,
                partition,
                site,
                outbox,
                counted,
                seat: seat.clone(),
                expires_ms,
            };
            let shell = Shell::new(setup, Rc::new(notice));
            shell.arm(None);
            <Self as StreamHandler<Inbound>>::add_stream(frames, context);
            <Self as StreamHandler<Answer>>::add_stream(shell.outcomes.answers(), context);
            let (interests, unsent) = (Vec::new(), VecDeque::new());
            Self { seat, shell, interests, unsent, rhythm: Rhythm::default(), closing: None }
        });
    }

    /// The session, for one call: nobody else looks at it meanwhile.
    fn session(&self) -> RefMut<'_, S> {
        self.seat.session.borrow_mut()
    }

    /// Carries out what the session pushed, and what that leads to.
    fn carry_out(&mut self, mut out: Vec<Output<S::Message>>, context: &mut Context<Self>) {
        while !out.is_empty() {
            let mut failed = Vec::new();
            for output in out.drain(..) {
                match output {
                    Output::Propose { token, command } => {
                        match self.shell.arbiter.propose(&self.shell.partition, command) {
                            Ok(pending) => {
                                self.shell.outcomes.push(token, pending, self.shell.heard);
                            }
                            Err(error) => failed.push((token, error)),
                        }
                    }
                    Output::Linearize { token } => {
                        self.shell.outcomes.linearize(token, self.shell.partition.clone());
                    }
                    Output::Probe => {
                        // A full outbox is a peer that does not read: it gives no sign of life.
                        let _full = self.shell.outbox.say(Outbound::Ping);
                    }
                    Output::Send(message) => {
                        self.session().watch(&message, &self.shell);
                        self.say(message);
                    }
                    Output::Close { reason, detail } => self.begin_close(reason, &detail),
                }
            }
            for (token, error) in failed {
                self.shell.metrics().proposal_failed(translate::propose_code(error));
                let result = Err(translate::failed(error));
                self.session().on_outcome(token, result, &self.shell, &mut out);
            }
        }
        self.follow_interests();
        let deadline = self.session().next_deadline();
        self.shell.arm(deadline);
        if self.closing.is_some() || (!self.unsent.is_empty() && !self.keeps()) {
            self.flush(context);
        }
    }

    /// Whether what is unsent may wait for the next event.
    fn keeps(&self) -> bool {
        let may_wait = |message| S::urgency(message) == Urgency::Confirmation;
        if !self.rhythm.is_steady()
            || self.unsent.len() > KEPT_MAX
            || !self.unsent.iter().all(may_wait)
        {
            return false;
        }
        let now_ms = self.shell.broker.now_ms();
        let kept = &self.shell.notice.kept;
        if kept.is_due(now_ms) {
            return false;
        }
        self.shell.arbiter.corks.keep(&self.shell.notice, now_ms + self.confirmation_delay_ms());
        true
    }

    fn confirmation_delay_ms(&self) -> u64 {
        self.shell.broker.options.confirmation_delay.as_millis() as u64
    }

    /// Sends at once what can be sent and has to be; the rest waits for room or the next event.
    fn say(&mut self, message: S::Message) {
        let (urgency, delay_ms) = (S::urgency(&message), self.confirmation_delay_ms());
        self.rhythm.said(urgency, || self.shell.broker.now_ms(), delay_ms);
        let may_wait = urgency == Urgency::Confirmation && self.rhythm.is_steady();
        let room =
            if self.unsent.is_empty() && !may_wait { self.try_send(&message) } else { Room::Full };
        match room {
            Room::Some => {}
            // A front that has gone is noticed by the flush, and what may wait is looked at there.
            Room::Full | Room::Gone => self.unsent.push_back(message),
        }
    }

    fn try_send(&self, message: &S::Message) -> Room {
        let receipt = self.session().receipt(message);
        self.shell.try_send(|| self.session().encode(message, &self.shell), receipt)
    }

    fn begin_close(&mut self, reason: CloseReason, detail: &str) {
        let (mut closing, close) = translate::closing(reason, detail);
        if reason == CloseReason::ShuttingDown {
            closing.retry_after_ms = Some(self.shell.broker.come_again_ms());
        }
        self.shell.metrics().closed(close.code);
        tracing::debug!(
            site = %self.shell.site, service = self.shell.who.service(),
            client = self.shell.who.client(), peer = self.shell.peer(),
            code = %close.code, detail, "session closes"
        );
        if reason != CloseReason::Goodbye {
            // What is committed stays so.
            self.unsent.retain(|message| S::urgency(message) == Urgency::Confirmation);
        }
        self.closing = Some(Box::new((closing, close)));
    }

    /// Hands over what waits, as far as there is room; ends the session after its last word.
    fn flush(&mut self, context: &mut Context<Self>) {
        while let Some(message) = self.unsent.front() {
            match self.try_send(message) {
                Room::Some => self.unsent.pop_front(),
                Room::Full => return self.wait_for_room(context),
                Room::Gone => return context.stop(),
            };
        }
        self.unsent = VecDeque::new();
        self.shell.notice.kept.clear();
        let Some(closing) = self.closing.take() else { return };
        let encode = || self.session().encode_closing(closing.0.clone(), &self.shell);
        match self.shell.try_send(encode, None) {
            Room::Full => {
                self.closing = Some(closing);
                self.wait_for_room(context);
            }
            Room::Some | Room::Gone => {
                self.shell.send_close(closing.1.number, closing.1.code.as_str());
                context.stop();
            }
        }
    }

    /// Stops everything until the outbox has room or the write deadline has passed.
    fn wait_for_room(&mut self, context: &mut Context<Self>) {
        self.shell.set_stalled(true);
        let deadline = tokio::time::sleep(self.shell.broker.options.write_deadline);
        context.wait(WaitForRoom { deadline: Box::pin(deadline) }.map(
            |room, agent: &mut Self, context| match room {
                Room::Some => {
                    agent.shell.set_stalled(false);
                    agent.flush(context);
                }
                Room::Gone => context.stop(),
                Room::Full => agent.give_up(context),
            },
        ));
    }

    fn give_up(&mut self, context: &mut Context<Self>) {
        let detail = "the outbox was full for the whole write deadline";
        let (_, close) = translate::closing(CloseReason::SlowConsumer, detail);
        if self.closing.is_none() {
            self.shell.metrics().closed(close.code);
        }
        tracing::debug!(
            site = %self.shell.site, service = self.shell.who.service(),
            client = self.shell.who.client(), peer = self.shell.peer(),
            "slow consumer"
        );
        let mut out = Vec::new();
        self.session().close(CloseReason::SlowConsumer, detail, &mut out);
        self.shell.send_close(close.number, close.code.as_str());
        context.stop();
    }

    /// Makes the hub wake this session for the events that it now wants.
    fn follow_interests(&mut self) {
        let wanted: Vec<EventKey> = {
            let session = self.session();
            if session.interests().eq(self.interests.iter().copied()) {
                return;
            }
            session.interests().collect()
        };
        let mut index = self.shell.index.borrow_mut();
        for event in self.interests.iter().filter(|event| wanted.binary_search(event).is_err()) {
            index.unsubscribe(&self.shell.site, self.shell.id, *event);
        }
        for event in wanted.iter().filter(|event| self.interests.binary_search(event).is_err()) {
            index.subscribe(&self.shell.site, self.shell.id, *event, &self.shell.notice);
        }
        drop(index);
        self.interests = wanted;
        self.interests.shrink_to_fit();
    }
}

impl<S: Serve> Actor for Agent<S> {
    type Context = Context<Self>;

    fn stopped(&mut self, _context: &mut Self::Context) {
        self.shell.leave(&self.interests);
        if let Some(command) = self.session().on_ended() {
            self.shell.broker.propose_last(&self.shell.partition, command);
        }
    }
}

impl<S: Serve> StreamHandler<Inbound> for Agent<S> {
    fn handle(&mut self, inbound: Inbound, context: &mut Self::Context) {
        self.rhythm.turn(false);
        self.shell.on_heard();
        match inbound {
            Inbound::Pong => {
                let mut out = Vec::new();
                self.session().on_alive(&mut out);
                self.carry_out(out, context);
            }
            Inbound::Closed => context.stop(),
            Inbound::Frame(frame) => {
                let metrics = self.shell.metrics();
                metrics.frames_received.inc();
                metrics.received_bytes.inc_by(frame.len() as u64);
                let mut out = Vec::new();
                let mut session = self.seat.session.borrow_mut();
                if let Err(error) = session.on_frame(&frame, &mut self.shell, &mut out) {
                    let detail = error.to_string();
                    session.close(CloseReason::ProtocolViolation, &detail, &mut out);
                }
                drop(session);
                self.carry_out(out, context);
            }
        }
    }
}

impl<S: Serve> StreamHandler<Answer> for Agent<S> {
    fn handle(&mut self, answer: Answer, context: &mut Self::Context) {
        if let Ok(Outcome::Raised(raised)) = &answer.result
            && !raised.duplicate
            && matches!(raised.decision, Decision::Stored(_))
        {
            let took = answer.since.elapsed();
            self.shell.metrics().publish.observe(took.as_secs_f64());
        }
        self.rhythm.turn(false);
        let mut out = Vec::new();
        self.session().on_outcome(answer.token, answer.result, &self.shell, &mut out);
        self.carry_out(out, context);
    }
}

impl<S: Serve> Handler<Notified> for Agent<S> {
    type Result = ();

    fn handle(&mut self, _notified: Notified, context: &mut Self::Context) {
        let marks = self.shell.notice.take();
        let mut out = Vec::new();
        if marks.shutdown {
            let detail = "the node is shutting down";
            self.session().close(CloseReason::ShuttingDown, detail, &mut out);
        }
        if marks.time
            && let Some(detail) = self.shell.on_time()
        {
            self.session().close(CloseReason::IdleTimeout, detail, &mut out);
        }
        if marks.time && self.shell.has_expired() {
            let detail = "the token has expired: connect again with a new one";
            self.session().close(CloseReason::CredentialsExpired, detail, &mut out);
        }
        if marks.time && self.shell.is_outdated() {
            let detail = "the cluster has other nodes now: connect again";
            self.session().close(CloseReason::AddressesChanged, detail, &mut out);
        }
        self.rhythm.turn(!marks.wakes.is_empty() && marks.written.is_empty());
        if !marks.wakes.is_empty() || !marks.written.is_empty() || marks.time {
            let mut session = self.session();
            self.shell.look(|view| {
                for named in &marks.written {
                    session.on_written(named, view, &mut out);
                }
                for wake in &marks.wakes {
                    session.on_wake(wake, view, &mut out);
                }
                if marks.time {
                    session.on_time(view, &mut out);
                }
            });
        }
        self.carry_out(out, context);
    }
}

/// Ends with room in the outbox, or with `Full` when there is none for the whole write deadline.
struct WaitForRoom {
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl<S: Serve> ActorFuture<Agent<S>> for WaitForRoom {
    type Output = Room;

    fn poll(
        mut self: Pin<&mut Self>,
        agent: &mut Agent<S>,
        _context: &mut Context<Agent<S>>,
        task: &mut task::Context<'_>,
    ) -> Poll<Room> {
        match agent.shell.outbox.poll_room(task) {
            Poll::Ready(room) => Poll::Ready(room),
            Poll::Pending => self.deadline.as_mut().poll(task).map(|()| Room::Full),
        }
    }
}
