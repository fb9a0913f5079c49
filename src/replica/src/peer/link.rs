//! One connection to one peer, kept up for as long as somebody holds it.
//!
//! Invariants: a call on a link that is down fails at once, it never queues; attempts to connect
//! are at most [`RECONNECT_MAX`] apart, or [`REFUSED_PAUSE`] after a refusal; a connection on which
//! nothing comes back is given up within [`KEEPALIVE`] + [`KEEPALIVE_LIMIT`].

use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::Stream as Items;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::codec::{PeerCodec, is_garbage};
use super::hello::{self, HelloError, Refusal};
use super::io::{Line, PeerIo, Stream};
use super::wire::{Answer, Call};
use super::{CONNECTION_WINDOW_BYTES, Context, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::ground::PeerTcp;
use crate::types::NodeId;

/// How often two connected nodes say how far their stores are,
const PULSE_INTERVAL: Duration = Duration::from_secs(1);
/// and after how many of these they compare their clocks.
const PULSES_PER_CLOCK: u32 = 5;
/// Connecting, TLS and hello together.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Between attempts, at first and at most.
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(200);
/// After a hello that was refused: somebody has to change something.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// A connection that is quiet for so long is asked for a sign of life,
pub(super) const KEEPALIVE: Duration = Duration::from_millis(300);
/// and is dead without one after this.
pub(super) const KEEPALIVE_LIMIT: Duration = Duration::from_millis(700);

pub(super) const PATH_CALL: &str = "/ackord.peer/call";
pub(super) const PATH_APPEND: &str = "/ackord.peer/append";
pub(super) const PATH_FORWARD: &str = "/ackord.peer/forward";

/// Why a call came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no connection, or it broke. Whether the other node has acted is not known, unless
    /// the call never left.
    #[error("unreachable: {0}")]
    Unreachable(Arc<str>),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The other node did nothing of it.
    #[error("refused: {0}")]
    Refused(String),
}

impl CallError {
    pub(super) fn unreachable(why: impl Into<String>) -> Self {
        Self::Unreachable(Arc::from(why.into()))
    }

    /// An answer to another question.
    pub(super) fn confused() -> Self {
        Self::unreachable("the answer does not fit the call")
    }
}

/// A connection that stands.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) line: Arc<Line>,
}

impl Connection {
    /// Opens a stream in both directions.
    pub(super) async fn stream<M, A>(
        &self,
        path: &'static str,
        messages: impl Items<Item = M> + Send + 'static,
        limit: Duration,
    ) -> Result<Streaming<A>, CallError>
    where
        M: Serialize + Send + Sync + 'static,
        A: DeserializeOwned + Send + Sync + 'static,
    {
        let opening = async {
            let mut client = self.client();
            client.ready().await.map_err(|error| CallError::unreachable(error.to_string()))?;
            client
                .streaming(Request::new(messages), PathAndQuery::from_static(path), self.codec())
                .await
                .map(tonic::Response::into_inner)
                .map_err(|status| self.broken(&status))
        };
        timeout(limit, opening).await.map_err(|_| CallError::Timeout(limit))?
    }

    pub(super) async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let mut client = self.client();
        client.ready().await.map_err(|error| CallError::unreachable(error.to_string()))?;
        let path = PathAndQuery::from_static(PATH_CALL);
        match client.unary(Request::new(call), path, self.codec()).await {
            Ok(answer) => match answer.into_inner() {
                Answer::Refused(why) => Err(CallError::Refused(why)),
                answer => Ok(answer),
            },
            Err(status) => Err(self.broken(&status)),
        }
    }

    /// What the end of a stream or call means; garbage is the connection's end.
    pub(super) fn broken(&self, status: &Status) -> CallError {
        if is_garbage(status) {
            tracing::warn!(peer = self.line.agreed.peer, %status, "a peer answers with garbage");
            self.line.close();
        }
        CallError::unreachable(status.to_string())
    }

    pub(super) fn client(&self) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) fn codec<E, D>(&self) -> PeerCodec<E, D> {
        PeerCodec::new(self.line.agreed.version)
    }
}

#[derive(Clone)]
enum State {
    /// The first attempt, or the first after a connection was lost.
    Connecting,
    Up(Connection),
    Down(Arc<str>),
}

/// See the module. Dropping it closes the connection.
pub(super) struct Link {
    state: watch::Receiver<State>,
    keeper: tokio::task::AbortHandle,
}

impl Link {
    pub(super) fn open(context: &Arc<Context>, peer: NodeId, address: &str) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let keeping = keep(context.clone(), peer, address.to_owned(), sender);
        Self { state, keeper: context.runtime.spawn(keeping).abort_handle() }
    }

    /// The connection, waiting up to `limit` for an attempt that is under way.
    pub(super) async fn connection(&self, limit: Duration) -> Result<Connection, CallError> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting));
        match timeout(limit, settled).await {
            Err(_) => Err(CallError::Timeout(limit)),
            Ok(Err(_)) => Err(CallError::unreachable("the node is stopping")),
            Ok(Ok(state)) => match &*state {
                State::Up(connection) => Ok(connection.clone()),
                State::Down(why) => Err(CallError::Unreachable(why.clone())),
                State::Connecting => Err(CallError::unreachable("connecting")),
            },
        }
    }

    /// Whether there is a connection now.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// Asks once. The limit covers everything.
    pub(super) async fn call(&self, call: Call, limit: Duration) -> Result<Answer, CallError> {
        let deadline = Instant::now() + limit;
        let connection = self.connection(limit).await?;
        let answer = timeout_at(deadline, connection.call(call)).await;
        answer.map_err(|_| CallError::Timeout(limit))?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The body of the task that keeps a link up.
async fn keep(context: Arc<Context>, peer: NodeId, address: String, state: watch::Sender<State>) {
    let mut pause = RECONNECT_MIN;
    let mut reported: Arc<str> = Arc::from("");
    let mut was_up = false;
    let mut attempts = 0_u32;
    let listed = address;
    loop {
        // Where it says itself that it is, and where the group's members have it, in turn: whoever
        // has moved is found before that is agreed on.
        let own = context.place_of(peer).filter(|_| attempts.is_multiple_of(2));
        let address = own.unwrap_or_else(|| listed.clone());
        attempts = attempts.wrapping_add(1);
        let attempt = timeout(CONNECT_LIMIT, connect(&context, peer, &address)).await;
        let (why, refused) = match attempt {
            Ok(Ok(connection)) => {
                tracing::debug!(peer, address, "connected to a peer");
                let line = connection.line.clone();
                context.agreed(peer, line.agreed.version);
                context.heard(peer, line.agreed.clock_difference_ms);
                context.set_dead(peer, false);
                was_up = true;
                state.send_replace(State::Up(connection.clone()));
                tokio::select! {
                    () = line.gone() => {}
                    () = pulse(&context, peer, &connection) => {}
                }
                tracing::debug!(peer, address, "the connection to a peer is lost");
                state.send_replace(State::Connecting);
                (pause, reported, attempts) = (RECONNECT_MIN, Arc::from(""), 0);
                // Also when the other side takes connections only to close them.
                tokio::time::sleep(RECONNECT_MIN).await;
                continue;
            }
            Ok(Err(error)) => {
                let nobody = matches!(&error, HelloError::Io(io)
                    if io.kind() == io::ErrorKind::ConnectionRefused);
                if std::mem::take(&mut was_up) && nobody {
                    context.set_dead(peer, true);
                }
                if let HelloError::RefusedThere(Refusal::Removed { .. }) = &error
                    && !context.told_removed.swap(true, Ordering::Relaxed)
                {
                    tracing::error!("this node was removed from the cluster: stop it");
                }
                if let HelloError::RefusedThere(Refusal::WentBack { known, .. }) = &error {
                    context.went_back(peer, *known);
                }
                let refused =
                    matches!(error, HelloError::RefusedHere(_) | HelloError::RefusedThere(_));
                (error.to_string(), refused)
            }
            Err(_) => (format!("no connection within {CONNECT_LIMIT:?}"), false),
        };
        let why: Arc<str> = Arc::from(format!("node {peer} at {address}: {why}"));
        if why != reported {
            tracing::warn!(peer, address, why = &*why, "cannot connect to a peer");
            reported = why.clone();
        }
        state.send_replace(State::Down(why));
        tokio::time::sleep(if refused { REFUSED_PAUSE } else { pause }).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

/// Knows how far the clocks are apart while connected, and how far the other's store is. Never returns:
/// a connection that stands is not given up for its clock, who leads and stamps is decided elsewhere.
async fn pulse(context: &Context, peer: NodeId, connection: &Connection) {
    let mut pulses = 0_u32;
    loop {
        tokio::time::sleep(PULSE_INTERVAL).await;
        pulses = pulses.wrapping_add(1);
        let with_clock = pulses.is_multiple_of(PULSES_PER_CLOCK);
        let asked = Instant::now();
        let call = if connection.line.agreed.version >= hello::PULSES {
            Call::Pulse(context.myself.disk(context.stored()))
        } else if with_clock {
            Call::Clock
        } else {
            continue;
        };
        let answer = match timeout(CONNECT_LIMIT, connection.call(call)).await {
            Ok(Ok(Answer::Clock { wall_ms })) => Some((wall_ms, None)),
            Ok(Ok(Answer::Pulse { wall_ms, disk })) => Some((wall_ms, Some(disk))),
            Ok(Ok(_) | Err(_)) | Err(_) => None,
        };
        if let Some((wall_ms, disk)) = answer {
            // An old word, if it is refused: this connection was not.
            let _ = context.remember(peer, disk);
            context.save_when_due();
            if !with_clock {
                continue;
            }
            let ours =
                context.myself.wall.ms().saturating_sub(asked.elapsed().as_millis() as u64 / 2);
            let (difference, _) =
                hello::compare(wall_ms, ours, context.myself.clock_skew_max, peer);
            context.heard(peer, difference);
        }
    }
}

pub(super) async fn connect(
    context: &Context,
    peer: NodeId,
    address: &str,
) -> Result<Connection, HelloError> {
    let tcp = PeerTcp::connect(context.ground.as_ref(), context.from, address).await?;
    let mut stream = match &context.tls {
        None => Stream::Plain(tcp),
        Some(tls) => {
            let tls = tls.current();
            let name = tls.name_for(address).map_err(io::Error::other)?;
            let tls = tls.connector.connect(name, tcp).await?;
            Stream::Tls(Box::new(tls.into()))
        }
    };
    let agreed = hello::offer(&mut stream, &context.myself, context.stored(), peer).await?;
    context.remember(peer, agreed.disk).map_err(HelloError::RefusedHere)?;
    let line = Line::new(agreed);
    let io = PeerIo::new(stream, line.clone(), None);
    let channel = Endpoint::from_static("http://peer.invalid")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_LIMIT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(Once(Some(io)))
        .await
        .map_err(io::Error::other)?;
    Ok(Connection { channel, line })
}

/// Gives out a connection that stands already; when that is lost, the link sees to the next one.
struct Once(Option<PeerIo>);

impl Service<Uri> for Once {
    type Response = TokioIo<PeerIo>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<PeerIo>>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
