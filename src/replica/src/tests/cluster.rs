//! Several nodes in one process over real sockets, and what scenarios do to them.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use ackord_machine::site::{Command, Digest, Outcome, SiteName};
use ackord_store::Identity;
use openraft::async_runtime::watch::WatchReceiver;
use tempfile::TempDir;
use tokio::time::{Instant, interval, timeout};

use super::fixture::{hashes, options};
use super::proposals::Gate;
use super::proxy::Proxy;
use crate::node::Hooks;
use crate::{Node, NodeOptions, PartitionHandle, PeerOptions, ProposeError};

pub(super) const CLUSTER: [u8; 16] = [3; 16];
/// Longer than anything that is waited for on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn identity(node: u64) -> Identity {
    Identity { cluster: CLUSTER, node }
}

pub(super) fn peer_options() -> PeerOptions {
    PeerOptions::new("127.0.0.1:0".parse().unwrap())
}

/// Nodes 1..=n, which may be down.
pub(super) struct Cluster {
    members: BTreeMap<u64, Member>,
    adjust: fn(NodeOptions) -> NodeOptions,
}

struct Member {
    dir: TempDir,
    proxy: Proxy,
    syncs: Gate,
    node: Option<Node>,
}

impl Cluster {
    /// Founds a cluster in which every node votes in every partition.
    pub(super) async fn start(count: u64, adjust: fn(NodeOptions) -> NodeOptions) -> Self {
        let mut cluster = Self { members: BTreeMap::new(), adjust };
        for id in 1..=count {
            let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start().await);
            let member = Member { dir, proxy, syncs: Gate::default(), node: None };
            cluster.members.insert(id, member);
            cluster.restart(id);
        }
        let addresses: BTreeMap<_, _> = cluster
            .members
            .iter()
            .map(|(id, member)| (*id, member.proxy.address.to_string()))
            .collect();
        cluster.node(1).found(&addresses).await.unwrap();
        cluster.ready().await;
        cluster
    }

    pub(super) fn node(&self, id: u64) -> &Node {
        self.members[&id].node.as_ref().expect("the scenario has it running")
    }

    /// Where a node keeps everything.
    pub(super) fn dir(&self, id: u64) -> &std::path::Path {
        self.members[&id].dir.path()
    }

    pub(super) fn proxy(&self, id: u64) -> &Proxy {
        &self.members[&id].proxy
    }

    /// What a node's log reports as synced passes here.
    pub(super) fn syncs(&self, id: u64) -> &Gate {
        &self.members[&id].syncs
    }

    /// The nodes that run.
    pub(super) fn running(&self) -> Vec<u64> {
        let runs = |(id, member): (&u64, &Member)| member.node.is_some().then_some(*id);
        self.members.iter().filter_map(runs).collect()
    }

    /// Stops a node as a kill would.
    pub(super) fn kill(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("it is a member");
        member.proxy.cut();
        drop(member.node.take().expect("it runs"));
    }

    /// Ends a cut of the links to a running node.
    pub(super) fn reopen(&self, id: u64) {
        self.proxy(id).open(self.node(id).peer_address().unwrap());
    }

    /// The index of the last entry that a node's log of the partition has.
    pub(super) fn last_log(&self, id: u64, partition: u32) -> Option<u64> {
        let metrics = self.node(id).partitions()[partition as usize - 1].raft().data_metrics();
        let last = metrics.borrow_watched().last_log;
        last.map(|last| last.index())
    }

    /// Stops a node in order.
    pub(super) fn stop(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("it is a member");
        member.node.take().expect("it runs").shutdown();
        member.proxy.cut();
    }

    /// Starts a node that is down, on its data directory.
    pub(super) fn restart(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("it is a member");
        let options = NodeOptions {
            peers: Some(peer_options()),
            partitions: 2,
            ..options(member.dir.path())
        };
        let hooks = Hooks { identity: Some(identity(id)), ..member.syncs.hooks() };
        let mut options = (self.adjust)(options);
        if let Some(peers) = &mut options.peers {
            // Also those that it connects to find it through the proxy.
            peers.advertise = Some(member.proxy.address.to_string());
        }
        let node = Node::start_with(options, hooks).unwrap();
        member.proxy.open(node.peer_address().unwrap());
        member.node = Some(node);
    }

    /// Waits until every running node is ready.
    pub(super) async fn ready(&self) {
        eventually("all are ready", || self.running().into_iter().all(|id| self.node(id).ready()))
            .await;
    }

    /// Who leads the partition, according to a running node that knows.
    pub(super) async fn leader(&self, partition: u32) -> u64 {
        let found = std::cell::Cell::new(None);
        eventually("somebody leads", || {
            let leader = self.running().into_iter().find(|id| self.leads(*id, partition));
            found.set(leader);
            leader.is_some()
        })
        .await;
        found.get().expect("it was just found")
    }

    pub(super) fn leads(&self, id: u64, partition: u32) -> bool {
        self.node(id).partitions()[partition as usize - 1].raft().is_leader()
    }

    /// A running node that does not lead the partition.
    pub(super) async fn follower(&self, partition: u32) -> u64 {
        let leader = self.leader(partition).await;
        self.running().into_iter().find(|id| *id != leader).expect("there are several")
    }

    /// The states' hashes once every running node has applied what was acknowledged; all equal.
    pub(super) async fn equal_hashes(&self) -> Vec<Digest> {
        let mut seen = Vec::new();
        // Ticks and the like may be applied between two looks: then all look again.
        for _ in 0..100 {
            seen.clear();
            for id in self.running() {
                for partition in self.node(id).partitions() {
                    linearize(&partition).await;
                }
                seen.push(hashes(self.node(id)));
            }
            if seen.iter().all(|hashes| *hashes == seen[0]) {
                return seen.remove(0);
            }
        }
        panic!("the states differ: {seen:?}");
    }
}

/// Waits for a condition, and says which when it does not come.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    let mut looks = interval(Duration::from_millis(2));
    while !holds() {
        assert!(started.elapsed() < LIMIT, "waited in vain: {what}");
        looks.tick().await;
    }
}

pub(super) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Lets something change before the next attempt: the leader, mostly.
async fn change(at: &PartitionHandle) {
    let mut metrics = at.raft().server_metrics();
    metrics.borrow_and_update();
    // Nothing need change when only a connection has to come up.
    let _ = timeout(Duration::from_millis(20), metrics.changed()).await;
}

/// Proposes as a session does: again, under the same identity, until there is an outcome.
pub(super) async fn persist(at: &PartitionHandle, command: Command) -> Outcome {
    let proposing = async {
        loop {
            let result = match at.try_propose(command.clone()) {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            match result {
                Ok(outcome) => return outcome,
                Err(error) => assert!(error.retryable()),
            }
            change(at).await;
        }
    };
    within("a proposal that is repeated", proposing).await
}

/// Asks until a read is confirmed.
pub(super) async fn linearize(at: &PartitionHandle) {
    let reading = async {
        while let Err(error) = at.linearize().await {
            assert_eq!(error, ProposeError::Unavailable);
            change(at).await;
        }
    };
    within("a read that is repeated", reading).await;
}

/// The number of the site's partition.
pub(super) fn partition_of(cluster: &Cluster, site: &str) -> u32 {
    let any = cluster.running()[0];
    cluster.node(any).partition_of(&SiteName::from(site)).number()
}
