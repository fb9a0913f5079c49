//! A push subscription while the node that serves it is killed and paused: what is raised reaches the
//! callback in order, and of what was delivered and not committed only one comes again, under its key.

use std::collections::BTreeMap;
use std::time::Duration;

use ackord_endpoint::Event;
use cluster_tests::cluster::Cluster;
use cluster_tests::listener::Gate;
use cluster_tests::raiser::{self, Raiser};
use cluster_tests::receiver::{Manner, Receiver};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;
use reqwest::Method;
use serde_json::{Value, json};

use cluster_tests::load::EVENT;

/// Events raised around each fault: more than are delivered until it happens.
const ROUND: u32 = 150;
/// How long anything may take, whatever happens. On a machine that is busy with other things three
/// nodes commit eight cursors in a second, and an agent sends nothing while its node is not confirmed.
const DELIVERED: Duration = Duration::from_secs(300);
/// Of a subscription that has one.
const WINDOW: usize = 20;
const PATH: &str = "/v1/sites/one/pushes/hook";

/// A cluster with one push subscription.
struct Pushing {
    cluster: Cluster,
    site: Site,
    raiser: Raiser,
    receiver: Receiver,
    seed: Seed,
    /// The term in which the subscription's partition was led at the beginning.
    term: u64,
}

impl Pushing {
    async fn start(test: &str, manner: Manner, quality: Value) -> Self {
        let seed = Seed::of_test("cluster", test);
        let cluster = Cluster::start(3).await.expect("the cluster starts");
        let structure = structure(&[queueing(EVENT, 50_000)]);
        let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &structure).await;
        site.guest("reader").await;
        let raiser = site.raises("service").await;
        let receiver = Receiver::start(manner).await;
        let mut body = json!({
            "client": "reader", "event": EVENT, "url": receiver.url(),
            "retry_count": -1, "discard_interval_ms": 1000,
        });
        let more = quality.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        cluster.admin(1).call(Method::PUT, PATH, Some(body)).await.expect("it is registered");
        let term = term(&cluster).await;
        Self { cluster, site, raiser, receiver, seed, term }
    }

    /// What the nodes that run know of the subscription, each by itself.
    async fn shown(&self) -> Vec<(usize, Value)> {
        let mut shown = Vec::new();
        for node in self.cluster.running() {
            let path = format!("{PATH}?consistency=local");
            let answer = self.cluster.admin(node).call(Method::GET, &path, None).await;
            shown.extend(answer.ok().map(|answer| (node, answer)));
        }
        shown
    }

    /// The node that serves the subscription: only that one knows what is under way.
    async fn serving(&self) -> usize {
        wait::until_for(DELIVERED, "somebody to serve the subscription", async || {
            let shown = self.shown().await;
            let serving = shown.iter().find(|(_, push)| push.get("in_flight").is_some());
            serving.map(|(node, _)| *node)
        })
        .await
    }

    /// Waits until everything that is retained was delivered.
    async fn until_delivered(&self, count: u32) {
        wait::until_for(DELIVERED, &format!("{count} events to be delivered"), async || {
            (self.firsts().len() >= count as usize).then_some(())
        })
        .await;
    }

    /// Waits until a node knows that everything was delivered. One that was paused has then seen
    /// that another one leads: it would have sent what it had to send.
    async fn until_known(&mut self, node: usize) {
        self.cluster.until_ready(node).await;
        let newest = self.site.retained(EVENT).await.last().copied();
        wait::until_for(DELIVERED, "the node to know what was delivered", async || {
            let shown = self.shown().await;
            let (_, push) = shown.into_iter().find(|(of, _)| *of == node)?;
            (push["position"]["instance_id"].as_u64() == newest).then_some(())
        })
        .await;
    }

    /// What arrived, without what came again.
    fn firsts(&self) -> Vec<u64> {
        let mut counted = BTreeMap::new();
        let arrived = self.receiver.arrived();
        let first = |id: &u64| {
            let times = counted.entry(*id).or_insert(0);
            *times += 1;
            *times == 1
        };
        arrived.into_iter().flat_map(|arrived| arrived.ids).filter(first).collect()
    }

    /// Everything that was raised came, in order, and what came again was the one delivery that an
    /// agent before had not committed, under the same key. It was the newest then, but for what a
    /// node was about to write when it was paused: of that, one for each pause.
    async fn verify(self, raised: u32, pauses: usize) {
        let Self { mut cluster, site, raiser, receiver, .. } = self;
        cluster.ready().await;
        let retained = site.retained(EVENT).await;
        assert_eq!(retained.len(), raised as usize);
        let mut keys: BTreeMap<u64, String> = BTreeMap::new();
        let (mut firsts, mut again, mut late) = (Vec::new(), 0, 0);
        for arrived in receiver.arrived() {
            let [id] = arrived.ids[..] else { panic!("one event in each request: {arrived:?}") };
            match keys.get(&id) {
                None => {
                    firsts.push(id);
                    keys.insert(id, arrived.key);
                }
                Some(key) => {
                    assert_eq!(arrived.key, *key, "what comes again has its key");
                    // Nothing after it was sent meanwhile: that waits for its commit.
                    late += usize::from(firsts.last() != Some(&id));
                    again += 1;
                }
            }
        }
        assert_eq!(firsts, retained, "in order, nothing left out");
        assert!(late <= pauses, "only the newest comes again, and {late} others did");
        // Whoever leads anew begins with what its predecessor may have delivered.
        let agents = term(&cluster).await - self.term;
        println!("{} events, {again} came again, {agents} changes of leadership", firsts.len());
        assert!(again <= agents, "{again} came again over {agents} changes");
        let path = format!("{PATH}?consistency=linearizable");
        wait::until_true("every delivery to be counted once", async || {
            let shown = cluster.admin(1).call(Method::GET, &path, None).await;
            shown.is_ok_and(|shown| shown["delivered"] == raised && shown["state"] == "active")
        })
        .await;
        raiser.close().await;
        cluster.until_equal("one").await;
        cluster.until_replicas_agree().await;
    }
}

/// Raises [`ROUND`] events, whatever happens to the node that the service is connected to.
async fn raise(raiser: &Raiser) -> Vec<u64> {
    let raises = (1..=ROUND).map(|n| raiser.outcome(Event::new(EVENT, Some(raiser::json(n)))));
    let outcomes = tokio::time::timeout(DELIVERED, futures_util::future::join_all(raises)).await;
    let outcomes = outcomes.expect("every event to be acknowledged in time");
    let accepted = outcomes.into_iter().map(|outcome| outcome.expect("the event is accepted"));
    accepted.map(|outcome| outcome.instance_id.expect("the id is known")).collect()
}

/// The newest term of the partition that holds the site.
async fn term(cluster: &Cluster) -> u64 {
    wait::until("the term", async || {
        let node = *cluster.running().first()?;
        let site = cluster.admin(node).call(Method::GET, "/v1/sites/one", None).await.ok()?;
        let partition = usize::try_from(site["partition"].as_u64()?).ok()?;
        let mut newest = None;
        for node in cluster.running() {
            let view = cluster.view(node).await.ok()?;
            newest = newest.max(view["groups"][partition]["term"].as_u64());
        }
        newest
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_push_goes_on_when_the_node_that_serves_it_is_killed() {
    let mut pushing =
        Pushing::start("node_that_serves_it_is_killed", Manner::Answers, json!({})).await;
    let rounds = super::rounds(3);
    let mut raised = 0;
    for round in 0..rounds {
        let node = pushing.serving().await;
        // At a moment between the first and the last delivery.
        let at = pushing.receiver.count() + pushing.seed.between(1, u64::from(ROUND) / 2) as usize;
        let fault = async {
            let some = async || (pushing.receiver.count() >= at).then_some(());
            wait::until_for(DELIVERED, "some to be delivered", some).await;
        };
        let raising = raise(&pushing.raiser);
        tokio::pin!(raising);
        let mut acknowledged = false;
        tokio::select! {
            // The last is delivered after it is acknowledged: there is still something to come.
            _ids = &mut raising => acknowledged = true,
            () = fault => {}
        }
        pushing.cluster.kill(node);
        raised += ROUND;
        if !acknowledged {
            raising.await;
        }
        let taken = pushing.serving().await;
        assert_ne!(taken, node, "another node serves it");
        pushing.until_delivered(raised).await;
        pushing.cluster.start_node(node).await.expect("it starts again");
        pushing.cluster.ready().await;
        println!("round {round}: node {node} died after {at} deliveries, {taken} went on");
    }
    pushing.verify(raised, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_paused_sends_nothing_new_of_a_push_that_another_one_serves() {
    let mut pushing =
        Pushing::start("a_node_that_was_paused_sends_nothing", Manner::Answers, json!({})).await;
    let rounds = super::rounds(3);
    let mut raised = 0;
    for round in 0..rounds {
        let node = pushing.serving().await;
        let at = pushing.receiver.count() + pushing.seed.between(1, u64::from(ROUND) / 2) as usize;
        let fault = async {
            let some = async || (pushing.receiver.count() >= at).then_some(());
            wait::until_for(DELIVERED, "some to be delivered", some).await;
            pushing.cluster.pause(node).expect("it runs");
        };
        // Publishers of a node that is paused go to another one.
        tokio::join!(raise(&pushing.raiser), fault);
        raised += ROUND;
        // The others deliver what it had before it, and what has come since.
        pushing.until_delivered(raised).await;
        let before = pushing.receiver.count();
        pushing.cluster.resume(node).expect("it was paused");
        pushing.until_known(node).await;
        let after = pushing.receiver.count() - before;
        // What it was about to write in the moment of the pause; `verify` knows it for what it is.
        assert!(after <= 1, "a node that was paused sent {after} requests");
        println!("round {round}: node {node} was paused after {at} deliveries");
    }
    pushing.verify(raised, rounds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_a_node_that_was_paused_let_it_send_no_more_of_its_window() {
    let gate = Gate::closed();
    let twoway = json!({ "mode": "twoway", "window": WINDOW });
    let test = "let_it_send_no_more_of_its_window";
    let mut pushing = Pushing::start(test, Manner::Waits(gate.clone()), twoway).await;
    let ids = raise(&pushing.raiser).await;
    wait::until_true("a full window to be under way", async || pushing.receiver.count() == WINDOW)
        .await;
    let node = pushing.serving().await;
    pushing.cluster.pause(node).expect("it runs");
    // Its requests are answered: it finds that, and room in its window, when it goes on.
    gate.open();
    pushing.until_delivered(ROUND).await;
    let before = pushing.receiver.count();
    pushing.cluster.resume(node).expect("it was paused");
    pushing.until_known(node).await;
    assert_eq!(pushing.receiver.count(), before, "a node that was paused sent something");
    // What was under way came again, under its key.
    let mut counted: BTreeMap<(u64, String), usize> = BTreeMap::new();
    for arrived in pushing.receiver.arrived() {
        *counted.entry((arrived.ids[0], arrived.key)).or_default() += 1;
    }
    let delivered: Vec<u64> = counted.keys().map(|(id, _)| *id).collect();
    assert_eq!(delivered, ids, "each under one key");
    // It stood still before the first answer: nothing of its window was committed.
    assert!(counted.values().take(WINDOW).all(|times| *times > 1), "some did not come again");
    let again = counted.values().sum::<usize>() - ids.len();
    let agents = term(&pushing.cluster).await - pushing.term;
    assert!(again as u64 <= WINDOW as u64 * agents, "{again} came again, {agents} changes");
    pushing.raiser.close().await;
    pushing.cluster.until_replicas_agree().await;
}
