//! Clients over plain HTTP while nodes are killed: whoever comes again, at whatever node, goes on
//! where it was, and an acknowledgement counts at any node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::plain::{Plain, Stream, Told};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Site, queueing, structure, with};
use cluster_tests::wait;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use cluster_tests::load::{EVENT, OUTCOME};

/// Between two events.
const PACE: Duration = Duration::from_millis(10);
/// Events raised around each kill.
const ROUND: u64 = 80;

/// The nodes as a client goes through them: the next one when one fails.
struct Nodes {
    urls: Vec<String>,
    at: usize,
}

impl Nodes {
    fn new(cluster: &Cluster, first: usize) -> Self {
        Self { urls: cluster.urls_from(first), at: 0 }
    }

    fn url(&self) -> &str {
        &self.urls[self.at % self.urls.len()]
    }

    fn other(&self) -> &str {
        &self.urls[(self.at + 1) % self.urls.len()]
    }
}

/// How many events there will be, once that is known.
type Total = watch::Receiver<Option<usize>>;

fn is_all(seen: &[u64], total: &Total) -> bool {
    total.borrow().is_some_and(|total| seen.len() >= total)
}

fn id(event: &Value) -> u64 {
    event["instance_id"].as_u64().expect("an id")
}

/// Acknowledges until it is known to be committed, at another node than the one that delivered.
async fn acknowledge(client: &Plain, nodes: &mut Nodes, event: &Value) {
    let deadline = Instant::now() + OUTCOME;
    while Instant::now() < deadline {
        match client.ack(nodes.other(), event).await {
            Ok((200, answer)) => {
                assert_eq!(answer["committed"]["instance_id"], event["instance_id"]);
                return;
            }
            Ok((status @ (503 | 504), _)) => println!("an ack is tried again after {status}"),
            Ok((status, problem)) => panic!("{status} to an ack: {problem}"),
            // The node is gone.
            Err(_) => {}
        }
        nodes.at += 1;
        pause().await;
    }
    panic!("nobody took the acknowledgement of {event}");
}

/// The next event of a stream; `None` when it ends, or when all have been seen.
async fn event(stream: &mut Stream, seen: &[u64], total: &mut Total) -> Option<Told> {
    while !is_all(seen, total) {
        tokio::select! {
            told = stream.event() => return told.ok(),
            changed = total.changed() => changed.expect("the test goes on"),
        }
    }
    None
}

/// A browser without account: it keeps the last id.
async fn guest(mut nodes: Nodes, mut total: Total) -> (Vec<u64>, usize) {
    let client = Plain::new("one", None);
    let (mut seen, mut last, mut opened) = (Vec::new(), None::<String>, 0);
    while !is_all(&seen, &total) {
        let query = format!("event={EVENT}");
        let Ok(mut stream) = client.stream(nodes.url(), &query, last.as_deref()).await else {
            nodes.at += 1;
            pause().await;
            continue;
        };
        opened += 1;
        while let Some(told) = event(&mut stream, &seen, &mut total).await {
            seen.push(id(&told.data));
            last = told.id;
        }
        nodes.at += 1;
    }
    (seen, opened)
}

/// A registered client with a stream.
async fn streaming(token: String, mut nodes: Nodes, mut total: Total) -> (Vec<u64>, usize) {
    let client = Plain::new("one", Some(&token));
    let (mut seen, mut opened) = (Vec::new(), 0);
    while !is_all(&seen, &total) {
        let query = format!("event={EVENT}");
        let Ok(mut stream) = client.stream(nodes.url(), &query, None).await else {
            nodes.at += 1;
            pause().await;
            continue;
        };
        opened += 1;
        while let Some(told) = event(&mut stream, &seen, &mut total).await {
            // Handled, and acknowledged for good before anything else is read.
            seen.push(id(&told.data));
            acknowledge(&client, &mut nodes, &told.data).await;
        }
        nodes.at += 1;
    }
    (seen, opened)
}

/// A registered client that asks for one event after the other, each at the next node.
async fn polling(token: String, mut nodes: Nodes, total: Total) -> (Vec<u64>, usize) {
    let client = Plain::new("one", Some(&token));
    let (mut seen, mut asked) = (Vec::new(), 0);
    while !is_all(&seen, &total) {
        let query = format!("event={EVENT}&wait=2s");
        match client.next(nodes.url(), &query).await {
            Ok(Some(event)) => {
                seen.push(id(&event));
                acknowledge(&client, &mut nodes, &event).await;
            }
            Ok(None) => {}
            Err(_) => pause().await,
        }
        asked += 1;
        nodes.at += 1;
    }
    (seen, asked)
}

/// Between two tries of a client that found nobody.
async fn pause() {
    let mut pause = tokio::time::interval(wait::POLL * 10);
    pause.tick().await;
    pause.tick().await;
}

async fn site(cluster: &Cluster) -> Site {
    let open = with(structure(&[queueing(EVENT, 50_000)]), "guests", json!("guest+stateless"));
    Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &open).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_over_plain_http_see_everything_once_whichever_node_is_killed() {
    let mut seed = Seed::of_test("cluster", "over_plain_http");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let mut site = site(&cluster).await;
    let service = site.service("service").await;
    let (tell, total) = watch::channel(None);
    let (one, two) = (site.guest("stream").await, site.guest("poll").await);
    let readers = [
        tokio::spawn(guest(Nodes::new(&cluster, 1), total.clone())),
        tokio::spawn(streaming(one.token, Nodes::new(&cluster, 2), total.clone())),
        tokio::spawn(polling(two.token, Nodes::new(&cluster, 3), total)),
    ];
    let raiser = Arc::new(site.raiser(&service).start().await);
    let mut raised = 0;
    for victim in cluster.some(&mut seed, 3).into_iter().cycle().take(super::rounds(3)) {
        let raising = {
            let (raiser, numbers) = (raiser.clone(), raised..raised + ROUND);
            tokio::spawn(async move {
                let mut pace = tokio::time::interval(PACE);
                for n in numbers {
                    pace.tick().await;
                    raiser.raise(EVENT, n).await;
                }
            })
        };
        cluster.lasts(seed.millis(100, 600)).await;
        cluster.kill(victim);
        raising.await.expect("everything is raised");
        raised += ROUND;
        cluster.start_node(victim).await.expect("the node starts again");
        cluster.ready().await;
    }
    site.admin = cluster.admin(1);
    let retained = site.retained(EVENT).await;
    assert_eq!(retained.len(), raised as usize);
    tell.send_replace(Some(retained.len()));
    for (name, reader) in ["guest", "stream", "poll"].into_iter().zip(readers) {
        let what = format!("the {name} to see everything");
        let (seen, times) = wait::within(&what, reader).await.expect("the reader ends");
        println!("{name}: {} events, {times} times asked", seen.len());
        assert_eq!(seen, retained, "seen by the {name}");
        assert!(times > 1, "the {name} never had to come again");
    }
    cluster.until_replicas_agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lags_hands_out_nothing_that_was_acknowledged_elsewhere() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let site = site(&cluster).await;
    let service = site.service("service").await;
    let account = site.guest("poll").await;
    let client = Plain::new("one", Some(&account.token));
    let raiser = site.raiser(&service).start().await;
    let mut ids = Vec::new();
    for n in 0..=2 * super::rounds(3) as u64 {
        ids.push(raiser.raise(EVENT, n).await);
    }
    let group = cluster.admin(1).call(Method::GET, "/v1/sites/one", None).await.expect("the site")
        ["partition"]
        .as_u64();
    let group = group.expect("a number") as usize;
    let query = format!("event={EVENT}&wait=0");
    // The node is left by no leader: it lags at once, and nobody has to be elected.
    let follower = async || {
        let leader = cluster.leader(group, 1).await?;
        cluster.nodes().find(|node| *node != leader)
    };
    let lagging = wait::until("a follower", follower).await;
    let asked = 1 + lagging % 3;
    for pair in ids[..ids.len() - 1].chunks(2) {
        let known = wait::until_for(OUTCOME, "the node to know of what is due", async || {
            client.next(cluster.url(lagging), &query).await.ok().flatten()
        })
        .await;
        assert_eq!(id(&known), pair[0]);
        cluster.mesh().cut_from_peers(lagging);
        let (status, _) = client.ack(cluster.url(asked), &known).await.expect("an answer");
        assert_eq!(status, 200);
        // What it has itself still says that the acknowledged event is due.
        if let Ok(Some(event)) = client.next(cluster.url(lagging), &query).await {
            assert_ne!(id(&event), pair[0], "it was acknowledged, and comes again");
        }
        let next = client.next(cluster.url(asked), &query).await.expect("an answer");
        let next = next.expect("an event");
        assert_eq!(id(&next), pair[1]);
        let (status, _) = client.ack(cluster.url(asked), &next).await.expect("an answer");
        assert_eq!(status, 200);
        cluster.mesh().rejoin_peers(lagging);
    }
}
