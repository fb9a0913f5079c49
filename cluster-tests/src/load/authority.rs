//! Private events, and one that takes a role: of two clients one is granted the role and loses it again
//! and again, the other one never has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ackord_endpoint::Event;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use serde_json::json;
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::{Cast, Judged, OUTCOME, Workload, number};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::history::{Entry, Handled, History};
use crate::listener::Listener;
use crate::oracle::{self, Expectations};
use crate::raiser::{self, Raiser};
use crate::seed::Seed;
use crate::site::{Site, private, queueing, structure, with};
use crate::wait;

/// Between two events of the service.
const PACE: Duration = Duration::from_millis(40);
/// For one client alone.
const LETTER: &str = "letter";
/// For those with the role.
const SECRET: &str = "secret";
/// The clients, who are users as well. Only the first one is ever granted the role.
const CLIENTS: [&str; 2] = ["ann", "bob"];

/// See the module.
pub struct Authority {
    cast: Cast,
    publishing: JoinHandle<()>,
    granting: JoinHandle<u64>,
    listeners: Vec<Listener>,
}

/// Letters to one after the other, and between them secrets.
async fn publish(raiser: Raiser, progress: Arc<Progress>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !progress.is_stopping() {
        pace.tick().await;
        if !progress.has_room() {
            continue;
        }
        for client in CLIENTS {
            let n = progress.next_number();
            let letter = raiser::json(json!({ "n": n, "to": client }));
            let since = Instant::now();
            let outcome = raiser.outcome(Event::private(LETTER, client, letter)).await;
            outcome.expect("a letter is never refused");
            progress.acknowledge(since.elapsed());
        }
        let secret = raiser::json(json!({ "n": progress.next_number() }));
        let since = Instant::now();
        let outcome = raiser.outcome(Event::new(SECRET, Some(secret))).await;
        outcome.expect("a secret is never refused");
        progress.acknowledge(since.elapsed());
    }
    assert_eq!(raiser.close().await, 0, "everything is acknowledged");
}

/// Grants and revokes, each by whatever node takes it; ends with a grant.
async fn grant(
    admins: Vec<Admin>,
    site: String,
    history: History,
    progress: Arc<Progress>,
    mut seed: Seed,
) -> u64 {
    let mut revoked = 0;
    let mut granted = true;
    while !(granted && progress.is_stopping()) {
        granted = !granted;
        let entry = |known| Entry::Authority {
            client: CLIENTS[0].to_owned(),
            event: SECRET.to_owned(),
            granted,
            known,
        };
        history.record(entry(false));
        let roles: &[&str] = if granted { &["insider"] } else { &[] };
        let mut at = seed.between(0, admins.len() as u64) as usize;
        while !admins[at].put_user_over(&site, CLIENTS[0], roles).await {
            at = (at + 1) % admins.len();
            tokio::time::sleep(wait::POLL).await;
        }
        history.record(entry(true));
        revoked += u64::from(!granted);
        if !progress.is_stopping() {
            tokio::time::sleep(seed.millis(50, 800)).await;
        }
    }
    revoked
}

impl Authority {
    /// Makes the site and starts everybody.
    pub async fn start(cluster: &Cluster, mut seed: Seed) -> Self {
        let secret = with(queueing(SECRET, 50_000), "access", json!({ "roles": ["insider"] }));
        let structure = structure(&[private(LETTER), secret]);
        let structure = with(structure, "roles", json!(["insider"]));
        let site =
            Site::new_at(cluster.admin(1), cluster.urls_from(1), "authority", &structure).await;
        let service = site.service("writes").await;
        let progress = Arc::<Progress>::default();
        let mut listeners = Vec::new();
        for (index, id) in CLIENTS.into_iter().enumerate() {
            site.user(id, if index == 0 { &["insider"] } else { &[] }).await;
            let account = site.client(id, Some(id)).await;
            let counter = progress.clone();
            let builder = site.listener(&account).via_all(cluster.urls_from(index + 2));
            let builder = builder.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
            let builder = builder.handles(move |handled: Handled| {
                if handled.event == LETTER {
                    counter.reach(index, number(&handled));
                }
                async { Ok(()) }
            });
            listeners.push(builder.to(LETTER).to(SECRET).subscribed(2).await);
        }
        let raiser = site.raiser(&service).via_all(cluster.urls_from(1));
        let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
        let publishing = tokio::spawn(publish(raiser.start().await, progress.clone()));
        let admins = cluster.nodes().map(|node| cluster.admin(node)).collect();
        let (history, name) = (site.history.clone(), site.name.clone());
        let granting = grant(admins, name, history, progress.clone(), seed.fork());
        Self {
            cast: Cast::new(&site, &CLIENTS, &progress),
            granting: tokio::spawn(granting),
            publishing,
            listeners,
        }
    }

    async fn end(self, cluster: &Cluster) -> Judged {
        let Self { cast, publishing, granting, listeners } = self;
        let Cast { site, progress, .. } = cast.at_end(cluster);
        let published = tokio::time::timeout(OUTCOME, publishing).await;
        published.expect("authority: an outcome is missing").expect("no panic");
        let granted = tokio::time::timeout(OUTCOME, granting).await;
        let revoked = granted.expect("authority: a grant hangs").expect("no panic");
        assert!(revoked > 0, "the role was never revoked");
        let secrets = site.retained(SECRET).await.last().copied().unwrap_or(0);
        wait::until_for(OUTCOME, "ann to be at the newest secret", async || {
            (site.cursor(CLIENTS[0], SECRET).await == secrets).then_some(())
        })
        .await;
        for (client, newest) in CLIENTS.iter().zip(newest_letters(&site.history)) {
            wait::until_for(OUTCOME, &format!("{client} to have all letters"), async || {
                let handled = site.history.handled(client);
                let last = handled.iter().rev().find(|handled| handled.event == LETTER);
                (last.map(|handled| handled.instance_id) == newest).then_some(())
            })
            .await;
        }
        let mut handled = 0;
        for listener in listeners {
            handled += listener.handled().len() as u64;
            listener.close().await;
        }
        let expectations = Expectations {
            complete: vec![(SECRET.to_owned(), CLIENTS[0].to_owned())],
            unique_events: [LETTER, SECRET].map(str::to_owned).into(),
            ordered_services: ["writes".to_owned()].into(),
            ..Expectations::default()
        };
        let mut violations = oracle::judge(&site.history, &expectations);
        let stolen = site.history.handled(CLIENTS[1]);
        let stolen = stolen.iter().filter(|handled| handled.event == SECRET);
        violations.extend(stolen.map(|handled| oracle::Violation {
            property: "authority_respected",
            detail: format!("secret {} came to bob", handled.instance_id),
        }));
        cluster.until_equal(&site.name).await;
        eprintln!("authority: {} events, revoked {revoked} times", progress.acknowledged());
        Judged { acknowledged: progress.acknowledged(), handled, violations }
    }
}

/// The last letter to each client that was acknowledged.
fn newest_letters(history: &History) -> [Option<u64>; 2] {
    let mut newest = [None; 2];
    let mut calls = std::collections::BTreeMap::new();
    for entry in history.entries() {
        match entry {
            Entry::Raised { call, event, args: Some(args), .. } if event == LETTER => {
                let to = CLIENTS.iter().position(|client| args.contains(&format!("\"{client}\"")));
                calls.insert(call, to.expect("a letter to one of them"));
            }
            Entry::Acknowledged { call, instance_id, .. } => {
                if let Some(to) = calls.get(&call) {
                    newest[*to] = newest[*to].max(instance_id);
                }
            }
            Entry::Raised { .. }
            | Entry::Rejected { .. }
            | Entry::HandlerStarted { .. }
            | Entry::HandlerEnded { .. }
            | Entry::Committed { .. }
            | Entry::Killed { .. }
            | Entry::Authority { .. }
            | Entry::Administration(_)
            | Entry::Opened { .. }
            | Entry::Measured { .. }
            | Entry::Hashed { .. } => {}
        }
    }
    newest
}

impl Workload for Authority {
    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn finish<'a>(self: Box<Self>, cluster: &'a Cluster) -> LocalBoxFuture<'a, Judged> {
        (*self).end(cluster).boxed_local()
    }
}
