//! Raw system calls: what the shim itself uses, so that it never re-enters its own replacements.

use libc::{c_char, c_int, c_long, off_t};

/// The result of a raw call in the C convention: -1 with `errno` set, or the value.
pub type Raw = c_long;

/// Reads a region through a descriptor that may be write-only; short at the end of the file.
pub fn read_through(fd: c_int, offset: u64, length: usize) -> Vec<u8> {
    let Ok(link) = std::ffi::CString::new(format!("/proc/self/fd/{fd}")) else { return Vec::new() };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let reader = open(libc::AT_FDCWD, link.as_ptr(), flags, 0) as c_int;
    let bytes = read_at(reader, offset, length);
    // SAFETY: opened above, not used any more.
    unsafe { libc::syscall(libc::SYS_close, reader) };
    bytes
}

/// `pread` of a whole region; short at the end of the file.
pub fn read_at(fd: c_int, offset: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0_u8; length];
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        // SAFETY: the buffer has `length - done` bytes left behind `done`.
        let got = unsafe {
            libc::syscall(
                libc::SYS_pread64,
                fd,
                buffer.as_mut_ptr().add(done),
                length - done,
                at as off_t,
            )
        };
        if got <= 0 {
            break;
        }
        done += got as usize;
    }
    buffer.truncate(done);
    buffer
}

/// `write` of a whole buffer to an append-only descriptor.
pub fn append(fd: c_int, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        // SAFETY: the buffer has `len - done` bytes left behind `done`.
        let put = unsafe {
            libc::syscall(libc::SYS_write, fd, bytes.as_ptr().add(done), bytes.len() - done)
        };
        if put <= 0 {
            break;
        }
        done += put as usize;
    }
}

/// What `fstat` says: (inode, size, is a directory).
pub fn stat(fd: c_int) -> Option<(u64, u64, bool)> {
    // SAFETY: an all-zero `stat` is a valid value that the call overwrites.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` outlives the call.
    let rc = unsafe { libc::syscall(libc::SYS_fstat, fd, &raw mut status) };
    let is_directory = status.st_mode & libc::S_IFMT == libc::S_IFDIR;
    (rc == 0).then_some((status.st_ino, status.st_size as u64, is_directory))
}

/// What `stat` says about a path: its inode.
pub fn inode(path: &std::ffi::CStr) -> Option<u64> {
    // SAFETY: an all-zero `stat` is a valid value that the call overwrites.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: path is terminated; `status` outlives the call.
    let rc = unsafe { libc::syscall(libc::SYS_stat, path.as_ptr(), &raw mut status) };
    (rc == 0).then_some(status.st_ino)
}

/// The path behind a descriptor.
pub fn path_of(fd: c_int) -> Option<Vec<u8>> {
    let link = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let mut buffer = vec![0_u8; 4096];
    // SAFETY: the buffer has the given size.
    let length = unsafe {
        libc::syscall(libc::SYS_readlink, link.as_ptr(), buffer.as_mut_ptr(), buffer.len())
    };
    (length > 0).then(|| {
        buffer.truncate(length as usize);
        buffer
    })
}

/// `openat` without interposition.
pub fn open(directory: c_int, path: *const c_char, flags: c_int, mode: u32) -> Raw {
    // SAFETY: the caller's path is passed on as it came.
    unsafe { libc::syscall(libc::SYS_openat, directory, path, flags, mode) }
}

/// Sets `errno` and answers -1.
pub fn fail(errno: c_int) -> Raw {
    // SAFETY: the location of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = errno };
    -1
}
