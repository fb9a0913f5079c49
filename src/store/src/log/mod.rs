//! The shared log of all groups: the engine, the files under it, and what verifies them.

pub(crate) mod batch;
pub(crate) mod files;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod verify;

use protobuf::well_known_types::BytesValue;
use raft_engine::MessageExt;

use crate::record::EntryRecord;
use crate::types::GroupId;

pub(crate) type Engine = raft_engine::Engine<files::LogFiles>;

/// The region of the node itself; group `g` is region `g + 1`.
pub(crate) const NODE_REGION: u64 = 0;
/// The key of the batch mark, in the node's region.
pub(crate) const BATCH_KEY: &[u8] = b"b";
/// The key of a group's metadata, in its region.
pub(crate) const META_KEY: &[u8] = b"m";

pub(crate) fn region_of(group: GroupId) -> u64 {
    u64::from(group.0) + 1
}

pub(crate) fn group_of(region: u64) -> Option<GroupId> {
    u32::try_from(region.checked_sub(1)?).ok().map(GroupId)
}

/// The engine counts from 1: where the entry of an index stands there.
pub(crate) fn slot_of(index: u64) -> u64 {
    index.saturating_add(1)
}

/// How the engine finds the index of an entry.
pub(crate) struct Message;

impl MessageExt for Message {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        slot_of(EntryRecord::index_of(&entry.value))
    }
}
