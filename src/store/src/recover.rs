//! What can be kept of a damaged data directory, and keeping it.
//!
//! Independent of the engine: every file of the log is searched for records that verify by
//! themselves; the newest metadata of each group and the longest chain of entries from its purge
//! mark are kept. Votes come from the log or the high-water file, whichever is newer, so a vote
//! is never forgotten while one of the two survives.
//!
//! [`RecoverMode::Inspect`] changes nothing. [`RecoverMode::AcceptLoss`] writes a new log beside
//! the old one, then moves the old one to `damaged-N`; interrupted, it goes on when run again.
//! Checkpoints and snapshots are left alone: what does not verify there is rebuilt or unused
//! anyway. A checkpoint may then be ahead of the log, which is for the store's user to settle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::codec::Salt;
use crate::durable;
use crate::error::{Damage, OpenError, StoreError};
use crate::format::{self, FORMAT_FILE};
use crate::high_water::{GroupWater, HIGH_WATER_FILE, HighWater};
use crate::log::verify::chain_start;
use crate::open::{self, LOG_DIR, RECOVERING_FILE};
use crate::options::StoreOptions;
use crate::record::{EntryRecord, Meta, Record, digest};
use crate::store::Store;
use crate::types::{Done, Entry, GroupId, Identity, Mark};

const NEW_DIR: &str = "recovered";
/// Small: the files are completed to their usual size when the directory is opened.
const LOG_FILE_BYTES: u64 = 256 * 1024;
/// Entries written at once.
const ENTRIES_AT_ONCE: usize = 256;

/// How [`Store::recover`] treats what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverMode {
    /// Look and report; change nothing.
    Inspect,
    /// Make the directory open again with what is left. What is lost is lost.
    AcceptLoss,
}

/// What one group keeps and loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The last entry known to have been durable.
    pub durable: Option<Mark>,
    /// The last entry that can be kept.
    pub kept: Option<Mark>,
    /// The last purged entry.
    pub purged: Option<Mark>,
}

impl GroupReport {
    /// Entries known to have been durable that are lost, at least.
    pub fn lost(&self) -> u64 {
        let end = |mark: Option<Mark>| mark.map_or(0, |mark| mark.index.saturating_add(1));
        end(self.durable).saturating_sub(end(self.kept))
    }
}

/// What [`Store::recover`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// What is wrong; empty when the directory opens as it is.
    pub findings: Vec<Damage>,
    /// Per group, what can be kept.
    pub groups: Vec<GroupReport>,
    /// Why accepting the loss is not possible, if it is not.
    pub hopeless: Option<String>,
    /// Whether the directory was changed.
    pub changed: bool,
}

#[derive(Default)]
struct Salvaged {
    meta: Meta,
    /// Every version of every entry.
    versions: BTreeMap<u64, Vec<EntryRecord>>,
    water: GroupWater,
}

struct Kept {
    meta: Meta,
    start: Option<Mark>,
    entries: Vec<Entry>,
}

fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|error| OpenError::io(what, &error))
}

impl Store {
    /// Says what is wrong with a directory that no process has open and, when asked, makes it
    /// open again with what is left.
    ///
    /// # Errors
    /// When the directory is in use or cannot be read or written; damage is in the report.
    pub fn recover(dir: &Path, mode: RecoverMode) -> Result<RecoveryReport, OpenError> {
        let lock = open::lock(dir)?;
        if dir.join(RECOVERING_FILE).exists() {
            return resume(dir, mode);
        }
        let findings = inspect(dir)?;
        let (salt, high) = match identify(dir) {
            Ok(known) => known,
            Err(why) => {
                return Ok(RecoveryReport {
                    findings,
                    groups: Vec::new(),
                    hopeless: Some(why),
                    changed: false,
                });
            }
        };
        let identity = high.as_ref().map(|high| high.water.identity);
        let salvaged = salvage(dir, salt, high)?;
        let mut reports = Vec::new();
        let mut kept = BTreeMap::new();
        for (group, found) in salvaged {
            let durable = found.water.last;
            let best = longest_chain(found);
            reports.push(GroupReport {
                group,
                durable,
                kept: best.entries.last().map(|e| e.mark).or(best.start),
                purged: best.start,
            });
            kept.insert(group, best);
        }
        let mut report = RecoveryReport {
            hopeless: identity
                .is_none()
                .then(|| "the high-water file, which says whose votes these are, is lost".into()),
            findings,
            groups: reports,
            changed: false,
        };
        if let (RecoverMode::AcceptLoss, Some(identity)) = (mode, identity)
            && !report.findings.is_empty()
        {
            rebuild(dir, identity, salt, &kept)?;
            replace(dir)?;
            report.changed = true;
        }
        drop(lock);
        Ok(report)
    }
}

/// What opening says; opening a directory that is refused changes nothing in it.
fn inspect(dir: &Path) -> Result<Vec<Damage>, OpenError> {
    match open::examine(&StoreOptions::new(dir)) {
        Ok(()) => Ok(Vec::new()),
        Err(OpenError::Damaged { findings }) => Ok(findings),
        Err(other) => Err(other),
    }
}

/// Salt and high-water file, each from where it survives.
fn identify(dir: &Path) -> Result<(Salt, Option<HighWater>), String> {
    let high = HighWater::open(dir).ok().flatten();
    let salt = format::read(dir).ok().flatten();
    match (salt, &high) {
        (Some(salt), _) => Ok((salt, high)),
        (None, Some(known)) => Ok((known.water.salt, high)),
        (None, None) => Err("neither the format nor the high-water file verifies".into()),
    }
}

fn salvage(
    dir: &Path,
    salt: Salt,
    high: Option<HighWater>,
) -> Result<BTreeMap<GroupId, Salvaged>, OpenError> {
    let mut groups: BTreeMap<GroupId, Salvaged> = BTreeMap::new();
    for path in files_of(&dir.join(LOG_DIR))? {
        let raw = io("read a log file", std::fs::read(&path))?;
        for (_, record) in Record::find_all(salt, &raw) {
            match record {
                Record::Entry(entry) => {
                    let group = groups.entry(entry.group).or_default();
                    let versions = group.versions.entry(entry.mark.index).or_default();
                    if !versions.contains(&entry) {
                        versions.push(entry);
                    }
                }
                Record::Meta(found) => {
                    let group = groups.entry(found.group).or_default();
                    if found.meta.sequence > group.meta.sequence {
                        group.meta = found.meta;
                    }
                }
                Record::Batch(_) => {}
            }
        }
    }
    let waters = high.map(|high| high.water.groups).unwrap_or_default();
    // A group the high-water file does not know was removed, or never finished its first write.
    groups.retain(|group, _| waters.is_empty() || waters.contains_key(group));
    for (group, water) in waters {
        let found = groups.entry(group).or_default();
        if water.meta_sequence > found.meta.sequence {
            found.meta.vote.clone_from(&water.vote);
            let purged = found.meta.purged.map(|(mark, _)| mark.index);
            if let Some(mark) = water.purged.filter(|mark| Some(mark.index) > purged) {
                found.meta.purged = Some((mark, purge_digest(found, &mark)));
            }
        }
        found.water = water;
    }
    Ok(groups)
}

/// The digest at a purge mark the log lost: that of the entry, if a copy of it survives.
fn purge_digest(found: &Salvaged, mark: &Mark) -> u32 {
    let versions = found.versions.get(&mark.index).into_iter().flatten();
    let same = versions.into_iter().find(|entry| entry.mark == *mark);
    same.map_or_else(|| crate::record::digest_after_reset(mark), |entry| entry.digest)
}

fn files_of(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut paths = Vec::new();
    if !dir.exists() {
        return Ok(paths);
    }
    for entry in io("list the log", std::fs::read_dir(dir))? {
        let path = io("list the log", entry)?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The entries that follow one another from the purge mark, the newest version of each.
fn longest_chain(found: Salvaged) -> Kept {
    let (start, mut last_digest) = chain_start(&found.meta);
    let first = match start {
        Some(mark) => mark.index.saturating_add(1),
        None => found.versions.keys().next().copied().unwrap_or(0),
    };
    let mut entries = Vec::new();
    for (expected, (index, mut versions)) in (first..)
        .zip(found.versions.range(first..))
        .map(|(expected, (index, versions))| (expected, (*index, versions.clone())))
    {
        if index != expected {
            break;
        }
        versions.sort_by_key(|entry| std::cmp::Reverse(entry.sequence));
        let next = versions.into_iter().find(|entry| {
            let hidden = found
                .meta
                .tail
                .is_some_and(|tail| index >= tail.index && entry.sequence < tail.sequence);
            !hidden && entry.digest == digest(last_digest, &entry.mark, entry.data_crc)
        });
        let Some(next) = next else {
            break;
        };
        last_digest = next.digest;
        entries.push(Entry { mark: next.mark, data: next.data });
    }
    Kept { meta: found.meta, start, entries }
}

/// Writes a new store beside the damaged one.
fn rebuild(
    dir: &Path,
    identity: Identity,
    salt: Salt,
    kept: &BTreeMap<GroupId, Kept>,
) -> Result<(), OpenError> {
    let new = dir.join(NEW_DIR);
    if new.exists() {
        io("remove an unfinished recovery", std::fs::remove_dir_all(&new))?;
    }
    let mut options = StoreOptions::new(&new);
    options.identity = Some(identity);
    // The checkpoint stays, and is recognised by it.
    options.salt = Some(salt);
    options.log_file_bytes = LOG_FILE_BYTES;
    let store = Store::open(options)?;
    for (group, kept) in kept {
        if let Some(mark) = kept.start {
            wait(|done| store.purge_to(*group, mark, done))?;
        }
        for piece in kept.entries.chunks(ENTRIES_AT_ONCE) {
            wait(|done| store.append(*group, piece.to_vec(), done))?;
        }
        if let Some(vote) = kept.meta.vote.clone() {
            wait(|done| store.save_vote(*group, vote, done))?;
        }
        if let Some(extra) = kept.meta.extra.clone() {
            wait(|done| store.save_extra(*group, extra, done))?;
        }
    }
    store.close().map_err(failed)
}

fn failed(error: StoreError) -> OpenError {
    OpenError::Io { what: "write the recovered log".into(), reason: error.to_string() }
}

fn wait(request: impl FnOnce(Done)) -> Result<(), OpenError> {
    let (answer, outcome) = std::sync::mpsc::sync_channel(1);
    request(Box::new(move |result| {
        // The receiver waits below.
        let _sent = answer.send(result);
    }));
    match outcome.recv() {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(StoreError::Closed)),
    }
}

/// Swaps the new log in. Every step may be repeated.
fn replace(dir: &Path) -> Result<(), OpenError> {
    let marker = dir.join(RECOVERING_FILE);
    io("mark the recovery", durable::replace_file(&marker, b""))?;
    let aside = free_name(dir);
    io("create a directory", durable::create_dir(&aside))?;
    let new = dir.join(NEW_DIR);
    for name in [LOG_DIR, HIGH_WATER_FILE, FORMAT_FILE] {
        if !new.join(name).exists() {
            continue;
        }
        if dir.join(name).exists() {
            io("move a damaged file", std::fs::rename(dir.join(name), aside.join(name)))?;
        }
        io("move a recovered file", std::fs::rename(new.join(name), dir.join(name)))?;
        io("sync a directory", durable::sync_dir(dir))?;
    }
    io("remove what is left", std::fs::remove_dir_all(&new))?;
    io("finish the recovery", durable::remove_file(&marker))
}

fn free_name(dir: &Path) -> PathBuf {
    let names = (1u32..).map(|number| dir.join(format!("damaged-{number}")));
    let mut free = names.filter(|path| !path.exists());
    // The numbers do not run out before the disk does.
    free.next().unwrap_or_else(|| dir.join("damaged"))
}

/// An earlier recovery wrote the new log and was interrupted while moving it.
fn resume(dir: &Path, mode: RecoverMode) -> Result<RecoveryReport, OpenError> {
    let changed = match mode {
        RecoverMode::Inspect => false,
        RecoverMode::AcceptLoss => {
            if dir.join(NEW_DIR).exists() {
                replace(dir)?;
            } else {
                let marker = dir.join(RECOVERING_FILE);
                io("finish the recovery", durable::remove_file(&marker))?;
            }
            true
        }
    };
    Ok(RecoveryReport {
        findings: vec![Damage::at(RECOVERING_FILE, "a recovery was interrupted")],
        groups: Vec::new(),
        hopeless: None,
        changed,
    })
}
