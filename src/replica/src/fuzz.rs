//! The decoders of this crate for the fuzz targets. No part of the interface.
//!
//! Nothing here may panic, whatever the bytes.

use ackord_machine::site::{Batch, Command, Row, Stamp, State, Write, encode_batch, encode_row};
use ackord_store::{Entry, Mark};
use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::{BasicNode, Membership};

use crate::checkpoint::Meta;
use crate::peer;
use crate::snapshot::for_each_row;
use crate::types::{decode_entry, decode_versioned, encode_entry, encode_versioned};

const MARK: Mark = Mark { term: 3, node: 0, index: 7 };

/// A message of another node; the first byte says of which kind.
pub fn envelope(data: &[u8]) {
    peer::fuzz::envelope(data);
}

/// The first words of a connection between nodes.
pub fn greeting(data: &[u8]) {
    peer::fuzz::greeting(data);
}

/// The data of a log entry, and what a checkpoint or snapshot says about itself.
pub fn log_entry(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(entry) = decode_entry(&Entry { mark: MARK, data: bytes })
        && let Ok(stored) = encode_entry(&entry)
    {
        // A longer way to write the same is understood, but not used.
        let again = decode_entry(&stored).map(|entry| format!("{entry:?}"));
        assert_eq!(again.ok(), Some(format!("{entry:?}")), "it is another one when written again");
    }
    if let Ok(meta) = decode_versioned::<Meta>(data, "meta")
        && let Ok(again) = encode_versioned(&meta)
    {
        assert_eq!(decode_versioned::<Meta>(&again, "meta").ok(), Some(meta));
    }
}

/// A record of a snapshot. The state that it makes is one of its rows alone.
pub fn snapshot_record(data: &[u8]) {
    let mut state = State::new();
    let take = |row| state.absorb(&Write::Put(row));
    if for_each_row(Bytes::copy_from_slice(data), take).is_ok() {
        let mut rebuilt = State::new();
        state.rows().for_each(|row| rebuilt.absorb(&Write::Put(row)));
        assert_eq!(rebuilt, state, "the state is not one of its rows alone");
    }
}

/// Inputs as nodes make them: the target, a name, the bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let commands = vec![Command::Tick { limit: 5 }];
    let batch = encode_batch(&Batch { stamp: Stamp(300), commands });
    let voters = vec![[1, 2, 3].into()];
    let members: Membership<u64, BasicNode> = Membership::new_with_defaults(voters, [4]);
    let members = postcard::to_extend(&members, vec![1, 2]).unwrap_or_default();
    let meta = encode_versioned(&Meta { complete: true, ..Meta::default() }).unwrap_or_default();
    let mut record = BytesMut::new();
    for row in [Row::Clock(Stamp(1)), Row::Limits(Default::default())] {
        let row = encode_row(&row);
        record.put_u32_le(row.len() as u32);
        record.put_slice(&row);
    }
    let mut seeds = vec![
        ("log_entry", "blank", vec![1, 0]),
        ("log_entry", "batch", [&[1, 1][..], &batch].concat()),
        ("log_entry", "membership", members),
        ("log_entry", "meta", meta.to_vec()),
        ("snapshot_record", "rows", record.to_vec()),
    ];
    seeds.extend(peer::fuzz::seeds());
    seeds
}
