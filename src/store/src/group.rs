//! One group's log as it stands in memory: where it begins and ends, and its recent entries.
//!
//! Invariants:
//! - `recent` is contiguous and ends with the last entry; it holds every entry that is not
//!   durable yet.
//! - `last_digest` is the digest of the last entry, or of the purge mark, or the start.
//! - `epoch` changes whenever entries vanish, so that a reader that looked at the disk without
//!   the lock knows that it has to look again.

use std::collections::VecDeque;

use crate::error::StoreError;
use crate::record::{self, DIGEST_START, Meta, Tail};
use crate::types::{Entry, GroupId, LogState, Mark};

/// What an entry costs in memory and in the queue beside its data.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 128;

pub(crate) fn cost(entry: &Entry) -> u64 {
    entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES
}

#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub entry: Entry,
    pub digest: u32,
    pub data_crc: u32,
    pub sequence: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub meta: Meta,
    pub committed: Option<Mark>,
    pub last: Option<Mark>,
    pub last_digest: u32,
    /// Where the first entry stands; meaningful while there is an entry.
    pub first: u64,
    pub recent: VecDeque<Recent>,
    /// What `recent` costs.
    pub held_bytes: u64,
    /// Requests up to this one are durable.
    pub durable_sequence: u64,
    pub epoch: u64,
    /// Old entries beyond the end may still lie in the engine, in the way of a log that begins
    /// elsewhere.
    pub engine_used: bool,
}

/// What has to be written for an append.
pub(crate) struct Appended {
    pub entries: Vec<Recent>,
    /// Whether everything the engine has of the group must be dropped first.
    pub drops_all: bool,
}

impl Group {
    pub fn new() -> Group {
        Group { last_digest: DIGEST_START, ..Group::default() }
    }

    pub fn purged(&self) -> Option<Mark> {
        self.meta.purged.map(|(mark, _)| mark)
    }

    pub fn is_empty(&self) -> bool {
        self.last == self.purged()
    }

    pub fn state(&self) -> LogState {
        LogState {
            vote: self.meta.vote.clone(),
            committed: self.committed,
            purged: self.purged(),
            last: self.last,
            extra: self.meta.extra.clone(),
        }
    }

    /// The index of the first entry held in memory; one past the last when none is.
    pub fn recent_from(&self) -> u64 {
        match self.recent.front() {
            Some(recent) => recent.entry.mark.index,
            None => self.last.map_or(0, |mark| mark.index.saturating_add(1)),
        }
    }

    /// The entry at an index, if it is held in memory.
    pub fn recent_at(&self, index: u64) -> Option<&Recent> {
        let at = index.checked_sub(self.recent.front()?.entry.mark.index)?;
        self.recent.get(usize::try_from(at).ok()?)
    }

    /// Takes entries behind the last one.
    pub fn append(
        &mut self,
        group: GroupId,
        sequence: u64,
        entries: Vec<Entry>,
    ) -> Result<Appended, StoreError> {
        let Some(begin) = entries.first().map(|entry| entry.mark.index) else {
            return Err(StoreError::Invalid("an empty append".into()));
        };
        let next = self.last.map_or(begin, |last| last.index.saturating_add(1));
        for (at, entry) in entries.iter().enumerate() {
            if entry.mark.index != next + at as u64 {
                let found = entry.mark.index;
                let text = format!("group {group}: entry {found} where {next}+{at} comes next");
                return Err(StoreError::Invalid(text));
            }
            if entry.data.len() > record::ENTRY_BYTES_MAX {
                let text = format!("group {group}: entry of {} bytes", entry.data.len());
                return Err(StoreError::Invalid(text));
            }
        }
        let drops_all = self.last.is_none() && self.engine_used && begin != self.first;
        if self.is_empty() {
            self.first = begin;
        }
        self.engine_used = true;
        let mut taken = Vec::with_capacity(entries.len());
        for entry in entries {
            let data_crc = crc32fast::hash(&entry.data);
            self.last_digest = record::digest(self.last_digest, &entry.mark, data_crc);
            self.last = Some(entry.mark);
            let recent = Recent { digest: self.last_digest, data_crc, sequence, entry };
            self.held_bytes += cost(&recent.entry);
            self.recent.push_back(recent.clone());
            taken.push(recent);
        }
        Ok(Appended { entries: taken, drops_all })
    }

    /// Removes every entry from `index` on; `before` is the entry that becomes the last, `None`
    /// when it is the purge mark or nothing. Returns the memory that became free.
    pub fn truncate(&mut self, index: u64, before: Option<(Mark, u32)>, sequence: u64) -> u64 {
        let freed = self.forget_from(index);
        let (last, digest) = match before.or(self.meta.purged) {
            Some((mark, digest)) => (Some(mark), digest),
            None => (None, DIGEST_START),
        };
        self.last = last;
        self.last_digest = digest;
        self.meta.tail = Some(Tail { index, sequence });
        self.meta.sequence = sequence;
        self.epoch += 1;
        freed
    }

    /// Removes every entry up to `mark`, whose digest is given. Returns the memory freed.
    pub fn purge(&mut self, mark: Mark, digest: u32, sequence: u64) -> u64 {
        let freed = self.forget_to(mark.index);
        self.meta.purged = Some((mark, digest));
        self.meta.sequence = sequence;
        self.first = mark.index.saturating_add(1);
        self.epoch += 1;
        freed
    }

    /// Drops the whole log, which goes on behind `mark`. Returns the memory freed.
    pub fn reset(&mut self, mark: Mark, sequence: u64) -> u64 {
        let freed = self.forget_from(0);
        let digest = record::digest_after_reset(&mark);
        self.meta.purged = Some((mark, digest));
        self.meta.tail = Some(Tail { index: 0, sequence });
        self.meta.sequence = sequence;
        self.last = Some(mark);
        self.last_digest = digest;
        self.first = mark.index.saturating_add(1);
        self.epoch += 1;
        freed
    }

    fn forget_from(&mut self, index: u64) -> u64 {
        let mut freed = 0;
        while let Some(recent) = self.recent.pop_back_if(|r| r.entry.mark.index >= index) {
            freed += cost(&recent.entry);
        }
        self.held_bytes -= freed;
        freed
    }

    fn forget_to(&mut self, index: u64) -> u64 {
        let mut freed = 0;
        while let Some(recent) = self.recent.pop_front_if(|r| r.entry.mark.index <= index) {
            freed += cost(&recent.entry);
        }
        self.held_bytes -= freed;
        freed
    }

    /// Lets go of durable entries, oldest first, until `excess` bytes are free.
    pub fn evict(&mut self, excess: u64) -> u64 {
        let mut freed = 0;
        let durable = self.durable_sequence;
        while freed < excess {
            let Some(recent) = self.recent.pop_front_if(|r| r.sequence <= durable) else {
                break;
            };
            freed += cost(&recent.entry);
        }
        self.held_bytes -= freed;
        freed
    }
}
