//! Something that is made of files, and made again when they change.
//!
//! Invariant: what is in force was made of one reading of all files and is usable; a reading that
//! is not changes nothing and is reported once, however often it is looked at.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// The largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

type Build<T> = dyn Fn(&[Vec<u8>]) -> Result<T, Error> + Send + Sync;

/// What a look at the files came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// They are what is in force.
    Unchanged,
    /// They have changed and are in force.
    Changed,
    /// They have changed and cannot be used: what was in force before still is.
    Broken(Error),
    /// They are still those that could not be used.
    StillBroken(Error),
}

/// What was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// It is in force.
    Good([u8; 32]),
    /// It cannot be used.
    Bad(Error),
}

/// See the module.
pub struct Reloading<T> {
    paths: Vec<PathBuf>,
    build: Box<Build<T>>,
    current: ArcSwap<T>,
    good: Mutex<[u8; 32]>,
    last: Mutex<Seen>,
}

impl<T> Reloading<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When one cannot be read, or `build` refuses them.
    pub fn load(
        paths: Vec<PathBuf>,
        build: impl Fn(&[Vec<u8>]) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let contents = read_all(&paths)?;
        let hash = hash(&contents);
        let current = ArcSwap::from_pointee(build(&contents)?);
        let (good, last) = (Mutex::new(hash), Mutex::new(Seen::Good(hash)));
        Ok(Self { paths, build: Box::new(build), current, good, last })
    }

    /// What is in force.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Looks at the files again. Blocks for as long as reading them takes.
    pub fn refresh(&self) -> Refreshed {
        // One look at a time, so that an older reading never overtakes a newer one.
        let mut last = self.last.lock();
        let read = read_all(&self.paths).and_then(|contents| {
            let hash = hash(&contents);
            if *self.good.lock() == hash {
                return Ok(None);
            }
            (self.build)(&contents).map(|built| Some((hash, built)))
        });
        match read {
            Ok(None) => {
                *last = Seen::Good(*self.good.lock());
                Refreshed::Unchanged
            }
            Ok(Some((hash, built))) => {
                self.current.store(Arc::new(built));
                *self.good.lock() = hash;
                *last = Seen::Good(hash);
                Refreshed::Changed
            }
            Err(error) if *last == Seen::Bad(error.clone()) => Refreshed::StillBroken(error),
            Err(error) => {
                *last = Seen::Bad(error.clone());
                Refreshed::Broken(error)
            }
        }
    }
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Error> {
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| Error::new(format!("{}: {error}", path.display()));
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::new(format!("{}: more than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(content)
}

fn hash(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for content in contents {
        // The length keeps two files from being read as other two.
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_broken_changes_nothing_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("1");
        let number = |contents: &[Vec<u8>]| {
            String::from_utf8_lossy(&contents[0]).parse::<u32>().map_err(Error::new)
        };
        let number = Reloading::load(vec![path.clone()], number).unwrap();
        let check = |refreshed: Refreshed, value: u32| {
            assert_eq!((number.refresh(), *number.current()), (refreshed, value));
        };
        check(Refreshed::Unchanged, 1);
        write("2");
        check(Refreshed::Changed, 2);
        check(Refreshed::Unchanged, 2);
        write("x");
        let Refreshed::Broken(error) = number.refresh() else { panic!("it was taken") };
        check(Refreshed::StillBroken(error), 2);
        // The good content comes back: nothing changes, and the next failure is news again.
        write("2");
        check(Refreshed::Unchanged, 2);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(number.refresh(), Refreshed::Broken(_)));
        assert!(matches!(number.refresh(), Refreshed::StillBroken(_)));
        write("3");
        check(Refreshed::Changed, 3);
    }

    #[test]
    fn a_file_that_does_not_end_is_not_read_to_its_end() {
        let error = Reloading::load(vec!["/dev/zero".into()], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }
}
