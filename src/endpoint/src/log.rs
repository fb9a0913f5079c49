//! A checksummed append log in one file: what both file stores are made of.
//!
//! A file is 8 bytes that name its kind and version, then records: length and CRC-32 (over the
//! length and the content), both little-endian, then the content. Invariants: a record is read
//! back whole or not at all; an unfinished record at the end is cut off and counted; a damaged one
//! before others that verify is left out, and the file as it was is kept beside; what cannot be
//! read is set aside; nothing is ever overwritten that is not a log of this kind.
//! Deliberately absent: any meaning of the records.

use std::path::{Path, PathBuf};

use crate::disk::{Files, beside};
use crate::spl::{Finding, PersistenceError};

/// Length of the head and of a record's frame, bytes.
const HEAD_BYTES: usize = 8;

/// What names the kind of a file and its format version.
pub(crate) type Magic = [u8; HEAD_BYTES];

/// An open log.
pub(crate) struct Log<F> {
    files: F,
    path: PathBuf,
    magic: Magic,
    length: u64,
}

/// A log with what it held.
pub(crate) struct Opened<F> {
    /// The log, ready to be appended to.
    pub log: Log<F>,
    /// The records that verified, in order.
    pub records: Vec<Vec<u8>>,
    /// What the application should be told.
    pub findings: Vec<Finding>,
}

impl<F: Files> Log<F> {
    /// Opens or creates a log and takes its lock. `sound` says whether a record means something
    /// to the caller; the first that does not ends the log like a bad checksum.
    pub(crate) fn open(
        mut files: F,
        path: &Path,
        magic: Magic,
        mut sound: impl FnMut(&[u8]) -> bool,
    ) -> Result<Opened<F>, PersistenceError> {
        if !files.lock(path).map_err(|error| misplaced(path, error))? {
            return Err(PersistenceError::Locked(path.display().to_string()));
        }
        let bytes = files.read(path).map_err(|error| misplaced(path, error))?;
        if let Some(bytes) = &bytes {
            foreign(bytes, &magic).map_or(Ok(()), |what| {
                let detail = format!("{} is {what}; it is left as it is", path.display());
                Err(PersistenceError::Misplaced(detail))
            })?;
        }
        let mut findings = Vec::new();
        let path_buf = path.to_owned();
        let mut records = Vec::new();
        let length = match bytes {
            Some(bytes) if bytes.starts_with(&magic) => {
                let scan = scan(&bytes, &mut sound);
                records = scan.records;
                if scan.damaged > 0 {
                    let aside = free_name(&mut files, path, ".damaged")?;
                    files.replace(&aside, &bytes)?;
                    let mut sound = magic.to_vec();
                    records.iter().for_each(|record| frame(record, &mut sound));
                    files.replace(path, &sound)?;
                    let detail = format!("the file as it was is kept as {}", aside.display());
                    findings.push(Finding::Damaged { bytes: scan.damaged as u64, detail });
                    sound.len() as u64
                } else {
                    if scan.end < bytes.len() {
                        findings.push(Finding::Cut { bytes: (bytes.len() - scan.end) as u64 });
                    }
                    files.open(path, scan.end as u64)?;
                    scan.end as u64
                }
            }
            other => {
                // A head that is the beginning of ours is a creation that a crash interrupted.
                let torn = other.as_ref().is_some_and(|bytes| magic.starts_with(bytes));
                if other.is_some() && !torn {
                    let aside = free_name(&mut files, path, ".unreadable")?;
                    files.rename(path, &aside)?;
                    let detail =
                        format!("{} cannot be read; moved to {}", path.display(), aside.display());
                    findings.push(Finding::Unreadable { detail });
                }
                files.replace(path, &magic).map_err(|error| misplaced(path, error))?;
                HEAD_BYTES as u64
            }
        };
        let log = Self { files, path: path_buf, magic, length };
        Ok(Opened { log, records, findings })
    }

    /// The file's length, bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends one record.
    pub(crate) fn append(&mut self, content: &[u8]) -> std::io::Result<()> {
        let mut framed = Vec::with_capacity(HEAD_BYTES + content.len());
        frame(content, &mut framed);
        self.files.append(&framed)?;
        self.length += framed.len() as u64;
        Ok(())
    }

    /// Makes all appended records durable.
    pub(crate) fn sync(&mut self) -> std::io::Result<()> {
        self.files.sync()
    }

    /// Replaces all records by these, durably and at once.
    pub(crate) fn rewrite(&mut self, contents: &[Vec<u8>]) -> std::io::Result<()> {
        let mut bytes = self.magic.to_vec();
        contents.iter().for_each(|content| frame(content, &mut bytes));
        self.files.replace(&self.path, &bytes)?;
        self.length = bytes.len() as u64;
        Ok(())
    }
}

/// What the bytes of a log hold.
struct Scan {
    records: Vec<Vec<u8>>,
    /// Where the last record ends.
    end: usize,
    /// Bytes that do not verify although a record behind them does.
    damaged: usize,
}

/// Reads what can be read. Behind bytes that do not verify the next record that does is looked
/// for: with one it was damage, without one an unfinished end.
fn scan(bytes: &[u8], sound: &mut impl FnMut(&[u8]) -> bool) -> Scan {
    let mut scan = Scan { records: Vec::new(), end: HEAD_BYTES, damaged: 0 };
    let mut at = HEAD_BYTES;
    while at < bytes.len() {
        // An empty record verifies anywhere among zeros: it is none.
        let record = record_at(bytes, at).filter(|record| at == scan.end || !record.is_empty());
        match record.filter(|record| sound(record)) {
            Some(record) => {
                scan.damaged += at - scan.end;
                at += HEAD_BYTES + record.len();
                scan.end = at;
                scan.records.push(record.to_vec());
            }
            None => at += 1,
        }
    }
    scan
}

/// What a file is that is certainly no log of this kind, not even a damaged one.
fn foreign(bytes: &[u8], magic: &Magic) -> Option<&'static str> {
    /// What is looked at of a file, bytes.
    const LOOK_BYTES: usize = 4096;
    /// How the names of all our kinds begin, and where their versions are.
    const OURS: &[u8] = b"ack";
    const VERSION_AT: usize = 6;
    let head = bytes.get(..HEAD_BYTES)?;
    if head == magic {
        return None;
    }
    if head.starts_with(OURS) && head.last() == magic.last() {
        return Some(if head[..VERSION_AT] == magic[..VERSION_AT] {
            "of another version of this library"
        } else {
            "another kind of store"
        });
    }
    let look = &bytes[..bytes.len().min(LOOK_BYTES)];
    let is_text = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    look.iter().all(is_text).then_some("a text and no store")
}

/// A name beside `path` that is not taken.
fn free_name<F: Files>(files: &mut F, path: &Path, suffix: &str) -> std::io::Result<PathBuf> {
    /// Files that may be set aside before someone has to look.
    const ASIDE_MAX: u32 = 1000;
    for number in 1..=ASIDE_MAX {
        let suffix = if number == 1 { suffix.to_owned() } else { format!("{suffix}-{number}") };
        let name = beside(path, &suffix);
        if !files.exists(&name)? {
            return Ok(name);
        }
    }
    Err(std::io::Error::other(format!("{ASIDE_MAX} files are set aside beside {}", path.display())))
}

/// What a record adds to its content, bytes.
pub(crate) const FRAME_BYTES: u64 = HEAD_BYTES as u64;

pub(crate) fn frame(content: &[u8], out: &mut Vec<u8>) {
    // Batches are bounded by the stores' capacities, far below 4 GiB.
    let length = (content.len() as u32).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, content).to_le_bytes());
    out.extend_from_slice(content);
}

fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(content);
    hasher.finalize()
}

fn record_at(bytes: &[u8], start: usize) -> Option<&[u8]> {
    let (length, rest) = bytes.get(start..)?.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let content = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (checksum(*length, content) == u32::from_le_bytes(*sum)).then_some(content)
}

/// Errors of the first touch that say that the path is wrong rather than the disk.
fn misplaced(path: &Path, error: std::io::Error) -> PersistenceError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename => {
            PersistenceError::Misplaced(format!("{}: {error}", path.display()))
        }
        // The kinds are not ours: everything else counts as the disk's failure.
        _ => PersistenceError::Io(error),
    }
}
