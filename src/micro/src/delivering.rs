//! What sessions do with the state: the lane of one client, and one event for a thousand.

use std::hint::black_box;

use ackord_machine::session::{ClientSession, Delivery, Output, ToClient, Wake};
use ackord_machine::site::{InstanceId, Outcome};
use ackord_wire::{Codec, SharedEvent};

use crate::frames::{frame, shared_event};
use crate::world::World;
use crate::{HotPath, ROUNDS};

/// Clients that wait for one event.
const CLIENTS: usize = 1_000;

type Out = Vec<Output<ToClient>>;

/// The client handled an instance, and the log has moved its cursor there.
fn handle(session: &mut ClientSession, world: &World, instance: InstanceId, out: &mut Out) {
    session.on_ack((world.event(), instance), world.view(), out);
    let Some(Output::Propose { token, .. }) = out.pop() else { panic!("no commit: {out:?}") };
    let outcome = Outcome::Advanced { cursor: instance };
    session.on_outcome(token, Ok(outcome), world.view(), out);
}

/// What the session sends of its subscription, taken from what it pushed.
fn sent(out: &mut Out) -> Option<Delivery> {
    let delivery = |output| match output {
        Output::Send(ToClient::Event(delivery)) => Some(delivery),
        _ => None,
    };
    out.drain(..).find_map(delivery)
}

/// An instance on its way to a client.
pub fn one_delivery() -> Delivery {
    let mut world = World::new();
    let mut session = world.connect();
    world.raise();
    let mut out = Vec::new();
    session.on_wake(&Wake::Event(world.event()), world.view(), &mut out);
    sent(&mut out).expect("it is delivered")
}

/// A lane with one instance in flight and more behind it.
struct LaneStep {
    world: World,
    session: ClientSession,
    in_flight: Option<InstanceId>,
    out: Out,
}

/// A lane takes an acknowledgement, commits, is told so and sends the next instance.
pub fn lane_step() -> Box<dyn HotPath> {
    let mut world = World::new();
    let session = world.connect();
    Box::new(LaneStep { world, session, in_flight: None, out: Vec::new() })
}

impl HotPath for LaneStep {
    fn ready(&mut self) -> usize {
        let first = usize::from(self.in_flight.is_none());
        (0..ROUNDS + first).for_each(|_| self.world.raise());
        if self.in_flight.is_none() {
            let wake = Wake::Event(self.world.event());
            self.session.on_wake(&wake, self.world.view(), &mut self.out);
            self.in_flight = sent(&mut self.out).map(|delivery| delivery.instance.id);
        }
        ROUNDS
    }

    fn round(&mut self) {
        let instance = self.in_flight.expect("one is in flight");
        handle(&mut self.session, &self.world, black_box(instance), &mut self.out);
        let next = sent(&mut self.out).expect("the next one is delivered");
        self.in_flight = Some(black_box(&next).instance.id);
    }
}

/// Sessions that all wait for the same event.
struct FanOut {
    world: World,
    sessions: Vec<ClientSession>,
    in_flight: Option<InstanceId>,
    out: Out,
}

/// One event reaches a thousand idle sessions: each is woken, looks at the state and has its
/// frame; the common part of the frames is encoded once.
pub fn fan_out_1000() -> Box<dyn HotPath> {
    let mut world = World::new();
    let sessions = (0..CLIENTS).map(|_| world.connect()).collect();
    Box::new(FanOut { world, sessions, in_flight: None, out: Vec::new() })
}

impl HotPath for FanOut {
    fn ready(&mut self) -> usize {
        if let Some(instance) = self.in_flight.take() {
            for session in &mut self.sessions {
                handle(session, &self.world, instance, &mut self.out);
                self.out.clear();
            }
        }
        self.world.raise();
        1
    }

    fn round(&mut self) {
        let wake = Wake::Event(self.world.event());
        let mut encoded: Option<SharedEvent> = None;
        for session in &mut self.sessions {
            session.on_wake(&wake, self.world.view(), &mut self.out);
            let delivery = sent(&mut self.out).expect("it is delivered");
            let shared = encoded.get_or_insert_with(|| shared_event(&delivery, Codec::Json));
            black_box(frame(shared, &delivery));
            self.in_flight = Some(delivery.instance.id);
        }
    }
}
