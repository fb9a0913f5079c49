//! What is going to happen in a world, and when.
//!
//! Invariant: what is due at the same time happens in the order in which it was planned.

use ackord_machine::session::{Failed, Token};
use ackord_machine::site::Command;

use super::broker::LinkId;
use super::link::{Frame, Peer};

/// What is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    Arrive(LinkId, Box<Frame>),
    BrokerLearnsCut(LinkId),
    PeerLearnsCut(LinkId),
    Write {
        life: u64,
    },
    Synced {
        life: u64,
        length: usize,
    },
    BrokerTime {
        life: u64,
    },
    Wake {
        life: u64,
    },
    Failed {
        life: u64,
        link: LinkId,
        token: Token,
        failed: Failed,
    },
    /// A proposal comes out of a queue that nobody knew to hold it.
    Late(Box<Command>),
    /// The broker asks for a sign of life.
    Ping(LinkId),
    /// The peer gives it.
    Pong(LinkId),
    /// The partition is led again.
    Back,
    BrokerStarts,
    Connect(Peer),
    Time(Peer, u64),
    Raise(usize),
    Kept(usize, u64),
    Saved(usize, u64),
    Returned {
        client: usize,
        life: u64,
        lane: usize,
    },
    Starts(Peer),
    Fault,
}

pub(super) struct Due {
    pub(super) at: u64,
    pub(super) order: u64,
    pub(super) what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
