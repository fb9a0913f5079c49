//! A service endpoint of the SDK that records what it raises and what it is told.
//!
//! It runs on a runtime of its own, so that it can be killed at any moment as a process can: then
//! nothing of it runs any further.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackord_endpoint::{
    Event, Outcome, Payload, RaiseError, ServiceBuilder, ServiceEndpoint, ServiceLevel,
    ServiceNotice,
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::check::epochs_fence;
use crate::history::{Call, Entry, History, Subscriber};
use crate::site::{Account, Site};
use crate::wait;

/// What an endpoint was told, in order. All clones are the same.
#[derive(Debug)]
pub struct Notices<N>(Arc<Mutex<Vec<N>>>);

impl<N> Default for Notices<N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<N> Clone for Notices<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N: Clone> Notices<N> {
    /// Adds one.
    pub fn push(&self, notice: N) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }

    /// All so far.
    pub fn all(&self) -> Vec<N> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many so far are so.
    pub fn count(&self, is_so: impl Fn(&N) -> bool) -> usize {
        self.all().iter().filter(|notice| is_so(notice)).count()
    }

    /// Waits for one.
    ///
    /// # Panics
    /// After [`wait::PATIENCE`].
    pub async fn until(&self, what: &str, is_so: impl Fn(&N) -> bool) -> N {
        wait::until(what, async || self.all().into_iter().find(|notice| is_so(notice))).await
    }
}

/// A runtime that stands for a process: it can be killed.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

/// Stops everything on a runtime at once and waits until nothing of it runs.
pub(crate) async fn kill(runtime: Runtime) {
    let stop = move || runtime.shutdown_timeout(wait::PATIENCE);
    tokio::task::spawn_blocking(stop).await.expect("stopping a runtime does not panic");
}

/// Options of a [`Raiser`].
pub struct RaiserBuilder {
    service: String,
    history: History,
    notices: Notices<ServiceNotice>,
    urls: Vec<String>,
    endpoint: ServiceBuilder,
}

impl RaiserBuilder {
    pub(crate) fn new(site: &Site, account: &Account) -> Self {
        let notices = Notices::default();
        let told = notices.clone();
        let endpoint = ServiceEndpoint::builder()
            .site(&site.name)
            .token(&account.token)
            .persistence(ServiceLevel::Memory { bytes: 16 * 1024 * 1024 })
            .reconnect_scale(0.02)
            .on_notice(move |notice| told.push(notice));
        let (service, history) = (account.id.clone(), site.history.clone());
        Self { service, history, notices, urls: site.urls.clone(), endpoint }
    }

    /// Changes the endpoint's options.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(ServiceBuilder) -> ServiceBuilder) -> Self {
        self.endpoint = change(self.endpoint);
        self
    }

    /// Connects to this URL instead of the broker's own.
    #[must_use]
    pub fn via(self, url: &str) -> Self {
        self.via_all(vec![url.to_owned()])
    }

    /// Connects to one of these URLs, to the first one first.
    #[must_use]
    pub fn via_all(mut self, urls: Vec<String>) -> Self {
        self.urls = urls;
        self
    }

    /// Keeps events in this file: SPL-2.
    #[must_use]
    pub fn store(self, path: &Path) -> Self {
        self.with(|endpoint| endpoint.persistence(ServiceLevel::file(path)))
    }

    /// Raises as one life of its account, and records when its sessions are opened.
    #[must_use]
    pub fn lives(mut self, by: Subscriber) -> Self {
        let (history, told) = (self.history.clone(), self.notices.clone());
        self.service = epochs_fence::service_of(&by);
        self.with(|endpoint| {
            endpoint.on_notice(move |notice| {
                if let ServiceNotice::Connected { .. } = &notice {
                    history.record(Entry::Opened { by: by.clone() });
                }
                told.push(notice);
            })
        })
    }

    /// Declares a structure.
    #[must_use]
    pub fn declares(self, structure: &Value) -> Self {
        let structure = serde_json::from_value(structure.clone()).expect("a structure");
        self.with(|endpoint| endpoint.structure(structure))
    }

    /// Starts the endpoint; does not wait for a connection.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(self) -> Raiser {
        let Self { service, history, notices, urls, endpoint } = self;
        let endpoint = urls.into_iter().fold(endpoint, ServiceBuilder::url);
        let runtime = runtime();
        let started = runtime.spawn(endpoint.start());
        let started = wait::within("the service endpoint to start", started).await;
        let endpoint = started.expect("no panic").expect("the service endpoint starts");
        Raiser { service, history, notices, endpoint, runtime: Some(runtime) }
    }
}

/// A running service endpoint.
pub struct Raiser {
    service: String,
    history: History,
    /// What it was told.
    pub notices: Notices<ServiceNotice>,
    endpoint: ServiceEndpoint,
    runtime: Option<Runtime>,
}

impl Raiser {
    /// The endpoint itself.
    pub fn endpoint(&self) -> &ServiceEndpoint {
        &self.endpoint
    }

    /// Raises an event whatever its category is and gives the id of its instance.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn raise(&self, event: &str, args: impl Into<Value>) -> u64 {
        let outcome = self.send(Event::new(event, Some(json(args)))).await;
        outcome.expect("the event is accepted").instance_id.expect("the id is known")
    }

    /// Raises as many events with the arguments 1, 2, 3 ...
    ///
    /// # Panics
    /// When one is not accepted.
    pub async fn raise_many(&self, event: &str, count: u32) -> Vec<u64> {
        let raises = (1..=count).map(|n| self.raise(event, n));
        futures_util::future::join_all(raises).await
    }

    /// Raises a private event.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn raise_to(&self, client: &str, event: &str, args: impl Into<Value>) -> u64 {
        let outcome = self.send(Event::private(event, client, json(args))).await;
        outcome.expect("the event is accepted").instance_id.expect("the id is known")
    }

    /// Raises a null-event.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn null(&self, event: &str) -> Outcome {
        self.send(Event::null(event)).await.expect("the null-event is accepted")
    }

    /// Raises an event and gives its outcome.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn send(&self, event: Event) -> Result<Outcome, RaiseError> {
        wait::within("an outcome", self.outcome(event)).await
    }

    /// Raises an event and gives its outcome, however long that takes.
    pub async fn outcome(&self, event: Event) -> Result<Outcome, RaiseError> {
        let call = self.record(&event);
        let outcome = self.endpoint.raise_wait(event).await;
        self.history.record(match &outcome {
            Ok(outcome) => Entry::Acknowledged {
                call,
                instance_id: outcome.instance_id,
                ignored: outcome.ignored,
                duplicate: outcome.duplicate,
            },
            Err(error) => Entry::Rejected { call, code: error.code() },
        });
        outcome
    }

    /// Hands an event over without waiting for anything.
    ///
    /// # Panics
    /// When the endpoint does not take it.
    pub fn hand_over(&self, event: Event) {
        self.record(&event);
        self.endpoint.raise(event).expect("the endpoint takes the event");
    }

    fn record(&self, event: &Event) -> Call {
        let args = event.payload.as_ref().map(|payload| String::from_utf8_lossy(&payload.data));
        self.history.raised(&self.service, &event.name, args.as_deref())
    }

    /// Waits until the service exchanges events.
    pub async fn until_online(&self) {
        self.notices.until("the service to be online", |n| *n == ServiceNotice::Online).await;
    }

    /// Closes the endpoint in order; gives how many events were not acknowledged.
    pub async fn close(mut self) -> u64 {
        let endpoint = self.endpoint.clone();
        let runtime = self.runtime.take().expect("an endpoint ends once");
        let closing = runtime.spawn(endpoint.close_within(Duration::from_secs(10)));
        let left = closing.await.expect("closing does not panic");
        kill(runtime).await;
        left
    }

    /// Ends the endpoint as the death of its process does.
    pub async fn kill(mut self) {
        kill(self.runtime.take().expect("an endpoint ends once")).await;
    }
}

impl Drop for Raiser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} was told: {:#?}", self.service, self.notices.all());
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A value as JSON arguments.
pub fn json(args: impl Into<Value>) -> Payload {
    Payload::json(args.into().to_string())
}
