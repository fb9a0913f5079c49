//! Files in memory that fail on demand and lose power: for the tests of the stores.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::disk::{Files, beside};

#[derive(Default)]
struct State {
    /// Content, and how much of it is certain to survive.
    files: BTreeMap<PathBuf, (Vec<u8>, usize)>,
    locks: BTreeSet<PathBuf>,
    /// Bytes that may still be written; what exceeds them fails in the middle.
    room: Option<usize>,
    sync_fails: bool,
    syncs: usize,
}

/// A disk; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

/// One opener's view of it.
pub(crate) struct Opener {
    disk: Memory,
    open: Option<PathBuf>,
    locked: Option<PathBuf>,
}

impl Memory {
    pub(crate) fn opener(&self) -> Opener {
        Opener { disk: self.clone(), open: None, locked: None }
    }

    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        self.0.lock().unwrap().files.get(path).map(|(bytes, _)| bytes.clone()).unwrap_or_default()
    }

    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let synced = bytes.len();
        self.0.lock().unwrap().files.insert(path.to_owned(), (bytes, synced));
    }

    /// Only this many bytes more can be written.
    pub(crate) fn room(&self, bytes: Option<usize>) {
        self.0.lock().unwrap().room = bytes;
    }

    pub(crate) fn sync_fails(&self) {
        self.0.lock().unwrap().sync_fails = true;
    }

    pub(crate) fn syncs(&self) -> usize {
        self.0.lock().unwrap().syncs
    }

    /// The power fails; of what was not synced `kept` bytes survive.
    pub(crate) fn power_cut(&self, kept: usize) {
        let mut state = self.0.lock().unwrap();
        state.locks.clear();
        (state.room, state.sync_fails) = (None, false);
        for (bytes, synced) in state.files.values_mut() {
            bytes.truncate(synced.saturating_add(kept).min(bytes.len()));
            *synced = bytes.len();
        }
    }
}

impl State {
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let fits = self.room.unwrap_or(usize::MAX).min(bytes.len());
        self.room = self.room.map(|room| room - fits);
        self.files.entry(path.to_owned()).or_default().0.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        if self.sync_fails {
            return Err(io::Error::other("input/output error"));
        }
        self.syncs += 1;
        if let Some((bytes, synced)) = self.files.get_mut(path) {
            *synced = bytes.len();
        }
        Ok(())
    }
}

impl Opener {
    fn path(&self) -> io::Result<PathBuf> {
        self.open.clone().ok_or_else(|| io::Error::other("no file is open"))
    }
}

impl Files for Opener {
    fn lock(&mut self, path: &Path) -> io::Result<bool> {
        let free = self.disk.0.lock().unwrap().locks.insert(path.to_owned());
        self.locked = free.then(|| path.to_owned());
        Ok(free)
    }

    fn read(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk.0.lock().unwrap().files.get(path).map(|(bytes, _)| bytes.clone()))
    }

    fn exists(&mut self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.0.lock().unwrap().files.contains_key(path))
    }

    fn open(&mut self, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let (bytes, synced) = state.files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        if bytes.len() as u64 != length {
            bytes.truncate(length as usize);
            *synced = bytes.len();
        }
        self.open = Some(path.to_owned());
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = self.path()?;
        self.disk.0.lock().unwrap().write(&path, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let path = self.path()?;
        self.disk.0.lock().unwrap().sync(&path)
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let fresh = beside(path, ".new");
        let mut state = self.disk.0.lock().unwrap();
        state.files.insert(fresh.clone(), (Vec::new(), 0));
        state.write(&fresh, bytes)?;
        state.sync(&fresh)?;
        let file = state.files.remove(&fresh).expect("written just now");
        state.files.insert(path.to_owned(), file);
        drop(state);
        self.open = Some(path.to_owned());
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if let Some(path) = &self.locked {
            self.disk.0.lock().unwrap().locks.remove(path);
        }
    }
}
