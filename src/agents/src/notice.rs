//! How a session is woken: marks that say what to look at, and at most one message in its mailbox.
//!
//! Invariants: a mark is never lost (it is set before the message is sent, and taken only by the
//! session); any number of marks cost one message; marks carry no payload, but for how far the transport is.
//! All on one arbiter.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ackord_machine::session::{Named, Wake};
use ackord_machine::site::{EventKey, ServiceId};
use actix::prelude::{Message, Recipient};
use tokio::sync::Notify;

use crate::cork::Kept;
use crate::seat::Look;
use crate::timers::Timer;

/// Services that a session is told of by name at once; presence is informational, more are dropped.
const SERVICES_MAX: usize = 32;
/// Events that are marked one by one; from there on the session looks at everything.
const EVENTS_MAX: usize = 32;

/// Look at your [`Notice`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Notified;

/// Whom a notice tells that it has marks.
pub(crate) enum Bell {
    /// The actor of a session.
    Actor(Recipient<Notified>),
    /// A task that waits.
    Task(Rc<Notify>),
}

impl Bell {
    /// Whether somebody will come for the marks.
    fn ring(&self) -> bool {
        match self {
            // A full mailbox cannot be: this is its only message. A closed one belongs to a
            // session that has ended.
            Self::Actor(recipient) => recipient.try_send(Notified).is_ok(),
            Self::Task(task) => {
                task.notify_one();
                true
            }
        }
    }
}

/// The marks of one session. Shared by the session, the hub's index and the timer queue.
pub(crate) struct Notice {
    /// The session's entry in the timer queue.
    pub timer: Timer,
    /// What the session has not said yet.
    pub kept: Kept,
    /// The session itself, for those who look at it.
    pub seat: Option<Rc<dyn Look>>,
    bell: Bell,
    /// A message is in the mailbox.
    queued: Cell<bool>,
    all: Cell<bool>,
    client: Cell<bool>,
    time: Cell<bool>,
    shutdown: Cell<bool>,
    events: RefCell<Vec<EventKey>>,
    services: RefCell<Vec<ServiceId>>,
    /// What the transport has taken, the newest of each subscription.
    written: RefCell<Vec<Named>>,
}

/// What a session takes from its notice.
#[derive(Default)]
pub(crate) struct Marks {
    /// Why to look at the state, the most important first.
    pub wakes: Vec<Wake>,
    /// What the transport has taken.
    pub written: Vec<Named>,
    /// The session's timer fired.
    pub time: bool,
    /// The node is shutting down.
    pub shutdown: bool,
}

impl Notice {
    pub fn new(bell: Bell) -> Self {
        Self {
            timer: Timer::default(),
            kept: Kept::default(),
            seat: None,
            bell,
            queued: Cell::new(false),
            all: Cell::new(false),
            client: Cell::new(false),
            time: Cell::new(false),
            shutdown: Cell::new(false),
            events: RefCell::new(Vec::new()),
            services: RefCell::new(Vec::new()),
            written: RefCell::new(Vec::new()),
        }
    }

    /// The same, of a session that can be looked at.
    pub fn seated(self, seat: Rc<dyn Look>) -> Self {
        Self { seat: Some(seat), ..self }
    }

    pub fn mark_all(&self) {
        self.all.set(true);
        self.notify();
    }

    pub fn mark_client(&self) {
        self.client.set(true);
        self.notify();
    }

    pub fn mark_time(&self) {
        self.time.set(true);
        self.notify();
    }

    pub fn mark_shutdown(&self) {
        self.shutdown.set(true);
        self.notify();
    }

    pub fn mark_event(&self, event: EventKey) {
        let mut events = self.events.borrow_mut();
        if events.len() >= EVENTS_MAX {
            self.all.set(true);
        } else if !events.contains(&event) {
            events.push(event);
        }
        drop(events);
        self.notify();
    }

    pub fn mark_service(&self, service: &ServiceId) {
        let mut services = self.services.borrow_mut();
        if services.len() < SERVICES_MAX && !services.contains(service) {
            services.push(service.clone());
        }
        drop(services);
        self.notify();
    }

    /// The transport has taken an instance, and all of its subscription that were sent before.
    pub fn mark_written(&self, named: Named) {
        let mut written = self.written.borrow_mut();
        let same =
            |other: &&mut Named| other.event == named.event && other.generation == named.generation;
        match written.iter_mut().find(same) {
            Some(before) => before.instance = before.instance.max(named.instance),
            None => written.push(named),
        }
        drop(written);
        self.notify();
    }

    fn notify(&self) {
        if !self.queued.get() {
            self.queued.set(self.bell.ring());
        }
    }

    /// Takes all marks; called when the message arrives.
    pub fn take(&self) -> Marks {
        self.queued.set(false);
        let mut wakes = Vec::new();
        let events = std::mem::take(&mut *self.events.borrow_mut());
        let services = std::mem::take(&mut *self.services.borrow_mut());
        let client = self.client.take();
        if self.all.take() {
            wakes.push(Wake::All);
        } else {
            if client {
                wakes.push(Wake::Client);
            }
            wakes.extend(events.into_iter().map(Wake::Event));
        }
        wakes.extend(services.into_iter().map(Wake::Service));
        let written = std::mem::take(&mut *self.written.borrow_mut());
        Marks { wakes, written, time: self.time.take(), shutdown: self.shutdown.take() }
    }
}
