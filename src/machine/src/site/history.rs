//! What became of instances that are retained no more, as far as this replica remembers.
//!
//! Not part of the state that replicas agree on: each remembers the last [`DEPARTED_MAX`] departures
//! of a site since it began to follow it, and knows from which id on it remembers all. So its
//! answers are true, if not always complete; no decision depends on them.

use std::collections::VecDeque;

use super::ids::{ClientId, EventKey, InstanceId, ServiceId, Stamp};

/// Departures remembered for each site.
pub const DEPARTED_MAX: usize = 1024;

/// Why an instance is retained no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// A newer one of its Replacing event took its place.
    Superseded {
        /// The newer one.
        by: InstanceId,
    },
    /// Its queue was full, or made smaller, and it was the oldest.
    Evicted {
        /// The newest one at that time.
        by: InstanceId,
    },
    /// Its lifetime was over.
    Expired,
    /// A private one, acknowledged by its addressee.
    Acknowledged,
    /// Its service, addressee, event or queue was removed.
    Removed,
}

/// An instance that is retained no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Its id.
    pub id: InstanceId,
    /// Its event.
    pub event: EventKey,
    /// Who had raised it.
    pub service: ServiceId,
    /// The addressee, for a private event.
    pub client: Option<ClientId>,
    /// When it was committed.
    pub created: Stamp,
    /// The log's time when it went.
    pub at: Stamp,
    /// Why.
    pub gone: Gone,
}

/// How many instances of an event went unseen by somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Superseded by newer ones.
    pub superseded: u64,
    /// Evicted, expired or removed.
    pub lost: u64,
    /// Whether these are all: nothing of the range is beyond what is remembered.
    pub complete: bool,
}

/// How many instances are retained no more, by why. Counted by each replica for itself, so all are
/// equal: no decision depends on them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Departures {
    /// See [`Gone::Superseded`].
    pub superseded: u64,
    /// See [`Gone::Evicted`].
    pub evicted: u64,
    /// See [`Gone::Expired`].
    pub expired: u64,
    /// See [`Gone::Acknowledged`].
    pub acknowledged: u64,
    /// See [`Gone::Removed`].
    pub removed: u64,
}

impl PartialEq for Departures {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Departures {
    fn note(&mut self, gone: Gone) {
        match gone {
            Gone::Superseded { .. } => self.superseded += 1,
            Gone::Evicted { .. } => self.evicted += 1,
            Gone::Expired => self.expired += 1,
            Gone::Acknowledged => self.acknowledged += 1,
            Gone::Removed => self.removed += 1,
        }
    }

    /// Those of another one as well.
    pub(super) fn add(&mut self, other: Self) {
        self.superseded += other.superseded;
        self.evicted += other.evicted;
        self.expired += other.expired;
        self.acknowledged += other.acknowledged;
        self.removed += other.removed;
    }
}

/// See the module. All are equal: replicas need not remember the same.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Those that nobody has taken yet.
    departures: Departures,
    departed: VecDeque<Departed>,
    /// Ids up to this one may have gone without being remembered.
    floor: InstanceId,
}

impl PartialEq for History {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl History {
    /// The site was found with this newest id: what went before is not known.
    pub fn begin_at(&mut self, newest: InstanceId) {
        self.floor = self.floor.max(newest);
    }

    /// What departed since this was last asked.
    pub fn take_departures(&mut self) -> Departures {
        std::mem::take(&mut self.departures)
    }

    pub fn push(&mut self, departed: Departed) {
        self.departures.note(departed.gone);
        if self.departed.len() >= DEPARTED_MAX
            && let Some(forgotten) = self.departed.pop_front()
        {
            self.floor = self.floor.max(forgotten.id);
        }
        self.departed.push_back(departed);
    }

    pub fn find(&self, id: InstanceId) -> Option<&Departed> {
        self.departed.iter().rev().find(|departed| departed.id == id)
    }

    /// Ids above this one that are not retained are remembered.
    pub fn floor(&self) -> InstanceId {
        self.floor
    }

    /// What went of an event above an id, as far as `concerns` says that it was for somebody.
    pub fn missed(
        &self,
        event: EventKey,
        after: InstanceId,
        concerns: impl Fn(&Departed) -> bool,
    ) -> Missed {
        let mut missed = Missed { complete: after >= self.floor, ..Missed::default() };
        let in_range = |departed: &&Departed| departed.event == event && departed.id > after;
        for departed in self.departed.iter().filter(in_range).filter(|departed| concerns(departed))
        {
            match departed.gone {
                Gone::Superseded { .. } => missed.superseded += 1,
                Gone::Evicted { .. } | Gone::Expired | Gone::Removed => missed.lost += 1,
                Gone::Acknowledged => {}
            }
        }
        missed
    }
}
