//! Administrators who make, change and remove things, each at whatever node answers and with answers
//! that get lost, and others who look at them meanwhile.
//!
//! Invariants: a thing has one administrator, who asks for one change at a time; a request is given up
//! after a while, and then nobody knows what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::OUTCOME;
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::history::{Administration as Act, Entry, History};
use crate::oracle::{self, Expectations, Violation};
use crate::seed::Seed;
use crate::site::{Site, queueing, structure, with};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two changes of one administrator.
const PACE: Duration = Duration::from_millis(100);
/// Between two looks of one who looks.
const LOOKS: Duration = Duration::from_millis(40);
/// Who look.
const LOOKERS: usize = 2;
/// Tries of one change.
const TRIES: u64 = 3;

/// The site in which it happens, beside one that comes and goes itself.
const SITE: &str = "administered";
const EVENT: &str = "reading";
/// So many roles tell so many sets apart as there are numbers of so many bits.
const ROLES: u32 = 14;

/// What is changed.
const THINGS: &[Thing] = &[
    Thing { path: "comes-and-goes", kind: Kind::Presence, removable: true },
    Thing { path: "administered/services/some", kind: Kind::Presence, removable: true },
    Thing { path: "administered/clients/some", kind: Kind::Presence, removable: true },
    Thing { path: "administered/users/some", kind: Kind::Roles, removable: true },
    Thing { path: "administered/structure", kind: Kind::Size, removable: false },
    Thing {
        path: "administered/clients/stays/subscriptions/reading",
        kind: Kind::Patience,
        removable: true,
    },
];

/// Something that is changed.
struct Thing {
    path: &'static str,
    kind: Kind,
    removable: bool,
}

/// What of it says which change was the last.
#[derive(Clone, Copy)]
enum Kind {
    /// That it is there.
    Presence,
    /// The roles of a user.
    Roles,
    /// The size of a queue.
    Size,
    /// How long an acknowledgement may take.
    Patience,
}

fn declared(size: u64) -> Value {
    let roles: Vec<String> = (0..ROLES).map(role).collect();
    with(structure(&[queueing(EVENT, size as u32)]), "roles", json!(roles))
}

fn role(bit: u32) -> String {
    format!("role {bit}")
}

impl Kind {
    /// The body that makes it the n-th.
    fn body(self, n: u64) -> Value {
        match self {
            Self::Presence => json!({}),
            Self::Roles => {
                let held = (0..ROLES).filter(|bit| n & 1 << bit != 0).map(role);
                json!({ "roles": held.collect::<Vec<_>>() })
            }
            Self::Size => declared(n),
            Self::Patience => json!({ "ack_timeout_ms": 10_000 + n }),
        }
    }

    /// What tells the n-th from the others.
    fn value(self, n: u64) -> String {
        match self {
            Self::Presence => "there".to_owned(),
            Self::Roles | Self::Size | Self::Patience => n.to_string(),
        }
    }

    /// The same, of what was shown.
    fn shown(self, shown: &Value) -> Option<String> {
        match self {
            Self::Presence => Some("there".to_owned()),
            Self::Roles => {
                let roles = shown["roles"].as_array()?;
                let bit = |bit: u32| roles.iter().any(|held| *held == role(bit));
                let n = (0..ROLES).filter(|at| bit(*at)).fold(0, |n: u64, at| n | 1 << at);
                Some(n.to_string())
            }
            Self::Size => Some(shown["structure"]["events"][0]["size"].as_u64()?.to_string()),
            Self::Patience => {
                Some(shown["ack_timeout_ms"].as_u64()?.saturating_sub(10_000).to_string())
            }
        }
    }
}

/// What both kinds of people have.
#[derive(Clone)]
struct People {
    admins: Vec<Admin>,
    history: History,
    stopping: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    looked: Arc<AtomicU64>,
}

impl People {
    fn somebody(&self, seed: &mut Seed) -> &Admin {
        &self.admins[seed.between(0, self.admins.len() as u64) as usize]
    }

    /// Asks for a change once; whether its outcome is known.
    async fn change(&self, thing: &Thing, n: Option<u64>, seed: &mut Seed) -> bool {
        let value = n.map(|n| thing.kind.value(n));
        let path = format!("/v1/sites/{}", thing.path);
        let what = thing.path.to_owned();
        let act = self.history.administers(|act| Act::Asked { act, what, value });
        let method = if n.is_some() { Method::PUT } else { Method::DELETE };
        let asked = self.somebody(seed).ask(method, &path, n.map(|n| thing.kind.body(n)));
        let done = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(Ok(_))) => true,
            // Refused for good: nothing of it is left anywhere.
            Ok(Ok(Err(problem))) if [400, 404, 409, 422].contains(&problem.status) => false,
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => return false,
        };
        self.history.record(Entry::Administration(Act::Answered { act, done }));
        self.done.fetch_add(u64::from(done), Ordering::Relaxed);
        true
    }

    async fn administer(self, thing: &'static Thing, mut seed: Seed) {
        let mut n = 0;
        while !self.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(PACE).await;
            n += 1;
            let removes = thing.removable && seed.between(0, 3) == 0;
            let to = (!removes).then_some(n);
            // Tried again as long as nobody knows; or not.
            for _ in 0..seed.between(1, TRIES + 1) {
                if self.change(thing, to, &mut seed).await {
                    break;
                }
            }
        }
    }

    /// Looks at something once; whether there was an answer.
    async fn look(&self, thing: &Thing, seed: &mut Seed) -> bool {
        let path = format!("/v1/sites/{}", thing.path);
        let what = thing.path.to_owned();
        let act = self.history.administers(|act| Act::Looked { act, what });
        let asked = self.somebody(seed).ask(Method::GET, &path, None);
        let value = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(Ok(shown))) => thing.kind.shown(&shown),
            Ok(Ok(Err(problem))) if problem.status == 404 => None,
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => return false,
        };
        self.history.record(Entry::Administration(Act::Shown { act, value }));
        self.looked.fetch_add(1, Ordering::Relaxed);
        true
    }

    async fn watch(self, mut seed: Seed) {
        while !self.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOKS).await;
            let thing = &THINGS[seed.between(0, THINGS.len() as u64) as usize];
            self.look(thing, &mut seed).await;
        }
    }
}

/// See the module. They stop when it is dropped.
pub struct Administration {
    people: People,
    busy: Vec<JoinHandle<()>>,
    seed: Seed,
}

impl Administration {
    /// Makes the site and lets them begin.
    pub async fn start(cluster: &Cluster, mut seed: Seed) -> Self {
        let (admin, urls) = (cluster.admin(1), cluster.urls_from(1));
        let site = Site::new_at(admin, urls, SITE, &declared(50_000)).await;
        site.guest("stays").await;
        let people = People {
            admins: cluster.nodes().map(|node| cluster.admin(node)).collect(),
            history: site.history,
            stopping: Arc::default(),
            done: Arc::default(),
            looked: Arc::default(),
        };
        let act = people.history.administers(|act| {
            let what = format!("{SITE}/structure");
            Act::Asked { act, what, value: Some("50000".to_owned()) }
        });
        people.history.record(Entry::Administration(Act::Answered { act, done: true }));
        let mut busy = Vec::new();
        for thing in THINGS {
            busy.push(tokio::spawn(people.clone().administer(thing, seed.fork())));
        }
        for _ in 0..LOOKERS {
            busy.push(tokio::spawn(people.clone().watch(seed.fork())));
        }
        Self { people, busy, seed }
    }

    /// Lets them finish, looks at everything once more at every node, and judges what they saw.
    ///
    /// # Panics
    /// When nothing was ever changed, or nothing seen.
    pub async fn end(mut self, cluster: &Cluster) -> Vec<Violation> {
        self.people.stopping.store(true, Ordering::Relaxed);
        for busy in std::mem::take(&mut self.busy) {
            let ended = tokio::time::timeout(OUTCOME, busy).await;
            ended.expect("an administrator hangs").expect("no panic");
        }
        for node in cluster.running() {
            self.people.admins = vec![cluster.admin(node)];
            for thing in THINGS {
                while !self.people.look(thing, &mut self.seed).await {}
            }
        }
        let (done, looked) = (&self.people.done, &self.people.looked);
        let (done, looked) = (done.load(Ordering::Relaxed), looked.load(Ordering::Relaxed));
        assert!(done > 0 && looked > 0, "{done} changes, {looked} looks");
        eprintln!("{SITE}: {done} changes, seen {looked} times");
        cluster.until_equal(SITE).await;
        oracle::judge(&self.people.history, &Expectations::default())
    }
}

impl Drop for Administration {
    fn drop(&mut self) {
        self.busy.iter().for_each(JoinHandle::abort);
    }
}
