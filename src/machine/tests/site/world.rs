//! A partition under test: commands go in as encoded log entries, and after each one the state
//! must equal the one that its rows rebuild, and be untouched if the command was refused.

use ackord_machine::site::*;
use bytes::Bytes;

pub const SITE: &str = "s";

pub struct World {
    pub state: State,
    pub now: u64,
    pub effects: Vec<Effect>,
    requests: u64,
    sessions: u64,
}

pub fn uid(number: u8) -> StorageUid {
    StorageUid([number; 16])
}

pub fn request(number: u64) -> RequestId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    RequestId(id)
}

pub fn replacing(name: &str) -> EventDefinition {
    restricted(name, Access::Everyone)
}

pub fn restricted(name: &str, access: Access) -> EventDefinition {
    EventDefinition { name: name.into(), kind: Kind::Replacing { access } }
}

pub fn queueing(name: &str, size: u32, lifetime_s: u32) -> EventDefinition {
    let kind = Kind::Queueing { lifetime_s, size, access: Access::Everyone };
    EventDefinition { name: name.into(), kind }
}

pub fn private(name: &str, lifetime_s: u32) -> EventDefinition {
    EventDefinition { name: name.into(), kind: Kind::Private { lifetime_s } }
}

pub fn structure(events: Vec<EventDefinition>) -> Structure {
    Structure {
        service_type: "boiler".into(),
        contract_author: "Example".into(),
        guests: GuestSupport::GuestAndStateless,
        roles: vec!["Admin".into(), "Operator".into()],
        owner_role: Some("Admin".into()),
        events,
    }
}

/// `r` Replacing, `q` Queueing of three, `p` Private, each kept for a minute.
pub fn usual() -> Structure {
    structure(vec![replacing("r"), queueing("q", 3, 60), private("p", 60)])
}

pub fn settings() -> SiteSettings {
    SiteSettings {
        multi_service: false,
        constructible: true,
        guests_allowed: true,
        stateless_guests_allowed: true,
    }
}

pub fn event(name: &str, value: &str) -> NewEvent {
    let arguments = Arguments {
        content_type: "application/json".into(),
        data: Bytes::copy_from_slice(value.as_bytes()),
    };
    NewEvent {
        name: name.into(),
        category: None,
        arguments: Some(arguments),
        client: None,
        lifetime_s: None,
        trace: None,
    }
}

/// A trace context; of 0 it is not sound.
pub fn context(id: u8, state: &str) -> TraceContext {
    TraceContext { trace_id: [id; 16], parent_id: [id; 8], flags: 1, state: state.to_owned() }
}

/// Changes a raise as if it had no context.
pub fn as_if_untraced(command: &mut Command, change: impl FnOnce(&mut Command)) {
    let Command::Traced(traced) = command else { return };
    let trace = traced.trace.clone();
    let mut plain = command.clone().untraced();
    change(&mut plain);
    if let Command::Raise(mut raise) = plain {
        raise.event.trace = Some(Box::new(trace));
        *command = Raising::Session(raise).into();
    }
}

/// The same event in a trace.
pub fn traced(event: NewEvent, trace: &TraceContext) -> NewEvent {
    NewEvent { trace: Some(Box::new(trace.clone())), ..event }
}

pub fn null(name: &str) -> NewEvent {
    NewEvent { arguments: None, ..event(name, "") }
}

pub fn to_client(name: &str, client: &str, value: &str) -> NewEvent {
    NewEvent { client: Some(client.into()), ..event(name, value) }
}

pub fn item(name: &str) -> SubscriptionRequest {
    SubscriptionRequest {
        event: name.into(),
        category: None,
        start: Start::Earliest,
        ack_timeout_ms: None,
        max_attempts: None,
    }
}

pub fn rebuilt(state: &State) -> State {
    let mut copy = State::new();
    let mut rows: Vec<_> = state.rows().collect();
    // Backwards: absorbing must not depend on the order.
    rows.reverse();
    for row in rows {
        copy.absorb(&Write::Put(row));
    }
    copy
}

impl World {
    pub fn empty() -> Self {
        Self { state: State::new(), now: 1_000_000, effects: Vec::new(), requests: 0, sessions: 0 }
    }

    /// A blank site with service `v`.
    pub fn blank(settings: SiteSettings) -> Self {
        let mut world = Self::empty();
        world.done(AdminAction::CreateSite { settings, incarnation: Incarnation(7) });
        world.done(AdminAction::CreateService { id: "v".into() });
        world
    }

    /// A constructed site whose service `v` is attached from store 1 and whose client `c`, of
    /// user `u`, is attached.
    pub fn with(structure: Structure) -> Self {
        let mut world = Self::blank(settings());
        world.apply_structure(structure);
        world.attach("v", 1);
        world.done(AdminAction::CreateUser { id: "u".into(), roles: vec![] });
        world.create_client("c", Some("u"));
        world.attach_client("c");
        world
    }

    /// As [`World::with`], on a multi-service site with a second service `w`.
    pub fn multi(structure: Structure) -> Self {
        let mut world = Self::blank(SiteSettings { multi_service: true, ..settings() });
        world.apply_structure(structure);
        world.done(AdminAction::CreateService { id: "w".into() });
        world.attach("v", 1);
        world.attach("w", 1);
        world.create_client("c", None);
        world.attach_client("c");
        world
    }

    pub fn run(&mut self, command: Command) -> Outcome {
        let batch = Batch { stamp: Stamp(self.now), commands: vec![command] };
        let batch = decode_batch(&encode_batch(&batch)).unwrap();
        let before = self.state.clone();
        let applied = apply(&mut self.state, &batch);
        let outcome = applied.outcomes.into_iter().next().unwrap();
        if matches!(outcome, Outcome::Refused(_)) {
            let mut untouched = before.clone();
            untouched.absorb(&Write::Put(Row::Clock(self.state.clock())));
            assert_eq!(self.state, untouched, "{outcome:?} must change nothing");
        }
        let copy = rebuilt(&self.state);
        assert_eq!(copy, self.state, "indexes follow from the rows");
        assert_eq!(copy.hash(), self.state.hash());
        for key in self.state.rows().map(|row| row.key()) {
            let known = before.row(&key) == self.state.row(&key);
            assert!(known || applied.dirty.contains(&key), "{key:?} changed unnoticed");
        }
        self.effects = applied.effects;
        outcome
    }

    /// As [`World::run`], without looking at everything: for histories of thousands.
    pub fn run_unchecked(&mut self, command: Command) {
        let batch = Batch { stamp: Stamp(self.now), commands: vec![command] };
        apply(&mut self.state, &batch);
    }

    pub fn site(&self) -> &Site {
        self.state.site(SITE).unwrap()
    }

    pub fn admin(&mut self, action: AdminAction) -> Outcome {
        self.requests += 1;
        let request = request(self.requests);
        self.run(Command::Admin { request, site: SITE.into(), action })
    }

    pub fn done(&mut self, action: AdminAction) {
        assert_eq!(self.admin(action), Outcome::Done);
    }

    pub fn refused(&mut self, action: AdminAction) -> Refusal {
        refusal(self.admin(action))
    }

    pub fn apply_structure(&mut self, structure: Structure) {
        let incarnation = Incarnation(99);
        self.done(AdminAction::ApplyStructure { structure, rebuild: false, incarnation });
    }

    pub fn create_client(&mut self, id: &str, user: Option<&str>) {
        self.done(AdminAction::CreateClient { id: id.into(), user: user.map(Into::into) });
    }

    pub fn attach_with(
        &mut self,
        service: &str,
        structure: Option<Structure>,
        store: u8,
        continues: Option<u8>,
    ) -> Outcome {
        let row = self.state.site(SITE).and_then(|site| site.service(service));
        let above = row.map_or(Epoch(0), |row| row.epoch);
        let claim = self.claim(above);
        self.run(Command::AttachService(AttachService {
            site: SITE.into(),
            service: service.into(),
            claim,
            structure,
            version: "1.0".into(),
            hostname: "host".into(),
            uid: uid(store),
            continues: continues.map(uid),
            incarnation: Incarnation(11),
            place: Place { node: 1, run: 1 },
        }))
    }

    pub fn attach(&mut self, service: &str, store: u8) -> Epoch {
        match self.attach_with(service, None, store, None) {
            Outcome::ServiceAttached { epoch, .. } => epoch,
            other => panic!("{other:?}"),
        }
    }

    /// The claim of a new session that knows of the epochs up to this one.
    pub fn claim(&mut self, above: Epoch) -> Claim {
        self.sessions += 1;
        Claim { session: SessionId(self.sessions), above }
    }

    pub fn try_attach_client(&mut self, client: &str) -> Outcome {
        let above = self.site().client(client).map_or(Epoch(0), |row| row.epoch);
        let claim = self.claim(above);
        self.run(Command::AttachClient { site: SITE.into(), client: client.into(), claim })
    }

    pub fn attach_client(&mut self, client: &str) -> Epoch {
        match self.try_attach_client(client) {
            Outcome::ClientAttached { epoch, .. } => epoch,
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a client's next event, as one that knows of the client's newest session.
    pub fn poll(&mut self, client: &str, lasts_ms: u32) -> Outcome {
        let above = self.site().client(client).map_or(Epoch(0), |row| row.epoch);
        let claim = self.claim(above);
        let (site, client) = (SITE.into(), client.into());
        self.run(Command::AttachPolling(AttachPolling { site, client, claim, lasts_ms }))
    }

    /// Raises under the service's present epoch.
    pub fn raise_as(&mut self, service: &str, store: u8, number: u64, event: NewEvent) -> Outcome {
        let epoch = self.site().service(service).map_or(Epoch(0), |row| row.epoch);
        self.run(Command::from(Raising::Session(Raise {
            site: SITE.into(),
            service: service.into(),
            epoch,
            uid: uid(store),
            sequence: Sequence(number),
            event,
        })))
    }

    /// Raises as `v` under the next number of its present store.
    pub fn raise(&mut self, event: NewEvent) -> Decision {
        self.raise_next("v", event)
    }

    pub fn raise_next(&mut self, service: &str, event: NewEvent) -> Decision {
        let row = self.site().service(service).unwrap();
        let (epoch, uid) = (row.epoch, row.uid.unwrap());
        let sequence = self.site().store(service, uid).unwrap().last.next();
        let (site, service) = (SITE.into(), service.into());
        let raise = Raise { site, service, epoch, uid, sequence, event };
        match self.run(Raising::Session(raise).into()) {
            Outcome::Raised(Raised { duplicate: false, decision }) => decision,
            other => panic!("{other:?}"),
        }
    }

    pub fn store(&mut self, event: NewEvent) -> u64 {
        match self.raise(event) {
            Decision::Stored(id) => id.0,
            other => panic!("{other:?}"),
        }
    }

    pub fn raise_keyed(&mut self, key: &str, event: NewEvent) -> Outcome {
        self.raise_keyed_as("v", key, event)
    }

    pub fn raise_keyed_as(&mut self, service: &str, key: &str, event: NewEvent) -> Outcome {
        let (site, service) = (SITE.into(), service.into());
        let raise = RaiseKeyed { site, service, key: key.into(), event };
        self.run(Raising::Keyed(raise).into())
    }

    pub fn raise_after(&mut self, after: &str, key: &str, event: NewEvent) -> Outcome {
        let (site, service) = (SITE.into(), "v".into());
        let raise = RaiseKeyed { site, service, key: key.into(), event };
        self.run(Raising::After(RaiseAfter { raise, after: after.into() }).into())
    }

    pub fn subscribe_items(
        &mut self,
        client: &str,
        mode: SubscribeMode,
        items: Vec<SubscriptionRequest>,
    ) -> Vec<Result<Generation, Refusal>> {
        let row = self.site().client(client).unwrap();
        let (epoch, number) = (row.epoch, row.listed + 1);
        let (site, client) = (SITE.into(), client.into());
        match self.run(Command::Subscribe(Subscribe { site, client, epoch, number, mode, items })) {
            Outcome::Subscribed(results) => results
                .into_iter()
                .map(|one| one.result.map(|(_, generation)| generation))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    pub fn subscribe(&mut self, client: &str, events: &[&str]) {
        let items = events.iter().map(|name| item(name)).collect();
        for result in self.subscribe_items(client, SubscribeMode::Add, items) {
            result.unwrap();
        }
    }

    pub fn key(&self, event: &str) -> EventKey {
        self.site().event_named(event).unwrap().key
    }

    /// What `client` would send to move its cursor on `event` to `instance` now.
    pub fn advancing(&self, client: &str, event: &str, instance: u64) -> Advance {
        let site = self.site();
        let event = self.key(event);
        Advance {
            site: SITE.into(),
            client: client.into(),
            event,
            epoch: site.client(client).unwrap().epoch,
            incarnation: site.incarnation(),
            generation: site
                .subscription(&client.into(), event)
                .map_or(Generation(0), |row| row.generation),
            instance: InstanceId(instance),
        }
    }

    pub fn advance(&mut self, client: &str, event: &str, instance: u64) -> Outcome {
        let advance = self.advancing(client, event, instance);
        self.run(Command::Advance(advance))
    }

    pub fn cursor(&self, client: &str, event: &str) -> Option<u64> {
        Some(self.site().subscription(&client.into(), self.key(event))?.cursor.0)
    }

    pub fn retained(&self, event: &str) -> Vec<u64> {
        self.site().retained(self.key(event)).map(|instance| instance.id.0).collect()
    }

    pub fn values(&self, event: &str) -> Vec<String> {
        let text = |instance: &std::sync::Arc<Instance>| match &instance.arguments {
            None => "null".to_owned(),
            Some(arguments) => String::from_utf8(arguments.data.to_vec()).unwrap(),
        };
        self.site().retained(self.key(event)).map(text).collect()
    }

    pub fn next(&self, client: &str, event: &str, after: u64) -> Option<u64> {
        let receiver = Receiver::Client(client.into());
        let (key, after) = (self.key(event), InstanceId(after));
        let next = self.site().next_instance(key, after, &receiver, Stamp(self.now));
        next.map(|instance| instance.id.0)
    }

    pub fn tick(&mut self, limit: u32) -> u32 {
        match self.run(Command::Tick { limit }) {
            Outcome::Ticked { removed } => removed,
            other => panic!("{other:?}"),
        }
    }

    pub fn wakes(&self, effect: &Effect) -> bool {
        self.effects.contains(effect)
    }
}

pub fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn stored(id: u64) -> Outcome {
    Outcome::Raised(Raised { duplicate: false, decision: Decision::Stored(InstanceId(id)) })
}

pub fn duplicate(decision: Decision) -> Outcome {
    Outcome::Raised(Raised { duplicate: true, decision })
}

pub fn for_event(world: &World, event: &str) -> Effect {
    Effect::Event { site: SITE.into(), event: world.key(event) }
}

pub fn for_client(client: &str) -> Effect {
    Effect::Client { site: SITE.into(), client: client.into() }
}

pub fn for_service(service: &str) -> Effect {
    Effect::Service { site: SITE.into(), service: service.into() }
}

pub fn for_site() -> Effect {
    Effect::Site { site: SITE.into() }
}
