//! Whether other nodes wait for what a leader commits.
//!
//! `forwarded commands, read indices ─▶ noted ─▶ lately? ─▶ a commit is told at once, or with what follows`
//!
//! A leader tells the others what is committed with its next entry; when none follows, with a message of
//! its own, which costs as much as an entry does without its sync. While entries follow each other that
//! message can wait for the next of them, unless somebody on another node waits for the commit itself.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a node that waited for something is taken to wait for more.
const LATELY: Duration = Duration::from_millis(100);

/// Notes that others wait. One per partition.
#[derive(Default)]
pub(crate) struct Listeners {
    last: Mutex<Option<Instant>>,
}

impl Listeners {
    /// Another node waits for what is committed here.
    pub(crate) fn note(&self) {
        *self.last.lock() = Some(Instant::now());
    }

    /// Whether one did lately.
    pub(crate) fn lately(&self) -> bool {
        self.last.lock().is_some_and(|last| last.elapsed() < LATELY)
    }
}
