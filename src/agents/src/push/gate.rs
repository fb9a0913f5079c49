//! Room for requests: so many at a node, so many of one site, so many of a site to one host. What finds
//! none waits its turn.
//!
//! Invariant: whoever waits for room to one host holds no room of its site meanwhile, and whoever waits
//! for room of its site holds none of the node. So a host that hangs keeps no other waiting, and a
//! site whose hosts all hang keeps no other site waiting.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use ackord_machine::site::SiteName;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sites, or hosts of sites, after which those without requests are forgotten.
const KEPT: usize = 1024;

/// See the module.
pub(crate) struct Gate {
    node: Arc<Semaphore>,
    sites: Rooms<SiteName>,
    hosts: Rooms<(SiteName, String)>,
}

/// Room for one request; given back when dropped.
pub(crate) struct Pass {
    _host: OwnedSemaphorePermit,
    _site: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

/// As many places for each.
struct Rooms<K> {
    most: usize,
    known: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Eq + Hash> Rooms<K> {
    fn new(most: usize) -> Self {
        Self { most: most.clamp(1, Semaphore::MAX_PERMITS), known: Mutex::default() }
    }

    fn of(&self, key: K) -> Arc<Semaphore> {
        let mut known = self.known.lock();
        if known.len() >= KEPT && !known.contains_key(&key) {
            known.retain(|_, room| Arc::strong_count(room) > 1);
        }
        known.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.most))).clone()
    }
}

impl Gate {
    pub fn new(node_max: usize, site_max: usize, host_max: usize) -> Self {
        let node = Arc::new(Semaphore::new(node_max.clamp(1, Semaphore::MAX_PERMITS)));
        Self { node, sites: Rooms::new(site_max), hosts: Rooms::new(host_max) }
    }

    /// Waits for room.
    pub async fn pass(&self, site: &SiteName, host: &str) -> Option<Pass> {
        let of_host = self.hosts.of((site.clone(), host.to_owned()));
        // None is ever closed.
        let host = of_host.acquire_owned().await.ok()?;
        let site = self.sites.of(site.clone()).acquire_owned().await.ok()?;
        let node = self.node.clone().acquire_owned().await.ok()?;
        Some(Pass { _host: host, _site: site, _node: node })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn passes(gate: &Gate, site: &str, host: &str) -> bool {
        gate.pass(&site.into(), host).now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_host_that_is_full_keeps_no_other_waiting() {
        let (gate, site) = (Gate::new(6, 3, 2), SiteName::from("s"));
        let held = [gate.pass(&site, "a").await, gate.pass(&site, "a").await];
        assert!(!passes(&gate, "s", "a"));
        assert!(passes(&gate, "s", "b"));
        assert!(passes(&gate, "t", "a"), "another site has places of its own");
        drop(held);
        assert!(passes(&gate, "s", "a"));
    }

    #[tokio::test]
    async fn a_site_that_is_full_keeps_no_other_waiting() {
        let (gate, site) = (Gate::new(6, 3, 2), SiteName::from("s"));
        let held =
            [gate.pass(&site, "a").await, gate.pass(&site, "b").await, gate.pass(&site, "c").await];
        let mut waits = Box::pin(gate.pass(&site, "d"));
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(passes(&gate, "t", "d"), "what waits holds no room of the node");
        drop(held);
        assert!(waits.now_or_never().is_some());
    }
}
