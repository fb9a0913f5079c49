//! What the log carries: the encoding of its commands, and what each does to the state.

use std::hint::black_box;

use ackord_machine::site::{
    Advance, Batch, ClientId, Command, InstanceId, Outcome, Stamp, State, decide, decode_batch,
    encode_batch,
};

use crate::world::{SITE, World};
use crate::{HotPath, ROUNDS, Repeated};

/// Raises in one entry of the log.
const BATCH: usize = 64;

fn batch() -> Batch {
    let mut world = World::new();
    let commands = (0..BATCH).map(|_| world.next_raise()).collect();
    Batch { stamp: world.stamp(), commands }
}

/// An entry of the log with 64 raises, as its proposer encodes it.
pub fn encode_batch_64() -> Box<dyn HotPath> {
    let batch = batch();
    Box::new(Repeated(move || {
        black_box(encode_batch(black_box(&batch)));
    }))
}

/// An entry of the log with 64 raises, as every node decodes it.
pub fn decode_batch_64() -> Box<dyn HotPath> {
    let bytes = encode_batch(&batch());
    Box::new(Repeated(move || {
        let decoded = decode_batch(black_box(&bytes));
        assert_eq!(black_box(&decoded).as_ref().map(|batch| batch.commands.len()), Ok(BATCH));
    }))
}

/// Judges a command and puts what follows from it into the state.
fn decide_and_absorb(state: &mut State, stamp: Stamp, command: &Command) -> Outcome {
    let verdict = decide(state, stamp, command);
    for write in &verdict.writes {
        state.absorb(write);
    }
    verdict.outcome
}

/// Commands that are applied one after the other, made by `make` when they are needed.
struct Applying<F> {
    world: World,
    make: F,
    commands: std::vec::IntoIter<Command>,
}

impl<F: FnMut(&mut World) -> Vec<Command>> HotPath for Applying<F> {
    fn ready(&mut self) -> usize {
        let commands = (self.make)(&mut self.world);
        let rounds = commands.len();
        self.commands = commands.into_iter();
        rounds
    }

    fn round(&mut self) {
        let command = self.commands.next().expect("it was made ready");
        let stamp = self.world.stamp();
        let outcome = decide_and_absorb(&mut self.world.state, stamp, black_box(&command));
        assert!(matches!(outcome, Outcome::Raised(_) | Outcome::Advanced { .. }), "{outcome:?}");
    }
}

fn applying<F>(world: World, make: F) -> Box<dyn HotPath>
where
    F: FnMut(&mut World) -> Vec<Command> + 'static,
{
    Box::new(Applying { world, make, commands: Vec::new().into_iter() })
}

/// A raise into a full queue: it pushes the oldest instance out.
pub fn apply_raise() -> Box<dyn HotPath> {
    applying(World::new(), |world| (0..ROUNDS).map(|_| world.next_raise()).collect())
}

/// A cursor that moves to the next instance.
pub fn apply_advance() -> Box<dyn HotPath> {
    let mut world = World::new();
    let session = world.connect();
    let client = session.client().expect("it is a client").clone();
    applying(world, move |world| {
        (0..ROUNDS).for_each(|_| world.raise());
        advances(world, &client)
    })
}

/// The moves of a client's cursor behind which nothing is left.
fn advances(world: &World, client: &ClientId) -> Vec<Command> {
    let (site, event) = (world.site(), world.event());
    let row = site.subscription(&client.clone(), event).expect("it is subscribed");
    let epoch = site.client(client.as_str()).expect("the client exists").epoch;
    let behind = site.retained(event).map(|instance| instance.id).filter(|id| *id > row.cursor);
    let advance = |instance: InstanceId| {
        Command::Advance(Advance {
            site: SITE.into(),
            client: client.clone(),
            event,
            epoch,
            incarnation: site.incarnation(),
            generation: row.generation,
            instance,
        })
    };
    behind.map(advance).collect()
}
