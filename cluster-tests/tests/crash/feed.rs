//! Where the service's events come from and what is known about them.
//!
//! Invariants: a number is fed once; at most [`AHEAD`] events are fed and not acknowledged, so
//! that a kill hits the service at work and not a full pipe, and [`UNHANDLED`] fed and not handled,
//! so that it hits the broker while it stores and delivers; every line that a life writes belongs
//! to the next event that this life was fed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cluster_tests::cli::{Lines, OnLine};
use cluster_tests::history::{Call, Entry, Handled, History};
use serde_json::{Value, json};

/// Events that are fed ahead of the acknowledgements.
const AHEAD: u64 = 200;
/// Events that are fed ahead of the handler.
const UNHANDLED: u64 = 300;

#[derive(Default)]
struct State {
    fed: u64,
    acknowledged: u64,
    life: u32,
    waiting: VecDeque<Call>,
    handled: BTreeSet<u64>,
    all: Option<BTreeSet<u64>>,
}

/// The source of a service's events.
pub struct Feed {
    history: History,
    enough: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Feed {
    /// Feeds until `enough` events are acknowledged.
    pub fn new(history: History, enough: u64) -> Arc<Self> {
        Arc::new(Self { history, enough, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a life of the service: its standard input, and what its lines mean.
    pub fn life(self: &Arc<Self>) -> (Lines, OnLine) {
        let mut state = self.lock();
        state.waiting.clear();
        let life = state.life;
        drop(state);
        let (source, sink) = (self.clone(), self.clone());
        let lines = std::iter::from_fn(move || source.next(life));
        (Box::new(lines), Box::new(move |line| sink.outcome(line)))
    }

    /// The service is about to be killed: what it was fed and not acknowledged stays unknown.
    pub fn end_of_life(&self) {
        self.lock().life += 1;
        self.changed.notify_all();
    }

    fn next(&self, life: u32) -> Option<String> {
        let ahead = |state: &mut State| {
            let goes_on = state.life == life && state.acknowledged < self.enough;
            let (fed, handled) = (state.waiting.len() as u64, state.handled.len() as u64);
            let unhandled = (state.acknowledged + fed).saturating_sub(handled);
            goes_on && (fed >= AHEAD || unhandled >= UNHANDLED)
        };
        let state = self.changed.wait_while(self.lock(), ahead);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.life != life || state.acknowledged >= self.enough {
            return None;
        }
        state.fed += 1;
        let line = json!({ "n": state.fed, "text": "x".repeat(60) }).to_string();
        state.waiting.push_back(self.history.raised("boiler", "reading", Some(&line)));
        Some(line)
    }

    fn outcome(&self, line: &Value) {
        let mut state = self.lock();
        let call = state.waiting.pop_front().expect("a line for each event and no more");
        let instance_id = line["instance_id"].as_u64();
        assert!(instance_id.is_some(), "an event was not accepted: {line}");
        let duplicate = line["duplicate"] == true;
        self.history.record(Entry::Acknowledged { call, instance_id, ignored: false, duplicate });
        state.acknowledged += 1;
        self.changed.notify_all();
    }

    /// How many events are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    /// The client has handled an instance.
    pub fn handled(&self, instance_id: u64) {
        self.lock().handled.insert(instance_id);
        self.changed.notify_all();
    }

    /// How many instances the client has handled.
    pub fn handled_so_far(&self) -> u64 {
        self.lock().handled.len() as u64
    }

    /// Nothing is raised any more: these are all instances.
    pub fn complete_with(&self, all: BTreeSet<u64>) {
        self.lock().all = Some(all);
    }

    /// Whether the client has handled all instances.
    pub fn is_complete(&self) -> bool {
        let state = self.lock();
        state.all.as_ref().is_some_and(|all| all.is_subset(&state.handled))
    }
}

/// The number that an event was fed as.
pub fn number(handled: &Handled) -> Option<u64> {
    let args: Value = serde_json::from_str(handled.args.as_deref()?).ok()?;
    args["n"].as_u64()
}
