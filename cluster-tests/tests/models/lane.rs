//! One subscription: the sessions that deliver it, the endpoint that handles it, and what breaks.
//!
//! `instance ─▶ session ─▶ link ─▶ endpoint ─▶ handler ─▶ (file) ─▶ acknowledgement ─▶ cursor`
//!
//! The client dials either of two nodes; the second may lag behind the log. Faults: a connection
//! breaks and the broker learns of it at any later time, so that an old session goes on beside the
//! new one; a node loses all its sessions with or without what they proposed; a proposal is lost, or
//! applied unheard, at once or later; an acknowledgement is overdue; the client's process dies before
//! or after its file has the last position. The queue gets its events at any moment.

use std::collections::VecDeque;

use ackord_agents::translate::{self, Terms};
use ackord_endpoint::cpl::{PositionChange, Positions};
use ackord_endpoint::entropy::Entropy;
use ackord_endpoint::publish::Then;
use ackord_endpoint::subscribe::{Account, SetRule, Subscribe, SubscribeOptions, SubscribeOutput};
use ackord_endpoint::{ClientNotice, Flow, Subscription};
use ackord_machine::session::{ClientSession, Output, SessionOptions, ToClient, View, Wake};
use ackord_machine::site::{
    Arguments, AttachService, Claim, ClientId, Command, Decision, Epoch, EventName, Incarnation,
    NewEvent, Outcome, Place, Raise, Receiver, Sequence, ServiceId, SessionId, Start, StorageUid,
    Subscribe as List, SubscribeMode, SubscriptionRequest,
};
use ackord_wire::Codec;
use ackord_wire::frame::{ClientFrame, ClientMessage, Position};
use stateright::{Model, Property};

use super::broker::{Answer, Broker, CLIENT, Doubt, EVENT, NODES, SERVICE, site};
use super::whole::Whole;
use super::{Budget, check, is_large};

const TERMS: Terms<'_> = Terms { keepalive_s: 60, addresses: &Vec::new };
const ACK_TIMEOUT_MS: u32 = 30_000;
/// Connections at once: the client's, and one that it has given up.
const LINKS_MAX: usize = 2;

/// One connection.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Link {
    id: u64,
    node: usize,
    /// The broker's end, until it is closed or lost.
    session: Option<Whole<ClientSession>>,
    up: Whole<VecDeque<ClientFrame>>,
    down: Whole<VecDeque<ClientMessage>>,
    /// The broker wants a sign of life.
    probed: bool,
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct World {
    broker: Broker,
    links: Vec<Link>,
    dialled: u64,
    /// The client's process, while it runs.
    client: Option<Whole<Subscribe>>,
    /// Its connection.
    link: Option<u64>,
    /// What its file holds.
    file: Whole<Option<Position>>,
    saving: Whole<Option<Vec<PositionChange>>>,
    /// The instance that a handler runs with.
    running: Option<u64>,
    /// The highest instance whose handler returned.
    returned: u64,
    to_raise: u8,
    now: u64,
    left: Budget,
    /// The highest instance that a handler was called with.
    handled: u64,
    /// The highest instance that the client has acknowledged.
    acknowledged: u64,
    /// The one that a crash allows once more.
    again: Option<u64>,
    /// The highest instance that the client was told never to get again.
    confirmed: u64,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Raise,
    Dial(usize),
    /// The broker takes a frame of this connection.
    Up(u64),
    /// The client takes a frame.
    Down,
    /// The client's handler returns.
    Return,
    /// The client's file has the position.
    Saved,
    Commit,
    CatchUp,
    /// What all have given up comes to be applied.
    Late,
    /// A session's own deadline is reached.
    Due(u64),
    /// The peer answers a probe.
    Alive(u64),
    /// The client learns that nobody is at the other end.
    Hear,
    /// The broker learns that a connection is gone.
    Gone(u64),
    Start,
    // What follows is a fault.
    Cut,
    Overdue(u64),
    Doubt(Doubt),
    FailOver {
        node: usize,
        lost: bool,
    },
    Crash {
        saved: bool,
    },
}

struct Lane {
    events: u8,
    /// The client keeps its position in a file (CPL-2).
    durable: bool,
    budget: Budget,
}

/// The commands by which the service and the client were here before.
fn before() -> Vec<Command> {
    let claim = Claim { session: SessionId(1 << 32), above: Epoch(0) };
    let list = List {
        site: site(),
        client: ClientId::from(CLIENT),
        epoch: Epoch(1),
        number: 1,
        mode: SubscribeMode::Exact,
        items: vec![SubscriptionRequest {
            event: EventName::from(EVENT),
            category: None,
            start: Start::Earliest,
            ack_timeout_ms: None,
            max_attempts: None,
        }],
    };
    vec![
        Command::AttachService(AttachService {
            site: site(),
            service: ServiceId::from(SERVICE),
            structure: None,
            version: String::new(),
            hostname: String::new(),
            uid: StorageUid([1; 16]),
            continues: None,
            incarnation: Incarnation(7),
            place: Place { node: 9, run: 1 },
            claim,
        }),
        Command::AttachClient { site: site(), client: ClientId::from(CLIENT), claim },
        Command::Subscribe(list),
    ]
}

/// The raise with this number.
fn raise(number: u64) -> Command {
    Command::Raise(Raise {
        site: site(),
        service: ServiceId::from(SERVICE),
        epoch: Epoch(1),
        uid: StorageUid([1; 16]),
        sequence: Sequence(number),
        event: NewEvent {
            name: EventName::from(EVENT),
            category: None,
            arguments: Some(Arguments {
                content_type: "application/json".to_owned(),
                data: number.to_string().into_bytes().into(),
            }),
            client: None,
            lifetime_s: None,
            trace: None,
        },
    })
}

impl Lane {
    fn process(&self, file: &Option<Position>) -> Whole<Subscribe> {
        let options = SubscribeOptions {
            account: Account::Stateful { set: SetRule::Exact },
            subscriptions: vec![Subscription::new(EVENT)],
            ..SubscribeOptions::default()
        };
        let positions = file.filter(|_| self.durable).map(|position| (EVENT.to_owned(), position));
        let stored =
            Positions { positions: positions.into_iter().collect(), ..Positions::default() };
        Whole::new(Subscribe::new(options, self.durable, stored, Entropy::from_number(1)))
    }

    /// What happens without a fault.
    fn progress(&self, world: &World, acts: &mut Vec<Act>) {
        if world.to_raise > 0 {
            acts.push(Act::Raise);
        }
        match (&world.client, world.link) {
            (None, _) => acts.push(Act::Start),
            (Some(_), None) if world.links.len() < LINKS_MAX => {
                acts.extend((0..NODES).map(Act::Dial));
            }
            (Some(_), _) => {}
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
            }
            if !mine {
                acts.push(Act::Gone(link.id));
            }
            if world.is_due(link, false) {
                acts.push(Act::Due(link.id));
            }
        }
        if world.running.is_some() {
            acts.push(Act::Return);
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
        if left.overdue > 0 {
            let overdue = world.links.iter().filter(|link| world.is_due(link, true));
            acts.extend(overdue.map(|link| Act::Overdue(link.id)));
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
        if left.crashes > 0 && world.client.is_some() {
            acts.push(Act::Crash { saved: false });
            if world.saving.get().is_some() {
                acts.push(Act::Crash { saved: true });
            }
        }
    }

    /// Whether everything was handled to the end, and the broker knows.
    fn is_drained(&self, world: &World) -> bool {
        let newest = world.newest();
        world.to_raise == 0
            && world.handled == newest
            && world.returned == newest
            && world.broker.cursor() == Some(newest)
            && world.confirmed == newest
    }
}

impl World {
    fn due(&self, link: &Link) -> Option<u64> {
        link.session.as_ref()?.get().next_deadline()
    }

    /// Whether a session has a deadline: one that it is a fault to reach, because its peer is there
    /// to answer, or another one.
    fn is_due(&self, link: &Link, fault: bool) -> bool {
        let Some(due) = self.due(link) else { return false };
        let unanswered = link.probed && self.link == Some(link.id);
        let unacknowledged = due >= self.now + u64::from(ACK_TIMEOUT_MS) / 2;
        (unanswered || unacknowledged) == fault
    }

    fn newest(&self) -> u64 {
        let retained = self.broker.site().retained(self.broker.event());
        retained.last().map_or(0, |instance| instance.id.0)
    }

    fn place(&self, id: u64) -> Option<usize> {
        self.links.iter().position(|link| link.id == id)
    }

    /// Tells a session something, and carries out what it wants.
    fn tell(
        &mut self,
        id: u64,
        what: impl FnOnce(&mut ClientSession, View<'_>, &mut Vec<Output<ToClient>>),
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

    fn output(&mut self, place: usize, output: Output<ToClient>) {
        let id = self.links[place].id;
        match output {
            Output::Propose { token, command } => {
                self.broker.propose(command, Some((id, token)));
            }
            Output::Linearize { .. } => self.broken = Some("a registered client needs no read"),
            Output::Probe => self.links[place].probed = true,
            Output::Send(message) => {
                if let ToClient::Event(delivery) = &message {
                    self.judge_sent(delivery.instance.id.0);
                }
                let message = translate::client_message(&message, Codec::Json, TERMS);
                self.links[place].down.change(|down| down.push_back(message));
            }
            Output::Close { reason, detail } => {
                let (closing, _) = translate::closing(reason, &detail);
                let link = &mut self.links[place];
                link.session = None;
                link.down.change(|down| down.push_back(ClientMessage::Closing(closing)));
                self.broker.forget(&[id], false);
            }
        }
    }

    /// One in flight: whatever is sent, all before it are behind the cursor.
    fn judge_sent(&mut self, id: u64) {
        let Some(cursor) = self.broker.cursor() else { return };
        let site = self.broker.site();
        let mut between = site.retained(self.broker.event()).map(|instance| instance.id.0);
        if between.any(|other| cursor < other && other < id) {
            self.broken = Some("sent before the one before it was committed");
        }
    }

    fn answer(&mut self, answers: impl IntoIterator<Item = Answer>) {
        for (id, token, result) in answers {
            self.tell(id, |session, view, out| session.on_outcome(token, result, view, out));
        }
    }

    fn wake(&mut self, node: usize) {
        let there = self.links.iter().filter(|link| link.node == node);
        for id in there.map(|link| link.id).collect::<Vec<_>>() {
            self.tell(id, |session, view, out| session.on_wake(&Wake::All, view, out));
        }
    }

    /// Tells the client's machine something, and carries out what it wants.
    fn endpoint(&mut self, what: impl FnOnce(&mut Subscribe, u64)) {
        let now = self.now;
        let Some(client) = &mut self.client else { return };
        let outputs = client.change(|client| {
            what(client, now);
            client.poll_all()
        });
        for output in outputs {
            match output {
                SubscribeOutput::Send(frame) => {
                    if let ClientFrame::Ack(answer) = &frame {
                        self.acknowledged = self.acknowledged.max(answer.instance_id);
                    }
                    if let Some(place) = self.link.and_then(|id| self.place(id)) {
                        self.links[place].up.change(|up| up.push_back(frame));
                    }
                }
                SubscribeOutput::Call { delivery, .. } => self.call(delivery.instance_id),
                SubscribeOutput::Persist(changes) => self.saving = Whole::new(Some(changes)),
                SubscribeOutput::Notice(ClientNotice::Committed { instance_id, .. }) => {
                    self.confirmed = self.confirmed.max(instance_id);
                }
                SubscribeOutput::Notice(_) => {}
                SubscribeOutput::Close(Then::Stop { .. }) => {
                    self.broken = Some("the client was told never to come again");
                }
                SubscribeOutput::Close(_) => self.hang_up(),
            }
        }
    }

    /// The client's end of its connection is closed.
    fn hang_up(&mut self) {
        if let Some(place) = self.link.take().and_then(|id| self.place(id)) {
            self.links[place].down = Whole::new(VecDeque::new());
            self.links[place].probed = false;
            if self.links[place].session.is_none() {
                self.links.remove(place);
            }
        }
    }

    /// A handler is called.
    fn call(&mut self, id: u64) {
        let site = self.broker.site();
        let mut all = site.retained(self.broker.event()).map(|instance| instance.id.0);
        if self.running.replace(id).is_some() {
            self.broken = Some("two handlers at once");
        } else if id <= self.confirmed {
            self.broken = Some("handled after it was confirmed");
        } else if id <= self.handled && self.again != Some(id) {
            self.broken = Some("handled twice");
        } else if all.any(|other| self.handled < other && other < id) {
            self.broken = Some("one was passed over");
        }
        self.again = None;
        self.handled = self.handled.max(id);
    }

    fn save(&mut self) {
        let Some(changes) = std::mem::replace(&mut self.saving, Whole::new(None)).get().clone()
        else {
            return;
        };
        for change in changes {
            match change {
                PositionChange::Handled { position, .. } => self.file = Whole::new(Some(position)),
                PositionChange::Forget { .. } | PositionChange::HandledAbove { .. } => {
                    self.broken = Some("a position was forgotten");
                }
            }
        }
    }

    fn crash(&mut self, saved: bool, durable: bool) {
        if saved {
            self.save();
        }
        self.saving = Whole::new(None);
        self.client = None;
        self.running = None;
        self.hang_up();
        // A file lets only what it has not come again, and has what was acknowledged; memory what
        // the broker has not heard of.
        let known = if durable {
            let filed = self.file.get().map_or(0, |position| position.instance_id);
            filed.max(self.acknowledged)
        } else {
            self.broker.cursor().unwrap_or(0)
        };
        self.again = Some(self.handled).filter(|handled| known < *handled);
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
}

impl Model for Lane {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let mut broker = Broker::new(before());
        let outcomes = broker.apply(vec![raise(1)]);
        let stored = |outcome: &Outcome| match outcome {
            Outcome::Raised(raised) => matches!(raised.decision, Decision::Stored(_)),
            _ => false,
        };
        assert!(outcomes.iter().all(stored), "not raised: {outcomes:?}");
        broker.catch_up(1);
        vec![World {
            broker,
            links: Vec::new(),
            dialled: 0,
            client: Some(self.process(&None)),
            link: None,
            file: Whole::new(None),
            saving: Whole::new(None),
            running: None,
            returned: 0,
            to_raise: self.events - 1,
            now: 0,
            left: self.budget,
            handled: 0,
            acknowledged: 0,
            again: None,
            confirmed: 0,
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
                let number = u64::from(self.events - next.to_raise) + 1;
                next.to_raise -= 1;
                next.broker.apply(vec![raise(number)]);
                next.wake(0);
            }
            Act::Dial(node) => {
                next.dialled += 1;
                let id = next.dialled;
                let receiver = Receiver::Client(ClientId::from(CLIENT));
                let options =
                    SessionOptions { ack_timeout_ms: ACK_TIMEOUT_MS, ..SessionOptions::default() };
                let mut session =
                    ClientSession::new(site(), receiver, None, SessionId(id), options);
                session.on_opened(next.broker.view(node, next.now).site?);
                next.links.push(Link {
                    id,
                    node,
                    session: Some(Whole::new(session)),
                    up: Whole::new(VecDeque::new()),
                    down: Whole::new(VecDeque::new()),
                    probed: false,
                });
                next.link = Some(id);
                next.endpoint(Subscribe::connected);
            }
            Act::Up(id) => {
                let place = next.place(id)?;
                let frame = next.links[place].up.change(VecDeque::pop_front)?;
                next.tell(id, |session, view, out| {
                    translate::client_frame(session, frame, view, out);
                });
            }
            Act::Down => {
                let place = next.link.and_then(|id| next.place(id))?;
                let message = next.links[place].down.change(VecDeque::pop_front)?;
                next.endpoint(|client, now| client.receive(now, message));
            }
            Act::Return => {
                next.returned = next.returned.max(next.running.take()?);
                next.endpoint(|client, now| client.returned(now, 0, Ok(Flow::Continue)));
            }
            Act::Saved => {
                next.save();
                next.endpoint(|client, now| client.persisted(now, Ok(())));
            }
            Act::Commit => {
                let answers = next.broker.commit();
                next.answer(answers);
                next.wake(0);
            }
            Act::CatchUp => {
                next.broker.catch_up(1);
                next.wake(1);
            }
            Act::Late => next.broker.come_late(),
            Act::Due(id) | Act::Overdue(id) => {
                if let Act::Overdue(_) = act {
                    next.left.overdue -= 1;
                }
                let place = next.place(id)?;
                next.now = next.now.max(next.due(&next.links[place])?);
                next.tell(id, |session, view, out| session.on_time(view, out));
            }
            Act::Alive(id) => {
                let place = next.place(id)?;
                next.links[place].probed = false;
                next.tell(id, |session, _, out| session.on_alive(out));
            }
            Act::Hear => {
                next.endpoint(|client, _| client.disconnected("gone"));
                next.hang_up();
            }
            Act::Gone(id) => {
                let place = next.place(id)?;
                next.links.remove(place);
                next.broker.forget(&[id], false);
            }
            Act::Start => {
                let client = self.process(next.file.get());
                next.client = Some(client);
            }
            Act::Cut => {
                next.left.cuts -= 1;
                next.hang_up();
                next.endpoint(|client, _| client.disconnected("cut"));
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
            Act::Crash { saved } => {
                next.left.crashes -= 1;
                next.crash(saved, self.durable);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("each once, in order, one at a time", |_, world: &World| {
                world.broken.is_none()
            }),
            Property::always(
                "cursors rise, and only the newest session moves them",
                |_, world: &World| world.broker.broken.is_none(),
            ),
            Property::always(
                "nothing rests before all is delivered",
                |model: &Self, world: &World| {
                    let mut acts = Vec::new();
                    model.progress(world, &mut acts);
                    !acts.is_empty() || model.is_drained(world)
                },
            ),
            Property::sometimes(
                "all is delivered after all faults",
                |model: &Self, world: &World| world.left.is_spent() && model.is_drained(world),
            ),
        ]
    }
}

#[test]
fn given_a_connection_that_breaks_and_a_proposal_of_unknown_fate_then_each_is_handled_once() {
    let more = u8::from(is_large());
    let budget = Budget { cuts: 1, doubts: 1, overdue: more, ..Budget::NONE };
    check("a subscription, CPL-2, a cut", Lane { events: 2, durable: true, budget });
}

#[test]
fn given_a_node_that_fails_and_an_overdue_answer_then_each_is_handled_once() {
    let more = u8::from(is_large());
    let budget = Budget { failovers: 1 + more, doubts: 1, overdue: 1, ..Budget::NONE };
    check("a subscription, CPL-1, a failover", Lane { events: 2, durable: false, budget });
}

#[test]
fn given_three_events_and_a_node_that_fails_then_each_is_handled_once() {
    let more = u8::from(is_large());
    let budget = Budget { failovers: 1, doubts: 1, overdue: more, ..Budget::NONE };
    check("a subscription, CPL-2, 3 events", Lane { events: 3, durable: true, budget });
}

#[test]
fn given_a_client_in_memory_that_dies_then_what_it_had_not_acknowledged_comes_once_more() {
    let more = u8::from(is_large());
    let budget = Budget { doubts: 1, overdue: more, crashes: 1, ..Budget::NONE };
    check("a subscription, CPL-1, a crash", Lane { events: 2, durable: false, budget });
}

#[test]
fn given_a_client_with_a_file_that_dies_then_what_the_file_has_never_comes_again() {
    let more = u8::from(is_large());
    let budget = Budget { failovers: more, doubts: more, crashes: 1, ..Budget::NONE };
    check("a subscription, CPL-2, a crash", Lane { events: 2, durable: true, budget });
}
