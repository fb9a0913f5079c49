//! The first thing two nodes say to each other, before anything else is parsed.
//!
//! `connecting: [magic][length][hello] ─▶ listening: checks ─▶ [magic][length][welcome | refusal]`
//!
//! Invariants: a connection carries requests only when both sides are of one cluster, the
//! listening one is the node that was meant, they share a protocol version, and their clocks agree
//! within the bound. The frame of the hello itself never changes; what is in it only grows by
//! what older nodes can ignore.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use ackord_store::Identity;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::stranger::{Ask, Told};
use crate::ground::Wall;
use crate::types::NodeId;

/// The protocol versions that this release can speak. With 2 there are questions (`ask`), with 3 the log
/// may have raises with a trace context, with 4 connected nodes say how far their stores are.
pub(super) const VERSIONS: RangeInclusive<u8> = 1..=4;
/// The first with trace contexts.
pub(crate) const TRACES: u8 = 3;
/// The first with pulses.
pub(super) const PULSES: u8 = 4;

/// Nothing else on the network begins like these: what members of a cluster say,
const MEMBER: [u8; 8] = *b"ACKORD-P";
/// and what a node says that is none yet.
const STRANGER: [u8; 8] = *b"ACKORD-S";
/// A hello is some fifty bytes; a stranger may name all nodes.
const HELLO_BYTES_MAX: usize = 32 << 10;
/// A difference of this share of what is allowed is worth a warning.
const SKEW_WARN_SHARE: u32 = 5;

/// What both sides know about themselves.
#[derive(Clone, Debug)]
pub(super) struct Myself {
    pub(super) identity: Identity,
    pub(super) versions: RangeInclusive<u8>,
    pub(super) clock_skew_max: Duration,
    /// Where other nodes reach this one.
    pub(super) at: String,
    /// This run of the process: no other has the same number.
    pub(super) run: u64,
    pub(super) wall: Wall,
}

impl Myself {
    pub(super) fn disk(&self, stored: u64) -> Disk {
        Disk { run: self.run, stored }
    }
}

/// Who connects, as far as its first words say.
#[derive(Debug)]
pub(super) enum Greeting {
    Member(Hello),
    Stranger(Ask),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    version_min: u8,
    version_max: u8,
    cluster: [u8; 16],
    from: NodeId,
    to: NodeId,
    wall_ms: u64,
    at: String,
    run: u64,
    /// Behind the rest; releases before the fourth protocol have none.
    #[serde(skip)]
    disk: Option<Disk>,
}

/// How far the store of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disk {
    /// The run of the process.
    pub(super) run: u64,
    /// The number of the store's last durable write.
    pub(super) stored: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Welcome { version: u8, wall_ms: u64 },
    Refused(Refusal),
}

/// Why two nodes do not talk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    /// Different releases, too far apart.
    #[error("it speaks protocol {theirs_min}..={theirs_max}, this node {ours_min}..={ours_max}")]
    Version { theirs_min: u8, theirs_max: u8, ours_min: u8, ours_max: u8 },
    /// Two clusters, one address.
    #[error("it belongs to another cluster")]
    Cluster,
    /// The address belongs to another node now.
    #[error("the node here is {found}, not {wanted}")]
    Node { found: NodeId, wanted: NodeId },
    /// It was removed from the cluster.
    #[error("node {node} is no member of the cluster any more")]
    Removed { node: NodeId },
    /// Two processes, one number: one of them has a copy of the other's disk.
    #[error("node {node} runs already, as another process: stop one of them")]
    Twice { node: NodeId },
    /// Time would depend on who leads.
    #[error("the clocks differ by {difference_ms} ms, {max_ms} ms are allowed")]
    Clock { difference_ms: u64, max_ms: u64 },
    /// What it had promised is gone.
    #[error(
        "the disk of node {node} is older than what the node has said: {stored} durable writes, \
         {known} before"
    )]
    WentBack { node: NodeId, stored: u64, known: u64 },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error("refused by the other node: {0}")]
    RefusedThere(Refusal),
    #[error("refused here: {0}")]
    RefusedHere(Refusal),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a hello came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) peer: NodeId,
    pub(super) version: u8,
    /// The other's wall clock minus ours.
    pub(super) clock_difference_ms: i64,
    /// How far its store was.
    pub(super) disk: Option<Disk>,
}

/// The connecting side.
pub(super) async fn offer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    myself: &Myself,
    stored: u64,
    to: NodeId,
) -> Result<Agreed, HelloError> {
    let sent = Instant::now();
    let hello = Hello {
        version_min: *myself.versions.start(),
        version_max: *myself.versions.end(),
        cluster: myself.identity.cluster,
        from: myself.identity.node,
        to,
        wall_ms: myself.wall.ms(),
        at: myself.at.clone(),
        run: myself.run,
        disk: None,
    };
    write(stream, MEMBER, &(hello, myself.disk(stored))).await?;
    let (reply, disk) = read(stream, MEMBER).await?;
    match reply {
        Reply::Refused(refusal) => Err(HelloError::RefusedThere(refusal)),
        Reply::Welcome { version, wall_ms: theirs } => {
            let version =
                agree(version, version, &myself.versions).map_err(HelloError::RefusedHere)?;
            // The other clock was read about half way between.
            let ours = myself.wall.ms().saturating_sub(sent.elapsed().as_millis() as u64 / 2);
            let clock_difference_ms = check_clock(theirs, ours, myself.clock_skew_max, to)
                .map_err(HelloError::RefusedHere)?;
            Ok(Agreed { peer: to, version, clock_difference_ms, disk })
        }
    }
}

/// The listening side: what the other one says first.
pub(super) async fn greeting(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Greeting> {
    let (magic, body) = frame(stream).await?;
    match magic {
        MEMBER => {
            let (hello, disk) = parse(&body)?;
            Ok(Greeting::Member(Hello { disk, ..hello }))
        }
        STRANGER => parse(&body).map(|(ask, _)| Greeting::Stranger(ask)),
        _ => Err(bad("this is no node of ackord")),
    }
}

/// The listening side, when a member connects; `admit` says what is known of it beside what its
/// hello says, and is asked last.
pub(super) async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: &Hello,
    myself: &Myself,
    stored: u64,
    admit: impl FnOnce() -> Result<(), Refusal>,
) -> Result<Agreed, HelloError> {
    match judge(hello, myself).and_then(|agreed| admit().map(|()| agreed)) {
        Ok(agreed) => {
            let welcome = Reply::Welcome { version: agreed.version, wall_ms: myself.wall.ms() };
            write(stream, MEMBER, &(welcome, myself.disk(stored))).await?;
            Ok(agreed)
        }
        Err(refusal) => {
            write(stream, MEMBER, &Reply::Refused(refusal.clone())).await?;
            // The other side reads the reason before it sees the end.
            stream.shutdown().await?;
            Err(HelloError::RefusedHere(refusal))
        }
    }
}

fn judge(hello: &Hello, myself: &Myself) -> Result<Agreed, Refusal> {
    let version = agree(hello.version_min, hello.version_max, &myself.versions)?;
    if hello.cluster != myself.identity.cluster {
        return Err(Refusal::Cluster);
    }
    if hello.to != myself.identity.node {
        return Err(Refusal::Node { found: myself.identity.node, wanted: hello.to });
    }
    let clock_difference_ms =
        check_clock(hello.wall_ms, myself.wall.ms(), myself.clock_skew_max, hello.from)?;
    Ok(Agreed { peer: hello.from, version, clock_difference_ms, disk: hello.disk })
}

/// The newest version that both speak.
fn agree(min: u8, max: u8, ours: &RangeInclusive<u8>) -> Result<u8, Refusal> {
    let version = max.min(*ours.end());
    if version >= min && ours.contains(&version) {
        return Ok(version);
    }
    Err(Refusal::Version {
        theirs_min: min,
        theirs_max: max,
        ours_min: *ours.start(),
        ours_max: *ours.end(),
    })
}

impl Hello {
    /// Who connects, as which run of its process.
    pub(super) fn who(&self) -> (NodeId, u64) {
        (self.from, self.run)
    }

    /// How far its store is, if it says so.
    pub(super) fn disk(&self) -> Option<Disk> {
        self.disk
    }

    /// Where it can be reached.
    pub(super) fn at(&self) -> &str {
        &self.at
    }
}

/// `theirs` minus `ours`, brought into what fits.
fn difference(theirs: u64, ours: u64) -> i64 {
    let signed = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs < ours { -signed } else { signed }
}

/// The other clock minus ours, when that is little enough.
pub(super) fn check_clock(
    theirs: u64,
    ours: u64,
    max: Duration,
    peer: NodeId,
) -> Result<i64, Refusal> {
    let (signed, max_ms) = compare(theirs, ours, max, peer);
    let difference_ms = signed.unsigned_abs();
    if difference_ms > max_ms { Err(Refusal::Clock { difference_ms, max_ms }) } else { Ok(signed) }
}

/// The other clock minus ours, and what is allowed, milliseconds; warns when it is much.
pub(super) fn compare(theirs: u64, ours: u64, max: Duration, peer: NodeId) -> (i64, u64) {
    let difference_ms = theirs.abs_diff(ours);
    let max_ms = max.as_millis() as u64;
    if difference_ms > (max / SKEW_WARN_SHARE).as_millis() as u64 {
        tracing::warn!(peer, difference_ms, max_ms, "the clocks of two nodes differ");
    }
    (difference(theirs, ours), max_ms)
}

/// Asks as a node that is no member.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ask: &Ask,
) -> io::Result<Told> {
    write(stream, STRANGER, ask).await?;
    read(stream, STRANGER).await.map(|(told, _)| told)
}

/// Answers a node that is no member.
pub(super) async fn tell(stream: &mut (impl AsyncWrite + Unpin), told: &Told) -> io::Result<()> {
    write(stream, STRANGER, told).await?;
    stream.shutdown().await
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    magic: [u8; 8],
    message: &impl Serialize,
) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u16::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = magic.to_vec();
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<([u8; 8], Vec<u8>)> {
    let mut head = [0; 10];
    stream.read_exact(&mut head).await?;
    let [magic @ .., low, high] = head;
    if magic != MEMBER && magic != STRANGER {
        return Err(bad("this is no node of ackord"));
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    if length > HELLO_BYTES_MAX {
        return Err(bad("the hello is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((magic, body))
}

/// The message, and what releases from the fourth protocol on have behind it.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> io::Result<(T, Option<Disk>)> {
    let malformed = |_| bad("the hello is malformed");
    let (message, rest) = postcard::take_from_bytes(body).map_err(malformed)?;
    if rest.is_empty() {
        return Ok((message, None));
    }
    let (disk, _newer) = postcard::take_from_bytes(rest).map_err(malformed)?;
    Ok((message, Some(disk)))
}

async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    wanted: [u8; 8],
) -> io::Result<(T, Option<Disk>)> {
    let (magic, body) = frame(stream).await?;
    if magic != wanted {
        return Err(bad("this is no answer to what was said"));
    }
    parse(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn myself(node: NodeId) -> Myself {
        Myself {
            identity: Identity { cluster: [7; 16], node },
            versions: VERSIONS,
            clock_skew_max: Duration::from_secs(5),
            at: String::new(),
            run: node,
            wall: Wall::default(),
        }
    }

    /// What both sides say when node 1 as `connecting` looks for node 2 and finds `listening`.
    async fn meet(
        connecting: Myself,
        listening: Myself,
    ) -> (Result<Agreed, HelloError>, Result<Agreed, HelloError>) {
        let (mut here, mut there) = tokio::io::duplex(4096);
        let listen = async {
            match greeting(&mut there).await? {
                Greeting::Member(hello) => {
                    answer(&mut there, &hello, &listening, 20, || Ok(())).await
                }
                Greeting::Stranger(ask) => panic!("{ask:?}"),
            }
        };
        tokio::join!(offer(&mut here, &connecting, 10, 2), listen)
    }

    async fn check_refused(connecting: Myself, listening: Myself, text: &str) {
        let (here, there) = meet(connecting, listening).await;
        let Err(HelloError::RefusedThere(_)) = &here else { panic!("{here:?}") };
        assert!(here.unwrap_err().to_string().contains(text));
        assert!(matches!(there, Err(HelloError::RefusedHere(_))));
    }

    #[tokio::test]
    async fn given_two_nodes_of_a_cluster_when_they_meet_then_they_agree() {
        let (here, there) = meet(myself(1), myself(2)).await;
        let (here, there) = (here.unwrap(), there.unwrap());
        assert_eq!((here.peer, there.peer, here.version, there.version), (2, 1, 4, 4));
        assert_eq!(here.disk, Some(Disk { run: 2, stored: 20 }));
        assert_eq!(there.disk, Some(Disk { run: 1, stored: 10 }));
        assert!(here.clock_difference_ms.abs() < 1000);
    }

    #[tokio::test]
    async fn given_a_stranger_when_it_says_hello_then_it_is_told_why_not() {
        let mut other = myself(2);
        other.identity.cluster = [8; 16];
        check_refused(myself(1), other, "another cluster").await;
        check_refused(myself(1), myself(3), "the node here is 3, not 2").await;
        let newer = Myself { versions: 5..=6, ..myself(2) };
        check_refused(myself(1), newer, "protocol 1..=4").await;
    }

    #[tokio::test]
    async fn given_releases_next_to_each_other_when_they_meet_then_they_speak_the_older_protocol() {
        let newer = Myself { versions: 2..=5, ..myself(2) };
        let (here, there) = meet(myself(1), newer.clone()).await;
        assert_eq!((here.unwrap().version, there.unwrap().version), (4, 4));
        let held_back = Myself { versions: 1..=1, ..newer.clone() };
        let (here, _) = meet(myself(1), held_back).await;
        assert_eq!(here.unwrap().version, 1);
    }

    #[test]
    fn given_clocks_apart_when_checked_then_the_bound_counts_in_both_directions() {
        let max = Duration::from_secs(5);
        assert_eq!(check_clock(10_000, 15_000, max, 1), Ok(-5_000));
        assert_eq!(check_clock(15_000, 10_000, max, 1), Ok(5_000));
        let refused = Refusal::Clock { difference_ms: 5_001, max_ms: 5_000 };
        assert_eq!(check_clock(10_000, 15_001, max, 1), Err(refused.clone()));
        assert_eq!(check_clock(15_001, 10_000, max, 1), Err(refused));
    }

    #[tokio::test]
    async fn given_garbage_when_a_hello_is_expected_then_it_is_an_error_without_waiting_for_more() {
        for garbage in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"ACKORD-P\xff\xff", b"ACKORD-S\x02\0\xff\xff"]
        {
            let (mut here, mut there) = tokio::io::duplex(4096);
            here.write_all(garbage).await.unwrap();
            assert!(greeting(&mut there).await.is_err());
        }
    }
}
