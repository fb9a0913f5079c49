//! The decoders of the two file stores for the fuzz targets. No part of the interface.
//!
//! Nothing here may panic, whatever is in the file; what a store has taken in it says again when it
//! is opened anew.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ackord_wire::Payload;
use ackord_wire::frame::Position;

use crate::cpl::{self, PositionChange};
use crate::disk::Files;
use crate::event::Event;
use crate::log::{self, Magic};
use crate::spl::{self, StoreOp, StoreUid, StoredEvent, Sync};

/// What the stores may take, bytes.
const CAPACITY: u64 = 8 * 1024;

/// The name of every store.
fn name() -> PathBuf {
    PathBuf::from("store")
}

/// Files in memory.
#[derive(Default)]
struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
    open: PathBuf,
}

impl Memory {
    fn holding(bytes: &[u8]) -> Self {
        Self { files: BTreeMap::from([(name(), bytes.to_vec())]), open: PathBuf::new() }
    }
}

impl Files for &mut Memory {
    fn lock(&mut self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }

    fn read(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.get(path).cloned())
    }

    fn exists(&mut self, path: &Path) -> io::Result<bool> {
        Ok(self.files.contains_key(path))
    }

    fn open(&mut self, path: &Path, length: u64) -> io::Result<()> {
        path.clone_into(&mut self.open);
        let file = self.files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        file.truncate(usize::try_from(length).map_err(io::Error::other)?);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.files.get_mut(&self.open).ok_or(io::ErrorKind::NotFound)?;
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.files.insert(path.to_owned(), bytes.to_vec());
        path.clone_into(&mut self.open);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.insert(to.to_owned(), file);
        Ok(())
    }
}

/// A file of records that verify; each stands behind its length.
fn sealed(magic: Magic, data: &[u8]) -> Vec<u8> {
    let mut file = magic.to_vec();
    let mut rest = data;
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(more.len());
        let (record, more) = more.split_at(length);
        log::frame(record, &mut file);
        rest = more;
    }
    file
}

/// The file of a service's store.
pub fn spl_file(data: &[u8]) {
    for file in [data.to_vec(), sealed(spl::file::MAGIC, data)] {
        let mut memory = Memory::holding(&file);
        let mut store = spl::file::Store::new(&mut memory, &name(), CAPACITY);
        let Ok(mut stored) = store.load() else { continue };
        let ticket = stored.events.iter().map(|event| event.ticket).max().unwrap_or_default();
        let seq = stored.last_number.saturating_add(1);
        let event = Arc::new(Event::new("e", Some(Payload::json("1"))));
        let event = StoredEvent { ticket: ticket.saturating_add(1), seq: Some(seq), event };
        let Ok(()) = store.apply(&[StoreOp::Put(event.clone())], Sync::Now) else { continue };
        drop(store);
        let mut store = spl::file::Store::new(&mut memory, &name(), CAPACITY);
        let mut again = store.load().expect("what was written can be read");
        stored.events.retain(|known| known.ticket != event.ticket);
        stored.events.push(event);
        let by_ticket = |event: &StoredEvent| event.ticket;
        stored.events.sort_by_key(by_ticket);
        again.events.sort_by_key(by_ticket);
        assert_eq!(again.events, stored.events, "an event was lost or changed");
        assert_eq!((again.uid, again.last_number), (stored.uid, seq), "the numbers changed");
    }
}

/// The file of a client's store.
pub fn cpl_file(data: &[u8]) {
    for file in [data.to_vec(), sealed(cpl::file::MAGIC, data)] {
        let mut memory = Memory::holding(&file);
        let mut store = cpl::file::Store::new(&mut memory, &name());
        let Ok(mut known) = store.load() else { continue };
        let change = handled("e", 5);
        let Ok(()) = store.save(std::slice::from_ref(&change)) else { continue };
        drop(store);
        let mut store = cpl::file::Store::new(&mut memory, &name());
        let mut again = store.load().expect("what was written can be read");
        if let PositionChange::Handled { event, position } = change {
            known.positions.retain(|(name, _)| *name != event);
            known.positions.push((event, position));
        }
        let by_event = |entry: &(String, Position)| entry.0.clone();
        known.positions.sort_by_key(by_event);
        again.positions.sort_by_key(by_event);
        assert_eq!(again.positions, known.positions, "a position was lost or changed");
    }
}

fn handled(event: &str, instance_id: u64) -> PositionChange {
    let position = Position { incarnation: 7, generation: 1, instance_id };
    PositionChange::Handled { event: event.to_owned(), position }
}

/// Files as the stores write them: the target, a name, the bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let event = |seq| {
        let event = Arc::new(Event::private("notice", "phone-7", Payload::json("{}")));
        StoreOp::Put(StoredEvent { ticket: 1, seq, event })
    };
    let ops = [
        StoreOp::Begin { uid: StoreUid([7; 16]) },
        event(None),
        StoreOp::Number { ticket: 1, seq: 1 },
        event(Some(2)),
        StoreOp::Remove { ticket: 1 },
    ];
    let (mut parts, mut file) = (Vec::new(), spl::file::MAGIC.to_vec());
    for op in &ops {
        let mut record = Vec::new();
        spl::record::encode_op(op, &mut record);
        parts.extend((record.len() as u16).to_le_bytes());
        parts.extend(&record);
        log::frame(&record, &mut file);
    }
    let mut state = Vec::new();
    let uid = StoreUid([9; 16]);
    spl::record::encode(&spl::record::Entry::State { uid, last_number: 41 }, &mut state);
    let state = [&(state.len() as u16).to_le_bytes()[..], &state].concat();
    let changes =
        [handled("state", 3), handled("reading", 9), PositionChange::Forget { event: "x".into() }];
    let (mut changed, mut positions) = (Vec::new(), cpl::file::MAGIC.to_vec());
    for change in &changes {
        let mut record = Vec::new();
        cpl::file::encode(change, &mut record);
        changed.extend((record.len() as u16).to_le_bytes());
        changed.extend(&record);
        log::frame(&record, &mut positions);
    }
    vec![
        ("spl_file", "torn", file[..file.len() - 3].to_vec()),
        ("spl_file", "whole", file),
        ("spl_file", "records", parts),
        ("spl_file", "state", state),
        ("cpl_file", "torn", positions[..positions.len() - 3].to_vec()),
        ("cpl_file", "whole", positions),
        ("cpl_file", "records", changed),
    ]
}
