//! Service persistence: what a store of raised events is asked to keep, and the levels built in.
//!
//! The publish machine decides; a [`ServicePersistence`] keeps. It sees batches of [`StoreOp`]s,
//! each batch atomic: after a crash all of it is there or nothing. A batch with a number in it is
//! durable before the event with that number is sent, so a number is never given twice.
//!
//! Levels: SPL-1 is the machine alone. SPL-2 is [`FileStore`], or a store of the application.
//!
//! # A store in the application's own database
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use ackord_endpoint::spl::{
//!     PersistenceError, ServicePersistence, StoreOp, StoreUid, Stored, StoredEvent, Sync,
//! };
//!
//! /// Stands for a database; what matters is that `apply` is one transaction.
//! #[derive(Default)]
//! struct Tables {
//!     uid: Option<StoreUid>,
//!     last_number: u64,
//!     events: Vec<StoredEvent>,
//! }
//!
//! #[derive(Clone, Default)]
//! struct Database(Arc<Mutex<Tables>>);
//!
//! impl ServicePersistence for Database {
//!     fn load(&mut self) -> Result<Stored, PersistenceError> {
//!         let tables = self.0.lock().map_err(|_| PersistenceError::other("poisoned"))?;
//!         Ok(Stored {
//!             uid: tables.uid,
//!             last_number: tables.last_number,
//!             events: tables.events.clone(),
//!             findings: Vec::new(),
//!         })
//!     }
//!
//!     fn apply(&mut self, batch: &[StoreOp], _sync: Sync) -> Result<(), PersistenceError> {
//!         let mut tables = self.0.lock().map_err(|_| PersistenceError::other("poisoned"))?;
//!         for op in batch {
//!             match op {
//!                 StoreOp::Begin { uid } => {
//!                     tables.uid = Some(*uid);
//!                     tables.last_number = 0;
//!                     tables.events.iter_mut().for_each(|event| event.seq = None);
//!                 }
//!                 StoreOp::Put(event) => {
//!                     tables.last_number = tables.last_number.max(event.seq.unwrap_or(0));
//!                     tables.events.push(event.clone());
//!                 }
//!                 StoreOp::Number { ticket, seq } => {
//!                     tables.last_number = tables.last_number.max(*seq);
//!                     let mut events = tables.events.iter_mut();
//!                     if let Some(event) = events.find(|event| event.ticket == *ticket) {
//!                         event.seq = Some(*seq);
//!                     }
//!                 }
//!                 StoreOp::Remove { ticket } => {
//!                     tables.events.retain(|event| event.ticket != *ticket);
//!                 }
//!             }
//!         }
//!         Ok(()) // committed, and durable unless `_sync` says that it need not be
//!     }
//! }
//! # let mut database = Database::default();
//! # let uid: StoreUid = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
//! # database.apply(&[StoreOp::Begin { uid }], Sync::Now).unwrap();
//! # assert_eq!(database.load().unwrap().uid, Some(uid));
//! ```

pub(crate) mod file;
pub(crate) mod record;
#[cfg(test)]
mod store_tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use file::FileStore;

use crate::event::Event;

/// What an event costs in a store beyond its name, type, addressee and arguments, bytes. At least
/// what the file format adds to an event over its life in the file.
pub const EVENT_OVERHEAD_BYTES: u64 = 96;

/// The identity of an event store, random at its creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreUid(pub [u8; 16]);

impl fmt::Display for StoreUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUid({self})")
    }
}

/// A text that is no store uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store uid has 32 hex digits")]
pub struct BadStoreUid;

impl FromStr for StoreUid {
    type Err = BadStoreUid;

    fn from_str(text: &str) -> Result<Self, BadStoreUid> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        value.map(|value| Self(value.to_be_bytes())).ok_or(BadStoreUid)
    }
}

/// One event in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The order in which events were raised; unique in the store, never used again while it is
    /// in there.
    pub ticket: u64,
    /// The number under which it was sent; absent while it is unsent.
    pub seq: Option<u64>,
    /// The event.
    pub event: Arc<Event>,
}

/// One change of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// The store has this uid from now on; the last number is 0, and no event in it has one.
    Begin {
        /// The new uid.
        uid: StoreUid,
    },
    /// A new event. If it has a number, that is the last number now.
    Put(StoredEvent),
    /// An event in the store got its number, which is the last number now.
    Number {
        /// The event.
        ticket: u64,
        /// The number.
        seq: u64,
    },
    /// An event is gone: acknowledged, coalesced or dropped. The last number stays.
    Remove {
        /// The event.
        ticket: u64,
    },
}

/// Whether a batch must be durable when [`ServicePersistence::apply`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// It must.
    Now,
    /// It may be lost, from the first such batch on: it only removes what the broker has decided.
    Later,
}

/// What a store held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Its uid; absent for a new store.
    pub uid: Option<StoreUid>,
    /// The highest number ever given under this uid, also when its event is gone.
    pub last_number: u64,
    /// The events, in any order.
    pub events: Vec<StoredEvent>,
    /// What the application should be told.
    pub findings: Vec<Finding>,
}

/// What opening a store found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The end was no whole record and is cut off.
    Cut {
        /// How many bytes.
        bytes: u64,
    },
    /// Something before the end does not verify. It is left out, all else is kept.
    Damaged {
        /// How many bytes.
        bytes: u64,
        /// Where the data as it was is kept.
        detail: String,
    },
    /// The data cannot be read and is set aside; the store is a fresh one.
    Unreadable {
        /// What was wrong and where the old data is.
        detail: String,
    },
}

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub enum PersistenceError {
    /// Another process or endpoint uses it.
    #[error("{0} is in use")]
    Locked(String),
    /// The path cannot hold a store: the application's mistake, not the disk's.
    #[error("{0}")]
    Misplaced(String),
    /// The disk failed or is full.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl PersistenceError {
    /// A failure of an application's store.
    pub fn other(detail: impl fmt::Display) -> Self {
        Self::Other(detail.to_string())
    }

    /// Whether opening may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Io(_) => true,
            Self::Misplaced(_) | Self::Other(_) => false,
        }
    }
}

/// Keeps raised events until they are acknowledged. See the [module](self) for an example.
///
/// The endpoint calls it from a blocking thread, one call at a time. After the first error it is
/// not called again: the endpoint goes on in memory and tells the application.
pub trait ServicePersistence: Send {
    /// What is in the store. Called once, first.
    fn load(&mut self) -> Result<Stored, PersistenceError>;

    /// Applies a batch in its order, all of it or nothing.
    fn apply(&mut self, batch: &[StoreOp], sync: Sync) -> Result<(), PersistenceError>;
}

/// The numbers of a trace context, and the length of what vendors add.
const TRACE_BYTES: usize = 16 + 8 + 1 + 4;

/// What an event counts against a store's capacity.
pub fn event_bytes(event: &Event) -> u64 {
    let payload = event.payload.as_ref().map_or(0, |p| p.content_type.len() + p.data.len());
    let client = event.client.as_ref().map_or(0, String::len);
    let trace = event.trace.as_ref().map_or(0, |trace| TRACE_BYTES + trace.state.len());
    EVENT_OVERHEAD_BYTES + (event.name.len() + payload + client + trace) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_survives_its_text() {
        let uid = StoreUid(*b"0123456789abcdef");
        assert_eq!(uid.to_string().parse(), Ok(uid));
        for bad in ["", "0", "+0112233445566778899aabbccddeeff", "zz112233445566778899aabbccddeeff"]
        {
            assert_eq!(bad.parse::<StoreUid>(), Err(BadStoreUid), "{bad}");
        }
    }
}
