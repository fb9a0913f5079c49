//! Scenarios on the pure sessions, over a real state: given, when, then.

mod access;
mod delivery;
mod elsewhere;
mod failover;
mod letters;
mod modes;
mod publishing;
mod subscriptions;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::*;
use crate::site::*;

pub const SITE: &str = "plant";
/// The acknowledgement timeout of subscriptions that say none, milliseconds.
pub const ACK_TIMEOUT_MS: u64 = 30_000;

/// A partition's state with one site, and the time.
pub struct World {
    pub state: State,
    pub stamp: u64,
    pub now_ms: u64,
    keys: u64,
    /// Every effect so far; sessions remember how far they were woken.
    effects: Vec<Effect>,
}

/// What a session asked for and was not yet told.
#[derive(Debug)]
pub enum Ask {
    Propose(Command),
    Linearize,
}

/// A client's session with its driver.
pub struct Client {
    pub session: ClientSession,
    pub said: Vec<ToClient>,
    pub asked: VecDeque<(Token, Ask)>,
    pub closed: Option<CloseReason>,
    /// How often it asked for a sign of life.
    pub probed: u32,
    woken: usize,
}

/// A service's session with its driver.
pub struct Service {
    /// Raises that it wants unanswered.
    pub window: u32,
    pub session: ServiceSession,
    pub said: Vec<ToService>,
    pub asked: VecDeque<(Token, Command)>,
    pub closed: Option<CloseReason>,
    /// How often it asked for a sign of life.
    pub probed: u32,
    woken: usize,
}

/// A session's identity that no other has.
pub fn session_id() -> SessionId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    SessionId(LAST.fetch_add(1, Ordering::Relaxed))
}

fn definition(name: &str, kind: Kind) -> EventDefinition {
    EventDefinition { name: name.into(), kind }
}

pub fn structure() -> Structure {
    let queueing = |size, access| Kind::Queueing { lifetime_s: 3600, size, access };
    let staff = Access::Roles(vec!["operator".into()]);
    Structure {
        service_type: "boiler".into(),
        contract_author: "Example".into(),
        guests: GuestSupport::GuestAndStateless,
        roles: vec!["operator".into()],
        owner_role: None,
        events: vec![
            definition("reading", queueing(1000, Access::Everyone)),
            definition("short", queueing(3, Access::Everyone)),
            definition("staff", queueing(1000, staff)),
            definition("members", queueing(1000, Access::GuestsDenied)),
            definition("state", Kind::Replacing { access: Access::Everyone }),
            definition("notice", Kind::Private { lifetime_s: 3600 }),
        ],
    }
}

impl World {
    /// The site with its structure, the service `s`, and the client `c` of the user `u`.
    pub fn new() -> Self {
        let mut world = Self::blank();
        world.admin(AdminAction::ApplyStructure {
            structure: structure(),
            rebuild: false,
            incarnation: Incarnation(7),
        });
        world.admin(AdminAction::CreateUser { id: "u".into(), roles: Vec::new() });
        world.admin(AdminAction::CreateClient { id: "c".into(), user: Some("u".into()) });
        world
    }

    /// The site without a structure, with the service `s`.
    pub fn blank() -> Self {
        let mut world =
            Self { state: State::new(), stamp: 1_000_000, now_ms: 0, keys: 0, effects: Vec::new() };
        world.admin(AdminAction::CreateSite {
            settings: SiteSettings {
                multi_service: false,
                constructible: true,
                guests_allowed: true,
                stateless_guests_allowed: true,
            },
            incarnation: Incarnation(7),
        });
        world.admin(AdminAction::CreateService { id: "s".into() });
        world
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        let batch = Batch { stamp: Stamp(self.stamp), commands: vec![command] };
        let mut applied = apply(&mut self.state, &batch);
        self.effects.append(&mut applied.effects);
        applied.outcomes.remove(0)
    }

    pub fn admin(&mut self, action: AdminAction) {
        self.keys += 1;
        let request = RequestId(u128::from(self.keys).to_be_bytes());
        let outcome = self.apply(Command::Admin { request, site: SITE.into(), action });
        assert_eq!(outcome, Outcome::Done);
    }

    fn raise_event(&mut self, name: &str, text: Option<&str>, client: Option<&str>) -> u64 {
        self.keys += 1;
        let arguments = text.map(|text| Arguments {
            content_type: "text/plain".into(),
            data: text.to_owned().into(),
        });
        let outcome = self.apply(Command::RaiseKeyed(RaiseKeyed {
            site: SITE.into(),
            service: "s".into(),
            key: self.keys.to_string(),
            event: NewEvent {
                name: name.into(),
                category: None,
                arguments,
                client: client.map(Into::into),
                lifetime_s: None,
                trace: None,
            },
        }));
        match outcome {
            Outcome::Raised(Raised {
                decision: Decision::Stored(id) | Decision::Ignored(id),
                ..
            }) => id.0,
            other => panic!("not stored: {other:?}"),
        }
    }

    pub fn raise(&mut self, name: &str) -> u64 {
        self.raise_event(name, Some("x"), None)
    }

    pub fn raise_null(&mut self, name: &str) -> u64 {
        self.raise_event(name, None, None)
    }

    pub fn raise_to(&mut self, name: &str, client: &str) -> u64 {
        self.raise_event(name, Some("x"), Some(client))
    }

    pub fn event(&self, name: &str) -> EventKey {
        self.site().event_named(name).expect("the event is defined").key
    }

    pub fn site(&self) -> &Site {
        self.state.site(SITE).expect("the site exists")
    }

    pub fn cursor(&self, client: &str, name: &str) -> u64 {
        let row = self.site().subscription(&client.into(), self.event(name));
        row.expect("it is subscribed").cursor.0
    }

    pub fn view(&self) -> View<'_> {
        View::new(&self.state, &SITE.into(), self.now_ms, Stamp(self.stamp))
    }

    /// Lets time pass on both clocks.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now_ms += ms;
        self.stamp += ms;
    }
}

impl Client {
    pub fn new(receiver: Receiver, world: &World) -> Self {
        let options =
            SessionOptions { ack_timeout_ms: ACK_TIMEOUT_MS as u32, ..SessionOptions::default() };
        Self {
            session: ClientSession::new(SITE.into(), receiver, None, session_id(), options),
            said: Vec::new(),
            asked: VecDeque::new(),
            closed: None,
            probed: 0,
            woken: world.effects.len(),
        }
    }

    /// The client `c`, connected, with exactly these subscriptions.
    pub fn with(world: &mut World, events: &[&str]) -> Self {
        let mut client = Self::new(Receiver::Client("c".into()), world);
        client.hello(world, Some(Digest([0; 32])));
        client.subscribe(world, ListMode::Exact, events);
        client
    }

    /// A stateless client, connected, with these subscriptions.
    pub fn stateless(world: &mut World, items: Vec<SubscribeItem>) -> Self {
        let mut client = Self::new(Receiver::Stateless, world);
        client.hello(world, None);
        client.tell(world, |session, view, out| {
            session.on_subscribe(ListMode::Exact, items, view, out);
        });
        client.settle(world);
        client
    }

    pub fn hello(&mut self, world: &mut World, set: Option<Digest>) {
        self.tell(world, |session, view, out| session.on_hello(set, view, out));
        self.settle(world);
    }

    pub fn subscribe(&mut self, world: &mut World, mode: ListMode, events: &[&str]) {
        let items = events.iter().map(|name| item(name)).collect();
        self.tell(world, |session, view, out| session.on_subscribe(mode, items, view, out));
        self.settle(world);
    }

    /// Calls the session and keeps what it pushes.
    pub fn tell(
        &mut self,
        world: &World,
        call: impl FnOnce(&mut ClientSession, View<'_>, &mut Vec<Output<ToClient>>),
    ) {
        let mut out = Vec::new();
        call(&mut self.session, world.view(), &mut out);
        for output in out {
            assert!(self.closed.is_none(), "nothing follows a close: {output:?}");
            match output {
                Output::Propose { token, command } => {
                    self.asked.push_back((token, Ask::Propose(command)));
                }
                Output::Linearize { token } => self.asked.push_back((token, Ask::Linearize)),
                Output::Probe => self.probed += 1,
                Output::Send(message) => self.said.push(message),
                Output::Close { reason, .. } => self.closed = Some(reason),
            }
        }
    }

    /// Answers everything that the session asked for, and wakes it for every effect, until
    /// nothing is left.
    pub fn settle(&mut self, world: &mut World) {
        loop {
            if let Some((token, ask)) = self.asked.pop_front() {
                let outcome = match ask {
                    Ask::Propose(command) => world.apply(command),
                    Ask::Linearize => Outcome::Done,
                };
                self.answer(world, token, Ok(outcome));
            } else if !self.wake(world) {
                return;
            }
        }
    }

    pub fn answer(&mut self, world: &World, token: Token, result: Result<Outcome, Failed>) {
        self.tell(world, |session, view, out| session.on_outcome(token, result, view, out));
    }

    /// Wakes the session for the effects since the last time; false when there were none.
    pub fn wake(&mut self, world: &World) -> bool {
        let effects = &world.effects[self.woken..];
        self.woken = world.effects.len();
        for effect in effects {
            let wake = match effect {
                Effect::Event { event, .. } => Wake::Event(*event),
                Effect::Client { client, .. } if self.session.client() == Some(client) => {
                    Wake::Client
                }
                Effect::Client { .. } => continue,
                Effect::Service { service, .. } => Wake::Service(service.clone()),
                Effect::Site { .. } => Wake::All,
            };
            self.tell(world, |session, view, out| session.on_wake(&wake, view, out));
        }
        !effects.is_empty()
    }

    /// Lets the session's next deadline pass.
    pub fn time_out(&mut self, world: &mut World) {
        let deadline = self.session.next_deadline().expect("it waits for something");
        world.pass_ms(deadline.saturating_sub(world.now_ms));
        self.tell(world, |session, view, out| session.on_time(view, out));
        self.settle(world);
    }

    /// Fails everything that the session asks for until it closes.
    pub fn fail(&mut self, world: &mut World, failed: Failed) {
        while self.closed.is_none() {
            while let Some((token, _)) = self.asked.pop_front() {
                self.answer(world, token, Err(failed));
            }
            let Some(deadline) = self.session.next_deadline() else { return };
            world.pass_ms(deadline.saturating_sub(world.now_ms));
            self.tell(world, |session, view, out| session.on_time(view, out));
        }
    }

    pub fn ack(&mut self, world: &mut World, name: &str, id: u64) {
        let event = world.event(name);
        self.tell(world, |session, view, out| session.on_ack((event, InstanceId(id)), view, out));
        self.settle(world);
    }

    pub fn nack(&mut self, world: &mut World, name: &str, id: u64, retry_ms: u64) {
        let event = world.event(name);
        self.tell(world, |session, view, out| {
            session.on_nack((event, InstanceId(id)), retry_ms, view, out);
        });
        self.settle(world);
    }

    /// Takes what was delivered: (id, attempt).
    pub fn delivered(&mut self) -> Vec<(u64, u32)> {
        let said = std::mem::take(&mut self.said);
        let (events, rest): (Vec<_>, Vec<_>) =
            said.into_iter().partition(|message| matches!(message, ToClient::Event(_)));
        self.said = rest;
        let id = |message| match message {
            ToClient::Event(delivery) => (delivery.instance.id.0, delivery.attempt),
            other => panic!("not an event: {other:?}"),
        };
        events.into_iter().map(id).collect()
    }

    /// Acknowledges whatever is delivered of an event until nothing more comes; the ids.
    pub fn drain(&mut self, world: &mut World, name: &str) -> Vec<u64> {
        let mut ids = Vec::new();
        loop {
            let delivered = self.delivered();
            if delivered.is_empty() {
                return ids;
            }
            for (id, _) in delivered {
                ids.push(id);
                self.ack(world, name, id);
            }
        }
    }

    pub fn committed(&self) -> Vec<u64> {
        let id = |message: &ToClient| match message {
            ToClient::Committed { instance, .. } => Some(instance.0),
            ToClient::Welcome { .. }
            | ToClient::Subscribed { .. }
            | ToClient::Event(_)
            | ToClient::Events(_)
            | ToClient::Authority { .. }
            | ToClient::Presence { .. } => None,
        };
        self.said.iter().filter_map(id).collect()
    }
}

/// A subscription without options.
pub fn item(name: &str) -> SubscribeItem {
    SubscribeItem {
        request: SubscriptionRequest {
            event: name.into(),
            category: None,
            start: Start::Earliest,
            ack_timeout_ms: None,
            max_attempts: None,
        },
        resume: None,
        quality: Quality::default(),
    }
}
