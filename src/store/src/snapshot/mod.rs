//! Snapshots: whole states of a group in plain, checksummed files.
//!
//! written beside → `fdatasync` → renamed → directory synced → read back and verified → only
//! then listed. The newest two that verify are kept. One writer or receiver per group and id at
//! a time.

pub(crate) mod file;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::durable;
use crate::error::StoreError;
use crate::open::SNAPSHOT_DIR;
use crate::shared::Shared;
use crate::types::GroupId;
use file::{Builder, Walker};

/// How many verified snapshots are kept.
const KEPT: usize = 2;
/// The most bytes of a snapshot's id.
const ID_BYTES_MAX: usize = 100;
/// The most bytes of one raw read.
const RAW_BYTES_MAX: u64 = 16 * 1024 * 1024;

const COMPLETE: &str = "snap";
const WRITING: &str = "tmp";
const PARTIAL: &str = "part";
const DAMAGED: &str = "damaged";

/// A snapshot that was read back and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The name its creator gave it.
    pub id: String,
    /// What its creator said about it.
    pub meta: Bytes,
    /// How many records it has.
    pub records: u64,
    /// The size of its file, which is what is sent to others.
    pub bytes: u64,
}

/// The snapshots of one group. Calls wait for the disk.
#[derive(Clone)]
pub struct Snapshots {
    shared: Arc<Shared>,
    group: GroupId,
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

fn hex(id: &str) -> String {
    id.bytes().map(|byte| format!("{byte:02x}")).collect()
}

impl Snapshots {
    pub(crate) fn new(shared: Arc<Shared>, group: GroupId) -> Snapshots {
        Snapshots { shared, group }
    }

    fn dir(&self) -> PathBuf {
        let dir = self.shared.dir.join(SNAPSHOT_DIR);
        dir.join(self.group.0.to_string())
    }

    /// Writing failed: out of space is the caller's to handle, anything else ends the store.
    fn io<T>(&self, what: &str, result: std::io::Result<T>) -> Result<T, StoreError> {
        let result = result.map_err(|error| StoreError::io(what, &error));
        if let Err(StoreError::Io { what, reason }) = &result {
            self.shared.fail(&format!("{what}: {reason}"));
        }
        result
    }

    fn prepared_dir(&self, id: &str) -> Result<PathBuf, StoreError> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(StoreError::Invalid(format!("a snapshot id of {} bytes", id.len())));
        }
        let dir = self.dir();
        let above = self.shared.dir.join(SNAPSHOT_DIR);
        let created = durable::create_dir(&above).and_then(|()| durable::create_dir(&dir));
        self.io("create a snapshot directory", created)?;
        Ok(dir)
    }

    fn files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let entries = match std::fs::read_dir(self.dir()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("list snapshots", &error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| StoreError::io("list snapshots", &error))?;
            files.push(entry.path());
        }
        // Names begin with a number of fixed width that grows.
        files.sort();
        Ok(files)
    }

    fn next_name(&self, id: &str) -> Result<String, StoreError> {
        let numbers = self.files()?.into_iter().filter_map(|path| {
            let stem = path.file_stem()?.to_str()?;
            stem.get(..16)?.parse::<u64>().ok()
        });
        let next = numbers.max().map_or(1, |last| last.saturating_add(1));
        Ok(format!("{next:016}-{}.{COMPLETE}", hex(id)))
    }

    /// Begins a snapshot. What an earlier writer of this group left unfinished is removed.
    pub fn create(&self, id: &str) -> Result<SnapshotWriter, StoreError> {
        let dir = self.prepared_dir(id)?;
        for path in self.files()? {
            if has_extension(&path, WRITING) {
                self.io("remove a snapshot", durable::remove_file(&path))?;
            }
        }
        let path = dir.join(format!("{}.{WRITING}", hex(id)));
        let (builder, head) = Builder::new(self.group, id);
        let file = self.io("create a snapshot", durable::create_file(&path))?;
        let mut writer = SnapshotWriter {
            snapshots: self.clone(),
            id: id.to_owned(),
            path: Some(path),
            file: BufWriter::new(file),
            builder: Some(builder),
        };
        writer.write(&head)?;
        Ok(writer)
    }

    fn verified(&self) -> Result<Vec<(PathBuf, SnapshotInfo)>, StoreError> {
        let mut verified = Vec::new();
        for path in self.files()?.into_iter().rev() {
            if !has_extension(&path, COMPLETE) {
                continue;
            }
            let known = self.shared.snapshots.lock().get(&path).cloned();
            if let Some(info) = known {
                verified.push((path, info));
                continue;
            }
            match File::open(&path).and_then(|file| file::verify(file, self.group)) {
                Ok(info) => {
                    self.shared.snapshots.lock().insert(path.clone(), info.clone());
                    verified.push((path, info));
                }
                Err(error) => {
                    let path = path.display();
                    tracing::error!(%path, %error, "a snapshot is damaged and not used");
                    let aside = self.dir().join(format!("{path}.{DAMAGED}"));
                    if let Err(error) = std::fs::rename(path.to_string(), aside) {
                        tracing::warn!(%error, "a damaged snapshot was not renamed");
                    }
                }
            }
        }
        Ok(verified)
    }

    /// The snapshots that verify, newest first. Each is read in full the first time.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, StoreError> {
        Ok(self.verified()?.into_iter().map(|(_, info)| info).collect())
    }

    /// Opens a verified snapshot for reading. `None`: there is none of that name.
    pub fn open(&self, id: &str) -> Result<Option<SnapshotReader>, StoreError> {
        let found = self.verified()?.into_iter().find(|(_, info)| info.id == id);
        let Some((path, info)) = found else {
            return Ok(None);
        };
        let failed = |error: std::io::Error| StoreError::io("open a snapshot", &error);
        let raw = File::open(&path).map_err(failed)?;
        let (walker, _) = Walker::open(File::open(&path).map_err(failed)?, self.group)
            .map_err(|error| StoreError::Damaged(format!("snapshot {id}: {error}")))?;
        Ok(Some(SnapshotReader { info, walker, raw }))
    }

    /// Begins or resumes receiving a snapshot from another node. A group receives one at a time: what
    /// arrived of another one is given up.
    pub fn receive(&self, id: &str) -> Result<SnapshotReceiver, StoreError> {
        let path = self.prepared_dir(id)?.join(format!("{}.{PARTIAL}", hex(id)));
        for other in self.files()? {
            if has_extension(&other, PARTIAL) && other != path {
                self.io("remove a snapshot", durable::remove_file(&other))?;
            }
        }
        let file = self.io("create a snapshot", durable::create_file(&path))?;
        let received = self.io("look at a snapshot", file.metadata())?.len();
        Ok(SnapshotReceiver { snapshots: self.clone(), id: id.to_owned(), path, file, received })
    }

    /// Removes every file of the group, finished or not.
    pub fn remove_all(&self) -> Result<(), StoreError> {
        for path in self.files()? {
            self.shared.snapshots.lock().remove(&path);
            self.io("remove a snapshot", durable::remove_file(&path))?;
        }
        Ok(())
    }

    /// Syncs a complete file, verifies what the disk has of it, gives it its name, and removes
    /// those it replaces.
    fn publish(&self, id: &str, path: &Path, file: &File) -> Result<SnapshotInfo, StoreError> {
        self.io("sync a snapshot", file.sync_all())?;
        durable::forget_cache(file);
        let checked = File::open(path).and_then(|file| file::verify(file, self.group));
        let info = match checked {
            Ok(info) if info.id == id => info,
            Ok(info) => {
                let text = format!("snapshot {id} says that it is {}", info.id);
                return Err(StoreError::Damaged(text));
            }
            Err(error) => return Err(StoreError::Damaged(format!("snapshot {id}: {error}"))),
        };
        let target = self.dir().join(self.next_name(id)?);
        let renamed = std::fs::rename(path, &target).and_then(|()| durable::sync_dir(&self.dir()));
        self.io("rename a snapshot", renamed)?;
        self.shared.snapshots.lock().insert(target.clone(), info.clone());
        self.shared.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        self.drop_replaced(&target, id)?;
        Ok(info)
    }

    fn drop_replaced(&self, newest: &Path, id: &str) -> Result<(), StoreError> {
        let mut kept = 0;
        for (path, info) in self.verified()? {
            let is_again = path != newest && info.id == id;
            if kept < KEPT && !is_again {
                kept += 1;
                continue;
            }
            self.shared.snapshots.lock().remove(&path);
            self.io("remove a snapshot", durable::remove_file(&path))?;
        }
        if kept < KEPT {
            return Ok(());
        }
        // With two good ones the damaged are of no use any more.
        for path in self.files()? {
            if has_extension(&path, DAMAGED) {
                self.io("remove a snapshot", durable::remove_file(&path))?;
            }
        }
        Ok(())
    }
}

/// A snapshot being written. Dropped without [`Self::finish`] it leaves nothing.
pub struct SnapshotWriter {
    snapshots: Snapshots,
    id: String,
    path: Option<PathBuf>,
    file: BufWriter<File>,
    builder: Option<Builder>,
}

impl SnapshotWriter {
    fn write(&mut self, raw: &[u8]) -> Result<(), StoreError> {
        let written = self.file.write_all(raw);
        self.snapshots.io("write a snapshot", written)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when the disk is full: drop the writer and try later.
    pub fn put(&mut self, record: &[u8]) -> Result<(), StoreError> {
        if record.len() > file::RECORD_BYTES_MAX {
            return Err(StoreError::Invalid(format!("a record of {} bytes", record.len())));
        }
        let full = self.builder.as_mut().and_then(|builder| builder.put(record));
        match full {
            Some(chunk) => self.write(&chunk),
            None => Ok(()),
        }
    }

    /// Makes it durable, reads it back and verifies it, and drops all but the newest two.
    pub fn finish(mut self, meta: &[u8]) -> Result<SnapshotInfo, StoreError> {
        if let Some(builder) = self.builder.take() {
            self.write(&builder.finish(meta))?;
        }
        let flushed = self.file.flush();
        self.snapshots.io("write a snapshot", flushed)?;
        let Some(path) = self.path.clone() else {
            return Err(StoreError::Closed);
        };
        let info = self.snapshots.publish(&self.id, &path, self.file.get_ref())?;
        self.path = None;
        Ok(info)
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = durable::remove_file(&path)
        {
            tracing::warn!(%error, "an unfinished snapshot was not removed");
        }
    }
}

/// An open snapshot. It stays readable when newer ones replace it.
pub struct SnapshotReader {
    info: SnapshotInfo,
    walker: Walker<File>,
    raw: File,
}

impl SnapshotReader {
    /// What it is.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// The next record; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, StoreError> {
        let id = &self.info.id;
        self.walker
            .next_record()
            .map_err(|error| StoreError::Damaged(format!("snapshot {id}: {error}")))
    }

    /// Raw bytes of the file, to send to another node: at most `bytes_max` from `offset`, empty
    /// at the end.
    pub fn read_raw(&self, offset: u64, bytes_max: u64) -> Result<Bytes, StoreError> {
        let left = self.info.bytes.saturating_sub(offset);
        let mut piece = vec![0; bytes_max.min(left).min(RAW_BYTES_MAX) as usize];
        self.raw
            .read_exact_at(&mut piece, offset)
            .map_err(|error| StoreError::io("read a snapshot", &error))?;
        Ok(Bytes::from(piece))
    }
}

/// A snapshot being received. What arrived stays when this is dropped, to be resumed.
pub struct SnapshotReceiver {
    snapshots: Snapshots,
    id: String,
    path: PathBuf,
    file: File,
    received: u64,
}

impl SnapshotReceiver {
    /// How many bytes are here: the offset to go on from.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the bytes at `offset`, which must be [`Self::received`], or 0 to start over.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if offset == 0 && self.received > 0 {
            self.snapshots.io("restart a snapshot", self.file.set_len(0))?;
            self.received = 0;
        }
        if offset != self.received {
            let text = format!("offset {offset} where {} comes next", self.received);
            return Err(StoreError::Invalid(text));
        }
        let written = self.file.write_all_at(bytes, offset);
        self.snapshots.io("write a snapshot", written)?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Verifies it and makes it durable. One that does not verify is removed: receive it again
    /// from the start.
    pub fn finish(self) -> Result<SnapshotInfo, StoreError> {
        let published = self.snapshots.publish(&self.id, &self.path, &self.file);
        if let Err(StoreError::Damaged(_)) = &published {
            let removed = durable::remove_file(&self.path);
            self.snapshots.io("remove a snapshot", removed)?;
        }
        published
    }
}
