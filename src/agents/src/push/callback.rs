//! Requests to callbacks: no redirects, no proxy, and only to addresses that are allowed.
//!
//! Invariant: a connection that was kept open and breaks under a request says nothing of the receiver,
//! which may have closed it meanwhile: whoever sent the request is told, and sends it on a fresh one.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ackord_machine::site::{Secret, Trouble};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, Url, redirect};
use tokio::sync::oneshot;

use super::allow::AllowList;
use super::authority;
use super::connecting::{Noting, noting};
use super::encode::Encoded;
use super::lookup::Lookups;
use super::sign::{SIGNATURE, signature};

/// How long a connection that is not used is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Connections to one host that are kept although they are not used.
const IDLE_MAX: usize = 8;
/// Bytes of an answer that are read so that its connection can be used again.
const ANSWER_BYTES_MAX: u64 = 4096;
/// How long that may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// An address is not one that the operator allows.
#[derive(Debug)]
struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address of this host may be delivered to")
    }
}

impl Error for NotAllowed {}

/// Gives out only addresses that may be connected to: what is judged is what is used.
struct Judged {
    allow: Arc<AllowList>,
    lookups: Lookups,
}

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let (allow, lookups) = (self.allow.clone(), self.lookups.clone());
        Box::pin(async move {
            let found = lookups.addresses(&format!("{}:0", name.as_str())).await?;
            let permitted = |found: &SocketAddr| allow.permits(name.as_str(), found.ip());
            let any = !found.is_empty();
            let found: Vec<SocketAddr> = found.into_iter().filter(permitted).collect();
            if any && found.is_empty() {
                return Err(Box::new(NotAllowed) as Box<dyn Error + Send + Sync>);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Over which connection a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// One that is open, or a new one.
    Any,
    /// A new one.
    Fresh,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It failed.
    Failed(Trouble),
    /// The connection had been open before and broke.
    Stale,
}

impl From<Trouble> for Unanswered {
    fn from(trouble: Trouble) -> Self {
        Self::Failed(trouble)
    }
}

/// One request.
pub(crate) struct Call<'a> {
    pub url: &'a str,
    pub over: Over,
    pub encoded: Encoded,
    pub secret: Option<&'a Secret>,
    pub timeout: Duration,
    pub headers: Vec<(&'static str, String)>,
    /// Told once the transport has taken the body.
    pub written: Option<oneshot::Sender<()>>,
}

/// The clients of a node.
pub(crate) struct Callbacks {
    allow: Arc<AllowList>,
    /// For deliveries, over connections that are kept. An error is one of the system's TLS or
    /// resolver, and each request says so.
    client: Option<Client>,
    /// It keeps no connection.
    fresh: Option<Client>,
}

impl Callbacks {
    /// Callbacks are believed whose certificates the usual authorities have signed, or those of this
    /// file.
    pub fn new(allow: Arc<AllowList>, lookups: &Lookups, ca_file: Option<&Path>) -> Self {
        let client = |idle_max: usize| {
            let judged = Judged { allow: allow.clone(), lookups: lookups.clone() };
            let client = Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Arc::new(judged))
                .connector_layer(Noting)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle_max)
                .tcp_nodelay(true)
                .user_agent(concat!("ackord/", env!("CARGO_PKG_VERSION")));
            let authorities = ca_file.map(authority::read).transpose()?.unwrap_or_default();
            let client = authorities
                .into_iter()
                .fold(client, |client, authority| client.add_root_certificate(authority));
            client.build().map_err(|error| error.to_string())
        };
        let [client, fresh] = [IDLE_MAX, 0].map(client);
        if let Err(error) = &client {
            tracing::error!(%error, "callbacks cannot be called");
        }
        Self { client: client.ok(), fresh: fresh.ok(), allow }
    }

    /// Sends a request; its answer whatever the status.
    pub async fn send(&self, call: Call<'_>) -> Result<Response, Unanswered> {
        let url = parse(call.url).ok_or(Trouble::NotAllowed)?;
        // A number is not resolved, so it is judged here.
        if let Some(address) = number_of(&url)
            && !self.allow.permits(&address.to_string(), address)
        {
            return Err(Trouble::NotAllowed.into());
        }
        let client = match call.over {
            Over::Any => &self.client,
            Over::Fresh => &self.fresh,
        };
        let client = client.as_ref().ok_or(Trouble::Connect)?;
        let Encoded { media, body } = call.encoded;
        let mut request = client.post(url).timeout(call.timeout).header(CONTENT_TYPE, media);
        if let Some(Secret(secret)) = call.secret {
            request = request.header(SIGNATURE, signature(secret, unix_s(), &body));
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let body = reqwest::Body::wrap(Told { body: Some(body), written: call.written });
        let (answer, connected) = noting(request.body(body).send()).await;
        answer.map_err(|error| match trouble(&error) {
            Trouble::Broken if !connected => Unanswered::Stale,
            trouble => Unanswered::Failed(trouble),
        })
    }

    /// Sends a request of which only the status counts.
    pub async fn deliver(&self, call: Call<'_>) -> Result<(), Unanswered> {
        let response = self.send(call).await?;
        let status = response.status();
        // A short answer is read, so that the next request finds the connection free.
        if response.content_length().is_some_and(|length| length <= ANSWER_BYTES_MAX) {
            let _whatever = tokio::time::timeout(ANSWER_LIMIT, response.bytes()).await;
        }
        if status.is_success() { Ok(()) } else { Err(Trouble::Status(status.as_u16()).into()) }
    }
}

/// A URL that can be called.
pub(crate) fn parse(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// The host of a URL and its port: whose requests are counted together.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let url = parse(url)?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

fn number_of(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn inner(error: &io::Error) -> Option<&io::Error> {
    error.get_ref()?.downcast_ref()
}

/// What went wrong, by the kinds that are counted.
fn trouble(error: &reqwest::Error) -> Trouble {
    let first: &(dyn Error + 'static) = error;
    let causes: Vec<_> = std::iter::successors(Some(first), |error| (*error).source()).collect();
    if causes.iter().any(|cause| cause.is::<NotAllowed>()) {
        return Trouble::NotAllowed;
    }
    if error.is_timeout() {
        return Trouble::Timeout;
    }
    let is_tls = |cause: &&(dyn Error + 'static)| {
        // What an error of I/O wraps is not among its causes.
        let mut wrapped = std::iter::successors(cause.downcast_ref::<io::Error>(), |io| inner(io));
        // A certificate that is not believed is data that is not valid.
        wrapped.any(|io| io.kind() == io::ErrorKind::InvalidData)
    };
    match error.is_connect() {
        true if causes.iter().any(is_tls) => Trouble::Tls,
        true => Trouble::Connect,
        false => Trouble::Broken,
    }
}

/// A body that says when it was taken.
struct Told {
    body: Option<Bytes>,
    written: Option<oneshot::Sender<()>>,
}

impl Body for Told {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let body = self.body.take();
        if body.is_some()
            && let Some(written) = self.written.take()
        {
            // Whoever wanted to know may have gone.
            let _gone = written.send(());
        }
        Poll::Ready(body.map(|body| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}
