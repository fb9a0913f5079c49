//! A disk that forgets: runs a process under the disk shim and undoes what no sync made safe.
//!
//! Usage: [`Disk::new`], [`Disk::environment`] for the child, kill the child, [`Disk::power_cut`],
//! start the child again. The shim's journal says how; see `cluster-tests/shim`.
//! Not modelled: directories that vanish, and sectors torn below the size of one write.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

/// What a power cut does to changes that no sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of them are undone.
    Everything,
    /// Each is undone or kept by the toss of a coin with this seed, as a drive that had written
    /// some of them out of order would leave it.
    Torn(u64),
}

/// What a power cut undid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Changes that no sync covered.
    pub unsynced: usize,
    /// Of these, changes undone.
    pub undone: usize,
    /// Syncs that the process had made.
    pub syncs: usize,
}

/// The disk below one directory, as a process under the shim uses it.
pub struct Disk {
    root: PathBuf,
    scratch: PathBuf,
    deaf: bool,
}

impl Disk {
    /// A disk for the files below `root`; `scratch` must lie outside of it on the same file system.
    pub fn new(root: &Path, scratch: &Path) -> Result<Self> {
        std::fs::create_dir_all(root)?;
        std::fs::create_dir_all(scratch)?;
        Ok(Self { root: root.canonicalize()?, scratch: scratch.canonicalize()?, deaf: false })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// From now on syncs do nothing: shows what would be lost without them.
    pub fn deafen(&mut self) {
        self.deaf = true;
    }

    /// The environment of the process whose disk this is.
    pub fn environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let mut variables: Vec<(OsString, OsString)> = vec![
            ("LD_PRELOAD".into(), library()?.into()),
            ("DISK_SHIM_ROOT".into(), self.root.clone().into()),
            ("DISK_SHIM_JOURNAL".into(), self.journal().into()),
            ("DISK_SHIM_FAULT".into(), self.fault_file().into()),
        ];
        if self.deaf {
            variables.push(("DISK_SHIM_DEAF".into(), "1".into()));
        }
        Ok(variables)
    }

    /// Lets a fault hold from now on: `eio-write`, `eio-sync`, `enospc`, `slow-sync MS`.
    pub fn inject(&self, fault: &str) -> Result<()> {
        let fresh = self.scratch.join("fault.new");
        std::fs::write(&fresh, fault)?;
        Ok(std::fs::rename(fresh, self.fault_file())?)
    }

    /// Ends the fault.
    pub fn heal(&self) -> Result<()> {
        match std::fs::remove_file(self.fault_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Undoes what no sync made safe, and starts a fresh journal. The process must be dead.
    pub fn power_cut(&self, cut: Cut) -> Result<Undone> {
        let journal = match std::fs::read(self.journal()) {
            Ok(journal) => journal,
            // The process was gone before it wrote anything.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).context("read the journal"),
        };
        let records = parse(&journal);
        let mut safe: BTreeMap<u64, u64> = BTreeMap::new();
        let mut result = Undone::default();
        for record in records.iter().filter(|record| record.kind == b'S') {
            let upto = safe.entry(record.inode).or_default();
            *upto = record.offset.max(*upto);
            result.syncs += 1;
        }
        let mut files = BTreeMap::new();
        for folder in [&self.root, &self.scratch] {
            open_all(folder, &mut files)?;
        }
        let mut coin = Coin::new(cut);
        let mut kept = BTreeSet::new();
        for record in records.iter().rev().filter(|record| record.kind != b'S') {
            if record.seq <= safe.get(&record.inode).copied().unwrap_or(0) {
                continue;
            }
            result.unsynced += 1;
            if coin.keeps() {
                kept.insert(record.inode);
                continue;
            }
            result.undone += 1;
            undo(record, &files, kept.contains(&record.inode))?;
        }
        self.forget_journal()?;
        Ok(result)
    }

    fn forget_journal(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.scratch)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal")) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn journal(&self) -> PathBuf {
        self.scratch.join("journal")
    }

    fn fault_file(&self) -> PathBuf {
        self.scratch.join("fault")
    }
}

/// The shim's library, built once per process.
///
/// # Errors
/// When it cannot be built.
pub fn library() -> Result<PathBuf> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = LIBRARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    Ok(crate::artifact::build(&["--lib"])?.join("libdisk_shim.so"))
}

struct Record {
    kind: u8,
    seq: u64,
    inode: u64,
    offset: u64,
    old_size: u64,
    bytes: Vec<u8>,
}

/// The records of a journal; a last one that was cut short never had its change made.
fn parse(mut journal: &[u8]) -> Vec<Record> {
    const MAGIC: [u8; 4] = 0x4453_484a_u32.to_le_bytes();
    let mut records = Vec::new();
    while let Some(record) = take_record(&mut journal, MAGIC) {
        records.push(record);
    }
    records
}

fn take_record(journal: &mut &[u8], magic: [u8; 4]) -> Option<Record> {
    let mut head = [0_u8; 41];
    journal.read_exact(&mut head).ok()?;
    let number = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    if head[..4] != magic {
        return None;
    }
    let length = u32::from_le_bytes(head[37..41].try_into().ok()?) as usize;
    let mut bytes = vec![0; length];
    journal.read_exact(&mut bytes).ok()?;
    Some(Record {
        kind: head[4],
        seq: number(5)?,
        inode: number(13)?,
        offset: number(21)?,
        old_size: number(29)?,
        bytes,
    })
}

fn open_all(folder: &Path, files: &mut BTreeMap<u64, File>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_all(&entry.path(), files)?;
        } else if kind.is_file() {
            let file = File::options().read(true).write(true).open(entry.path())?;
            files.insert(file.metadata()?.ino(), file);
        }
    }
    Ok(())
}

fn undo(record: &Record, files: &BTreeMap<u64, File>, later_kept: bool) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let names: Vec<PathBuf> = record
        .bytes
        .split(|byte| *byte == 0)
        .map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
        .collect();
    let restore = |backup: Option<&PathBuf>, path: &Path| match backup {
        Some(backup) if backup.exists() => std::fs::rename(backup, path),
        _ => Ok(()),
    };
    match record.kind {
        b'W' => {
            let Some(file) = files.get(&record.inode) else { return Ok(()) };
            file.write_all_at(&record.bytes, record.offset)?;
            if !later_kept && file.metadata()?.len() > record.old_size {
                file.set_len(record.old_size)?;
            }
        }
        b'T' => {
            let Some(file) = files.get(&record.inode) else { return Ok(()) };
            if !later_kept || file.metadata()?.len() < record.old_size {
                file.set_len(record.old_size)?;
            }
            file.write_all_at(&record.bytes, record.offset)?;
        }
        b'C' => {
            if names[0].exists() {
                std::fs::remove_file(&names[0])?;
            }
        }
        b'R' => {
            if names[1].exists() {
                std::fs::rename(&names[1], &names[0])?;
            }
            restore(names.get(2), &names[1])?;
        }
        b'U' => restore(names.get(1), &names[0])?,
        other => anyhow::bail!("the journal has a record of kind {other}"),
    }
    Ok(())
}

/// Decides which unsynced changes survive: splitmix64.
struct Coin(Option<u64>);

impl Coin {
    fn new(cut: Cut) -> Self {
        match cut {
            Cut::Everything => Self(None),
            Cut::Torn(seed) => Self(Some(seed)),
        }
    }

    fn keeps(&mut self) -> bool {
        let Some(state) = &mut self.0 else { return false };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell script in the disk's root under the shim, then cuts the power.
    fn after_power_cut(script: &str, deaf: bool) -> (tempfile::TempDir, Undone) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut disk =
            Disk::new(&dir.path().join("root"), &dir.path().join("scratch")).expect("a disk");
        if deaf {
            disk.deafen();
        }
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(script).current_dir(&disk.root).env("ROOT", &disk.root);
        command.envs(disk.environment().expect("the shim builds"));
        assert!(command.status().expect("sh runs").success());
        let undone = disk.power_cut(Cut::Everything).expect("the journal is readable");
        (dir, undone)
    }

    const SYNCED: &str = "printf one > x; dd if=x of=$ROOT/f conv=notrunc,fsync status=none; \
                          sync $ROOT; printf second > x; \
                          dd if=x of=$ROOT/f conv=notrunc status=none";

    #[test]
    fn what_was_synced_stays_and_the_rest_goes() {
        let (dir, undone) = after_power_cut(SYNCED, false);
        let text = std::fs::read_to_string(dir.path().join("root/f")).expect("f is there");
        assert_eq!(text, "one");
        assert!(undone.syncs >= 2 && undone.undone >= 1, "{undone:?}");
    }

    #[test]
    fn without_syncs_nothing_stays() {
        let (dir, undone) = after_power_cut(SYNCED, true);
        assert!(!dir.path().join("root/f").exists());
        assert_eq!(undone.syncs, 0);
    }

    #[test]
    fn an_unsynced_rename_is_undone() {
        let script = "dd if=/dev/zero of=$ROOT/a bs=5 count=1 conv=fsync status=none; \
                      dd if=/dev/zero of=$ROOT/b bs=9 count=1 conv=fsync status=none; \
                      sync $ROOT; mv -T $ROOT/a $ROOT/b";
        let (dir, _) = after_power_cut(script, false);
        let size =
            |name: &str| std::fs::metadata(dir.path().join("root").join(name)).map(|m| m.len());
        assert_eq!(size("a").expect("a is back"), 5);
        assert_eq!(size("b").expect("b is back"), 9);
    }
}
