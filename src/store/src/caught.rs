//! Panics of the libraries below, which the store turns into damage or into a failed close.
//!
//! A process may end itself from its panic hook. The hook runs before a panic is caught, so it can ask
//! here whether that is what will happen.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// How many calls of [`caught`] the thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

struct Inside;

impl Inside {
    fn begin() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Runs `work`; `None` when it panicked. Whatever it changed is not to be used then.
pub(crate) fn caught<R>(work: impl FnOnce() -> R) -> Option<R> {
    let _inside = Inside::begin();
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Whether a panic on this thread would be caught by the store and be told as damage, or as an
/// error: for a panic hook that ends the process, which must not do that then.
pub fn catches_panics() -> bool {
    DEPTH.try_with(Cell::get).is_ok_and(|depth| depth > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_inside_and_only_there() {
        assert!(!catches_panics());
        let inner = || {
            assert_eq!(caught(|| panic!("once")), None::<()>);
            catches_panics()
        };
        assert_eq!(caught(inner), Some(true), "the outer call goes on");
        assert!(!catches_panics());
        assert_eq!(caught(|| std::thread::spawn(catches_panics).join().unwrap()), Some(false));
    }
}
