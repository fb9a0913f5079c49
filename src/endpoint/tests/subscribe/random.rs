//! Random histories of a client: a live process calls its handler once per instance and in order;
//! with a store that holds over restarts too, but for the instance in hand.

use std::collections::BTreeMap;

use ackord_endpoint::entropy::Entropy;
use ackord_endpoint::{Flow, HandlerError};

use crate::world::World;

const SEEDS: u64 = 300;
const STEPS: u64 = 400;
const EVENTS: [&str; 3] = ["a", "b", "c"];

fn run(seed: u64, mut world: World, restarts: bool) {
    let mut dice = Entropy::from_number(seed);
    // Calls whose handler failed or died with its process: they may be made again.
    let mut unfinished: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for _ in 0..STEPS {
        match dice.next_u64() % 100 {
            0..15 => {
                world.broker.raise(EVENTS[(dice.next_u64() % 3) as usize]);
            }
            15..35 => {
                world.step_up();
            }
            35..60 => {
                world.step_down();
            }
            60..75 => {
                if let Some(lane) =
                    world.running.keys().nth((dice.next_u64() % 3) as usize).copied()
                {
                    let delivery = &world.running[&lane];
                    let key = (delivery.event.clone(), delivery.instance_id);
                    if dice.next_u64().is_multiple_of(5) {
                        *unfinished.entry(key).or_default() += 1;
                        world.returns(lane, Err(HandlerError::new("no")));
                    } else {
                        world.returns(lane, Ok(Flow::Continue));
                    }
                }
            }
            75..82 => {
                world.step_store();
            }
            82..88 if world.connected => {
                let sent = world.broker.deliver(dice.next_u64().is_multiple_of(2));
                world.down.extend(sent);
            }
            88..90 => world.disconnect(),
            90..92 => world.advance(dice.next_u64() % 40_000),
            92 if restarts => {
                // A handler that ran, or whose position was not yet stored, may be called again.
                let last = world.handled.len();
                for (index, (event, id)) in world.handled.iter().enumerate() {
                    let stored = world.positions.get(event).is_some_and(|at| at.instance_id >= *id);
                    let counted = world.handled[index + 1..last].contains(&(event.clone(), *id));
                    if !stored && !counted {
                        *unfinished.entry((event.clone(), *id)).or_default() += 1;
                    }
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
    world.settle();
    for event in EVENTS {
        let ids: Vec<u64> =
            world.handled.iter().filter(|(name, _)| name == event).map(|(_, id)| *id).collect();
        assert!(ids.is_sorted(), "seed {seed}: {event} out of order: {ids:?}");
        let mut once = ids.clone();
        once.dedup();
        let raised = world.broker.queues.get(event).map(|queue| queue.ids.clone());
        assert_eq!(once, raised.unwrap_or_default(), "seed {seed}: {event}");
        for id in once {
            let calls = ids.iter().filter(|called| **called == id).count() as u64;
            let allowed = 1 + unfinished.get(&(event.to_owned(), id)).copied().unwrap_or(0);
            assert!(calls <= allowed, "seed {seed}: {event} {id}: {calls} calls of {allowed}");
        }
    }
}

#[test]
fn a_live_process_handles_each_instance_once() {
    (0..SEEDS).for_each(|seed| run(seed, World::cpl1(&EVENTS), false));
    (0..SEEDS).for_each(|seed| run(seed, World::stateless(&EVENTS, false), false));
}

#[test]
fn with_a_store_restarts_change_nothing() {
    (0..SEEDS).for_each(|seed| run(seed, World::cpl2(&EVENTS), true));
    (0..SEEDS).for_each(|seed| run(seed, World::stateless(&EVENTS, true), true));
}
