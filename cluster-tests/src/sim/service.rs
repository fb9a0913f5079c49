//! A simulated service: an application and the production publish machine over a store that
//! crashes with it.
//!
//! Invariants: what the machine was told is durable survives a crash, except in a torn store,
//! which loses its newest batches; a batch is there as a whole or not at all.

use std::collections::BTreeSet;

use ackord_endpoint::Event;
use ackord_endpoint::entropy::Entropy;
use ackord_endpoint::publish::{Publish, PublishOptions, PublishOutput, StoreBatch, Then, Waits};
use ackord_endpoint::reconnect::Reconnect;
use ackord_endpoint::spl::{StoreOp, Stored, Sync};

use super::broker::LinkId;
use crate::seed::Seed;

/// Bytes that a simulated store holds.
const CAPACITY_BYTES: u64 = 1 << 20;

/// One process of a service after another.
pub struct ServiceHost {
    /// The machine of the present process; `None` while it is down.
    pub machine: Option<Publish>,
    /// The present connection.
    pub link: Option<LinkId>,
    /// Counts the processes, so that what was scheduled before a crash is known as such.
    pub life: u64,
    /// Never connects again.
    pub stopped: bool,
    reconnect: Reconnect,
    entropy: Entropy,
    /// Every batch that the store took, oldest first; the flag says whether it is durable.
    batches: Vec<(Vec<StoreOp>, bool)>,
}

impl ServiceHost {
    /// A service that runs.
    pub fn new(seed: &mut Seed) -> Self {
        let mut host = Self {
            machine: None,
            link: None,
            life: 0,
            stopped: false,
            reconnect: Reconnect::new(vec!["ws://broker".to_owned()], 0.01),
            entropy: Entropy::from_number(seed.bits()),
            batches: Vec::new(),
        };
        host.start();
        host
    }

    /// Starts a process over what the store holds.
    pub fn start(&mut self) {
        let options = PublishOptions {
            window: 8,
            ack_timeout_ms: 500,
            capacity_bytes: CAPACITY_BYTES,
            ..PublishOptions::default()
        };
        let entropy = Entropy::from_number(self.entropy.next_u64());
        self.machine = Some(Publish::new(options, true, self.stored(), entropy));
        self.life += 1;
    }

    /// The process dies. A batch that was on its way may have arrived; batches that were not
    /// durable may be lost, from any of them on. With `torn`, so may durable ones.
    pub fn crash(&mut self, on_its_way: Option<StoreBatch>, torn: bool, seed: &mut Seed) {
        self.machine = None;
        self.link = None;
        if let Some(batch) = on_its_way.filter(|_| seed.between(0, 2) == 0) {
            self.batches.push((batch.ops, false));
        }
        let durable = self.batches.iter().rposition(|(_, durable)| *durable).map_or(0, |i| i + 1);
        let least = if torn { durable.saturating_sub(4) } else { durable };
        let kept = seed.between(least as u64, self.batches.len() as u64 + 1) as usize;
        self.batches.truncate(kept);
        for (_, durable) in &mut self.batches {
            *durable = true;
        }
    }

    /// The texts of the payloads that the store holds.
    pub fn held(&self) -> BTreeSet<String> {
        let text = |event: &Event| {
            let payload = event.payload.as_ref()?;
            Some(String::from_utf8_lossy(&payload.data).into_owned())
        };
        self.stored().events.iter().filter_map(|stored| text(&stored.event)).collect()
    }

    /// The store took a batch.
    pub fn keep(&mut self, batch: StoreBatch) {
        let durable = batch.sync == Sync::Now;
        self.batches.push((batch.ops, false));
        if durable {
            self.batches.iter_mut().for_each(|(_, durable)| *durable = true);
        }
    }

    /// What the batches add up to.
    fn stored(&self) -> Stored {
        let mut stored = Stored::default();
        for op in self.batches.iter().flat_map(|(ops, _)| ops) {
            match op {
                StoreOp::Begin { uid } => {
                    stored.uid = Some(*uid);
                    stored.last_number = 0;
                    stored.events.iter_mut().for_each(|event| event.seq = None);
                }
                StoreOp::Put(event) => {
                    stored.last_number = stored.last_number.max(event.seq.unwrap_or(0));
                    stored.events.push(event.clone());
                }
                StoreOp::Number { ticket, seq } => {
                    stored.last_number = stored.last_number.max(*seq);
                    for event in stored.events.iter_mut().filter(|e| e.ticket == *ticket) {
                        event.seq = Some(*seq);
                    }
                }
                StoreOp::Remove { ticket } => stored.events.retain(|e| e.ticket != *ticket),
            }
        }
        stored
    }

    /// The application raises an event.
    pub fn raise(&mut self, event: Event, now: u64) {
        if let Some(machine) = &mut self.machine {
            // A refusal is the application's to handle; the oracle learns of it by no outcome.
            let _ = machine.raise(now, event, Waits::No);
        }
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
    pub fn outputs(&mut self) -> Vec<PublishOutput> {
        self.machine.as_mut().map(|machine| machine.poll_all().into()).unwrap_or_default()
    }
}
