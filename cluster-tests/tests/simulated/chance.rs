//! Every random byte of a run, from its seed: what asks the system for entropy on the thread of the
//! simulation (hash maps, tokio, openraft's election timeouts, tokens) is given that instead.

#![expect(unsafe_code, reason = "the C library's entropy is replaced")]

use std::cell::Cell;

use cluster_tests::seed::Seed;

thread_local! {
    static SOURCE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on the thread's entropy comes from this seed. To be called first on a new thread: whatever
/// has taken entropy before goes on with that.
pub fn begin(seed: u64) {
    SOURCE.set(Some(seed));
}

/// In place of the C library's.
///
/// # Safety
/// `into` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(
    into: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let Ok(Some(number)) = SOURCE.try_with(Cell::get) else {
        // SAFETY: as it was called.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, into, length, flags) };
        return got as libc::ssize_t;
    };
    let mut seed = Seed::new(number);
    // SAFETY: the caller says that there is room.
    let bytes = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), length) };
    for piece in bytes.chunks_mut(8) {
        let word = seed.bits().to_le_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
    SOURCE.set(Some(seed.bits()));
    length as libc::ssize_t
}
