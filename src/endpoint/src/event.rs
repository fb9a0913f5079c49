//! What an application hands over and gets: events to raise, deliveries to handle.

use std::time::Duration;

use ackord_wire::frame::{self, Mode, Position, Start};
use ackord_wire::limits::{TWOWAY_WINDOW_DEFAULT, TWOWAY_WINDOW_MAX};
use ackord_wire::structure::Category;
use ackord_wire::{Payload, TraceContext};

/// An event to raise.
///
/// ```
/// use ackord_endpoint::{Event, Payload};
/// let reading = Event::queueing("reading", Payload::json(r#"{"celsius":71}"#));
/// let gone = Event::null("state");
/// # let _ = (reading, gone);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's name.
    pub name: String,
    /// The category; absent is what the structure of the service says, else the broker's.
    /// Only events known to be Replacing are coalesced while they wait.
    pub category: Option<Category>,
    /// The arguments; absent is a null-event.
    pub payload: Option<Payload>,
    /// The addressee of a private event.
    pub client: Option<String>,
    /// A lifetime shorter than the definition's, seconds.
    pub lifetime_s: Option<u32>,
    /// The trace that it is raised in; its receivers get it.
    pub trace: Option<TraceContext>,
}

impl Event {
    /// An event of whatever category its name has. `None` is a null-event.
    pub fn new(name: impl Into<String>, payload: Option<Payload>) -> Self {
        let (name, category, client) = (name.into(), None, None);
        Self { name, category, payload, client, lifetime_s: None, trace: None }
    }

    /// A Replacing event.
    pub fn replacing(name: impl Into<String>, payload: Payload) -> Self {
        Self { category: Some(Category::Replacing), ..Self::new(name, Some(payload)) }
    }

    /// A Replacing event without arguments: what it said before is no longer relevant.
    pub fn null(name: impl Into<String>) -> Self {
        Self { category: Some(Category::Replacing), ..Self::new(name, None) }
    }

    /// A Queueing event.
    pub fn queueing(name: impl Into<String>, payload: Payload) -> Self {
        Self { category: Some(Category::Queueing), ..Self::new(name, Some(payload)) }
    }

    /// A Private event for one registered client.
    pub fn private(name: impl Into<String>, client: impl Into<String>, payload: Payload) -> Self {
        Self {
            category: Some(Category::Private),
            client: Some(client.into()),
            ..Self::new(name, Some(payload))
        }
    }

    /// Lives for fewer seconds than its definition says.
    pub fn lifetime_s(mut self, seconds: u32) -> Self {
        self.lifetime_s = Some(seconds);
        self
    }

    /// Raised in this trace.
    pub fn trace(mut self, context: TraceContext) -> Self {
        self.trace = Some(context);
        self
    }

    /// Raised in the trace of a `traceparent`; one that is none is left out.
    ///
    /// ```
    /// use ackord_endpoint::{Event, Payload};
    /// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let event = Event::queueing("reading", Payload::json("71")).traceparent(text);
    /// assert!(event.trace.is_some_and(|trace| trace.is_sampled()));
    /// ```
    pub fn traceparent(mut self, text: &str) -> Self {
        self.trace = TraceContext::parse(text, None);
        self
    }
}

/// What became of a raised event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The id of its instance; absent when the broker no longer remembers it.
    pub instance_id: Option<u64>,
    /// It had been decided before: an acknowledgement was lost, the event was not.
    pub duplicate: bool,
    /// A null after a null: acknowledged, nobody is told.
    pub ignored: bool,
}

/// A subscription as a client asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscription {
    /// The event's name.
    pub event: String,
    /// The category the application believes; another one is refused.
    pub category: Option<Category>,
    /// Where it starts when it is new.
    pub start: Start,
    /// Time until an unacknowledged instance is sent again, milliseconds.
    pub ack_timeout_ms: Option<u32>,
    /// Attempts before an instance is skipped; absent is forever.
    pub max_attempts: Option<u32>,
    /// What counts as delivered, and how many instances are under way.
    pub mode: Mode,
    /// Of [`Mode::Twoway`]: instances under way; absent is 5.
    pub window: Option<u32>,
    /// Of [`Mode::Batch`]: milliseconds from the first event that waits to the frame with all that wait;
    /// absent is 1000.
    pub flush_ms: Option<u32>,
    /// Of [`Mode::Ordered`] and [`Mode::Twoway`], with `max_attempts`: what is given up is kept as a dead
    /// letter.
    pub dead_letter: bool,
    /// Of [`Mode::Twoway`]: handlers of this subscription that run at once, at most as many as
    /// instances are under way; absent is one, so that they run in the order in which events come.
    pub handlers: Option<u32>,
}

impl Subscription {
    /// A subscription to an event, from the earliest retained instance on.
    pub fn new(event: impl Into<String>) -> Self {
        Self { event: event.into(), ..Self::default() }
    }

    /// Starts after the newest instance when it is new.
    pub fn latest(mut self) -> Self {
        self.start = Start::Latest;
        self
    }

    /// Refused unless the event has this category.
    pub fn category(mut self, category: Category) -> Self {
        self.category = Some(category);
        self
    }

    /// Time until an unacknowledged instance is sent again.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout_ms = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Attempts before an instance is skipped.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Keeps what is given up after the last attempt as a dead letter, to be looked at and raised again.
    pub fn dead_letter(mut self) -> Self {
        self.dead_letter = true;
        self
    }

    /// What counts as delivered. Unless [`Self::handlers`] says otherwise the handler is called for one
    /// instance after the other; in the modes without acknowledgement one that fails does not come
    /// again.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Several instances under way, acknowledged in any order.
    pub fn twoway(mut self, window: u32) -> Self {
        self.window = Some(window);
        self.mode(Mode::Twoway)
    }

    /// In the mode twoway, so many handlers at once: in no particular order, each instance once.
    pub fn handlers(mut self, handlers: u32) -> Self {
        self.handlers = Some(handlers);
        self
    }

    /// Handlers that may run at once; 1 at least.
    pub(crate) fn handlers_at_once(&self) -> usize {
        let window = self.window.unwrap_or(TWOWAY_WINDOW_DEFAULT).min(TWOWAY_WINDOW_MAX);
        match self.mode {
            Mode::Twoway => self.handlers.unwrap_or(1).clamp(1, window.max(1)) as usize,
            Mode::Ordered | Mode::Oneway | Mode::Batch | Mode::Datagram => 1,
        }
    }

    /// Many instances in one frame, so long after the first of them at the latest.
    pub fn batch(mut self, flush: Duration) -> Self {
        self.flush_ms = Some(u32::try_from(flush.as_millis()).unwrap_or(u32::MAX));
        self.mode(Mode::Batch)
    }

    /// The same in a frame.
    pub fn to_wire(&self, resume: Option<Position>) -> frame::Subscription {
        frame::Subscription {
            event: self.event.clone(),
            category: self.category,
            start: self.start,
            ack_timeout_ms: self.ack_timeout_ms,
            max_attempts: self.max_attempts,
            resume,
            mode: self.mode,
            window: self.window,
            flush_ms: self.flush_ms,
            dead_letter: self.dead_letter,
        }
    }
}

/// One instance for a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event's name.
    pub event: String,
    /// Its category.
    pub category: Category,
    /// Who raised it.
    pub service: String,
    /// The id: strictly increasing within the site's incarnation.
    pub instance_id: u64,
    /// The life of the site that the id belongs to.
    pub incarnation: u64,
    /// How often the subscription had been sought by an administrator.
    pub generation: u32,
    /// When it was committed, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whole seconds since then; 0 when pushed at once.
    pub age: u64,
    /// Above 1 is a redelivery.
    pub attempt: u32,
    /// The arguments; absent is a null-event.
    pub payload: Option<Payload>,
    /// The instance that it was at first, if it was raised again from a dead letter.
    pub original_id: Option<u64>,
    /// The trace that it was raised in.
    pub trace: Option<TraceContext>,
}

impl Delivery {
    /// What a `ClientPersistence` stores once this is handled.
    pub fn position(&self) -> Position {
        Position {
            incarnation: self.incarnation,
            generation: self.generation,
            instance_id: self.instance_id,
        }
    }
}

/// What a client does after a handler succeeded. `()` is [`Flow::Continue`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Goes on.
    #[default]
    Continue,
    /// Acknowledges this one and calls no handler any more: the endpoint stays connected until it
    /// is closed, so that the acknowledgement gets through. With a concurrency of 1 nothing is
    /// handled beyond this.
    Stop,
}

impl From<()> for Flow {
    fn from((): ()) -> Self {
        Self::Continue
    }
}

/// A handler's failure: the instance goes back to the broker and comes again.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct HandlerError {
    /// When to try again; absent is a backoff that grows with the failures in a row.
    pub retry_after: Option<Duration>,
    /// Why, for notices and logs.
    pub detail: String,
}

impl HandlerError {
    /// Failed for this reason.
    pub fn new(detail: impl std::fmt::Display) -> Self {
        Self { retry_after: None, detail: detail.to_string() }
    }

    /// Comes again after this time.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}
