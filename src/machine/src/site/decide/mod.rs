//! The judge: a command against a state gives a verdict, and changes nothing itself.
//!
//! `batch ──apply──▶ for each command: decide ──▶ verdict ──absorb──▶ state`
//!
//! Invariants: `decide` is total and depends on its arguments alone; a refused command writes
//! nothing; the clock never goes back.

use super::command::{Batch, Command};
use super::ids::Stamp;
use super::outcome::{Effect, Outcome, Refusal};
use super::row::{Row, RowKey, Write};
use super::state::State;

/// What a command comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How the state changes, in order.
    pub writes: Vec<Write>,
    /// The answer to the proposer.
    pub outcome: Outcome,
    /// Whom to wake.
    pub effects: Vec<Effect>,
}

impl Verdict {
    fn new(outcome: Outcome) -> Self {
        Self {
            writes: Vec::new(),
            outcome,
            effects: Vec::new(),
        }
    }

    fn put(&mut self, row: Row) {
        self.writes.push(Write::Put(row));
    }

    fn delete(&mut self, key: RowKey) {
        self.writes.push(Write::Delete(key));
    }
}

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One per command, in order.
    pub outcomes: Vec<Outcome>,
    /// Whom to wake: sorted, each once.
    pub effects: Vec<Effect>,
    /// The rows that were written or deleted, in order of the writes; a key may occur repeatedly.
    pub dirty: Vec<RowKey>,
}

/// Judges one command at `stamp` (or the state's clock, if that is later).
pub fn decide(state: &State, stamp: Stamp, command: &Command) -> Verdict {
    let _now = stamp.max(state.clock());
    match command {
        Command::AttachService(_)
        | Command::DetachService { .. }
        | Command::Raise(_)
        | Command::RaiseKeyed(_)
        | Command::AttachClient { .. }
        | Command::Subscribe(_)
        | Command::Advance(_)
        | Command::Admin { .. }
        | Command::Tick { .. }
        | Command::SetLimits(_) => Verdict::new(Outcome::Refused(Refusal::UnknownSite)),
    }
}

/// Applies one log entry: advances the clock, then judges each command against the state that
/// the one before left.
pub fn apply(state: &mut State, batch: &Batch) -> Applied {
    let mut applied = Applied::default();
    if batch.stamp > state.clock() {
        state.absorb(&Write::Put(Row::Clock(batch.stamp)));
        applied.dirty.push(RowKey::Clock);
    }
    let now = state.clock();
    for command in &batch.commands {
        let verdict = decide(state, now, command);
        for write in &verdict.writes {
            state.absorb(write);
            applied.dirty.push(write.key());
        }
        applied.outcomes.push(verdict.outcome);
        applied.effects.extend(verdict.effects);
    }
    applied.effects.sort();
    applied.effects.dedup();
    applied
}
