//! A node in a temporary directory, and peers that speak frames.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ackord_agents::{
    Broker, BrokerOptions, Connection, Inbound, Outbound, Outbox, Principal, Said, Transport, token,
};
use ackord_machine::site::{
    Access, AdminAction, EventDefinition, GuestSupport, Incarnation, Kind, Limits, SiteName,
    SiteSettings, Structure, TokenId,
};
use ackord_replica::{Node, NodeOptions};
use ackord_wire::frame::{
    ClientFrame, ClientHello, ClientMessage, ClientWelcome, EventMessage, Raise, ServiceFrame,
    ServiceHello, ServiceMessage, ServiceWelcome, Subscribed, Subscription, SubscriptionList,
};
use ackord_wire::{Codec, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

pub const SITE: &str = "plant";
/// Nothing here takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that a peer's outbox holds.
pub const OUTBOX: usize = 8;

/// A broker on a node of its own.
pub struct World {
    pub broker: Broker,
    node: Arc<Node>,
    _dir: tempfile::TempDir,
}

pub fn structure() -> Structure {
    let queueing = || Kind::Queueing { lifetime_s: 3600, size: 1000, access: Access::Everyone };
    let event = |name: &str, kind| EventDefinition { name: name.into(), kind };
    Structure {
        service_type: "boiler".into(),
        contract_author: "Example".into(),
        guests: GuestSupport::GuestAndStateless,
        roles: Vec::new(),
        owner_role: None,
        events: vec![
            event("reading", queueing()),
            event("log", queueing()),
            event("state", Kind::Replacing { access: Access::Everyone }),
        ],
    }
}

/// Runs a scenario on a fresh world: the site with its structure, the service `s`, the client `c`.
pub fn scenario<F: Future<Output = ()>>(options: BrokerOptions, play: impl FnOnce(Broker) -> F) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = Limits { ack_timeout_ms_min: 10, ..Limits::default() };
    let node_options = NodeOptions { partitions: 2, limits, ..NodeOptions::new(dir.path()) };
    let node = Arc::new(Node::start(node_options).expect("the node starts"));
    let world = World { broker: Broker::new(node.clone(), options), node, _dir: dir };
    let broker = world.broker.clone();
    actix_rt::System::new().block_on(async {
        let play = async {
            prepare(&broker).await;
            play(broker).await;
        };
        tokio::time::timeout(PATIENCE, play).await.expect("the scenario ends in time");
    });
    world.node.shutdown();
}

async fn prepare(broker: &Broker) {
    let settings = SiteSettings {
        multi_service: false,
        constructible: true,
        guests_allowed: true,
        stateless_guests_allowed: true,
    };
    let incarnation = Incarnation(7);
    admin(broker, AdminAction::CreateSite { settings, incarnation }).await;
    admin(broker, AdminAction::CreateService { id: "s".into() }).await;
    let (structure, rebuild) = (structure(), false);
    admin(broker, AdminAction::ApplyStructure { structure, rebuild, incarnation }).await;
    admin(broker, AdminAction::CreateClient { id: "c".into(), user: None }).await;
}

pub async fn admin(broker: &Broker, action: AdminAction) {
    broker.admin(&SiteName::from(SITE), action).await.expect("the act is allowed");
}

/// Registers a token for a principal; its text.
pub async fn mint(broker: &Broker, id: &str, principal: Principal) -> String {
    let id = TokenId::from(id);
    let minted = token::mint(&id);
    admin(broker, AdminAction::CreateToken { id, hash: minted.hash, principal }).await;
    minted.text
}

/// The far end of a connection.
pub struct Peer {
    pub codec: Codec,
    pub to: mpsc::Sender<Inbound>,
    pub from: Said,
}

/// What a peer reads.
#[derive(Debug)]
pub enum Read<M> {
    Message(M),
    Ping,
    Close(u16),
}

impl Peer {
    fn open(codec: Codec, outbox: usize) -> (Self, Outbox, mpsc::Receiver<Inbound>) {
        let (to, inbound) = mpsc::channel(64);
        let (outbound, from) = ackord_agents::outbox(outbox);
        (Self { codec, to, from }, outbound, inbound)
    }

    pub async fn say(&self, frame: &impl Serialize) {
        let frame = Inbound::Frame(self.codec.encode(frame).into());
        self.to.send(frame).await.expect("the session listens");
    }

    /// The next thing read; `None` when the session has dropped its outbox.
    pub async fn read<M: DeserializeOwned>(&mut self) -> Option<Read<M>> {
        Some(match self.from.next().await? {
            Outbound::Frame(frame) | Outbound::Receipted(frame, _) => {
                Read::Message(self.codec.decode(&frame).expect("it is a frame"))
            }
            Outbound::Ping => Read::Ping,
            Outbound::Close { number, .. } => Read::Close(number),
        })
    }
}

fn connection(principal: Option<Principal>, codec: Codec, outbox: Outbox) -> Connection {
    let site = SITE.into();
    let (transport, peer) = (Transport::WebSocket, "test".into());
    let (token, expires_ms) = (None, None);
    Connection { site, principal, token, expires_ms, codec, outbox, transport, peer }
}

fn stream(inbound: mpsc::Receiver<Inbound>) -> impl futures_util::Stream<Item = Inbound> {
    futures_util::stream::unfold(inbound, |mut inbound| async move {
        inbound.recv().await.map(|item| (item, inbound))
    })
}

/// A connected client.
pub struct Client(pub Peer);

impl Client {
    pub fn open(broker: &Broker, principal: Option<Principal>, codec: Codec) -> Self {
        Self::open_with(broker, principal, codec, OUTBOX)
    }

    pub fn open_with(
        broker: &Broker,
        principal: Option<Principal>,
        codec: Codec,
        outbox: usize,
    ) -> Self {
        let (peer, outbound, inbound) = Peer::open(codec, outbox);
        broker.open_client(connection(principal, codec, outbound), stream(inbound));
        Self(peer)
    }

    /// The client of this id, with exactly these subscriptions.
    pub async fn subscribed(broker: &Broker, id: &str, items: Vec<Subscription>) -> Self {
        let mut client = Self::open(broker, Some(Principal::Client(id.into())), Codec::Json);
        client.hello(Some("-")).await;
        client.list(items).await;
        client
    }

    /// Says hello and waits for the welcome.
    pub async fn hello(&mut self, set: Option<&str>) -> ClientWelcome {
        self.say_hello(set).await;
        match self.message().await {
            ClientMessage::Welcome(welcome) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub async fn say_hello(&mut self, set: Option<&str>) {
        let set = set.map(str::to_owned);
        self.0.say(&ClientFrame::Hello(ClientHello { set, ..ClientHello::default() })).await;
    }

    pub async fn list(&mut self, items: Vec<Subscription>) -> Subscribed {
        self.0.say(&ClientFrame::Subscriptions(SubscriptionList { items })).await;
        loop {
            if let ClientMessage::Subscribed(subscribed) = self.message().await {
                return subscribed;
            }
        }
    }

    pub async fn message(&mut self) -> ClientMessage {
        match self.0.read().await {
            Some(Read::Message(message)) => message,
            other => panic!("no message: {other:?}"),
        }
    }

    /// The next event; anything else before it is skipped.
    pub async fn event(&mut self) -> EventMessage {
        loop {
            if let ClientMessage::Event(event) = self.message().await {
                return *event;
            }
        }
    }

    pub async fn ack(&self, event: &EventMessage) {
        let (subscription, instance_id) = (event.subscription, event.instance_id);
        let ack = ackord_wire::frame::Ack { subscription, instance_id, generation: None };
        self.0.say(&ClientFrame::Ack(ack)).await;
    }

    /// The instance whose commit is confirmed next.
    pub async fn committed(&mut self) -> u64 {
        loop {
            if let ClientMessage::Committed(ack) = self.message().await {
                return ack.instance_id;
            }
        }
    }

    /// Reads up to the close.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.0.read::<ClientMessage>().await {
                Some(Read::Close(number)) => return number,
                Some(Read::Message(_) | Read::Ping) => {}
                None => panic!("the session ended without a close"),
            }
        }
    }
}

/// A connected service.
pub struct Service(pub Peer, pub ServiceWelcome);

impl Service {
    /// The service `s`, which was welcomed.
    pub async fn open(broker: &Broker, codec: Codec, structure: Option<Structure>) -> Self {
        let (mut peer, outbound, inbound) = Peer::open(codec, 64);
        let principal = Some(Principal::Service("s".into()));
        broker.open_service(connection(principal, codec, outbound), stream(inbound));
        let structure = structure.as_ref().map(ackord_agents::translate::structure_to_wire);
        peer.say(&ServiceFrame::Hello(ServiceHello {
            structure,
            store: "0123456789abcdef0123456789abcdef".to_owned(),
            continues: None,
            service_version: "1".to_owned(),
            hostname: "host".to_owned(),
            window: None,
            keepalive_s: None,
        }))
        .await;
        match peer.read().await {
            Some(Read::Message(ServiceMessage::Welcome(welcome))) => Self(peer, welcome),
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub async fn message(&mut self) -> ServiceMessage {
        match self.0.read().await {
            Some(Read::Message(message)) => message,
            other => panic!("no message: {other:?}"),
        }
    }

    pub async fn raise(&self, seq: u64, event: &str, json: &str) {
        let payload = Payload::json(json.to_owned());
        let (content_type, args, data) = Payload::to_fields(Some(&payload), self.0.codec);
        self.0
            .say(&ServiceFrame::Raise(Raise {
                seq,
                event: event.to_owned(),
                category: None,
                content_type,
                args,
                data,
                client: None,
                lifetime_s: None,
                traceparent: None,
                tracestate: None,
            }))
            .await;
    }

    /// Raises and waits until it is stored; the instance.
    pub async fn store(&mut self, seq: u64, event: &str, json: &str) -> u64 {
        self.raise(seq, event, json).await;
        loop {
            match self.message().await {
                ServiceMessage::Accepted(accepted) => {
                    assert_eq!(accepted.seq, seq);
                    return accepted.instance_id.expect("it was just stored");
                }
                ServiceMessage::Welcome(_) | ServiceMessage::State(_) => {}
                other @ (ServiceMessage::Rejected(_)
                | ServiceMessage::Refused(_)
                | ServiceMessage::Closing(_)) => panic!("not stored: {other:?}"),
            }
        }
    }
}

pub fn item(event: &str) -> Subscription {
    Subscription { event: event.to_owned(), ..Subscription::default() }
}
