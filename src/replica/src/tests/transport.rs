//! Who may connect, and what a connection that says nonsense costs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ackord_store::Identity;
use ackord_tls::Refreshed;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cluster::{
    Cluster, LIMIT, eventually, identity, partition_of, peer_options, persist, within,
};
use super::fixture::options;
use super::replication::publisher;
use crate::node::Hooks;
use crate::peer::Garbage;
use crate::{Node, NodeOptions, PeerOptions, PeerTls, StartError};

/// A certificate authority and what it signs, in a directory.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("authority.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// A node's certificate for loopback.
    fn sign(&self, node: u64) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |name: String, text: String| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        PeerTls {
            authority: self.path(),
            certificate: file(format!("{node}.pem"), certificate.pem()),
            key: file(format!("{node}.key"), key.serialize_pem()),
            name: None,
        }
    }
}

fn start(dir: &Path, identity: Identity, peers: PeerOptions) -> Result<Node, StartError> {
    let options = NodeOptions { peers: Some(peers), partitions: 1, ..options(dir) };
    Node::start_with(options, Hooks { identity: Some(identity), ..Hooks::default() })
}

fn secured(tls: PeerTls) -> PeerOptions {
    PeerOptions { tls: Some(tls), ..peer_options() }
}

/// What node 1 with `from` says when it looks for node 2 at `to`.
async fn try_reach(from: &Node, to: SocketAddr) -> Result<(), String> {
    within("an attempt to connect", from.peers().try_reach(2, &to.to_string())).await
}

async fn check_refused(from: PeerOptions, to: PeerOptions, whose: Identity, why: &str) {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let here = start(dirs[0].path(), identity(1), from).unwrap();
    let there = start(dirs[1].path(), whose, to).unwrap();
    let refused = try_reach(&here, there.peer_address().unwrap()).await.unwrap_err();
    assert!(refused.contains(why), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_certificates_of_one_authority_when_connecting_then_the_nodes_talk() {
    let authority = Authority::new();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let here = start(dirs[0].path(), identity(1), secured(authority.sign(1))).unwrap();
    let there = start(dirs[1].path(), identity(2), secured(authority.sign(2))).unwrap();
    try_reach(&here, there.peer_address().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_stranger_when_connecting_then_it_is_refused_and_told_why() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let foreign = Identity { cluster: [9; 16], node: 2 };
    check_refused(peer_options(), peer_options(), foreign, "another cluster").await;
    check_refused(peer_options(), peer_options(), identity(3), "the node here is 3, not 2").await;
    let (here, there) = (secured(ours.sign(1)), secured(theirs.sign(2)));
    check_refused(here, there, identity(2), "invalid peer certificate").await;
    // The other direction: a certificate that the listening side does not trust.
    let impostor = PeerTls { authority: ours.path(), ..theirs.sign(1) };
    check_refused(secured(impostor), secured(ours.sign(2)), identity(2), "alert").await;
    check_refused(peer_options(), secured(ours.sign(2)), identity(2), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_an_address_others_can_reach_when_starting_without_tls_then_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let everywhere = PeerOptions::new("0.0.0.0:0".parse().unwrap());
    let Err(error) = start(dir.path(), identity(1), everywhere) else { panic!("it started") };
    assert!(matches!(error, StartError::Options { field: "peers.listen", .. }));
    assert!(error.to_string().contains("needs peers.tls"), "{error}");
    assert!(!error.retryable());
    let missing = PeerTls { authority: dir.path().join("none.pem"), ..Authority::new().sign(1) };
    let Err(error) = start(dir.path(), identity(1), secured(missing)) else { panic!("it started") };
    assert!(error.to_string().contains("none.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_that_runs_when_its_certificates_change_then_new_connections_use_them() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let here = start(dirs[0].path(), identity(1), secured(ours.sign(1))).unwrap();
    let stranger = theirs.sign(2);
    let there = start(dirs[1].path(), identity(2), secured(stranger.clone())).unwrap();
    let address = there.peer_address().unwrap();
    let refresh = async || {
        // Reading blocks.
        tokio::task::block_in_place(|| there.refresh_certificates().unwrap())
    };
    try_reach(&here, address).await.unwrap_err();
    assert_eq!(refresh().await, Refreshed::Unchanged);

    // What does not fit together changes nothing.
    let member = ours.sign(2);
    std::fs::copy(&member.certificate, &stranger.certificate).unwrap();
    assert!(matches!(refresh().await, Refreshed::Broken(_)));
    try_reach(&here, address).await.unwrap_err();

    std::fs::copy(&member.key, &stranger.key).unwrap();
    std::fs::copy(&member.authority, &stranger.authority).unwrap();
    assert_eq!(refresh().await, Refreshed::Changed);
    try_reach(&here, address).await.unwrap();
    assert!(there.certificate_not_after().is_some());
}

/// Everything that comes until the connection is closed.
async fn until_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
    // Reset or closed: both are an end.
    assert!(closed.is_ok(), "the connection was left open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_garbage_on_a_connection_when_read_then_that_connection_ends_and_no_other() {
    let cluster = Cluster::start(3, |options| options).await;
    let leader = cluster.leader(partition_of(&cluster, "plant")).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let address = cluster.node(leader).peer_address().unwrap();
    let lines = cluster.node(leader).peers().links_up();

    let mut noise = TcpStream::connect(address).await.unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until_closed(&mut noise).await;

    for garbage in [Garbage::Frames, Garbage::Malformed, Garbage::Oversized] {
        let peers = cluster.node(cluster.follower(1).await).peers();
        within("the end of the connection", peers.send_garbage(leader, address, garbage)).await;
        let command = publisher.raise(8);
        persist(&publisher.at, command).await;
    }
    assert_eq!(cluster.node(leader).peers().links_up(), lines);
    assert_eq!(publisher.retained().0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_link_on_which_nothing_moves_when_waiting_then_it_is_given_up_and_the_rest_goes_on()
{
    let cluster = Cluster::start(3, |options| options).await;
    let leader = cluster.leader(partition_of(&cluster, "plant")).await;
    let mut publisher = publisher(&cluster, leader, "plant").await;
    let frozen = cluster.follower(partition_of(&cluster, "plant")).await;
    let peers = cluster.node(leader).peers();
    eventually("all are connected", || peers.links_up() == 2).await;
    let started = std::time::Instant::now();
    cluster.proxy(frozen).freeze();
    eventually("the link is given up", || peers.links_up() < 2).await;
    // One second by the constants; the rest is for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let command = publisher.raise(8);
    persist(&publisher.at, command).await;
}
