//! The data directory of a broker: one process at a time, and the small files beside the node's.
//!
//! `DIR/lock` is locked while a process uses DIR; `DIR/node` belongs to the node; other files are
//! replaced atomically, readable by their owner only, and carry the hash of what they hold: one
//! wrong bit in a token would lock its owner out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::exit::{Exit, Failure};

/// A locked data directory. Dropping it unlocks.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| disk(path, &error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let why = format!("{} is in use by process {}", path.display(), owner.trim());
                return Err(Failure::new(Exit::Refused, why)
                    .hint("one broker at a time uses a data directory"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The number is for the message above only; the lock is what counts.
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        noted.map_err(failed)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the node keeps its data.
    pub fn node(&self) -> PathBuf {
        self.path.join("node")
    }

    /// Reads a small JSON file; `None` where there is none.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        read(&self.path.join(name))
    }

    /// Replaces a small JSON file, durably.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        write(&self.path.join(name), value)
    }
}

/// Reads a small JSON file; `None` where there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk(path, &error)),
    };
    let damaged = |why: &dyn std::fmt::Display| {
        Failure::configuration(format!("{} is damaged or was edited: {why}", path.display()))
    };
    let sealed: Sealed = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
    if sealed.sha256 != hash(&sealed.value) {
        return Err(damaged(&"its hash does not match"));
    }
    serde_json::from_value(sealed.value).map(Some).map_err(|error| damaged(&error))
}

/// What is in a small file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// Of the value's compact text, its fields sorted.
    sha256: String,
    value: Value,
}

fn hash(value: &Value) -> String {
    format!("{:x}", Sha256::digest(value.to_string()))
}

/// Replaces a small JSON file, durably, readable by its owner only.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let replace = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = folder.join(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let value = serde_json::to_value(value)?;
        serde_json::to_writer_pretty(&mut file, &Sealed { sha256: hash(&value), value })?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    replace().map_err(|error| disk(path, &error))
}

fn disk(path: &Path, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::PermissionDenied {
        Exit::Configuration
    } else {
        Exit::Disk
    };
    Failure::new(exit, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_user_of_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.message.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn small_files_are_private_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &7_u32).unwrap();
        write(&path, &8_u32).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(8));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write(&path, &"ak_node_0".to_owned()).unwrap();
        let text = fs::read(&path).unwrap();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut other = text.clone();
                other[at] ^= 1 << bit;
                fs::write(&path, &other).unwrap();
                let found = read::<String>(&path);
                // White space may change: it means nothing.
                let harmless = matches!(&found, Ok(Some(value)) if value == "ak_node_0");
                assert!(found.is_err() || harmless, "byte {at}, bit {bit}: {found:?}");
            }
        }
    }
}
