//! A simulated client: handlers and the production subscribe machine over a store that crashes
//! with it.
//!
//! Invariants: what the machine was told is durable survives a crash; a handler that had begun
//! when the process died has had its effect.

use std::collections::BTreeMap;

use ackord_endpoint::Subscription;
use ackord_endpoint::cpl::{PositionChange, Positions};
use ackord_endpoint::entropy::Entropy;
use ackord_endpoint::publish::Then;
use ackord_endpoint::reconnect::Reconnect;
use ackord_endpoint::subscribe::{Account, SetRule, Subscribe, SubscribeOptions, SubscribeOutput};
use ackord_wire::frame::Position;

use super::broker::LinkId;
use crate::seed::Seed;

/// What a client keeps over a crash, and who it is to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Registered, positions in a file.
    StatefulFile,
    /// Registered, positions in memory.
    StatefulMemory,
    /// A guest with positions in a file.
    StatelessFile,
}

impl Kind {
    /// Whether positions survive a crash.
    pub fn is_durable(self) -> bool {
        match self {
            Self::StatefulFile | Self::StatelessFile => true,
            Self::StatefulMemory => false,
        }
    }

    /// Whether the broker knows the client.
    pub fn is_stateful(self) -> bool {
        match self {
            Self::StatefulFile | Self::StatefulMemory => true,
            Self::StatelessFile => false,
        }
    }
}

/// One process of a client after another.
pub struct ClientHost {
    /// Its index, for names.
    pub index: usize,
    /// What it is.
    pub kind: Kind,
    /// The machine of the present process; `None` while it is down.
    pub machine: Option<Subscribe>,
    /// The present connection.
    pub link: Option<LinkId>,
    /// Counts the processes.
    pub life: u64,
    /// Never connects again.
    pub stopped: bool,
    events: Vec<&'static str>,
    reconnect: Reconnect,
    entropy: Entropy,
    positions: BTreeMap<String, Position>,
}

impl ClientHost {
    /// A client that runs and subscribes to these events.
    pub fn new(index: usize, kind: Kind, events: Vec<&'static str>, seed: &mut Seed) -> Self {
        let mut host = Self {
            index,
            kind,
            machine: None,
            link: None,
            life: 0,
            stopped: false,
            events,
            reconnect: Reconnect::new(vec!["ws://broker".to_owned()], 0.01),
            entropy: Entropy::from_number(seed.bits()),
            positions: BTreeMap::new(),
        };
        host.start();
        host
    }

    /// Starts a process over what the store holds.
    pub fn start(&mut self) {
        let account = if self.kind.is_stateful() {
            Account::Stateful { set: SetRule::Exact }
        } else {
            Account::Stateless
        };
        let options = SubscribeOptions {
            account,
            subscriptions: self.events.iter().map(|event| Subscription::new(*event)).collect(),
            handler_backoff_ms: 50,
            ..SubscribeOptions::default()
        };
        if !self.kind.is_durable() {
            self.positions.clear();
        }
        let positions = self.positions.iter().map(|(event, at)| (event.clone(), *at)).collect();
        let stored = Positions { positions, ..Positions::default() };
        let entropy = Entropy::from_number(self.entropy.next_u64());
        self.machine = Some(Subscribe::new(options, self.kind.is_durable(), stored, entropy));
        self.life += 1;
    }

    /// The process dies; a batch that was on its way may have arrived.
    pub fn crash(&mut self, on_its_way: Option<Vec<PositionChange>>, seed: &mut Seed) {
        self.machine = None;
        self.link = None;
        if let Some(changes) = on_its_way.filter(|_| seed.between(0, 2) == 0) {
            self.keep(&changes);
        }
    }

    /// The store took a batch.
    pub fn keep(&mut self, changes: &[PositionChange]) {
        for change in changes {
            match change {
                PositionChange::Handled { event, position } => {
                    self.positions.insert(event.clone(), *position);
                }
                PositionChange::Forget { event } => {
                    self.positions.remove(event);
                }
                // No subscription here is in the mode twoway.
                PositionChange::HandledAbove { .. } => {}
            }
        }
    }

    /// The stored position of an event.
    pub fn stored(&self, event: &str) -> Option<Position> {
        self.positions.get(event).copied()
    }

    /// The connection is over: when to try again.
    pub fn delay_after(&mut self, then: Option<&Then>) -> Option<u64> {
        match then {
            Some(Then::Reconnect) => Some(1),
            Some(Then::Stop { .. }) => {
                self.stopped = true;
                None
            }
            Some(Then::Backoff { retry_after_ms, .. }) => {
                Some(self.reconnect.failed(&mut self.entropy, *retry_after_ms).max(1))
            }
            None => Some(self.reconnect.failed(&mut self.entropy, None).max(1)),
        }
    }

    /// What the machine wants.
    pub fn outputs(&mut self) -> Vec<SubscribeOutput> {
        self.machine.as_mut().map(|machine| machine.poll_all().into()).unwrap_or_default()
    }
}
