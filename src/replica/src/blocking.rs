//! What waits for the disk, away from the threads that raft runs on.
//!
//! But on a thread that simulates time: there it is done at once, for time stands still meanwhile, and
//! nothing may depend on which of several threads is done first.

use std::cell::Cell;

use tokio::runtime::Handle;
use tokio::task::JoinError;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// From now on the calling thread does such work itself.
pub(crate) fn stay_here() {
    HERE.set(true);
}

/// Does it and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if HERE.get() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Does it, and nobody waits.
pub(crate) fn begin(runtime: &Handle, work: impl FnOnce() + Send + 'static) {
    if HERE.get() {
        return work();
    }
    runtime.spawn_blocking(work);
}
