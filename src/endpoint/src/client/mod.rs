//! The client endpoint: calls a handler once per instance, in order, and acknowledges.
//!
//! Handlers of different subscriptions run at once, each on a task of its own; those of one
//! subscription only where it asks for that.

mod task;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cpl::{self, ClientPersistence, Positions};
use crate::error::Error;
use crate::event::{Delivery, Flow, HandlerError, Subscription};
use crate::level::ClientLevel;
use crate::notice::ClientNotice;
use crate::options::{Connect, connect_methods};
use crate::spl::PersistenceError;
use crate::subscribe::{Account, SetRule, Subscribe, SubscribeOptions};

/// How long [`ClientEndpoint::close`] waits for running handlers.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(30);

type NoticeFn = Box<dyn Fn(ClientNotice) + Send + Sync>;
type Handled = Result<Flow, HandlerError>;
type Handler = Arc<dyn Fn(Delivery) -> Pin<Box<dyn Future<Output = Handled> + Send>> + Send + Sync>;

/// Options of a [`ClientEndpoint`].
pub struct ClientBuilder {
    connect: Connect,
    level: ClientLevel,
    set: SetRule,
    subscribe: SubscribeOptions,
    handlers: Vec<Handler>,
    notice: Option<NoticeFn>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            connect: Connect::default(),
            level: ClientLevel::Memory,
            set: SetRule::Exact,
            subscribe: SubscribeOptions::default(),
            handlers: Vec::new(),
            notice: None,
        }
    }
}

impl ClientBuilder {
    connect_methods!();

    /// The client's token; `None`, the default, is a stateless guest.
    pub fn token(mut self, token: Option<String>) -> Self {
        self.connect.token = token;
        self
    }

    /// Where positions are kept; in memory by default.
    pub fn persistence(mut self, level: ClientLevel) -> Self {
        self.level = level;
        self
    }

    /// True, the default: the client's subscriptions become exactly these. False: these are added.
    pub fn exact(mut self, exact: bool) -> Self {
        self.set = if exact { SetRule::Exact } else { SetRule::Add };
        self
    }

    /// Adds a subscription and its handler. A handler that blocks its thread holds up others.
    pub fn subscribe<F, Fut, R>(mut self, subscription: Subscription, handler: F) -> Self
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
        R: Into<Flow>,
    {
        let handler = Arc::new(handler);
        self.handlers.push(Arc::new(move |delivery| {
            let handler = Arc::clone(&handler);
            // Called inside, so that a panic of the call itself is the handler's failure too.
            Box::pin(async move { handler(delivery).await.map(Into::into) })
        }));
        self.subscribe.subscriptions.push(subscription);
        self
    }

    /// Handlers that run at once, over all subscriptions; of one subscription as many as it says.
    /// Default 1024.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.subscribe.concurrency = handlers;
        self
    }

    /// The first delay before a failed instance comes again, doubled per failure up to a minute;
    /// 1 s by default.
    pub fn handler_backoff(mut self, delay: Duration) -> Self {
        self.subscribe.handler_backoff_ms = u64::try_from(delay.as_millis()).unwrap_or(60_000);
        self
    }

    /// Called with every notice, on the endpoint's task: return quickly.
    pub fn on_notice(mut self, notice: impl Fn(ClientNotice) + Send + Sync + 'static) -> Self {
        self.notice = Some(Box::new(notice));
        self
    }

    /// Opens the store and starts connecting; does not wait for a connection.
    pub async fn start(self) -> Result<ClientEndpoint, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let mut options = self.subscribe;
        let mut names = BTreeSet::new();
        for subscription in &options.subscriptions {
            if !names.insert(subscription.event.clone()) {
                let event = &subscription.event;
                return Err(Error::Invalid(format!("two subscriptions of {event}")));
            }
        }
        if options.concurrency == 0 {
            return Err(Error::Invalid("concurrency: at least 1".to_owned()));
        }
        options.account = match (&self.connect.token, &self.connect.token_source) {
            (None, None) => Account::Stateless,
            (_, _) => Account::Stateful { set: self.set },
        };
        options.keepalive_s = self.connect.keepalive_s()?;
        options.hostname = self.connect.hostname();
        let link = self.connect.link("client")?;
        let store: Option<Box<dyn ClientPersistence>> = match self.level {
            ClientLevel::Memory => None,
            ClientLevel::File { path } => Some(Box::new(cpl::FileStore::new(path))),
            ClientLevel::Custom(store) => Some(store),
        };
        let (store, positions, failure) = load(store).await?;
        let entropy = self.connect.entropy()?;
        let mut machine = Subscribe::new(options, store.is_some(), positions, entropy);
        if let Some(reason) = failure {
            machine.note(ClientNotice::FellBack { reason });
        }
        let (done, closed) = watch::channel(false);
        let core = Core { machine, close_at: None };
        let start = Instant::now();
        let shared = Arc::new(Shared { core: Mutex::new(core), wake: Notify::new(), start });
        let codec = self.connect.codec;
        let task = task::Task::new(
            Arc::clone(&shared),
            link,
            store,
            self.handlers,
            self.notice,
            codec,
            done,
        );
        runtime.spawn(task.run());
        Ok(ClientEndpoint { inner: Arc::new(Inner { shared, closed }) })
    }
}

type Loaded = (Option<Box<dyn ClientPersistence>>, Positions, Option<String>);

/// Opens the store off the runtime. What is wrong with the disk makes the endpoint start in
/// memory; what is wrong with the option makes it not start.
async fn load(store: Option<Box<dyn ClientPersistence>>) -> Result<Loaded, Error> {
    let Some(mut store) = store else { return Ok((None, Positions::default(), None)) };
    let loading = tokio::task::spawn_blocking(move || (store.load(), store));
    let (result, store) = loading.await.map_err(|error| Error::System(error.to_string()))?;
    match result {
        Ok(positions) => Ok((Some(store), positions, None)),
        Err(PersistenceError::Locked(path)) => Err(Error::Locked(path)),
        Err(PersistenceError::Misplaced(detail)) => Err(Error::Store(detail)),
        Err(error @ (PersistenceError::Io(_) | PersistenceError::Other(_))) => {
            Ok((None, Positions::default(), Some(error.to_string())))
        }
    }
}

struct Shared {
    core: Mutex<Core>,
    wake: Notify,
    start: Instant,
}

struct Core {
    machine: Subscribe,
    /// When the endpoint gives up waiting for handlers; absent while it is open.
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
    }
}

struct Inner {
    shared: Arc<Shared>,
    closed: watch::Receiver<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.begin_close(CLOSE_LIMIT);
    }
}

/// A client: cheap to clone, all clones are one endpoint.
///
/// Dropping the last clone closes it in the background; [`Self::close`] waits for that.
///
/// ```no_run
/// use ackord_endpoint::{ClientEndpoint, ClientLevel, HandlerError, Subscription};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = ClientEndpoint::builder()
///     .url("https://broker-0.example:7400")
///     .url("https://broker-1.example:7400")
///     .site("boilers")
///     .token(Some("ak_2_secret".to_owned()))
///     .persistence(ClientLevel::file("/var/lib/panel/positions"))
///     .subscribe(Subscription::new("reading"), |delivery| async move {
///         let payload = delivery.payload.ok_or_else(|| HandlerError::new("no reading in it"))?;
///         println!("{} {:?}", delivery.instance_id, payload.data);
///         Ok(())
///     })
///     .on_notice(|notice| println!("{notice:?}"))
///     .start()
///     .await?;
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientEndpoint {
    inner: Arc<Inner>,
}

impl ClientEndpoint {
    /// Options.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Starts no handler any more; running ones finish and are acknowledged.
    pub fn pause(&self) {
        self.inner.shared.core().machine.pause();
        self.inner.shared.wake.notify_one();
    }

    /// Undoes [`Self::pause`] and [`Flow::Stop`].
    pub fn resume(&self) {
        let now_ms = self.inner.shared.now_ms();
        self.inner.shared.core().machine.resume(now_ms);
        self.inner.shared.wake.notify_one();
    }

    /// Waits for the running handlers, for [`CLOSE_LIMIT`] at most, writes their ids, acknowledges
    /// them and goes.
    pub async fn close(self) {
        self.close_within(CLOSE_LIMIT).await;
    }

    /// As [`Self::close`] with another limit. A handler that is still running then is aborted.
    pub async fn close_within(self, limit: Duration) {
        let mut closed = self.inner.closed.clone();
        self.inner.shared.begin_close(limit);
        // An error says that the task is gone with its runtime: closed all the same.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}
