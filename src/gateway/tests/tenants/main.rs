//! A tenant cannot see or guess another: the same requests at nodes that differ only in what the
//! other tenant has get the same answers.
//!
//! The requests are made from the OpenAPI document of a running node, so a new address is asked
//! without anybody remembering it, and one that belongs to no known [`Scope`] fails the test. Each is
//! asked by every kind of bearer of the first tenant, at its own addresses, at the other's and at
//! those of a site that is not there, with names, cursors, keys, tickets and acknowledgements that
//! are the other's. `ACKORD_TEST_SEED=N` replays, `ACKORD_TEST_ROUNDS=N` asks for more.

#![allow(clippy::unwrap_used)]

mod ask;
#[allow(dead_code)]
#[path = "../conformance/case.rs"]
mod case;
#[allow(dead_code)]
#[path = "../conformance/chance.rs"]
mod chance;
#[allow(dead_code)]
#[path = "../conformance/document.rs"]
mod document;
mod guess;
#[allow(dead_code)]
#[path = "../conformance/raw.rs"]
mod raw;
mod rival;
#[path = "../support/mod.rs"]
mod support;
mod told;
#[allow(dead_code)]
#[path = "../conformance/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use ask::{At, Scope};
use chance::Chance;
use document::{Document, Operation};
use futures_util::future::join_all;
use rival::{Loot, MARK, Rival};
use serde_json::{Value, json};
use support::Socket;
use told::Told;
use world::World;

const JSON: &str = "ackord.v1.json";
/// Rounds over all operations that the gate can afford.
const ROUNDS: u64 = 24;
/// Any will do; it is printed with a failure.
const SEED: u64 = 20_251_203;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The same number for the same bytes.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A node with the first tenant, and what it has of the other one.
struct Tenancy {
    world: World,
    operator: String,
    rival: Option<Rival>,
    /// What the first tenant has open.
    open: Vec<Socket>,
}

impl Tenancy {
    async fn start() -> Self {
        let world = World::start().await;
        let operator = world.node.token("demo", json!("operator")).await;
        let path = "/v1/sites/demo/clients/d";
        world.node.admin("PUT", path, Some(json!({"user": "u"}))).await.is(201);
        Self { world, operator, rival: None, open: Vec::new() }
    }

    /// A name that is kept in the same partition as the first tenant: nearer they cannot be.
    async fn neighbour(&self) -> String {
        let partition = async |site: &str| {
            let site = self.world.node.admin("GET", &format!("/v1/sites/{site}"), None).await;
            site.is(200)["partition"].clone()
        };
        let wanted = partition("demo").await;
        for number in 0.. {
            let name = format!("{MARK}-{number}");
            let path = format!("/v1/sites/{name}");
            self.world.node.admin("PUT", &path, None).await.is(201);
            let found = partition(&name).await;
            self.world.node.admin("DELETE", &path, None).await.is(204);
            if found == wanted {
                return name;
            }
        }
        unreachable!("half of all names fit");
    }

    /// Opens a session of a client, with an instance in flight, and one of a service.
    async fn open(&mut self) {
        let node = &self.world.node;
        let token = node.token("demo", json!({"client": "d"})).await;
        let mut client =
            node.socket("/v1/sites/demo/client", Some(&token), JSON).await.ok().unwrap();
        client.say(json!({"hello": {}})).await;
        client.hear_of("welcome").await;
        client.say(json!({"subscribe": {"items": [{"event": "reading"}]}})).await;
        client.hear_of("event").await;
        let token = &self.world.demo.service;
        let mut service =
            node.socket("/v1/sites/demo/service", Some(token), JSON).await.ok().unwrap();
        service.hello_service().await;
        self.open = vec![client, service];
    }

    /// Until the sessions that a request left behind have ended.
    async fn at_rest(&self) {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(2));
        for _ in 0..5000 {
            if self.world.node.broker.connections("demo") == self.open.len() as u64 {
                return;
            }
            looks.tick().await;
        }
        panic!("a session of the first tenant does not end");
    }

    async fn asked(
        &mut self,
        operation: &Operation,
        case: case::Case,
        mut chance: Chance,
        (rival, loot): (&str, &Loot),
    ) -> (raw::Request, At, raw::Reply) {
        self.world.prepare(operation).await;
        let whose = (&self.world, &*self.operator);
        let (request, at) = ask::wear(&mut chance, operation, case, whose, (rival, loot));
        let reply = raw::ask(&self.world.node.base, &request).await;
        if reply.status < 300 && at == At::Own {
            self.world.mend(operation).await;
        }
        self.at_rest().await;
        (request, at, reply)
    }
}

/// Whether an answer gives anything: a list of refusals gives nothing.
fn is_served(reply: &raw::Reply) -> bool {
    let refusals = || {
        let body: Value = serde_json::from_slice(&reply.body).ok()?;
        let results = body["results"].as_array()?.clone();
        Some(results.iter().all(|result| result["problem"].is_object()))
    };
    reply.status < 400 && refusals() != Some(true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_tenant_has_changes_no_answer() {
    let seed = setting("ACKORD_TEST_SEED", SEED);
    let mut worlds = [Tenancy::start().await, Tenancy::start().await, Tenancy::start().await];
    let rival = worlds[0].neighbour().await;
    for (world, variant) in worlds.iter_mut().zip([None, Some("one"), Some("two")]) {
        if let Some(variant) = variant {
            world.rival = Some(Rival::settle(&world.world.node, &rival, variant).await);
        }
    }
    let loot = worlds[1].rival.as_ref().unwrap().loot.clone();
    let document = Document::of(&worlds[0].world.node).await;
    let mut seen = BTreeMap::<(String, u16), u32>::new();
    let mut asked = 0;
    for round in 0..setting("ACKORD_TEST_ROUNDS", ROUNDS) {
        // Reads see sessions, too, now and then.
        let live = round % 4 == 3;
        if live {
            join_all(worlds.iter_mut().map(Tenancy::open)).await;
        }
        for (number, operation) in document.operations.iter().enumerate() {
            if live && operation.method != "GET" {
                continue;
            }
            let scope = Scope::of(operation);
            let seed = seed ^ (round << 20) ^ number as u64;
            let answers = join_all(worlds.iter_mut().map(|world| {
                let mut chance = Chance::new(seed);
                let case = case::make(&mut chance, operation, &document, &world.world);
                world.asked(operation, case, chance, (&rival, &loot))
            }));
            let answers = answers.await;
            let (_, at, first) = &answers[0];
            for (world, (request, _, reply)) in answers.iter().enumerate() {
                let failed = |what: &str| -> ! {
                    let told = answers.iter().map(|(_, _, reply)| format!("{reply:?}"));
                    panic!(
                        "{what}: {} at {at:?}, ACKORD_TEST_SEED={}, round {round}\n{request:?}\n{}",
                        operation.id,
                        setting("ACKORD_TEST_SEED", SEED),
                        told.collect::<Vec<_>>().join("\n---\n"),
                    )
                };
                let given = format!("{request:?}");
                let body = String::from_utf8_lossy(&reply.body);
                // What is said where there is no other tenant, this one has been told by a request.
                let alone = String::from_utf8_lossy(&answers[0].2.body);
                let known = |word: &str| given.contains(word) || alone.contains(word);
                let leaked = |word: &&str| body.contains(*word) && !known(word);
                if ["zqrival-one", "zqrival-two", "zqrival type", &*rival].iter().any(leaked) {
                    failed("it names something of the other tenant");
                }
                // Guests learn that a site is there by being admitted to it: both rivals admit them.
                let guest = !request.headers.iter().any(|(name, _)| name == "Authorization");
                let open = guest && *at == At::Rival;
                let first = if open { &answers[1].2 } else { first };
                match scope {
                    Scope::Totals | Scope::Figures => {}
                    Scope::Site if open && world == 0 => {}
                    Scope::Site | Scope::Node | Scope::Open => {
                        if Told::of(reply) != Told::of(first) {
                            failed("it depends on what the other tenant has");
                        }
                    }
                }
                match (scope, at) {
                    (Scope::Node, _) if reply.status != 401 && reply.status < 404 => {
                        failed("somebody of a site is served above the sites");
                    }
                    (Scope::Site | Scope::Figures, At::Rival | At::Missing)
                        if is_served(reply) && !open =>
                    {
                        failed("it was served at the address of another tenant");
                    }
                    _ => {}
                }
            }
            *seen.entry((format!("{:?} {at:?}", scope), first.status)).or_default() += 1;
            asked += 1;
        }
        for world in &mut worlds {
            world.open.clear();
            world.at_rest().await;
        }
    }
    println!("{asked} requests at three nodes: {seen:?}");
    for (at, status) in [("Site Own", 200), ("Site Own", 403), ("Site Rival", 401)] {
        let times = seen.get(&(at.to_owned(), status)).copied().unwrap_or(0);
        assert!(times > 20, "{at} was answered {status} {times} times only: {seen:?}");
    }
    for world in worlds {
        world.world.node.stop().await;
    }
}
