//! Reads and verifies every entry of every group, as the engine shows them, and compares the
//! end of each log with the high-water file.
//!
//! An entry counts when its record verifies, its digest continues the chain from the purge mark,
//! and no truncation hides it. Everything between the purge mark and the high-water mark must
//! be there. What is missing is damage, never a shorter log.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::fetch;
use super::{Engine, META_KEY, NODE_REGION, group_of, region_of};
use crate::codec::Salt;
use crate::error::Damage;
use crate::group::Group;
use crate::high_water::{GroupWater, Water};
use crate::record::{DIGEST_START, EntryRecord, Meta, MetaRecord, digest};
use crate::types::{GroupId, Mark};

/// Bytes of entries read at once.
const READ_BYTES: u64 = 1024 * 1024;

#[derive(Default)]
pub(crate) struct Verified {
    pub groups: BTreeMap<GroupId, Group>,
    /// Groups of which the engine still has purged entries, with the slot to compact to.
    pub stale: Vec<GroupId>,
    pub last_sequence: u64,
    pub findings: Vec<Damage>,
}

/// Verifies all groups.
pub(crate) fn verify(engine: &Engine, salt: Salt, water: &Water) -> Verified {
    let mut out = Verified::default();
    let mut groups: BTreeSet<GroupId> = water.groups.keys().copied().collect();
    for region in engine.raft_groups() {
        match group_of(region) {
            Some(group) => {
                groups.insert(group);
            }
            None if region == NODE_REGION => {}
            None => {
                let finding = format!("holds a region {region} that is none of ours");
                out.findings.push(Damage::at("log", finding));
            }
        }
    }
    let nothing = GroupWater::default();
    for group in groups {
        let facts = water.groups.get(&group).unwrap_or(&nothing);
        let check = Check { engine, salt, group, facts, clean: water.clean };
        match check.run(&mut out) {
            Ok(verified) => {
                out.groups.insert(group, verified);
            }
            Err(damage) => out.findings.push(*damage),
        }
    }
    out
}

struct Check<'a> {
    engine: &'a Engine,
    salt: Salt,
    group: GroupId,
    facts: &'a GroupWater,
    clean: bool,
}

type Checked<T> = Result<T, Box<Damage>>;

impl Check<'_> {
    fn damage(&self, finding: impl Into<String>, found: Option<Mark>) -> Box<Damage> {
        Box::new(Damage {
            group: Some(self.group),
            expected: self.facts.last,
            found,
            ..Damage::at("log", finding)
        })
    }

    fn meta(&self) -> Checked<Meta> {
        let Some(raw) = self.engine.get(region_of(self.group), META_KEY) else {
            return Ok(Meta::default());
        };
        match MetaRecord::decode(self.salt, &raw) {
            Some(record) if record.group == self.group => Ok(record.meta),
            Some(_) | None => Err(self.damage("the metadata does not verify", None)),
        }
    }

    fn run(&self, out: &mut Verified) -> Checked<Group> {
        let meta = self.meta()?;
        let expected = self.facts.meta_sequence;
        if meta.sequence < expected || (self.clean && meta.sequence != expected) {
            let text = format!("metadata {} where {expected} was durable", meta.sequence);
            return Err(self.damage(text, None));
        }
        out.last_sequence = out.last_sequence.max(meta.sequence);

        let mut group = Group::new();
        if let Some((mark, at_mark)) = meta.purged {
            group.last = Some(mark);
            group.last_digest = at_mark;
            group.first = mark.index.saturating_add(1);
        }
        let region = region_of(self.group);
        let engine_first = self.engine.first_index(region);
        let engine_last = self.engine.last_index(region);
        group.engine_used = engine_first.is_some();
        if let (Some(first), Some(last)) = (engine_first, engine_last) {
            // Slot 0 is never used, so an index is one below its slot.
            let begin = match meta.purged {
                Some((mark, _)) => mark.index.saturating_add(1),
                None => first - 1,
            };
            if first - 1 < begin {
                out.stale.push(self.group);
            }
            if first - 1 > begin && !self.hidden_all(&meta, first - 1)? {
                let text = format!("entries {begin} to {} are missing", first - 2);
                return Err(self.damage(text, group.last));
            }
            if first - 1 <= begin {
                group.first = begin;
                self.entries(&meta, (begin, last), &mut group, out)?;
            }
        }
        group.meta = meta;
        self.compare(&group)?;
        group.committed = self.facts.committed.filter(|committed| {
            let purged = group.purged().is_some_and(|mark| committed.index <= mark.index);
            purged || group.last.is_some_and(|last| committed.index <= last.index)
        });
        Ok(group)
    }

    /// Whether the first entry the engine has is one a truncation hides, so that none counts.
    fn hidden_all(&self, meta: &Meta, index: u64) -> Checked<bool> {
        let record = self.fetch(index, index.saturating_add(1))?;
        Ok(record.first().is_some_and(|record| hides(meta, record)))
    }

    fn fetch(&self, from: u64, to: u64) -> Checked<Vec<EntryRecord>> {
        fetch(self.engine, self.salt, self.group, (from, to), READ_BYTES)
            .map_err(|error| self.damage(error.to_string(), None))
    }

    /// Walks the entries from index `at` up to and including slot `end`.
    fn entries(
        &self,
        meta: &Meta,
        (mut at, end): (u64, u64),
        group: &mut Group,
        out: &mut Verified,
    ) -> Checked<()> {
        while at < end {
            let records = self.fetch(at, end)?;
            for record in records {
                if hides(meta, &record) {
                    return Ok(());
                }
                let mark = record.mark;
                if record.digest != digest(group.last_digest, &mark, record.data_crc) {
                    let text = format!("entry {} does not follow the one before it", mark.index);
                    return Err(self.damage(text, group.last));
                }
                if self.facts.last.is_some_and(|last| last.index == mark.index && last != mark) {
                    let text = format!("entry {} is {mark}, another was durable", mark.index);
                    return Err(self.damage(text, Some(mark)));
                }
                group.last = Some(mark);
                group.last_digest = record.digest;
                out.last_sequence = out.last_sequence.max(record.sequence);
                at = mark.index + 1;
            }
        }
        Ok(())
    }

    fn compare(&self, group: &Group) -> Checked<()> {
        let key = |mark: Mark| (mark.term, mark.index);
        let found = group.last.map(key);
        let durable = self.facts.last.map(key);
        if found < durable || (self.clean && found != durable) {
            return Err(self.damage("the end of the log is missing", group.last));
        }
        let purged = group.purged().map(|mark| mark.index);
        if purged < self.facts.purged.map(|mark| mark.index) {
            return Err(self.damage("a purge mark is missing", group.last));
        }
        Ok(())
    }
}

fn hides(meta: &Meta, record: &EntryRecord) -> bool {
    meta.tail.is_some_and(|tail| record.mark.index >= tail.index && record.sequence < tail.sequence)
}

/// Used by recovery, which starts chains by itself.
pub(crate) fn chain_start(meta: &Meta) -> (Option<Mark>, u32) {
    match meta.purged {
        Some((mark, digest)) => (Some(mark), digest),
        None => (None, DIGEST_START),
    }
}
