//! A publish machine between an application, a broker, a store and a clock that a test moves.

use std::collections::{BTreeMap, VecDeque};

use ackord_endpoint::entropy::Entropy;
use ackord_endpoint::publish::{Publish, PublishOptions, PublishOutput, StoreBatch, Then, Waits};
use ackord_endpoint::{Event, Outcome, Payload, RaiseError, ServiceNotice};
use ackord_wire::frame::{ServiceFrame, ServiceMessage};

use crate::broker::Broker;
use crate::store::Store;

pub struct World {
    pub machine: Publish,
    pub broker: Broker,
    /// Absent at SPL-1.
    pub store: Option<Store>,
    pub now_ms: u64,
    pub connected: bool,
    /// Frames on their way to the broker, and back.
    pub up: VecDeque<ServiceFrame>,
    pub down: VecDeque<ServiceMessage>,
    pub batch: Option<StoreBatch>,
    pub notices: Vec<ServiceNotice>,
    pub decided: BTreeMap<u64, Result<Outcome, RaiseError>>,
    pub closes: Vec<Then>,
    capacity_bytes: u64,
    lives: u64,
}

pub fn event(text: &str) -> Event {
    let payload = Payload { content_type: "text/plain".to_owned(), data: text.to_owned().into() };
    Event::queueing("q", payload)
}

pub fn replacing(name: &str, text: &str) -> Event {
    let payload = Payload { content_type: "text/plain".to_owned(), data: text.to_owned().into() };
    Event::replacing(name, payload)
}

impl World {
    pub fn spl1() -> Self {
        Self::new(None, 16 * 1024, 1)
    }

    pub fn spl2() -> Self {
        Self::new(Some(Store::default()), 1024 * 1024, 1)
    }

    pub fn new(store: Option<Store>, capacity_bytes: u64, seed: u64) -> Self {
        Self {
            machine: machine(store.as_ref(), capacity_bytes, seed),
            broker: Broker::new(),
            store,
            now_ms: 0,
            connected: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            batch: None,
            notices: Vec::new(),
            decided: BTreeMap::new(),
            closes: Vec::new(),
            capacity_bytes,
            lives: seed * 1_000_000,
        }
    }

    /// The process dies and starts again over what its store kept.
    pub fn restart(&mut self) {
        self.disconnect();
        self.batch = None;
        if let Some(store) = &mut self.store {
            store.crash();
        }
        self.lives += 1;
        self.decided.clear();
        self.machine = machine(self.store.as_ref(), self.capacity_bytes, self.lives);
        self.take_outputs();
    }

    pub fn raise(&mut self, event: Event) -> Result<u64, RaiseError> {
        let ticket = self.machine.raise(self.now_ms, event, Waits::ForOutcome);
        self.take_outputs();
        ticket
    }

    pub fn connect(&mut self) {
        self.connected = true;
        self.machine.connected(self.now_ms);
        self.take_outputs();
    }

    /// The connection breaks: what is on its way is lost.
    pub fn disconnect(&mut self) {
        self.up.clear();
        self.down.clear();
        if std::mem::take(&mut self.connected) {
            self.machine.disconnected(self.now_ms, "broken");
            self.take_outputs();
        }
    }

    pub fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        self.machine.tick(self.now_ms);
        self.take_outputs();
    }

    /// The broker takes one frame.
    pub fn step_up(&mut self) -> bool {
        let Some(frame) = self.up.pop_front() else { return false };
        let answer = match &frame {
            ServiceFrame::Hello(hello) => self.broker.attach(hello),
            ServiceFrame::Raise(raise) => self.broker.decide(raise),
            ServiceFrame::Goodbye {} => return true,
        };
        self.down.push_back(answer);
        true
    }

    /// The endpoint takes one frame.
    pub fn step_down(&mut self) -> bool {
        let Some(message) = self.down.pop_front() else { return false };
        self.receive(message);
        true
    }

    pub fn receive(&mut self, message: ServiceMessage) {
        self.machine.receive(self.now_ms, message);
        self.take_outputs();
    }

    /// The store takes its batch.
    pub fn step_store(&mut self) -> bool {
        let Some(batch) = self.batch.take() else { return false };
        self.store.as_mut().expect("SPL-2").apply(&batch);
        self.machine.persisted(self.now_ms, Ok(()));
        self.take_outputs();
        true
    }

    /// The store fails.
    pub fn break_store(&mut self) {
        self.batch = None;
        self.machine.persisted(self.now_ms, Err("disk full".to_owned()));
        self.take_outputs();
    }

    /// Everything that can happen without the time going on, and reconnecting, happens.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.step_store() || self.step_up() || self.step_down() {
                continue;
            }
            if self.connected || self.machine.is_stopped() {
                return;
            }
            self.connect();
        }
        panic!("the world does not come to rest");
    }

    /// As [`World::settle`], with pauses passing, until nothing is held.
    pub fn drain(&mut self) {
        for _ in 0..1_000 {
            self.settle();
            if self.machine.is_drained() {
                return;
            }
            self.advance(10_000);
        }
        panic!("events remain: {:?}", self.machine);
    }

    pub fn stored(&self) -> Vec<String> {
        let texts = self.broker.stored.iter();
        texts.map(|bytes| String::from_utf8(bytes.clone()).unwrap()).collect()
    }

    pub fn outcome(&self, ticket: u64) -> Result<Outcome, RaiseError> {
        self.decided[&ticket].clone()
    }

    pub fn take_outputs(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                PublishOutput::Send(frame) => {
                    assert!(self.connected, "sent without a connection: {frame:?}");
                    self.up.push_back(frame);
                }
                PublishOutput::Persist(batch) => {
                    assert!(self.batch.is_none(), "two batches with the store");
                    self.batch = Some(batch);
                }
                PublishOutput::Decided { ticket, result } => {
                    let earlier = self.decided.insert(ticket, result);
                    assert!(earlier.is_none(), "decided twice: {ticket}");
                }
                PublishOutput::Notice(notice) => self.notices.push(notice),
                PublishOutput::Room => {}
                PublishOutput::Close(then) => {
                    assert!(self.connected, "closed without a connection");
                    self.connected = false;
                    self.up.clear();
                    self.down.clear();
                    self.closes.push(then);
                }
            }
        }
    }
}

fn machine(store: Option<&Store>, capacity_bytes: u64, seed: u64) -> Publish {
    let options = PublishOptions { capacity_bytes, window: 8, ..PublishOptions::default() };
    let stored = store.map(Store::load).unwrap_or_default();
    Publish::new(options, store.is_some(), stored, Entropy::from_number(seed))
}
