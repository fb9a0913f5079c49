//! The sled database under the checkpoints, and everything needed to distrust it.
//!
//! sled answers a damaged file with a panic, a shorter database, or silence. So: a seal over all
//! its files is written at a graceful close and checked before sled sees them; opening runs on
//! a thread of its own, caught and with a time limit; every call is caught.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use super::CHECKPOINT_BATCH_BYTES_MAX;
use super::row::{self, Head, Joiner, TAG_META, TAG_ROW};
use crate::caught::caught;
use crate::codec::{Decoder, Encoder, Salt};
use crate::durable;
use crate::error::StoreError;
use crate::open::CHECKPOINT_DIR;
use crate::shared::Shared;
use crate::types::GroupId;

const SEAL_FILE: &str = "checkpoint.seal";
const DAMAGED_DIR: &str = "checkpoint.damaged";
const FRESH_DIR: &str = "checkpoint.fresh";
const SEAL_HEAD: &str = "ackord checkpoint seal 1\n";

/// Count and sum of the hashes of a group's rows, and how often they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    count: u64,
    sum: u128,
    writes: u64,
}

pub(super) struct Database {
    shared: Arc<Shared>,
    salt: Salt,
    db: sled::Db,
    /// Our handle of sled's file: the only sync that makes it durable.
    file: File,
    tallies: BTreeMap<GroupId, Tally>,
}

fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, StoreError> {
    result.map_err(|error| StoreError::io(what, &error))
}

fn from_sled(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => StoreError::io("use the checkpoint", &error),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => StoreError::Damaged(error.to_string()),
    }
}

fn does_not_verify(what: &str) -> StoreError {
    StoreError::Damaged(format!("the checkpoint's {what} does not verify"))
}

/// Turns a panic into damage.
pub(super) fn guarded<R>(work: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    let panicked = || Err(StoreError::Damaged("the checkpoint panicked".into()));
    caught(work).unwrap_or_else(panicked)
}

fn config(shared: &Shared, dir: &Path) -> sled::Config {
    sled::Config::new()
        .path(dir)
        .cache_capacity(shared.options.checkpoint_cache_bytes)
        .flush_every_ms(None)
}

impl Database {
    /// Opens the database, creating it when there is none.
    pub fn open(shared: &Arc<Shared>) -> Result<Database, StoreError> {
        let dir = shared.dir.join(CHECKPOINT_DIR);
        let is_new = !dir.exists();
        check_seal(&shared.dir, &dir)?;
        let (answer, opened) = sync_channel(1);
        let config = config(shared, &dir);
        let opener = std::thread::Builder::new().name("store-checkpoint".into()).spawn(move || {
            let outcome = guarded(|| config.open().map_err(from_sled));
            // Past the time limit nobody wants it any more.
            let _late = answer.send(outcome);
        });
        io("start a thread", opener)?;
        let db = match opened.recv_timeout(shared.options.checkpoint_open_limit) {
            Ok(outcome) => outcome?,
            Err(_) => return Err(StoreError::Damaged("opening the checkpoint hangs".into())),
        };
        let file = io("open the checkpoint", File::open(dir.join("db")))?;
        if is_new {
            io("sync the checkpoint", sync_new(&dir, &file))?;
        } else if io("look at the checkpoint", is_wasteful(shared, &db, &file))? {
            return Database::rewrite(shared, db);
        }
        Ok(Database {
            shared: shared.clone(),
            salt: shared.salt,
            db,
            file,
            tallies: BTreeMap::new(),
        })
    }

    /// Copies what is there into a fresh database. A crash in between costs the checkpoint.
    fn rewrite(shared: &Arc<Shared>, old: sled::Db) -> Result<Database, StoreError> {
        let dir = shared.dir.join(CHECKPOINT_DIR);
        let fresh = shared.dir.join(FRESH_DIR);
        if fresh.exists() {
            io("remove a checkpoint", std::fs::remove_dir_all(&fresh))?;
        }
        let new = config(shared, &fresh).open().map_err(from_sled)?;
        let mut out = sled::Batch::default();
        let mut bytes = 0;
        for item in old.iter() {
            let (key, value) = item.map_err(from_sled)?;
            bytes += (key.len() + value.len()) as u64;
            out.insert(key, value);
            if bytes > CHECKPOINT_BATCH_BYTES_MAX {
                new.apply_batch(std::mem::take(&mut out)).map_err(from_sled)?;
                bytes = 0;
            }
        }
        new.apply_batch(out).map_err(from_sled)?;
        new.flush().map_err(from_sled)?;
        let file = io("open the checkpoint", File::open(fresh.join("db")))?;
        io("sync the checkpoint", sync_new(&fresh, &file))?;
        drop((old, new));
        let moved = std::fs::remove_dir_all(&dir)
            .and_then(|()| std::fs::rename(&fresh, &dir))
            .and_then(|()| durable::sync_dir(&shared.dir));
        io("move the checkpoint", moved)?;
        let db = config(shared, &dir).open().map_err(from_sled)?;
        let file = io("open the checkpoint", File::open(dir.join("db")))?;
        Ok(Database {
            shared: shared.clone(),
            salt: shared.salt,
            db,
            file,
            tallies: BTreeMap::new(),
        })
    }

    /// Moves what is there aside and creates an empty one.
    pub fn replace(shared: &Arc<Shared>) -> Result<Database, StoreError> {
        let dir = shared.dir.join(CHECKPOINT_DIR);
        let aside = shared.dir.join(DAMAGED_DIR);
        let moved = (|| {
            durable::remove_file(&shared.dir.join(SEAL_FILE))?;
            if aside.exists() {
                std::fs::remove_dir_all(&aside)?;
            }
            if dir.exists() {
                std::fs::rename(&dir, &aside)?;
            }
            durable::sync_dir(&shared.dir)
        })();
        io("replace the checkpoint", moved)?;
        Database::open(shared)
    }

    /// Flushes, closes and seals.
    pub fn close(self) -> Result<(), StoreError> {
        let Database { shared, db, file, .. } = self;
        guarded(|| {
            db.flush().map_err(from_sled)?;
            drop(db);
            Ok(())
        })?;
        io("sync the checkpoint", file.sync_data())?;
        let dir = shared.dir.join(CHECKPOINT_DIR);
        let sealed = sync_new(&dir, &file)
            .and_then(|()| seal_of(&dir))
            .and_then(|seal| durable::replace_file(&shared.dir.join(SEAL_FILE), seal.as_bytes()));
        io("seal the checkpoint", sealed)
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(from_sled)?;
        io("sync the checkpoint", self.file.sync_data())
    }

    fn head(&self, group: GroupId, tag: u8, key: &[u8]) -> Result<Option<Head>, StoreError> {
        let stored_key = row::piece_key(group, tag, key, 0);
        let Some(stored) = self.db.get(&stored_key).map_err(from_sled)? else {
            return Ok(None);
        };
        let piece = row::decode(self.salt, &stored_key, 0, &stored);
        match piece.and_then(|piece| Some((piece.pieces, piece.hash?))) {
            Some((pieces, hash)) => Ok(Some(Head { pieces, hash })),
            None => Err(does_not_verify("row")),
        }
    }

    /// The rows under a tag, verified one by one.
    fn walk(
        &self,
        group: GroupId,
        tag: u8,
        mut visit: impl FnMut(row::Joined),
    ) -> Result<(), StoreError> {
        let mut joiner = Joiner::new(self.salt);
        for item in self.db.scan_prefix(row::prefix(group, tag)) {
            let (key, stored) = item.map_err(from_sled)?;
            match joiner.push(&key, &stored) {
                Some(Some(joined)) => visit(joined),
                Some(None) => {}
                None => return Err(does_not_verify("row")),
            }
        }
        if !joiner.is_complete() {
            return Err(does_not_verify("last row"));
        }
        Ok(())
    }

    fn meta(&self, group: GroupId) -> Result<Option<(Tally, Bytes)>, StoreError> {
        let mut found = None;
        self.walk(group, TAG_META, |joined| found = Some(joined.value))?;
        let Some(value) = found else {
            return Ok(None);
        };
        let mut input = Decoder(&value);
        let tally = (|| {
            Some(Tally {
                count: input.u64()?,
                sum: u128::from_le_bytes(input.raw(16)?.try_into().ok()?),
                writes: input.u64()?,
            })
        })();
        let tally = tally.ok_or_else(|| does_not_verify("metadata"))?;
        let used = value.len() - input.0.len();
        Ok(Some((tally, value.slice(used..))))
    }

    /// As [`Self::meta`], and no older than what was durable.
    fn newest_meta(&self, group: GroupId) -> Result<Option<(Tally, Bytes)>, StoreError> {
        let found = self.meta(group)?;
        let writes = self.shared.checkpoint_writes(group);
        if found.as_ref().map_or(0, |(tally, _)| tally.writes) < writes {
            let text = format!("the checkpoint misses the last of {writes} writes");
            return Err(StoreError::Damaged(text));
        }
        Ok(found)
    }

    pub fn load(
        &mut self,
        group: GroupId,
        visit: &mut impl FnMut(Bytes, Bytes),
    ) -> Result<Option<Bytes>, StoreError> {
        let Some((expected, meta)) = self.newest_meta(group)? else {
            return Ok(None);
        };
        let mut tally = Tally { writes: expected.writes, ..Tally::default() };
        self.walk(group, TAG_ROW, |joined| {
            tally.count += 1;
            tally.sum = tally.sum.wrapping_add(joined.head.hash);
            visit(joined.key, joined.value);
        })?;
        if tally != expected {
            let text = format!(
                "the checkpoint has {} rows where {} were written, or others",
                tally.count, expected.count
            );
            return Err(StoreError::Damaged(text));
        }
        self.tallies.insert(group, tally);
        Ok(Some(meta))
    }

    /// The tally to go on from; rows without metadata are swept away first.
    fn tally(&mut self, group: GroupId) -> Result<Tally, StoreError> {
        if let Some(tally) = self.tallies.get(&group) {
            return Ok(*tally);
        }
        let tally = match self.newest_meta(group)? {
            Some((tally, _)) => tally,
            None => {
                self.sweep(group, TAG_ROW)?;
                Tally::default()
            }
        };
        self.tallies.insert(group, tally);
        Ok(tally)
    }

    fn put(
        &self,
        out: &mut sled::Batch,
        (group, tag): (GroupId, u8),
        (key, value): (&[u8], &[u8]),
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let Some(pieces) = row::count_pieces(value) else {
            let text = format!("a row of {} bytes", value.len());
            return Err(StoreError::Invalid(text));
        };
        let hash = row::row_hash(key, value);
        let head = Head { pieces, hash };
        let before = self.head(group, tag, key)?;
        for (stored_key, stored) in row::split(self.salt, (group, tag), key, value, head) {
            out.insert(stored_key, stored);
        }
        for piece in pieces..before.map_or(0, |before| before.pieces) {
            out.remove(row::piece_key(group, tag, key, piece));
        }
        match before {
            Some(before) => tally.sum = tally.sum.wrapping_sub(before.hash),
            None => tally.count += 1,
        }
        tally.sum = tally.sum.wrapping_add(hash);
        Ok(())
    }

    fn delete(
        &self,
        out: &mut sled::Batch,
        group: GroupId,
        key: &[u8],
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let Some(before) = self.head(group, TAG_ROW, key)? else {
            return Ok(());
        };
        for piece in 0..before.pieces {
            out.remove(row::piece_key(group, TAG_ROW, key, piece));
        }
        tally.count = tally.count.saturating_sub(1);
        tally.sum = tally.sum.wrapping_sub(before.hash);
        Ok(())
    }

    pub fn write(
        &mut self,
        group: GroupId,
        meta: &[u8],
        puts: Vec<(Bytes, Bytes)>,
        deletes: Vec<Bytes>,
    ) -> Result<(), StoreError> {
        let mut tally = self.tally(group)?;
        // One change per key: the tally compares with what is stored now.
        let mut changes: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        changes.extend(puts.into_iter().map(|(key, value)| (key, Some(value))));
        changes.extend(deletes.into_iter().map(|key| (key, None)));
        let mut out = sled::Batch::default();
        for (key, change) in &changes {
            match change {
                Some(value) => {
                    self.put(&mut out, (group, TAG_ROW), (key, value), &mut tally)?;
                }
                None => self.delete(&mut out, group, key, &mut tally)?,
            }
        }
        let mut value = Encoder::default();
        value.u64(tally.count);
        value.raw(&tally.sum.to_le_bytes());
        tally.writes += 1;
        value.u64(tally.writes);
        value.raw(meta);
        let mut ignored = Tally::default();
        self.put(&mut out, (group, TAG_META), (b"", &value.0), &mut ignored)?;
        self.db.apply_batch(out).map_err(from_sled)?;
        self.make_durable()?;
        self.tallies.insert(group, tally);
        self.shared.raise_checkpoint(group, tally.writes);
        Ok(())
    }

    pub fn fill(&mut self, group: GroupId, puts: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        let mut tally = self.tally(group)?;
        if self.head(group, TAG_META, b"")?.is_some() {
            let text = "a checkpoint with metadata is written, not filled";
            return Err(StoreError::Invalid(text.into()));
        }
        let changes: BTreeMap<Bytes, Bytes> = puts.into_iter().collect();
        let mut out = sled::Batch::default();
        let mut bytes = 0;
        for (key, value) in &changes {
            self.put(&mut out, (group, TAG_ROW), (key, value), &mut tally)?;
            bytes += (key.len() + value.len()) as u64;
            if bytes > CHECKPOINT_BATCH_BYTES_MAX {
                self.db.apply_batch(std::mem::take(&mut out)).map_err(from_sled)?;
                bytes = 0;
            }
        }
        self.db.apply_batch(out).map_err(from_sled)?;
        self.tallies.insert(group, tally);
        Ok(())
    }

    /// Removes everything under a tag, in bounded batches.
    fn sweep(&self, group: GroupId, tag: u8) -> Result<(), StoreError> {
        const KEYS_AT_ONCE: usize = 4096;
        loop {
            let mut out = sled::Batch::default();
            let mut count = 0;
            let keys = self.db.scan_prefix(row::prefix(group, tag)).keys();
            for key in keys.take(KEYS_AT_ONCE) {
                out.remove(key.map_err(from_sled)?);
                count += 1;
            }
            self.db.apply_batch(out).map_err(from_sled)?;
            if count < KEYS_AT_ONCE {
                return Ok(());
            }
        }
    }

    pub fn reset(&mut self, group: GroupId) -> Result<(), StoreError> {
        self.tallies.remove(&group);
        let lowered = self.shared.lower_checkpoint(group);
        io("write the high-water file", lowered)?;
        // Metadata first: whatever is left after a crash does not count.
        self.sweep(group, TAG_META)?;
        self.make_durable()?;
        self.sweep(group, TAG_ROW)?;
        self.make_durable()?;
        self.tallies.insert(group, Tally::default());
        Ok(())
    }
}

/// Whether the database takes far more space than its rows.
fn is_wasteful(shared: &Shared, db: &sled::Db, file: &File) -> std::io::Result<bool> {
    let size = file.metadata()?.len();
    if size <= shared.options.checkpoint_rewrite_bytes {
        return Ok(false);
    }
    let rows = db.iter().filter_map(Result::ok);
    let live: u64 = rows.map(|(key, value)| (key.len() + value.len()) as u64).sum();
    Ok(size / 4 > live)
}

/// Syncs what sled creates and never syncs.
fn sync_new(dir: &Path, file: &File) -> std::io::Result<()> {
    file.sync_all()?;
    File::open(dir.join("conf"))?.sync_all()?;
    let blobs = dir.join("blobs");
    if blobs.exists() {
        durable::sync_dir(&blobs)?;
    }
    durable::sync_dir(dir)?;
    match dir.parent() {
        Some(parent) => durable::sync_dir(parent),
        None => Ok(()),
    }
}

fn files_under(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_under(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Size and checksum of every file.
fn seal_of(dir: &Path) -> std::io::Result<String> {
    let mut seal = SEAL_HEAD.to_owned();
    for path in files_under(dir)? {
        let mut hasher = crc32fast::Hasher::new();
        let mut file = File::open(&path)?;
        let mut piece = vec![0; 256 * 1024];
        let mut size = 0;
        loop {
            let got = file.read(&mut piece)?;
            if got == 0 {
                break;
            }
            size += got;
            hasher.update(&piece[..got]);
        }
        let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy();
        seal += &format!("{size} {:08x} {name}\n", hasher.finalize());
    }
    let crc = crc32fast::hash(seal.as_bytes());
    Ok(format!("{seal}{crc:08x}\n"))
}

/// Compares the files with the seal of the last graceful close, and removes it: from here on
/// sled changes them.
fn check_seal(parent: &Path, dir: &Path) -> Result<(), StoreError> {
    let path = parent.join(SEAL_FILE);
    let expected = match std::fs::read(&path) {
        Ok(expected) => expected,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("read the checkpoint's seal", &error)),
    };
    let found = match dir.exists() {
        true => io("read the checkpoint", seal_of(dir))?,
        false => String::new(),
    };
    if found.as_bytes() != expected {
        let text = "the checkpoint's files are not what they were when it was closed";
        return Err(StoreError::Damaged(text.into()));
    }
    io("open the seal", durable::remove_file(&path))
}
