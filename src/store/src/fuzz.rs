//! The decoders of the disk for the fuzz targets. No part of the interface.
//!
//! Nothing here may panic, whatever the bytes. What has a checksum is looked at as it is and under
//! a right checksum, so that what is behind it is reached too.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::checkpoint::row::{self, Joiner};
use crate::codec::{Encoder, checksum};
use crate::high_water::{self, GroupWater, Water};
use crate::log::batch;
use crate::record::{self, BatchRecord, EntryRecord, Meta, MetaRecord, Record, Tail};
use crate::snapshot::file::{self, Builder, Walker};
use crate::types::{GroupId, Identity, Mark};

const SALT: u64 = 7;
const GROUP: GroupId = GroupId(3);
/// The number of the log file that a batch is in.
const FILE: u64 = 5;

/// Records anywhere among bytes; the first byte is the kind of one that verifies.
pub fn log_records(data: &[u8]) {
    for (at, record) in Record::find_all(SALT, data) {
        let again = match &record {
            Record::Entry(record) => record.encode(SALT),
            Record::Meta(record) => record.encode(SALT),
            Record::Batch(record) => record.encode(SALT),
        };
        let found = Record::find_all(SALT, &again);
        assert_eq!(found, [(0, record)], "the record at {at} is another one when written again");
    }
    let Some((kind, body)) = data.split_first() else { return };
    let framed = record::framed(SALT, *kind, body);
    let found = Record::find_all(SALT, &framed);
    assert!(found.len() <= framed.len());
    let _decoded = (
        EntryRecord::decode(SALT, &framed),
        MetaRecord::decode(SALT, &framed),
        BatchRecord::decode(SALT, &framed),
    );
    let _index = EntryRecord::index_of(data);
}

/// A batch of the log's engine; the first byte says how much of the rest are its entries.
pub fn log_batch(data: &[u8]) {
    let _as_it_is = batch::decode(data, FILE);
    let _message = batch::message_value(data);
    let _head = batch::has_file_head(data);
    let Some((share, rest)) = data.split_first() else { return };
    let (entries, items) = rest.split_at(rest.len() * usize::from(*share) / 256);
    let raw = sealed_batch(entries, items);
    if let Some((items, length)) = batch::decode(&raw, FILE) {
        assert_eq!(length, raw.len());
        assert!(items.len() <= raw.len());
    }
}

fn sealed_batch(entries: &[u8], items: &[u8]) -> Vec<u8> {
    let mut block = entries.to_vec();
    if !entries.is_empty() {
        block.extend_from_slice(&crc32fast::hash(entries).to_le_bytes());
    }
    let footer_at = batch::BATCH_HEAD_BYTES + block.len();
    let length = footer_at + items.len() + 4;
    let mut raw = ((length as u64) << 8).to_be_bytes().to_vec();
    raw.extend_from_slice(&(footer_at as u64).to_be_bytes());
    raw.extend_from_slice(&block);
    raw.extend_from_slice(items);
    raw.extend_from_slice(&(crc32fast::hash(items) ^ FILE as u32).to_le_bytes());
    raw
}

/// A slot of the high-water file, and its content.
pub fn high_water(data: &[u8]) {
    let _as_it_is = high_water::parse_slot(data);
    if let Some((turn, water)) = high_water::parse_slot(&high_water::seal(1, data)) {
        let again = high_water::parse_slot(&high_water::seal(turn, &water.encode()));
        assert!(again == Some((turn, water)), "it is another one when written again");
    }
}

/// The file of a snapshot, and the content of a chunk.
pub fn snapshot_file(data: &[u8]) {
    walk(data);
    let (builder, mut whole) = Builder::new(GROUP, "id");
    let head = whole.clone();
    walk(&[&head[..], &file::frame(file::KIND_CHUNK, 0, data)].concat());
    let mut builder = builder;
    let records: Vec<&[u8]> = data.chunks(97).collect();
    for record in &records {
        whole.extend(builder.put(record).unwrap_or_default());
    }
    whole.extend(builder.finish(b"meta"));
    assert_eq!(walk(&whole), Some(records.len()), "what was written can be read");
}

/// How many records a file has, if it is whole.
fn walk(raw: &[u8]) -> Option<usize> {
    let (mut walker, _id) = Walker::open(raw, GROUP).ok()?;
    let mut records = 0;
    while walker.next_record().ok()?.is_some() {
        records += 1;
    }
    Some(records)
}

/// Pieces of rows in a checkpoint: keys and values, each behind its length.
pub fn checkpoint_pieces(data: &[u8]) {
    let mut sealed = Joiner::new(SALT);
    let mut as_it_is = Joiner::new(SALT);
    let mut rest = data;
    while let Some((lengths, more)) = rest.split_first_chunk::<2>() {
        let (key, more) = more.split_at(usize::from(lengths[0]).min(more.len()));
        let (value, more) = more.split_at(usize::from(lengths[1]).min(more.len()));
        let mut stored = Encoder::default();
        stored.u32(checksum(SALT, &[key, value]));
        stored.raw(value);
        if let Some(Some(joined)) = sealed.push(key, &stored.0) {
            assert_eq!(joined.head.hash, row::row_hash(&joined.key, &joined.value));
        }
        let _unsealed = as_it_is.push(key, value);
        rest = more;
    }
    let _complete = sealed.is_complete();
}

/// Inputs that are what the disk holds: the target, a name, the bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mark = Mark { term: 3, node: 2, index: 5 };
    let data = Bytes::from_static(b"an entry");
    let data_crc = crc32fast::hash(&data);
    let digest = record::digest(record::DIGEST_START, &mark, data_crc);
    let entry =
        EntryRecord { group: GROUP, mark, number: 11, sequence: 13, digest, data_crc, data };
    let meta = Meta {
        sequence: 9,
        vote: Some(Bytes::from_static(b"vote")),
        extra: Some(Bytes::from_static(b"extra")),
        purged: Some((mark, 77)),
        tail: Some(Tail { index: 8, sequence: 6 }),
    };
    let meta = MetaRecord { group: GROUP, number: 4, meta }.encode(SALT);
    let batch = BatchRecord { number: 12, sequence: 14 }.encode(SALT);
    let body = |record: &[u8]| [&record[4..5], &record[9..record.len() - 4]].concat();
    let facts = GroupWater {
        last: Some(mark),
        purged: Some(mark),
        committed: None,
        vote: Some(Bytes::from_static(b"vote")),
        meta_sequence: 1,
        checkpoint: 2,
    };
    let mut water = Water::new(Identity { cluster: [7; 16], node: 3 }, SALT);
    water.groups = BTreeMap::from([(GROUP, facts.clone()), (GroupId(9), facts)]);
    let (mut builder, mut snapshot) = Builder::new(GROUP, "id");
    snapshot.extend(builder.put(b"a record").unwrap_or_default());
    snapshot.extend(builder.finish(b"meta"));
    // One group with one entry, a key and value, and a compaction.
    let items = [3, 3, 1, 1, 5, 8, 3, 3, 1, 1, b'm', 1, b'v', 3, 2, 2, 4].to_vec();
    let engine = sealed_batch(b"an entry", &items);
    let head = row::Head { pieces: 1, hash: row::row_hash(b"key", b"value") };
    let mut pieces = Vec::new();
    for (key, stored) in row::split(SALT, (GROUP, row::TAG_ROW), b"key", b"value", head) {
        pieces.extend([key.len() as u8, stored.len() as u8 - 4]);
        pieces.extend(key);
        pieces.extend(&stored[4..]);
    }
    vec![
        ("log_records", "entry", entry.encode(SALT)),
        ("log_records", "meta", meta.clone()),
        ("log_records", "batch", batch.clone()),
        ("log_records", "meta-body", body(&meta)),
        ("log_records", "batch-body", body(&batch)),
        ("log_batch", "whole", engine),
        ("log_batch", "parts", [&[84][..], b"an entry", &items].concat()),
        ("log_batch", "message", vec![0x0a, 3, b'a', b'b', b'c']),
        ("high_water", "content", water.encode()),
        ("high_water", "slot", high_water::seal(1, &water.encode())),
        ("snapshot_file", "whole", snapshot),
        ("snapshot_file", "chunk", b"\x08\0\0\0a record\0\0\0\0".to_vec()),
        ("checkpoint_pieces", "row", pieces),
    ]
}
