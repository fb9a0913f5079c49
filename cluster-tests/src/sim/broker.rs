//! The simulated broker: the production site machine and sessions over a log that can forget.
//!
//! `hear ─▶ session ─▶ proposal ─▶ entry (written) ─▶ synced ─▶ applied ─▶ outcome ─▶ session ─▶ say`
//!
//! Invariants: an entry is applied only once it is durable; a crash keeps every durable entry, in
//! order, and any number of the written ones behind them; a restarted broker's state is rebuilt
//! from rows and log and must equal the state before.
//! What stands in for production here is only the driver: the log, the timers, the routing.

use std::collections::{BTreeMap, BTreeSet};

use ackord_agents::translate::{self, Grant, Terms};
use ackord_machine::session::{
    ClientSession, Failed, Output, ServiceSession, SessionOptions, ToClient, ToService, Token,
    View, Wake,
};
use ackord_machine::site::{
    Batch, Command, Effect, Epoch, Incarnation, Outcome, Place, Raising, Receiver, ServiceId,
    SessionId, SiteName, Stamp, State, SubscribeAs, Write, apply, coalesce,
};
use ackord_wire::Codec;
use ackord_wire::frame::{ClientFrame, ClientMessage, Closing, ServiceFrame, ServiceMessage};

use crate::seed::Seed;

/// Names a connection; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

const GRANT: Grant = Grant {
    window_default: 8,
    window_max: 16,
    incarnation: Incarnation(7),
    place: Place { node: 1, run: 1 },
    above: Epoch(0),
};
const TERMS: Terms<'_> = Terms { keepalive_s: 60, addresses: &Vec::new };

/// What a session does to its connection.
#[derive(Clone, Debug)]
pub enum Say {
    /// To a service.
    Service(ServiceMessage),
    /// To a client.
    Client(ClientMessage),
    /// The broker closes.
    Close(Closing),
}

/// What the broker wants of the world.
#[derive(Debug)]
pub enum Act {
    /// Carry this to the peer.
    Say(LinkId, Say),
    /// There are proposals: write an entry soon.
    Write,
    /// Somebody must look at the state: wake the sessions soon or late.
    Wake,
    /// A proposal failed like this: say so to the session a little later.
    Fail(LinkId, Token, Failed),
    /// Ask the peer for a sign of life.
    Probe(LinkId),
    /// A proposal arrives late.
    Late(Box<Command>),
}

#[derive(Debug)]
enum Session {
    Client(Box<ClientSession>),
    Service(Box<ServiceSession>),
}

struct Proposal {
    command: Command,
    waiter: Option<(LinkId, Token)>,
}

struct Entry {
    batch: Batch,
    /// Per waiter the index of the command that answers for it. Empty after a restart.
    waiters: Vec<(LinkId, Token, usize)>,
}

/// What becomes of a proposal.
enum Chance {
    Good,
    Failed(Failed),
    /// It is applied all the same, perhaps late.
    Unknown {
        late: bool,
    },
}

/// How a broker behaves; the defaults are right, each other value is a known mistake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mistakes {
    /// Applies and answers what is written before it is durable.
    pub acknowledge_early: bool,
}

/// See the module.
pub struct Broker {
    site: SiteName,
    mistakes: Mistakes,
    state: State,
    log: Vec<Entry>,
    durable: usize,
    applied: usize,
    waiting: Vec<Proposal>,
    sessions: BTreeMap<LinkId, Session>,
    /// Effects that no session was told of yet.
    effects: BTreeSet<Effect>,
    /// Decides what becomes of proposals.
    busy: Seed,
    /// Nobody leads: every proposal fails.
    pub away: bool,
    /// The newest epoch of each account, and what broke the rule that only the newest acts.
    newest: BTreeMap<String, Epoch>,
    /// Commands of replaced sessions that had an effect.
    pub unfenced: Vec<String>,
    /// Counts the starts, so that what was scheduled before a crash is known as such.
    pub life: u64,
    /// Whether it runs.
    pub up: bool,
}

impl Broker {
    /// A broker whose state comes from `setup`, applied as the first durable entry.
    pub fn new(site: SiteName, setup: Vec<Command>, mistakes: Mistakes, busy: Seed) -> Self {
        let batch = Batch { stamp: Stamp(1), commands: setup };
        let mut state = State::new();
        let applied = apply(&mut state, &batch);
        for outcome in &applied.outcomes {
            assert!(!matches!(outcome, Outcome::Refused(_)), "the setup was refused: {outcome:?}");
        }
        Self {
            site,
            mistakes,
            state,
            log: vec![Entry { batch, waiters: Vec::new() }],
            durable: 1,
            applied: 1,
            waiting: Vec::new(),
            sessions: BTreeMap::new(),
            effects: BTreeSet::new(),
            busy,
            away: false,
            newest: BTreeMap::new(),
            unfenced: Vec::new(),
            life: 0,
            up: true,
        }
    }

    /// The state as applied.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// A service's connection is there.
    pub fn open_service(&mut self, link: LinkId, service: ServiceId) {
        let id = SessionId(link.0);
        let session = Box::new(ServiceSession::new(self.site.clone(), service, None, id));
        self.sessions.insert(link, Session::Service(session));
    }

    /// A client's connection is there.
    pub fn open_client(&mut self, link: LinkId, receiver: Receiver, ack_timeout_ms: u32) {
        let options = SessionOptions { ack_timeout_ms, ..SessionOptions::default() };
        let (site, id) = (self.site.clone(), SessionId(link.0));
        let session = Box::new(ClientSession::new(site, receiver, None, id, options));
        self.sessions.insert(link, Session::Client(session));
    }

    /// A frame of a service arrived.
    pub fn hear_service(&mut self, link: LinkId, frame: ServiceFrame, now: u64) -> Vec<Act> {
        // Now and then the node knows nothing of the sessions before.
        let known = self.busy.between(0, 4) > 0;
        self.with_service(link, now, |session, view, out| {
            let row = view.site.and_then(|site| site.service(session.service().as_str()));
            let above = row.filter(|_| known).map(|row| row.epoch).unwrap_or_default();
            translate::service_frame(session, frame, Grant { above, ..GRANT }, out);
        })
    }

    /// A frame of a client arrived.
    pub fn hear_client(&mut self, link: LinkId, frame: ClientFrame, now: u64) -> Vec<Act> {
        self.with_client(link, now, |session, view, out| {
            translate::client_frame(session, frame, view, out);
        })
    }

    /// Tells a service's session something.
    pub fn with_service(
        &mut self,
        link: LinkId,
        now: u64,
        tell: impl FnOnce(&mut ServiceSession, View<'_>, &mut Vec<Output<ToService>>),
    ) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(Session::Service(session)) = self.sessions.get_mut(&link) else { return acts };
        let mut out = Vec::new();
        tell(session, view(&self.state, &self.site, now), &mut out);
        self.service_outputs(link, out, &mut acts);
        acts
    }

    /// Tells a client's session something.
    pub fn with_client(
        &mut self,
        link: LinkId,
        now: u64,
        tell: impl FnOnce(&mut ClientSession, View<'_>, &mut Vec<Output<ToClient>>),
    ) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(Session::Client(session)) = self.sessions.get_mut(&link) else { return acts };
        let mut out = Vec::new();
        tell(session, view(&self.state, &self.site, now), &mut out);
        self.client_outputs(link, out, &mut acts);
        acts
    }

    /// Proposes a command of nobody's session.
    pub fn propose(&mut self, command: Command) -> Vec<Act> {
        self.waiting.push(Proposal { command, waiter: None });
        vec![Act::Write]
    }

    /// The connection is gone.
    pub fn hang_up(&mut self, link: LinkId) -> Vec<Act> {
        match self.sessions.remove(&link) {
            Some(Session::Service(session)) => match session.on_ended() {
                Some(command) => self.propose(command),
                None => Vec::new(),
            },
            Some(Session::Client(_)) | None => Vec::new(),
        }
    }

    /// When a session of the broker wants to be told the time.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadline = |session: &Session| match session {
            Session::Client(session) => session.next_deadline(),
            Session::Service(session) => session.next_deadline(),
        };
        self.sessions.values().filter_map(deadline).min()
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        for link in self.links() {
            acts.extend(
                self.with_client(link, now, |session, view, out| session.on_time(view, out)),
            );
            acts.extend(self.with_service(link, now, |session, _, out| session.on_time(now, out)));
        }
        if self.state.next_due().is_some_and(|due| due.0 <= now) {
            acts.extend(self.propose(Command::Tick { limit: 100 }));
        }
        acts
    }

    /// Writes what waits as one entry; its length of the log is to be given to [`Self::synced`].
    pub fn write(&mut self, now: u64) -> Option<usize> {
        if self.waiting.is_empty() {
            return None;
        }
        let proposals = std::mem::take(&mut self.waiting);
        let waiters: Vec<_> = proposals.iter().map(|proposal| proposal.waiter).collect();
        let commands = proposals.into_iter().map(|proposal| proposal.command).collect();
        let (commands, survivors) = coalesce(commands);
        let waiters = waiters
            .into_iter()
            .zip(survivors)
            .filter_map(|(waiter, index)| waiter.map(|(link, token)| (link, token, index)))
            .collect();
        self.log.push(Entry { batch: Batch { stamp: Stamp(now), commands }, waiters });
        Some(self.log.len())
    }

    /// The log is durable up to this length: what is new is applied and answered.
    pub fn synced(&mut self, length: usize, now: u64) -> Vec<Act> {
        self.durable = self.durable.max(length);
        self.apply_up_to(self.durable, now)
    }

    /// The log was written: a broker that does not wait answers now.
    pub fn written(&mut self, now: u64) -> Vec<Act> {
        if self.mistakes.acknowledge_early {
            self.apply_up_to(self.log.len(), now)
        } else {
            Vec::new()
        }
    }

    fn apply_up_to(&mut self, end: usize, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        while self.applied < end {
            let entry = &mut self.log[self.applied];
            let waiters = std::mem::take(&mut entry.waiters);
            let applied = apply(&mut self.state, &entry.batch);
            self.applied += 1;
            self.judge_epochs(self.applied - 1, &applied.outcomes);
            for (link, token, index) in waiters {
                self.answer(link, token, Ok(applied.outcomes[index].clone()), now, &mut acts);
            }
            if !applied.effects.is_empty() {
                self.effects.extend(applied.effects);
                acts.push(Act::Wake);
            }
        }
        acts
    }

    /// Epochs fence: of the sessions of an account only the newest changes anything.
    fn judge_epochs(&mut self, entry: usize, outcomes: &[Outcome]) {
        for (command, outcome) in self.log[entry].batch.commands.iter().zip(outcomes) {
            let (account, named) = match command {
                Command::AttachService(attach) => (attach.service.to_string(), None),
                Command::AttachClient { client, .. } => (client.to_string(), None),
                Command::Raise(raise) => (raise.service.to_string(), Some(raise.epoch)),
                Command::Traced(traced) => match &traced.raise {
                    Raising::Session(raise) => (raise.service.to_string(), Some(raise.epoch)),
                    Raising::Keyed(_) | Raising::After(_) => continue,
                },
                Command::AttachPolling(attach) => (attach.client.to_string(), None),
                Command::Advance(advance) | Command::Acknowledge(advance) => {
                    (advance.client.to_string(), Some(advance.epoch))
                }
                Command::Subscribe(list)
                | Command::SubscribeAs(SubscribeAs { subscribe: list, .. }) => {
                    (list.client.to_string(), Some(list.epoch))
                }
                Command::GiveUp(asked) => (asked.client.to_string(), Some(asked.epoch)),
                Command::DetachService { .. }
                | Command::RaiseKeyed(_)
                | Command::RaiseAfter(_)
                | Command::Admin { .. }
                | Command::Tick { .. }
                | Command::SetLimits(_)
                | Command::Renew { .. }
                | Command::Directory(_)
                | Command::Compare
                | Command::Administer(_)
                | Command::Record { .. }
                | Command::IssueTicket(_)
                | Command::DrawTicket(_)
                | Command::AttachPush(_)
                | Command::SettlePush(_)
                | Command::RedeemTicket(_)
                | Command::Restore(_) => continue,
            };
            match outcome {
                Outcome::ServiceAttached { epoch, .. } | Outcome::ClientAttached { epoch, .. } => {
                    self.newest.insert(account, *epoch);
                }
                Outcome::Refused(_) => {}
                Outcome::Raised(_)
                | Outcome::Subscribed(_)
                | Outcome::Advanced { .. }
                | Outcome::Done
                | Outcome::Ticked { .. }
                | Outcome::Redeemed { .. }
                | Outcome::Joined { .. } => {
                    if named != self.newest.get(&account).copied() {
                        self.unfenced.push(format!("{account}: {command:?} came to {outcome:?}"));
                    }
                }
            }
        }
    }

    /// Tells the sessions of everything that happened since the last time.
    pub fn wake_all(&mut self, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        let effects: Vec<Effect> = std::mem::take(&mut self.effects).into_iter().collect();
        self.wake(&effects, now, &mut acts);
        acts
    }

    /// Tells a session that its proposal failed.
    pub fn fail(&mut self, link: LinkId, token: Token, failed: Failed, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        self.answer(link, token, Err(failed), now, &mut acts);
        acts
    }

    /// A peer answered a probe.
    pub fn alive(&mut self, link: LinkId, now: u64) -> Vec<Act> {
        let mut acts = self.with_client(link, now, |session, _, out| session.on_alive(out));
        acts.extend(self.with_service(link, now, |session, _, out| session.on_alive(out)));
        acts
    }

    fn answer(
        &mut self,
        link: LinkId,
        token: Token,
        result: Result<Outcome, Failed>,
        now: u64,
        acts: &mut Vec<Act>,
    ) {
        let other = result.clone();
        acts.extend(self.with_client(link, now, |session, view, out| {
            session.on_outcome(token, result, view, out);
        }));
        acts.extend(self.with_service(link, now, |session, view, out| {
            session.on_outcome(token, other, view, out);
        }));
    }

    fn wake(&mut self, effects: &[Effect], now: u64, acts: &mut Vec<Act>) {
        for effect in effects {
            for link in self.links() {
                let wake = match effect {
                    Effect::Event { event, .. } => Wake::Event(*event),
                    Effect::Client { .. } => Wake::Client,
                    Effect::Service { service, .. } => Wake::Service(service.clone()),
                    Effect::Site { .. } => Wake::All,
                };
                acts.extend(self.with_client(link, now, |session, view, out| {
                    session.on_wake(&wake, view, out);
                }));
                acts.extend(
                    self.with_service(link, now, |session, view, out| session.on_wake(view, out)),
                );
            }
        }
    }

    /// The process dies: written entries that were not durable survive up to a random one.
    pub fn crash(&mut self, seed: &mut Seed) {
        let kept =
            self.durable + seed.between(0, (self.log.len() - self.durable) as u64 + 1) as usize;
        self.log.truncate(kept);
        self.sessions.clear();
        self.waiting.clear();
        self.effects.clear();
        for entry in &mut self.log {
            entry.waiters.clear();
        }
        self.up = false;
        self.life += 1;
    }

    /// The process starts: its state is rebuilt from a snapshot at a random point and the log.
    ///
    /// # Panics
    /// When the rebuilt state differs from a replay of the whole log.
    pub fn start(&mut self, seed: &mut Seed) {
        self.durable = self.log.len();
        let cut = seed.between(1, self.log.len() as u64 + 1) as usize;
        let mut replayed = State::new();
        for entry in &self.log[..cut] {
            apply(&mut replayed, &entry.batch);
        }
        let mut rebuilt = State::new();
        for row in replayed.rows() {
            rebuilt.absorb(&Write::Put(row));
        }
        for entry in &self.log[cut..] {
            apply(&mut replayed, &entry.batch);
            apply(&mut rebuilt, &entry.batch);
        }
        assert_eq!(replayed.hash(), rebuilt.hash(), "a state rebuilt from rows differs");
        if self.applied == self.log.len() {
            assert_eq!(
                replayed.hash(),
                self.state.hash(),
                "a replayed state differs from the live one"
            );
        }
        self.state = rebuilt;
        self.applied = self.log.len();
        self.up = true;
    }

    /// The links with a session.
    pub fn links(&self) -> BTreeSet<LinkId> {
        self.sessions.keys().copied().collect()
    }

    fn service_outputs(&mut self, link: LinkId, out: Vec<Output<ToService>>, acts: &mut Vec<Act>) {
        for output in out {
            self.output(link, output, |m| Say::Service(translate::service_message(m, TERMS)), acts);
        }
    }

    fn client_outputs(&mut self, link: LinkId, out: Vec<Output<ToClient>>, acts: &mut Vec<Act>) {
        for output in out {
            let say = |m: &ToClient| Say::Client(translate::client_message(m, Codec::Json, TERMS));
            self.output(link, output, say, acts);
        }
    }

    /// What becomes of a proposal. While the partition is away, of each.
    fn fate(&mut self) -> Chance {
        let bound = if self.away { 3 } else { 200 };
        match self.busy.between(0, bound) {
            0 => Chance::Failed(Failed::Unavailable),
            1 => Chance::Unknown { late: false },
            2 => Chance::Unknown { late: true },
            3 | 4 => Chance::Failed(Failed::Busy),
            _ => Chance::Good,
        }
    }

    fn output<M>(
        &mut self,
        link: LinkId,
        output: Output<M>,
        say: impl Fn(&M) -> Say,
        acts: &mut Vec<Act>,
    ) {
        match output {
            Output::Propose { token, command } => match self.fate() {
                Chance::Good => {
                    self.waiting.push(Proposal { command, waiter: Some((link, token)) });
                    acts.push(Act::Write);
                }
                Chance::Failed(failed) => acts.push(Act::Fail(link, token, failed)),
                // Applied now, or later when nobody expects it any more, and nobody is told.
                Chance::Unknown { late } => {
                    acts.push(Act::Fail(link, token, Failed::Unknown));
                    if late {
                        acts.push(Act::Late(Box::new(command)));
                    } else {
                        self.waiting.push(Proposal { command, waiter: None });
                        acts.push(Act::Write);
                    }
                }
            },
            Output::Linearize { token } => {
                // A barrier of one voter: an entry that changes nothing, answered when applied.
                let command = Command::Tick { limit: 0 };
                self.waiting.push(Proposal { command, waiter: Some((link, token)) });
                acts.push(Act::Write);
            }
            Output::Probe => acts.push(Act::Probe(link)),
            Output::Send(message) => acts.push(Act::Say(link, say(&message))),
            Output::Close { reason, detail } => {
                let (closing, _) = translate::closing(reason, &detail);
                acts.push(Act::Say(link, Say::Close(closing)));
                acts.extend(self.hang_up(link));
            }
        }
    }
}

fn view<'a>(state: &'a State, site: &SiteName, now: u64) -> View<'a> {
    View::new(state, site, now, Stamp(now))
}
