//! The listening side: who connects is checked, then its calls reach the partitions.
//!
//! Invariants: nothing of a connection is parsed before its TLS and hello are done, within a
//! limit; so many connections at most; a message that is too long or malformed ends the connection
//! it came over, and no other.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use ackord_machine::site::{Command, DirectoryCommand, Outcome};
use futures_util::{FutureExt, Stream as Items, StreamExt, future, stream};
use openraft::raft::AppendEntriesRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http;
use tonic::server::Grpc;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::ask::{PATH_ASK, Question, Reply};
use super::codec::{PeerCodec, is_garbage};
use super::hello::{self, Greeting};
use super::io::{Line, PeerIo, Stream};
use super::link::{KEEPALIVE, KEEPALIVE_LIMIT, PATH_APPEND, PATH_CALL, PATH_FORWARD};
use super::snapshot::Receiving;
use super::stranger::{Ask, Told};
use super::wire::{Answer, Append, Appended, Call, Forward, Forwarded, Voted};
use super::{
    CONNECTION_WINDOW_BYTES, Context, MESSAGE_BYTES_MAX, READ_INDEX_LIMIT, STREAM_WINDOW_BYTES,
    Visitor, forward,
};
use crate::ground::{PeerListener, PeerTcp};
use crate::options::PARTITIONS_MAX;
use crate::partition::Partition;
use crate::types::{NodeId, Raft, TypeConfig};

/// How long a new connection may take for TLS and hello.
pub(super) const HELLO_LIMIT: Duration = Duration::from_secs(2);
/// How long the wish to join may wait for a leader of the directory.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// After the system refused to give out another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that are past their hello and not yet served.
const INCOMING_MAX: usize = 16;
/// Streams of one connection: each group may have appends, heartbeats, a forward and calls.
const STREAMS_MAX: u32 = 4 * PARTITIONS_MAX;
/// Bytes of the headers of one request.
const HEADERS_BYTES_MAX: u32 = 4096;

/// A partition as peers reach it.
struct Served {
    partition: Arc<Partition>,
    receiving: Arc<Receiving>,
}

/// Starts accepting and serving on the node's runtime, until that ends.
pub(super) fn start(context: &Arc<Context>, listener: PeerListener, partitions: &[Arc<Partition>]) {
    let (sender, receiver) = mpsc::channel(INCOMING_MAX);
    let incoming = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|io: PeerIo| (Ok::<_, Infallible>(io), receiver))
    });
    let served = partitions
        .iter()
        .map(|partition| Served { partition: partition.clone(), receiving: Arc::default() })
        .collect();
    let service = PeerService { served, context: context.clone() };
    let directory = partitions.first().cloned();
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_LIMIT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX);
    tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(service, incoming).await {
            tracing::error!(%error, "peers are not served any more");
        }
    });
    tokio::spawn(accept(context.clone(), listener, sender, directory));
}

async fn accept(
    context: Arc<Context>,
    listener: PeerListener,
    incoming: mpsc::Sender<PeerIo>,
    directory: Option<Arc<Partition>>,
) {
    let places = Arc::new(Semaphore::new(context.connections_max));
    loop {
        let tcp = match listener.accept().await {
            Ok(tcp) => tcp,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("too many connections of peers: one more is closed");
            continue;
        };
        let (context, incoming) = (context.clone(), incoming.clone());
        let directory = directory.clone();
        tokio::spawn(async move {
            let (mut stream, hello) = match timeout(HELLO_LIMIT, greet(&context, tcp)).await {
                Ok(Ok((stream, Greeting::Member(hello)))) => (stream, hello),
                Ok(Ok((stream, Greeting::Stranger(ask)))) => {
                    let told = tell(&context, directory.as_deref(), ask).await;
                    return Visitor::new(stream).tell(&told).await;
                }
                Ok(Err(error)) => return tracing::warn!(%error, "a connection is refused"),
                Err(_) => return tracing::warn!("a connection said nothing and is closed"),
            };
            let admit = || context.admits(&hello);
            let stored = context.stored();
            match hello::answer(&mut stream, &hello, &context.myself, stored, admit).await {
                Ok(agreed) => {
                    context.agreed(agreed.peer, agreed.version);
                    context.heard(agreed.peer, agreed.clock_difference_ms);
                    let line = Line::new(agreed);
                    context.called(&hello, &line);
                    let io = PeerIo::new(stream, line, Some(place));
                    // The receiver ends with the runtime only.
                    drop(incoming.send(io).await);
                }
                // A clock that is too far off is not heard of: the hello may be an old one that
                // waited for a process that was suspended.
                Err(error) => tracing::warn!(%error, "a connection is refused"),
            }
        });
    }
}

async fn greet(context: &Context, tcp: PeerTcp) -> io::Result<(Stream, Greeting)> {
    tcp.set_nodelay()?;
    let mut stream = match &context.tls {
        None => Stream::Plain(tcp),
        Some(tls) => {
            let tls = tls.current().acceptor.accept(tcp).await?;
            Stream::Tls(Box::new(tls.into()))
        }
    };
    let greeting = hello::greeting(&mut stream).await?;
    Ok((stream, greeting))
}

/// What a node is told that is no member.
async fn tell(context: &Context, directory: Option<&Partition>, ask: Ask) -> Told {
    let identity = context.myself.identity;
    let Some(directory) = directory else { return Told::named(identity) };
    let cluster = directory.applied.read().state.directory().cluster().cloned();
    match (ask, cluster) {
        (Ask::Who, None) => Told::named(identity),
        (Ask::Who, Some(_)) => Told::Member { node: identity.node },
        (Ask::Offer { node, founding }, _) => {
            if (founding.cluster, node) == (identity.cluster, identity.node) {
                Told::Accepted
            } else {
                Told::Refused(format!("this is node {} of another cluster", identity.node))
            }
        }
        (Ask::Join { .. }, None) => Told::Refused("the cluster is not founded yet".into()),
        (Ask::Join { nonce, info }, Some(cluster)) => {
            let command = Command::Directory(DirectoryCommand::Join { nonce, info });
            match directory.propose_until(command, JOIN_LIMIT).await {
                Ok(Outcome::Joined { node }) => {
                    Told::Joined { cluster: identity.cluster, node, partitions: cluster.partitions }
                }
                Ok(other) => Told::Refused(format!("{other:?}")),
                Err(error) => Told::Refused(error.to_string()),
            }
        }
    }
}

/// What answers the calls of all connections.
#[derive(Clone)]
struct PeerService {
    served: Arc<[Served]>,
    context: Arc<Context>,
}

impl Service<http::Request<Body>> for PeerService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(line) = request.extensions().get::<Arc<Line>>().cloned() else {
            return future::ready(Ok(Status::internal("no connection").into_http())).boxed();
        };
        let service = self.clone();
        match request.uri().path() {
            PATH_CALL => respond(line, request, move |line, calls| service.calls(line, calls)),
            PATH_APPEND => respond(line, request, move |line, items| service.appends(line, items)),
            PATH_FORWARD => {
                respond(line, request, move |line, items| service.forwards(line, items))
            }
            PATH_ASK => respond(line, request, move |line, asked| service.asks(line, asked)),
            _ => {
                line.close();
                future::ready(Ok(Status::unimplemented("no such call").into_http())).boxed()
            }
        }
    }
}

type Answers<A> = Pin<Box<dyn Items<Item = Result<A, Status>> + Send>>;

/// Carries messages of one kind in and answers of another kind out.
fn respond<M, A>(
    line: Arc<Line>,
    request: http::Request<Body>,
    handle: impl FnOnce(Arc<Line>, Streaming<M>) -> Answers<A> + Send + 'static,
) -> future::BoxFuture<'static, Result<http::Response<Body>, Infallible>>
where
    M: DeserializeOwned + Send + Sync + 'static,
    A: Serialize + Send + Sync + 'static,
{
    let codec: PeerCodec<A, M> = PeerCodec::new(line.agreed.version);
    let mut grpc = Grpc::new(codec)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let handle: Handle<M, A> = Box::new(move |messages| handle(line, messages));
    async move { Ok(grpc.streaming(Handler(Some(handle)), request).await) }.boxed()
}

/// A function as tonic wants it, called once.
struct Handler<M, A>(Option<Handle<M, A>>);

type Handle<M, A> = Box<dyn FnOnce(Streaming<M>) -> Answers<A> + Send>;

impl<M, A> Service<Request<Streaming<M>>> for Handler<M, A> {
    type Response = Response<Answers<A>>;
    type Error = Status;
    type Future = future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<M>>) -> Self::Future {
        future::ready(match self.0.take() {
            Some(handle) => Ok(Response::new(handle(request.into_inner()))),
            None => Err(Status::internal("called twice")),
        })
    }
}

/// The next message; garbage is the connection's end.
async fn receive<M>(line: &Line, messages: &mut Streaming<M>) -> Option<M> {
    match messages.next().await? {
        Ok(message) => Some(message),
        Err(status) => {
            if is_garbage(&status) {
                let peer = line.agreed.peer;
                tracing::warn!(peer, %status, "a peer sends garbage: its connection is closed");
                line.close();
            }
            None
        }
    }
}

impl PeerService {
    fn find(&self, group: u32) -> Result<(&Served, &Raft), String> {
        let served = self.served.iter().find(|served| served.partition.number == group);
        match served.map(|served| (served, served.partition.raft.get())) {
            Some((served, Some(raft)))
                if !served.partition.stopped() && !served.partition.has_left() =>
            {
                Ok((served, raft))
            }
            Some(_) => Err(format!("group {group} does not run here now")),
            None => Err(format!("there is no group {group} here")),
        }
    }

    fn calls(self, line: Arc<Line>, mut calls: Streaming<Call>) -> Answers<Answer> {
        Box::pin(stream::once(async move {
            let Some(call) = receive(&line, &mut calls).await else {
                return Err(Status::cancelled("no call"));
            };
            let peer = line.agreed.peer;
            Ok(self.answer(peer, call).await.unwrap_or_else(Answer::Refused))
        }))
    }

    fn asks(self, line: Arc<Line>, mut asked: Streaming<Question>) -> Answers<Reply> {
        Box::pin(stream::once(async move {
            let Some(question) = receive(&line, &mut asked).await else {
                return Err(Status::cancelled("no question"));
            };
            Ok(self.context.answers.answer(question).await)
        }))
    }

    async fn answer(&self, peer: NodeId, call: Call) -> Result<Answer, String> {
        Ok(match call {
            Call::Clock => Answer::Clock { wall_ms: self.context.myself.wall.ms() },
            Call::Pulse(disk) => {
                // An old word, if it is refused: the connection was not.
                let _ = self.context.remember(peer, Some(disk));
                let disk = self.context.myself.disk(self.context.stored());
                Answer::Pulse { wall_ms: self.context.myself.wall.ms(), disk }
            }
            Call::Vote { group, ballot } => {
                let (_, raft) = self.find(group)?;
                Answer::Voted(Voted::of(&raft.vote(ballot.raft()).await.map_err(text)?))
            }
            Call::PreVote { group, ballot } => {
                let (_, raft) = self.find(group)?;
                Answer::Voted(Voted::of(&raft.pre_vote(ballot.raft()).await.map_err(text)?))
            }
            Call::Transfer { group, transfer } => {
                let (_, raft) = self.find(group)?;
                let taken = raft.handle_transfer_leader(transfer.raft()).await.map_err(text)?;
                Answer::Transferred(taken.map_err(text))
            }
            Call::ReadIndex { group } => {
                let (served, _) = self.find(group)?;
                // Who asks waits until it has applied as much.
                served.partition.listeners.note();
                let reading = served.partition.read_index();
                Answer::ReadIndex(timeout(READ_INDEX_LIMIT, reading).await.map_err(text)??)
            }
            Call::SnapshotBegin { group, id } => {
                let (served, _) = self.find(group)?;
                let begun = served.receiving.begin(&served.partition, id).await;
                Answer::Received(begun.map_err(text)?)
            }
            Call::SnapshotPiece { group, id, offset, bytes } => {
                let (served, _) = self.find(group)?;
                let piece = served.receiving.piece(&served.partition, id, offset, bytes).await;
                Answer::Received(piece.map_err(text)?)
            }
            Call::SnapshotEnd { group, id, vote } => {
                let (served, _) = self.find(group)?;
                let installed = served.receiving.end(&served.partition, id, vote).await;
                Answer::Installed(installed.map_err(text)?)
            }
        })
    }

    fn appends(self, line: Arc<Line>, mut appends: Streaming<Append>) -> Answers<Appended> {
        // The group is known with the first message only.
        let begun = async move {
            let first = receive(&line, &mut appends).await;
            let first = first.ok_or_else(|| Status::cancelled("no append"))?;
            let group = first.group;
            let (served, raft) = self.find(group).map_err(Status::unavailable)?;
            let requests = requests(line, served.partition.clone(), first, appends);
            let answers: Pin<Box<dyn Items<Item = _> + Send>> =
                Box::pin(raft.stream_append(requests));
            Ok::<_, Status>(answers.map(|result| match result {
                Ok(result) => Ok(Appended::of(&result)),
                Err(fatal) => Err(Status::unavailable(fatal.to_string())),
            }))
        };
        Box::pin(stream::once(begun).flat_map(|begun| match begun {
            Ok(answers) => answers.left_stream(),
            Err(status) => stream::once(future::ready(Err(status))).right_stream(),
        }))
    }

    fn forwards(self, line: Arc<Line>, forwards: Streaming<Forward>) -> Answers<Forwarded> {
        let from = line.agreed.peer;
        let messages = stream::unfold((line, forwards), |(line, mut forwards)| async move {
            receive(&line, &mut forwards).await.map(|message| (message, (line, forwards)))
        });
        // The commands enter the queue when the message is taken, so in the order of the messages.
        let answers = messages.map(move |message| {
            let partition = match self.find(message.group) {
                Ok((served, _)) => Some(served.partition.clone()),
                Err(_) => None,
            };
            forward::accept(partition, from, message).map(Ok)
        });
        Box::pin(answers.buffered(forward::FORWARDS_IN_FLIGHT_MAX))
    }
}

/// The appends of one stream as raft takes them; ends with the first that is not right.
fn requests(
    line: Arc<Line>,
    partition: Arc<Partition>,
    first: Append,
    appends: Streaming<Append>,
) -> impl Items<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    let first = (line, partition, Some(first), appends);
    stream::unfold(first, move |(line, partition, first, mut appends)| async move {
        let append = match first {
            Some(first) => first,
            None => tokio::select! {
                biased;
                () = partition.left() => return None,
                append = receive(&line, &mut appends) => append?,
            },
        };
        partition.heard_leader(append.committed_next());
        match append.raft_of(partition.number) {
            Ok(request) => Some((request, (line, partition, None, appends))),
            Err(error) => {
                tracing::warn!(peer = line.agreed.peer, %error, "an append is malformed");
                line.close();
                None
            }
        }
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
