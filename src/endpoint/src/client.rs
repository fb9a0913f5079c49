//! The client endpoint: calls a handler once per instance, in order, and acknowledges.

use std::future::Future;
use std::time::Duration;

use ackord_wire::Codec;

use crate::error::Error;
use crate::event::{Delivery, Flow, HandlerError, Subscription};
use crate::level::ClientLevel;
use crate::notice::ClientNotice;

/// Options of a [`ClientEndpoint`].
#[derive(Default)]
pub struct ClientBuilder {}

impl ClientBuilder {
    /// Adds an address: `http(s)://` or `ws(s)://`, host and port. At least one.
    pub fn url(self, _url: impl Into<String>) -> Self {
        self
    }
    /// The site.
    pub fn site(self, _site: impl Into<String>) -> Self {
        self
    }
    /// The client's token; `None` is a stateless guest.
    pub fn token(self, _token: Option<String>) -> Self {
        self
    }
    /// Where positions are kept; in memory by default.
    pub fn persistence(self, _level: ClientLevel) -> Self {
        self
    }
    /// True, the default: the client's subscriptions become exactly these. False: these are added.
    pub fn exact(self, _exact: bool) -> Self {
        self
    }
    /// Adds a subscription and its handler.
    pub fn subscribe<F, Fut, R>(self, _subscription: Subscription, _handler: F) -> Self
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
        R: Into<Flow>,
    {
        self
    }
    /// Handlers that run at once, over all subscriptions; never two of one subscription.
    /// Default 1024.
    pub fn concurrency(self, _handlers: usize) -> Self {
        self
    }
    /// JSON or CBOR; CBOR by default.
    pub fn codec(self, _codec: Codec) -> Self {
        self
    }
    /// Time between the broker's pings; 60 s by default.
    pub fn keepalive(self, _interval: Duration) -> Self {
        self
    }
    /// The host's name, for the operator.
    pub fn hostname(self, _name: impl Into<String>) -> Self {
        self
    }
    /// Multiplies every reconnect delay; for tests.
    pub fn reconnect_scale(self, _factor: f64) -> Self {
        self
    }
    /// Called with every notice.
    pub fn on_notice(self, _notice: impl Fn(ClientNotice) + Send + Sync + 'static) -> Self {
        self
    }
    /// Opens the store and starts connecting; does not wait for a connection.
    pub async fn start(self) -> Result<ClientEndpoint, Error> {
        Err(Error::Invalid("not built yet".to_owned()))
    }
}

/// A client: cheap to clone, all clones are one endpoint.
#[derive(Clone)]
pub struct ClientEndpoint {}

impl ClientEndpoint {
    /// Options.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
    /// Starts no handler any more; running ones finish and are acknowledged.
    pub fn pause(&self) {}
    /// Undoes [`Self::pause`] and [`Flow::Stop`].
    pub fn resume(&self) {}
    /// Waits for the running handlers, for 30 s at most, writes their ids, acknowledges them and
    /// goes.
    pub async fn close(self) {}
    /// As [`Self::close`] with another limit.
    pub async fn close_within(self, _limit: Duration) {}
}
