//! A store whose machine can lose power: what was not synced may be gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use ackord_endpoint::Event;
use ackord_endpoint::publish::StoreBatch;
use ackord_endpoint::spl::{StoreOp, StoreUid, Stored, StoredEvent, Sync};

#[derive(Clone, Debug, Default)]
pub struct Store {
    batches: Vec<Vec<StoreOp>>,
    synced: usize,
}

impl Store {
    pub fn apply(&mut self, batch: &StoreBatch) {
        self.batches.push(batch.ops.clone());
        if batch.sync == Sync::Now {
            self.synced = self.batches.len();
        }
    }

    /// The power fails: at most what was synced is certain.
    pub fn crash(&mut self) {
        self.batches.truncate(self.synced);
    }

    /// An old copy is put back, or the disk lied: the last batches are gone.
    pub fn forget(&mut self, batches: usize) {
        self.batches.truncate(self.batches.len().saturating_sub(batches));
        self.synced = self.batches.len();
    }

    pub fn load(&self) -> Stored {
        let mut uid: Option<StoreUid> = None;
        let mut last_number = 0;
        let mut events: BTreeMap<u64, (Option<u64>, Arc<Event>)> = BTreeMap::new();
        for op in self.batches.iter().flatten() {
            match op {
                StoreOp::Begin { uid: fresh } => {
                    (uid, last_number) = (Some(*fresh), 0);
                    events.values_mut().for_each(|(seq, _)| *seq = None);
                }
                StoreOp::Put(stored) => {
                    last_number = last_number.max(stored.seq.unwrap_or(0));
                    events.insert(stored.ticket, (stored.seq, stored.event.clone()));
                }
                StoreOp::Number { ticket, seq } => {
                    last_number = last_number.max(*seq);
                    events.get_mut(ticket).expect("what is numbered is there").0 = Some(*seq);
                }
                StoreOp::Remove { ticket } => {
                    events.remove(ticket).expect("what is removed is there");
                }
            }
        }
        let events = events.into_iter();
        let events = events.map(|(ticket, (seq, event))| StoredEvent { ticket, seq, event });
        Stored { uid, last_number, events: events.collect(), findings: Vec::new() }
    }
}
