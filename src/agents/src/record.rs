//! What a node has seen of refused attempts, until it is in the record.
//!
//! Attempts that are alike are one note with a count, so that somebody who tries a million times
//! costs an entry per interval. The number of notes is bounded; beyond it they are counted together.
//! Acts that are told here too have bounds of their own: no flood of attempts blurs them.

use std::collections::BTreeMap;
use std::time::Duration;

use ackord_machine::site::audit::{AUDIT_RECORDS_MAX, COMMON, Told};
use ackord_machine::site::{AuditRow, By, Command, Note, SiteName};
use parking_lot::Mutex;

use crate::broker::Broker;
use crate::proposals;

/// How often notes go into the record.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Notes of one kind and interval; what is beyond is counted without its particulars.
const NOTES_MAX: usize = 1024;
/// Notes of one site, kind and interval: nobody takes up all of [`NOTES_MAX`].
const NOTES_PER_SITE_MAX: usize = 64;

/// What was seen at each site, and how often.
type OfSites = BTreeMap<SiteName, BTreeMap<Note, u32>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Recorder {
    pending: Mutex<BTreeMap<Told, OfSites>>,
}

impl Recorder {
    /// Takes a note; its count is added to those that are alike.
    pub fn note(&self, site: SiteName, note: Note) {
        // What a stranger says is cut before it is kept, let alone written into the log.
        let note = note.bounded();
        let mut pending = self.pending.lock();
        let pending = pending.entry(note.told()).or_default();
        let all: usize = pending.values().map(BTreeMap::len).sum();
        let of_site = pending.entry(site).or_default();
        let count = note.count;
        let mut key = Note { count: 0, ..note };
        if !of_site.contains_key(&key) && (all >= NOTES_MAX || of_site.len() >= NOTES_PER_SITE_MAX)
        {
            let who = "many".to_owned();
            key.by = By { who, address: String::new() };
            key.act = "many".to_owned();
            key.target = String::new();
        }
        let counted = of_site.entry(key).or_default();
        *counted = counted.saturating_add(count);
    }

    /// Takes what has come together, in pieces that fit a command.
    pub fn take(&self) -> Vec<(SiteName, Vec<Note>)> {
        let pending = std::mem::take(&mut *self.pending.lock());
        let mut pieces = Vec::new();
        for (site, notes) in pending.into_values().flatten() {
            let notes: Vec<_> =
                notes.into_iter().map(|(note, count)| Note { count, ..note }).collect();
            for piece in notes.chunks(AUDIT_RECORDS_MAX) {
                pieces.push((site.clone(), piece.to_vec()));
            }
        }
        pieces
    }
}

impl Broker {
    /// Has something recorded, soon: see [`Broker::keep_record`].
    pub fn note(&self, site: SiteName, note: Note) {
        // Nobody can fill the record of a site that is not there.
        let known = self.read_site(site.as_str(), |_, _| ()).is_some();
        let site = if known { site } else { SiteName::from(COMMON) };
        self.inner().record.note(site, note);
    }

    /// Writes what was noted into the record, every [`INTERVAL`], until this broker stops.
    pub async fn keep_record(&self) {
        let mut stopping = self.inner().shutdown.subscribe();
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            let stop = tokio::select! {
                _tick = ticks.tick() => false,
                _stop = stopping.wait_for(|stopping| *stopping) => true,
            };
            for (site, notes) in self.inner().record.take() {
                let command = Command::Record { site: site.clone(), notes: notes.clone() };
                let patience = self.inner().options.admin_deadline;
                let told =
                    proposals::propose_until(&self.partition(&site), command, patience).await;
                if let Err((code, _)) = told {
                    let lost: u64 = notes.iter().map(|note| u64::from(note.count)).sum();
                    tracing::warn!(%site, %code, lost, "refused attempts were not recorded");
                }
            }
            if stop {
                return;
            }
        }
    }

    /// The acts kept under a name in all partitions, the newest first.
    pub fn read_common_record(&self, mut look: impl FnMut(u32, &AuditRow) -> bool) {
        for partition in self.node().partitions() {
            let number = partition.number();
            partition.read(|state| {
                for row in state.audit_before(COMMON, u64::MAX) {
                    if !look(number, row) {
                        break;
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use ackord_machine::site::audit::DONE;

    use super::*;

    fn note(who: usize) -> Note {
        Note {
            by: By { who: format!("token:{who}"), address: String::new() },
            act: "GET site".to_owned(),
            target: String::new(),
            result: "bad-credentials".to_owned(),
            count: 1,
        }
    }

    #[test]
    fn a_flood_of_attempts_is_few_entries_and_none_is_uncounted() {
        let recorder = Recorder::default();
        for round in 0..3000 {
            recorder.note("loud".into(), note(round % 500));
        }
        for site in 0..100 {
            recorder.note(format!("s{site}").as_str().into(), note(0));
        }
        let pieces = recorder.take();
        let of = |name: &str| {
            let notes = pieces.iter().filter(|(site, _)| site.as_str() == name);
            notes.flat_map(|(_, notes)| notes.clone()).collect::<Vec<_>>()
        };
        let loud = of("loud");
        assert_eq!(loud.len(), NOTES_PER_SITE_MAX + 1);
        assert_eq!(loud.iter().map(|note| note.count).sum::<u32>(), 3000);
        assert_eq!(of("s99").len(), 1, "others are not pushed out");
        assert!(recorder.take().is_empty());
    }

    #[test]
    fn a_flood_of_attempts_blurs_no_act() {
        let recorder = Recorder::default();
        for site in 0..NOTES_MAX {
            recorder.note(format!("s{site}").as_str().into(), note(0));
        }
        for who in 0..NOTES_PER_SITE_MAX {
            recorder.note(COMMON.into(), note(who));
        }
        let drained = Note { result: DONE.to_owned(), ..note(1) };
        recorder.note(COMMON.into(), drained.clone());
        let notes = recorder.take().into_iter().flat_map(|(_, notes)| notes);
        let acts: Vec<_> = notes.filter(|note| note.told() == Told::Act).collect();
        assert_eq!(acts, [drained]);
    }
}
