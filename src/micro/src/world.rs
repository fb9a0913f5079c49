//! A partition with one site, and the sessions of its clients: where the paths begin.

use ackord_machine::session::{
    ClientSession, ListMode, Output, SessionOptions, SubscribeItem, ToClient, View,
};
use ackord_machine::site::{
    Access, AdminAction, Arguments, AttachService, Batch, Claim, ClientId, Command, Digest, Epoch,
    EventDefinition, EventKey, GuestSupport, Incarnation, Kind, NewEvent, Outcome, Place, Quality,
    Raise, Raising, Receiver, RequestId, Sequence, SessionId, Site, SiteSettings, Stamp, Start,
    State, StorageUid, Structure, SubscriptionRequest, apply,
};
use bytes::Bytes;

/// The one site.
pub const SITE: &str = "plant";
/// The service that raises.
pub const SERVICE: &str = "boiler";
/// The event that is raised.
pub const EVENT: &str = "reading";
/// Instances that the event's queue holds; it is full when anything is measured.
const QUEUE_SIZE: u32 = 1_000;
/// Events that are raised before anything is measured: more than the outcomes that the site
/// remembers of a store, so that each further raise makes it forget one.
const RAISED_BEFORE: usize = 2_100;
/// The store that events are raised from.
const STORE: StorageUid = StorageUid([1; 16]);

/// What one node has applied.
pub struct World {
    pub state: State,
    epoch: Epoch,
    raised: u64,
    made: u64,
}

/// JSON arguments of 128 bytes.
pub fn arguments() -> String {
    let text = format!(r#"{{"celsius":21.5,"valve":"open","note":"{}"}}"#, "n".repeat(87));
    assert_eq!(text.len(), 128);
    text
}

impl World {
    /// The site with its service attached and a full queue.
    pub fn new() -> Self {
        let mut world = Self { state: State::new(), epoch: Epoch(0), raised: 0, made: 0 };
        let settings = SiteSettings {
            multi_service: false,
            constructible: true,
            guests_allowed: true,
            stateless_guests_allowed: true,
        };
        world.admin(AdminAction::CreateSite { settings, incarnation: Incarnation(7) });
        world.admin(AdminAction::CreateService { id: SERVICE.into() });
        let kind = Kind::Queueing { lifetime_s: 3600, size: QUEUE_SIZE, access: Access::Everyone };
        let structure = Structure {
            service_type: "boiler".into(),
            contract_author: "Example".into(),
            guests: GuestSupport::GuestAndStateless,
            roles: Vec::new(),
            owner_role: None,
            events: vec![EventDefinition { name: EVENT.into(), kind }],
        };
        let incarnation = Incarnation(9);
        world.admin(AdminAction::ApplyStructure { structure, rebuild: false, incarnation });
        world.attach_service();
        (0..RAISED_BEFORE).for_each(|_| world.raise());
        world
    }

    /// Applies one command.
    pub fn apply(&mut self, command: Command) -> Outcome {
        let batch = Batch { stamp: self.stamp(), commands: vec![command] };
        apply(&mut self.state, &batch).outcomes.remove(0)
    }

    fn admin(&mut self, action: AdminAction) {
        let request = RequestId(u128::from(self.next()).to_be_bytes());
        let outcome = self.apply(Command::Admin { request, site: SITE.into(), action });
        assert_eq!(outcome, Outcome::Done);
    }

    fn attach_service(&mut self) {
        let claim = Claim { session: SessionId(self.next()), above: Epoch(0) };
        let outcome = self.apply(Command::AttachService(AttachService {
            site: SITE.into(),
            service: SERVICE.into(),
            claim,
            structure: None,
            version: "1.0".into(),
            hostname: "host".into(),
            uid: STORE,
            continues: None,
            incarnation: Incarnation(11),
            place: Place { node: 1, run: 1 },
        }));
        let Outcome::ServiceAttached { epoch, .. } = outcome else { panic!("{outcome:?}") };
        self.epoch = epoch;
    }

    /// The next raise of the service, to be applied in its turn.
    pub fn next_raise(&mut self) -> Command {
        self.raised += 1;
        let data = Bytes::from(arguments());
        let arguments = Arguments { content_type: "application/json".into(), data };
        Command::from(Raising::Session(Raise {
            site: SITE.into(),
            service: SERVICE.into(),
            epoch: self.epoch,
            uid: STORE,
            sequence: Sequence(self.raised),
            event: NewEvent {
                name: EVENT.into(),
                category: None,
                arguments: Some(arguments),
                client: None,
                lifetime_s: None,
                trace: None,
            },
        }))
    }

    /// Raises an event; its instance is the newest of the queue.
    pub fn raise(&mut self) {
        let raise = self.next_raise();
        let outcome = self.apply(raise);
        assert!(matches!(outcome, Outcome::Raised(_)), "{outcome:?}");
    }

    /// A new client that has subscribed to what is raised from now on, and waits for it.
    pub fn connect(&mut self) -> ClientSession {
        let client = ClientId::from(format!("client-{:04}", self.next()));
        self.admin(AdminAction::CreateClient { id: client.clone(), user: None });
        let id = SessionId(self.next());
        let receiver = Receiver::Client(client);
        let options = SessionOptions::default();
        let mut session = ClientSession::new(SITE.into(), receiver, None, id, options);
        let mut out = Vec::new();
        session.on_hello(Some(Digest([0; 32])), self.view(), &mut out);
        self.settle(&mut session, out);
        let item = SubscribeItem {
            request: SubscriptionRequest {
                event: EVENT.into(),
                category: None,
                start: Start::Latest,
                ack_timeout_ms: None,
                max_attempts: None,
            },
            resume: None,
            quality: Quality::default(),
        };
        let mut out = Vec::new();
        session.on_subscribe(ListMode::Exact, vec![item], self.view(), &mut out);
        self.settle(&mut session, out);
        assert!(session.is_open() && session.lanes().len() == 1);
        session
    }

    /// Applies what a session proposes, until it proposes nothing more.
    fn settle(&mut self, session: &mut ClientSession, mut out: Vec<Output<ToClient>>) {
        while !out.is_empty() {
            for output in std::mem::take(&mut out) {
                if let Output::Propose { token, command } = output {
                    let outcome = self.apply(command);
                    session.on_outcome(token, Ok(outcome), self.view(), &mut out);
                }
            }
        }
    }

    /// What a session sees.
    pub fn view(&self) -> View<'_> {
        View::new(&self.state, &SITE.into(), 0, self.stamp())
    }

    /// The site.
    pub fn site(&self) -> &Site {
        self.state.site(SITE).expect("the site exists")
    }

    /// The event's number.
    pub fn event(&self) -> EventKey {
        self.site().event_named(EVENT).expect("the event is defined").key
    }

    /// The log's time, which stands still.
    pub fn stamp(&self) -> Stamp {
        Stamp(1_000_000)
    }

    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}
