//! CPL-2: positions in one small checksummed append log.
//!
//! Invariants: a save is one record, `fdatasync`ed before it returns; the file is rewritten when
//! it is mostly history, so it stays within [`LENGTH_BYTES_MIN`] plus four times what is alive.
//! A cut tail costs the newest positions, never older ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ackord_wire::frame::Position;

use super::{ClientPersistence, PositionChange, Positions};
use crate::disk::{Disk, Files};
use crate::log::{FRAME_BYTES, Log, Magic};
use crate::spl::PersistenceError;

/// Kind and format version of the file.
pub(crate) const MAGIC: Magic = *b"ackcpl\x01\n";
/// A file below this is not rewritten, bytes.
pub const LENGTH_BYTES_MIN: u64 = 64 * 1024;

/// What a position takes beyond the event's name, bytes.
const CHANGE_BYTES: u64 = 25;

const HANDLED: u8 = 1;
const FORGET: u8 = 2;
const ABOVE: u8 = 3;

/// Incarnation, generation, id.
type Id = (u64, u32, u64);

/// The built-in store of CPL-2. See the [module](self).
pub struct FileStore(Store<Disk>);

impl FileStore {
    /// A store in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Store::new(Disk::default(), &path.into()))
    }
}

impl ClientPersistence for FileStore {
    fn load(&mut self) -> Result<Positions, PersistenceError> {
        self.0.load()
    }

    fn save(&mut self, changes: &[PositionChange]) -> Result<(), PersistenceError> {
        self.0.save(changes)
    }
}

/// The store over any files.
pub(crate) struct Store<F> {
    path: PathBuf,
    /// Taken by `load`.
    files: Option<F>,
    log: Option<Log<F>>,
    positions: BTreeMap<String, Position>,
    above: BTreeMap<String, BTreeSet<Id>>,
}

impl<F: Files> Store<F> {
    pub(crate) fn new(files: F, path: &Path) -> Self {
        let (positions, above) = (BTreeMap::new(), BTreeMap::new());
        Self { path: path.to_owned(), files: Some(files), log: None, positions, above }
    }

    /// The file's length, bytes.
    #[cfg(test)]
    pub(crate) fn length(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::length)
    }

    pub(crate) fn load(&mut self) -> Result<Positions, PersistenceError> {
        let files = self.files.take().ok_or_else(|| PersistenceError::other("loaded twice"))?;
        let opened = Log::open(files, &self.path, MAGIC, |bytes| decode(bytes).is_some())?;
        for change in opened.records.iter().filter_map(|bytes| decode(bytes)).flatten() {
            self.take(&change);
        }
        self.log = Some(opened.log);
        let positions = self.positions.iter().map(|(event, at)| (event.clone(), *at)).collect();
        let above = each(&self.above).collect();
        Ok(Positions { positions, above, findings: opened.findings })
    }

    pub(crate) fn save(&mut self, changes: &[PositionChange]) -> Result<(), PersistenceError> {
        let mut content = Vec::with_capacity(64 * changes.len());
        for change in changes {
            encode(change, &mut content);
            self.take(change);
        }
        let log = self.log.as_mut().ok_or_else(|| PersistenceError::other("not loaded"))?;
        let grown = log.length() + FRAME_BYTES + content.len() as u64;
        let events = self.positions.keys().map(String::len);
        let events = events.chain(each(&self.above).map(|(event, _)| event.len()));
        let living: u64 = events.map(|event| CHANGE_BYTES + event as u64).sum();
        if grown > LENGTH_BYTES_MIN + 4 * living {
            let mut content = Vec::new();
            for (event, position) in &self.positions {
                let (event, position) = (event.clone(), *position);
                encode(&PositionChange::Handled { event, position }, &mut content);
            }
            for (event, position) in each(&self.above) {
                encode(&PositionChange::HandledAbove { event, position }, &mut content);
            }
            log.rewrite(&[content])?;
            return Ok(());
        }
        log.append(&content)?;
        log.sync()?;
        Ok(())
    }

    fn take(&mut self, change: &PositionChange) {
        match change {
            PositionChange::Handled { event, position } => {
                self.positions.insert(event.clone(), *position);
                let last = (position.incarnation, position.generation, position.instance_id);
                if let Some(ids) = self.above.get_mut(event) {
                    ids.retain(|id| (id.0, id.1) == (last.0, last.1) && id.2 > last.2);
                }
            }
            PositionChange::Forget { event } => {
                self.positions.remove(event);
                self.above.remove(event);
            }
            PositionChange::HandledAbove { event, position } => {
                let id = (position.incarnation, position.generation, position.instance_id);
                let ids = self.above.entry(event.clone()).or_default();
                ids.retain(|other| (other.0, other.1) == (id.0, id.1));
                ids.insert(id);
            }
        }
    }
}

/// Each id as a change has it.
fn each(above: &BTreeMap<String, BTreeSet<Id>>) -> impl Iterator<Item = (String, Position)> {
    above.iter().flat_map(|(event, ids)| {
        ids.iter().map(|(incarnation, generation, instance_id)| {
            let (incarnation, generation) = (*incarnation, *generation);
            (event.clone(), Position { incarnation, generation, instance_id: *instance_id })
        })
    })
}

pub(crate) fn encode(change: &PositionChange, out: &mut Vec<u8>) {
    let (kind, event) = match change {
        PositionChange::Handled { event, .. } => (HANDLED, event),
        PositionChange::Forget { event } => (FORGET, event),
        PositionChange::HandledAbove { event, .. } => (ABOVE, event),
    };
    out.push(kind);
    // Names of events have at most 256 characters.
    out.extend_from_slice(&(event.len() as u32).to_le_bytes());
    out.extend_from_slice(event.as_bytes());
    if let PositionChange::Handled { position, .. }
    | PositionChange::HandledAbove { position, .. } = change
    {
        out.extend_from_slice(&position.incarnation.to_le_bytes());
        out.extend_from_slice(&position.generation.to_le_bytes());
        out.extend_from_slice(&position.instance_id.to_le_bytes());
    }
}

/// The changes of one record; `None` when it is malformed.
fn decode(mut bytes: &[u8]) -> Option<Vec<PositionChange>> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*head)
    }
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let [kind] = take::<1>(&mut bytes)?;
        let length = usize::try_from(u32::from_le_bytes(take(&mut bytes)?)).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        let event = std::str::from_utf8(name).ok()?.to_owned();
        changes.push(match kind {
            HANDLED | ABOVE => {
                let incarnation = u64::from_le_bytes(take(&mut bytes)?);
                let generation = u32::from_le_bytes(take(&mut bytes)?);
                let instance_id = u64::from_le_bytes(take(&mut bytes)?);
                let position = Position { incarnation, generation, instance_id };
                if kind == HANDLED {
                    PositionChange::Handled { event, position }
                } else {
                    PositionChange::HandledAbove { event, position }
                }
            }
            FORGET => PositionChange::Forget { event },
            _ => return None,
        });
    }
    Some(changes)
}
