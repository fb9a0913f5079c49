//! How far a service and its clients have got, and how much it may be ahead of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Events that a service has in flight.
const IN_FLIGHT: u64 = 16;
/// Events that a service is ahead of its slowest client.
const AHEAD: u64 = 100;
/// Bytes of text in an event.
const TEXT: usize = 1200;

/// How far one service and its clients have got.
pub struct Progress {
    raised: AtomicU64,
    in_flight: AtomicU64,
    acknowledged: AtomicU64,
    handled: [AtomicU64; 2],
    longest_ms: AtomicU64,
    stopping: AtomicBool,
    ahead: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self::ahead(AHEAD)
    }
}

impl Progress {
    /// Of a service that may be so many events ahead of its slowest client.
    pub fn ahead(events: u64) -> Self {
        Self {
            raised: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            handled: Default::default(),
            longest_ms: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            ahead: events,
        }
    }

    /// Whether the next event may be raised.
    pub fn has_room(&self) -> bool {
        let raised = self.raised.load(Ordering::SeqCst);
        let slowest = self.handled.iter().map(|handled| handled.load(Ordering::SeqCst)).min();
        self.in_flight.load(Ordering::SeqCst) < IN_FLIGHT
            && raised - slowest.unwrap_or(0).min(raised) < self.ahead
    }

    /// What the next event says: something of its own, long enough for the log to grow.
    pub fn next(&self) -> Value {
        json!({ "n": self.next_number(), "text": "x".repeat(TEXT) })
    }

    /// The number of the next event.
    pub fn next_number(&self) -> u64 {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.raised.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The service has died: nobody will tell it what becomes of what it had in flight.
    pub fn forget_in_flight(&self) {
        self.in_flight.store(0, Ordering::SeqCst);
    }

    /// An event was acknowledged so long after it was raised.
    pub fn acknowledge(&self, after: Duration) {
        self.longest_ms.fetch_max(after.as_millis() as u64, Ordering::SeqCst);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// A client was handed an instance.
    pub fn handle(&self, client: usize) {
        self.handled[client].fetch_add(1, Ordering::SeqCst);
    }

    /// A client was handed the event that was the n-th, and those before it that it shall have.
    pub fn reach(&self, client: usize, n: u64) {
        self.handled[client].fetch_max(n, Ordering::SeqCst);
    }

    /// How many events were raised.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::SeqCst)
    }

    /// How many events are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The longest that an event waited for its acknowledgement since this was asked last.
    pub fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.longest_ms.swap(0, Ordering::SeqCst))
    }

    /// How many instances each client was handed.
    pub fn handled(&self) -> [u64; 2] {
        self.handled.each_ref().map(|handled| handled.load(Ordering::SeqCst))
    }

    /// Nothing more is to be raised.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether nothing more is to be raised.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// How long the service of each site waited at most.
pub struct Waits(pub(super) Vec<(String, Duration)>);

impl Waits {
    /// The longest of all.
    pub fn longest(&self) -> Duration {
        self.0.iter().map(|(_, waited)| *waited).max().unwrap_or_default()
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waits = self.0.iter().map(|(site, waited)| format!("{site} {} ms", waited.as_millis()));
        f.write_str(&waits.collect::<Vec<_>>().join(", "))
    }
}
