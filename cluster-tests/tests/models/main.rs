//! Models: every order of steps and faults of a small scene, on the production machines.
//!
//! Where the simulation draws worlds, a model goes through all of them, up to its bounds. A model's
//! state is made of the machines themselves; two states are one when everything in them reads the
//! same. `ACKORD_MODEL_SIZE=large` asks for larger bounds than the gate has time for.

mod broker;
mod lane;
mod raises;
mod whole;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

/// Whether larger bounds are asked for.
fn is_large() -> bool {
    std::env::var("ACKORD_MODEL_SIZE").is_ok_and(|size| size == "large")
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    cuts: u8,
    failovers: u8,
    doubts: u8,
    overdue: u8,
    crashes: u8,
}

impl Budget {
    const NONE: Self = Self { cuts: 0, failovers: 0, doubts: 0, overdue: 0, crashes: 0 };

    fn is_spent(self) -> bool {
        self.cuts + self.failovers + self.doubts + self.overdue + self.crashes == 0
    }
}

/// Goes through all states of a model and judges its properties in each.
fn check<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + PartialEq + std::hash::Hash + Send + Sync + 'static,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, depth {depth}, {:.1} s", begun.elapsed().as_secs_f32());
    for (property, path) in checker.discoveries() {
        let steps = path.into_actions();
        println!("{name}: {property}: after {} steps: {steps:?}", steps.len());
    }
    checker.assert_properties();
    assert!(checker.is_done(), "the search is not complete");
}
