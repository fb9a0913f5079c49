//! The service endpoint: raises events and sees each to its outcome.

use std::time::Duration;

use ackord_wire::Codec;
use ackord_wire::structure::Structure;

use crate::error::{Error, RaiseError};
use crate::event::{Event, Outcome};
use crate::level::ServiceLevel;
use crate::notice::ServiceNotice;

/// Options of a [`ServiceEndpoint`].
#[derive(Default)]
pub struct ServiceBuilder {}

impl ServiceBuilder {
    /// Adds an address: `http(s)://` or `ws(s)://`, host and port. At least one.
    pub fn url(self, _url: impl Into<String>) -> Self {
        self
    }
    /// The site.
    pub fn site(self, _site: impl Into<String>) -> Self {
        self
    }
    /// The service's token.
    pub fn token(self, _token: impl Into<String>) -> Self {
        self
    }
    /// What the service declares; without it the service takes the site as it is.
    pub fn structure(self, _structure: Structure) -> Self {
        self
    }
    /// Where events wait. Without it the endpoint does not start: the default level is SPL-2 and
    /// needs a path, see [`Self::store`].
    pub fn persistence(self, _level: ServiceLevel) -> Self {
        self
    }
    /// SPL-2 in this file, with the default capacity.
    pub fn store(self, path: impl Into<std::path::PathBuf>) -> Self {
        self.persistence(ServiceLevel::file(path))
    }
    /// Events in flight at once: 1..=1024, default 64; the broker may grant fewer.
    pub fn window(self, _events: u32) -> Self {
        self
    }
    /// JSON or CBOR; CBOR by default.
    pub fn codec(self, _codec: Codec) -> Self {
        self
    }
    /// Time until an unanswered event is sent again; 30 s by default.
    pub fn ack_timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// Time between the broker's pings; 60 s by default.
    pub fn keepalive(self, _interval: Duration) -> Self {
        self
    }
    /// The service's own version, shown to clients.
    pub fn service_version(self, _version: impl Into<String>) -> Self {
        self
    }
    /// The host's name, shown to clients.
    pub fn hostname(self, _name: impl Into<String>) -> Self {
        self
    }
    /// Multiplies every reconnect delay; for tests.
    pub fn reconnect_scale(self, _factor: f64) -> Self {
        self
    }
    /// Called with every notice.
    pub fn on_notice(self, _notice: impl Fn(ServiceNotice) + Send + Sync + 'static) -> Self {
        self
    }
    /// Opens the store and starts connecting; does not wait for a connection.
    pub async fn start(self) -> Result<ServiceEndpoint, Error> {
        Err(Error::Invalid("not built yet".to_owned()))
    }
}

/// A service: cheap to clone, all clones are one endpoint.
#[derive(Clone)]
pub struct ServiceEndpoint {}

impl ServiceEndpoint {
    /// Options.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::default()
    }
    /// Hands an event over and never waits. When the store is full the oldest unsent event is
    /// dropped and the application told.
    pub fn raise(&self, _event: Event) -> Result<(), RaiseError> {
        Err(RaiseError::Closed)
    }
    /// Waits for room in the store, then for the event's outcome. The order of calls is the order
    /// of events. Dropping the future after it was first polled may leave the event raised.
    pub async fn raise_wait(&self, _event: Event) -> Result<Outcome, RaiseError> {
        Err(RaiseError::Closed)
    }
    /// Events that are raised and not acknowledged.
    pub fn pending(&self) -> u64 {
        0
    }
    /// Sends what is left, for 10 s at most; returns how many events were not acknowledged.
    pub async fn close(self) -> u64 {
        0
    }
    /// As [`Self::close`] with another limit.
    pub async fn close_within(self, _limit: Duration) -> u64 {
        0
    }
}
