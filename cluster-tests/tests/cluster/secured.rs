//! Peers that speak TLS and know each other by their certificates: they serve as any cluster does,
//! and nobody without a certificate of their authority gets in.

use std::path::PathBuf;

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;
use cluster_tests::wait;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

use super::kills::GAP;
use cluster_tests::load::Load;

/// What a node says that nobody takes in,
const OUTSIDE: &str = "not taken into the cluster yet";
/// a member that refuses someone,
const REFUSED: &str = "a connection is refused";
/// and a member that reaches nobody.
const UNREACHABLE: &str = "cannot connect to a peer";

/// A certificate authority and what it signs, in a directory.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Self { dir, issuer };
        authority.file("authority", &authority.issuer.pem());
        authority
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// The table of a node with a certificate of this authority for loopback, where all nodes are
    /// reached; it trusts `trusted`.
    fn table(&self, node: usize, trusted: &Self) -> String {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let certificate = self.file(&format!("{node}.pem"), &certificate.pem());
        let key = self.file(&format!("{node}.key"), &key.serialize_pem());
        format!(
            "[cluster.tls]\nauthority = {}\ncertificate = {}\nkey = {}\n",
            json!(trusted.dir.path().join("authority")),
            json!(certificate),
            json!(key),
        )
    }
}

/// Three nodes with certificates of one authority.
async fn start(authority: &Authority) -> Cluster {
    let mut cluster = Cluster::prepare(3).expect("a cluster");
    for node in cluster.nodes() {
        let table = authority.table(node, authority);
        cluster.configure(node, &table).expect("a configuration");
    }
    cluster.start_all().await.expect("the cluster starts");
    cluster
}

/// The numbers of all nodes there ever were.
async fn known(cluster: &Cluster) -> Vec<u64> {
    let view = cluster.view(1).await.expect("the node answers");
    let nodes = view["nodes"].as_array().expect("nodes");
    nodes.iter().filter_map(|node| node["id"].as_u64()).collect()
}

/// How often a node has said this.
fn said(cluster: &Cluster, node: usize, what: &str) -> usize {
    cluster.log(node).matches(what).count()
}

/// Waits until a node has said this so often.
async fn until_said(cluster: &Cluster, node: usize, what: &str, times: usize) {
    let so_often = async || said(cluster, node, what) >= times;
    wait::until_true(&format!("node {node} to say {times} times: {what}"), so_often).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_peers_that_show_certificates() {
    let mut seed = Seed::of_test("cluster", "peers_that_show_certificates");
    let authority = Authority::new();
    let mut cluster = start(&authority).await;
    let load = Load::start(&cluster).await;
    for _ in 0..super::rounds(2) {
        load.flows(seed.between(5, 40)).await;
        load.longest_waits();
        let victims = cluster.some(&mut seed, 1);
        cluster.kill(victims[0]);
        load.flows(10).await;
        cluster.start_node(victims[0]).await.expect("the node starts again");
        cluster.until_ready(victims[0]).await;
        load.flows(10).await;
        load.check_waits(&format!("after {victims:?} was killed"), GAP);
    }
    load.finish(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_certificate_of_the_cluster_gets_neither_in_nor_back() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut cluster = start(&ours).await;
    let load = Load::start(&cluster).await;
    let members: Vec<String> = {
        let view = cluster.view(1).await.expect("the node answers");
        let nodes = view["nodes"].as_array().expect("nodes");
        nodes.iter().filter_map(|node| node["address"].as_str().map(str::to_owned)).collect()
    };
    // One whose certificate is of another authority; one that trusts only that; one without any.
    for table in [theirs.table(4, &ours), theirs.table(5, &theirs), String::new()] {
        let stranger = cluster.add(&members).expect("there is room");
        cluster.configure(stranger, &table).expect("a configuration");
        cluster.start_node(stranger).await.expect("it starts");
        until_said(&cluster, stranger, OUTSIDE, members.len()).await;
        assert!(!cluster.admin(stranger).is_ready().await);
        cluster.kill(stranger);
        let log = cluster.log(stranger);
        println!("{}", log.lines().find(|line| line.contains(OUTSIDE)).unwrap_or_default());
        assert_eq!(known(&cluster).await, [1, 2, 3], "a stranger is a member");
    }
    for node in cluster.running() {
        assert!(said(&cluster, node, REFUSED) > 0, "node {node} says whom it refused");
    }
    load.flows(10).await;

    // A member that comes back with a certificate of another authority is no peer either.
    cluster.kill(3);
    let (unreachable, refused) = (said(&cluster, 3, UNREACHABLE), said(&cluster, 1, REFUSED));
    cluster.configure(3, &theirs.table(3, &ours)).expect("a configuration");
    cluster.start_node(3).await.expect("it starts");
    until_said(&cluster, 3, UNREACHABLE, unreachable + 2).await;
    until_said(&cluster, 1, REFUSED, refused + 2).await;
    load.flows(10).await;
    assert!(!cluster.admin(3).is_ready().await, "nobody confirms it");
    let view = cluster.view(1).await.expect("the node answers");
    assert_eq!(view["nodes"][2]["connected"], false, "it is no peer");
    cluster.kill(3);
    cluster.configure(3, &ours.table(3, &ours)).expect("a configuration");
    cluster.start_node(3).await.expect("it starts");
    cluster.until_ready(3).await;
    load.finish(&mut cluster).await;
}
