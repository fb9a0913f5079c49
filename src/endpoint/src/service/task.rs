//! The task of a service endpoint: carries out what the publish machine says.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ackord_wire::Codec;
use ackord_wire::frame::ServiceMessage;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Answer, NoticeFn, Shared};
use crate::alarm::Alarm;
use crate::link::{Link, LinkEvent};
use crate::notice::ServiceNotice;
use crate::publish::{PublishOutput, StoreBatch, Then};
use crate::spl::{PersistenceError, ServicePersistence};

/// Frames that are taken in before the outputs are looked at.
const FRAMES_PER_TURN: usize = 256;

type Store = Box<dyn ServicePersistence>;
type Storing = JoinHandle<(Store, Result<(), PersistenceError>)>;

pub(super) struct Task {
    shared: Arc<Shared>,
    link: Link,
    /// With the batch that is being written while `storing` is there.
    store: Option<Store>,
    storing: Option<Storing>,
    notice: Option<NoticeFn>,
    codec: Codec,
    done: watch::Sender<Option<u64>>,
    alarm: Alarm,
}

enum Happened {
    Link(LinkEvent),
    Woken,
    Stored(Option<Store>, Result<(), String>),
    Due,
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        link: Link,
        store: Option<Store>,
        notice: Option<NoticeFn>,
        codec: Codec,
        done: watch::Sender<Option<u64>>,
    ) -> Self {
        let alarm = Alarm::new();
        Self { shared, link, store, storing: None, notice, codec, done, alarm }
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
                Happened::Stored(store, result) => {
                    self.store = store;
                    self.shared.core().machine.persisted(self.shared.now_ms(), result);
                }
                Happened::Due => self.shared.core().machine.tick(self.shared.now_ms()),
            }
        }
        self.shared.core().machine.goodbye();
        self.carry_out();
        self.link.finish().await;
        let left = self.shared.core().machine.pending();
        self.done.send_replace(Some(left));
    }

    /// Closing, and nothing is left to wait for.
    fn is_over(&self) -> bool {
        let core = self.shared.core();
        let Some(close_at) = core.close_at else { return false };
        let quiet = self.storing.is_none() && core.machine.is_stored();
        let late = Instant::now() >= close_at || core.machine.is_stopped();
        quiet && (late || core.machine.is_drained())
    }

    async fn next(&mut self) -> Happened {
        let wake_at = {
            let core = self.shared.core();
            let due =
                core.machine.next_wake_ms().map(|ms| self.shared.start + Duration::from_millis(ms));
            // Late closings wait for the store alone.
            let close = core.close_at.filter(|at| *at > Instant::now());
            [due, close].into_iter().flatten().min()
        };
        self.alarm.set(wake_at);
        let Self { shared, link, storing, alarm, .. } = self;
        tokio::select! {
            event = link.next() => Happened::Link(event),
            () = shared.wake.notified() => Happened::Woken,
            (store, result) = stored(storing) => Happened::Stored(store, result),
            () = alarm.rings() => Happened::Due,
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        let mut next = Some(event);
        for turn in 1..=FRAMES_PER_TURN {
            let Some(event) = next.take() else { return };
            self.on_link_event(event);
            // A connection that the machine gave up says nothing more.
            if turn == FRAMES_PER_TURN || self.shared.core().machine.has_closed() {
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
                self.tell(ServiceNotice::ConnectFailed { url, reason, retry_in_ms });
            }
            LinkEvent::Refused { code, detail } => {
                self.shared.core().machine.refused_for_good(code, detail);
            }
            LinkEvent::Lost(reason) => {
                self.shared.core().machine.disconnected(now_ms, &reason);
            }
            LinkEvent::Frame(bytes) => match self.codec.decode::<ServiceMessage>(&bytes) {
                Ok(message) => {
                    if let ServiceMessage::Welcome(welcome) = &message {
                        self.link.welcomed(&welcome.addresses, welcome.keepalive_s);
                        self.tell(ServiceNotice::Connected {
                            url: self.link.url().to_owned(),
                            service: welcome.service.clone(),
                            epoch: welcome.epoch,
                        });
                    }
                    self.shared.core().machine.receive(now_ms, message);
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.shared.core().machine.disconnected(now_ms, &reason);
                    self.link.close(&Then::Backoff { retry_after_ms: None, reason });
                }
            },
        }
    }

    fn carry_out(&mut self) {
        let mut answers: Vec<(oneshot::Sender<Answer>, Answer)> = Vec::new();
        let outputs = {
            let mut core = self.shared.core();
            let mut outputs = core.machine.poll_all();
            outputs.retain_mut(|output| {
                let PublishOutput::Decided { ticket, result } = output else { return true };
                if let Some(waiter) = core.waiters.remove(ticket) {
                    answers.push((waiter, result.clone()));
                }
                false
            });
            outputs
        };
        for (waiter, answer) in answers {
            // Whoever dropped the future does not want to know.
            let _ = waiter.send(answer);
        }
        for output in outputs {
            match output {
                PublishOutput::Send(frame) => self.link.send(self.codec.encode(&frame)),
                PublishOutput::Persist(batch) => self.persist(batch),
                PublishOutput::Notice(notice) => self.tell(notice),
                PublishOutput::Room => self.shared.room.notify_one(),
                PublishOutput::Close(then) => self.link.close(&then),
                // Taken out above.
                PublishOutput::Decided { .. } => {}
            }
        }
    }

    fn persist(&mut self, batch: StoreBatch) {
        // The machine has one batch out at a time, so the store is here.
        let Some(mut store) = self.store.take() else { return };
        self.storing = Some(tokio::task::spawn_blocking(move || {
            let result = store.apply(&batch.ops, batch.sync);
            (store, result)
        }));
    }

    fn tell(&self, notice: ServiceNotice) {
        tracing::debug!(?notice, "service notice");
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
