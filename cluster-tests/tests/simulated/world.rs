//! A run: hosts on a simulated network and clock, faults, a phase in which all is well again, and the
//! judgement.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak as RcWeak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cluster_tests::history::{Entry, History};
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::seed::Seed;
use turmoil::Sim;

use crate::client::{self, Client};
use crate::disk::Disk;
use crate::endpoint::Place;
use crate::faults::{self, Fault, Happened};
use crate::host::{self, Complaints, EVENTS, Host};
use crate::net::SharedWeather;
use crate::service::{self, Service};

/// One step of the simulated time.
const TICK: Duration = Duration::from_millis(1);
/// The least and the most that a message takes.
const LATENCY_MIN: Duration = Duration::from_millis(1);
const LATENCY_MAX: Duration = Duration::from_millis(5);
/// When the run begins, milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Simulated time: for the founding, for all raises and faults, until everything is at rest.
const START_LIMIT_MS: u64 = 30_000;
const LOAD_LIMIT_MS: u64 = 90_000;
const REST_LIMIT_MS: u64 = 120_000;
/// How long faults go on at least.
const FAULTS_MS: u64 = 12_000;
/// Faults at the same time.
const FAULTS_MAX: usize = 2;
/// Between two looks at what the nodes think.
const LOOK_MS: u64 = 50;

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub raises: usize,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    pub violations: Vec<String>,
    pub acknowledged: u64,
    pub handled: u64,
    /// Instances that came again before they were confirmed, and raises that were sent again.
    pub again: u64,
    pub happened: Happened,
    /// Requests to logs that crashes left unwritten.
    pub unwritten: u64,
    /// Messages that were held.
    pub held: u64,
    /// Looks at which a node had no connection to another one.
    pub apart: u64,
    /// Terms of all groups in the end: how often leaders were elected.
    pub terms: u64,
    /// Simulated time, milliseconds.
    pub simulated_ms: u64,
    /// The faults that were drawn, but for who leads.
    pub drawn: Vec<String>,
    /// What was done to the world, in order.
    pub faults: Vec<String>,
    /// Of the whole history, with the moments of the faults.
    pub hash: u64,
}

struct Active {
    fault: Fault,
    until_ms: u64,
    evident: bool,
}

struct World {
    sim: Sim<'static>,
    hosts: Vec<Rc<Host>>,
    services: Vec<Rc<Service>>,
    clients: Vec<Rc<Client>>,
    endpoints: Vec<String>,
    /// Endpoints that are down.
    down: BTreeSet<usize>,
    weather: SharedWeather,
    wall: Arc<AtomicU64>,
    complaints: Complaints,
    history: History,
    active: Vec<Active>,
    report: Report,
    now_ms: u64,
    /// Whether faults are printed as they come.
    shown: bool,
}

/// Runs a world. On a thread of its own, whose randomness is the seed's.
pub fn run(seed: u64, plan: Plan) -> Report {
    let running = std::thread::Builder::new().name(format!("world {seed}")).spawn(move || {
        crate::chance::begin(seed);
        let mut report = Report::default();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(seed, plan)));
        match outcome {
            Ok(played) => report = played,
            // The hook has it.
            Err(_) => report.violations.push("the run itself panicked".to_owned()),
        }
        report.violations.extend(crate::panics());
        report
    });
    running.expect("a thread").join().expect("nothing panics outside the run")
}

fn play(seed: u64, plan: Plan) -> Report {
    let mut chance = Seed::new(seed);
    let shared = std::path::Path::new("/dev/shm");
    let dir = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    let dir = dir.expect("a temporary directory");
    let mut world = World::new(&mut chance, plan, dir.path());
    world.until("the cluster to be founded", START_LIMIT_MS, World::is_ready);
    world.start_endpoints();
    world.load(&mut chance);
    world.heal();
    world.until("all raises to be acknowledged and handled", REST_LIMIT_MS, World::is_drained);
    world.until("all replicas to be equal", REST_LIMIT_MS, World::is_equal);
    world.judge()
}

impl World {
    fn new(chance: &mut Seed, plan: Plan, dir: &std::path::Path) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(chance.bits())
            .tick_duration(TICK)
            .min_message_latency(LATENCY_MIN)
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(4096)
            .enable_random_order()
            .simulation_duration(Duration::from_secs(3600))
            .build();
        let weather = SharedWeather::default();
        let wall = Arc::new(AtomicU64::new(EPOCH_MS));
        let complaints = Complaints::default();
        let history = History::new();
        let initial: Vec<String> = (1..=plan.nodes).map(|n| format!("node-{n}")).collect();
        let services: Vec<String> = (1..=2).map(|n| format!("service-{n}")).collect();
        let clients: Vec<String> = (1..=2).map(|n| format!("client-{n}")).collect();
        let prepared = Rc::new(Cell::new(false));
        let hosts = initial.iter().enumerate().map(|(index, name)| {
            Rc::new(Host {
                name: name.clone(),
                dir: dir.join(name),
                initial: initial.clone(),
                weather: weather.clone(),
                wall: wall.clone(),
                skew_ms: chance.between(0, 600) as i64 - 300,
                complaints: complaints.clone(),
                disk: RefCell::new(Arc::new(Disk::default())),
                node: RefCell::new(Weak::new()),
                up: Cell::new(true),
                services: services.clone(),
                clients: clients.clone(),
                founds: index == 0,
                prepared: prepared.clone(),
            })
        });
        let hosts: Vec<Rc<Host>> = hosts.collect();
        for host in &hosts {
            let weak: RcWeak<Host> = Rc::downgrade(host);
            sim.host(host.name.as_str(), move || {
                let host = weak.upgrade().expect("the run has its hosts");
                host::run(host)
            });
        }
        let mut place = |name: &String| {
            Rc::new(Place {
                name: name.clone(),
                nodes: initial.clone(),
                weather: weather.clone(),
                seed: RefCell::new(chance.fork()),
                diary: RefCell::default(),
            })
        };
        let service = |(index, name): (usize, &String)| {
            Rc::new(Service {
                place: place(name),
                store: format!("{:032x}", index + 1),
                kept: RefCell::default(),
                total: plan.raises,
                pace: Duration::from_millis(FAULTS_MS / plan.raises as u64),
                history: history.clone(),
                complaints: complaints.clone(),
            })
        };
        let services: Vec<_> = services.iter().enumerate().map(service).collect();
        let client = |name: &String| {
            Rc::new(Client {
                place: place(name),
                kept: RefCell::default(),
                history: history.clone(),
                complaints: complaints.clone(),
            })
        };
        let clients: Vec<_> = clients.iter().map(client).collect();
        Self {
            sim,
            hosts,
            services,
            clients,
            endpoints: Vec::new(),
            down: BTreeSet::new(),
            weather,
            wall,
            complaints,
            history,
            active: Vec::new(),
            report: Report::default(),
            now_ms: 0,
            shown: std::env::var_os(crate::SEED).is_some(),
        }
    }

    fn start_endpoints(&mut self) {
        for service in self.services.clone() {
            self.endpoints.push(service.place.name.clone());
            let name = service.place.name.clone();
            self.sim.host(name.as_str(), move || service::run(service.clone()));
        }
        for client in self.clients.clone() {
            self.endpoints.push(client.place.name.clone());
            let name = client.place.name.clone();
            self.sim.host(name.as_str(), move || client::run(client.clone()));
        }
    }

    /// A step of everybody, and then of the disks.
    fn step(&mut self) {
        crate::STEPS.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.sim.step() {
            self.complaints.lock().push(format!("a host ended: {error}"));
            self.give_up();
        }
        self.now_ms += TICK.as_millis() as u64;
        self.wall.store(EPOCH_MS + self.now_ms, Ordering::Relaxed);
        for host in &self.hosts {
            let disk = host.disk.borrow().clone();
            disk.settle();
        }
        if !self.complaints.lock().is_empty() {
            self.give_up();
        }
    }

    fn give_up(&self) -> ! {
        let complaints = self.complaints.lock().join("\n");
        let faults = self.report.faults.join("\n");
        panic!("at {} ms: {complaints}\nfaults:\n{faults}", self.now_ms);
    }

    /// Goes on until something is so.
    fn until(&mut self, what: &str, limit_ms: u64, is_so: impl Fn(&Self) -> bool) {
        let deadline = self.now_ms + limit_ms;
        loop {
            for _ in 0..LOOK_MS {
                self.step();
            }
            if is_so(self) {
                return;
            }
            if self.now_ms >= deadline {
                let state = self.describe();
                self.complaints.lock().push(format!("no end of waiting for {what}\n{state}"));
                self.give_up();
            }
        }
    }

    fn is_ready(&self) -> bool {
        let started = |host: &Rc<Host>| host.node().is_some_and(|node| node.started());
        self.hosts.iter().all(started) && self.hosts[0].prepared.get()
    }

    fn is_drained(&self) -> bool {
        self.services.iter().all(|service| service.is_done())
            && self.clients.iter().all(|client| {
                EVENTS.iter().all(|event| {
                    let last = self.last_acknowledged(event);
                    client.handled(event) >= last && client.committed(event) >= last
                })
            })
    }

    /// The highest instance of an event that was named in an acknowledgement.
    fn last_acknowledged(&self, event: &str) -> u64 {
        let of = |service: &Rc<Service>| {
            let kept = service.kept.borrow();
            let instances = kept.raised.iter().zip(1u64..).filter(|((_, name), _)| *name == event);
            let instances = instances.filter_map(|(_, number)| *kept.instances.get(&number)?);
            instances.max().unwrap_or(0)
        };
        self.services.iter().map(of).max().unwrap_or(0)
    }

    fn is_equal(&self) -> bool {
        let mut seen: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        for host in &self.hosts {
            let Some(node) = host.node() else { return false };
            if !node.started() {
                return false;
            }
            let view = node.cluster();
            for (handle, group) in node.partitions().iter().zip(&view.groups[1..]) {
                let member =
                    group.voters.contains(&view.node) || group.learners.contains(&view.node);
                if member {
                    let hash = handle.read(|state| format!("{:?}", state.hash()));
                    seen.entry(handle.number()).or_default().insert(hash);
                }
            }
        }
        seen.values().all(|hashes| hashes.len() == 1)
    }

    /// What keeps the world busy, for a person.
    fn describe(&self) -> String {
        let mut lines = Vec::new();
        for host in &self.hosts {
            let Some(node) = host.node() else {
                lines.push(format!("{}: no node", host.name));
                continue;
            };
            let view = node.cluster();
            lines.push(format!("{}: started {}", host.name, node.started()));
            for group in view.groups {
                lines.push(format!(
                    "  group {}: leader {:?}, term {}, voters {:?}, learners {:?}, next {}",
                    group.group,
                    group.leader,
                    group.term,
                    group.voters,
                    group.learners,
                    group.applied_next
                ));
            }
        }
        for service in &self.services {
            let kept = service.kept.borrow();
            let (made, acknowledged) = (kept.raised.len(), kept.acknowledged);
            lines.extend(service.place.diary.borrow().iter().cloned());
            lines.push(format!(
                "{}: {made} raised, {acknowledged} acknowledged",
                service.place.name
            ));
        }
        for client in &self.clients {
            let kept = client.kept.borrow();
            lines.extend(client.place.diary.borrow().iter().cloned());
            lines.push(format!("{}: {:?}, {:?}", client.place.name, kept.handled, kept.committed));
        }
        lines.join("\n")
    }

    /// Raises, deliveries and faults.
    fn load(&mut self, chance: &mut Seed) {
        let begun = self.now_ms;
        let mut next_fault = begun + chance.between(200, 1500);
        let raised =
            |world: &Self| world.services.iter().all(|s| s.kept.borrow().raised.len() == s.total);
        while self.now_ms < begun + FAULTS_MS || !raised(self) {
            if self.now_ms > begun + LOAD_LIMIT_MS {
                // What is left is raised when all is well again.
                break;
            }
            for _ in 0..LOOK_MS / 10 {
                self.step();
            }
            self.end_faults(false);
            if self.now_ms.is_multiple_of(LOOK_MS) {
                self.look();
            }
            if self.now_ms >= next_fault {
                next_fault = self.now_ms + chance.between(200, 1500);
                let leader = self.a_leader(chance);
                let nodes = self.hosts.len();
                let drawn = faults::draw(chance, nodes, self.endpoints.len(), leader);
                let kind = drawn.fault.kind();
                self.report.drawn.push(format!("{} {kind:?} {}", self.now_ms, drawn.lasts_ms));
                self.begin_fault(drawn.fault, drawn.lasts_ms);
            }
        }
    }

    /// A node that leads some group, as far as some node knows.
    fn a_leader(&self, chance: &mut Seed) -> Option<usize> {
        let at = chance.between(0, self.hosts.len() as u64) as usize;
        let group = chance.between(0, u64::from(host::PARTITIONS) + 1) as usize;
        let node = self.hosts[at].node()?;
        let leader = node.cluster().groups.get(group)?.leader?;
        // Founded together, so numbered in their order.
        usize::try_from(leader).ok()?.checked_sub(1)
    }

    /// Whether faults can be seen.
    fn look(&mut self) {
        let apart: Vec<bool> = self
            .hosts
            .iter()
            .map(|host| host.node().is_some_and(|node| node.figures().peers_down > 0))
            .collect();
        self.report.apart += apart.iter().filter(|apart| **apart).count() as u64;
        let all = self.hosts.len();
        for active in &mut self.active {
            match &active.fault {
                Fault::Isolate { .. } | Fault::Cut { .. } | Fault::OneWay { .. } => {
                    active.evident |= active.fault.nodes(all).iter().any(|node| apart[*node]);
                }
                Fault::Stall { node } => {
                    active.evident |= self.hosts[*node].disk.borrow().waiting() > 0;
                }
                Fault::Hold { .. }
                | Fault::Slow { .. }
                | Fault::Crash { .. }
                | Fault::PowerCut { .. }
                | Fault::CrashAll { .. }
                | Fault::Endpoint { .. } => {}
            }
        }
    }
}

impl World {
    fn note(&mut self, what: String) {
        let line = format!("{:>6} {what}", self.now_ms);
        if self.shown {
            println!("{line}");
        }
        self.report.faults.push(line);
    }

    fn begin_fault(&mut self, fault: Fault, lasts_ms: u64) {
        let all = self.hosts.len();
        let busy: BTreeSet<usize> =
            self.active.iter().flat_map(|active| active.fault.nodes(all)).collect();
        let taken = fault.nodes(all).iter().any(|node| busy.contains(node));
        let endpoint = |active: &Active| active.fault == fault;
        if taken || self.active.len() >= FAULTS_MAX || self.active.iter().any(endpoint) {
            return;
        }
        self.note(format!("{fault:?} for {lasts_ms}"));
        let mut evident = false;
        match &fault {
            Fault::Isolate { node, from_endpoints } => self.isolate(*node, *from_endpoints, true),
            Fault::Cut { a, b } => {
                self.cut(*a, *b, true);
                self.cut(*b, *a, true);
            }
            Fault::OneWay { from, to } => self.cut(*from, *to, true),
            Fault::Hold { a, b } => self.sim.hold(self.name(*a), self.name(*b)),
            Fault::Slow { a, b, ms } => {
                let latency = Duration::from_millis(*ms);
                self.sim.set_link_latency(self.name(*a), self.name(*b), latency);
                evident = true;
            }
            Fault::Crash { node, unwritten_ms } => {
                self.leave_unwritten(&[*node], *unwritten_ms);
                evident = self.crash(*node);
            }
            Fault::PowerCut { node, unwritten_ms } => {
                self.leave_unwritten(&[*node], *unwritten_ms);
                self.isolate(*node, true, true);
                evident = self.crash(*node);
            }
            Fault::CrashAll { unwritten_ms } => {
                let nodes: Vec<usize> = (0..all).collect();
                self.leave_unwritten(&nodes, *unwritten_ms);
                // All at once: what one has queued and another one has heard of is lost.
                let killed = nodes.iter().filter(|node| self.crash(**node)).count();
                evident = killed == all;
            }
            Fault::Stall { node } => self.hosts[*node].disk.borrow().stall(true),
            Fault::Endpoint { index } => {
                let name = self.endpoints[*index].clone();
                self.sim.crash(name.as_str());
                self.down.insert(*index);
                if let Some(client) = self.clients.iter().find(|c| c.place.name == name) {
                    client.killed();
                }
                evident = true;
            }
        }
        self.active.push(Active { fault, until_ms: self.now_ms + lasts_ms, evident });
    }

    fn name(&self, node: usize) -> String {
        self.hosts[node].name.clone()
    }

    /// Nothing gets from one to the other, or does again.
    fn cut_names(&mut self, from: String, to: String, cut: bool) {
        let mut weather = self.weather.lock();
        if cut {
            self.sim.partition_oneway(from.as_str(), to.as_str());
            weather.cut.insert((from, to));
        } else {
            self.sim.repair_oneway(from.as_str(), to.as_str());
            weather.cut.remove(&(from, to));
        }
    }

    fn cut(&mut self, from: usize, to: usize, cut: bool) {
        let (from, to) = (self.name(from), self.name(to));
        self.cut_names(from, to, cut);
    }

    fn isolate(&mut self, node: usize, from_endpoints: bool, cut: bool) {
        let nodes = (0..self.hosts.len()).filter(|other| *other != node);
        let mut others: Vec<String> = nodes.map(|other| self.name(other)).collect();
        if from_endpoints {
            others.extend(self.endpoints.iter().cloned());
        }
        for other in others {
            self.cut_names(self.name(node), other.clone(), cut);
            self.cut_names(other, self.name(node), cut);
        }
    }

    /// Lets these go on for a while with logs that are not written.
    fn leave_unwritten(&mut self, nodes: &[usize], ms: u64) {
        for node in nodes {
            self.hosts[*node].disk.borrow().stall(true);
        }
        for _ in 0..ms {
            self.step();
        }
    }

    /// Kills a node's process. Whether it was there.
    fn crash(&mut self, node: usize) -> bool {
        let host = self.hosts[node].clone();
        let was_up = host.up.replace(false);
        if was_up {
            let disk = host.disk.borrow().clone();
            disk.kill();
            self.report.unwritten += disk.lost.load(Ordering::Relaxed);
            self.sim.crash(host.name.as_str());
            host.node.replace(Weak::new());
        }
        was_up
    }

    fn bounce(&mut self, node: usize) {
        let host = self.hosts[node].clone();
        if !host.up.replace(true) {
            self.sim.bounce(host.name.as_str());
        }
    }

    fn end_faults(&mut self, all: bool) {
        let now = self.now_ms;
        let (over, active): (Vec<Active>, Vec<Active>) =
            std::mem::take(&mut self.active).into_iter().partition(|a| all || a.until_ms <= now);
        self.active = active;
        for Active { fault, mut evident, .. } in over {
            match &fault {
                Fault::Isolate { node, from_endpoints } => {
                    self.isolate(*node, *from_endpoints, false);
                }
                Fault::Cut { a, b } => {
                    self.cut(*a, *b, false);
                    self.cut(*b, *a, false);
                }
                Fault::OneWay { from, to } => self.cut(*from, *to, false),
                Fault::Hold { a, b } => {
                    let (a, b) = (self.name(*a), self.name(*b));
                    let held = self.held(&a, &b);
                    self.report.held += held;
                    evident = held > 0;
                    self.sim.release(a, b);
                }
                Fault::Slow { a, b, .. } => {
                    let (a, b) = (self.name(*a), self.name(*b));
                    self.sim.set_link_latency(a.as_str(), b.as_str(), LATENCY_MIN);
                    self.sim.set_link_max_message_latency(a, b, LATENCY_MAX);
                }
                Fault::Crash { node, .. } => self.bounce(*node),
                Fault::PowerCut { node, .. } => {
                    self.isolate(*node, true, false);
                    self.bounce(*node);
                }
                Fault::CrashAll { .. } => (0..self.hosts.len()).for_each(|node| self.bounce(node)),
                Fault::Stall { node } => self.hosts[*node].disk.borrow().stall(false),
                Fault::Endpoint { index } => {
                    let name = self.endpoints[*index].clone();
                    if self.down.remove(index) {
                        self.sim.bounce(name.as_str());
                    }
                }
            }
            self.note(format!("{fault:?} is over{}", if evident { "" } else { ", unseen" }));
            if evident {
                *self.report.happened.entry(fault.kind()).or_default() += 1;
            }
        }
    }

    /// Messages that are held between two hosts.
    fn held(&self, a: &str, b: &str) -> u64 {
        let (a, b) = (self.sim.lookup(a), self.sim.lookup(b));
        let mut held = 0;
        self.sim.links(|links| {
            for link in links {
                let (one, other) = link.pair();
                if (one, other) == (a, b) || (one, other) == (b, a) {
                    held = link.count() as u64;
                }
            }
        });
        held
    }

    /// All is well from now on.
    fn heal(&mut self) {
        self.end_faults(true);
        self.note("healed".to_owned());
    }

    fn judge(mut self) -> Report {
        let names = self.clients.iter().map(|client| client.place.name.clone());
        let complete = names.flat_map(|name| EVENTS.map(|event| (event.to_owned(), name.clone())));
        let expectations = Expectations {
            complete: complete.collect(),
            ordered_services: self.services.iter().map(|s| s.place.name.clone()).collect(),
            unique_events: EVENTS.iter().map(|event| (*event).to_owned()).collect(),
            ..Expectations::default()
        };
        let mut report = std::mem::take(&mut self.report);
        let found = oracle::judge(&self.history, &expectations);
        report.violations.extend(found.iter().map(ToString::to_string));
        let entries = self.history.entries();
        let count = |what: fn(&Entry) -> bool| entries.iter().filter(|entry| what(entry)).count();
        report.acknowledged = count(|entry| matches!(entry, Entry::Acknowledged { .. })) as u64;
        report.handled = count(|entry| matches!(entry, Entry::HandlerStarted { .. })) as u64;
        report.again = self.clients.iter().map(|client| client.kept.borrow().again).sum();
        report.terms = self.hosts[0]
            .node()
            .map_or(0, |node| node.cluster().groups.iter().map(|group| group.term).sum());
        report.simulated_ms = self.now_ms;
        report.hash = fnv(&format!("{:?}{entries:?}", report.faults));
        report
    }
}

/// A hash that is the same in every process.
fn fnv(text: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}
