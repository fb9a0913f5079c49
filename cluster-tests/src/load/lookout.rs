//! Somebody who looks at cursors, at whatever node: what a client was told to be committed, every node
//! that answers knows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use tokio::task::JoinHandle;

use super::{Cast, EVENT};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::history::History;
use crate::oracle::Violation;
use crate::seed::Seed;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(30);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// See the module. It stops when it is dropped.
pub struct Lookout {
    looking: JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    looks: u64,
    violations: Vec<Violation>,
}

impl Lookout {
    /// Looks at the cursor of a site's first client from now on.
    pub fn start(cluster: &Cluster, cast: &Cast, seed: Seed) -> Self {
        let Cast { site, clients, .. } = cast;
        let client = clients[0].clone();
        let admins: Vec<Admin> = cluster.nodes().map(|node| cluster.admin(node)).collect();
        let seen = Arc::<Mutex<Seen>>::default();
        let path = format!("/v1/sites/{}/clients/{client}/subscriptions/{EVENT}", site.name);
        let looking = look(admins, path, client, site.history.clone(), seen.clone(), seed);
        Self { looking: tokio::spawn(looking), seen }
    }

    /// What it saw that must not be.
    ///
    /// # Panics
    /// When it never saw anything.
    pub fn end(self) -> Vec<Violation> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(seen.looks > 0, "nobody ever showed a cursor");
        seen.violations
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(
    admins: Vec<Admin>,
    path: String,
    client: String,
    history: History,
    seen: Arc<Mutex<Seen>>,
    mut seed: Seed,
) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let admin = &admins[seed.between(0, admins.len() as u64) as usize];
        let told = history.committed(&client, EVENT);
        let asked = tokio::time::timeout(ANSWER, admin.call(Method::GET, &path, None)).await;
        let Ok(Ok(shown)) = asked else { continue };
        let Some(cursor) = shown["position"]["instance_id"].as_u64() else { continue };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.looks += 1;
        if cursor < told {
            let detail = format!("{client} was told {told}, and later a node showed {cursor}");
            seen.violations.push(Violation { property: "cursor_linearizable", detail });
        }
    }
}
