//! A node as a host: the real node and the real sessions on it, behind a small front for endpoints.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ackord_agents::{
    Broker, BrokerOptions, Connection, Inbound, Outbound, Principal, Transport, outbox,
};
use ackord_machine::site::{
    Access, AdminAction, EventDefinition, GuestSupport, Incarnation, Kind, Limits, SiteName,
    SiteSettings, Structure,
};
use ackord_replica::{Ground, Node, NodeOptions, OnFatal, PeerOptions};
use ackord_wire::{Code, Codec};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Duration, sleep};
use turmoil::net::{TcpListener, TcpStream};

use crate::disk::Disk;
use crate::frames::{self, Message};
use crate::net::{HostNet, SharedWeather};

pub const SITE: &str = "plant";
pub const EVENTS: [&str; 2] = ["reading", "log"];
pub const PARTITIONS: u32 = 2;
/// Where nodes listen for each other, and for endpoints.
pub const PEER_PORT: u16 = 7000;
pub const FRONT_PORT: u16 = 9000;
/// Messages of one connection that wait in the front.
const MESSAGES_MAX: usize = 64;

/// What went wrong, of whatever kind.
pub type Complaints = Arc<Mutex<Vec<String>>>;

/// What a host keeps over its crashes, and what the run knows of it.
pub struct Host {
    pub name: String,
    pub dir: PathBuf,
    pub initial: Vec<String>,
    pub weather: SharedWeather,
    /// The real time of the run, milliseconds since 1970, and what this host's clock is off by.
    pub wall: Arc<AtomicU64>,
    pub skew_ms: i64,
    pub complaints: Complaints,
    pub disk: RefCell<Arc<Disk>>,
    /// The node of the present life.
    pub node: RefCell<Weak<Node>>,
    /// Whether the process is there.
    pub up: Cell<bool>,
    /// Those who are to be in the site.
    pub services: Vec<String>,
    pub clients: Vec<String>,
    /// Whether this host makes the site, and has done so.
    pub founds: bool,
    pub prepared: Rc<Cell<bool>>,
}

impl Host {
    /// The node, if it has started.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.borrow().upgrade()
    }

    fn options(&self, disk: &Arc<Disk>) -> NodeOptions {
        let mut peers = PeerOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, PEER_PORT)));
        peers.advertise = Some(format!("{}:{PEER_PORT}", self.name));
        peers.initial = self.initial.iter().map(|name| format!("{name}:{PEER_PORT}")).collect();
        let (wall, skew_ms) = (self.wall.clone(), self.skew_ms);
        let net = HostNet { me: self.name.clone(), weather: self.weather.clone() };
        let (complaints, name, dying) =
            (self.complaints.clone(), self.name.clone(), Arc::downgrade(disk));
        let on_fatal = move |reason: &str| {
            // What a process says while it is killed is not heard.
            use ackord_replica::WriterTurns as _;
            if dying.upgrade().is_some_and(|disk| !disk.gone()) {
                complaints.lock().push(format!("{name} cannot go on: {reason}"));
            }
        };
        NodeOptions {
            partitions: PARTITIONS,
            limits: Limits { ack_timeout_ms_min: 100, ..Limits::default() },
            snapshot_log_bytes_min: 16 << 10,
            log_file_bytes: 256 << 10,
            log_purge_bytes: 1 << 20,
            disk_reserve_bytes: 1 << 20,
            peers: Some(peers),
            on_fatal: OnFatal::Call(Arc::new(on_fatal)),
            ground: Some(Ground {
                net: Arc::new(net),
                wall: Arc::new(move || wall.load(Ordering::Relaxed).saturating_add_signed(skew_ms)),
                turns: disk.clone(),
            }),
            ..NodeOptions::new(&self.dir)
        }
    }
}

/// The process of a node.
pub async fn run(host: Rc<Host>) -> turmoil::Result {
    let disk = Arc::new(Disk::default());
    host.disk.replace(disk.clone());
    let node = Arc::new(Node::start_here(host.options(&disk)).await?);
    host.node.replace(Arc::downgrade(&node));
    let options = BrokerOptions {
        keepalive_s_min: 1,
        hello_timeout: Duration::from_secs(2),
        trace_entries: 256,
        ..BrokerOptions::default()
    };
    let broker = Broker::new(node, options);
    {
        let broker = broker.clone();
        spawn_local(async move { broker.end_left_behind().await });
    }
    if host.founds && !host.prepared.get() {
        spawn_local(prepare(broker.clone(), host.clone()));
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, FRONT_PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_local(serve(broker.clone(), stream));
    }
}

/// One endpoint: who it is comes first, then its frames.
async fn serve(broker: Broker, stream: TcpStream) {
    let (mut read, mut write) = stream.into_split();
    let Ok(Message::Frame(name)) = frames::read(&mut read).await else { return };
    let Ok(name) = String::from_utf8(name.to_vec()) else { return };
    let (to, inbound) = mpsc::channel(MESSAGES_MAX);
    let (outbox, mut said) = outbox(MESSAGES_MAX);
    let inbound = futures_util::stream::unfold(inbound, |mut inbound: mpsc::Receiver<_>| async {
        inbound.recv().await.map(|item| (item, inbound))
    });
    let connection = |principal| Connection {
        site: SITE.into(),
        principal: Some(principal),
        token: None,
        expires_ms: None,
        codec: Codec::Json,
        outbox,
        transport: Transport::WebSocket,
        peer: name.as_str().into(),
    };
    if name.starts_with("service") {
        broker.open_service(connection(Principal::Service(name.as_str().into())), inbound);
    } else {
        broker.open_client(connection(Principal::Client(name.as_str().into())), inbound);
    }
    drop(broker);
    let reading = spawn_local(async move {
        loop {
            let item = match frames::read(&mut read).await {
                Ok(Message::Frame(frame)) => Inbound::Frame(frame),
                Ok(Message::Pong) => Inbound::Pong,
                Ok(Message::Ping) => continue,
                Ok(Message::Close) | Err(_) => Inbound::Closed,
            };
            let last = item == Inbound::Closed;
            if to.send(item).await.is_err() || last {
                return;
            }
        }
    });
    while let Some(said) = said.next().await {
        let (message, receipt) = match said {
            Outbound::Frame(frame) => (Message::Frame(frame), None),
            Outbound::Receipted(frame, receipt) => (Message::Frame(frame), Some(receipt)),
            Outbound::Ping => (Message::Ping, None),
            Outbound::Close { .. } => (Message::Close, None),
        };
        if frames::write(&mut write, &message).await.is_err() {
            break;
        }
        if let Some(receipt) = receipt {
            receipt.written();
        }
    }
    reading.abort();
}

fn structure() -> Structure {
    let kind = || Kind::Queueing { lifetime_s: 36_000, size: 1000, access: Access::Everyone };
    let event = |name: &&str| EventDefinition { name: (*name).into(), kind: kind() };
    Structure {
        service_type: "boiler".into(),
        contract_author: "Example".into(),
        guests: GuestSupport::GuestAndStateless,
        roles: Vec::new(),
        owner_role: None,
        events: EVENTS.iter().map(event).collect(),
    }
}

/// Makes the site and everybody in it.
async fn prepare(broker: Broker, host: Rc<Host>) {
    let settings = SiteSettings {
        multi_service: true,
        constructible: true,
        guests_allowed: true,
        stateless_guests_allowed: true,
    };
    let incarnation = Incarnation(7);
    let mut acts = vec![AdminAction::CreateSite { settings, incarnation }];
    acts.extend(
        host.services.iter().map(|id| AdminAction::CreateService { id: id.as_str().into() }),
    );
    let structure = structure();
    acts.push(AdminAction::ApplyStructure { structure, rebuild: false, incarnation });
    acts.extend(
        host.clients
            .iter()
            .map(|id| AdminAction::CreateClient { id: id.as_str().into(), user: None }),
    );
    for act in acts {
        loop {
            match broker.admin(&SiteName::from(SITE), act.clone()).await {
                Ok(_) | Err((Code::AlreadyExists, _)) => break,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
    host.prepared.set(true);
}
