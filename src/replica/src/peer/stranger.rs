//! What a node says that belongs to no cluster yet, and what it is told.
//!
//! Over the same listener and the same TLS as members, one question and one answer per connection.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ackord_machine::site::NodeInfo;
use ackord_store::Identity;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::hello;
use super::io::Stream;
use super::options::TlsSetup;
use crate::ground::{Ground, PeerTcp};
use crate::types::NodeId;

/// Connecting, TLS, question and answer: the answer may wait for the disk and for a leader.
const ASK_LIMIT: Duration = Duration::from_secs(15);

/// What the founding of a cluster has agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founding {
    /// The cluster.
    pub(crate) cluster: [u8; 16],
    /// Its partitions.
    pub(crate) partitions: u32,
    /// Voters of each, when there are so many nodes.
    pub(crate) replication: u32,
    /// Its first nodes and where they are.
    pub(crate) members: BTreeMap<NodeId, String>,
}

/// A question of a stranger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Who is there?
    Who,
    /// Be this node of the cluster that is being founded.
    Offer {
        /// Its number.
        node: NodeId,
        /// Everything else.
        founding: Founding,
    },
    /// May this node be one of the cluster?
    Join {
        /// The request's identity.
        nonce: [u8; 16],
        /// What the node says about itself.
        info: NodeInfo,
    },
}

/// The answer to a stranger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// A node with nothing on its disk that waits to found a cluster with these.
    Empty {
        /// As it was configured.
        initial: Vec<String>,
    },
    /// A node of a cluster that may still be being founded.
    Named {
        /// The cluster.
        cluster: [u8; 16],
        /// The node.
        node: NodeId,
    },
    /// A node of a cluster that exists.
    Member {
        /// The node.
        node: NodeId,
    },
    /// The offer is on its disk.
    Accepted,
    /// The asking node is a member now.
    Joined {
        /// The cluster.
        cluster: [u8; 16],
        /// Its number.
        node: NodeId,
        /// The cluster's partitions.
        partitions: u32,
    },
    /// No.
    Refused(String),
}

impl Told {
    pub(crate) fn named(identity: Identity) -> Self {
        Self::Named { cluster: identity.cluster, node: identity.node }
    }
}

/// Asks whoever listens at `address`.
pub(super) async fn ask(
    ground: Option<&Ground>,
    from: IpAddr,
    tls: Option<&TlsSetup>,
    address: &str,
    question: &Ask,
) -> io::Result<Told> {
    let asking = async {
        let tcp = PeerTcp::connect(ground, from, address).await?;
        let mut stream = match tls {
            None => Stream::Plain(tcp),
            Some(tls) => {
                let name = tls.name_for(address).map_err(io::Error::other)?;
                Stream::Tls(Box::new(tls.connector.connect(name, tcp).await?.into()))
            }
        };
        hello::ask(&mut stream, question).await
    };
    timeout(ASK_LIMIT, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
