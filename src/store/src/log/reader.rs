//! The thread that reads the log.
//!
//! One per store: the engine caches the block it read last per thread without knowing which
//! engine it came from, and a caller's thread must not wait for a panic in it to unwind.
//! The queue of jobs is bounded; whoever asks waits for the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use protobuf::well_known_types::BytesValue;

use super::{Engine, Message, region_of, slot_of};
use crate::codec::Salt;
use crate::error::StoreError;
use crate::record::EntryRecord;
use crate::types::GroupId;

/// Jobs that may wait for the thread.
const JOBS_MAX: usize = 64;

type Job = Box<dyn FnOnce(&Engine) + Send>;

pub(crate) struct Reader {
    jobs: parking_lot::Mutex<Option<SyncSender<Job>>>,
    thread: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Reader {
    pub fn start(engine: Arc<Engine>) -> std::io::Result<Reader> {
        let (jobs, queue): (_, Receiver<Job>) = sync_channel(JOBS_MAX);
        let thread = std::thread::Builder::new().name("store-read".into()).spawn(move || {
            for job in queue {
                job(&engine);
            }
        })?;
        Ok(Reader {
            jobs: parking_lot::Mutex::new(Some(jobs)),
            thread: parking_lot::Mutex::new(Some(thread)),
        })
    }

    /// Runs `job` on the thread. A panic in it is an error here.
    pub fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Engine) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let sender = self.jobs.lock().clone().ok_or(StoreError::Closed)?;
        let (answer, result) = sync_channel(1);
        let boxed: Job = Box::new(move |engine| {
            let outcome = catch_unwind(AssertUnwindSafe(|| job(engine)));
            // The caller waits; if its thread is gone nobody wants the answer.
            let _unwanted = answer.send(outcome);
        });
        sender.send(boxed).map_err(|_| StoreError::Closed)?;
        match result.recv() {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(StoreError::Damaged("reading the log panicked".into())),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Ends the thread once the jobs already there are done.
    pub fn stop(&self) {
        self.jobs.lock().take();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the log reader panicked");
        }
    }
}

/// Reads and verifies the entries of a range: at least one, then as many as fit.
pub(crate) fn fetch(
    engine: &Engine,
    salt: Salt,
    group: GroupId,
    (from, to): (u64, u64),
    bytes_max: u64,
) -> Result<Vec<EntryRecord>, StoreError> {
    let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(u32::MAX as usize);
    let mut messages: Vec<BytesValue> = Vec::new();
    engine
        .fetch_entries_to::<Message>(
            region_of(group),
            slot_of(from),
            slot_of(to),
            Some(limit),
            &mut messages,
        )
        .map_err(|error| StoreError::Damaged(format!("group {group} from {from}: {error}")))?;
    let mut records = Vec::with_capacity(messages.len());
    for (index, message) in (from..to).zip(messages) {
        let record = EntryRecord::decode(salt, &message.value)
            .filter(|record| record.group == group && record.mark.index == index);
        let finding =
            || StoreError::Damaged(format!("group {group}: entry {index} fails its check"));
        records.push(record.ok_or_else(finding)?);
    }
    Ok(records)
}
