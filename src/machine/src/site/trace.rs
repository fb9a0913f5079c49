//! The trace context that an event was raised with: which trace its raiser was in, and where.
//!
//! It goes with the instance to whoever receives it, and decides nothing: it is no part of what a raise
//! is compared by, so one that comes again in another trace is the same event.
//!
//! Invariant: a command's context that is not sound is left out, and its event stays.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::{Command, NewEvent, Raise, RaiseAfter, RaiseKeyed};
use super::ids::{InstanceId, SiteName};
use super::row::Instance;

/// The longest text of the vendors' own, bytes.
pub const TRACE_STATE_BYTES_MAX: usize = 512;

/// W3C Trace Context, version 00.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that raised the event.
    pub parent_id: [u8; 8],
    /// The flags; the lowest says that the trace is recorded.
    pub flags: u8,
    /// What vendors add; empty for nothing.
    pub state: String,
}

impl TraceContext {
    /// Whether it is one that may be kept.
    pub fn is_sound(&self) -> bool {
        let printable = |byte: u8| (b' '..=b'~').contains(&byte);
        self.trace_id != [0; 16]
            && self.parent_id != [0; 8]
            && self.state.len() <= TRACE_STATE_BYTES_MAX
            && self.state.bytes().all(printable)
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// A raise in any of its forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Raising {
    /// [`Command::Raise`].
    Session(Raise),
    /// [`Command::RaiseKeyed`].
    Keyed(RaiseKeyed),
    /// [`Command::RaiseAfter`].
    After(RaiseAfter),
}

impl Raising {
    /// What is raised.
    pub fn event(&self) -> &NewEvent {
        match self {
            Self::Session(raise) => &raise.event,
            Self::Keyed(raise) | Self::After(RaiseAfter { raise, .. }) => &raise.event,
        }
    }

    fn event_mut(&mut self) -> &mut NewEvent {
        match self {
            Self::Session(raise) => &mut raise.event,
            Self::Keyed(raise) | Self::After(RaiseAfter { raise, .. }) => &mut raise.event,
        }
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        match self {
            Self::Session(raise) => &raise.site,
            Self::Keyed(raise) | Self::After(RaiseAfter { raise, .. }) => &raise.site,
        }
    }

    /// The command without its context.
    fn untraced(self) -> Command {
        match self {
            Self::Session(raise) => Command::Raise(raise),
            Self::Keyed(raise) => Command::RaiseKeyed(raise),
            Self::After(raise) => Command::RaiseAfter(raise),
        }
    }
}

/// See [`Command::Traced`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// The raise.
    pub raise: Raising,
    /// The context of its event.
    pub trace: TraceContext,
}

/// The command of a raise: with the context of its event, if that has one.
impl From<Raising> for Command {
    fn from(mut raise: Raising) -> Self {
        match raise.event_mut().trace.take() {
            None => raise.untraced(),
            Some(trace) => Self::Traced(Box::new(Traced { raise, trace: *trace })),
        }
    }
}

impl Command {
    /// The event of a session's raise.
    pub fn raised(&self) -> Option<&NewEvent> {
        if let Self::Traced(traced) = self {
            return Some(traced.raise.event());
        }
        if let Self::Raise(raise) = self { Some(&raise.event) } else { None }
    }

    /// The same without the context that an older release does not know.
    #[must_use]
    pub fn untraced(self) -> Self {
        if let Self::Traced(traced) = self { traced.raise.untraced() } else { self }
    }
}

/// An instance that was raised with a context.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TracedRow {
    /// The instance, without the context and without what it was raised as first.
    pub instance: Arc<Instance>,
    /// What it was raised as first, if it was raised again.
    pub original: Option<InstanceId>,
    /// The context.
    pub trace: TraceContext,
}

/// The instance beside the context may have it as well, as that of a state does.
impl PartialEq for TracedRow {
    fn eq(&self, other: &Self) -> bool {
        self.whole() == other.whole()
    }
}

impl TracedRow {
    /// The instance as the state has it.
    pub fn whole(&self) -> Arc<Instance> {
        let has = self.instance.trace.as_deref();
        if has == Some(&self.trace) && self.instance.original == self.original {
            return self.instance.clone();
        }
        let instance = Instance::clone(&self.instance);
        let trace = Some(Box::new(self.trace.clone()));
        Arc::new(Instance { original: self.original, trace, ..instance })
    }
}
