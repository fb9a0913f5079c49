//! The disk of a host: real files, written only while the simulated time stands still.
//!
//! `a step of all hosts ─▶ what they queued is written and synced ─▶ the next step`
//!
//! So whatever a step had written is answered in the next one, however long the real disk takes. A
//! host that crashes loses what was queued and not written. A disk that stalls lets nothing through.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ackord_replica::WriterTurns;
use parking_lot::{Condvar, Mutex};

/// Real time that a write may take; then the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    waiting: usize,
    open: bool,
    gone: bool,
}

/// The turns of one life of a host.
#[derive(Default)]
pub struct Disk {
    state: Mutex<State>,
    changed: Condvar,
    /// Requests that a crash left unwritten.
    pub lost: AtomicU64,
    stalled: AtomicBool,
}

impl Disk {
    /// Lets everything that waits be written, and returns when it is.
    pub fn settle(&self) {
        let mut state = self.state.lock();
        if state.waiting == 0 || self.stalled.load(Ordering::Relaxed) {
            return;
        }
        state.open = true;
        self.changed.notify_all();
        while state.waiting > 0 && !state.gone {
            let late = self.changed.wait_for(&mut state, PATIENCE).timed_out();
            assert!(!late, "the disk does not get done with {} requests", state.waiting);
        }
        state.open = false;
    }

    /// The host crashes: what waits is lost.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        self.lost.fetch_add(state.waiting as u64, Ordering::Relaxed);
        state.gone = true;
        self.changed.notify_all();
    }

    /// Whether nothing gets through; what waits is written when it does again.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }
}

impl WriterTurns for Disk {
    fn queued(&self) {
        self.state.lock().waiting += 1;
    }

    fn begin(&self) {
        let mut state = self.state.lock();
        while !state.open && !state.gone {
            self.changed.wait(&mut state);
        }
    }

    fn gone(&self) -> bool {
        self.state.lock().gone
    }

    fn end(&self, requests: usize) {
        let mut state = self.state.lock();
        state.waiting = state.waiting.saturating_sub(requests);
        self.changed.notify_all();
    }
}
