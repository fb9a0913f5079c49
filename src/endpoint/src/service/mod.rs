//! The service endpoint: raises events and sees each to its outcome.
//!
//! `raise` takes a lock, hands the event to the publish machine and returns; one task per endpoint
//! carries out what the machine says. Nothing is spawned per event.

mod task;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ackord_wire::limits::WINDOW_MAX;
use ackord_wire::structure::Structure;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::error::{Error, RaiseError};
use crate::event::{Event, Outcome};
use crate::level::{SPL1_BYTES_MIN, SPL2_BYTES_MIN, ServiceLevel};
use crate::notice::ServiceNotice;
use crate::options::{Connect, connect_methods};
use crate::publish::{Publish, PublishOptions, Waits};
use crate::spl::{self, PersistenceError, ServicePersistence, Stored};

/// How long [`ServiceEndpoint::close`] sends what is left.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(10);

type NoticeFn = Box<dyn Fn(ServiceNotice) + Send + Sync>;
type Answer = Result<Outcome, RaiseError>;

/// Options of a [`ServiceEndpoint`].
#[derive(Default)]
pub struct ServiceBuilder {
    connect: Connect,
    level: Option<ServiceLevel>,
    publish: PublishOptions,
    notice: Option<NoticeFn>,
}

impl ServiceBuilder {
    connect_methods!();

    /// The service's token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.connect.token = Some(token.into());
        self
    }

    /// What the service declares; without it the service takes the site as it is.
    pub fn structure(mut self, structure: Structure) -> Self {
        self.publish.structure = Some(structure);
        self
    }

    /// As [`Self::structure`], from JSON text.
    pub fn structure_json(self, text: &str) -> Result<Self, Error> {
        let structure = serde_json::from_str(text)
            .map_err(|error| Error::Invalid(format!("structure: {error}")))?;
        Ok(self.structure(structure))
    }

    /// Where events wait. Without it the endpoint does not start: the default level is SPL-2 and
    /// needs a path, see [`Self::store`].
    pub fn persistence(mut self, level: ServiceLevel) -> Self {
        self.level = Some(level);
        self
    }

    /// SPL-2 in this file, with the default capacity.
    pub fn store(self, path: impl Into<std::path::PathBuf>) -> Self {
        self.persistence(ServiceLevel::file(path))
    }

    /// Events in flight at once: 1..=1024, default 64; the broker may grant fewer.
    pub fn window(mut self, events: u32) -> Self {
        self.publish.window = events;
        self
    }

    /// Time until an unanswered event is sent again; 30 s by default.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.publish.ack_timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX / 2);
        self
    }

    /// The service's own version, shown to clients. At most 64 bytes.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.publish.service_version = version.into();
        self
    }

    /// Called with every notice, on the endpoint's task: return quickly.
    pub fn on_notice(mut self, notice: impl Fn(ServiceNotice) + Send + Sync + 'static) -> Self {
        self.notice = Some(Box::new(notice));
        self
    }

    /// Opens the store and starts connecting; does not wait for a connection.
    pub async fn start(self) -> Result<ServiceEndpoint, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let mut options = self.publish;
        if !(1..=WINDOW_MAX).contains(&options.window) {
            return Err(Error::Invalid(format!("window: 1 to {WINDOW_MAX} are allowed")));
        }
        if options.service_version.len() > 64 {
            return Err(Error::Invalid("service version: at most 64 bytes".to_owned()));
        }
        if options.ack_timeout_ms == 0 {
            return Err(Error::Invalid("acknowledgement timeout: zero".to_owned()));
        }
        let Some(level) = self.level else {
            let help =
                "name a file with store(path), or choose persistence(ServiceLevel::memory())";
            return Err(Error::Invalid(format!(
                "the default level keeps events in a file: {help}"
            )));
        };
        options.keepalive_s = self.connect.keepalive_s()?;
        options.hostname = self.connect.hostname();
        options.codec = self.connect.codec;
        let link = self.connect.link("service")?;
        let (capacity, least, store) = opened_level(level);
        if capacity < least {
            return Err(Error::Invalid(format!("capacity: at least {least} bytes")));
        }
        options.capacity_bytes = capacity;
        let (store, stored, failure) = load(store).await?;
        let codec = options.codec;
        let mut machine = Publish::new(options, store.is_some(), stored, self.connect.entropy()?);
        if let Some(reason) = failure {
            machine.note(ServiceNotice::FellBack { reason });
        }
        let (done, closed) = watch::channel(None);
        let core = Core { machine, waiters: HashMap::new(), close_at: None };
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            wake: Notify::new(),
            room: Notify::new(),
            start: Instant::now(),
        });
        let task = task::Task::new(Arc::clone(&shared), link, store, self.notice, codec, done);
        runtime.spawn(task.run());
        let turn = tokio::sync::Mutex::new(());
        Ok(ServiceEndpoint { inner: Arc::new(Inner { shared, turn, closed }) })
    }
}

fn opened_level(level: ServiceLevel) -> (u64, u64, Option<Box<dyn ServicePersistence>>) {
    match level {
        ServiceLevel::Memory { bytes } => (bytes, SPL1_BYTES_MIN, None),
        ServiceLevel::File { path, bytes } => {
            (bytes, SPL2_BYTES_MIN, Some(Box::new(spl::FileStore::new(path, bytes))))
        }
        ServiceLevel::Custom { store, bytes } => (bytes, SPL1_BYTES_MIN, Some(store)),
    }
}

type Loaded = (Option<Box<dyn ServicePersistence>>, Stored, Option<String>);

/// Opens the store off the runtime. What is wrong with the disk makes the endpoint start in
/// memory; what is wrong with the option makes it not start.
async fn load(store: Option<Box<dyn ServicePersistence>>) -> Result<Loaded, Error> {
    let Some(mut store) = store else { return Ok((None, Stored::default(), None)) };
    let loading = tokio::task::spawn_blocking(move || (store.load(), store));
    let (result, store) = loading.await.map_err(|error| Error::System(error.to_string()))?;
    match result {
        Ok(stored) => Ok((Some(store), stored, None)),
        Err(PersistenceError::Locked(path)) => Err(Error::Locked(path)),
        Err(PersistenceError::Misplaced(detail)) => Err(Error::Store(detail)),
        Err(error @ (PersistenceError::Io(_) | PersistenceError::Other(_))) => {
            Ok((None, Stored::default(), Some(error.to_string())))
        }
    }
}

/// What callers and the task share.
struct Shared {
    core: Mutex<Core>,
    /// The machine has outputs, or the end is near.
    wake: Notify,
    /// Room became free, or none ever will.
    room: Notify,
    start: Instant,
}

struct Core {
    machine: Publish,
    waiters: HashMap<u64, oneshot::Sender<Answer>>,
    /// When the endpoint gives up sending what is left; absent while it is open.
    close_at: Option<Instant>,
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        // A panic while the lock was held came from outside the machine's decisions.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn begin_close(&self, limit: Duration) {
        let mut core = self.core();
        core.machine.begin_close();
        let at = Instant::now() + limit;
        core.close_at = Some(core.close_at.map_or(at, |earlier| earlier.min(at)));
        drop(core);
        self.wake.notify_one();
        self.room.notify_one();
    }
}

struct Inner {
    shared: Arc<Shared>,
    /// Calls that wait for room do so one after the other, in their order.
    turn: tokio::sync::Mutex<()>,
    closed: watch::Receiver<Option<u64>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.begin_close(Duration::ZERO);
    }
}

/// A service: cheap to clone, all clones are one endpoint.
///
/// Dropping the last clone ends the endpoint without sending what is left; at SPL-2 it is in the
/// store. [`Self::close`] sends it first.
///
/// ```no_run
/// use ackord_endpoint::{Event, Payload, ServiceEndpoint, ServiceNotice};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let service = ServiceEndpoint::builder()
///     .url("https://broker.example:7400")
///     .site("boilers")
///     .token("ak_1_secret")
///     .structure_json(r#"{
///         "service_type": "boiler", "contract_author": "Example",
///         "events": [{"name": "reading", "category": "queueing", "lifetime_s": 86400, "size": 1000}]
///     }"#)?
///     .store("/var/lib/boiler/events")
///     .on_notice(|notice| match notice {
///         ServiceNotice::Dropped { event } => eprintln!("no room: lost a {event}"),
///         other => println!("{other:?}"),
///     })
///     .start()
///     .await?;
/// service.raise(Event::queueing("reading", Payload::json(r#"{"celsius":71}"#)))?;
/// let outcome = service.raise_wait(Event::new("reading", Some(Payload::json("72")))).await?;
/// println!("stored as {:?}", outcome.instance_id);
/// service.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceEndpoint {
    inner: Arc<Inner>,
}

impl ServiceEndpoint {
    /// Options.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::default()
    }

    /// Hands an event over and never waits. When the store is full the oldest unsent event is
    /// dropped and the application told.
    pub fn raise(&self, event: Event) -> Result<(), RaiseError> {
        let shared = &self.inner.shared;
        let now_ms = shared.now_ms();
        let mut core = shared.core();
        core.machine.raise(now_ms, event, Waits::No)?;
        let wakes = core.machine.has_output();
        drop(core);
        if wakes {
            shared.wake.notify_one();
        }
        Ok(())
    }

    /// Waits for room in the store and hands the event over; the outcome comes later. The order
    /// of calls is the order of events. Dropped while it waits for room, nothing was raised.
    pub async fn enqueue(&self, event: Event) -> Result<Raised, RaiseError> {
        let shared = &self.inner.shared;
        let mut event = event;
        let _turn = self.inner.turn.lock().await;
        loop {
            {
                let now_ms = shared.now_ms();
                let mut core = shared.core();
                match core.machine.raise_if_room(now_ms, event, Waits::ForOutcome)? {
                    Ok(ticket) => {
                        let (sender, answer) = oneshot::channel();
                        core.waiters.insert(ticket, sender);
                        drop(core);
                        shared.wake.notify_one();
                        return Ok(Raised(answer));
                    }
                    Err(returned) => event = returned,
                }
            }
            shared.room.notified().await;
        }
    }

    /// Waits for room in the store, then for the event's outcome: [`Self::enqueue`] and its
    /// answer. Dropped while it waits for the outcome, the event stays raised.
    pub async fn raise_wait(&self, event: Event) -> Result<Outcome, RaiseError> {
        self.enqueue(event).await?.await
    }

    /// Events that are raised and not acknowledged.
    pub fn pending(&self) -> u64 {
        self.inner.shared.core().machine.pending()
    }

    /// Sends what is left, for [`CLOSE_LIMIT`] at most; returns how many events were not
    /// acknowledged. At SPL-2 those are in the store.
    pub async fn close(self) -> u64 {
        self.close_within(CLOSE_LIMIT).await
    }

    /// As [`Self::close`] with another limit.
    pub async fn close_within(self, limit: Duration) -> u64 {
        let mut closed = self.inner.closed.clone();
        self.inner.shared.begin_close(limit);
        // An error says that the task is gone with its runtime: what it held is what is left.
        let left = closed.wait_for(Option::is_some).await.ok().and_then(|left| *left);
        left.unwrap_or_else(|| self.pending())
    }
}

/// An event that was handed over: a future of its outcome.
pub struct Raised(oneshot::Receiver<Answer>);

impl Future for Raised {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        // Without an answer the task ended together with its runtime.
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(RaiseError::Closed)))
    }
}
