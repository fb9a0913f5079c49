//! What this node sent of late, and when it was acknowledged: a ring in memory, the oldest first to
//! go.
//!
//! Invariants: recording one transmission takes a lock, two copies of shared names and nothing from
//! the heap once the ring is full; an acknowledgement finds its transmission by the ticket that its
//! session keeps. It is memory, not record: it ends with the process, and says since when it knows
//! everything.

use std::collections::BTreeMap;

use ackord_machine::session::Delivery;
use ackord_machine::site::{ClientId, EventKey, InstanceId, SiteName};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::asked::{Answered, Question};
use crate::broker::Broker;
use crate::live::{NotReached, Reach};
use crate::seat::wall_ms;

/// Transmissions that one node tells at most, the newest.
pub const TRACE_ANSWER_MAX: usize = 1000;
/// Entries that are looked at under one lock, so that no delivery waits long for a question.
const LOOK_AT_ONCE: usize = 4096;

/// Names a transmission in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// A transmission in the ring.
struct Entry {
    site: SiteName,
    /// `None` is a stateless client.
    client: Option<ClientId>,
    event: EventKey,
    incarnation: u64,
    instance: InstanceId,
    attempt: u32,
    session: u64,
    sent_ms: u64,
    /// Milliseconds after that, plus one; 0 is not yet.
    acknowledged: u32,
    committed: u32,
}

#[derive(Default)]
struct Ring {
    entries: Vec<Entry>,
    /// Transmissions recorded ever; the next one's ticket.
    recorded: u64,
    /// When the newest that was displaced had been sent.
    displaced_ms: u64,
}

/// See the module.
pub(crate) struct Ledger {
    ring: Mutex<Ring>,
    entries_max: usize,
    begun_ms: u64,
}

impl Ledger {
    pub fn new(entries_max: usize) -> Self {
        Self { ring: Mutex::default(), entries_max, begun_ms: wall_ms() }
    }

    /// An instance is handed to the front.
    pub fn sent(
        &self,
        site: &SiteName,
        client: Option<&ClientId>,
        session: u64,
        delivery: &Delivery,
    ) -> Ticket {
        if self.entries_max == 0 {
            return Ticket(u64::MAX);
        }
        let entry = Entry {
            site: site.clone(),
            client: client.cloned(),
            event: delivery.event,
            incarnation: delivery.incarnation.0,
            instance: delivery.instance.id,
            attempt: delivery.attempt,
            session,
            sent_ms: wall_ms(),
            acknowledged: 0,
            committed: 0,
        };
        let mut ring = self.ring.lock();
        let ticket = ring.recorded;
        ring.recorded += 1;
        let displaced = if ring.entries.len() < self.entries_max {
            ring.entries.push(entry);
            None
        } else {
            let at = (ticket % self.entries_max as u64) as usize;
            let displaced = std::mem::replace(&mut ring.entries[at], entry);
            ring.displaced_ms = ring.displaced_ms.max(displaced.sent_ms);
            Some(displaced)
        };
        drop(ring);
        // Its names may be the last copies: they are freed without the lock.
        drop(displaced);
        Ticket(ticket)
    }

    /// The client said that it handled the instance.
    pub fn acknowledged(&self, ticket: Ticket, instance: InstanceId) {
        self.mark(ticket, instance, |entry, after| {
            if entry.acknowledged == 0 {
                entry.acknowledged = after;
            }
        });
    }

    /// The cursor was committed at the instance.
    pub fn committed(&self, ticket: Ticket, instance: InstanceId) {
        self.mark(ticket, instance, |entry, after| entry.committed = after);
    }

    fn mark(&self, ticket: Ticket, instance: InstanceId, mark: impl FnOnce(&mut Entry, u32)) {
        let now_ms = wall_ms();
        let mut ring = self.ring.lock();
        let held = ring.entries.len() as u64;
        if ticket.0 >= ring.recorded || ring.recorded - ticket.0 > held {
            return;
        }
        let at = (ticket.0 % self.entries_max as u64) as usize;
        let entry = &mut ring.entries[at];
        if entry.instance == instance {
            let after = now_ms.saturating_sub(entry.sent_ms);
            mark(entry, u32::try_from(after).unwrap_or(u32::MAX - 1) + 1);
        }
    }

    /// What was sent that fits, the newest first.
    pub fn find(&self, query: &TraceQuery) -> TracePart {
        let mut part = TracePart { since_ms: self.begun_ms, ..TracePart::default() };
        let mut next = self.ring.lock().recorded;
        loop {
            let ring = self.ring.lock();
            let oldest = ring.recorded - ring.entries.len() as u64;
            let upto = next.saturating_sub(LOOK_AT_ONCE as u64).max(oldest);
            for ticket in (upto..next).rev() {
                let entry = &ring.entries[(ticket % self.entries_max as u64) as usize];
                if query.fits(entry) {
                    part.total += 1;
                    if part.sent.len() < TRACE_ANSWER_MAX {
                        part.sent.push(Sent::of(entry));
                    }
                }
            }
            if upto == oldest {
                if oldest > 0 {
                    part.since_ms = ring.displaced_ms + 1;
                }
                return part;
            }
            next = upto;
        }
    }
}

/// Which transmissions are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceQuery {
    /// Of this site.
    pub site: SiteName,
    /// To this client.
    pub client: ClientId,
    /// Of this event.
    pub event: EventKey,
    /// Of this instance only.
    pub instance: Option<InstanceId>,
}

impl TraceQuery {
    fn fits(&self, entry: &Entry) -> bool {
        entry.event == self.event
            && self.instance.is_none_or(|instance| instance == entry.instance)
            && entry.client.as_ref() == Some(&self.client)
            && entry.site == self.site
    }
}

/// One transmission. Times are milliseconds since 1970, by the clock of the node that sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The site's life.
    pub incarnation: u64,
    /// The instance.
    pub instance: u64,
    /// 1 for the first transmission in its session.
    pub attempt: u32,
    /// The number of the session on its node.
    pub session: u64,
    /// When it was handed to the front.
    pub sent_ms: u64,
    /// When the client said here that it handled the instance.
    pub acknowledged_ms: Option<u64>,
    /// When this node saw the cursor committed.
    pub committed_ms: Option<u64>,
}

impl Sent {
    fn of(entry: &Entry) -> Self {
        let at = |after: u32| (after > 0).then(|| entry.sent_ms + u64::from(after - 1));
        Self {
            incarnation: entry.incarnation,
            instance: entry.instance.0,
            attempt: entry.attempt,
            session: entry.session,
            sent_ms: entry.sent_ms,
            acknowledged_ms: at(entry.acknowledged),
            committed_ms: at(entry.committed),
        }
    }
}

/// What one node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePart {
    /// The newest first, up to [`TRACE_ANSWER_MAX`].
    pub sent: Vec<Sent>,
    /// How many there are.
    pub total: u64,
    /// Everything sent from this moment on is known.
    pub since_ms: u64,
}

/// What all nodes know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// By node.
    pub nodes: BTreeMap<u64, TracePart>,
    /// Nodes that did not answer, and why.
    pub not_reached: BTreeMap<u64, NotReached>,
}

impl Broker {
    /// What of a subscription was sent lately, or of one instance of it, as far as the nodes
    /// remember.
    pub async fn trace(&self, query: TraceQuery, reach: Reach) -> Trace {
        let (answers, mut not_reached) = self.ask(Question::Trace(query), reach).await;
        let mut nodes = BTreeMap::new();
        for (node, answer) in answers {
            match answer {
                Answered::Trace(part) => {
                    nodes.insert(node, part);
                }
                Answered::Live(_) | Answered::Cluster(_) => {
                    not_reached.insert(node, NotReached::Unsupported);
                }
            }
        }
        Trace { nodes, not_reached }
    }
}
