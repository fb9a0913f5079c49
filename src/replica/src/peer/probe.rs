//! What tests do to connections: say hello by hand, and then nonsense.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;

use super::codec::PeerCodec;
use super::link::{Connection, PATH_CALL, connect};
use super::wire::{Answer, Call};
use super::{Peers, hello};
use crate::types::NodeId;

/// Ways to say nonsense after a proper hello.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Garbage {
    /// Bytes that are no HTTP/2.
    Frames,
    /// A message of the right size that means nothing.
    Malformed,
    /// A message above the bound.
    Oversized,
}

impl Peers {
    /// Connects and asks something harmless.
    pub(crate) async fn try_reach(&self, peer: NodeId, address: &str) -> Result<(), String> {
        let (context, address) = (self.context.clone(), address.to_owned());
        let reaching = async move {
            let connection = connect(&context, peer, &address).await.map_err(|e| e.to_string())?;
            match connection.call(Call::Clock).await {
                Ok(Answer::Clock { .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        self.run(reaching).await.expect("the runtime goes on")
    }

    /// How far a node's store is, as it said last.
    pub(crate) fn remembered(&self, peer: NodeId) -> Option<u64> {
        self.context.remembered.of(peer)
    }

    /// How many nodes this one is connected to.
    pub(crate) fn links_up(&self) -> usize {
        let links = self.links.lock();
        links.values().filter_map(std::sync::Weak::upgrade).filter(|links| links.is_up()).count()
    }

    /// Questions to a node that wait for their answers.
    pub(crate) fn asking(&self, peer: NodeId) -> usize {
        let links = self.links.lock().get(&peer).and_then(std::sync::Weak::upgrade);
        links.map_or(0, |links| super::ask::ASKED_MAX - links.asking.available_permits())
    }

    /// Connects, says nonsense, and waits until the connection is ended by the other side.
    pub(crate) async fn send_garbage(&self, peer: NodeId, address: SocketAddr, garbage: Garbage) {
        let context = self.context.clone();
        let sending = async move {
            match garbage {
                Garbage::Frames => {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    hello::offer(&mut stream, &context.myself, context.stored(), peer)
                        .await
                        .unwrap();
                    stream.write_all(&[0xff; 64]).await.unwrap();
                    let mut rest = Vec::new();
                    // Reset or closed: both are an end.
                    let _ = stream.read_to_end(&mut rest).await;
                }
                Garbage::Malformed => {
                    let connection = connect(&context, peer, &address.to_string()).await.unwrap();
                    send(&connection, (200_u8, 7_u64)).await;
                }
                Garbage::Oversized => {
                    let connection = connect(&context, peer, &address.to_string()).await.unwrap();
                    send(&connection, vec![7_u8; super::MESSAGE_BYTES_MAX + 1]).await;
                }
            }
        };
        self.run(Box::pin(sending)).await.expect("the runtime goes on");
    }
}

async fn send<M: serde::Serialize + Send + Sync + 'static>(connection: &Connection, message: M) {
    let line: Arc<_> = connection.line.clone();
    let mut client = tonic::client::Grpc::new(connection.channel.clone());
    client.ready().await.unwrap();
    let codec: PeerCodec<M, Answer> = PeerCodec::new(line.agreed.version);
    let messages = stream::once(std::future::ready(message));
    let path = PathAndQuery::from_static(PATH_CALL);
    let answer = client.streaming(Request::new(messages), path, codec).await;
    line.gone().await;
    if let Ok(answer) = answer {
        assert!(
            !matches!(answer.into_inner().message().await, Ok(Some(_))),
            "nonsense is answered"
        );
    }
}
