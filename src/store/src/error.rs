//! What can go wrong, in two types: at open, and afterwards.
//!
//! Damage is data, not text: it lists what is wrong and what would be lost, so that a command
//! can show it and a test can assert on it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::types::{GroupId, Identity, Mark};

/// Why a running store refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The bounded queue of the writer is full; nothing was taken.
    #[error("the log writer is busy")]
    Busy,
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
    /// A write or a sync failed earlier: nothing is durable any more and the process must stop.
    #[error("the store failed: {0}")]
    Fatal(Arc<str>),
    /// The range asked for begins before what the log still holds.
    #[error("entries up to {purged} of group {group} are purged")]
    Purged {
        /// The group.
        group: GroupId,
        /// The last purged entry.
        purged: Mark,
    },
    /// The range asked for goes beyond the end of the log.
    #[error("group {group} has no entry {index}")]
    NoSuchEntry {
        /// The group.
        group: GroupId,
        /// The first missing index.
        index: u64,
    },
    /// The request contradicts the log or exceeds a named limit; nothing was taken.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Something on disk did not verify. It was not used.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The disk has no room for this. Nothing was changed.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// The operating system refused.
    #[error("{what}: {reason}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same request may succeed later, on this same open store.
    pub fn retryable(&self) -> bool {
        match self {
            StoreError::Busy | StoreError::NoSpace(_) => true,
            StoreError::Closed
            | StoreError::Fatal(_)
            | StoreError::Purged { .. }
            | StoreError::NoSuchEntry { .. }
            | StoreError::Invalid(_)
            | StoreError::Damaged(_)
            | StoreError::Io { .. } => false,
        }
    }

    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let what = what.into();
        if error.kind() == std::io::ErrorKind::StorageFull
            || error.kind() == std::io::ErrorKind::QuotaExceeded
        {
            return StoreError::NoSpace(what);
        }
        StoreError::Io { what, reason: error.to_string() }
    }
}

/// One thing found wrong, and what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file or directory it concerns, relative to the data directory.
    pub place: String,
    /// What is wrong with it.
    pub finding: String,
    /// The group it concerns, when it concerns one.
    pub group: Option<GroupId>,
    /// What was durable once, as far as the high-water file knows.
    pub expected: Option<Mark>,
    /// What is still there.
    pub found: Option<Mark>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.finding)?;
        if let Some(group) = self.group {
            write!(f, ", group {group}")?;
        }
        if let Some(expected) = self.expected {
            write!(f, ", durable up to {expected}")?;
            match self.found {
                Some(found) => write!(f, ", found up to {found}")?,
                None => write!(f, ", found nothing")?,
            }
        }
        Ok(())
    }
}

/// Why a data directory was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{dir} is in use by another process", dir = .0.display())]
    Locked(PathBuf),
    /// Something durable is missing or does not verify. The files are kept as they are.
    #[error("the data directory is damaged: {}", list(.findings))]
    Damaged {
        /// Everything found, in the order of discovery.
        findings: Vec<Damage>,
    },
    /// Written by a version this one does not know.
    #[error("the data directory has format version {found}, this program knows {known}")]
    Version {
        /// The version on disk.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// The directory belongs to somebody else.
    #[error("the data directory belongs to {found:?}, not to {expected:?}")]
    Foreign {
        /// The identity on disk.
        found: Identity,
        /// The identity asked for.
        expected: Identity,
    },
    /// The options contradict each other.
    #[error("invalid option: {0}")]
    Options(String),
    /// The operating system refused.
    #[error("{what}: {reason}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        reason: String,
    },
}

impl OpenError {
    /// Whether opening may succeed later without a person doing anything.
    pub fn retryable(&self) -> bool {
        match self {
            OpenError::Locked(_) => true,
            OpenError::Damaged { .. }
            | OpenError::Version { .. }
            | OpenError::Foreign { .. }
            | OpenError::Options(_)
            | OpenError::Io { .. } => false,
        }
    }

    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        OpenError::Io { what: what.into(), reason: error.to_string() }
    }

    pub(crate) fn damaged(place: impl Into<String>, finding: impl Into<String>) -> Self {
        OpenError::Damaged { findings: vec![Damage::at(place, finding)] }
    }
}

impl Damage {
    pub(crate) fn at(place: impl Into<String>, finding: impl Into<String>) -> Self {
        Damage {
            place: place.into(),
            finding: finding.into(),
            group: None,
            expected: None,
            found: None,
        }
    }
}

fn list(findings: &[Damage]) -> String {
    let texts: Vec<String> = findings.iter().map(Damage::to_string).collect();
    texts.join("; ")
}
