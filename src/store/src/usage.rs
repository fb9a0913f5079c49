//! What a data directory takes of its disk: for people, and for nothing that is decided here.
//!
//! The directory is walked as it is, beside a store that writes: a file that goes away meanwhile counts
//! nothing. Files that are written in advance count as long as they are.

use std::io;
use std::path::Path;

use crate::durable;
use crate::open;

/// How full the disk is, and with what. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Left on the disk.
    pub free_bytes: u64,
    /// When no more than this is left, no new events are taken.
    pub reserve_bytes: u64,
    /// Log files, with those that are written in advance.
    pub log_bytes: u64,
    /// The checkpoint of the state.
    pub checkpoint_bytes: u64,
    /// Snapshots of the state.
    pub snapshot_bytes: u64,
}

/// Looks at the disk under this directory.
pub(crate) fn look(dir: &Path, reserve_bytes: u64) -> io::Result<DiskUsage> {
    let under = |names: &[&str]| names.iter().map(|name| size(&dir.join(name))).sum();
    Ok(DiskUsage {
        free_bytes: durable::free_bytes(dir)?,
        reserve_bytes,
        log_bytes: under(&[open::LOG_DIR, open::SPARE_DIR, open::CUT_DIR]),
        checkpoint_bytes: under(&[open::CHECKPOINT_DIR]),
        snapshot_bytes: under(&[open::SNAPSHOT_DIR]),
    })
}

/// Bytes of the files under a directory; what cannot be read counts nothing.
fn size(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) if found.is_file() => bytes += found.len(),
                Ok(_) | Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_where_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join(open::SNAPSHOT_DIR).join("7");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("a"), [0; 10]).unwrap();
        std::fs::create_dir(dir.path().join(open::SPARE_DIR)).unwrap();
        std::fs::write(dir.path().join(open::SPARE_DIR).join("b"), [0; 5]).unwrap();
        let usage = look(dir.path(), 3).unwrap();
        assert_eq!((usage.snapshot_bytes, usage.log_bytes, usage.checkpoint_bytes), (10, 5, 0));
        assert!(usage.free_bytes > 0 && usage.reserve_bytes == 3);
    }
}
