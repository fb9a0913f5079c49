//! The wall clock, ahead or behind by what a file says.

use std::ffi::CString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use libc::{c_int, clockid_t, timespec};

use crate::journal::variable;
use crate::sys;

/// How often the file is looked at, nanoseconds.
const LOOK_NS: u64 = 5_000_000;
const NS_PER_MS: i64 = 1_000_000;
const NS_PER_S: i64 = 1_000_000_000;

/// Asks the system for a clock.
fn ask(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the caller's memory is passed on as it came.
    (unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) }) as c_int
}

/// By how much the wall clock is ahead, milliseconds.
fn ahead_ms() -> i64 {
    static FILE: OnceLock<Option<CString>> = OnceLock::new();
    static AHEAD_MS: AtomicI64 = AtomicI64::new(0);
    static LOOKED_NS: AtomicU64 = AtomicU64::new(0);
    let Some(path) = FILE.get_or_init(|| variable(c"CLOCK_SHIM_FILE")) else { return 0 };
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    ask(libc::CLOCK_MONOTONIC, &raw mut now);
    let now = (now.tv_sec * NS_PER_S + now.tv_nsec) as u64;
    let looked = LOOKED_NS.load(Ordering::Relaxed);
    if looked == 0 || now.saturating_sub(looked) > LOOK_NS {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let file = sys::open(libc::AT_FDCWD, path.as_ptr(), flags, 0) as c_int;
        if file >= 0 {
            let text = sys::read_at(file, 0, 32);
            // SAFETY: the descriptor was opened above and is not used any more.
            unsafe { libc::syscall(libc::SYS_close, file) };
            if let Ok(ahead) = String::from_utf8_lossy(&text).trim().parse() {
                AHEAD_MS.store(ahead, Ordering::Relaxed);
            }
        }
        LOOKED_NS.store(now, Ordering::Relaxed);
    }
    AHEAD_MS.load(Ordering::Relaxed)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let answer = ask(clock, time);
    if answer == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the system has just written there.
        let time = unsafe { &mut *time };
        let ns = time.tv_sec * NS_PER_S + time.tv_nsec + ahead_ms() * NS_PER_MS;
        (time.tv_sec, time.tv_nsec) = (ns.div_euclid(NS_PER_S), ns.rem_euclid(NS_PER_S));
    }
    answer
}
