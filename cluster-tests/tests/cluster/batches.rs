//! Batches over HTTP while the leader of their site is killed, again and again: every event once,
//! all of them in the order of their batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster_tests::cluster::Cluster;
use cluster_tests::seed::Seed;
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;
use serde_json::Value;

use cluster_tests::load::EVENT;

/// Events of a batch: more than are under way together.
const BATCH: u64 = 400;
/// Batches around each kill.
const BATCHES: usize = 8;

/// A publisher that sends batch after batch, each again until all of it is decided.
struct Publisher {
    http: reqwest::Client,
    urls: Vec<String>,
    token: String,
    /// Requests that were answered, but not with everything decided.
    partly: Arc<AtomicU64>,
}

impl Publisher {
    /// Sends a batch until all of it is decided; the ids.
    async fn raise(&self, batch: u64) -> Vec<u64> {
        let line = |n| format!("{{\"event\":\"{EVENT}\",\"args\":{{\"n\":{n}}}}}\n");
        let lines: String = (batch * BATCH..(batch + 1) * BATCH).map(line).collect();
        for url in self.urls.iter().cycle() {
            let request = self.http.post(format!("{url}/v1/sites/one/events"));
            let request = request
                .bearer_auth(&self.token)
                .header("Content-Type", "application/x-ndjson")
                .header("Idempotency-Key", format!("batch-{batch}"))
                .timeout(wait::PATIENCE)
                .body(lines.clone());
            let Ok(answer) = request.send().await else { continue };
            if !answer.status().is_success() {
                continue;
            }
            let Ok(text) = answer.text().await else { continue };
            let results = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
            let results: Vec<Value> = results.collect();
            assert_eq!(results.len() as u64, BATCH, "a line for each event");
            if let Some(ids) = decided(&results) {
                return ids;
            }
            self.partly.fetch_add(1, Ordering::Relaxed);
        }
        unreachable!("there are nodes to ask")
    }
}

/// The ids, if everything was decided; what was not was refused for now, and nothing behind it.
fn decided(results: &[Value]) -> Option<Vec<u64>> {
    let first = results.iter().position(|result| result.get("error").is_some());
    let Some(first) = first else {
        return Some(
            results.iter().map(|result| result["instance_id"].as_u64().expect("an id")).collect(),
        );
    };
    for result in &results[first..] {
        assert_eq!(result["error"]["retryable"], true, "{result}");
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_committed_once_and_in_its_order_whoever_leads() {
    let mut seed = Seed::of_test("cluster", "batches_whoever_leads");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let structure = structure(&[queueing(EVENT, 50_000)]);
    let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &structure).await;
    let token = site.service("service").await.token;
    let row = cluster
        .admin(1)
        .call("GET".parse().expect("a method"), "/v1/sites/one", None)
        .await
        .expect("the site");
    let group = row["partition"].as_u64().expect("a number") as usize;

    let partly = Arc::<AtomicU64>::default();
    let publisher = Publisher {
        http: reqwest::Client::new(),
        urls: cluster.urls_from(2),
        token,
        partly: partly.clone(),
    };
    let mut ids = Vec::new();
    let mut batches = 0..;
    for _round in 0..super::rounds(5) {
        let seen_by = cluster.running()[0];
        let known = async || cluster.leader(group, seen_by).await;
        let leader = wait::until("a leader", known).await;
        let batches: Vec<u64> = batches.by_ref().take(BATCHES).collect();
        let publishing = async {
            for batch in batches {
                ids.extend(publisher.raise(batch).await);
            }
        };
        let killing = async {
            // Somewhere within a batch.
            cluster.lasts(seed.millis(0, 100)).await;
            cluster.kill(leader);
        };
        wait::within("the batches", async { tokio::join!(publishing, killing) }).await;
        cluster.start_node(leader).await.expect("the node starts again");
        cluster.ready().await;
    }
    println!("{} events, {} answers with a rest", ids.len(), partly.load(Ordering::Relaxed));

    assert!(ids.is_sorted_by(|before, after| before < after), "ids rise with the batch");
    let queue = format!("/v1/sites/one/queues/{EVENT}");
    wait::until_true("every node to have every event", async || {
        let mut lengths = Vec::new();
        for node in cluster.nodes() {
            lengths.push(cluster.admin(node).local(&queue).await.expect("the queue").len());
        }
        lengths.iter().all(|length| *length == ids.len())
    })
    .await;
    let kept = cluster.admin(1).local(&queue).await.expect("the queue");
    let numbers: Vec<u64> =
        kept.iter().map(|kept| kept["args"]["n"].as_u64().expect("a number")).collect();
    assert!(numbers.iter().copied().eq(0..ids.len() as u64), "each once, in order");
}
