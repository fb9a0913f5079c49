//! The replaced functions of the C library: record, then do; or fail as the fault says.

use std::ffi::{CStr, CString};
use std::sync::PoisonError;

use libc::{c_char, c_int, c_uint, c_void, iovec, mode_t, off_t, size_t, ssize_t};

use crate::journal::{Fault, Shim, shim};
use crate::sys::{self, Raw};

/// A write of `length` bytes to `fd` at `offset` (`None`: at the descriptor's own position).
fn before_write(fd: c_int, offset: Option<u64>, length: usize, act: impl FnOnce() -> Raw) -> Raw {
    let Some(shim) = shim() else { return act() };
    let Some(inode) = shim.tracked(fd) else { return act() };
    let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
    let size = sys::stat(fd).map_or(0, |(_, size, _)| size);
    let offset = offset.unwrap_or_else(|| position(fd, size));
    match shim.fault() {
        Some(Fault::EioWrite) => return sys::fail(libc::EIO),
        Some(Fault::NoSpace) if offset + length as u64 > size => return sys::fail(libc::ENOSPC),
        Some(Fault::NoSpace | Fault::EioSync | Fault::SlowSync(_)) | None => {}
    }
    let old = if offset < size {
        sys::read_through(fd, offset, length.min((size - offset) as usize))
    } else {
        Vec::new()
    };
    shim.record(b'W', inode, (offset, size), &old);
    act()
}

fn position(fd: c_int, size: u64) -> u64 {
    // SAFETY: asks for flags and the position, changes nothing.
    let flags = unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFL) };
    if flags & libc::c_long::from(libc::O_APPEND) != 0 {
        return size;
    }
    // SAFETY: as above.
    let at = unsafe { libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_CUR) };
    u64::try_from(at).unwrap_or(size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, data: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the caller's buffer is passed on as it came.
    before_write(fd, None, length, || unsafe { libc::syscall(libc::SYS_write, fd, data, length) })
        as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, data: *const c_void, length: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's buffer is passed on as it came.
    before_write(fd, Some(at as u64), length, || unsafe {
        libc::syscall(libc::SYS_pwrite64, fd, data, length, at)
    }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    fd: c_int,
    data: *const c_void,
    length: size_t,
    at: off_t,
) -> ssize_t {
    // SAFETY: the caller's buffer is passed on as it came.
    unsafe { pwrite(fd, data, length, at) }
}

/// The bytes that a vector of buffers holds.
///
/// # Safety
/// `vector` points to `count` valid entries.
unsafe fn total(vector: *const iovec, count: c_int) -> usize {
    // SAFETY: as the caller promises.
    (0..usize::try_from(count).unwrap_or(0)).map(|i| unsafe { (*vector.add(i)).iov_len }).sum()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, vector: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's vector is passed on as it came.
    let length = unsafe { total(vector, count) };
    // SAFETY: as above.
    before_write(fd, None, length, || unsafe { libc::syscall(libc::SYS_writev, fd, vector, count) })
        as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, vector: *const iovec, count: c_int, at: off_t) -> ssize_t {
    // SAFETY: the caller's vector is passed on as it came.
    let length = unsafe { total(vector, count) };
    // SAFETY: as above.
    before_write(fd, Some(at as u64), length, || unsafe {
        libc::syscall(libc::SYS_pwritev, fd, vector, count, at, 0)
    }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(
    fd: c_int,
    vector: *const iovec,
    count: c_int,
    at: off_t,
) -> ssize_t {
    // SAFETY: the caller's vector is passed on as it came.
    unsafe { pwritev(fd, vector, count, at) }
}

fn sync(fd: c_int, number: libc::c_long) -> c_int {
    // SAFETY: a sync of a descriptor has no memory to get wrong.
    let act = || unsafe { libc::syscall(number, fd) } as c_int;
    let Some(shim) = shim() else { return act() };
    let Some(inode) = shim.tracked(fd) else { return act() };
    match shim.fault() {
        Some(Fault::EioSync) => return sys::fail(libc::EIO) as c_int,
        Some(Fault::SlowSync(ms)) => std::thread::sleep(std::time::Duration::from_millis(ms)),
        Some(Fault::EioWrite | Fault::NoSpace) | None => {}
    }
    if shim.deaf {
        return 0;
    }
    let covered = {
        let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
        shim.length()
    };
    let rc = act();
    if rc == 0 {
        let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
        shim.record(b'S', inode, (covered, 0), &[]);
    }
    rc
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    // SAFETY: a truncation has no memory to get wrong.
    let act = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) } as c_int;
    let Some(shim) = shim() else { return act() };
    let Some(inode) = shim.tracked(fd) else { return act() };
    let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
    let size = sys::stat(fd).map_or(0, |(_, size, _)| size);
    let length = length as u64;
    let tail = if length < size {
        sys::read_through(fd, length, (size - length) as usize)
    } else {
        Vec::new()
    };
    shim.record(b'T', inode, (length, size), &tail);
    act()
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    ftruncate(fd, length)
}

#[unsafe(no_mangle)]
extern "C" fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    // Only ever grows a file here: undone by the truncation that the record stands for.
    let act = || {
        // SAFETY: an allocation has no memory to get wrong.
        (unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, length) }) as c_int
    };
    let Some(shim) = shim() else { return act() };
    let Some(inode) = shim.tracked(fd) else { return act() };
    if shim.fault() == Some(Fault::NoSpace) {
        return sys::fail(libc::ENOSPC) as c_int;
    }
    let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
    let size = sys::stat(fd).map_or(0, |(_, size, _)| size);
    shim.record(b'T', inode, (size, size), &[]);
    act()
}

#[unsafe(no_mangle)]
extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    fallocate(fd, mode, offset, length)
}

/// The inode of the directory that holds `path`.
fn parent(path: &[u8]) -> u64 {
    let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    CString::new(&path[..cut]).ok().and_then(|path| sys::inode(&path)).unwrap_or(0)
}

fn opened(directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let act = || sys::open(directory, path, flags, mode) as c_int;
    let Some(shim) = shim() else { return act() };
    // SAFETY: the caller's path is terminated.
    let name = unsafe { CStr::from_ptr(path) };
    let creates = flags & libc::O_CREAT != 0 && shim.inside(name.to_bytes());
    if !creates {
        let fd = act();
        Shim::forget(fd);
        return fd;
    }
    let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
    let is_new = sys::inode(name).is_none();
    if is_new && shim.fault() == Some(Fault::NoSpace) {
        return sys::fail(libc::ENOSPC) as c_int;
    }
    if is_new {
        shim.record(b'C', parent(name.to_bytes()), (0, 0), name.to_bytes());
    } else if flags & libc::O_TRUNC != 0 {
        let fd = sys::open(directory, path, libc::O_RDONLY | libc::O_CLOEXEC, 0) as c_int;
        if let Some((inode, size, false)) = sys::stat(fd) {
            let old = sys::read_at(fd, 0, size as usize);
            shim.record(b'T', inode, (0, size), &old);
        }
        // SAFETY: opened above, not used any more.
        unsafe { libc::syscall(libc::SYS_close, fd) };
    }
    let fd = act();
    Shim::forget(fd);
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    opened(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    opened(libc::AT_FDCWD, path, flags | libc::O_LARGEFILE, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    opened(dir, path, flags, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    opened(dir, path, flags, mode)
}

#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    Shim::forget(fd);
    // SAFETY: closes what the caller wants closed.
    (unsafe { libc::syscall(libc::SYS_close, fd) }) as c_int
}

fn renamed(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    let act = || {
        // SAFETY: the caller's paths are passed on as they came.
        (unsafe { libc::syscall(libc::SYS_renameat2, from_dir, from, to_dir, to, flags) }) as c_int
    };
    let Some(shim) = shim() else { return act() };
    // SAFETY: the caller's paths are terminated.
    let (old, new) = unsafe { (CStr::from_ptr(from), CStr::from_ptr(to)) };
    if !shim.inside(new.to_bytes()) || sys::inode(old).is_none() {
        return act();
    }
    let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = sys::inode(new).is_some();
    if taken && flags & libc::RENAME_NOREPLACE != 0 {
        return sys::fail(libc::EEXIST) as c_int;
    }
    let backup = if taken { shim.back_up(new) } else { Vec::new() };
    let bytes = [old.to_bytes(), b"\0", new.to_bytes(), b"\0", &backup].concat();
    shim.record(b'R', parent(new.to_bytes()), (0, 0), &bytes);
    act()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    renamed(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(a: c_int, from: *const c_char, b: c_int, to: *const c_char) -> c_int {
    renamed(a, from, b, to, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat2(
    a: c_int,
    from: *const c_char,
    b: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    renamed(a, from, b, to, flags)
}

fn unlinked(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's path is passed on as it came.
    let act = || (unsafe { libc::syscall(libc::SYS_unlinkat, directory, path, flags) }) as c_int;
    let Some(shim) = shim() else { return act() };
    // SAFETY: the caller's path is terminated.
    let name = unsafe { CStr::from_ptr(path) };
    if flags != 0 || !shim.inside(name.to_bytes()) || sys::inode(name).is_none() {
        return act();
    }
    let _order = shim.lock.lock().unwrap_or_else(PoisonError::into_inner);
    let backup = shim.back_up(name);
    let bytes = [name.to_bytes(), b"\0", &backup].concat();
    shim.record(b'U', parent(name.to_bytes()), (0, 0), &bytes);
    act()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    unlinked(libc::AT_FDCWD, path, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    unlinked(directory, path, flags)
}

#[unsafe(no_mangle)]
extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    Shim::forget(new);
    // SAFETY: duplicates what the caller wants duplicated.
    (unsafe { libc::syscall(libc::SYS_dup2, old, new) }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    Shim::forget(new);
    // SAFETY: duplicates what the caller wants duplicated.
    (unsafe { libc::syscall(libc::SYS_dup3, old, new, flags) }) as c_int
}
