//! What happened in a test, in the order in which the harness saw it: every call and its outcome,
//! every handler call, every confirmed cursor, every crash of an endpoint's process.
//!
//! Invariants: entries are only appended; an outcome is recorded after its call, so that an entry
//! which precedes another really may have caused it. The history judges nothing:
//! [`crate::oracle`] does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ackord_wire::Code;

use crate::wait;

/// One raise call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call(pub u64);

/// Who handles: a subscriber by name and the life of its process, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber {
    /// Its name: the client's id, or a name of the test for a stateless one.
    pub name: String,
    /// How often its process had been started before.
    pub life: u32,
}

/// One handled instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// The event.
    pub event: String,
    /// The instance.
    pub instance_id: u64,
    /// The life of the site.
    pub incarnation: u64,
    /// The generation of the subscription.
    pub generation: u32,
    /// Who raised it.
    pub service: String,
    /// Seconds since it was raised, as delivered.
    pub age: u64,
    /// The attempt, as delivered.
    pub attempt: u32,
    /// The arguments as JSON text; `None` is a null-event.
    pub args: Option<String>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An event was handed to the service endpoint.
    Raised {
        /// The call.
        call: Call,
        /// The raising service.
        service: String,
        /// The event.
        event: String,
        /// The arguments as JSON text; `None` is a null-event.
        args: Option<String>,
    },
    /// The broker acknowledged a call.
    Acknowledged {
        /// The call.
        call: Call,
        /// The instance, if the broker still knew it.
        instance_id: Option<u64>,
        /// A null after a null.
        ignored: bool,
        /// It had been decided before.
        duplicate: bool,
    },
    /// The broker rejected a call for good, or the endpoint gave it up.
    Rejected {
        /// The call.
        call: Call,
        /// Why.
        code: Code,
    },
    /// A handler was called.
    HandlerStarted {
        /// Whose.
        by: Subscriber,
        /// With what.
        handled: Handled,
    },
    /// A handler returned.
    HandlerEnded {
        /// Whose.
        by: Subscriber,
        /// The event.
        event: String,
        /// The instance.
        instance_id: u64,
        /// Whether it had handled it.
        success: bool,
    },
    /// The broker confirmed a cursor.
    Committed {
        /// To whom.
        by: Subscriber,
        /// The event.
        event: String,
        /// The instance.
        instance_id: u64,
    },
    /// A subscriber's process was killed.
    Killed {
        /// Whose.
        by: Subscriber,
    },
    /// An administrator changes whether a client may have an event.
    Authority {
        /// The client.
        client: String,
        /// The event.
        event: String,
        /// Whether it may.
        granted: bool,
        /// Whether it is known to hold; before, it may hold or not.
        known: bool,
    },
    /// Something that an administrator does.
    Administration(Administration),
    /// A session of a subscriber was opened: it is newer than those of its earlier lives.
    Opened {
        /// Whose.
        by: Subscriber,
    },
    /// How much of something was found, and how much there may be.
    Measured {
        /// Of what.
        what: String,
        /// How much.
        found: u64,
        /// At most.
        bound: u64,
    },
    /// A replica has taken the hash of its state.
    Hashed {
        /// Which one, and how it came by its state.
        replica: String,
        /// Of what.
        group: usize,
        /// After which entry.
        index: u64,
        /// What it is.
        hash: String,
    },
}

/// Something that an administrator does, or is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Administration {
    /// A change is asked for.
    Asked {
        /// Which one.
        act: Call,
        /// What is changed.
        what: String,
        /// Into what; `None` when it is removed.
        value: Option<String>,
    },
    /// The answer to a change. One without an answer that counts is of unknown outcome.
    Answered {
        /// Which one.
        act: Call,
        /// Whether it was done; otherwise it was refused.
        done: bool,
    },
    /// Something is asked for.
    Looked {
        /// Which time.
        act: Call,
        /// For what.
        what: String,
    },
    /// The answer.
    Shown {
        /// Which time.
        act: Call,
        /// What it is; `None` when it is not there.
        value: Option<String>,
    },
}

/// A history that grows; cheap to clone, all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl History {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what happened.
    pub fn record(&self, entry: Entry) {
        self.lock().push(entry);
    }

    /// Records a raise and gives its call.
    pub fn raised(&self, service: &str, event: &str, args: Option<&str>) -> Call {
        let mut entries = self.lock();
        let call = Call(entries.len() as u64);
        entries.push(Entry::Raised {
            call,
            service: service.to_owned(),
            event: event.to_owned(),
            args: args.map(str::to_owned),
        });
        call
    }

    /// Records what an administrator begins and gives its number.
    pub fn administers(&self, begin: impl FnOnce(Call) -> Administration) -> Call {
        let mut entries = self.lock();
        let act = Call(entries.len() as u64);
        entries.push(Entry::Administration(begin(act)));
        act
    }

    /// All that happened so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// What handlers of `name` were called with, over all its lives.
    pub fn handled(&self, name: &str) -> Vec<Handled> {
        let pick = |entry: &Entry| match entry {
            Entry::HandlerStarted { by, handled } if by.name == name => Some(handled.clone()),
            Entry::Raised { .. }
            | Entry::Acknowledged { .. }
            | Entry::Rejected { .. }
            | Entry::HandlerStarted { .. }
            | Entry::HandlerEnded { .. }
            | Entry::Committed { .. }
            | Entry::Killed { .. }
            | Entry::Authority { .. }
            | Entry::Administration(_)
            | Entry::Opened { .. }
            | Entry::Measured { .. }
            | Entry::Hashed { .. } => None,
        };
        self.lock().iter().filter_map(pick).collect()
    }

    /// The highest cursor that the broker confirmed to `name` for an event; 0 before the first.
    pub fn committed(&self, name: &str, event: &str) -> u64 {
        let pick = |entry: &Entry| match entry {
            Entry::Committed { by, event: of, instance_id } if by.name == name && of == event => {
                Some(*instance_id)
            }
            Entry::Raised { .. }
            | Entry::Acknowledged { .. }
            | Entry::Rejected { .. }
            | Entry::HandlerStarted { .. }
            | Entry::HandlerEnded { .. }
            | Entry::Committed { .. }
            | Entry::Killed { .. }
            | Entry::Authority { .. }
            | Entry::Administration(_)
            | Entry::Opened { .. }
            | Entry::Measured { .. }
            | Entry::Hashed { .. } => None,
        };
        self.lock().iter().filter_map(pick).max().unwrap_or(0)
    }

    /// How often handlers of `name` were called, over all its lives.
    pub fn count_handled(&self, name: &str) -> usize {
        let is_so =
            |entry: &&Entry| matches!(entry, Entry::HandlerStarted { by, .. } if by.name == name);
        self.lock().iter().filter(is_so).count()
    }

    /// Waits until handlers of `name` were called `count` times.
    ///
    /// # Panics
    /// When none was called for [`wait::PATIENCE`].
    pub async fn until_handled(&self, name: &str, count: usize) -> Vec<Handled> {
        let mut so_far = self.count_handled(name);
        while so_far < count {
            let what = format!("{name} to handle {count} instances, {so_far} so far");
            so_far = wait::until(&what, async || {
                let now = self.count_handled(name);
                (now > so_far).then_some(now)
            })
            .await;
        }
        self.handled(name)
    }
}
