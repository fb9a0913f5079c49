//! Reads every log file before the engine may touch one, and tells a torn tail from damage.
//!
//! Rules:
//! - Files are numbered without a gap and begin no later than the high-water file allows.
//! - Batches of the append queue are numbered without a gap, and reach the high-water mark.
//! - Only the last file of a queue may end in something that does not verify, only after an
//!   ungraceful stop, and only when nothing behind the break proves that a later write had
//!   been synced. That tail is hidden from the engine and zeroed after everything else verified.
//! - In the rewrite queue, which holds copies, whether the cut is harmless is decided by the
//!   groups' own completeness ([`super::verify`]).
//!
//! Changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::batch::{self, FILE_HEAD_BYTES, Item};
use super::files::{Queue, parse_name};
use super::{BATCH_KEY, META_KEY, NODE_REGION, group_of, slot_of};
use crate::codec::Salt;
use crate::error::{Damage, OpenError};
use crate::high_water::Water;
use crate::record::{BatchRecord, EntryRecord, MetaRecord, Record};

/// A tail to hide now and to zero later.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub path: PathBuf,
    pub from: u64,
    pub to: u64,
}

/// A log that may be opened.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The size of each file that the engine may see.
    pub approved: BTreeMap<PathBuf, u64>,
    pub cuts: Vec<Cut>,
    /// Last files that were created but never got a head, nor anything behind it.
    pub headless: Vec<PathBuf>,
    pub last_number: u64,
    pub last_sequence: u64,
    /// The append file that will be written next.
    pub last_append: Option<PathBuf>,
}

pub(crate) struct Found {
    pub scan: Scan,
    pub findings: Vec<Damage>,
}

/// The log files of a directory, by queue and number.
pub(crate) fn list(log_dir: &Path) -> Result<BTreeMap<(Queue, u64), PathBuf>, OpenError> {
    let mut files = BTreeMap::new();
    let entries = match std::fs::read_dir(log_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(OpenError::io("list the log", &error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| OpenError::io("list the log", &error))?.path();
        if let Some(name) = parse_name(&path) {
            files.insert(name, path);
        } else if path.file_name().is_none_or(|name| name != "LOCK") {
            // The engine might take it for one of its own.
            let finding = "is not a file of the log";
            return Err(OpenError::damaged(path.display().to_string(), finding));
        }
    }
    Ok(files)
}

pub(crate) fn place(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    format!("log/{}", name.to_string_lossy())
}

fn is_zero(raw: &[u8]) -> bool {
    const PIECE: [u8; 4096] = [0; 4096];
    raw.chunks(PIECE.len()).all(|c| *c == PIECE[..c.len()])
}

/// How the walk through a file ended.
enum Stop {
    /// At the end of the file or before nothing but zeros.
    End,
    Broken(&'static str),
}

struct Walk {
    end: usize,
    stop: Stop,
}

struct Scanner<'a> {
    salt: Salt,
    water: &'a Water,
    out: Found,
    /// The number of the last batch of the append queue.
    appended: Option<u64>,
    /// The highest batch mark the rewrite queue carries.
    rewritten: u64,
}

/// Scans the log.
pub(crate) fn scan(log_dir: &Path, salt: Salt, water: &Water) -> Result<Found, OpenError> {
    let files = list(log_dir)?;
    let mut scanner = Scanner {
        salt,
        water,
        out: Found { scan: Scan::default(), findings: Vec::new() },
        appended: None,
        rewritten: 0,
    };
    for queue in [Queue::Append, Queue::Rewrite] {
        let mine: Vec<(u64, &PathBuf)> = files
            .iter()
            .filter(|((of, _), _)| *of == queue)
            .map(|((_, seq), path)| (*seq, path))
            .collect();
        scanner.queue(queue, &mine)?;
    }
    scanner.finish();
    Ok(scanner.out)
}

impl Scanner<'_> {
    fn damage(&mut self, place: impl Into<String>, finding: impl Into<String>) {
        self.out.findings.push(Damage::at(place, finding));
    }

    fn queue(&mut self, queue: Queue, files: &[(u64, &PathBuf)]) -> Result<(), OpenError> {
        let allowed = match queue {
            Queue::Append => self.water.first_append,
            Queue::Rewrite => self.water.first_rewrite,
        };
        match files.first() {
            Some((first, path)) if *first > allowed => {
                let finding = format!("files before it are missing, from number {allowed}");
                self.damage(place(path), finding);
            }
            Some(_) => {}
            None if self.water.number > 0 => self.damage("log", format!("no {queue:?} files")),
            None => {}
        }
        for pair in files.windows(2) {
            if pair[1].0 != pair[0].0 + 1 {
                self.damage(place(pair[1].1), "the file before it is missing");
            }
        }
        for (at, (seq, path)) in files.iter().enumerate() {
            let raw = std::fs::read(path)
                .map_err(|error| OpenError::io(format!("read {}", path.display()), &error))?;
            self.file(queue, *seq, path, &raw, at + 1 == files.len());
            if queue == Queue::Append && self.out.scan.approved.contains_key(*path) {
                self.out.scan.last_append = Some((*path).clone());
            }
        }
        Ok(())
    }

    fn file(&mut self, queue: Queue, seq: u64, path: &Path, raw: &[u8], is_last: bool) {
        if !batch::has_file_head(raw) {
            // A rotation that was interrupted leaves a file without a head, and nothing in it.
            let records = Record::find_all(self.salt, raw);
            let untouched = is_zero(raw.get(FILE_HEAD_BYTES..).unwrap_or(&[]));
            if is_last && records.is_empty() && untouched && !self.water.clean {
                self.out.scan.headless.push(path.to_owned());
                return;
            }
            self.damage(place(path), "the head does not verify");
            return;
        }
        let walk = self.walk(queue, seq, raw);
        self.out.scan.approved.insert(path.to_owned(), walk.end as u64);
        let Stop::Broken(why) = walk.stop else {
            return;
        };
        let finding = format!("{why} at byte {}", walk.end);
        if !is_last {
            self.damage(place(path), format!("{finding}, before the end of the log"));
        } else if self.water.clean {
            self.damage(place(path), format!("{finding}, after a graceful stop"));
        } else if queue == Queue::Append && self.synced_behind(&raw[walk.end..]) {
            self.damage(place(path), format!("{finding}, and later writes follow it"));
        } else {
            self.out.scan.cuts.push(Cut {
                path: path.to_owned(),
                from: walk.end as u64,
                to: raw.len() as u64,
            });
        }
    }

    /// Whether what lies behind a break was written after the batch at the break was synced:
    /// then the break is not a torn tail.
    fn synced_behind(&self, rest: &[u8]) -> bool {
        let torn = self.appended.unwrap_or(self.water.number) + 1;
        Record::find_all(self.salt, rest).iter().any(|(_, record)| record.number() != torn)
    }

    fn walk(&mut self, queue: Queue, seq: u64, raw: &[u8]) -> Walk {
        let mut end = FILE_HEAD_BYTES;
        loop {
            let rest = &raw[end..];
            if is_zero(rest) {
                let stop = Stop::End;
                return Walk { end, stop };
            }
            let Some((items, len)) = batch::decode(rest, seq) else {
                let stop = Stop::Broken("a batch does not verify");
                return Walk { end, stop };
            };
            if let Err(why) = self.batch(queue, &items) {
                let stop = Stop::Broken(why);
                return Walk { end, stop };
            }
            end += len;
        }
    }

    fn batch(&mut self, queue: Queue, items: &[Item<'_>]) -> Result<(), &'static str> {
        let mut mark = None;
        for item in items {
            if let Item::Put { region, key, value } = item
                && *region == NODE_REGION
                && *key == BATCH_KEY
            {
                let record = BatchRecord::decode(self.salt, value);
                mark = Some(record.ok_or("a batch mark does not verify")?);
            }
        }
        for item in items {
            self.item(queue, item, mark.map(|mark| mark.number))?;
        }
        let Some(mark) = mark else {
            return match queue {
                Queue::Append => Err("a batch has no mark"),
                Queue::Rewrite => Ok(()),
            };
        };
        match queue {
            Queue::Append => {
                if self.appended.is_some_and(|last| mark.number != last + 1) {
                    return Err("a batch is missing");
                }
                self.appended = Some(mark.number);
            }
            Queue::Rewrite => self.rewritten = self.rewritten.max(mark.number),
        }
        let last = &mut self.out.scan.last_sequence;
        *last = (*last).max(mark.sequence);
        Ok(())
    }

    fn item(&self, queue: Queue, item: &Item<'_>, number: Option<u64>) -> Result<(), &'static str> {
        let strict = queue == Queue::Append;
        match item {
            Item::Entries { region, first, messages } => {
                for (at, message) in messages.iter().enumerate() {
                    let record = batch::message_value(message)
                        .and_then(|raw| EntryRecord::decode(self.salt, raw))
                        .ok_or("an entry does not verify")?;
                    let placed = group_of(*region) == Some(record.group)
                        && slot_of(record.mark.index) == first + at as u64
                        && (!strict || number == Some(record.number));
                    if !placed {
                        return Err("an entry stands where it does not belong");
                    }
                }
                Ok(())
            }
            Item::Put { region, key, value } if *key == META_KEY => {
                let record = MetaRecord::decode(self.salt, value)
                    .ok_or("a group's metadata does not verify")?;
                if group_of(*region) != Some(record.group) {
                    return Err("a group's metadata stands where it does not belong");
                }
                Ok(())
            }
            Item::Put { .. } | Item::Delete { .. } => Ok(()),
            Item::Clean { .. } | Item::Compact { .. } => Ok(()),
        }
    }

    fn finish(&mut self) {
        let last = self.appended.unwrap_or(self.rewritten);
        if last < self.water.number {
            let finding =
                format!("ends with batch {last}, batch {} was durable", self.water.number);
            self.damage("log", finding);
        } else if self.water.clean && last != self.water.number {
            let finding =
                format!("ends with batch {last}, a graceful stop left {}", self.water.number);
            self.damage("log", finding);
        }
        self.out.scan.last_number = last;
    }
}
