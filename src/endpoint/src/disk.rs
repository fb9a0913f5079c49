//! The few file operations that the stores need, behind a trait that tests make fail.
//!
//! Invariants: `append` returns after the bytes are with the operating system, `sync` after they
//! are on the disk; `replace` leaves the old content or the new one under the name, durably.
//! Deliberately absent: retries. After an error the store is given up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The largest file that is read, bytes: no store of ours gets near it.
const READ_BYTES_MAX: u64 = 1 << 30;

/// One store's files.
pub(crate) trait Files: Send {
    /// Takes the lock of a store until this is dropped; false: someone else has it.
    fn lock(&mut self, path: &Path) -> io::Result<bool>;
    /// All of a file; `None` when there is none.
    fn read(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Whether the name is taken.
    fn exists(&mut self, path: &Path) -> io::Result<bool>;
    /// Opens a file for appending behind its first `length` bytes; what follows is cut off.
    fn open(&mut self, path: &Path, length: u64) -> io::Result<()>;
    /// Writes behind the end of the open file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Gives the name to a file with this content, durably, and opens it for appending.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file, replacing the target.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The real ones.
#[derive(Default)]
pub(crate) struct Disk {
    open: Option<File>,
    lock: Option<File>,
}

/// `path` with something behind its last component.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

impl Disk {
    fn opened(&mut self) -> io::Result<&mut File> {
        self.open.as_mut().ok_or_else(|| io::Error::other("no file is open"))
    }
}

impl Files for Disk {
    fn lock(&mut self, path: &Path) -> io::Result<bool> {
        // Devices and pipes would be replaced by a file, and opening a pipe waits.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // A file of its own: the store's file changes its inode with every rewrite.
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(beside(path, ".lock"))?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn exists(&mut self, path: &Path) -> io::Result<bool> {
        path.symlink_metadata().map_or_else(
            |error| if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) },
            |_| Ok(true),
        )
    }

    fn read(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn open(&mut self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(path)?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        self.open = Some(file);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.opened()?.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.opened()?.sync_data()
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let fresh = beside(path, ".new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        sync_folder(path)?;
        self.open(path, bytes.len() as u64)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        sync_folder(to)
    }
}
