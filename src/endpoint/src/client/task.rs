//! The task of a client endpoint: carries out what the subscribe machine says.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ackord_wire::Codec;
use ackord_wire::frame::ClientMessage;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::{Handled, Handler, NoticeFn, Shared};
use crate::alarm::Alarm;
use crate::cpl::{ClientPersistence, PositionChange};
use crate::event::{Delivery, HandlerError};
use crate::link::{Link, LinkEvent};
use crate::notice::ClientNotice;
use crate::publish::Then;
use crate::spl::PersistenceError;
use crate::subscribe::SubscribeOutput;

/// Frames, and handlers' returns, that are taken in before the outputs are looked at.
const INPUTS_PER_TURN: usize = 256;

type Store = Box<dyn ClientPersistence>;
type Storing = JoinHandle<(Store, Result<(), PersistenceError>)>;

pub(super) struct Task {
    shared: Arc<Shared>,
    link: Link,
    /// With the changes that are being written while `storing` is there.
    store: Option<Store>,
    storing: Option<Storing>,
    handlers: Vec<Handler>,
    /// The running ones, by their places.
    running: JoinSet<(usize, Handled)>,
    notice: Option<NoticeFn>,
    codec: Codec,
    done: watch::Sender<bool>,
    alarm: Alarm,
}

enum Happened {
    Link(LinkEvent),
    Woken,
    Returned((usize, Handled)),
    Stored(Option<Store>, Result<(), String>),
    Due,
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        link: Link,
        store: Option<Store>,
        handlers: Vec<Handler>,
        notice: Option<NoticeFn>,
        codec: Codec,
        done: watch::Sender<bool>,
    ) -> Self {
        let running = JoinSet::new();
        let alarm = Alarm::new();
        Self { shared, link, store, storing: None, handlers, running, notice, codec, done, alarm }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.carry_out();
            if self.is_over() {
                break;
            }
            match self.next().await {
                Happened::Link(event) => self.on_link(event),
                Happened::Woken => {}
                Happened::Returned(returned) => self.on_returned(returned),
                Happened::Stored(store, result) => {
                    self.store = store;
                    self.shared.core().machine.persisted(self.shared.now_ms(), result);
                }
                Happened::Due => self.shared.core().machine.tick(self.shared.now_ms()),
            }
        }
        self.running.shutdown().await;
        self.shared.core().machine.goodbye();
        self.carry_out();
        self.link.finish().await;
        self.done.send_replace(true);
    }

    /// Closing, and nothing is left to wait for.
    fn is_over(&self) -> bool {
        let core = self.shared.core();
        let Some(close_at) = core.close_at else { return false };
        self.storing.is_none() && (core.machine.is_quiet() || Instant::now() >= close_at)
    }

    async fn next(&mut self) -> Happened {
        let wake_at = {
            let core = self.shared.core();
            let due = core.machine.next_wake_ms();
            let due = due.map(|ms| self.shared.start + Duration::from_millis(ms));
            // Late closings wait for the store alone.
            let close = core.close_at.filter(|at| *at > Instant::now());
            [due, close].into_iter().flatten().min()
        };
        self.alarm.set(wake_at);
        let Self { shared, link, storing, running, alarm, .. } = self;
        tokio::select! {
            event = link.next() => Happened::Link(event),
            () = shared.wake.notified() => Happened::Woken,
            // Panics are caught inside, and nothing is aborted while this waits.
            Some(Ok(returned)) = running.join_next() => Happened::Returned(returned),
            (store, result) = stored(storing) => Happened::Stored(store, result),
            () = alarm.rings() => Happened::Due,
        }
    }

    fn on_returned(&mut self, returned: (usize, Handled)) {
        let now_ms = self.shared.now_ms();
        let mut core = self.shared.core();
        let mut next = Some(returned);
        for _ in 0..INPUTS_PER_TURN {
            let Some((lane, result)) = next.take() else { break };
            core.machine.returned(now_ms, lane, result);
            next = self.running.try_join_next().and_then(Result::ok);
        }
        if let Some((lane, result)) = next {
            core.machine.returned(now_ms, lane, result);
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        let mut next = Some(event);
        for turn in 1..=INPUTS_PER_TURN {
            let Some(event) = next.take() else { return };
            self.on_link_event(event);
            // A connection that the machine gave up says nothing more.
            if turn == INPUTS_PER_TURN || self.shared.core().machine.has_closed() {
                return;
            }
            next = self.link.next_ready();
        }
    }

    fn on_link_event(&mut self, event: LinkEvent) {
        let now_ms = self.shared.now_ms();
        match event {
            LinkEvent::Connected => self.shared.core().machine.connected(now_ms),
            LinkEvent::Failed { url, reason, retry_in_ms } => {
                self.tell(ClientNotice::ConnectFailed { url, reason, retry_in_ms });
            }
            LinkEvent::Refused { code, detail } => {
                self.shared.core().machine.refused_for_good(code, detail);
            }
            LinkEvent::Lost(reason) => self.shared.core().machine.disconnected(&reason),
            LinkEvent::Frame(bytes) => match self.codec.decode::<ClientMessage>(&bytes) {
                Ok(message) => {
                    if let ClientMessage::Welcome(welcome) = &message {
                        self.link.welcomed(&welcome.addresses, welcome.keepalive_s);
                        self.tell(ClientNotice::Connected {
                            url: self.link.url().to_owned(),
                            client: welcome.client.clone(),
                            incarnation: welcome.incarnation,
                        });
                    }
                    self.shared.core().machine.receive(now_ms, message);
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.shared.core().machine.disconnected(&reason);
                    self.link.close(&Then::Backoff { retry_after_ms: None, reason });
                }
            },
        }
    }

    fn carry_out(&mut self) {
        let outputs = self.shared.core().machine.poll_all();
        for output in outputs {
            match output {
                SubscribeOutput::Send(frame) => self.link.send(self.codec.encode(&frame)),
                SubscribeOutput::Call { lane, delivery } => self.call(lane, delivery),
                SubscribeOutput::Persist(changes) => self.persist(changes),
                SubscribeOutput::Notice(notice) => self.tell(notice),
                SubscribeOutput::Close(then) => self.link.close(&then),
            }
        }
    }

    fn call(&mut self, lane: usize, delivery: Delivery) {
        let handler = Arc::clone(&self.handlers[lane % self.handlers.len()]);
        self.running.spawn(async move {
            let handled = AssertUnwindSafe(handler(delivery)).catch_unwind().await;
            (lane, handled.unwrap_or_else(|_| Err(HandlerError::new("the handler panicked"))))
        });
    }

    fn persist(&mut self, changes: Vec<PositionChange>) {
        // The machine has one batch out at a time, so the store is here.
        let Some(mut store) = self.store.take() else { return };
        self.storing = Some(tokio::task::spawn_blocking(move || {
            let result = store.save(&changes);
            (store, result)
        }));
    }

    fn tell(&self, notice: ClientNotice) {
        tracing::debug!(?notice, "client notice");
        if let Some(tell) = &self.notice {
            // A panic of the application's must not end its endpoint.
            let told = std::panic::catch_unwind(AssertUnwindSafe(|| tell(notice)));
            if told.is_err() {
                tracing::error!("the notice callback panicked");
            }
        }
    }
}

/// The store's answer, when there is a question.
async fn stored(storing: &mut Option<Storing>) -> (Option<Store>, Result<(), String>) {
    let Some(running) = storing else { return std::future::pending().await };
    let result = running.await;
    *storing = None;
    match result {
        Ok((store, Ok(()))) => (Some(store), Ok(())),
        // A failed store is given up: what it says from now on is not to be trusted.
        Ok((_, Err(error))) => (None, Err(error.to_string())),
        Err(error) => (None, Err(format!("the store panicked: {error}"))),
    }
}
