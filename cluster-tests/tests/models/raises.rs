//! A few raises: the endpoint that numbers and repeats them, the sessions that propose them, and what
//! breaks.
//!
//! `raise ─▶ (file) ─▶ endpoint ─▶ link ─▶ session ─▶ entry, deduplicated ─▶ answer ─▶ endpoint`
//!
//! The service dials either of two nodes; the second may lag behind the log. Faults as in the model
//! of a subscription: connections that break while their sessions go on, nodes that lose all their
//! sessions, proposals of unknown fate, answers overdue, a process that dies with or without what was
//! on its way to its file. The application raises at any moment, numbered texts in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ackord_agents::translate::{self, Grant, Terms};
use ackord_endpoint::Event;
use ackord_endpoint::entropy::Entropy;
use ackord_endpoint::publish::{Publish, PublishOptions, PublishOutput, StoreBatch, Then, Waits};
use ackord_endpoint::spl::{StoreOp, Stored, Sync};
use ackord_machine::session::{Output, ServiceSession, ToService, View};
use ackord_machine::site::{Epoch, Incarnation, Place, ServiceId, SessionId};
use ackord_wire::Payload;
use ackord_wire::frame::{ServiceFrame, ServiceMessage};
use stateright::{Model, Property};

use super::broker::{Answer, Broker, Doubt, EVENT, NODES, SERVICE, site};
use super::whole::Whole;
use super::{Budget, check, is_large};

const TERMS: Terms<'_> = Terms { keepalive_s: 60, addresses: &Vec::new };
/// Connections at once: the service's, and one that it has given up.
const LINKS_MAX: usize = 2;
/// Deadlines so far away are those of an answer that does not come.
const OVERDUE_MS: u64 = 10_000;

/// One connection.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Link {
    id: u64,
    node: usize,
    /// The broker's end, until it is closed or lost.
    session: Option<Whole<ServiceSession>>,
    up: Whole<VecDeque<ServiceFrame>>,
    down: Whole<VecDeque<ServiceMessage>>,
    /// The broker wants a sign of life.
    probed: bool,
}

/// What a file holds: operations, of which so many are durable.
#[derive(Clone, Debug, Default)]
struct File {
    ops: Vec<StoreOp>,
    durable: usize,
}

/// What the application knows of its raises.
#[derive(Clone, Debug, Default)]
struct Application {
    raised: u8,
    /// The raises of this process by their tickets.
    tickets: BTreeMap<u64, u8>,
    /// Those that it was told to be stored.
    stored: BTreeSet<u8>,
    /// Those that a process took with it which had no file.
    lost: BTreeSet<u8>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct World {
    broker: Broker,
    links: Vec<Link>,
    dialled: u64,
    /// The service's process, while it runs.
    service: Option<Whole<Publish>>,
    starts: u64,
    link: Option<u64>,
    file: Whole<File>,
    saving: Whole<Option<StoreBatch>>,
    application: Whole<Application>,
    now: u64,
    left: Budget,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Raise,
    Dial(usize),
    /// The broker takes a frame of this connection.
    Up(u64),
    /// The service takes a frame.
    Down,
    /// The service's file has what it was given.
    Saved,
    Commit,
    CatchUp,
    /// What all have given up comes to be applied.
    Late,
    /// A session's own deadline is reached.
    Due(u64),
    /// The endpoint's own pause is over.
    Wake,
    /// The peer answers a probe.
    Alive(u64),
    /// The service learns that nobody is at the other end.
    Hear,
    /// The broker learns that a connection is gone.
    Gone(u64),
    Start,
    // What follows is a fault.
    Cut,
    Overdue,
    Doubt(Doubt),
    FailOver {
        node: usize,
        lost: bool,
    },
    Crash {
        saved: bool,
        synced: bool,
    },
}

struct Raises {
    events: u8,
    window: u32,
    /// The service keeps its events in a file (SPL-2).
    durable: bool,
    budget: Budget,
}

impl File {
    /// What the operations add up to.
    fn stored(&self) -> Stored {
        let mut stored = Stored::default();
        for op in &self.ops {
            match op {
                StoreOp::Begin { uid } => {
                    stored.uid = Some(*uid);
                    stored.last_number = 0;
                    stored.events.iter_mut().for_each(|event| event.seq = None);
                }
                StoreOp::Put(event) => {
                    stored.last_number = stored.last_number.max(event.seq.unwrap_or(0));
                    stored.events.push(event.clone());
                }
                StoreOp::Number { ticket, seq } => {
                    stored.last_number = stored.last_number.max(*seq);
                    for event in stored.events.iter_mut().filter(|e| e.ticket == *ticket) {
                        event.seq = Some(*seq);
                    }
                }
                StoreOp::Remove { ticket } => stored.events.retain(|e| e.ticket != *ticket),
            }
        }
        stored
    }

    fn keep(&mut self, batch: StoreBatch) {
        self.ops.extend(batch.ops);
        if batch.sync == Sync::Now {
            self.durable = self.ops.len();
        }
    }
}

impl Raises {
    fn process(&self, file: &File, starts: u64) -> Whole<Publish> {
        let options = PublishOptions { window: self.window, ..PublishOptions::default() };
        let entropy = Entropy::from_number(starts);
        Whole::new(Publish::new(options, self.durable, file.stored(), entropy))
    }

    /// What happens without a fault.
    fn progress(&self, world: &World, acts: &mut Vec<Act>) {
        match (&world.service, world.link) {
            (None, _) => acts.push(Act::Start),
            (Some(_), None) if world.links.len() < LINKS_MAX => {
                acts.extend((0..NODES).map(Act::Dial));
            }
            (Some(_), _) => {}
        }
        if world.service.is_some() && world.application.get().raised < self.events {
            acts.push(Act::Raise);
        }
        for link in &world.links {
            if !link.up.get().is_empty() && link.session.is_some() {
                acts.push(Act::Up(link.id));
            }
            let mine = world.link == Some(link.id);
            if mine && !link.down.get().is_empty() {
                acts.push(Act::Down);
            } else if mine && link.session.is_none() {
                acts.push(Act::Hear);
            }
            if mine && link.probed {
                acts.push(Act::Alive(link.id));
            } else if link.session.as_ref().is_some_and(|it| it.get().next_deadline().is_some()) {
                acts.push(Act::Due(link.id));
            }
            if !mine {
                acts.push(Act::Gone(link.id));
            }
        }
        if world.wake().is_some_and(|wake| wake < world.now + OVERDUE_MS) {
            acts.push(Act::Wake);
        }
        if world.saving.get().is_some() {
            acts.push(Act::Saved);
        }
        if world.broker.has_waiting() {
            acts.push(Act::Commit);
        }
        if world.broker.is_behind(1) {
            acts.push(Act::CatchUp);
        }
        if world.broker.has_late() {
            acts.push(Act::Late);
        }
    }

    fn faults(&self, world: &World, acts: &mut Vec<Act>) {
        let left = world.left;
        if left.cuts > 0 && world.link.is_some() {
            acts.push(Act::Cut);
        }
        if left.overdue > 0 && world.wake().is_some_and(|wake| wake >= world.now + OVERDUE_MS) {
            acts.push(Act::Overdue);
        }
        if left.doubts > 0 && world.broker.is_first_awaited() {
            acts.extend([Doubt::Lost, Doubt::Unheard, Doubt::Late].map(Act::Doubt));
        }
        if left.failovers > 0 {
            for node in 0..NODES {
                let at = |link: &Link| link.node == node && link.session.is_some();
                if world.links.iter().any(at) {
                    acts.extend([true, false].map(|lost| Act::FailOver { node, lost }));
                }
            }
        }
        if left.crashes > 0 && world.service.is_some() {
            acts.push(Act::Crash { saved: false, synced: true });
            if world.saving.get().is_some() {
                acts.push(Act::Crash { saved: true, synced: true });
            }
            if world.file.get().durable < world.file.get().ops.len() {
                acts.push(Act::Crash { saved: false, synced: false });
            }
        }
    }

    /// Whether everything that was not lost with its process is stored, and the service knows.
    fn is_drained(&self, world: &World) -> bool {
        let application = world.application.get();
        let stored: BTreeSet<u8> = world.stored().into_iter().collect();
        let all: BTreeSet<u8> = (1..=self.events).collect();
        application.raised == self.events
            && all.difference(&stored).all(|text| application.lost.contains(text))
            && world.service.as_ref().is_some_and(|service| service.get().is_drained())
    }
}

impl World {
    fn place(&self, id: u64) -> Option<usize> {
        self.links.iter().position(|link| link.id == id)
    }

    fn wake(&self) -> Option<u64> {
        self.service.as_ref()?.get().next_wake_ms()
    }

    /// The texts that the broker has, in its order.
    fn stored(&self) -> Vec<u8> {
        let text = |data: &[u8]| std::str::from_utf8(data).ok()?.parse().ok();
        let retained = self.broker.site().retained(self.broker.event());
        retained
            .map(|instance| instance.arguments.as_ref().and_then(|it| text(&it.data)).unwrap_or(0))
            .collect()
    }

    /// Tells a session something, and carries out what it wants.
    fn tell(
        &mut self,
        id: u64,
        what: impl FnOnce(&mut ServiceSession, View<'_>, &mut Vec<Output<ToService>>),
    ) {
        let Some(place) = self.place(id) else { return };
        let link = &mut self.links[place];
        let Some(session) = &mut link.session else { return };
        let view = self.broker.view(link.node, self.now);
        let mut out = Vec::new();
        session.change(|session| what(session, view, &mut out));
        for output in out {
            self.output(place, output);
        }
    }

    fn output(&mut self, place: usize, output: Output<ToService>) {
        let id = self.links[place].id;
        match output {
            Output::Propose { token, command } => {
                self.broker.propose(command, Some((id, token)));
            }
            Output::Linearize { .. } => self.broken = Some("a service has nothing to read"),
            Output::Probe => self.links[place].probed = true,
            Output::Send(message) => {
                let message = translate::service_message(&message, TERMS);
                self.links[place].down.change(|down| down.push_back(message));
            }
            Output::Close { reason, detail } => {
                let (closing, _) = translate::closing(reason, &detail);
                let closing = ServiceMessage::Closing(closing);
                self.links[place].down.change(|down| down.push_back(closing));
                self.end(id);
            }
        }
    }

    /// The broker's end of a connection is over.
    fn end(&mut self, id: u64) {
        let Some(place) = self.place(id) else { return };
        self.broker.forget(&[id], false);
        if let Some(session) = self.links[place].session.take()
            && let Some(detach) = session.get().on_ended()
        {
            self.broker.propose(detach, None);
        }
    }

    fn answer(&mut self, answers: impl IntoIterator<Item = Answer>) {
        for (id, token, result) in answers {
            self.tell(id, |session, view, out| session.on_outcome(token, result, view, out));
        }
    }

    fn wake_all(&mut self, node: usize) {
        let there = self.links.iter().filter(|link| link.node == node);
        for id in there.map(|link| link.id).collect::<Vec<_>>() {
            self.tell(id, |session, view, out| session.on_wake(view, out));
        }
    }

    /// Tells the service's machine something, and carries out what it wants.
    fn endpoint<R>(&mut self, what: impl FnOnce(&mut Publish, u64) -> R) -> Option<R> {
        let now = self.now;
        let (result, outputs) = self.service.as_mut()?.change(|service| {
            let result = what(service, now);
            (result, service.poll_all())
        });
        for output in outputs {
            match output {
                PublishOutput::Send(frame) => {
                    if let Some(place) = self.link.and_then(|id| self.place(id)) {
                        self.links[place].up.change(|up| up.push_back(frame));
                    }
                }
                PublishOutput::Persist(batch) => self.saving = Whole::new(Some(batch)),
                PublishOutput::Decided { ticket, result: Ok(_) } => {
                    self.application.change(|known| {
                        let text = known.tickets.get(&ticket).copied();
                        known.stored.extend(text);
                    });
                }
                PublishOutput::Decided { result: Err(_), .. } => {
                    self.broken = Some("a raise was refused for good");
                }
                PublishOutput::Close(Then::Stop { .. }) => {
                    self.broken = Some("the service was told never to come again");
                }
                PublishOutput::Close(_) => self.hang_up(),
                PublishOutput::Notice(_) | PublishOutput::Room => {}
            }
        }
        self.judge();
        Some(result)
    }

    /// Each once, in the order of raising, and whatever was acknowledged.
    fn judge(&mut self) {
        let stored = self.stored();
        let application = self.application.get();
        if stored.windows(2).any(|two| two[0] >= two[1]) {
            self.broken = Some("stored twice, or out of order");
        } else if application.stored.iter().any(|text| !stored.contains(text)) {
            self.broken = Some("acknowledged and not stored");
        } else if stored.iter().any(|text| *text == 0 || *text > application.raised) {
            self.broken = Some("stored and never raised");
        }
    }

    /// The service's end of its connection is closed.
    fn hang_up(&mut self) {
        if let Some(place) = self.link.take().and_then(|id| self.place(id)) {
            self.links[place].down = Whole::new(VecDeque::new());
            self.links[place].probed = false;
            if self.links[place].session.is_none() {
                self.links.remove(place);
            }
        }
    }

    fn save(&mut self) {
        let saving = std::mem::replace(&mut self.saving, Whole::new(None));
        if let Some(batch) = saving.get().clone() {
            self.file.change(|file| file.keep(batch));
        }
    }

    fn crash(&mut self, saved: bool, synced: bool, durable: bool) {
        if saved {
            self.save();
        }
        self.saving = Whole::new(None);
        self.service = None;
        self.hang_up();
        self.file.change(|file| {
            if !synced {
                file.ops.truncate(file.durable);
            }
            file.durable = file.ops.len();
        });
        let held = self.file.get().stored().events;
        let held: BTreeSet<u8> = held
            .iter()
            .filter_map(|stored| stored.event.payload.as_ref())
            .filter_map(|payload| std::str::from_utf8(&payload.data).ok()?.parse().ok())
            .collect();
        self.application.change(|known| {
            // What the file had not yet taken, or there was none to take, is gone with the process.
            let gone = known.tickets.values().filter(|text| !durable || !held.contains(text));
            let gone: Vec<u8> = gone.copied().collect();
            known.lost.extend(gone);
            known.tickets.clear();
        });
    }

    fn fail_over(&mut self, node: usize, lost: bool) {
        let mut gone = Vec::new();
        for link in self.links.iter_mut().filter(|link| link.node == node) {
            link.session = None;
            link.up = Whole::new(VecDeque::new());
            gone.push(link.id);
        }
        let mine = self.link;
        self.links.retain(|link| link.session.is_some() || mine == Some(link.id));
        self.broker.forget(&gone, lost);
    }

    fn dial(&mut self, node: usize) -> Option<()> {
        self.dialled += 1;
        let id = self.dialled;
        let mut session =
            ServiceSession::new(site(), ServiceId::from(SERVICE), None, SessionId(id));
        session.on_opened(self.broker.view(node, self.now).site?);
        self.links.push(Link {
            id,
            node,
            session: Some(Whole::new(session)),
            up: Whole::new(VecDeque::new()),
            down: Whole::new(VecDeque::new()),
            probed: false,
        });
        self.link = Some(id);
        self.endpoint(Publish::connected)
    }

    fn hear(&mut self, id: u64) -> Option<()> {
        let place = self.place(id)?;
        let node = self.links[place].node;
        let frame = self.links[place].up.change(VecDeque::pop_front)?;
        let grant = Grant {
            window_default: 8,
            window_max: 8,
            incarnation: Incarnation(7),
            place: Place { node: node as u64, run: 1 },
            above: Epoch(0),
        };
        self.tell(id, |session, _, out| translate::service_frame(session, frame, grant, out));
        Some(())
    }
}

impl Model for Raises {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            broker: Broker::new(Vec::new()),
            links: Vec::new(),
            dialled: 0,
            service: Some(self.process(&File::default(), 0)),
            starts: 0,
            link: None,
            file: Whole::new(File::default()),
            saving: Whole::new(None),
            application: Whole::new(Application::default()),
            now: 0,
            left: self.budget,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        if world.broken.is_none() && world.broker.broken.is_none() {
            self.progress(world, acts);
            self.faults(world, acts);
        }
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        let mut next = world.clone();
        match act {
            Act::Raise => {
                let text = next.application.change(|known| {
                    known.raised += 1;
                    known.raised
                });
                let event = Event::queueing(EVENT, Payload::json(text.to_string().into_bytes()));
                let raise =
                    |service: &mut Publish, now| service.raise(now, event, Waits::ForOutcome);
                let Some(Ok(ticket)) = next.endpoint(raise) else {
                    next.broken = Some("a raise was refused at once");
                    return Some(next);
                };
                next.application.change(|known| known.tickets.insert(ticket, text));
            }
            Act::Dial(node) => next.dial(node)?,
            Act::Up(id) => next.hear(id)?,
            Act::Down => {
                let place = next.link.and_then(|id| next.place(id))?;
                let message = next.links[place].down.change(VecDeque::pop_front)?;
                next.endpoint(|service, now| service.receive(now, message));
            }
            Act::Saved => {
                next.save();
                next.endpoint(|service, now| service.persisted(now, Ok(())));
            }
            Act::Commit => {
                let answers = next.broker.commit();
                next.answer(answers);
                next.wake_all(0);
                next.judge();
            }
            Act::CatchUp => {
                next.broker.catch_up(1);
                next.wake_all(1);
            }
            Act::Late => next.broker.come_late(),
            Act::Due(id) => {
                let place = next.place(id)?;
                let due = next.links[place].session.as_ref()?.get().next_deadline()?;
                next.now = next.now.max(due);
                let now = next.now;
                next.tell(id, |session, _, out| session.on_time(now, out));
            }
            Act::Wake | Act::Overdue => {
                if act == Act::Overdue {
                    next.left.overdue -= 1;
                }
                next.now = next.now.max(next.wake()?);
                next.endpoint(Publish::tick);
            }
            Act::Alive(id) => {
                let place = next.place(id)?;
                next.links[place].probed = false;
                next.tell(id, |session, _, out| session.on_alive(out));
            }
            Act::Hear => {
                next.endpoint(|service, now| service.disconnected(now, "gone"));
                next.hang_up();
            }
            Act::Gone(id) => {
                next.end(id);
                let place = next.place(id)?;
                next.links.remove(place);
            }
            Act::Start => {
                next.starts += 1;
                next.service = Some(self.process(next.file.get(), next.starts));
            }
            Act::Cut => {
                next.left.cuts -= 1;
                next.hang_up();
                next.endpoint(|service, now| service.disconnected(now, "cut"));
            }
            Act::Doubt(doubt) => {
                next.left.doubts -= 1;
                let answer = next.broker.doubt(doubt);
                next.answer(answer);
            }
            Act::FailOver { node, lost } => {
                next.left.failovers -= 1;
                next.fail_over(node, lost);
            }
            Act::Crash { saved, synced } => {
                next.left.crashes -= 1;
                next.crash(saved, synced, self.durable);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("each once, in order, none lost", |_, world: &World| {
                world.broken.is_none()
            }),
            Property::always(
                "no number is passed over, the newest session alone stores",
                |_, world: &World| world.broker.broken.is_none(),
            ),
            Property::always(
                "nothing rests before all is stored",
                |model: &Self, world: &World| {
                    let mut acts = Vec::new();
                    model.progress(world, &mut acts);
                    !acts.is_empty() || model.is_drained(world)
                },
            ),
            Property::sometimes("all is stored after all faults", |model: &Self, world: &World| {
                world.left.is_spent() && model.is_drained(world)
            }),
        ]
    }
}

#[test]
fn given_a_connection_that_breaks_while_its_session_goes_on_then_each_raise_is_stored_once() {
    let doubts = u8::from(is_large());
    let budget = Budget { cuts: 1, doubts, ..Budget::NONE };
    check("raises, SPL-2, a cut", Raises { events: 2, window: 2, durable: true, budget });
}

#[test]
fn given_a_node_that_fails_and_a_proposal_of_unknown_fate_then_each_raise_is_stored_once() {
    let overdue = u8::from(is_large());
    let budget = Budget { failovers: 1, doubts: 1, overdue, ..Budget::NONE };
    check("raises, SPL-1, a failover", Raises { events: 3, window: 3, durable: false, budget });
}

#[test]
fn given_a_service_with_a_file_that_dies_then_each_raise_that_the_file_has_is_stored_once() {
    let failovers = u8::from(is_large());
    let budget = Budget { failovers, crashes: 1, ..Budget::NONE };
    check("raises, SPL-2, a crash", Raises { events: 2, window: 2, durable: true, budget });
}

#[test]
fn given_a_service_in_memory_that_dies_then_no_raise_is_stored_twice() {
    let doubts = u8::from(is_large());
    let budget = Budget { doubts, crashes: 1, ..Budget::NONE };
    check("raises, SPL-1, a crash", Raises { events: 2, window: 2, durable: false, budget });
}
