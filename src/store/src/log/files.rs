//! The files under the log engine: prewritten, never truncated behind our back, failing once.
//!
//! Invariants:
//! - While the engine opens, nothing is truncated and no file shows more than the scan approved:
//!   what lies behind is invisible to the engine and untouched on disk.
//! - A new append file is full of synced zeros before the engine sees it, so a sync during
//!   normal work changes no metadata, and whatever is not zero behind the end of the log was
//!   written there. When the disk is too full for that, the file starts empty.
//! - Before a file is removed, the high-water file says that it may be missing.
//! - After one failed write or sync everything fails.
//!
//! The engine's own recycling and prefilling are off; spare files live in a directory of ours.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use crate::durable;
use crate::durations::Durations;
use crate::high_water::HighWater;

/// Zeroed files kept for the next rotation.
const SPARES_MAX: usize = 2;
const SPARE_READY: &str = "zero";
const SPARE_UNREADY: &str = "unready";

/// The two queues of the engine: what is appended, and what it moved out of old files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Queue {
    Append,
    Rewrite,
}

/// Tells queue and number from a log file's name.
pub(crate) fn parse_name(path: &Path) -> Option<(Queue, u64)> {
    let name = path.file_name()?.to_str()?;
    let (digits, extension) = name.split_once('.')?;
    let queue = match extension {
        "raftlog" => Queue::Append,
        "rewrite" => Queue::Rewrite,
        _ => return None,
    };
    if digits.len() != 16 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((queue, digits.parse().ok()?))
}

/// What all open files share: the counters, and whether one of them failed.
#[derive(Default)]
pub(crate) struct Health {
    failure: Mutex<Option<String>>,
    failed: AtomicBool,
    pub syncs: AtomicU64,
    pub bytes: AtomicU64,
    /// How long the syncs took.
    pub sync_times: Durations,
    /// Makes the next sync fail, for tests of what happens then.
    pub fail_next_sync: AtomicBool,
}

impl Health {
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write or sync failed"));
        }
        Ok(())
    }

    fn failed<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.failed.store(true, Ordering::Release);
            let mut failure = self.failure.lock();
            failure.get_or_insert_with(|| format!("{what}: {error}"));
        }
        result
    }
}

/// An open log file.
pub(crate) struct LogHandle {
    file: File,
    queue: Queue,
    /// The size the engine is shown, when the scan approved less than there is.
    shown: Option<u64>,
    opening: Arc<AtomicBool>,
    health: Arc<Health>,
}

impl LogHandle {
    fn cut(&self, to: u64) -> io::Result<()> {
        if self.opening.load(Ordering::Acquire) {
            return Err(io::Error::other("refused to truncate a log while opening"));
        }
        self.health.check()?;
        let result = self.file.set_len(to);
        self.health.failed("truncate a log file", result)
    }
}

impl Handle for LogHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.cut(offset as u64)
    }

    fn file_size(&self) -> io::Result<usize> {
        match self.shown {
            Some(size) => Ok(size as usize),
            None => Ok(self.file.metadata()?.len() as usize),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.health.check()?;
        if self.health.fail_next_sync.swap(false, Ordering::AcqRel) {
            let injected = Err(io::Error::other("injected"));
            return self.health.failed("sync a log file", injected);
        }
        let begun = Instant::now();
        let result = self.file.sync_data();
        if self.queue == Queue::Append {
            self.health.sync_times.note(begun.elapsed());
            self.health.syncs.fetch_add(1, Ordering::Relaxed);
        }
        self.health.failed("sync a log file", result)
    }
}

/// A position in an open log file.
pub(crate) struct LogCursor {
    handle: Arc<LogHandle>,
    at: u64,
}

impl Read for LogCursor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.handle.file.read_at(into, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Write for LogCursor {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let health = &self.handle.health;
        health.check()?;
        let result = self.handle.file.write_all_at(from, self.at);
        if let Err(error) = &result
            && self.handle.queue == Queue::Rewrite
            && error.kind() == io::ErrorKind::StorageFull
        {
            // Copies of what the append queue still has: moving them can wait for space.
            return result.map(|()| 0);
        }
        health.failed("write to a log file", result)?;
        if self.handle.queue == Queue::Append {
            health.bytes.fetch_add(from.len() as u64, Ordering::Relaxed);
        }
        self.at += from.len() as u64;
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for LogCursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.handle.file_size()? as u64).checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::other("seek before the start of a file"))?;
        Ok(self.at)
    }
}

impl WriteExt for LogCursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.handle.cut(offset as u64)?;
        self.at = offset as u64;
        Ok(())
    }

    /// Files are written in advance, or the disk is too full for that: nothing to do.
    fn allocate(&mut self, _offset: usize, _size: usize) -> io::Result<()> {
        Ok(())
    }
}

/// The file system the engine works on.
pub(crate) struct LogFiles {
    log_dir: PathBuf,
    spare_dir: PathBuf,
    file_bytes: u64,
    reserve_bytes: u64,
    opening: Arc<AtomicBool>,
    /// What the scan approved, until the engine is open.
    approved: Mutex<BTreeMap<PathBuf, u64>>,
    water: Arc<Mutex<HighWater>>,
    pub health: Arc<Health>,
    /// One thread at a time handles spare files; the number names the next.
    spares: Mutex<u64>,
}

impl LogFiles {
    pub fn new(
        log_dir: PathBuf,
        spare_dir: PathBuf,
        (file_bytes, reserve_bytes): (u64, u64),
        approved: BTreeMap<PathBuf, u64>,
        water: Arc<Mutex<HighWater>>,
    ) -> io::Result<LogFiles> {
        let numbers = spare_files(&spare_dir)?.into_iter().filter_map(|path| {
            let stem = path.file_stem()?.to_str()?;
            stem.parse::<u64>().ok()
        });
        let next = numbers.max().map_or(0, |last| last.saturating_add(1));
        Ok(LogFiles {
            log_dir,
            spare_dir,
            file_bytes,
            reserve_bytes,
            opening: Arc::new(AtomicBool::new(true)),
            approved: Mutex::new(approved),
            water,
            health: Arc::new(Health::default()),
            spares: Mutex::new(next),
        })
    }

    /// The engine is open and everything it showed was verified: writing may begin.
    pub fn opened(&self) -> io::Result<()> {
        self.approved.lock().clear();
        self.opening.store(false, Ordering::Release);
        for path in spare_files(&self.spare_dir)? {
            if path.extension().is_some_and(|e| e == SPARE_UNREADY) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn handle(&self, file: File, path: &Path) -> LogHandle {
        let queue = parse_name(path).map_or(Queue::Rewrite, |(queue, _)| queue);
        LogHandle {
            file,
            queue,
            shown: self.approved.lock().get(path).copied(),
            opening: self.opening.clone(),
            health: self.health.clone(),
        }
    }

    /// Keeps a zeroed file ready for the next rotation, unless the disk is nearly full.
    pub fn refill_spares(&self) -> io::Result<()> {
        let mut next = self.spares.lock();
        if ready_spare(&self.spare_dir)?.is_some() {
            return Ok(());
        }
        if durable::free_bytes(&self.spare_dir)? < self.reserve_bytes + self.file_bytes {
            return Ok(());
        }
        let unready = self.spare_dir.join(format!("{next}.{SPARE_UNREADY}"));
        *next += 1;
        self.make_ready(&unready)
    }

    fn make_ready(&self, unready: &Path) -> io::Result<()> {
        let file = durable::create_file(unready)?;
        if let Err(error) = durable::write_zeros(&file, 0, self.file_bytes) {
            tracing::info!(%error, "no room for a spare log file");
            return durable::remove_file(unready);
        }
        file.set_len(self.file_bytes)?;
        file.sync_all()?;
        std::fs::rename(unready, unready.with_extension(SPARE_READY))?;
        durable::sync_dir(&self.spare_dir)
    }

    fn create_append(&self, path: &Path) -> io::Result<File> {
        if let Some(mut next) = self.spares.try_lock()
            && let Some(spare) = ready_spare(&self.spare_dir)?
        {
            std::fs::rename(&spare, path)?;
            durable::sync_dir(&self.spare_dir)?;
            durable::sync_dir(&self.log_dir)?;
            *next += 1;
            return durable::open_file(path);
        }
        let file = durable::create_file(path)?;
        file.set_len(0)?;
        if let Err(error) = durable::write_zeros(&file, 0, self.file_bytes) {
            tracing::warn!(%error, "a log file could not be written in advance");
            file.set_len(0)?;
        }
        file.sync_all()?;
        durable::sync_dir(&self.log_dir)?;
        Ok(file)
    }

    fn retire(&self, path: &Path) -> io::Result<()> {
        let named = parse_name(path);
        if let Some((queue, seq)) = named {
            let mut water = self.water.lock();
            let first = match queue {
                Queue::Append => &mut water.water.first_append,
                Queue::Rewrite => &mut water.water.first_rewrite,
            };
            *first = (*first).max(seq + 1);
            water.write()?;
        }
        let mut next = self.spares.lock();
        let reusable = named.is_some_and(|(queue, _)| queue == Queue::Append)
            && spare_files(&self.spare_dir)?.len() < SPARES_MAX;
        if !reusable {
            return durable::remove_file(path);
        }
        let unready = self.spare_dir.join(format!("{next}.{SPARE_UNREADY}"));
        *next += 1;
        std::fs::rename(path, &unready)?;
        // Both: a rename between directories that one of them forgets puts the file back, and by
        // then it must still be what it was.
        durable::sync_dir(&self.spare_dir)?;
        durable::sync_dir(&self.log_dir)?;
        self.make_ready(&unready)
    }
}

fn spare_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
        Err(error) => return Err(error),
    };
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn ready_spare(dir: &Path) -> io::Result<Option<PathBuf>> {
    let paths = spare_files(dir)?;
    Ok(paths.into_iter().find(|path| path.extension().is_some_and(|e| e == SPARE_READY)))
}

impl FileSystem for LogFiles {
    type Handle = LogHandle;
    type Reader = LogCursor;
    type Writer = LogCursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogHandle> {
        let path = path.as_ref();
        self.health.check()?;
        let created = match parse_name(path) {
            Some((Queue::Append, _)) => self.create_append(path),
            Some((Queue::Rewrite, _)) | None => durable::create_file(path).and_then(|file| {
                durable::sync_dir(&self.log_dir)?;
                Ok(file)
            }),
        };
        let file = self.health.failed("create a log file", created)?;
        Ok(self.handle(file, path))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<LogHandle> {
        let path = path.as_ref();
        let file = match permission {
            Permission::ReadOnly => File::open(path)?,
            Permission::ReadWrite => durable::open_file(path)?,
        };
        Ok(self.handle(file, path))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        if self.opening.load(Ordering::Acquire) {
            return Err(io::Error::other("refused to delete a log while opening"));
        }
        self.health.check()?;
        let retired = self.retire(path.as_ref());
        self.health.failed("retire a log file", retired)
    }

    fn rename<P: AsRef<Path>>(&self, _from: P, _to: P) -> io::Result<()> {
        Err(io::Error::other("log files are not renamed"))
    }

    fn new_reader(&self, handle: Arc<LogHandle>) -> io::Result<LogCursor> {
        Ok(LogCursor { handle, at: 0 })
    }

    fn new_writer(&self, handle: Arc<LogHandle>) -> io::Result<LogCursor> {
        Ok(LogCursor { handle, at: 0 })
    }
}
