//! SPL-2: a service's events in one checksummed append log of bounded size.
//!
//! Invariants: a batch is one record, so a crash leaves all of it or nothing; the file never holds
//! more than twice the capacity (plus one batch while a rewrite replaces it); the uid and the last
//! number survive when no event is left. The space of acknowledged events is won back by writing
//! the living ones into a new file that takes the name of the old one.
//! Deliberately absent: reading after the opening. What is alive is also in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Entry};
use super::{PersistenceError, ServicePersistence, StoreOp, StoreUid, Stored, StoredEvent, Sync};
use crate::disk::{Disk, Files};
use crate::event::Event;
use crate::log::{FRAME_BYTES, Log, Magic};

/// Kind and format version of the file.
pub(crate) const MAGIC: Magic = *b"ackspl\x01\n";
/// Events of a rewritten file that share a record, bytes: a damaged one costs no more.
const REWRITE_RECORD_BYTES: usize = 16 * 1024;

/// The built-in store of SPL-2. See the [module](self).
pub struct FileStore(Store<Disk>);

impl FileStore {
    /// A store in this file. `capacity` bounds its size: see the [module](self).
    pub fn new(path: impl Into<PathBuf>, capacity: u64) -> Self {
        Self(Store::new(Disk::default(), &path.into(), capacity))
    }
}

impl ServicePersistence for FileStore {
    fn load(&mut self) -> Result<Stored, PersistenceError> {
        self.0.load()
    }

    fn apply(&mut self, batch: &[StoreOp], sync: Sync) -> Result<(), PersistenceError> {
        self.0.apply(batch, sync)
    }
}

/// The store over any files.
pub(crate) struct Store<F> {
    path: PathBuf,
    capacity: u64,
    /// Taken by `load`.
    files: Option<F>,
    log: Option<Log<F>>,
    contents: Contents,
}

/// What is alive.
#[derive(Default)]
struct Contents {
    uid: Option<StoreUid>,
    last_number: u64,
    events: BTreeMap<u64, (Option<u64>, Arc<Event>)>,
}

impl<F: Files> Store<F> {
    pub(crate) fn new(files: F, path: &Path, capacity: u64) -> Self {
        let contents = Contents::default();
        Self { path: path.to_owned(), capacity, files: Some(files), log: None, contents }
    }

    /// The file's length, bytes.
    #[cfg(test)]
    pub(crate) fn length(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::length)
    }

    pub(crate) fn load(&mut self) -> Result<Stored, PersistenceError> {
        let files = self.files.take().ok_or_else(|| PersistenceError::other("loaded twice"))?;
        let opened = Log::open(files, &self.path, MAGIC, |bytes| record::decode(bytes).is_some())?;
        for entry in opened.records.iter().filter_map(|bytes| record::decode(bytes)).flatten() {
            self.contents.take(&entry);
        }
        self.log = Some(opened.log);
        Ok(Stored {
            uid: self.contents.uid,
            last_number: self.contents.last_number,
            events: self.contents.living().collect(),
            findings: opened.findings,
        })
    }

    pub(crate) fn apply(&mut self, batch: &[StoreOp], sync: Sync) -> Result<(), PersistenceError> {
        let mut content = Vec::with_capacity(256);
        for op in batch {
            record::encode_op(op, &mut content);
            self.contents.take_op(op);
        }
        let log = self.log.as_mut().ok_or_else(|| PersistenceError::other("not loaded"))?;
        if log.length() + FRAME_BYTES + content.len() as u64 > 2 * self.capacity {
            log.rewrite(&self.contents.records())?;
            return Ok(());
        }
        log.append(&content)?;
        match sync {
            Sync::Now => log.sync()?,
            Sync::Later => {}
        }
        Ok(())
    }
}

impl Contents {
    fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::State { uid, last_number } => {
                *self = Self { uid: Some(*uid), last_number: *last_number, ..Self::default() };
            }
            Entry::Op(op) => self.take_op(op),
        }
    }

    fn take_op(&mut self, op: &StoreOp) {
        match op {
            StoreOp::Begin { uid } => {
                self.uid = Some(*uid);
                self.last_number = 0;
                self.events.values_mut().for_each(|(seq, _)| *seq = None);
            }
            StoreOp::Put(stored) => {
                self.last_number = self.last_number.max(stored.seq.unwrap_or(0));
                self.events.insert(stored.ticket, (stored.seq, Arc::clone(&stored.event)));
            }
            StoreOp::Number { ticket, seq } => {
                self.last_number = self.last_number.max(*seq);
                if let Some((number, _)) = self.events.get_mut(ticket) {
                    *number = Some(*seq);
                }
            }
            StoreOp::Remove { ticket } => {
                self.events.remove(ticket);
            }
        }
    }

    fn living(&self) -> impl Iterator<Item = StoredEvent> {
        self.events.iter().map(|(ticket, (seq, event))| StoredEvent {
            ticket: *ticket,
            seq: *seq,
            event: Arc::clone(event),
        })
    }

    /// The whole of it as records of a new file.
    fn records(&self) -> Vec<Vec<u8>> {
        let mut records = vec![Vec::new()];
        if let Some(uid) = self.uid {
            record::encode(&Entry::State { uid, last_number: self.last_number }, &mut records[0]);
        }
        let mut current = Vec::new();
        for stored in self.living() {
            record::encode_op(&StoreOp::Put(stored), &mut current);
            if current.len() >= REWRITE_RECORD_BYTES {
                records.push(std::mem::take(&mut current));
            }
        }
        records.push(current);
        records
    }
}
