//! The thread that removes log files nothing needs, keeps a spare one ready, and looks how full
//! the disk is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::durable;
use crate::log::{Engine, group_of};
use crate::shared::Shared;

/// How often the disk is looked at, at least.
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// Runs until the store stops or fails.
pub(crate) fn run(shared: &Shared, engine: &Arc<Engine>) {
    let interval = shared.options.purge_interval;
    let look = interval.min(LOOK_INTERVAL_MAX);
    let mut purge_due = Instant::now() + interval;
    loop {
        look_at_disk(shared);
        let outcome = catch_unwind(AssertUnwindSafe(|| tidy(shared, engine, &mut purge_due)));
        let panicked = outcome.is_err().then(|| "purging the log panicked".to_owned());
        if let Some(reason) = shared.health().failure().or(panicked) {
            shared.fail(&reason);
            return;
        }
        let mut stopping = shared.stopping.lock();
        if *stopping {
            return;
        }
        let _woken = shared.stopped.wait_for(&mut stopping, look);
        if *stopping {
            return;
        }
    }
}

pub(crate) fn look_at_disk(shared: &Shared) {
    match durable::free_bytes(&shared.dir) {
        Ok(free) => shared.free_bytes.store(free, Ordering::Relaxed),
        Err(error) => tracing::warn!(%error, "the free space of the disk is unknown"),
    }
}

/// Failures that leave the log as it was, like a disk too full to move old entries, are tried
/// again; those that do not are kept in the files' health.
fn tidy(shared: &Shared, engine: &Engine, purge_due: &mut Instant) {
    if let Err(error) = shared.files.refill_spares() {
        tracing::warn!(%error, "no spare log file");
    }
    if *purge_due > Instant::now() {
        return;
    }
    *purge_due = Instant::now() + shared.options.purge_interval;
    match engine.purge_expired_files() {
        Ok(behind) => {
            let mut laggards = shared.laggards.lock();
            laggards.extend(behind.into_iter().filter_map(group_of));
        }
        Err(error) => tracing::error!(%error, "old log files cannot be removed"),
    }
}
