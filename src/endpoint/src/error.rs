//! Why an endpoint could not start, and why an event was not raised.
//!
//! What happens to a running endpoint (lost connections, full disks) is no error of a call: it is
//! told through the notices.

use ackord_wire::Code;

/// Why an endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is missing or out of range.
    #[error("invalid option: {0}")]
    Invalid(String),
    /// The path cannot hold a store, or something else is there.
    #[error("{0}")]
    Store(String),
    /// Another process, or another endpoint of this one, uses the store.
    #[error("the store {0} is in use")]
    Locked(String),
    /// There is no tokio runtime to run on.
    #[error("no tokio runtime")]
    NoRuntime,
    /// The system refused something that the endpoint cannot do without.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Locked(_) | Self::System(_) => true,
            Self::Invalid(_) | Self::Store(_) | Self::NoRuntime => false,
        }
    }
}

/// Why an event was not raised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaiseError {
    /// The broker rejected it for good.
    #[error("{code}: {detail}")]
    Rejected {
        /// Why.
        code: Code,
        /// Why, for a person.
        detail: String,
    },
    /// The arguments exceed the limit.
    #[error("the arguments have {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Size of the arguments.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The event alone exceeds the capacity of the store.
    #[error("the event needs {bytes} bytes, the store has {capacity}")]
    ExceedsStore {
        /// What it needs.
        bytes: u64,
        /// The whole capacity.
        capacity: u64,
    },
    /// The store is full of events that are in flight: there was nothing to drop.
    #[error("the store is full of events in flight")]
    StoreFull,
    /// It was the oldest unsent event when the store overflowed.
    #[error("dropped: the store overflowed")]
    Dropped,
    /// A newer Replacing event of the same name took its place before it was sent.
    #[error("replaced by a newer event before it was sent")]
    Coalesced,
    /// The broker retired the store that held it.
    #[error("discarded with its retired store")]
    StoreSuperseded,
    /// The endpoint will not connect again.
    #[error("the endpoint stopped: {code}")]
    Stopped {
        /// Why.
        code: Code,
    },
    /// The endpoint is closed or closing.
    #[error("the endpoint is closed")]
    Closed,
}

impl RaiseError {
    /// Whether the same event may be raised again later with success.
    pub fn retryable(&self) -> bool {
        match self {
            Self::StoreFull | Self::Dropped => true,
            Self::Rejected { code, .. } | Self::Stopped { code } => code.retryable(),
            Self::TooLarge { .. }
            | Self::ExceedsStore { .. }
            | Self::Coalesced
            | Self::StoreSuperseded
            | Self::Closed => false,
        }
    }

    /// The public code that comes nearest.
    pub fn code(&self) -> Code {
        match self {
            Self::Rejected { code, .. } | Self::Stopped { code } => *code,
            Self::TooLarge { .. } | Self::ExceedsStore { .. } => Code::ArgumentsTooLarge,
            Self::StoreFull | Self::Dropped => Code::Busy,
            Self::Coalesced => Code::Conflict,
            Self::StoreSuperseded => Code::StoreSuperseded,
            Self::Closed => Code::Goodbye,
        }
    }
}
