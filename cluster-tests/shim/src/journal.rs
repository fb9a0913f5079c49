//! The undo journal and the shim's view of descriptors and faults.
//!
//! A record: `magic u32, kind u8, seq u64, inode u64, offset u64, old_size u64, length u32, bytes`,
//! little-endian. Kinds: `W` write (bytes = what was there), `T` truncation (bytes = the tail cut
//! off), `C` creation (bytes = path), `R` rename (bytes = old \0 new \0 backup), `U` unlink
//! (bytes = path \0 backup), `S` a sync of the inode that covers records up to `offset`.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use libc::c_int;

use crate::sys;

const MAGIC: u32 = 0x4453_484a;
const DESCRIPTORS_MAX: usize = 65_536;
/// Table value of a descriptor that was not looked at yet.
const UNKNOWN: u64 = 0;
/// Table value of a descriptor outside of the root.
const FOREIGN: u64 = u64::MAX;

static TABLE: [AtomicU64; DESCRIPTORS_MAX] = [const { AtomicU64::new(UNKNOWN) }; DESCRIPTORS_MAX];

/// What the environment asked for.
pub struct Shim {
    root: Vec<u8>,
    journal: c_int,
    backups: Vec<u8>,
    fault: Option<CString>,
    /// Syncs are neither done nor recorded.
    pub deaf: bool,
    /// Orders records and changes of this process.
    pub lock: Mutex<()>,
}

/// The shim, unless the environment names no root.
pub fn shim() -> Option<&'static Shim> {
    static SHIM: OnceLock<Option<Shim>> = OnceLock::new();
    SHIM.get_or_init(|| {
        let root = variable(c"DISK_SHIM_ROOT")?;
        let path = variable(c"DISK_SHIM_JOURNAL")?;
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC;
        let journal = sys::open(libc::AT_FDCWD, path.as_ptr(), flags, 0o600) as c_int;
        let backups = [path.as_bytes(), b".backup."].concat();
        let deaf = variable(c"DISK_SHIM_DEAF").is_some();
        let root = root.into_bytes();
        let fault = variable(c"DISK_SHIM_FAULT");
        Some(Shim { root, journal, backups, fault, deaf, lock: Mutex::new(()) })
    })
    .as_ref()
}

/// A variable of the environment.
pub fn variable(name: &CStr) -> Option<CString> {
    // SAFETY: the name is terminated; the value is copied before anyone can change it.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: a non-null value of getenv is terminated.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_owned())
}

impl Shim {
    /// The inode of a descriptor below the root.
    pub fn tracked(&self, fd: c_int) -> Option<u64> {
        let slot = TABLE.get(usize::try_from(fd).ok()?)?;
        match slot.load(Ordering::Relaxed) {
            FOREIGN => None,
            UNKNOWN => {
                let inside = sys::path_of(fd).is_some_and(|path| self.inside(&path));
                let inode = if inside { sys::stat(fd).map(|(inode, _, _)| inode) } else { None };
                slot.store(inode.unwrap_or(FOREIGN), Ordering::Relaxed);
                inode
            }
            inode => Some(inode),
        }
    }

    /// Forgets a descriptor: its number may stand for another file from now on.
    pub fn forget(fd: c_int) {
        if let Some(slot) = usize::try_from(fd).ok().and_then(|index| TABLE.get(index)) {
            slot.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    /// Whether a path lies below the root.
    pub fn inside(&self, path: &[u8]) -> bool {
        let below = path.strip_prefix(self.root.as_slice());
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// The length of the journal: what a sync that starts now covers. Numbers records, so that
    /// they keep their order over processes too.
    pub fn length(&self) -> u64 {
        sys::stat(self.journal).map_or(0, |(_, size, _)| size)
    }

    /// Appends a record; the caller holds the lock.
    pub fn record(&self, kind: u8, inode: u64, place: (u64, u64), bytes: &[u8]) {
        let seq = self.length() + 1;
        let (offset, old_size) = place;
        let mut record = Vec::with_capacity(41 + bytes.len());
        record.extend_from_slice(&MAGIC.to_le_bytes());
        record.push(kind);
        for number in [seq, inode, offset, old_size] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        record.extend_from_slice(bytes);
        sys::append(self.journal, &record);
    }

    /// Keeps a file that is about to lose its name: a hard link beside the journal.
    pub fn back_up(&self, path: &CStr) -> Vec<u8> {
        let name = [self.backups.as_slice(), self.length().to_string().as_bytes()].concat();
        let Ok(target) = CString::new(name.clone()) else { return Vec::new() };
        // SAFETY: both paths are terminated.
        let rc = unsafe {
            let (here, from, to) = (libc::AT_FDCWD, path.as_ptr(), target.as_ptr());
            libc::syscall(libc::SYS_linkat, here, from, here, to, 0)
        };
        if rc == 0 { name } else { Vec::new() }
    }

    /// The fault that holds now.
    pub fn fault(&self) -> Option<Fault> {
        let path = self.fault.as_ref()?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let fd = sys::open(libc::AT_FDCWD, path.as_ptr(), flags, 0) as c_int;
        if fd < 0 {
            return None;
        }
        let text = sys::read_at(fd, 0, 64);
        // SAFETY: the descriptor was opened above and is not used any more.
        unsafe { libc::syscall(libc::SYS_close, fd) };
        let text = String::from_utf8_lossy(&text);
        let mut words = text.split_whitespace();
        match words.next()? {
            "eio-write" => Some(Fault::EioWrite),
            "eio-sync" => Some(Fault::EioSync),
            "enospc" => Some(Fault::NoSpace),
            "slow-sync" => Some(Fault::SlowSync(words.next()?.parse().ok()?)),
            _ => None,
        }
    }
}

/// What goes wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes fail with EIO.
    EioWrite,
    /// Syncs fail with EIO.
    EioSync,
    /// Writes that make a file longer, and creations, fail with ENOSPC.
    NoSpace,
    /// Syncs take this many milliseconds more.
    SlowSync(u64),
}
