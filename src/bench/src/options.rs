//! The sizes of a workload.

use std::time::Duration;

use ackord_endpoint::Mode;

use crate::error::Error;
use crate::ground::Fault;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Publishers raise as fast as their windows allow.
    Publish,
    /// Subscriptions take a backlog, in order with one unacknowledged event each, or in another mode.
    Deliver,
    /// One publisher at a fixed rate, many connected subscribers.
    Fanout,
    /// Idle connected clients, then one event to all of them.
    Idle,
    /// The leader of a site fails again and again while publishers raise.
    Failover,
    /// A site raises more than its rates allow, at every node, and another one beside it.
    Quota,
    /// Tokens are revoked while their sessions are open at every node.
    Revocation,
    /// Publishers beside healthy subscribers, and beside such that break and stall, in turn.
    Mixed,
    /// One subscription in each delivery mode, over each transport.
    Modes,
    /// Publishers and subscriptions beside so many idle ones, and beside twice as many, in turn.
    Growth,
}

impl Workload {
    /// The workload as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Deliver => "deliver",
            Self::Fanout => "fanout",
            Self::Idle => "idle",
            Self::Failover => "failover",
            Self::Quota => "quota",
            Self::Revocation => "revocation",
            Self::Mixed => "mixed",
            Self::Modes => "modes",
            Self::Growth => "growth",
        }
    }
}

/// The sizes; each workload uses those it needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Publishers, each a service of its own.
    pub publishers: u32,
    /// Events that each publisher has unacknowledged.
    pub window: u32,
    /// Bytes of arguments per event.
    pub size: u32,
    /// How long is measured.
    pub time: Duration,
    /// How long load flows before it is measured (publish, fanout, deliver).
    pub warm_up: Duration,
    /// Whether what was acknowledged and delivered is checked.
    pub verify: bool,
    /// Subscriptions over all subscribers.
    pub subscriptions: u32,
    /// Events that wait for each subscription.
    pub backlog: u32,
    /// The mode of the subscriptions (deliver).
    pub mode: Mode,
    /// Connected clients.
    pub subscribers: u32,
    /// Agents without sockets, for [`crate::agents`].
    pub agents: u32,
    /// Sites that the accounts are spread over.
    pub sites: u32,
    /// Events per second of each publisher, whatever becomes of those before; 0 is as fast as its
    /// window allows (publish, fanout, failover). What a site may raise per second (quota).
    pub rate: u32,
    /// Percent of what the publishers can that they raise for the whole time, beside all
    /// subscribers; 0 compares companies of subscribers instead (mixed).
    pub load: u32,
    /// How often the leader fails (failover), tokens are revoked (revocation), or all is measured
    /// in turn (mixed, growth).
    pub rounds: u32,
    /// What happens to it (failover).
    pub fault: Fault,
}

/// Bytes of arguments that name the event: publisher and number.
pub const SIZE_MIN: u32 = 16;
/// Most events of a structure, and so most subscriptions of a client.
pub(crate) const EVENTS_MAX: u32 = 100;

impl Options {
    /// Subscriptions of each client, rounded up.
    pub fn per_subscriber(&self) -> u32 {
        self.subscriptions.div_ceil(self.subscribers.max(1))
    }

    pub(crate) fn judge(&self, workload: Workload) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::Options(why.to_owned()));
        if self.sites == 0 || self.window == 0 || self.publishers == 0 || self.subscribers == 0 {
            return wrong("sites, window, publishers and subscribers must be at least 1");
        }
        if self.size < SIZE_MIN {
            return wrong("size must be at least 16: an event names its publisher and number");
        }
        match workload {
            Workload::Publish if self.sites > self.publishers => {
                wrong("there are more sites than publishers")
            }
            Workload::Deliver if self.subscriptions < self.subscribers => {
                wrong("there are more subscribers than subscriptions")
            }
            Workload::Deliver if self.per_subscriber() > EVENTS_MAX => {
                wrong("a client has at most 100 subscriptions: more subscribers are needed")
            }
            Workload::Deliver | Workload::Idle | Workload::Fanout
                if self.sites > self.subscribers =>
            {
                wrong("there are more sites than subscribers")
            }
            Workload::Fanout if self.rate == 0 => wrong("rate must be at least 1"),
            Workload::Mixed | Workload::Growth if self.rounds == 0 => {
                wrong("rounds must be at least 1")
            }
            Workload::Quota if self.rate == 0 => wrong("rate must be at least 1: it is the quota"),
            Workload::Publish
            | Workload::Deliver
            | Workload::Fanout
            | Workload::Idle
            | Workload::Failover
            | Workload::Quota
            | Workload::Revocation
            | Workload::Mixed
            | Workload::Modes
            | Workload::Growth => Ok(()),
        }
    }
}
