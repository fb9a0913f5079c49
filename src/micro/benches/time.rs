//! The time of the hot paths, and of the one step that waits for the disk.
//!
//! ```text
//! cargo bench -p ackord-micro --bench time [-- PART_OF_A_NAME]
//! ```

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use ackord_micro::paths;
use ackord_store::{Entry, GroupId, Mark, Store, StoreOptions};
use criterion::{Criterion, criterion_group, criterion_main};

/// Where the log is written: on the disk that has the build.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");
/// Entries of one append.
const ENTRIES: u64 = 64;
/// Bytes of one entry.
const ENTRY_BYTES: usize = 128;
/// Appends after which the log is purged.
const PURGE_EVERY: u64 = 1024;
const GROUP: GroupId = GroupId(1);

/// Every path that computes only.
fn computing(criterion: &mut Criterion) {
    for path in paths() {
        criterion.bench_function(path.name, |bencher| {
            let mut work = (path.prepare)();
            bencher.iter_custom(|rounds| {
                let (mut left, mut taken) = (rounds, Duration::ZERO);
                while left > 0 {
                    let now = left.min(work.ready() as u64);
                    let begin = Instant::now();
                    (0..now).for_each(|_| work.round());
                    taken += begin.elapsed();
                    left -= now;
                }
                taken
            });
        });
    }
}

/// A log that is written to.
struct Log {
    store: Store,
    next: u64,
}

impl Log {
    fn open(folder: &Path) -> Self {
        let store = Store::open(StoreOptions::new(folder)).expect("the store opens");
        Self { store, next: 1 }
    }

    fn entry(&mut self) -> Entry {
        let mark = Mark { term: 1, node: 1, index: self.next };
        self.next += 1;
        Entry { mark, data: vec![b'x'; ENTRY_BYTES].into() }
    }

    /// Appends and waits until everything is synced.
    fn append(&self, entries: Vec<Entry>) {
        let (done, told) = sync_channel(1);
        let tell = Box::new(move |result| drop(done.send(result)));
        self.store.append(GROUP, entries, tell);
        told.recv().expect("it is told").expect("it is durable");
    }

    fn purge(&self) {
        let (done, told) = sync_channel(1);
        let tell = Box::new(move |result| drop(done.send(result)));
        self.store.purge_to(GROUP, Mark { term: 1, node: 1, index: self.next - 1 }, tell);
        told.recv().expect("it is told").expect("it is purged");
    }
}

/// An append of many entries with its sync.
fn log_write(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in(FOLDER).expect("a temporary directory");
    let mut log = Log::open(folder.path());
    let mut appended = 0;
    criterion.bench_function("log_write_64", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut taken = Duration::ZERO;
            for _ in 0..rounds {
                let entries = (0..ENTRIES).map(|_| log.entry()).collect();
                let begin = Instant::now();
                log.append(entries);
                taken += begin.elapsed();
                appended += 1;
                if appended % PURGE_EVERY == 0 {
                    log.purge();
                }
            }
            taken
        });
    });
    log.store.close().expect("the store closes");
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

criterion_group!(name = all; config = short(); targets = computing, log_write);
criterion_main!(all);
