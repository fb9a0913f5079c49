//! What the log holds, byte for byte: entries, group metadata, batch marks.
//!
//! Invariants:
//! - Every record begins with [`MAGIC`] and verifies by itself (salted CRC), so a raw search of
//!   a file finds records wherever they are, whatever the framing around them says.
//! - Every record carries the number of the batch that wrote it. Batch numbers grow by one over
//!   the whole node and are never reused after a sync.
//! - The digests of a group's entries form a chain: each covers the one before. A hole, a swap or
//!   the return of an overwritten entry breaks it.

use bytes::Bytes;

use crate::codec::{Decoder, Encoder, Salt, checksum};
use crate::types::{GroupId, Mark};

pub(crate) const MAGIC: [u8; 4] = [0xA7, b'A', b'K', 0x1D];

const KIND_ENTRY: u8 = 1;
const KIND_META: u8 = 2;
const KIND_BATCH: u8 = 3;

/// Bytes of an entry's record before its data.
pub(crate) const ENTRY_HEAD_BYTES: usize = 4 + 1 + 4 + 24 + 8 + 8 + 4 + 4 + 4 + 4;
/// Where the index of an entry stands in its record.
const ENTRY_INDEX_AT: usize = 4 + 1 + 4 + 16;

/// The most bytes of one entry.
pub(crate) const ENTRY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most bytes of a vote.
pub(crate) const VOTE_BYTES_MAX: usize = 256;
/// The most bytes of a group's extra.
pub(crate) const EXTRA_BYTES_MAX: usize = 4096;

/// The digest before the first entry of a log.
pub(crate) const DIGEST_START: u32 = 0x5EED_0001;
const DIGEST_RESET: u32 = 0x5EED_0002;

/// The digest of an entry, given the one before it.
pub(crate) fn digest(before: u32, mark: &Mark, data_crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(&mark.term.to_le_bytes());
    hasher.update(&mark.node.to_le_bytes());
    hasher.update(&mark.index.to_le_bytes());
    hasher.update(&data_crc.to_le_bytes());
    hasher.finalize()
}

/// The digest at a purge mark whose entry this log never held.
pub(crate) fn digest_after_reset(mark: &Mark) -> u32 {
    digest(DIGEST_RESET, mark, 0)
}

/// One entry with everything that proves its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryRecord {
    pub group: GroupId,
    pub mark: Mark,
    /// The batch that wrote it.
    pub number: u64,
    /// The request that appended it, in order over the whole node.
    pub sequence: u64,
    pub digest: u32,
    pub data_crc: u32,
    pub data: Bytes,
}

impl EntryRecord {
    pub fn encode(&self, salt: Salt) -> Vec<u8> {
        let mut out = Encoder(Vec::with_capacity(ENTRY_HEAD_BYTES + self.data.len()));
        out.raw(&MAGIC);
        out.u8(KIND_ENTRY);
        out.u32(self.group.0);
        out.mark(&self.mark);
        out.u64(self.number);
        out.u64(self.sequence);
        // Bounded by ENTRY_BYTES_MAX when it was taken.
        out.u32(self.data.len() as u32);
        out.u32(self.data_crc);
        out.u32(self.digest);
        let crc = checksum(salt, &[&out.0]);
        out.u32(crc);
        out.raw(&self.data);
        out.0
    }

    fn decode_prefix(salt: Salt, raw: &[u8]) -> Option<(EntryRecord, usize)> {
        let head = raw.get(..ENTRY_HEAD_BYTES)?;
        let mut input = Decoder(head);
        if input.raw(4)? != MAGIC || input.u8()? != KIND_ENTRY {
            return None;
        }
        let group = GroupId(input.u32()?);
        let mark = input.mark()?;
        let number = input.u64()?;
        let sequence = input.u64()?;
        let len = input.u32()? as usize;
        let data_crc = input.u32()?;
        let digest = input.u32()?;
        if input.u32()? != checksum(salt, &[&head[..ENTRY_HEAD_BYTES - 4]]) {
            return None;
        }
        let end = ENTRY_HEAD_BYTES.checked_add(len)?;
        let data = raw.get(ENTRY_HEAD_BYTES..end)?;
        if crc32fast::hash(data) != data_crc {
            return None;
        }
        let record = EntryRecord {
            group,
            mark,
            number,
            sequence,
            digest,
            data_crc,
            data: Bytes::copy_from_slice(data),
        };
        Some((record, end))
    }

    /// Decodes and verifies a whole record.
    pub fn decode(salt: Salt, raw: &[u8]) -> Option<EntryRecord> {
        let (record, used) = Self::decode_prefix(salt, raw)?;
        (used == raw.len()).then_some(record)
    }

    /// The index of an entry's record, without verifying it.
    pub fn index_of(raw: &[u8]) -> u64 {
        raw.get(ENTRY_INDEX_AT..).and_then(|rest| Decoder(rest).u64()).unwrap_or(u64::MAX)
    }
}

/// Entries from `index` on that were appended by a request before `sequence` do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub index: u64,
    pub sequence: u64,
}

/// Everything about a group's log that is not an entry. Written as a whole, so the newest one
/// says everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The request that wrote it.
    pub sequence: u64,
    pub vote: Option<Bytes>,
    pub extra: Option<Bytes>,
    /// The last purged entry and its digest.
    pub purged: Option<(Mark, u32)>,
    pub tail: Option<Tail>,
}

/// A group's metadata as written by one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetaRecord {
    pub group: GroupId,
    pub number: u64,
    pub meta: Meta,
}

impl MetaRecord {
    pub fn encode(&self, salt: Salt) -> Vec<u8> {
        let mut body = Encoder::default();
        body.u32(self.group.0);
        body.u64(self.number);
        body.u64(self.meta.sequence);
        body.optional_bytes(self.meta.vote.as_ref());
        body.optional_bytes(self.meta.extra.as_ref());
        body.optional_mark(self.meta.purged.as_ref().map(|(mark, _)| mark));
        body.u32(self.meta.purged.map_or(0, |(_, digest)| digest));
        let tail = self.meta.tail.unwrap_or(Tail { index: 0, sequence: 0 });
        body.u64(tail.index);
        body.u64(tail.sequence);
        framed(salt, KIND_META, &body.0)
    }

    fn decode_body(raw: &[u8]) -> Option<MetaRecord> {
        let mut input = Decoder(raw);
        let group = GroupId(input.u32()?);
        let number = input.u64()?;
        let sequence = input.u64()?;
        let vote = input.optional_bytes()?;
        let extra = input.optional_bytes()?;
        let purged = input.optional_mark()?;
        let digest = input.u32()?;
        let tail = Tail { index: input.u64()?, sequence: input.u64()? };
        input.end()?;
        Some(MetaRecord {
            group,
            number,
            meta: Meta {
                sequence,
                vote,
                extra,
                purged: purged.map(|mark| (mark, digest)),
                tail: (tail.sequence != 0).then_some(tail),
            },
        })
    }

    pub fn decode(salt: Salt, raw: &[u8]) -> Option<MetaRecord> {
        match Record::decode_prefix(salt, raw)? {
            (Record::Meta(record), used) if used == raw.len() => Some(record),
            (Record::Meta(_) | Record::Entry(_) | Record::Batch(_), _) => None,
        }
    }
}

/// In every batch, once: its number, and the highest request number up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchRecord {
    pub number: u64,
    pub sequence: u64,
}

impl BatchRecord {
    pub fn encode(&self, salt: Salt) -> Vec<u8> {
        let mut body = Encoder::default();
        body.u64(self.number);
        body.u64(self.sequence);
        framed(salt, KIND_BATCH, &body.0)
    }

    fn decode_body(raw: &[u8]) -> Option<BatchRecord> {
        let mut input = Decoder(raw);
        let record = BatchRecord { number: input.u64()?, sequence: input.u64()? };
        input.end()?;
        Some(record)
    }

    pub fn decode(salt: Salt, raw: &[u8]) -> Option<BatchRecord> {
        match Record::decode_prefix(salt, raw)? {
            (Record::Batch(record), used) if used == raw.len() => Some(record),
            (Record::Meta(_) | Record::Entry(_) | Record::Batch(_), _) => None,
        }
    }
}

pub(crate) fn framed(salt: Salt, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Encoder(Vec::with_capacity(body.len() + 13));
    out.raw(&MAGIC);
    out.u8(kind);
    out.bytes(body);
    let crc = checksum(salt, &[&out.0]);
    out.u32(crc);
    out.0
}

/// Any record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Entry(EntryRecord),
    Meta(MetaRecord),
    Batch(BatchRecord),
}

impl Record {
    pub fn number(&self) -> u64 {
        match self {
            Record::Entry(record) => record.number,
            Record::Meta(record) => record.number,
            Record::Batch(record) => record.number,
        }
    }

    fn decode_prefix(salt: Salt, raw: &[u8]) -> Option<(Record, usize)> {
        let mut input = Decoder(raw);
        if input.raw(4)? != MAGIC {
            return None;
        }
        match input.u8()? {
            KIND_ENTRY => {
                let (record, used) = EntryRecord::decode_prefix(salt, raw)?;
                Some((Record::Entry(record), used))
            }
            kind @ (KIND_META | KIND_BATCH) => {
                let body = input.bytes()?;
                let framed = raw.len() - input.0.len();
                if input.u32()? != checksum(salt, &[&raw[..framed]]) {
                    return None;
                }
                let record = match kind {
                    KIND_META => Record::Meta(MetaRecord::decode_body(body)?),
                    _ => Record::Batch(BatchRecord::decode_body(body)?),
                };
                Some((record, framed + 4))
            }
            _ => None,
        }
    }

    /// Every record that verifies anywhere in `raw`, with its offset.
    pub fn find_all(salt: Salt, raw: &[u8]) -> Vec<(usize, Record)> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(step) = raw[at..].iter().position(|byte| *byte == MAGIC[0]) {
            at += step;
            match Record::decode_prefix(salt, &raw[at..]) {
                Some((record, used)) => {
                    found.push((at, record));
                    at += used;
                }
                None => at += 1,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, data: &'static [u8]) -> EntryRecord {
        let mark = Mark { term: 3, node: 2, index };
        let data_crc = crc32fast::hash(data);
        EntryRecord {
            group: GroupId(7),
            mark,
            number: 11,
            sequence: 13,
            digest: digest(DIGEST_START, &mark, data_crc),
            data_crc,
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn records_survive_and_flipped_bits_do_not() {
        let meta = MetaRecord {
            group: GroupId(1),
            number: 4,
            meta: Meta {
                sequence: 9,
                vote: Some(Bytes::from_static(b"vote")),
                extra: None,
                purged: Some((entry(5, b"").mark, 77)),
                tail: Some(Tail { index: 8, sequence: 6 }),
            },
        };
        let raw = meta.encode(1);
        assert_eq!(MetaRecord::decode(1, &raw), Some(meta));
        let e = entry(5, b"hello");
        let raw_entry = e.encode(1);
        assert_eq!(EntryRecord::decode(1, &raw_entry), Some(e));
        assert_eq!(EntryRecord::index_of(&raw_entry), 5);
        assert_eq!(EntryRecord::decode(2, &raw_entry), None, "another salt");
        for raw in [raw, raw_entry] {
            for bit in 0..raw.len() * 8 {
                let mut bad = raw.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode_prefix(1, &bad), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_raw_search_finds_records_between_garbage() {
        let mut raw = vec![MAGIC[0], 1, 2, MAGIC[0]];
        raw.extend(entry(1, b"one").encode(5));
        raw.extend([0; 100]);
        raw.extend(BatchRecord { number: 12, sequence: 14 }.encode(5));
        raw.push(MAGIC[0]);
        let numbers: Vec<u64> =
            Record::find_all(5, &raw).iter().map(|(_, record)| record.number()).collect();
        assert_eq!(numbers, [11, 12]);
    }
}
