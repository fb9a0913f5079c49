//! A subscribe machine between handlers, a broker, a store and a clock that a test moves.

use std::collections::{BTreeMap, VecDeque};

use ackord_endpoint::cpl::{PositionChange, Positions};
use ackord_endpoint::entropy::Entropy;
use ackord_endpoint::publish::Then;
use ackord_endpoint::subscribe::{Account, SetRule, Subscribe, SubscribeOptions, SubscribeOutput};
use ackord_endpoint::{ClientNotice, Delivery, Flow, HandlerError, Position, Subscription};
use ackord_wire::frame::{ClientFrame, ClientMessage};

use crate::broker::Broker;

pub struct World {
    pub machine: Subscribe,
    pub options: SubscribeOptions,
    pub broker: Broker,
    pub durable: bool,
    /// What the store has for certain.
    pub positions: BTreeMap<String, Position>,
    pub now_ms: u64,
    pub connected: bool,
    pub up: VecDeque<ClientFrame>,
    pub down: VecDeque<ClientMessage>,
    pub changes: Option<Vec<PositionChange>>,
    /// Handlers that run, by subscription.
    pub running: BTreeMap<usize, Delivery>,
    /// What handlers were called with, in order.
    pub handled: Vec<(String, u64)>,
    pub notices: Vec<ClientNotice>,
    pub closes: Vec<Then>,
}

pub fn options(events: &[&str]) -> SubscribeOptions {
    SubscribeOptions {
        subscriptions: events.iter().map(|event| Subscription::new(*event)).collect(),
        ..SubscribeOptions::default()
    }
}

impl World {
    pub fn cpl1(events: &[&str]) -> Self {
        Self::new(options(events), false)
    }

    pub fn cpl2(events: &[&str]) -> Self {
        Self::new(options(events), true)
    }

    pub fn stateless(events: &[&str], durable: bool) -> Self {
        let options = SubscribeOptions { account: Account::Stateless, ..options(events) };
        let mut world = Self::new(options, durable);
        world.broker.stateless = true;
        world
    }

    pub fn adding(events: &[&str]) -> Self {
        let account = Account::Stateful { set: SetRule::Add };
        Self::new(SubscribeOptions { account, ..options(events) }, false)
    }

    pub fn new(options: SubscribeOptions, durable: bool) -> Self {
        Self {
            machine: machine(&options, durable, &BTreeMap::new()),
            options,
            broker: Broker::new(),
            durable,
            positions: BTreeMap::new(),
            now_ms: 0,
            connected: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            changes: None,
            running: BTreeMap::new(),
            handled: Vec::new(),
            notices: Vec::new(),
            closes: Vec::new(),
        }
    }

    /// The process dies with its handlers and starts again over what its store kept.
    pub fn restart(&mut self) {
        self.disconnect();
        self.running.clear();
        self.changes = None;
        self.machine = machine(&self.options, self.durable, &self.positions);
        self.take_outputs();
    }

    pub fn connect(&mut self) {
        self.connected = true;
        self.machine.connected(self.now_ms);
        self.take_outputs();
    }

    pub fn disconnect(&mut self) {
        self.up.clear();
        self.down.clear();
        self.broker.forget_session();
        if std::mem::take(&mut self.connected) {
            self.machine.disconnected("broken");
            self.take_outputs();
        }
    }

    pub fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        self.machine.tick(self.now_ms);
        self.take_outputs();
    }

    pub fn step_up(&mut self) -> bool {
        let Some(frame) = self.up.pop_front() else { return false };
        let answers = self.broker.receive(frame);
        self.down.extend(answers);
        true
    }

    pub fn step_down(&mut self) -> bool {
        let Some(message) = self.down.pop_front() else { return false };
        self.receive(message);
        true
    }

    pub fn receive(&mut self, message: ClientMessage) {
        self.machine.receive(self.now_ms, message);
        self.take_outputs();
    }

    /// A running handler returns.
    pub fn returns(&mut self, lane: usize, result: Result<Flow, HandlerError>) {
        self.running.remove(&lane).expect("it runs");
        self.machine.returned(self.now_ms, lane, result);
        self.take_outputs();
    }

    pub fn step_handler(&mut self) -> bool {
        let Some(lane) = self.running.keys().next().copied() else { return false };
        self.returns(lane, Ok(Flow::Continue));
        true
    }

    pub fn step_store(&mut self) -> bool {
        let Some(changes) = self.changes.take() else { return false };
        for change in changes {
            match change {
                PositionChange::Handled { event, position } => {
                    self.positions.insert(event, position);
                }
                PositionChange::Forget { event } => {
                    self.positions.remove(&event);
                }
                PositionChange::HandledAbove { .. } => {}
            }
        }
        self.machine.persisted(self.now_ms, Ok(()));
        self.take_outputs();
        true
    }

    pub fn break_store(&mut self) {
        self.changes = None;
        self.machine.persisted(self.now_ms, Err("disk full".to_owned()));
        self.take_outputs();
    }

    /// Frames go back and forth; no handler returns, no store answers, nothing new is delivered.
    pub fn exchange(&mut self) {
        while self.step_up() || self.step_down() {}
    }

    pub fn deliver(&mut self) {
        let sent = self.broker.deliver(false);
        self.down.extend(sent);
        self.exchange();
    }

    pub fn deliver_again(&mut self) {
        let sent = self.broker.deliver(true);
        self.down.extend(sent);
        self.exchange();
    }

    /// Everything happens until nothing is left to happen.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.connected {
                self.connect();
            }
            if self.step_up() || self.step_down() || self.step_store() || self.step_handler() {
                continue;
            }
            let sent = self.broker.deliver(false);
            if sent.is_empty() {
                return;
            }
            self.down.extend(sent);
        }
        panic!("the world does not come to rest");
    }

    pub fn take_outputs(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                SubscribeOutput::Send(frame) => {
                    assert!(self.connected, "sent without a connection: {frame:?}");
                    self.up.push_back(frame);
                }
                SubscribeOutput::Call { lane, delivery } => {
                    self.handled.push((delivery.event.clone(), delivery.instance_id));
                    let other = self.running.insert(lane, delivery);
                    assert!(other.is_none(), "two handlers of one subscription at once");
                    assert!(self.running.len() <= self.options.concurrency);
                }
                SubscribeOutput::Persist(changes) => {
                    assert!(self.durable, "positions for no store");
                    assert!(self.changes.is_none(), "two batches with the store");
                    self.changes = Some(changes);
                }
                SubscribeOutput::Notice(notice) => self.notices.push(notice),
                SubscribeOutput::Close(then) => {
                    self.connected = false;
                    self.up.clear();
                    self.down.clear();
                    self.broker.forget_session();
                    self.closes.push(then);
                }
            }
        }
    }

    pub fn ids(&self) -> Vec<u64> {
        self.handled.iter().map(|(_, id)| *id).collect()
    }

    pub fn has(&self, notice: &ClientNotice) -> bool {
        self.notices.contains(notice)
    }
}

fn machine(
    options: &SubscribeOptions,
    durable: bool,
    positions: &BTreeMap<String, Position>,
) -> Subscribe {
    let positions = positions.iter().map(|(event, at)| (event.clone(), *at)).collect();
    let stored = Positions { positions, ..Positions::default() };
    Subscribe::new(options.clone(), durable, stored, Entropy::from_number(1))
}
