//! A client endpoint of the SDK that records what it handles and what it is told.
//!
//! It runs on a runtime of its own, so that it can be killed at any moment as a process can.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ackord_endpoint::{
    ClientBuilder, ClientEndpoint, ClientLevel, ClientNotice, Delivery, HandlerError, Subscription,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use crate::history::{Entry, Handled, History, Subscriber};
use crate::raiser::{self, Notices};
use crate::site::Site;
use crate::wait;

/// What a handler of a test does between its start and its end.
pub type Hook = Arc<dyn Fn(Handled) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync>;

/// Options of a [`Listener`].
pub struct ListenerBuilder {
    by: Subscriber,
    history: History,
    notices: Notices<ClientNotice>,
    urls: Vec<String>,
    endpoint: ClientBuilder,
    hook: Hook,
}

impl ListenerBuilder {
    pub(crate) fn new(site: &Site, name: &str, token: Option<&str>) -> Self {
        let by = site.next_life(name);
        let notices = Notices::default();
        let told = notices.clone();
        let (recorder, who) = (site.history.clone(), by.clone());
        let endpoint = ClientEndpoint::builder()
            .site(&site.name)
            .token(token.map(str::to_owned))
            .reconnect_scale(0.02)
            .on_notice(move |notice| {
                if let ClientNotice::Committed { event, instance_id } = &notice {
                    let (by, event) = (who.clone(), event.clone());
                    recorder.record(Entry::Committed { by, event, instance_id: *instance_id });
                }
                if let ClientNotice::Connected { client: Some(_), .. } = &notice {
                    recorder.record(Entry::Opened { by: who.clone() });
                }
                told.push(notice);
            });
        let hook: Hook = Arc::new(|_| async { Ok(()) }.boxed());
        let (history, urls) = (site.history.clone(), site.urls.clone());
        Self { by, history, notices, urls, endpoint, hook }
    }

    /// Changes the endpoint's options.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
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

    /// Keeps the last handled ids in this file: CPL-2.
    #[must_use]
    pub fn state(self, path: &Path) -> Self {
        self.with(|endpoint| endpoint.persistence(ClientLevel::file(path)))
    }

    /// Does this in the handler, of whatever is subscribed to afterwards.
    #[must_use]
    pub fn handles<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(Handled) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.hook = Arc::new(move |handled| hook(handled).boxed());
        self
    }

    /// Holds the handler of the instance with these arguments back until the gate is opened, of
    /// whatever is subscribed to afterwards.
    #[must_use]
    pub fn holds(self, args: &str, gate: &Gate) -> Self {
        let (args, gate) = (args.to_owned(), gate.clone());
        self.handles(move |handled| {
            let held = handled.args.as_deref() == Some(&*args);
            let gate = gate.clone();
            async move {
                if held {
                    gate.passed().await;
                }
                Ok(())
            }
        })
    }

    /// Subscribes to an event.
    #[must_use]
    pub fn to(self, event: &str) -> Self {
        self.subscribes(Subscription::new(event))
    }

    /// Subscribes.
    #[must_use]
    pub fn subscribes(mut self, subscription: Subscription) -> Self {
        let (by, history, hook) = (self.by.clone(), self.history.clone(), self.hook.clone());
        self.endpoint = self.endpoint.subscribe(subscription, move |delivery: Delivery| {
            let (by, history, hook) = (by.clone(), history.clone(), hook.clone());
            async move {
                let handled = handled_of(&delivery);
                let (event, instance_id) = (handled.event.clone(), handled.instance_id);
                history.record(Entry::HandlerStarted { by: by.clone(), handled: handled.clone() });
                let result = hook(handled).await;
                let success = result.is_ok();
                history.record(Entry::HandlerEnded { by, event, instance_id, success });
                result
            }
        });
        self
    }

    /// Starts the endpoint; does not wait for a connection.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(self) -> Listener {
        let runtime = raiser::runtime();
        let mut listener = self.start_on(runtime.handle()).await;
        listener.runtime = Some(runtime);
        listener
    }

    /// Starts the endpoint on a runtime that it shares with others; it cannot be killed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_on(self, runtime: &Handle) -> Listener {
        let Self { by, history, notices, urls, endpoint, .. } = self;
        let endpoint = urls.into_iter().fold(endpoint, ClientBuilder::url);
        let started = runtime.spawn(endpoint.start());
        let started = wait::within("the client endpoint to start", started).await;
        let endpoint = started.expect("no panic").expect("the client endpoint starts");
        Listener { by, history, notices, endpoint, runtime: None }
    }

    /// Starts the endpoint and waits until so many subscriptions hold.
    pub async fn subscribed(self, count: usize) -> Listener {
        let listener = self.start().await;
        listener.until_subscribed(count).await;
        listener
    }
}

fn handled_of(delivery: &Delivery) -> Handled {
    let payload = delivery.payload.as_ref();
    Handled {
        event: delivery.event.clone(),
        instance_id: delivery.instance_id,
        incarnation: delivery.incarnation,
        generation: delivery.generation,
        service: delivery.service.clone(),
        age: delivery.age,
        attempt: delivery.attempt,
        args: payload.map(|payload| String::from_utf8_lossy(&payload.data).into_owned()),
    }
}

/// A running client endpoint.
pub struct Listener {
    by: Subscriber,
    history: History,
    /// What it was told.
    pub notices: Notices<ClientNotice>,
    endpoint: ClientEndpoint,
    runtime: Option<Runtime>,
}

impl Listener {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.by.name
    }

    /// What it handled in this and earlier lives.
    pub fn handled(&self) -> Vec<Handled> {
        self.history.handled(&self.by.name)
    }

    /// The arguments of what it handled in this and earlier lives, in order; `null` for a null.
    pub fn args(&self) -> Vec<String> {
        let text = |handled: Handled| handled.args.unwrap_or_else(|| "null".to_owned());
        self.handled().into_iter().map(text).collect()
    }

    /// Waits until it has handled `count` instances in this and earlier lives.
    pub async fn until_handled(&self, count: usize) -> Vec<Handled> {
        self.history.until_handled(&self.by.name, count).await
    }

    /// Waits until so many subscriptions hold in this session.
    pub async fn until_subscribed(&self, count: usize) {
        let what = format!("{} to hold {count} subscriptions", self.by.name);
        let held = |notice: &ClientNotice| matches!(notice, ClientNotice::Subscribed { .. });
        wait::until_true(&what, async || self.notices.count(held) >= count).await;
    }

    /// Waits until the broker has confirmed the cursor of an event at `instance_id`.
    pub async fn until_committed(&self, event: &str, instance_id: u64) {
        let what = format!("{}'s cursor on {event} to be confirmed at {instance_id}", self.by.name);
        let committed = async || self.history.committed(&self.by.name, event) >= instance_id;
        wait::until_true(&what, committed).await;
    }

    /// Closes the endpoint in order.
    pub async fn close(mut self) {
        let endpoint = self.endpoint.clone();
        let runtime = self.runtime.take().expect("an endpoint with a runtime of its own");
        let closing = runtime.spawn(endpoint.close_within(Duration::from_secs(10)));
        closing.await.expect("closing does not panic");
        raiser::kill(runtime).await;
    }

    /// Ends the endpoint as the death of its process does.
    pub async fn kill(mut self) {
        raiser::kill(self.runtime.take().expect("an endpoint with a runtime of its own")).await;
        self.history.record(Entry::Killed { by: self.by.clone() });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} was told: {:#?}", self.by.name, self.notices.all());
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Holds handlers back until it is opened. All clones are the same.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everyone pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // The sender lives as long as this gate: the wait ends only when it is open.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
