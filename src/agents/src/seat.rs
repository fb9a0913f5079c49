//! A session as others on its arbiter may look at it, without a word to its actor: one that waits
//! for a peer that does not read would not answer.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ackord_machine::site::ServiceId;
use ackord_wire::Codec;

use crate::agent::Serve;
use crate::connection::Transport;
use crate::hub::{SessionId, Who};
use crate::live::{LiveKey, LiveKind, LiveSession, LiveState};

/// Milliseconds since 1970; earlier counts as 1970.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A session machine with what is known of its connection. The actor and those who look share it;
/// nobody keeps it borrowed.
pub(crate) struct Seat<S> {
    pub session: RefCell<S>,
    pub facts: Facts,
}

/// What does not change while a session lasts, but for what is a cell.
pub(crate) struct Facts {
    pub node: u64,
    pub id: SessionId,
    pub who: Who,
    /// By the wall clock.
    pub since_ms: u64,
    pub transport: Transport,
    pub codec: Codec,
    pub peer: Box<str>,
    /// Whether the session waits for room in its outbox.
    pub stalled: Cell<bool>,
}

impl Facts {
    /// Whose it is.
    pub fn kind(&self) -> LiveKind {
        match &self.who {
            Who::Client(_) => LiveKind::Client,
            Who::Service(_) => LiveKind::Service,
            Who::Stateless => LiveKind::Stateless,
        }
    }

    /// The client or service; empty when stateless.
    pub fn name(&self) -> &str {
        match &self.who {
            Who::Client(client) => client.as_str(),
            Who::Service(service) => ServiceId::as_str(service),
            Who::Stateless => "",
        }
    }
}

/// Moments of the clock of the deadlines, by the wall clock. One moment has one answer until
/// somebody sets the wall clock.
pub(crate) struct Wall {
    /// When the other clock was at 0.
    origin_ms: AtomicU64,
}

/// The wall clock was set when it is so many milliseconds from where it should be.
const SET_MS: u64 = 50;

impl Wall {
    /// The other clock is at 0 now.
    pub fn begin() -> Self {
        Self { origin_ms: AtomicU64::new(wall_ms()) }
    }

    /// The clocks, now that the other one says `now_ms`.
    pub fn clocks(&self, now_ms: u64) -> Clocks {
        let wall_ms = wall_ms();
        let origin_ms = self.origin_ms.load(Ordering::Relaxed);
        if wall_ms.abs_diff(origin_ms + now_ms) <= SET_MS {
            return Clocks { origin_ms };
        }
        let origin_ms = wall_ms.saturating_sub(now_ms);
        self.origin_ms.store(origin_ms, Ordering::Relaxed);
        Clocks { origin_ms }
    }
}

/// See [`Wall`].
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    origin_ms: u64,
}

impl Clocks {
    /// A moment of the clock of the deadlines, by the wall clock.
    pub fn wall(self, ms: u64) -> u64 {
        self.origin_ms + ms
    }
}

/// A session that can be looked at.
pub(crate) trait Look {
    fn facts(&self) -> &Facts;
    fn look(&self, clocks: Clocks, lanes: bool) -> LiveSession;
}

impl<S: Serve> Look for Seat<S> {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn look(&self, clocks: Clocks, lanes: bool) -> LiveSession {
        let facts = &self.facts;
        let mut session = LiveSession {
            key: LiveKey {
                kind: facts.kind(),
                id: facts.name().to_owned(),
                node: facts.node,
                session: facts.id,
            },
            since_ms: facts.since_ms,
            transport: facts.transport,
            cbor: facts.codec == Codec::Cbor,
            peer: facts.peer.to_string(),
            state: LiveState::Opening,
            epoch: 0,
            stalled: facts.stalled.get(),
            subscriptions: 0,
            in_flight: 0,
            lanes: Vec::new(),
        };
        self.session.borrow().tell(clocks, lanes, &mut session);
        session
    }
}
