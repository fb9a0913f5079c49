//! A site without any library of Ackord: a service raises over HTTP under idempotency keys, one client
//! polls, another one is called back.
//!
//! Invariants: whatever has no answer that counts is tried again at the next node, under the same key
//! or token; the polling client acknowledges what it has handled before without handling it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::{Cast, EVENT, Judged, OUTCOME, Workload, until_handled};
use crate::cluster::Cluster;
use crate::history::{Entry, Handled, History, Subscriber};
use crate::oracle::{self, Expectations, Violation};
use crate::receiver::{Manner, Receiver};
use crate::site::{Account, Site, queueing, structure};
use crate::wait;

/// How long one request may take before another node is asked.
const REQUEST: Duration = Duration::from_secs(3);
/// Between two requests that came to nothing.
const PAUSE: Duration = Duration::from_millis(50);
/// Events of the service in flight, each under a key of its own.
const PACE: Duration = Duration::from_millis(40);
/// The clients.
const POLLS: &str = "polls";
const CALLED: &str = "called";

/// See the module.
pub struct Plain {
    cast: Cast,
    raising: JoinHandle<()>,
    polling: JoinHandle<()>,
    watching: JoinHandle<()>,
    receiver: Arc<Receiver>,
}

/// Requests to one node after the other.
struct Caller {
    http: Client,
    urls: Vec<String>,
    site: String,
    token: String,
}

impl Caller {
    fn new(cluster: &Cluster, node: usize, site: &str, account: &Account) -> Self {
        let http = Client::builder().no_proxy().timeout(REQUEST).build().expect("an HTTP client");
        let (site, token) = (site.to_owned(), account.token.clone());
        Self { http, urls: cluster.urls_from(node), site, token }
    }

    /// Asks the first node; the next one comes first afterwards when there was no answer that counts.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<(StatusCode, Value)> {
        let url = format!("{}/v1/sites/{}/{path}", self.urls[0], self.site);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = async {
            let answer = request.send().await.ok()?;
            let status = answer.status();
            let text = answer.text().await.ok()?;
            Some((status, serde_json::from_str(&text).unwrap_or_default()))
        };
        let counts = |(status, problem): &(StatusCode, Value)| {
            !status.is_server_error() && problem["retryable"] != true
        };
        let answer = answer.await.filter(counts);
        if answer.is_none() {
            self.urls.rotate_left(1);
            tokio::time::sleep(PAUSE).await;
        }
        answer
    }
}

async fn raise(mut caller: Caller, service: String, history: History, progress: Arc<Progress>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !progress.is_stopping() {
        pace.tick().await;
        if !progress.has_room() {
            continue;
        }
        let body = progress.next();
        let (key, since) = (format!("key-{}", body["n"]), Instant::now());
        let call = history.raised(&service, EVENT, Some(&body.to_string()));
        let path = format!("events/{EVENT}");
        let (status, answer) = loop {
            let asked = caller.ask(Method::POST, &path, Some(&key), Some(&body)).await;
            if let Some(answer) = asked {
                break answer;
            }
        };
        assert_eq!(status, StatusCode::OK, "an event was not accepted: {answer}");
        let instance_id = answer["instance_id"].as_u64();
        let duplicate = answer["duplicate"] == true;
        history.record(Entry::Acknowledged { call, instance_id, ignored: false, duplicate });
        progress.acknowledge(since.elapsed());
    }
}

async fn poll(mut caller: Caller, history: History, progress: Arc<Progress>) {
    let by = Subscriber { name: POLLS.to_owned(), life: 0 };
    let mut newest = 0;
    loop {
        let path = format!("next?event={EVENT}&wait=1s");
        let Some((status, event)) = caller.ask(Method::GET, &path, None, None).await else {
            continue;
        };
        if status == StatusCode::NO_CONTENT {
            continue;
        }
        if status != StatusCode::OK {
            // Another node took over what this question was about.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let handled = handled(&event);
        let id = handled.instance_id;
        if id > newest {
            newest = id;
            history.record(Entry::HandlerStarted { by: by.clone(), handled });
            let (by, event) = (by.clone(), EVENT.to_owned());
            history.record(Entry::HandlerEnded { by, event, instance_id: id, success: true });
            progress.handle(0);
        }
        let token = json!({ "token": event["ack"] });
        loop {
            match caller.ask(Method::POST, "ack", None, Some(&token)).await {
                Some((StatusCode::OK, answer)) => {
                    assert_eq!(answer["committed"]["instance_id"], id, "{answer}");
                    let (by, event) = (by.clone(), EVENT.to_owned());
                    history.record(Entry::Committed { by, event, instance_id: id });
                    break;
                }
                // It comes again, with another token.
                Some(_) => break,
                None => {}
            }
        }
    }
}

fn handled(event: &Value) -> Handled {
    let number = |field: &str| event[field].as_u64().unwrap_or_else(|| panic!("{field}: {event}"));
    Handled {
        event: EVENT.to_owned(),
        instance_id: number("instance_id"),
        incarnation: event["incarnation"].as_u64().unwrap_or(0),
        generation: 0,
        service: event["service"].as_str().unwrap_or_default().to_owned(),
        age: number("age"),
        attempt: u32::try_from(number("attempt")).expect("a count"),
        args: Some(event["args"].to_string()),
    }
}

/// What the callback was sent, without what came again.
fn firsts(receiver: &Receiver) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let ids = receiver.arrived().into_iter().flat_map(|arrived| arrived.ids);
    ids.filter(|id| seen.insert(*id)).collect()
}

impl Plain {
    /// Makes the site and starts everybody.
    pub async fn start(cluster: &Cluster) -> Self {
        let structure = structure(&[queueing(EVENT, 50_000)]);
        let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "plain", &structure).await;
        let (service, polls) = (site.service("keyed").await, site.guest(POLLS).await);
        site.guest(CALLED).await;
        let receiver = Arc::new(Receiver::start(Manner::Answers).await);
        let hook = json!({ "client": CALLED, "event": EVENT, "url": receiver.url(),
                           "retry_count": -1, "discard_interval_ms": 1000 });
        let path = "/v1/sites/plain/pushes/hook";
        site.admin.call(Method::PUT, path, Some(hook)).await.expect("the callback is registered");
        let path = format!("/v1/sites/plain/clients/{POLLS}/subscriptions/{EVENT}");
        site.admin.call(Method::PUT, &path, Some(json!({}))).await.expect("it is subscribed");
        let progress = Arc::<Progress>::default();
        let caller = Caller::new(cluster, 3, "plain", &service);
        let raising = raise(caller, service.id, site.history.clone(), progress.clone());
        let caller = Caller::new(cluster, 1, "plain", &polls);
        let polling = poll(caller, site.history.clone(), progress.clone());
        let (called, counter) = (receiver.clone(), progress.clone());
        let watching = async move {
            loop {
                counter.reach(1, firsts(&called).len() as u64);
                tokio::time::sleep(PAUSE).await;
            }
        };
        Self {
            cast: Cast::new(&site, &[POLLS, CALLED], &progress),
            raising: tokio::spawn(raising),
            polling: tokio::spawn(polling),
            watching: tokio::spawn(watching),
            receiver,
        }
    }

    async fn end(self, cluster: &Cluster) -> Judged {
        let Self { cast, raising, polling, watching, receiver } = self;
        let Cast { site, progress, .. } = cast.at_end(cluster);
        let ended = tokio::time::timeout(OUTCOME, raising).await;
        ended.expect("plain: an outcome is missing").expect("no panic");
        let retained = site.retained(EVENT).await;
        until_handled(&site, POLLS, retained.len()).await;
        wait::until_for(OUTCOME, "the callback to be sent everything", async || {
            (firsts(&receiver).len() >= retained.len()).then_some(())
        })
        .await;
        let newest = retained.last().copied().unwrap_or(0);
        for client in [POLLS, CALLED] {
            let what = format!("the cursor of {client} to stand at the end");
            wait::until_for(OUTCOME, &what, async || {
                let read = match client {
                    POLLS => site.cursor(POLLS, EVENT).await,
                    _ => pushed(&site).await,
                };
                (read == newest).then_some(())
            })
            .await;
        }
        polling.abort();
        watching.abort();
        let expectations = Expectations {
            complete: vec![(EVENT.to_owned(), POLLS.to_owned())],
            ordered_services: BTreeSet::from(["keyed".to_owned()]),
            unique_events: BTreeSet::from([EVENT.to_owned()]),
            ..Expectations::default()
        };
        let mut violations = oracle::judge(&site.history, &expectations);
        violations.extend(called(&receiver, &retained));
        cluster.until_equal(&site.name).await;
        eprintln!("plain: {} events, {} calls back", retained.len(), receiver.count());
        Judged {
            acknowledged: progress.acknowledged(),
            handled: progress.handled().iter().sum(),
            violations,
        }
    }
}

/// The position of the callback.
async fn pushed(site: &Site) -> u64 {
    let path = "/v1/sites/plain/pushes/hook";
    let shown = site.admin.call(Method::GET, path, None).await.expect("the callback is shown");
    shown["position"]["instance_id"].as_u64().unwrap_or(0)
}

/// What is wrong with what the callback was sent: everything, in order, and again only under its key.
fn called(receiver: &Receiver, retained: &[u64]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut wrong = |property, detail| violations.push(Violation { property, detail });
    let firsts = firsts(receiver);
    let lost: Vec<&u64> = retained.iter().filter(|id| !firsts.contains(id)).collect();
    if !lost.is_empty() {
        wrong("acknowledged_never_lost", format!("{lost:?} were never sent to the callback"));
    }
    if firsts.windows(2).any(|pair| pair[0] >= pair[1]) {
        wrong("order_strictly_increasing", "the callback was sent events out of order".to_owned());
    }
    let mut keys: BTreeMap<u64, String> = BTreeMap::new();
    for arrived in receiver.arrived() {
        for id in arrived.ids {
            let key = keys.entry(id).or_insert_with(|| arrived.key.clone());
            if *key != arrived.key {
                wrong("handled_once", format!("{id} was sent as {key} and as {}", arrived.key));
            }
        }
    }
    violations
}

impl Workload for Plain {
    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn finish<'a>(self: Box<Self>, cluster: &'a Cluster) -> LocalBoxFuture<'a, Judged> {
        (*self).end(cluster).boxed_local()
    }
}
