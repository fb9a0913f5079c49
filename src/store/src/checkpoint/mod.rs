//! Checkpoints: the applied state of each group as rows in one sled database per node.
//!
//! A checkpoint is a cache of snapshot and log, never trusted alone. Every stored piece has its
//! own CRC, every group a running count and hash; what does not add up is damage, and the answer
//! to damage is [`Checkpoint::reset`] and a rebuild.
//!
//! Invariants:
//! - A batch with its metadata is one atomic batch of the database, bounded in bytes.
//! - Durable means: flushed by sled, then `fdatasync` on a handle of ours, because sled's flush
//!   alone is not.
//! - Nothing of a group counts before its metadata is written.

mod database;
pub(crate) mod row;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::caught::caught;
use crate::error::StoreError;
use crate::shared::Shared;
use crate::types::GroupId;
use database::Database;

/// The most bytes of keys and values of one checkpoint batch.
pub const CHECKPOINT_BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most bytes of one row's key.
pub const CHECKPOINT_KEY_BYTES_MAX: usize = 1024;

/// A verified checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What was given to the last [`Checkpoint::write`].
    pub meta: Bytes,
    /// Every row.
    pub rows: Vec<(Bytes, Bytes)>,
}

enum State {
    Unopened,
    Open(Box<Database>),
    /// It failed and is replaced at the next reset.
    Broken,
    Closed,
}

struct Inner {
    state: State,
    /// Why groups that were not reset since cannot be trusted.
    doubt: Option<String>,
    cleared: BTreeSet<GroupId>,
}

/// The checkpoints of a node.
pub(crate) struct CheckpointStore {
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
}

impl CheckpointStore {
    pub fn new(shared: Arc<Shared>) -> CheckpointStore {
        CheckpointStore {
            shared,
            inner: Mutex::new(Inner {
                state: State::Unopened,
                doubt: None,
                cleared: BTreeSet::new(),
            }),
        }
    }

    /// Closes and seals the database.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        if let State::Open(database) = std::mem::replace(&mut inner.state, State::Closed)
            && let Err(error) = database.close()
        {
            tracing::warn!(%error, "the checkpoint was not closed gracefully");
        }
    }

    fn break_off(&self, inner: &mut Inner, error: &StoreError) {
        tracing::warn!(%error, "the checkpoint database is not usable");
        let broken = std::mem::replace(&mut inner.state, State::Broken);
        // sled writes what it still holds when it is dropped, and may panic again.
        if caught(|| drop(broken)).is_none() {
            tracing::warn!("closing the checkpoint database panicked");
        }
        inner.doubt = Some(error.to_string());
        inner.cleared.clear();
        if let StoreError::Io { what, reason } = error {
            self.shared.fail(&format!("{what}: {reason}"));
        }
    }

    /// Opens the database at first use; one that does not open is replaced by an empty one.
    fn ensure_open(&self, inner: &mut Inner) -> Result<(), StoreError> {
        match inner.state {
            State::Open(_) => return Ok(()),
            State::Closed => return Err(StoreError::Closed),
            State::Broken => {
                let doubt = inner.doubt.clone().unwrap_or_default();
                return Err(StoreError::Damaged(doubt));
            }
            State::Unopened => {}
        }
        match database::guarded(|| Database::open(&self.shared)) {
            Ok(database) => {
                inner.state = State::Open(Box::new(database));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "the checkpoint does not open and is replaced");
                inner.doubt = Some(error.to_string());
                self.replace(inner)
            }
        }
    }

    fn replace(&self, inner: &mut Inner) -> Result<(), StoreError> {
        inner.state = State::Broken;
        inner.cleared.clear();
        let database = Database::replace(&self.shared)?;
        inner.state = State::Open(Box::new(database));
        Ok(())
    }

    /// Runs `work` on the open database. An error that may have left the database in doubt
    /// breaks it off.
    fn with<R>(
        &self,
        inner: &mut Inner,
        work: impl FnOnce(&mut Database) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.ensure_open(inner)?;
        let State::Open(database) = &mut inner.state else {
            return Err(StoreError::Closed);
        };
        let result = database::guarded(|| work(database));
        if let Err(error) = &result {
            match error {
                StoreError::Damaged(_) | StoreError::NoSpace(_) | StoreError::Io { .. } => {
                    self.break_off(inner, error);
                }
                StoreError::Busy
                | StoreError::Closed
                | StoreError::Fatal(_)
                | StoreError::Purged { .. }
                | StoreError::NoSuchEntry { .. }
                | StoreError::Invalid(_) => {}
            }
        }
        result
    }

    fn trusted(&self, inner: &mut Inner, group: GroupId) -> Result<(), StoreError> {
        self.ensure_open(inner)?;
        match &inner.doubt {
            Some(doubt) if !inner.cleared.contains(&group) => {
                Err(StoreError::Damaged(doubt.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The checkpoint of one group. Calls wait for the disk.
#[derive(Clone)]
pub struct Checkpoint {
    store: Arc<CheckpointStore>,
    group: GroupId,
}

impl Checkpoint {
    pub(crate) fn new(store: Arc<CheckpointStore>, group: GroupId) -> Checkpoint {
        Checkpoint { store, group }
    }

    /// Reads and verifies the whole checkpoint. `None`: there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]: rebuild from snapshot and log, after [`Self::reset`].
    pub fn load(&self) -> Result<Option<Loaded>, StoreError> {
        let mut rows = Vec::new();
        let meta = self.load_with(|key, value| rows.push((key, value)))?;
        Ok(meta.map(|meta| Loaded { meta, rows }))
    }

    /// As [`Self::load`], giving each row to `visit` as it is read. What was visited counts only
    /// when the result is `Ok(Some(meta))`; a panic in there is damage too.
    pub fn load_with(
        &self,
        mut visit: impl FnMut(Bytes, Bytes),
    ) -> Result<Option<Bytes>, StoreError> {
        let mut inner = self.store.inner.lock();
        self.store.trusted(&mut inner, self.group)?;
        let group = self.group;
        // Damage of one group's rows leaves the others alone, but they share pages: the whole
        // database is replaced and they rebuild too.
        self.store.with(&mut inner, |database| database.load(group, &mut visit))
    }

    /// Writes one atomic batch, durable on return. Of a key given twice the last value counts,
    /// and deletes come after puts.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] above [`CHECKPOINT_BATCH_BYTES_MAX`]; [`StoreError::NoSpace`] when
    /// the disk is full: the checkpoint is then unusable until [`Self::reset`].
    pub fn write(
        &self,
        meta: Bytes,
        puts: Vec<(Bytes, Bytes)>,
        deletes: Vec<Bytes>,
    ) -> Result<(), StoreError> {
        let rows: u64 = puts.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum();
        let keys: u64 = deletes.iter().map(|k| k.len() as u64).sum();
        let bytes = rows + keys + meta.len() as u64;
        if bytes > CHECKPOINT_BATCH_BYTES_MAX {
            return Err(StoreError::Invalid(format!("a batch of {bytes} bytes")));
        }
        check_keys(puts.iter().map(|(key, _)| key).chain(&deletes))?;
        let mut inner = self.store.inner.lock();
        self.store.trusted(&mut inner, self.group)?;
        let group = self.group;
        self.store.with(&mut inner, |database| database.write(group, &meta, puts, deletes))?;
        let counter = &self.store.shared.counters.checkpoint_writes;
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Adds rows, however many, to a checkpoint that was [`Self::reset`] and has no meta yet.
    /// Nothing of it counts, or is durable, before the [`Self::write`] that follows.
    pub fn fill(&self, puts: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        check_keys(puts.iter().map(|(key, _)| key))?;
        let mut inner = self.store.inner.lock();
        self.store.trusted(&mut inner, self.group)?;
        let group = self.group;
        self.store.with(&mut inner, |database| database.fill(group, puts))
    }

    /// Forgets the group's checkpoint, durably; those of all groups when the database is damaged.
    pub fn reset(&self) -> Result<(), StoreError> {
        let mut inner = self.store.inner.lock();
        if let State::Broken = inner.state {
            self.store.replace(&mut inner)?;
        }
        let group = self.group;
        if let Err(error) = self.store.with(&mut inner, |database| database.reset(group)) {
            let StoreError::Damaged(_) = error else { return Err(error) };
            // Even forgetting reads what is there.
            self.store.replace(&mut inner)?;
            self.store.with(&mut inner, |database| database.reset(group))?;
        }
        inner.cleared.insert(group);
        Ok(())
    }
}

fn check_keys<'a>(mut keys: impl Iterator<Item = &'a Bytes>) -> Result<(), StoreError> {
    match keys.find(|key| key.len() > CHECKPOINT_KEY_BYTES_MAX) {
        Some(key) => Err(StoreError::Invalid(format!("a key of {} bytes", key.len()))),
        None => Ok(()),
    }
}
