//! The lazy commit of a cursor: one under way at a time, always of the newest that is there.

use crate::site::InstanceId;

use super::super::Token;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) enum Commit {
    /// None is under way; the next may be proposed from this time on.
    From {
        /// The earliest.
        ms: u64,
    },
    /// Proposed.
    Under {
        /// What is committed.
        instance: InstanceId,
        /// What its outcome comes under.
        token: Token,
    },
}

impl Commit {
    /// None so far.
    pub(super) fn new() -> Self {
        Self::From { ms: 0 }
    }

    /// Whether one may be proposed now.
    pub(super) fn is_free(self, now_ms: u64) -> bool {
        matches!(self, Self::From { ms } if ms <= now_ms)
    }

    /// When one may be proposed; `None` while one is under way.
    pub(super) fn free_at(self) -> Option<u64> {
        match self {
            Self::From { ms } => Some(ms),
            Self::Under { .. } => None,
        }
    }

    /// What is being committed.
    pub(super) fn under_way(self) -> Option<InstanceId> {
        match self {
            Self::From { .. } => None,
            Self::Under { instance, .. } => Some(instance),
        }
    }

    /// One was proposed.
    pub(super) fn propose(&mut self, instance: InstanceId, token: Token) {
        *self = Self::Under { instance, token };
    }

    /// Whether the outcome with this token is awaited.
    pub(super) fn awaits(self, wanted: Token) -> bool {
        matches!(self, Self::Under { token, .. } if token == wanted)
    }

    /// The cursor stands here or higher: answers what was committed.
    pub(super) fn done(&mut self, cursor: InstanceId) -> Option<InstanceId> {
        let instance = self.under_way().filter(|instance| *instance <= cursor)?;
        self.forget();
        Some(instance)
    }

    /// It could not be proposed: not before this time.
    pub(super) fn delay(&mut self, until_ms: u64) {
        *self = Self::From { ms: until_ms };
    }

    /// It means nothing any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
    }
}
