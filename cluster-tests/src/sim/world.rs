//! The world of one seed: time, faults, and who talks to whom.
//!
//! Invariants: nothing happens but through the agenda; equal seeds give equal runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ackord_endpoint::cpl::PositionChange;
use ackord_endpoint::publish::{PublishOutput, StoreBatch, Then};
use ackord_endpoint::subscribe::SubscribeOutput;
use ackord_endpoint::{Delivery, Event, Flow, HandlerError};
use ackord_machine::site::{Receiver, SiteName};
use ackord_wire::Payload;
use ackord_wire::frame::{ServiceFrame, ServiceMessage};

use super::agenda::{Due, Happening};
use super::broker::{Act, Broker, LinkId, Mistakes, Say};
use super::client::{ClientHost, Kind};
use super::link::{Frame, Links, Peer};
use super::oracle::{Oracle, Violation};
use super::scene::{SITE, addressee, client_id, service_id, setup};
use super::service::ServiceHost;
use crate::seed::Seed;

/// Steps after which a run that has not come to rest is a failure.
const STEPS_MAX: u64 = 400_000;
/// Virtual time after the faults within which everything must come to rest.
const REST_MS: u64 = 600_000;
const ACK_TIMEOUT_MS: u32 = 400;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Events raised.
    pub raised: u64,
    /// Events acknowledged to their service.
    pub acknowledged: u64,
    /// Calls of handlers.
    pub handled: u64,
    /// Faults that happened: broker crashes, service crashes, torn stores, client crashes, cuts,
    /// elections.
    pub faults: [u64; 6],
}

/// See the module.
pub(super) struct World {
    pub(super) now: u64,
    pub(super) seed: Seed,
    agenda: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub(super) calm_from: u64,
    pub(super) broker: Broker,
    pub(super) write_due: bool,
    pub(super) wake_due: bool,
    lazy: bool,
    pub(super) broker_timer: Option<u64>,
    pub(super) links: Links,
    pub(super) services: Vec<ServiceHost>,
    /// The batch that is on its way to a service's store.
    pub(super) keeping: Vec<Option<StoreBatch>>,
    pub(super) clients: Vec<ClientHost>,
    pub(super) saving: Vec<Option<Vec<PositionChange>>>,
    to_raise: u64,
    pub(super) requests: u64,
    pub(super) oracle: Oracle,
    pub(super) faults: [u64; 6],
    /// Says on standard error what happens: `ACKORD_TEST_TRACE=1`.
    pub(super) trace: bool,
}

/// Runs the world of one seed.
pub fn run(seed: u64, mistakes: Mistakes) -> Report {
    let mut world = World::new(seed, mistakes);
    let mut steps = 0;
    let end = world.calm_from + REST_MS;
    while let Some(Reverse(due)) = world.agenda.pop() {
        steps += 1;
        world.now = due.at;
        if due.at > end || steps > STEPS_MAX {
            world.oracle.violations.push(format!("no rest after {steps} steps at {} ms", due.at));
            break;
        }
        if due.at > world.calm_from && world.is_at_rest() {
            break;
        }
        world.happen(due.what);
        let unfenced = std::mem::take(&mut world.broker.unfenced);
        world.oracle.violations.extend(unfenced);
        if !world.oracle.violations.is_empty() {
            break;
        }
    }
    world.finish()
}

impl World {
    fn new(seed: u64, mistakes: Mistakes) -> Self {
        let mut seed = Seed::new(seed);
        let services = seed.between(1, 3) as usize;
        let kinds = [Kind::StatefulFile, Kind::StatefulMemory, Kind::StatelessFile];
        let clients = seed.between(1, 4) as usize;
        let clients: Vec<ClientHost> = (0..clients)
            .map(|index| {
                let kind = kinds[seed.between(0, 3) as usize];
                let mut events = vec!["reading", "state", "burst"];
                if kind.is_stateful() {
                    events.extend(["alarm", "notice"]);
                }
                ClientHost::new(index, kind, events, &mut seed)
            })
            .collect();
        let broker = {
            let setup = setup(services, clients.len());
            Broker::new(SiteName::from(SITE), setup, mistakes, seed.fork())
        };
        let calm_from = seed.between(1_000, 6_000);
        let mut world = Self {
            now: 2,
            agenda: BinaryHeap::new(),
            order: 0,
            calm_from,
            broker,
            write_due: false,
            wake_due: false,
            lazy: seed.between(0, 3) == 0,
            broker_timer: None,
            links: Links::new(seed.between(2, 40)),
            services: (0..services).map(|_| ServiceHost::new(&mut seed)).collect(),
            keeping: (0..services).map(|_| None).collect(),
            saving: clients.iter().map(|_| None).collect(),
            clients,
            to_raise: seed.between(10, 80),
            requests: 0,
            oracle: Oracle::default(),
            faults: [0; 6],
            trace: std::env::var_os("ACKORD_TEST_TRACE").is_some(),
            seed,
        };
        for index in 0..world.services.len() {
            world.later(1, 50, Happening::Connect(Peer::Service(index)));
            world.later(1, 100, Happening::Raise(index));
        }
        for index in 0..world.clients.len() {
            world.later(1, 500, Happening::Connect(Peer::Client(index)));
        }
        world.later(50, 500, Happening::Fault);
        world
    }

    pub(super) fn at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.agenda.push(Reverse(Due { at, order: self.order, what }));
    }

    pub(super) fn later(&mut self, low: u64, high: u64, what: Happening) {
        let at = self.now + self.seed.between(low, high);
        self.at(at, what);
    }

    fn is_at_rest(&self) -> bool {
        self.to_raise == 0
            && self.broker.up
            && self
                .services
                .iter()
                .all(|service| service.machine.as_ref().is_some_and(|machine| machine.is_drained()))
            && self.clients.iter().all(|client| self.is_settled(client))
    }

    /// Whether a client has nothing more to come: it handled the newest it may have, and the
    /// broker knows.
    fn is_settled(&self, client: &ClientHost) -> bool {
        let Some(machine) = client.machine.as_ref().filter(|machine| machine.is_quiet()) else {
            return false;
        };
        let Some(site) = self.broker.state().site(SITE) else { return false };
        let id = client_id(client.index);
        site.events().all(|event| {
            let name = event.definition.name.as_str();
            let mine = |instance: &ackord_machine::site::Instance| {
                instance.client.is_none() || instance.client.as_ref() == Some(&id)
            };
            let newest = site.retained(event.key).filter(|i| mine(i)).last().map(|i| i.id.0);
            let handled = machine.last(name).map(|position| position.instance_id);
            let cursor = site.subscription(&id, event.key).map(|row| row.cursor.0);
            if client.kind.is_stateful() {
                cursor.is_some() && cursor >= newest
            } else {
                name == "alarm" || name == "notice" || handled >= newest
            }
        })
    }

    fn happen(&mut self, what: Happening) {
        if self.trace {
            eprintln!("{:>6} {what:?}", self.now);
        }
        match what {
            Happening::Arrive(link, frame) => self.arrive(link, *frame),
            Happening::BrokerLearnsCut(link) => {
                let acts = self.broker.hang_up(link);
                self.act(acts);
            }
            Happening::PeerLearnsCut(link) => self.peer_lost(link),
            Happening::Write { life } if life == self.broker.life => self.write(),
            Happening::Synced { life, length } if life == self.broker.life => {
                let acts = self.broker.synced(length, self.now);
                self.act(acts);
            }
            Happening::BrokerTime { life } if life == self.broker.life => {
                self.broker_timer = None;
                let acts = self.broker.on_time(self.now);
                self.act(acts);
            }
            Happening::Wake { life } if life == self.broker.life => {
                self.wake_due = false;
                let acts = self.broker.wake_all(self.now);
                self.act(acts);
            }
            Happening::Failed { life, link, token, failed } if life == self.broker.life => {
                let acts = self.broker.fail(link, token, failed, self.now);
                self.act(acts);
            }
            Happening::Late(command) if self.broker.up => {
                let acts = self.broker.propose(*command);
                self.act(acts);
            }
            Happening::Ping(link) => self.pinged(link),
            Happening::Pong(link) if self.links.carries(link, true, self.now) => {
                let acts = self.broker.alive(link, self.now);
                self.act(acts);
            }
            Happening::Back => self.broker.away = false,
            Happening::Write { .. }
            | Happening::Synced { .. }
            | Happening::BrokerTime { .. }
            | Happening::Wake { .. }
            | Happening::Failed { .. }
            | Happening::Late(_)
            | Happening::Pong(_) => {}
            Happening::BrokerStarts => self.broker.start(&mut self.seed),
            Happening::Connect(peer) => self.connect(peer),
            Happening::Time(peer, life) => self.time(peer, life),
            Happening::Raise(service) => self.raise(service),
            Happening::Kept(service, life) => self.kept(service, life),
            Happening::Saved(client, life) => self.saved(client, life),
            Happening::Returned { client, life, lane } => self.returned(client, life, lane),
            Happening::Starts(peer) => self.starts(peer),
            Happening::Fault => self.fault(),
        }
        self.set_broker_timer();
    }

    fn set_broker_timer(&mut self) {
        let Some(deadline) = self.broker.next_deadline().filter(|_| self.broker.up) else { return };
        let at = deadline.max(self.now + 1);
        if self.broker_timer.is_none_or(|timer| timer > at) {
            self.broker_timer = Some(at);
            let life = self.broker.life;
            self.at(at, Happening::BrokerTime { life });
        }
    }

    pub(super) fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Write if !self.write_due => {
                    self.write_due = true;
                    let life = self.broker.life;
                    self.later(1, 5, Happening::Write { life });
                }
                Act::Write => {}
                Act::Wake if !self.wake_due => {
                    self.wake_due = true;
                    let life = self.broker.life;
                    // Level-triggered: when a session hears of it costs nothing but latency.
                    let high = if self.lazy { 300 } else { 2 };
                    self.later(1, high, Happening::Wake { life });
                }
                Act::Wake => {}
                Act::Fail(link, token, failed) => {
                    let life = self.broker.life;
                    self.later(1, 40, Happening::Failed { life, link, token, failed });
                }
                Act::Late(command) => self.later(1, 4_000, Happening::Late(command)),
                Act::Probe(link) => self.later(1, 40, Happening::Ping(link)),
                Act::Say(link, say) => self.send(link, Frame::Broker(say)),
            }
        }
    }

    fn write(&mut self) {
        self.write_due = false;
        if let Some(length) = self.broker.write(self.now) {
            let life = self.broker.life;
            self.later(1, 30, Happening::Synced { life, length });
            let acts = self.broker.written(self.now);
            self.act(acts);
        }
    }

    fn send(&mut self, link: LinkId, frame: Frame) {
        if let Some((at, frame)) = self.links.send(link, frame, self.now, &mut self.seed) {
            self.at(at, Happening::Arrive(link, Box::new(frame)));
        }
    }

    fn connect(&mut self, peer: Peer) {
        let (running, linked) = match peer {
            Peer::Service(index) => {
                let host = &self.services[index];
                (host.machine.is_some() && !host.stopped, host.link.is_some())
            }
            Peer::Client(index) => {
                let host = &self.clients[index];
                (host.machine.is_some() && !host.stopped, host.link.is_some())
            }
        };
        if !running || linked {
            return;
        }
        if !self.broker.up {
            return self.reconnect_later(peer, None);
        }
        let (link, _) = self.links.open(peer, self.now, &mut self.seed);
        match peer {
            Peer::Service(index) => {
                self.broker.open_service(link, service_id(index));
                self.services[index].link = Some(link);
                if let Some(machine) = &mut self.services[index].machine {
                    machine.connected(self.now);
                }
            }
            Peer::Client(index) => {
                let receiver = if self.clients[index].kind.is_stateful() {
                    Receiver::Client(client_id(index))
                } else {
                    Receiver::Stateless
                };
                self.broker.open_client(link, receiver, ACK_TIMEOUT_MS);
                self.clients[index].link = Some(link);
                if let Some(machine) = &mut self.clients[index].machine {
                    machine.connected(self.now);
                }
            }
        }
        self.pump(peer);
    }

    fn reconnect_later(&mut self, peer: Peer, then: Option<&Then>) {
        let delay = match peer {
            Peer::Service(index) => self.services[index].delay_after(then),
            Peer::Client(index) => self.clients[index].delay_after(then),
        };
        match delay {
            Some(delay) => self.at(self.now + delay, Happening::Connect(peer)),
            None => self.oracle.violations.push(format!("{peer:?} stopped for good: {then:?}")),
        }
    }

    fn arrive(&mut self, link: LinkId, frame: Frame) {
        let to_broker = !matches!(frame, Frame::Broker(_));
        if !self.links.carries(link, to_broker, self.now) {
            return;
        }
        match frame {
            Frame::Service(frame) => {
                let acts = self.broker.hear_service(link, frame, self.now);
                self.act(acts);
            }
            Frame::Client(frame) => {
                let acts = self.broker.hear_client(link, frame, self.now);
                self.act(acts);
            }
            Frame::Broker(say) => self.peer_hears(link, say),
        }
    }

    /// A ping arrives: a peer that is there, and whose connection this is, answers it.
    fn pinged(&mut self, link: LinkId) {
        let present = match self.links.peer(link) {
            Some(Peer::Service(index)) => self.services[index].link,
            Some(Peer::Client(index)) => self.clients[index].link,
            None => None,
        };
        if present == Some(link) && self.links.carries(link, false, self.now) {
            self.later(1, 40, Happening::Pong(link));
        }
    }

    fn peer_hears(&mut self, link: LinkId, say: Say) {
        let Some(peer) = self.links.peer(link) else { return };
        let present = match peer {
            Peer::Service(index) => self.services[index].link,
            Peer::Client(index) => self.clients[index].link,
        };
        if present != Some(link) {
            return;
        }
        match (peer, say) {
            (Peer::Service(index), Say::Service(message)) => {
                if let ServiceMessage::Accepted(accepted) = &message {
                    self.oracle.accepted(link, accepted.seq, accepted.instance_id);
                }
                if let Some(machine) = &mut self.services[index].machine {
                    machine.receive(self.now, message);
                }
            }
            (Peer::Client(index), Say::Client(message)) => {
                if let Some(machine) = &mut self.clients[index].machine {
                    machine.receive(self.now, message);
                }
            }
            (Peer::Service(index), Say::Close(closing)) => {
                if let Some(machine) = &mut self.services[index].machine {
                    machine.receive(self.now, ServiceMessage::Closing(closing));
                }
            }
            (Peer::Client(index), Say::Close(closing)) => {
                if let Some(machine) = &mut self.clients[index].machine {
                    machine.receive(self.now, ackord_wire::ClientMessage::Closing(closing));
                }
            }
            (peer, say) => self.oracle.violations.push(format!("{peer:?} was sent {say:?}")),
        }
        self.pump(peer);
    }

    /// The connection broke and the peer knows.
    fn peer_lost(&mut self, link: LinkId) {
        let Some(peer) = self.links.peer(link) else { return };
        match peer {
            Peer::Service(index) if self.services[index].link == Some(link) => {
                self.services[index].link = None;
                if let Some(machine) = &mut self.services[index].machine {
                    machine.disconnected(self.now, "cut");
                    self.reconnect_later(peer, None);
                }
            }
            Peer::Client(index) if self.clients[index].link == Some(link) => {
                self.clients[index].link = None;
                if let Some(machine) = &mut self.clients[index].machine {
                    machine.disconnected("cut");
                    self.reconnect_later(peer, None);
                }
            }
            Peer::Service(_) | Peer::Client(_) => {}
        }
        self.pump(peer);
    }

    /// The peer gave its connection up by itself.
    fn give_up(&mut self, peer: Peer, then: &Then) {
        let link = match peer {
            Peer::Service(index) => self.services[index].link.take(),
            Peer::Client(index) => self.clients[index].link.take(),
        };
        if let Some(link) = link
            && let Some((broker_at, _)) = self.links.cut(link, self.now, &mut self.seed)
        {
            self.at(broker_at, Happening::BrokerLearnsCut(link));
        }
        self.reconnect_later(peer, Some(then));
    }

    /// Carries out what a peer's machine wants.
    fn pump(&mut self, peer: Peer) {
        match peer {
            Peer::Service(index) => {
                for output in self.services[index].outputs() {
                    self.service_output(index, output);
                }
                let host = &self.services[index];
                let wake = host.machine.as_ref().and_then(|machine| machine.next_wake_ms());
                let life = host.life;
                if let Some(wake) = wake {
                    self.at(wake.max(self.now + 1), Happening::Time(peer, life));
                }
            }
            Peer::Client(index) => {
                for output in self.clients[index].outputs() {
                    self.client_output(index, output);
                }
                let host = &self.clients[index];
                let wake = host.machine.as_ref().and_then(|machine| machine.next_wake_ms());
                let life = host.life;
                if let Some(wake) = wake {
                    self.at(wake.max(self.now + 1), Happening::Time(peer, life));
                }
            }
        }
    }

    fn service_output(&mut self, index: usize, output: PublishOutput) {
        match output {
            PublishOutput::Send(frame) => {
                let Some(link) = self.services[index].link else { return };
                if let ServiceFrame::Raise(raise) = &frame {
                    let payload = Payload::from_fields(
                        raise.content_type.clone(),
                        raise.args.clone(),
                        raise.data.clone(),
                    );
                    self.oracle.sent(link, raise.seq, text(payload.as_ref()));
                }
                self.send(link, Frame::Service(frame));
            }
            PublishOutput::Persist(batch) => {
                self.keeping[index] = Some(batch);
                let life = self.services[index].life;
                self.later(1, 20, Happening::Kept(index, life));
            }
            PublishOutput::Close(then) => self.give_up(Peer::Service(index), &then),
            PublishOutput::Decided { .. } | PublishOutput::Notice(_) | PublishOutput::Room => {}
        }
    }

    fn client_output(&mut self, index: usize, output: SubscribeOutput) {
        match output {
            SubscribeOutput::Send(frame) => {
                if let Some(link) = self.clients[index].link {
                    self.send(link, Frame::Client(frame));
                }
            }
            SubscribeOutput::Call { lane, delivery } => self.call(index, lane, &delivery),
            SubscribeOutput::Persist(changes) => {
                self.saving[index] = Some(changes);
                let life = self.clients[index].life;
                self.later(1, 20, Happening::Saved(index, life));
            }
            SubscribeOutput::Close(then) => self.give_up(Peer::Client(index), &then),
            SubscribeOutput::Notice(_) => {}
        }
    }

    fn call(&mut self, client: usize, lane: usize, delivery: &Delivery) {
        let text = text(delivery.payload.as_ref());
        let (generation, id) = (delivery.generation, delivery.instance_id);
        self.say(&format!("client {client} handles {} {generation}/{id}", delivery.event));
        self.oracle.handled(client, &delivery.event, generation, id, &text);
        let life = self.clients[client].life;
        // Now and then longer than the broker waits.
        let high = if self.seed.between(0, 20) == 0 { 1_500 } else { 30 };
        self.later(1, high, Happening::Returned { client, life, lane });
    }

    fn returned(&mut self, client: usize, life: u64, lane: usize) {
        let host = &mut self.clients[client];
        if host.life != life {
            return;
        }
        if let Some(machine) = &mut host.machine {
            let result: Result<Flow, HandlerError> = Ok(Flow::Continue);
            machine.returned(self.now, lane, result);
        }
        self.pump(Peer::Client(client));
    }

    fn kept(&mut self, service: usize, life: u64) {
        if self.services[service].life != life {
            return;
        }
        let Some(batch) = self.keeping[service].take() else { return };
        self.services[service].keep(batch);
        if let Some(machine) = &mut self.services[service].machine {
            machine.persisted(self.now, Ok(()));
        }
        self.pump(Peer::Service(service));
    }

    fn saved(&mut self, client: usize, life: u64) {
        if self.clients[client].life != life {
            return;
        }
        let Some(changes) = self.saving[client].take() else { return };
        self.clients[client].keep(&changes);
        if let Some(machine) = &mut self.clients[client].machine {
            machine.persisted(self.now, Ok(()));
        }
        self.pump(Peer::Client(client));
    }

    fn time(&mut self, peer: Peer, life: u64) {
        match peer {
            Peer::Service(index) if self.services[index].life == life => {
                if let Some(machine) = &mut self.services[index].machine
                    && machine.next_wake_ms().is_some_and(|wake| wake <= self.now)
                {
                    machine.tick(self.now);
                    self.pump(peer);
                }
            }
            Peer::Client(index) if self.clients[index].life == life => {
                if let Some(machine) = &mut self.clients[index].machine
                    && machine.next_wake_ms().is_some_and(|wake| wake <= self.now)
                {
                    machine.tick(self.now);
                    self.pump(peer);
                }
            }
            Peer::Service(_) | Peer::Client(_) => {}
        }
    }

    fn raise(&mut self, service: usize) {
        if self.to_raise == 0 {
            return;
        }
        self.later(1, 60, Happening::Raise(service));
        if self.services[service].machine.is_none() {
            return;
        }
        self.to_raise -= 1;
        let number = self.to_raise;
        let client = self.seed.between(0, self.clients.len() as u64) as usize;
        let client = if self.clients[client].kind.is_stateful() { Some(client) } else { None };
        let kind = self.seed.between(0, 8);
        let addressee = client.filter(|_| kind == 7);
        let text = format!("\"s{service} n{number} c{}\"", addressee.map_or(99, |index| index));
        let payload = Payload::json(text.clone().into_bytes());
        let event = match (kind, addressee) {
            (0, _) => Event::replacing("state", payload),
            (1, _) => Event::queueing("burst", payload),
            (2 | 3, _) => Event::queueing("alarm", payload),
            (7, Some(index)) => Event::private("notice", client_id(index).as_str(), payload),
            (_, _) => Event::queueing("reading", payload),
        };
        self.oracle.raised(service, &event.name, &text);
        self.services[service].raise(event, self.now);
        self.pump(Peer::Service(service));
    }

    fn starts(&mut self, peer: Peer) {
        match peer {
            Peer::Service(index) => self.services[index].start(),
            Peer::Client(index) => self.clients[index].start(),
        }
        self.pump(peer);
        self.later(1, 20, Happening::Connect(peer));
    }

    fn finish(mut self) -> Report {
        if self.oracle.violations.is_empty() {
            let describe = |host: &ClientHost| {
                let id = host.kind.is_stateful().then(|| client_id(host.index));
                let mut events = vec!["reading", "state", "burst"];
                if host.kind.is_stateful() {
                    events.extend(["alarm", "notice"]);
                }
                (host.index, id, events)
            };
            let clients: Vec<_> = self.clients.iter().map(describe).collect();
            match self.broker.state().site(SITE) {
                Some(site) => {
                    self.oracle.at_rest(site, &clients);
                    self.oracle.lost(site, &["reading", "alarm"]);
                    self.oracle.private_lost(site, "notice", addressee);
                }
                None => self.oracle.violations.push("the site is gone".to_owned()),
            }
        }
        let (raised, acknowledged, handled) = self.oracle.figures();
        let violations = std::mem::take(&mut self.oracle.violations);
        Report { violations, raised, acknowledged, handled, faults: self.faults }
    }
}

fn text(payload: Option<&Payload>) -> String {
    payload.map(|p| String::from_utf8_lossy(&p.data).into_owned()).unwrap_or_default()
}
