//! The one thread that writes the log, for all groups of the node.
//!
//! take what waits → lower the high-water file if a log gets shorter → one write and one sync →
//! note what is durable → the high-water file if there is a vote → answer → the high-water file
//! if it is due.
//!
//! What queues up while a sync runs goes into the next batch. After the first failure nothing is
//! acknowledged any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, LogBatch};

use crate::error::StoreError;
use crate::log::{BATCH_KEY, Engine, META_KEY, Message, NODE_REGION, region_of, slot_of};
use crate::queue::{Queued, Request, Taken};
use crate::record::{BatchRecord, EntryRecord, MetaRecord};
use crate::shared::Shared;
use crate::types::GroupId;

/// Above every slot an entry can have.
const SLOT_BEYOND_ALL: u64 = u64::MAX / 2;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    /// The last batch written.
    number: u64,
    /// The highest request in it or before it.
    sequence: u64,
    water_due: Instant,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, engine: Arc<Engine>, number: u64, sequence: u64) -> Writer {
        let water_due = Instant::now() + shared.options.high_water_interval;
        Writer { shared, engine, number, sequence, water_due }
    }

    /// Runs until the queue is closed and empty, or something fails.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work()));
        let reason = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(_) => "the log writer panicked".to_owned(),
        };
        // The first failed call says more than what the engine made of it.
        shared.fail(&shared.health().failure().unwrap_or(reason));
    }

    fn work(&mut self) -> Result<(), String> {
        loop {
            let patience = self.water_due.saturating_duration_since(Instant::now());
            match self.shared.queue.take(self.shared.options.batch_bytes_max, patience) {
                Taken::Batch(batch) => {
                    let (turns, requests) = (self.shared.options.turns.clone(), batch.len());
                    if let Some(turns) = &turns {
                        turns.begin();
                    }
                    if self.shared.is_gone() {
                        let error = StoreError::Closed;
                        for queued in batch {
                            (queued.done)(Err(error.clone()));
                        }
                        return Ok(());
                    }
                    self.shared.set_writing(true);
                    if let Err((reason, batch)) = self.handle(batch) {
                        let cause = self.shared.health().failure().unwrap_or(reason);
                        self.shared.fail(&cause);
                        let error = StoreError::Fatal(Arc::from(cause.as_str()));
                        for queued in batch {
                            (queued.done)(Err(error.clone()));
                        }
                        return Ok(());
                    }
                    if let Some(turns) = &turns {
                        turns.end(requests);
                    }
                }
                Taken::Nothing => {}
                Taken::Closed => return Ok(()),
            }
            if self.water_due <= Instant::now() {
                self.shared.set_writing(true);
                self.refresh_water(Refresh::WhenChanged)?;
            }
            self.shared.set_writing(false);
        }
    }

    fn handle(&mut self, batch: Vec<Queued>) -> Result<(), (String, Vec<Queued>)> {
        match self.make_durable(&batch) {
            Ok(()) => {}
            Err(reason) => return Err((reason, batch)),
        }
        self.shared.written.store(self.number, Ordering::Relaxed);
        let count = batch.len();
        let bytes = batch.iter().map(|queued| queued.bytes).sum();
        let counters = &self.shared.counters;
        counters.requests.fetch_add(count as u64, Ordering::Relaxed);
        for queued in batch {
            self.note_durable(&queued);
            (queued.done)(Ok(()));
        }
        self.shared.queue.release(count, bytes);
        self.shared.evict_recent();
        Ok(())
    }

    fn make_durable(&mut self, batch: &[Queued]) -> Result<(), String> {
        self.lower_water(batch)?;
        self.number += 1;
        let mut out = LogBatch::with_capacity(batch.len() + 1);
        let mut entries = 0;
        for queued in batch {
            self.sequence = self.sequence.max(queued.sequence);
            entries += self.add(&mut out, queued)?;
        }
        let mark = BatchRecord { number: self.number, sequence: self.sequence };
        out.put(NODE_REGION, BATCH_KEY.to_vec(), mark.encode(self.shared.salt))
            .map_err(|error| error.to_string())?;
        let written = catch_unwind(AssertUnwindSafe(|| self.engine.write(&mut out, true)));
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("write the log: {error}")),
            Err(_) => return Err("write the log: the engine panicked".to_owned()),
        }
        // Another thread may have failed meanwhile: then nothing is acknowledged any more.
        if let Some(failure) = self.shared.health().failure() {
            return Err(failure);
        }
        if let Some(reason) = self.shared.fatal() {
            return Err(reason.to_string());
        }
        let counters = &self.shared.counters;
        counters.writes.fetch_add(1, Ordering::Relaxed);
        counters.entries.fetch_add(entries, Ordering::Relaxed);
        self.raise_water(batch)
    }

    fn add(&self, out: &mut LogBatch, queued: &Queued) -> Result<u64, String> {
        let region = region_of(queued.group);
        let text = |error: raft_engine::Error| error.to_string();
        match &queued.request {
            Request::Append { entries, drops_all } => {
                if *drops_all {
                    let index = SLOT_BEYOND_ALL;
                    out.add_command(region, Command::Compact { index });
                }
                let messages: Vec<BytesValue> = entries
                    .iter()
                    .map(|recent| {
                        let record = EntryRecord {
                            group: queued.group,
                            mark: recent.entry.mark,
                            number: self.number,
                            sequence: recent.sequence,
                            digest: recent.digest,
                            data_crc: recent.data_crc,
                            data: recent.entry.data.clone(),
                        };
                        let mut message = BytesValue::new();
                        message.set_value(record.encode(self.shared.salt));
                        message
                    })
                    .collect();
                out.add_entries::<Message>(region, &messages).map_err(text)?;
                Ok(entries.len() as u64)
            }
            Request::Meta { meta, compact_to, .. } => {
                let record =
                    MetaRecord { group: queued.group, number: self.number, meta: meta.clone() };
                let value = record.encode(self.shared.salt);
                out.put(region, META_KEY.to_vec(), value).map_err(text)?;
                if let Some(index) = *compact_to {
                    out.add_command(region, Command::Compact { index });
                }
                Ok(0)
            }
            Request::Remove => {
                out.add_command(region, Command::Clean);
                Ok(0)
            }
        }
    }

    /// Says first in the high-water file what will be less afterwards.
    fn lower_water(&self, batch: &[Queued]) -> Result<(), String> {
        let mut high = self.shared.water.lock();
        let mut is_lower = false;
        for queued in batch {
            match queued.request {
                Request::Append { .. } => {}
                Request::Meta { .. } => {
                    if let Some(facts) = high.water.groups.get_mut(&queued.group)
                        && facts.last.map(|m| (m.term, m.index))
                            > queued.last.map(|m| (m.term, m.index))
                    {
                        facts.last = queued.last;
                        is_lower = true;
                    }
                }
                Request::Remove => {
                    is_lower |= high.water.groups.remove(&queued.group).is_some();
                }
            }
        }
        if !is_lower {
            return Ok(());
        }
        high.write_both().map_err(|error| format!("write the high-water file: {error}"))
    }

    /// Notes what is durable now; with a vote in the batch, also on disk.
    fn raise_water(&mut self, batch: &[Queued]) -> Result<(), String> {
        let mut has_vote = false;
        {
            let mut high = self.shared.water.lock();
            high.water.number = self.number;
            high.dirty = true;
            for queued in batch {
                if let Request::Remove = queued.request {
                    high.water.groups.remove(&queued.group);
                    continue;
                }
                let facts = high.water.groups.entry(queued.group).or_default();
                facts.last = queued.last;
                if let Request::Meta { meta, is_vote, .. } = &queued.request {
                    facts.purged = meta.purged.map(|(mark, _)| mark);
                    facts.vote.clone_from(&meta.vote);
                    facts.meta_sequence = meta.sequence;
                    has_vote |= is_vote;
                }
            }
        }
        if has_vote {
            self.refresh_water(Refresh::Always)?;
        }
        Ok(())
    }

    fn refresh_water(&mut self, refresh: Refresh) -> Result<(), String> {
        let changed = self.shared.committed_changed.swap(false, Ordering::AcqRel);
        let committed = if changed { self.shared.committed() } else { Vec::new() };
        let mut high = self.shared.water.lock();
        high.note_committed(&committed);
        let wanted = match refresh {
            Refresh::Always => true,
            Refresh::WhenChanged => high.dirty,
        };
        if wanted {
            high.write().map_err(|error| format!("write the high-water file: {error}"))?;
        }
        self.water_due = Instant::now() + self.shared.options.high_water_interval;
        Ok(())
    }

    fn note_durable(&self, queued: &Queued) {
        let group: GroupId = queued.group;
        let cell = self.shared.groups.read().get(&group).cloned();
        if let Some(cell) = cell {
            let mut group = cell.lock();
            group.durable_sequence = group.durable_sequence.max(queued.sequence);
        }
    }
}

enum Refresh {
    Always,
    WhenChanged,
}

/// The slot below which the engine may forget everything once `index` is purged.
pub(crate) fn compact_slot(index: u64) -> u64 {
    slot_of(index).saturating_add(1)
}
