//! Every size and interval of the store, with the defaults of a small node.
//!
//! A default node prewrites one log file at its first start and keeps one spare: 64 MiB in all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Salt;
use crate::types::Identity;

const MIB: u64 = 1024 * 1024;

/// Told once when a write or a sync failed and the process must stop.
pub type FatalHook = Arc<dyn Fn(&str) + Send + Sync>;

/// Says when the log writer may write; a simulation, whose time must stand still meanwhile.
pub trait WriterTurns: Send + Sync {
    /// One more request waits for the writer.
    fn queued(&self);
    /// The writer has something to write: returns when it may.
    fn begin(&self);
    /// Whether the process is as good as killed: nothing is written any more.
    fn gone(&self) -> bool;
    /// So many requests are written, and whoever waited for them has been told.
    fn end(&self, requests: usize);
}

/// How to open a [`crate::Store`].
#[derive(Clone)]
pub struct StoreOptions {
    /// The data directory; created when missing.
    pub dir: PathBuf,
    /// Whose directory it is to be. `None`: whoever it belongs to; a new one gets a random
    /// cluster and node 1.
    pub identity: Option<Identity>,
    /// The size at which a log file is full, and to which new ones are written in advance.
    pub log_file_bytes: u64,
    /// The log is compacted when its files outgrow this.
    pub log_purge_bytes: u64,
    /// How often files no entry needs any more are looked for.
    pub purge_interval: Duration,
    /// The most bytes that wait for the writer.
    pub queue_bytes_max: u64,
    /// The most requests that wait for the writer.
    pub queue_count_max: usize,
    /// The most bytes of one write and sync, but for a single larger request.
    pub batch_bytes_max: u64,
    /// The most bytes of recent, already durable entries kept in memory, over all groups.
    pub recent_bytes_max: u64,
    /// How far the high-water file may lag behind.
    pub high_water_interval: Duration,
    /// New events are not admitted when the disk has less than this left.
    pub reserve_bytes: u64,
    /// The cache of the checkpoint database.
    pub checkpoint_cache_bytes: u64,
    /// A checkpoint database larger than this, and four times larger than what is in it, is
    /// written anew when it is opened.
    pub checkpoint_rewrite_bytes: u64,
    /// How long opening the checkpoint database may take before it counts as damaged.
    pub checkpoint_open_limit: Duration,
    /// Told once when the store failed.
    pub on_fatal: Option<FatalHook>,
    /// Asked before each batch; `None`: at once.
    pub turns: Option<Arc<dyn WriterTurns>>,
    /// The salt of a new directory, when it is to hold what another one held.
    pub(crate) salt: Option<Salt>,
}

impl StoreOptions {
    /// The defaults of a small node in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        StoreOptions {
            dir: dir.into(),
            identity: None,
            log_file_bytes: 32 * MIB,
            log_purge_bytes: 256 * MIB,
            purge_interval: Duration::from_secs(2),
            queue_bytes_max: 64 * MIB,
            queue_count_max: 16 * 1024,
            batch_bytes_max: 4 * MIB,
            recent_bytes_max: 64 * MIB,
            high_water_interval: Duration::from_millis(150),
            reserve_bytes: 256 * MIB,
            checkpoint_cache_bytes: 4 * MIB,
            checkpoint_rewrite_bytes: 512 * MIB,
            checkpoint_open_limit: Duration::from_secs(60),
            on_fatal: None,
            turns: None,
            salt: None,
        }
    }

    /// Small files and short intervals, for tests.
    pub fn small(dir: impl Into<PathBuf>) -> Self {
        StoreOptions {
            log_file_bytes: 64 * 1024,
            log_purge_bytes: 256 * 1024,
            purge_interval: Duration::from_millis(50),
            recent_bytes_max: 64 * 1024,
            reserve_bytes: MIB,
            checkpoint_cache_bytes: MIB,
            ..StoreOptions::new(dir)
        }
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("dir", &self.dir)
            .field("identity", &self.identity)
            .field("log_file_bytes", &self.log_file_bytes)
            .field("log_purge_bytes", &self.log_purge_bytes)
            .finish_non_exhaustive()
    }
}
