//! How a data directory is created, verified and opened.
//!
//! lock → format → high-water → scan of the files → engine, on what the scan approved → every
//! entry of every group → only now the first change on disk: torn tails kept aside and zeroed.
//!
//! A refused directory is left exactly as it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use raft_engine::{Config, ReadableSize, RecoveryMode};

use crate::caught::caught;
use crate::codec::Salt;
use crate::durable;
use crate::error::{Damage, OpenError};
use crate::format;
use crate::group::Group;
use crate::high_water::{HIGH_WATER_FILE, HighWater, Water};
use crate::log::Engine;
use crate::log::files::LogFiles;
use crate::log::reader::Reader;
use crate::log::scan::{self, Cut, Scan};
use crate::log::verify::{self, Verified};
use crate::options::StoreOptions;
use crate::types::{GroupId, Identity};

pub(crate) const LOG_DIR: &str = "log";
pub(crate) const SPARE_DIR: &str = "spare";
pub(crate) const CUT_DIR: &str = "cut";
pub(crate) const CHECKPOINT_DIR: &str = "checkpoint";
pub(crate) const SNAPSHOT_DIR: &str = "snapshots";
const LOCK_FILE: &str = "LOCK";
/// There while a directory is being created, when losing it costs nothing.
const CREATING_FILE: &str = "creating";
/// There while recovery replaces files.
pub(crate) const RECOVERING_FILE: &str = "recovering";
/// Tails kept aside.
const CUTS_KEPT_MAX: usize = 8;
/// The smallest log file that makes sense.
const LOG_FILE_BYTES_MIN: u64 = 4096;

/// An open directory, threads not yet started.
pub(crate) struct Opened {
    pub lock: File,
    pub identity: Identity,
    pub salt: Salt,
    pub water: Arc<Mutex<HighWater>>,
    pub files: Arc<LogFiles>,
    pub engine: Arc<Engine>,
    pub reader: Reader,
    pub groups: BTreeMap<GroupId, Group>,
    /// Groups of which the engine shows purged entries.
    pub stale: Vec<GroupId>,
    pub last_number: u64,
    pub last_sequence: u64,
}

fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|error| OpenError::io(what, &error))
}

fn check_options(options: &StoreOptions) -> Result<(), OpenError> {
    let refuse = |text: &str| Err(OpenError::Options(text.to_owned()));
    if options.log_file_bytes < LOG_FILE_BYTES_MIN {
        return refuse("log_file_bytes is below 4096");
    }
    if options.log_purge_bytes < options.log_file_bytes {
        return refuse("log_purge_bytes is below log_file_bytes");
    }
    if options.queue_count_max == 0 {
        return refuse("queue_count_max is 0");
    }
    Ok(())
}

/// Locks a data directory against other processes.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let file = io("create the lock", durable::create_file(&dir.join(LOCK_FILE)))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked(dir.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(OpenError::io("lock", &error)),
    }
}

fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut raw = [0; N];
    match getrandom::fill(&mut raw) {
        Ok(()) => Ok(raw),
        Err(error) => {
            Err(OpenError::Io { what: "draw random bytes".into(), reason: error.to_string() })
        }
    }
}

fn is_there(dir: &Path, name: &str) -> bool {
    dir.join(name).exists()
}

/// Creates what a new directory has. The format file comes last.
fn create(options: &StoreOptions) -> Result<(), OpenError> {
    let dir = &options.dir;
    let marker = dir.join(CREATING_FILE);
    io("create a directory", durable::replace_file(&marker, b""))?;
    for name in [LOG_DIR, SPARE_DIR] {
        let path = dir.join(name);
        if path.exists() {
            // Left by a creation that was interrupted: the marker proves that it never worked.
            io("remove a directory", std::fs::remove_dir_all(&path))?;
        }
        io("create a directory", durable::create_dir(&path))?;
    }
    let salt = match options.salt {
        Some(salt) => salt,
        None => u64::from_le_bytes(random()?),
    };
    let identity = match options.identity {
        Some(identity) => identity,
        None => Identity { cluster: random()?, node: 1 },
    };
    let water = Water::new(identity, salt);
    io("create the high-water file", HighWater::create(dir, water))?;
    io("write the format file", format::write(dir, salt))?;
    io("finish creating", durable::remove_file(&marker))
}

/// Reads format and high-water file; creates the directory when it is new.
fn identify(options: &StoreOptions) -> Result<HighWater, OpenError> {
    let dir = &options.dir;
    if is_there(dir, RECOVERING_FILE) {
        let finding = "a recovery was interrupted, run it again";
        return Err(OpenError::damaged(RECOVERING_FILE, finding));
    }
    let salt = match format::read(dir)? {
        Some(salt) => salt,
        None => {
            let parts = [HIGH_WATER_FILE, LOG_DIR, CHECKPOINT_DIR, SNAPSHOT_DIR];
            let is_used = parts.iter().any(|name| is_there(dir, name));
            if is_used && !is_there(dir, CREATING_FILE) {
                return Err(OpenError::damaged(format::FORMAT_FILE, "is missing"));
            }
            create(options)?;
            format::read(dir)?
                .ok_or_else(|| OpenError::damaged(format::FORMAT_FILE, "is missing"))?
        }
    };
    let marker = dir.join(CREATING_FILE);
    io("finish creating", durable::remove_file(&marker))?;
    let high = match HighWater::open(dir) {
        Ok(Some(high)) => high,
        Ok(None) => return Err(OpenError::damaged(HIGH_WATER_FILE, "does not verify")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(OpenError::damaged(HIGH_WATER_FILE, "is missing"));
        }
        Err(error) => return Err(OpenError::io("open the high-water file", &error)),
    };
    if high.water.salt != salt {
        let finding = "belongs to another data directory than the format file";
        return Err(OpenError::damaged(HIGH_WATER_FILE, finding));
    }
    match options.identity {
        Some(expected) if expected != high.water.identity => {
            Err(OpenError::Foreign { found: high.water.identity, expected })
        }
        Some(_) | None => Ok(high),
    }
}

fn engine_config(options: &StoreOptions) -> Config {
    Config {
        dir: options.dir.join(LOG_DIR).to_string_lossy().into_owned(),
        // The scan decided what may be seen; whatever else the engine dislikes is damage.
        recovery_mode: RecoveryMode::AbsoluteConsistency,
        recovery_threads: 1,
        batch_compression_threshold: ReadableSize(0),
        format_version: raft_engine::Version::V2,
        target_file_size: ReadableSize(options.log_file_bytes),
        purge_threshold: ReadableSize(options.log_purge_bytes),
        enable_log_recycle: false,
        prefill_for_recycle: false,
        ..Config::default()
    }
}

fn open_engine(options: &StoreOptions, files: &Arc<LogFiles>) -> Result<Engine, OpenError> {
    let config = engine_config(options);
    let files = files.clone();
    match caught(|| Engine::open_with_file_system(config, files)) {
        Some(Ok(engine)) => Ok(engine),
        Some(Err(error)) => Err(OpenError::damaged(LOG_DIR, error.to_string())),
        None => Err(OpenError::damaged(LOG_DIR, "the log engine panicked")),
    }
}

/// A directory whose log verified; nothing was changed yet.
struct Checked {
    high: Arc<Mutex<HighWater>>,
    files: Arc<LogFiles>,
    engine: Arc<Engine>,
    reader: Reader,
    verified: Verified,
    scan: Scan,
}

fn check(options: &StoreOptions, high: HighWater) -> Result<Checked, OpenError> {
    let dir = &options.dir;
    let water = high.water.clone();
    let found = scan::scan(&dir.join(LOG_DIR), water.salt, &water)?;
    refuse(found.findings)?;
    let scan = found.scan;
    for path in &scan.headless {
        // Nothing was ever in it, and the engine would stumble over it.
        io("remove an empty log file", durable::remove_file(path))?;
    }
    let high = Arc::new(Mutex::new(high));
    let files = LogFiles::new(
        dir.join(LOG_DIR),
        dir.join(SPARE_DIR),
        (options.log_file_bytes, options.reserve_bytes),
        scan.approved.clone(),
        high.clone(),
    );
    let files = Arc::new(io("open the spare files", files)?);
    let engine = Arc::new(open_engine(options, &files)?);
    let reader = io("start the log reader", Reader::start(engine.clone()))?;
    let salt = water.salt;
    let verified = reader
        .run(move |engine| verify::verify(engine, salt, &water))
        .map_err(|error| OpenError::damaged(LOG_DIR, error.to_string()))?;
    Ok(Checked { high, files, engine, reader, verified, scan })
}

/// Says what [`open`] would say, for a directory that is locked already, and lets go of it.
pub(crate) fn examine(options: &StoreOptions) -> Result<(), OpenError> {
    let dir = &options.dir;
    if !is_there(dir, format::FORMAT_FILE) {
        return Err(OpenError::damaged(format::FORMAT_FILE, "is missing"));
    }
    let high = identify(options)?;
    let checked = check(options, high)?;
    let findings = checked.verified.findings;
    checked.reader.stop();
    let engine = checked.engine;
    if caught(|| drop(engine)).is_none() {
        tracing::warn!("closing the examined log panicked");
    }
    refuse(findings)
}

/// Opens and verifies a directory.
pub(crate) fn open(options: &StoreOptions) -> Result<Opened, OpenError> {
    check_options(options)?;
    let dir = &options.dir;
    io("create the directory", std::fs::create_dir_all(dir))?;
    io("sync the directory", durable::create_dir(dir))?;
    let lock = lock(dir)?;
    let high = identify(options)?;
    io("create a directory", durable::create_dir(&dir.join(SPARE_DIR)))?;
    let checked = check(options, high)?;
    if !checked.verified.findings.is_empty() {
        checked.reader.stop();
        return Err(OpenError::Damaged { findings: checked.verified.findings });
    }
    commit(dir, options, &checked.scan)?;
    let (identity, salt) = {
        let mut high = checked.high.lock();
        high.water.clean = false;
        high.water.number = checked.scan.last_number;
        for (group, found) in &checked.verified.groups {
            let facts = high.water.groups.entry(*group).or_default();
            facts.last = found.last;
            facts.purged = found.purged();
            facts.committed = found.committed;
            facts.vote.clone_from(&found.meta.vote);
            facts.meta_sequence = found.meta.sequence;
        }
        io("write the high-water file", high.write_both())?;
        (high.water.identity, high.water.salt)
    };
    io("tidy the spare files", checked.files.opened())?;
    let verified = checked.verified;
    Ok(Opened {
        lock,
        identity,
        salt,
        water: checked.high,
        files: checked.files,
        engine: checked.engine,
        reader: checked.reader,
        groups: verified.groups,
        stale: verified.stale,
        last_number: checked.scan.last_number,
        last_sequence: checked.scan.last_sequence.max(verified.last_sequence),
    })
}

fn refuse(findings: Vec<Damage>) -> Result<(), OpenError> {
    if findings.is_empty() {
        return Ok(());
    }
    Err(OpenError::Damaged { findings })
}

/// Everything verified: zero the torn tails, and write the file that comes next in advance.
fn commit(dir: &Path, options: &StoreOptions, scan: &Scan) -> Result<(), OpenError> {
    for cut in &scan.cuts {
        tracing::warn!(
            file = %cut.path.display(),
            from = cut.from,
            "the log ends in a write that was never completed",
        );
        if let Err(error) = set_aside(dir, cut) {
            // It was never acknowledged; a full disk must not keep the node from starting.
            tracing::warn!(%error, "a torn tail was not kept aside");
        }
        let file = io("open a log file", durable::open_file(&cut.path))?;
        io("zero a torn tail", durable::write_zeros(&file, cut.from, cut.to))?;
    }
    for path in scan.approved.keys() {
        // What a killed process wrote may be readable and not yet durable.
        let file = io("open a log file", durable::open_file(path))?;
        io("sync a log file", file.sync_all())?;
    }
    let Some(path) = &scan.last_append else {
        return Ok(());
    };
    let file = io("open a log file", durable::open_file(path))?;
    let size = io("look at a log file", file.metadata())?.len();
    if size < options.log_file_bytes
        && let Err(error) = durable::write_zeros(&file, size, options.log_file_bytes)
    {
        // A full disk: the file grows as it is written, slower but just as safe.
        tracing::warn!(%error, "a log file could not be written in advance");
        io("shorten a log file", file.set_len(size))?;
    }
    Ok(())
}

/// Keeps what is about to be cut.
fn set_aside(dir: &Path, cut: &Cut) -> std::io::Result<()> {
    let aside = dir.join(CUT_DIR);
    durable::create_dir(&aside)?;
    let raw = std::fs::read(&cut.path)?;
    let tail = raw.get(cut.from as usize..).unwrap_or(&[]);
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let name = cut.path.file_name().unwrap_or(cut.path.as_os_str());
    let target = aside.join(format!("{}.from-{}", name.to_string_lossy(), cut.from));
    durable::replace_file(&target, &tail[..used])?;
    drop_oldest(&aside)
}

fn drop_oldest(aside: &Path) -> std::io::Result<()> {
    let mut kept: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(aside)? {
        let entry = entry?;
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    kept.sort();
    let excess = kept.len().saturating_sub(CUTS_KEPT_MAX);
    for (_, path) in &kept[..excess] {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
