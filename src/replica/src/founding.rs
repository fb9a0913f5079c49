//! Which node of which cluster an empty data directory becomes.
//!
//! ```text
//! founding, first node:  all others answer and are empty ─▶ own disk ─▶ each other's disk ─▶ raft begins
//! founding, other node:  an offer comes ─▶ own disk ─▶ raft waits for the first node
//! joining:               a member is asked ─▶ the directory gives a number
//! either:                a cluster is there already ─▶ joining, else founding
//! ```
//!
//! Invariants: a cluster is founded by nodes that were all empty, once: whoever has agreed has the
//! cluster's and its own number on disk before raft begins. A node that lost its disk finds members
//! and stops, or joins where it was told that it may: under a new number.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ackord_machine::site::{
    Batch, Command, DirectoryCommand, NodeInfo, Placement, Stamp, State, apply,
};
use ackord_store::Identity;
use openraft::BasicNode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::options::NodeOptions;
use crate::peer::{Ask, Founding, Listening, PeerOptions, Told};
use crate::types::{NodeId, decode_versioned, encode_versioned};

/// There from the moment a node agreed to a founding until the directory has all of it.
const FOUNDING_FILE: &str = "founding";
/// There instead, on the first node, once all others have agreed: nobody is offered a number again,
/// who is empty from now on has lost its disk.
const OFFERED_FILE: &str = "founding.offered";
/// There from the moment a node wants to join.
const JOINING_FILE: &str = "joining";
/// Between two looks at nodes that are not there yet.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// So often, in looks, it is said who is waited for.
const SAY_EVERY: u32 = 25;

/// A founding that this node agreed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreed {
    pub(crate) node: NodeId,
    pub(crate) founding: Founding,
}

impl Agreed {
    fn identity(&self) -> Identity {
        Identity { cluster: self.founding.cluster, node: self.node }
    }

    /// What takes the first nodes down in the directory.
    pub(crate) fn command(&self) -> Command {
        let Founding { cluster: _, partitions, replication, members } = &self.founding;
        let info = |address: &String| NodeInfo { address: address.clone(), ..NodeInfo::default() };
        Command::Directory(DirectoryCommand::Found {
            partitions: *partitions,
            replication: *replication,
            nodes: members.iter().map(|(id, address)| (*id, info(address))).collect(),
        })
    }

    /// A node that is a cluster of its own.
    pub(crate) fn alone(identity: Identity, partitions: u32) -> Self {
        let members = BTreeMap::from([(identity.node, String::new())]);
        let Identity { cluster, node } = identity;
        Self { node, founding: Founding { cluster, partitions, replication: 3, members } }
    }

    /// The first voters of a group and where they are.
    pub(crate) fn first_members(&self, wanted: &Placement) -> BTreeMap<NodeId, BasicNode> {
        let members = self.founding.members.iter();
        let voters = members.filter(|(id, _)| wanted.voters.contains(id));
        voters.map(|(id, address)| (*id, BasicNode::new(address))).collect()
    }

    /// Who votes in each group at first: the directory, then partition by partition.
    pub(crate) fn placement(&self) -> Vec<Placement> {
        let mut state = State::new();
        apply(&mut state, &Batch { stamp: Stamp(0), commands: vec![self.command()] });
        state.directory().placement()
    }
}

/// What a start begins with.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// Whose data directory it is to be; `None`: whoever it belongs to.
    pub(crate) identity: Option<Identity>,
    /// The founding that is not finished.
    pub(crate) agreed: Option<Agreed>,
    /// The partitions of the cluster, where somebody else has said.
    pub(crate) partitions: Option<u32>,
}

/// Finds out which node this is, however long it takes.
pub(crate) async fn begin(
    options: &NodeOptions,
    peers: &PeerOptions,
    listening: &Listening,
) -> Result<Beginning, StartError> {
    let dir = &options.dir;
    std::fs::create_dir_all(dir)?;
    if let Some(agreed) = read(&dir.join(OFFERED_FILE))? {
        return Ok(beginning(agreed));
    }
    let agreed: Option<Agreed> = read(&dir.join(FOUNDING_FILE))?;
    if let Some(agreed) = agreed {
        if agreed.is_first() {
            offer(dir, listening, &agreed).await?;
        }
        return Ok(beginning(agreed));
    }
    if dir.join("format").exists() {
        return Ok(Beginning::default());
    }
    // A node that began to join never founds.
    let began = dir.join(JOINING_FILE).exists();
    if !peers.join.is_empty() && (peers.initial.is_empty() || began) {
        return join(dir, peers, listening).await;
    }
    if peers.initial.is_empty() {
        return Err(StartError::Options {
            field: "peers.initial",
            detail: "a new node needs the nodes to found a cluster with, or `join`".into(),
        });
    }
    let mine = advertised(peers, &listening.address);
    if !peers.join.is_empty() && !peers.initial.contains(&mine) {
        return join(dir, peers, listening).await;
    }
    match found(options, peers, listening).await {
        Ok(agreed) => Ok(beginning(agreed)),
        Err(StartError::Lost { node, address }) if !peers.join.is_empty() => {
            tracing::info!(node, address, "the cluster is there already: joining it");
            join(dir, peers, listening).await
        }
        Err(error) => Err(error),
    }
}

/// The founding is part of the directory: nothing more has to be remembered.
pub(crate) fn finished(dir: &Path) -> io::Result<()> {
    for name in [FOUNDING_FILE, OFFERED_FILE] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    std::fs::File::open(dir)?.sync_all()
}

/// Where other nodes reach this one.
pub(crate) fn advertised(peers: &PeerOptions, listening: &std::net::SocketAddr) -> String {
    peers.advertise.clone().unwrap_or_else(|| listening.to_string())
}

impl Agreed {
    fn is_first(&self) -> bool {
        self.founding.members.keys().next() == Some(&self.node)
    }
}

fn beginning(agreed: Agreed) -> Beginning {
    Beginning {
        identity: Some(agreed.identity()),
        partitions: Some(agreed.founding.partitions),
        agreed: Some(agreed),
    }
}

/// An empty node that is to found a cluster with others.
async fn found(
    options: &NodeOptions,
    peers: &PeerOptions,
    listening: &Listening,
) -> Result<Agreed, StartError> {
    let mine = advertised(peers, &listening.address);
    let Some(place) = peers.initial.iter().position(|address| *address == mine) else {
        let detail = format!("{mine}, this node's own address, must be one of them");
        return Err(StartError::Options { field: "peers.initial", detail });
    };
    let answering = answer_while_empty(&options.dir, peers, listening);
    let looking = async {
        let first = place == 0;
        let mut looks = 0u32;
        loop {
            let missing = missing(peers, &mine, listening).await?;
            if first && missing.is_empty() {
                return Ok::<_, StartError>(());
            }
            if looks.is_multiple_of(SAY_EVERY) {
                let what = if first { missing.join(", ") } else { peers.initial[0].clone() };
                // Nodes that are started together find each other before the second look.
                if looks == 0 {
                    tracing::info!("waiting for the other nodes to found a cluster: {what}");
                } else {
                    tracing::warn!("waiting for the other nodes to found a cluster: {what}");
                }
            }
            looks = looks.wrapping_add(1);
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::select! {
        agreed = answering => agreed,
        looked = looking => {
            looked?;
            let mut cluster = [0; 16];
            getrandom::fill(&mut cluster).map_err(|error| io::Error::other(error.to_string()))?;
            let founding = Founding {
                cluster,
                partitions: options.partitions,
                replication: peers.replication,
                members: (1..).zip(peers.initial.iter().cloned()).collect::<BTreeMap<_, _>>(),
            };
            let agreed = Agreed { node: 1, founding };
            write(&options.dir, FOUNDING_FILE, &agreed)?;
            offer(&options.dir, listening, &agreed).await?;
            Ok(agreed)
        }
    }
}

/// The initial nodes that do not answer as empty ones; an error when one belongs to a cluster.
async fn missing(
    peers: &PeerOptions,
    mine: &str,
    listening: &Listening,
) -> Result<Vec<String>, StartError> {
    let mut missing = Vec::new();
    for address in peers.initial.iter().filter(|address| *address != mine) {
        match listening.ask(address, &Ask::Who).await {
            Ok(Told::Empty { initial }) if initial == peers.initial => {}
            Ok(Told::Empty { .. }) => {
                missing.push(format!("{address} (has another peers.initial)"))
            }
            Ok(Told::Member { node }) => {
                return Err(StartError::Lost { node, address: address.clone() });
            }
            Ok(Told::Named { .. }) => {
                missing.push(format!("{address} (agreed to an earlier founding)"))
            }
            Ok(other) => missing.push(format!("{address} ({other:?})")),
            Err(error) => missing.push(format!("{address} ({error})")),
        }
    }
    Ok(missing)
}

/// Answers others until one of them makes an offer, which is on disk when this returns.
async fn answer_while_empty(
    dir: &Path,
    peers: &PeerOptions,
    listening: &Listening,
) -> Result<Agreed, StartError> {
    loop {
        let Some((visitor, question)) = listening.accept().await else { continue };
        let mut accepted = None;
        let told = match question {
            Ask::Who => Told::Empty { initial: peers.initial.clone() },
            Ask::Offer { node, founding } => {
                let agreed = Agreed { node, founding };
                write(dir, FOUNDING_FILE, &agreed)?;
                accepted = Some(agreed);
                Told::Accepted
            }
            Ask::Join { .. } => Told::Refused("this node is not of any cluster".into()),
        };
        visitor.tell(&told).await;
        if let Some(agreed) = accepted {
            return Ok(agreed);
        }
    }
}

/// Offers every other first node its number until all have it on disk, and remembers that.
async fn offer(dir: &Path, listening: &Listening, agreed: &Agreed) -> Result<(), StartError> {
    let answering = async {
        loop {
            let Some((visitor, question)) = listening.accept().await else { continue };
            let told = match question {
                Ask::Who => Told::named(agreed.identity()),
                Ask::Offer { .. } => Told::Refused("this node founds a cluster itself".into()),
                Ask::Join { .. } => Told::Refused("the cluster is not founded yet".into()),
            };
            visitor.tell(&told).await;
        }
    };
    let offering = async {
        for (node, address) in &agreed.founding.members {
            if *node == agreed.node {
                continue;
            }
            let question = Ask::Offer { node: *node, founding: agreed.founding.clone() };
            let mut looks = 0u32;
            loop {
                let why = match listening.ask(address, &question).await {
                    Ok(Told::Accepted) => break,
                    Ok(other) => format!("{other:?}"),
                    Err(error) => error.to_string(),
                };
                if looks.is_multiple_of(SAY_EVERY) {
                    tracing::warn!(node, address, why, "a node has not agreed to the founding yet");
                }
                looks = looks.wrapping_add(1);
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }
    };
    tracing::info!(dir = %dir.display(), "founding a cluster");
    tokio::select! {
        () = answering => {}
        () = offering => {}
    }
    std::fs::rename(dir.join(FOUNDING_FILE), dir.join(OFFERED_FILE))?;
    Ok(std::fs::File::open(dir)?.sync_all()?)
}

/// An empty node that is to become a member of a cluster that exists.
async fn join(
    dir: &Path,
    peers: &PeerOptions,
    listening: &Listening,
) -> Result<Beginning, StartError> {
    let file = dir.join(JOINING_FILE);
    let nonce: [u8; 16] = match read(&file)? {
        Some(nonce) => nonce,
        None => {
            let mut nonce = [0; 16];
            getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
            write(dir, JOINING_FILE, &nonce)?;
            nonce
        }
    };
    let info = NodeInfo { address: advertised(peers, &listening.address), ..NodeInfo::default() };
    let mut looks = 0u32;
    loop {
        for address in &peers.join {
            let question = Ask::Join { nonce, info: info.clone() };
            let why = match listening.ask(address, &question).await {
                Ok(Told::Joined { cluster, node, partitions }) => {
                    tracing::info!(node, "joined the cluster");
                    let identity = Some(Identity { cluster, node });
                    return Ok(Beginning { identity, agreed: None, partitions: Some(partitions) });
                }
                Ok(Told::Refused(why)) => why,
                Ok(other) => format!("{other:?}"),
                Err(error) => error.to_string(),
            };
            if looks.is_multiple_of(SAY_EVERY) {
                tracing::warn!(address, why, "not taken into the cluster yet");
            }
        }
        looks = looks.wrapping_add(1);
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn read<T: DeserializeOwned>(path: &PathBuf) -> Result<Option<T>, StartError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let decoded = decode_versioned(&bytes, "founding");
    decoded.map(Some).map_err(|error| StartError::Store(format!("{}: {error}", path.display())))
}

fn write(dir: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let (beside, path) = (dir.join(format!("{name}.new")), dir.join(name));
    let mut file = std::fs::File::create(&beside)?;
    io::Write::write_all(&mut file, &encode_versioned(value)?)?;
    file.sync_all()?;
    std::fs::rename(beside, path)?;
    std::fs::File::open(dir)?.sync_all()
}
