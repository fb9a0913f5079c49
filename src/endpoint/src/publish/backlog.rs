//! The events a service holds: unsent ones in the order of raising, numbered ones in the order of
//! their numbers, and what the store must still be told about both.
//!
//! Invariants: numbers have no holes and are given to the oldest unsent event; an event with a
//! number is never coalesced and never dropped for room; nothing with a number is sent before the
//! store has confirmed the number; at most one batch is with the store at a time.
//! Deliberately absent: the session. Whether and when to send is decided next door.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use ackord_wire::structure::Category;

use crate::error::RaiseError;
use crate::event::Event;
use crate::spl::{StoreOp, StoreUid, Stored, StoredEvent, Sync, event_bytes};

/// A recovered store whose numbers span more than this is damaged beyond its checksums.
const SPAN_MAX: u64 = 1 << 20;

/// Whether a call waits for the outcome of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The outcome is an output of the machine.
    ForOutcome,
    /// Only what the application should hear is told, as a notice.
    No,
}

/// An event that is held.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub ticket: u64,
    pub event: Arc<Event>,
    pub waits: Waits,
    /// Found in the store at the opening.
    pub recovered: bool,
    bytes: u64,
    /// In the store, or in the batch that is with the store.
    stored: bool,
}

/// An event with a number.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Absent once the event is decided; such slots leave when all before them have left.
    pub held: Option<Held>,
    /// Transmissions on this connection that are not answered.
    pub outstanding: u32,
    /// When it was last sent.
    pub sent_ms: u64,
    /// Its number had been used for another event.
    pub reused: bool,
}

impl Slot {
    /// Whether it waits for the broker's decision.
    pub fn undecided(&self) -> bool {
        self.held.is_some() && !self.reused
    }
}

/// A batch for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreBatch {
    /// What to apply, in order and all or nothing.
    pub ops: Vec<StoreOp>,
    /// Whether it must be durable before the answer.
    pub sync: Sync,
}

/// What the store must still be told. Absent at SPL-1.
#[derive(Clone, Debug, Default)]
struct Journal {
    begin: bool,
    put: Vec<u64>,
    removed: Vec<u64>,
    /// Numbers up to this are in the store or in the batch that is with it.
    numbered: u64,
    /// Numbers up to this are durable.
    synced: u64,
    /// The highest number of the batch that is with the store.
    outstanding: Option<u64>,
    /// Raised by a renewal while a batch is with the store: its numbers mean nothing any more.
    stale: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Backlog {
    capacity: u64,
    bytes: u64,
    /// The part of `bytes` that could be dropped for room.
    unsent_bytes: u64,
    ticket_next: u64,
    unsent: BTreeMap<u64, Held>,
    /// The unsent Replacing event of a name.
    replacing: HashMap<String, u64>,
    pub slots: VecDeque<Slot>,
    /// The number of the first slot; of the next event when there is none.
    base: u64,
    journal: Option<Journal>,
    freed: bool,
}

impl Backlog {
    /// A backlog over what a store held; `durable`: there is a store to be told.
    pub fn recover(capacity: u64, durable: bool, stored: Stored) -> Self {
        let mut events = stored.events;
        events.sort_by_key(|event| event.ticket);
        let last = events.iter().filter_map(|event| event.seq).max().unwrap_or(0);
        let last = last.max(stored.last_number);
        let first = events.iter().filter_map(|event| event.seq).min().unwrap_or(last + 1);
        let sound = last - first.min(last) <= SPAN_MAX;
        let base = if sound { first } else { last + 1 };
        let slots = (base..=last).map(|_| Slot::empty()).collect();
        let journal = durable.then(|| Journal {
            begin: stored.uid.is_none(),
            numbered: last,
            synced: last,
            ..Journal::default()
        });
        let ticket_next = events.last().map_or(1, |event| event.ticket + 1);
        let mut backlog = Self {
            capacity,
            bytes: 0,
            unsent_bytes: 0,
            ticket_next,
            unsent: BTreeMap::new(),
            replacing: HashMap::new(),
            slots,
            base,
            journal,
            freed: false,
        };
        for StoredEvent { ticket, seq, event } in events {
            let bytes = event_bytes(&event);
            let waits = Waits::No;
            let held = Held { ticket, event, waits, recovered: true, bytes, stored: true };
            backlog.bytes += bytes;
            match seq.and_then(|seq| backlog.slot(seq)) {
                Some(slot) => slot.held = Some(held),
                None => backlog.push_unsent(held),
            }
        }
        backlog
    }

    /// The highest number given.
    pub fn counter(&self) -> u64 {
        self.base + self.slots.len() as u64 - 1
    }

    /// The lowest number that may be undecided.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Events held.
    pub fn len(&self) -> usize {
        self.unsent.len() + self.slots.iter().filter(|slot| slot.held.is_some()).count()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.unsent.is_empty() && self.slots.is_empty()
    }

    /// Whether an event could be taken in without dropping one.
    pub fn has_room(&self, event: &Event) -> bool {
        let coalesced = self.coalesces(event).and_then(|ticket| self.unsent.get(&ticket));
        let spared = coalesced.map_or(0, |held| held.bytes);
        self.bytes - spared + event_bytes(event) <= self.capacity
    }

    /// The unsent event that this one takes the place of.
    fn coalesces(&self, event: &Event) -> Option<u64> {
        let replacing = event.category == Some(Category::Replacing);
        replacing.then(|| self.replacing.get(&event.name).copied()).flatten()
    }

    /// Takes an event in. Answers its ticket, the event that it took the place of, and those that
    /// were dropped for it.
    pub fn admit(
        &mut self,
        event: Event,
        waits: Waits,
    ) -> Result<(u64, Option<Held>, Vec<Held>), RaiseError> {
        let bytes = event_bytes(&event);
        if bytes > self.capacity {
            return Err(RaiseError::ExceedsStore { bytes, capacity: self.capacity });
        }
        let old = self.coalesces(&event);
        let pinned = self.bytes - self.unsent_bytes;
        if pinned + bytes > self.capacity {
            return Err(RaiseError::StoreFull);
        }
        let coalesced = old.and_then(|ticket| self.remove_unsent(ticket));
        let mut dropped = Vec::new();
        while self.bytes + bytes > self.capacity {
            let Some(ticket) = self.unsent.keys().next().copied() else { break };
            dropped.extend(self.remove_unsent(ticket));
        }
        let ticket = self.ticket_next;
        self.ticket_next += 1;
        self.bytes += bytes;
        if let Some(journal) = &mut self.journal {
            journal.put.push(ticket);
        }
        let event = Arc::new(event);
        self.push_unsent(Held { ticket, event, waits, recovered: false, bytes, stored: false });
        Ok((ticket, coalesced, dropped))
    }

    fn push_unsent(&mut self, held: Held) {
        if held.event.category == Some(Category::Replacing) {
            self.replacing.insert(held.event.name.clone(), held.ticket);
        }
        self.unsent_bytes += held.bytes;
        self.unsent.insert(held.ticket, held);
    }

    fn remove_unsent(&mut self, ticket: u64) -> Option<Held> {
        let held = self.unsent.remove(&ticket)?;
        self.unsent_bytes -= held.bytes;
        if self.replacing.get(&held.event.name) == Some(&ticket) {
            self.replacing.remove(&held.event.name);
        }
        self.release(&held);
        Some(held)
    }

    fn release(&mut self, held: &Held) {
        self.bytes -= held.bytes;
        self.freed = true;
        if let Some(journal) = self.journal.as_mut().filter(|_| held.stored) {
            journal.removed.push(held.ticket);
        }
    }

    /// Whether room became free since the last call.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// Gives the next number to the oldest unsent event.
    pub fn number_next(&mut self) -> bool {
        let Some((ticket, held)) = self.unsent.pop_first() else { return false };
        self.unsent_bytes -= held.bytes;
        if self.replacing.get(&held.event.name) == Some(&ticket) {
            self.replacing.remove(&held.event.name);
        }
        self.slots.push_back(Slot { held: Some(held), ..Slot::empty() });
        true
    }

    /// The slot of a number that is not out of the window.
    pub fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Whether this number may be on the wire.
    pub fn sendable(&self, seq: u64) -> bool {
        self.journal.as_ref().is_none_or(|journal| seq <= journal.synced)
    }

    /// A number is decided: its event leaves.
    pub fn settle(&mut self, seq: u64) -> Option<Held> {
        let held = self.slot(seq)?.held.take()?;
        while self.slots.front().is_some_and(|slot| slot.held.is_none()) {
            self.slots.pop_front();
            self.base += 1;
        }
        self.release(&held);
        Some(held)
    }

    /// Takes all numbers back: under a new uid they begin at 1.
    pub fn renumber(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            if let Some(held) = slot.held {
                // An unsent newer one of its name exists: this one was pinned and stays as it is.
                let newer = self.replacing.get(&held.event.name).copied();
                let name = held.event.name.clone();
                self.push_unsent(held);
                if let Some(newer) = newer {
                    self.replacing.insert(name, newer);
                }
            }
        }
        self.base = 1;
        if let Some(journal) = &mut self.journal {
            journal.begin = true;
            journal.numbered = 0;
            journal.synced = 0;
            journal.stale = journal.outstanding.is_some();
        }
    }

    /// The store was retired: what was found in it or has a number leaves.
    pub fn discard_stale(&mut self) -> Vec<Held> {
        let mut gone: Vec<Held> = Vec::new();
        while let Some(slot) = self.slots.pop_front() {
            self.base += 1;
            if let Some(held) = slot.held {
                self.release(&held);
                gone.push(held);
            }
        }
        let recovered = self.unsent.values().filter(|held| held.recovered);
        let tickets: Vec<u64> = recovered.map(|held| held.ticket).collect();
        gone.extend(tickets.into_iter().filter_map(|ticket| self.remove_unsent(ticket)));
        gone
    }

    /// Everything held leaves, for the endpoint's end.
    pub fn waiting(&self) -> impl Iterator<Item = &Held> {
        let numbered = self.slots.iter().filter_map(|slot| slot.held.as_ref());
        numbered.chain(self.unsent.values()).filter(|held| held.waits == Waits::ForOutcome)
    }

    /// The next batch for the store, if there is anything to tell and no batch is with it.
    pub fn batch(&mut self, uid: StoreUid) -> Option<StoreBatch> {
        let counter = self.counter();
        let mut journal = self.journal.take()?;
        let idle = !journal.begin
            && journal.put.is_empty()
            && journal.removed.is_empty()
            && journal.numbered >= counter;
        if journal.outstanding.is_some() || idle {
            self.journal = Some(journal);
            return None;
        }
        let mut ops: Vec<StoreOp> = Vec::new();
        ops.extend(journal.removed.drain(..).map(|ticket| StoreOp::Remove { ticket }));
        let sync = if journal.begin || !journal.put.is_empty() || journal.numbered < counter {
            Sync::Now
        } else {
            Sync::Later
        };
        if std::mem::take(&mut journal.begin) {
            ops.push(StoreOp::Begin { uid });
        }
        // Tickets rise: whatever is put now lies behind all that was put before.
        let put_first = journal.put.first().copied().unwrap_or(u64::MAX);
        for seq in journal.numbered + 1..=counter {
            let held = self.slot(seq).and_then(|slot| slot.held.as_ref());
            if let Some(held) = held.filter(|held| held.ticket < put_first) {
                ops.push(StoreOp::Number { ticket: held.ticket, seq });
            }
        }
        for ticket in journal.put.drain(..) {
            ops.extend(self.put(ticket));
        }
        journal.numbered = counter;
        journal.outstanding = Some(counter);
        self.journal = Some(journal);
        Some(StoreBatch { ops, sync })
    }

    fn put(&mut self, ticket: u64) -> Option<StoreOp> {
        let (seq, held) = match self.unsent.get_mut(&ticket) {
            Some(held) => (None, held),
            None => {
                // Decided slots have no ticket, and lie in front of what was never in the store.
                let index = self.slots.partition_point(|slot| {
                    slot.held.as_ref().is_none_or(|held| held.ticket < ticket)
                });
                let held = self.slots.get_mut(index)?.held.as_mut()?;
                (Some(self.base + index as u64), held)
            }
        };
        if held.ticket != ticket {
            return None;
        }
        held.stored = true;
        let event = Arc::clone(&held.event);
        Some(StoreOp::Put(StoredEvent { ticket, seq, event }))
    }

    /// The store confirmed the batch.
    pub fn stored(&mut self) {
        if let Some(journal) = &mut self.journal {
            let highest = journal.outstanding.take();
            if !std::mem::take(&mut journal.stale) {
                journal.synced = highest.unwrap_or(journal.synced);
            }
        }
    }

    /// Whether the store knows everything.
    pub fn is_stored(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| {
            journal.outstanding.is_none()
                && !journal.begin
                && journal.put.is_empty()
                && journal.removed.is_empty()
                && journal.numbered >= self.counter()
        })
    }

    /// The store failed: from now on memory is all there is. False: it was so already.
    pub fn go_volatile(&mut self) -> bool {
        self.journal.take().is_some()
    }
}

impl Slot {
    fn empty() -> Self {
        Self { held: None, outstanding: 0, sent_ms: 0, reused: false }
    }
}
