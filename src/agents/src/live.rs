//! The sessions that are open now, over all nodes: what each does, and where.
//!
//! None of it is in the log. Every node knows its own, so all are asked, and who did not answer in
//! time is said: what is missing from an answer of all nodes is not there, what is missing from an
//! answer of some may be.

use std::collections::BTreeMap;

use ackord_machine::site::{EventKey, Mode, SiteName};
use ackord_wire::Codec;
use serde::{Deserialize, Serialize};

use crate::asked::{Answered, Question};
use crate::broker::Broker;
use crate::connection::Transport;

/// Sessions in one answer at most.
pub const LIVE_SESSIONS_MAX: usize = 1000;
/// Sessions in one answer at most when their subscriptions are asked for too: each may have a
/// thousand.
pub const LIVE_DETAILED_MAX: usize = 16;

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LiveKind {
    /// A registered client's.
    Client,
    /// A service's.
    Service,
    /// A guest's without account.
    Stateless,
}

/// Where a session stands in the order of all sessions of a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LiveKey {
    /// Whose it is.
    pub kind: LiveKind,
    /// The client or service; empty when stateless.
    pub id: String,
    /// The node that has it.
    pub node: u64,
    /// Its number on that node, drawn at random.
    pub session: u64,
}

/// Which nodes are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of the cluster.
    Cluster,
    /// Only this one.
    Node,
}

/// Which sessions are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveQuery {
    /// Only those of this kind.
    pub kind: Option<LiveKind>,
    /// Only those of this client or service.
    pub id: Option<String>,
    /// Whether each subscription is told as well; then at most [`LIVE_DETAILED_MAX`] are answered.
    pub lanes: bool,
    /// Only those behind this one.
    pub after: Option<LiveKey>,
    /// So many at most, up to [`LIVE_SESSIONS_MAX`].
    pub limit: usize,
}

impl LiveQuery {
    /// The sessions of one client or service, with their subscriptions.
    pub fn of(kind: LiveKind, id: &str) -> Self {
        let (kind, id) = (Some(kind), Some(id.to_owned()));
        Self { kind, id, lanes: true, after: None, limit: LIVE_DETAILED_MAX }
    }

    /// How many are answered at most.
    pub(crate) fn most(&self) -> usize {
        self.limit.min(if self.lanes { LIVE_DETAILED_MAX } else { LIVE_SESSIONS_MAX })
    }
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LiveState {
    /// Not yet welcomed, or the client's set is awaited.
    Opening,
    /// It exchanges events.
    Open,
    /// A service whose structure does not fit: it exchanges no events.
    Parked,
    /// Over, its last words are on their way.
    Closing,
}

/// What one subscription of a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LiveLaneState {
    /// Nothing to deliver.
    Idle,
    /// The client may not receive the event now.
    Unauthorized,
    /// Sent, not acknowledged.
    InFlight,
    /// Returned by the client, to be sent again.
    BackingOff,
    /// Acknowledged, its cursor not yet committed.
    Committing,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveLane {
    /// Its event.
    pub event: EventKey,
    /// What it does.
    pub state: LiveLaneState,
    /// The instance that is in flight or being committed.
    pub instance: Option<u64>,
    /// How often that was sent in this session; 0 where nothing is in flight.
    pub attempt: u32,
    /// When it was sent first, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// How it delivers.
    pub mode: Mode,
    /// Instances that were sent and are not acknowledged, or not taken by the transport.
    pub in_flight: u32,
    /// The last instance that was sent or is delivered: what is above it waits.
    pub reached: u64,
    /// What it has done; `None` of an ordered one that a node of an earlier version serves.
    pub counts: Option<LiveCounts>,
}

/// What a subscription's deliveries came to in one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveCounts {
    /// Acknowledged, or taken by the transport.
    pub delivered: u64,
    /// Returned by the client, or given up.
    pub failed: u64,
    /// Not sent for want of room.
    pub dropped: u64,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    /// Whose it is and where.
    pub key: LiveKey,
    /// When it began, milliseconds since 1970.
    pub since_ms: u64,
    /// How it is connected.
    pub transport: Transport,
    /// Whether frames are CBOR; else they are JSON.
    pub cbor: bool,
    /// The peer's address, as the front has it.
    pub peer: String,
    /// How far it is.
    pub state: LiveState,
    /// Its epoch; 0 before it is attached, and of a stateless client.
    pub epoch: u64,
    /// Whether its peer does not read: the session waits until it does.
    pub stalled: bool,
    /// Its subscriptions.
    pub subscriptions: u32,
    /// Of a client, subscriptions with an instance in flight; of a service, raises not yet answered.
    pub in_flight: u32,
    /// Its subscriptions by number, if asked for.
    pub lanes: Vec<LiveLane>,
}

impl LiveSession {
    /// The encoding of its frames.
    pub fn codec(&self) -> Codec {
        if self.cbor { Codec::Cbor } else { Codec::Json }
    }
}

/// Open sessions, see the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// In their order.
    pub sessions: Vec<LiveSession>,
    /// Whether there are more behind the last.
    pub more: bool,
    /// Nodes that did not tell all of theirs, and why.
    pub not_reached: BTreeMap<u64, NotReached>,
}

impl Live {
    /// The newest session of one client or service that is not over: the one that counts.
    pub fn newest(&self) -> Option<&LiveSession> {
        let lasts = |session: &&LiveSession| session.state != LiveState::Closing;
        let sessions = self.sessions.iter().filter(lasts);
        sessions.max_by_key(|session| (session.epoch, session.since_ms))
    }
}

/// Why a node's part is missing from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NotReached {
    /// There is no connection to it.
    Unreachable,
    /// It, or a part of it, did not answer in time.
    Late,
    /// Its release does not know the question.
    Unsupported,
    /// It was asked too much at once, or failed to answer.
    Busy,
}

/// One part's answer: a thread's, or a node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LivePart {
    pub sessions: Vec<LiveSession>,
    pub more: bool,
    /// Whether every thread of the node has answered.
    pub late: bool,
}

impl LivePart {
    /// Two answers as one.
    pub fn join(&mut self, other: Self) {
        self.sessions.extend(other.sessions);
        self.more |= other.more;
        self.late |= other.late;
    }

    /// Brings the sessions into their order and keeps the first of them.
    pub fn settle(&mut self, most: usize) {
        self.sessions.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.more |= self.sessions.len() > most;
        self.sessions.truncate(most);
    }
}

impl Broker {
    /// The sessions of a site that are open now.
    pub async fn live(&self, site: &SiteName, query: LiveQuery, reach: Reach) -> Live {
        let most = query.most();
        let (answers, mut not_reached) = self.ask(Question::Live(site.clone(), query), reach).await;
        let mut whole = LivePart::default();
        for (node, answer) in answers {
            match answer {
                Answered::Live(part) => {
                    if part.late {
                        not_reached.insert(node, NotReached::Late);
                    }
                    whole.join(part);
                }
                Answered::Trace(_) | Answered::Cluster(_) => {
                    not_reached.insert(node, NotReached::Unsupported);
                }
            }
        }
        whole.settle(most);
        Live { sessions: whole.sessions, more: whole.more, not_reached }
    }
}
