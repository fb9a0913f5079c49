//! What goes wrong in a run and when, drawn from its seed.

use std::collections::BTreeMap;

use cluster_tests::seed::Seed;
use serde::{Deserialize, Serialize};

/// A kind of fault, for what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A node is cut off from its peers, and maybe from endpoints.
    Isolate,
    /// Two nodes do not reach each other.
    Cut,
    /// One does not reach the other, which reaches it.
    OneWay,
    /// What two nodes send each other is held and delivered later.
    Hold,
    /// A connection between two nodes is slow.
    Slow,
    /// A node is killed; what its log had not written is lost.
    Crash,
    /// The same, and nobody is told: its connections stay silent.
    PowerCut,
    /// All nodes are killed at the same moment.
    CrashAll,
    /// The log of a node is not written for a while.
    Stall,
    /// A service or client is killed.
    Endpoint,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Isolate,
        Self::Cut,
        Self::OneWay,
        Self::Hold,
        Self::Slow,
        Self::Crash,
        Self::PowerCut,
        Self::CrashAll,
        Self::Stall,
        Self::Endpoint,
    ];
}

/// A fault that is there, by index of host or endpoint. What a crash finds unwritten is that of so many
/// milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Isolate { node: usize, from_endpoints: bool },
    Cut { a: usize, b: usize },
    OneWay { from: usize, to: usize },
    Hold { a: usize, b: usize },
    Slow { a: usize, b: usize, ms: u64 },
    Crash { node: usize, unwritten_ms: u64 },
    PowerCut { node: usize, unwritten_ms: u64 },
    CrashAll { unwritten_ms: u64 },
    Stall { node: usize },
    Endpoint { index: usize },
}

impl Fault {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Isolate { .. } => Kind::Isolate,
            Self::Cut { .. } => Kind::Cut,
            Self::OneWay { .. } => Kind::OneWay,
            Self::Hold { .. } => Kind::Hold,
            Self::Slow { .. } => Kind::Slow,
            Self::Crash { .. } => Kind::Crash,
            Self::PowerCut { .. } => Kind::PowerCut,
            Self::CrashAll { .. } => Kind::CrashAll,
            Self::Stall { .. } => Kind::Stall,
            Self::Endpoint { .. } => Kind::Endpoint,
        }
    }

    /// The nodes that it is about.
    pub fn nodes(&self, all: usize) -> Vec<usize> {
        match self {
            Self::Isolate { node, .. }
            | Self::Crash { node, .. }
            | Self::PowerCut { node, .. }
            | Self::Stall { node } => vec![*node],
            Self::Cut { a, b } | Self::Hold { a, b } | Self::Slow { a, b, .. } => vec![*a, *b],
            Self::OneWay { from, to } => vec![*from, *to],
            Self::CrashAll { .. } => (0..all).collect(),
            Self::Endpoint { .. } => Vec::new(),
        }
    }
}

/// A fault and how long it lasts.
pub struct Drawn {
    pub fault: Fault,
    pub lasts_ms: u64,
}

/// Draws the next fault. `leader` is a node that leads something, which is a victim more often.
pub fn draw(seed: &mut Seed, nodes: usize, endpoints: usize, leader: Option<usize>) -> Drawn {
    let any = seed.between(0, nodes as u64) as usize;
    let node = if seed.between(0, 2) == 0 { leader.unwrap_or(any) } else { any };
    let other = (node + 1 + seed.between(0, nodes as u64 - 1) as usize) % nodes;
    // Longer than it takes to notice a silent connection.
    let noticed_ms = seed.between(1500, 5000);
    let short_ms = seed.between(20, 3000);
    let unwritten_ms = seed.between(1, 80);
    let (fault, lasts_ms) = match seed.between(0, 100) {
        0..16 => {
            let from_endpoints = seed.between(0, 2) == 0;
            (Fault::Isolate { node, from_endpoints }, noticed_ms)
        }
        16..26 => (Fault::Cut { a: node, b: other }, noticed_ms),
        26..40 if seed.between(0, 2) == 0 => (Fault::OneWay { from: node, to: other }, noticed_ms),
        26..40 => (Fault::OneWay { from: other, to: node }, noticed_ms),
        40..50 => (Fault::Hold { a: node, b: other }, short_ms.max(200)),
        50..58 => (Fault::Slow { a: node, b: other, ms: seed.between(20, 400) }, short_ms),
        58..72 => (Fault::Crash { node, unwritten_ms }, short_ms),
        72..82 => (Fault::PowerCut { node, unwritten_ms }, noticed_ms),
        82..88 => (Fault::CrashAll { unwritten_ms }, short_ms.min(500)),
        88..94 => (Fault::Stall { node }, short_ms.max(100)),
        _ => {
            let index = seed.between(0, endpoints as u64) as usize;
            (Fault::Endpoint { index }, short_ms)
        }
    };
    Drawn { fault, lasts_ms }
}

/// How often each kind really happened.
pub type Happened = BTreeMap<Kind, u64>;
