//! Random histories of a service: every event that its store had confirmed is stored once, in
//! order, whatever breaks and whenever.

use ackord_endpoint::entropy::Entropy;

use crate::store::Store;
use crate::world::{World, event};

const SEEDS: u64 = 400;
const STEPS: u64 = 300;

/// How a history may go wrong beyond crashes and broken connections.
#[derive(Clone, Copy, PartialEq)]
enum Harm {
    None,
    /// The disk fails once: the rest of the history runs in memory.
    DiskError,
    /// Restarts find an old copy of the store.
    OldCopy,
}

fn run(seed: u64, harm: Harm) {
    let mut dice = Entropy::from_number(seed);
    let mut world = World::new(Some(Store::default()), 1 << 20, seed);
    let mut raised: Vec<String> = Vec::new();
    // How many of them were certainly in the store, or in a process that did not die.
    let mut failed = false;
    for step in 0..STEPS {
        match dice.next_u64() % 100 {
            0..25 => {
                let text = format!("{step}");
                world.raise(event(&text)).unwrap();
                raised.push(text);
            }
            25..50 => {
                world.step_up();
            }
            50..75 => {
                world.step_down();
            }
            75..88 => {
                world.step_store();
            }
            88..91 if !world.connected => world.connect(),
            91..93 => world.disconnect(),
            93..95 => world.advance(dice.next_u64() % 40_000),
            95..97 => world.broker.busy.push(1 + dice.next_u64() % 40),
            97 if harm == Harm::DiskError && !failed && world.batch.is_some() => {
                failed = true;
                world.break_store();
            }
            98 if !failed => {
                // What was not yet in the store dies with the process, and is not owed.
                while world.step_store() {}
                if harm == Harm::OldCopy {
                    world.store.as_mut().unwrap().forget((dice.next_u64() % 4) as usize);
                    let held = world.store.as_ref().unwrap().load().events;
                    let text = |held: &ackord_endpoint::spl::StoredEvent| {
                        let payload = held.event.payload.as_ref().unwrap();
                        String::from_utf8(payload.data.to_vec()).unwrap()
                    };
                    let held: Vec<String> = held.iter().map(text).collect();
                    let stored = world.stored();
                    raised.retain(|text| held.contains(text) || stored.contains(text));
                }
                world.restart();
            }
            _ => {
                if !world.connected {
                    world.connect();
                }
            }
        }
    }
    world.drain();
    let stored = world.stored();
    if harm == Harm::OldCopy {
        // Numbers are lost with the copy: an event may come twice, but none is swallowed.
        for text in &raised {
            assert!(stored.contains(text), "seed {seed}: {text} was swallowed");
        }
    } else {
        assert_eq!(stored, raised, "seed {seed}");
    }
}

#[test]
fn events_in_the_store_are_stored_once_and_in_order() {
    (0..SEEDS).for_each(|seed| run(seed, Harm::None));
}

#[test]
fn a_disk_error_in_between_changes_nothing() {
    (0..SEEDS).for_each(|seed| run(seed, Harm::DiskError));
}

#[test]
fn an_old_copy_of_the_store_swallows_nothing() {
    (0..SEEDS).for_each(|seed| run(seed, Harm::OldCopy));
}
