//! The facade that the front uses: open sessions, authenticate, administer, read.

use std::sync::Arc;

use ackord_machine::site::{
    AdminAction, NewEvent, Outcome, Principal, RequestId, ServiceId, Site, SiteName, Stamp,
};
use ackord_replica::{Node, PartitionHandle};
use ackord_wire::Code;
use futures_util::Stream;

use crate::connection::{Connection, Inbound};
use crate::options::BrokerOptions;

/// A refusal as the front reports it: the stable code and a detail for a person. The detail of
/// `invalid` is `<path of the field>: <rule>`, for instance `events[3].size: 1..=1000, was 1001`.
pub type Refused = (Code, String);

/// The broker of one node. Cloning copies a pointer.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Node>,
    options: BrokerOptions,
}

impl Broker {
    /// A broker on top of a running node.
    pub fn new(node: Arc<Node>, options: BrokerOptions) -> Self {
        Self { inner: Arc::new(Inner { node, options }) }
    }

    /// The node below.
    pub fn node(&self) -> &Arc<Node> {
        &self.inner.node
    }

    /// How it serves.
    pub fn options(&self) -> &BrokerOptions {
        &self.inner.options
    }

    /// Whether another session may be opened: `limit-reached` or `shutting-down` if not.
    ///
    /// # Errors
    /// The code to answer with, best before the connection is upgraded.
    pub fn accepts(&self) -> Result<(), Code> {
        Ok(())
    }

    /// Who the bearer of this token is.
    ///
    /// # Errors
    /// `bad-credentials`, whatever the reason.
    pub fn authenticate(&self, _site: &str, _token: &str) -> Result<Principal, Code> {
        Err(Code::BadCredentials)
    }

    /// Does an administrative act, retried under one request id until its fate is known.
    ///
    /// # Errors
    /// What the site's rules refuse, or `busy`, `unavailable`, `unknown-outcome`.
    pub async fn admin(&self, _site: &SiteName, _action: AdminAction) -> Result<Outcome, Refused> {
        Err((Code::Unavailable, String::new()))
    }

    /// As [`Broker::admin`], under a request id of the caller: a repeat of an act under its id
    /// gets the first answer for as long as the state remembers it.
    ///
    /// # Errors
    /// As [`Broker::admin`].
    pub async fn admin_as(
        &self,
        site: &SiteName,
        _request: RequestId,
        action: AdminAction,
    ) -> Result<Outcome, Refused> {
        self.admin(site, action).await
    }

    /// Raises an event for an HTTP caller under an idempotency key, without a session.
    ///
    /// # Errors
    /// What the site's rules refuse or reject, or `busy`, `over-capacity`, `disk-full`,
    /// `unavailable`, `unknown-outcome`.
    pub async fn raise_keyed(
        &self,
        _site: &SiteName,
        _service: &ServiceId,
        _key: String,
        _event: NewEvent,
    ) -> Result<ackord_wire::frame::Accepted, Refused> {
        Err((Code::Unavailable, String::new()))
    }

    /// Looks at a site as applied on this node; `None` when there is none of this name.
    pub fn read_site<R>(&self, site: &str, look: impl FnOnce(&Site, Stamp) -> R) -> Option<R> {
        let partition = self.partition(&SiteName::from(site));
        let now = partition.now();
        partition.read(|state| state.site(site).map(|site| look(site, now)))
    }

    /// As [`Broker::read_site`], after everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `unavailable` when that cannot be confirmed now.
    pub async fn read_site_linearizable<R>(
        &self,
        site: &str,
        look: impl FnOnce(&Site, Stamp) -> R,
    ) -> Result<Option<R>, Code> {
        let partition = self.partition(&SiteName::from(site));
        partition.linearize().await.map_err(|_| Code::Unavailable)?;
        Ok(self.read_site(site, look))
    }

    /// Looks at every site as applied on this node, partition by partition, by name within each.
    pub fn read_all(&self, mut look: impl FnMut(&Site)) {
        for partition in self.inner.node.partitions() {
            partition.read(|state| state.sites().for_each(&mut look));
        }
    }

    /// As [`Broker::read_all`], after everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `unavailable` when that cannot be confirmed now.
    pub async fn read_all_linearizable(&self, look: impl FnMut(&Site)) -> Result<(), Code> {
        for partition in self.inner.node.partitions() {
            partition.linearize().await.map_err(|_| Code::Unavailable)?;
        }
        self.read_all(look);
        Ok(())
    }

    /// Starts the session of a service on this arbiter. It owns the frames; what it has to say,
    /// refusals included, goes to the connection's outbox.
    pub fn open_service(
        &self,
        _connection: Connection,
        _frames: impl Stream<Item = Inbound> + 'static,
    ) {
    }

    /// Starts the session of a client on this arbiter, see [`Broker::open_service`].
    pub fn open_client(
        &self,
        _connection: Connection,
        _frames: impl Stream<Item = Inbound> + 'static,
    ) {
    }

    /// Sessions that are open on this node.
    pub fn sessions(&self) -> usize {
        0
    }

    /// Closes every session as `shutting-down`, refuses new ones, and waits until they ended or
    /// [`BrokerOptions::shutdown_deadline`] has passed. The node goes on.
    pub async fn shutdown(&self) {}

    /// The node's metrics in Prometheus text format.
    pub fn metrics_text(&self) -> String {
        String::new()
    }

    fn partition(&self, site: &SiteName) -> PartitionHandle {
        self.inner.node.partition_of(site)
    }
}
