//! The high-water file: what was durable once, so that a log that lost its end is noticed.
//!
//! Invariants:
//! - Two slots, written in turn and synced; the newer that verifies counts. A torn write costs
//!   one slot.
//! - It never runs ahead of the log: what it says was synced in the log before. What lowers a
//!   log is written here first, into both slots.
//! - Votes are in it before they count as saved.
//!
//! It does not replace the log: it holds no entries.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::codec::{Decoder, Encoder, Salt, checksum};
use crate::durable;
use crate::types::{GroupId, Identity, Mark};

pub(crate) const HIGH_WATER_FILE: &str = "high-water";
const SLOT_MAGIC: [u8; 8] = *b"AKWATER1";
const SLOT_BYTES: u64 = 512 * 1024;
const SLOT_HEAD_BYTES: usize = 8 + 8 + 4 + 4;

/// The most groups of one node: what a slot holds, votes of full length included.
pub(crate) const GROUPS_MAX: usize = 1024;

/// What was durable of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupWater {
    pub last: Option<Mark>,
    pub purged: Option<Mark>,
    pub committed: Option<Mark>,
    pub vote: Option<Bytes>,
    /// The request that wrote the group's newest metadata.
    pub meta_sequence: u64,
    /// Writes of the group's checkpoint since it was last empty.
    pub checkpoint: u64,
}

/// What was durable of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Water {
    pub identity: Identity,
    pub salt: Salt,
    /// The last batch.
    pub number: u64,
    /// The oldest files that may still be needed; older ones may be gone.
    pub first_append: u64,
    pub first_rewrite: u64,
    /// Written by a graceful close: nothing may have changed since.
    pub clean: bool,
    pub groups: BTreeMap<GroupId, GroupWater>,
}

impl Water {
    pub fn new(identity: Identity, salt: Salt) -> Self {
        Water {
            identity,
            salt,
            number: 0,
            first_append: 1,
            first_rewrite: 1,
            clean: false,
            groups: BTreeMap::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.raw(&self.identity.cluster);
        out.u64(self.identity.node);
        out.u64(self.salt);
        out.u64(self.number);
        out.u64(self.first_append);
        out.u64(self.first_rewrite);
        out.u8(u8::from(self.clean));
        out.u32(self.groups.len() as u32);
        for (group, water) in &self.groups {
            out.u32(group.0);
            out.optional_mark(water.last.as_ref());
            out.optional_mark(water.purged.as_ref());
            out.optional_mark(water.committed.as_ref());
            out.optional_bytes(water.vote.as_ref());
            out.u64(water.meta_sequence);
            out.u64(water.checkpoint);
        }
        out.0
    }

    fn decode(raw: &[u8]) -> Option<Water> {
        let mut input = Decoder(raw);
        let identity = Identity { cluster: input.raw(16)?.try_into().ok()?, node: input.u64()? };
        let mut water = Water::new(identity, input.u64()?);
        water.number = input.u64()?;
        water.first_append = input.u64()?;
        water.first_rewrite = input.u64()?;
        water.clean = input.flag()?;
        for _ in 0..input.u32()? {
            let group = GroupId(input.u32()?);
            let facts = GroupWater {
                last: input.optional_mark()?,
                purged: input.optional_mark()?,
                committed: input.optional_mark()?,
                vote: input.optional_bytes()?,
                meta_sequence: input.u64()?,
                checkpoint: input.u64()?,
            };
            water.groups.insert(group, facts);
        }
        input.end()?;
        Some(water)
    }
}

/// The open file and what is to be written into it next.
pub(crate) struct HighWater {
    file: File,
    turn: u64,
    /// Change it, then [`HighWater::write`].
    pub water: Water,
    /// Whether `water` has changed since it was written.
    pub dirty: bool,
    /// How often it was written.
    pub writes: Arc<AtomicU64>,
}

impl HighWater {
    /// Creates the file with both slots written.
    pub fn create(dir: &Path, water: Water) -> io::Result<HighWater> {
        let file = durable::create_file(&dir.join(HIGH_WATER_FILE))?;
        // Written in full now, so that later writes never need space on the disk.
        durable::write_zeros(&file, 0, 2 * SLOT_BYTES)?;
        let mut high_water =
            HighWater { file, turn: 0, water, dirty: true, writes: Arc::default() };
        high_water.write_both()?;
        Ok(high_water)
    }

    /// Opens the file. `Ok(None)`: no slot verifies.
    pub fn open(dir: &Path) -> io::Result<Option<HighWater>> {
        let file = durable::open_file(&dir.join(HIGH_WATER_FILE))?;
        let mut newest: Option<(u64, Water)> = None;
        for slot in 0..2 {
            let Some((turn, water)) = read_slot(&file, slot)? else {
                tracing::warn!(slot, "a slot of the high-water file does not verify");
                continue;
            };
            if newest.as_ref().is_none_or(|(best, _)| turn > *best) {
                newest = Some((turn, water));
            }
        }
        Ok(newest.map(|(turn, water)| HighWater {
            file,
            turn,
            water,
            dirty: false,
            writes: Arc::default(),
        }))
    }

    /// Notes how far logs are committed.
    pub fn note_committed(&mut self, committed: &[(GroupId, Option<Mark>)]) {
        for (group, mark) in committed {
            if let Some(facts) = self.water.groups.get_mut(group)
                && facts.committed != *mark
            {
                facts.committed = *mark;
                self.dirty = true;
            }
        }
    }

    /// Writes the older slot and syncs.
    pub fn write(&mut self) -> io::Result<()> {
        self.turn += 1;
        let body = self.water.encode();
        let room = SLOT_BYTES as usize - SLOT_HEAD_BYTES;
        if body.len() > room {
            return Err(io::Error::other("the high-water file has too many groups"));
        }
        let slot = seal(self.turn, &body);
        self.file.write_all_at(&slot, (self.turn % 2) * SLOT_BYTES)?;
        self.file.sync_data()?;
        self.dirty = false;
        self.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes both slots, so that neither says more than now.
    pub fn write_both(&mut self) -> io::Result<()> {
        self.write()?;
        self.write()
    }
}

fn read_slot(file: &File, slot: u64) -> io::Result<Option<(u64, Water)>> {
    let mut raw = Vec::new();
    let mut at = slot * SLOT_BYTES;
    let end = at + SLOT_BYTES;
    let mut piece = vec![0; 64 * 1024];
    while at < end {
        let want = piece.len().min((end - at) as usize);
        let got = file.read_at(&mut piece[..want], at)?;
        if got == 0 {
            break;
        }
        raw.extend_from_slice(&piece[..got]);
        at += got as u64;
    }
    Ok(parse_slot(&raw))
}

/// A slot with this content.
pub(crate) fn seal(turn: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.raw(&SLOT_MAGIC);
    out.u64(turn);
    // Bounded by SLOT_BYTES.
    out.u32(body.len() as u32);
    let crc = checksum(0, &[&out.0, body]);
    out.u32(crc);
    out.raw(body);
    out.0
}

/// The content of a slot, if it verifies.
pub(crate) fn parse_slot(raw: &[u8]) -> Option<(u64, Water)> {
    let mut input = Decoder(raw);
    if input.raw(8)? != SLOT_MAGIC {
        return None;
    }
    let turn = input.u64()?;
    let len = input.u32()? as usize;
    let crc = input.u32()?;
    let body = input.raw(len)?;
    if checksum(0, &[&raw[..SLOT_HEAD_BYTES - 4], body]) != crc {
        return None;
    }
    Some((turn, Water::decode(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn water() -> Water {
        let identity = Identity { cluster: [7; 16], node: 3 };
        Water::new(identity, 99)
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = HighWater::create(dir.path(), water()).expect("created");
        file.water.number = 5;
        file.write().expect("written");
        drop(file);
        for slot in 0..2 {
            let path = dir.path().join(HIGH_WATER_FILE);
            let good = std::fs::read(&path).expect("read");
            let mut bad = good.clone();
            bad[slot * SLOT_BYTES as usize + 30] ^= 4;
            std::fs::write(&path, &bad).expect("written");
            let found = HighWater::open(dir.path()).expect("opened").expect("a slot");
            assert!(found.water.number == 5 || found.water.number == 0);
            bad[(1 - slot) * SLOT_BYTES as usize + 30] ^= 4;
            std::fs::write(&path, &bad).expect("written");
            assert!(HighWater::open(dir.path()).expect("opened").is_none());
            std::fs::write(&path, &good).expect("written");
        }
    }

    #[test]
    fn the_largest_content_fits() {
        let mut water = water();
        let mark = Mark { term: 1, node: 1, index: 1 };
        for group in 0..GROUPS_MAX as u32 {
            let facts = GroupWater {
                last: Some(mark),
                purged: Some(mark),
                committed: Some(mark),
                vote: Some(Bytes::from(vec![1; crate::record::VOTE_BYTES_MAX])),
                meta_sequence: 1,
                checkpoint: 1,
            };
            water.groups.insert(GroupId(group), facts);
        }
        let raw = water.encode();
        assert!(raw.len() + SLOT_HEAD_BYTES <= SLOT_BYTES as usize);
        assert_eq!(Water::decode(&raw), Some(water));
    }
}
