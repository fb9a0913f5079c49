//! Nodes as the pods of a StatefulSet: `ackord kubernetes pre-stop` before each stop, an API server that
//! says how many replicas there shall be, and the same node again on the disk that it left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ackord_wire::resource::NodeState;
use cluster_tests::cli::Tool;
use cluster_tests::cluster::Cluster;
use cluster_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::scale::view;
use cluster_tests::load::{Load, OUTCOME};

/// What the API server answers to.
const PATH: &str = "GET /apis/apps/v1/namespaces/here/statefulsets/ackord HTTP/1.1\r\n";

/// An API server that knows one StatefulSet, and what a pod shows it.
struct Api {
    url: String,
    replicas: Arc<AtomicU64>,
    credentials: TempDir,
}

impl Api {
    async fn start(replicas: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let replicas = Arc::new(AtomicU64::new(replicas));
        let known = replicas.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_buf(&mut head).await {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let known_path = head.starts_with(PATH);
                let may = head.to_lowercase().contains("authorization: bearer of-the-pod\r\n");
                let (status, body) = match (known_path, may) {
                    (true, true) => {
                        let replicas = known.load(Ordering::Relaxed);
                        (
                            "200 OK",
                            json!({ "kind": "StatefulSet", "spec": { "replicas": replicas } }),
                        )
                    }
                    (true, false) => ("403 Forbidden", json!({ "kind": "Status" })),
                    (false, _) => ("404 Not Found", json!({ "kind": "Status" })),
                };
                let body = body.to_string();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: \
                     {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let credentials = tempfile::tempdir().expect("a directory");
        std::fs::write(credentials.path().join("token"), "of-the-pod\n").expect("a token");
        Self { url, replicas, credentials }
    }

    fn scale_to(&self, replicas: u64) {
        self.replicas.store(replicas, Ordering::Relaxed);
    }

    /// What the pod of a node runs before it stops.
    fn pre_stop(&self, cluster: &Cluster, node: usize, max_time: &str) -> Tool {
        let pod = format!("ackord-{}", node - 1);
        let credentials = self.credentials.path().to_str().expect("a path of text");
        let data = cluster.data(node).to_str().expect("a path of text");
        let words = [
            "kubernetes",
            "pre-stop",
            "--pod",
            &pod,
            "--namespace",
            "here",
            "--statefulset",
            "ackord",
            "--api",
            &self.url,
            "--credentials",
            credentials,
            "--data",
            data,
            "--max-time",
            max_time,
        ];
        let command = cluster.command(node, &words).expect("the binary is built");
        Tool::start(command, None, Box::new(|_| {})).expect("the tool starts")
    }
}

/// Waits until the command has ended; its exit code, what it printed and what it said.
async fn ended(mut tool: Tool) -> (Option<i32>, Value, String) {
    wait::until_for(OUTCOME, "the command to end", async || tool.has_ended().then_some(())).await;
    let code = tool.ended().await;
    (code, tool.lines().pop().unwrap_or_default(), tool.errors())
}

async fn state_of(cluster: &Cluster, asked: usize, node: u64) -> Option<NodeState> {
    let view = view(cluster, asked).await;
    view.nodes.iter().find(|known| known.id == node).map(|node| node.state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_of_pods_is_scaled_out_and_in_and_out_again_while_it_serves() {
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let load = Load::start(&cluster).await;
    let api = Api::start(5).await;
    let members: Vec<String> =
        view(&cluster, 1).await.nodes.into_iter().map(|node| node.address).collect();
    for _ in 0..2 {
        let node = cluster.add(&members).expect("there is room");
        cluster.start_node(node).await.expect("the node starts");
    }
    cluster.ready().await;
    // They joined at the same time: which is which?
    let fourth = view(&cluster, 4).await.node;
    load.flows(10).await;

    // A restart: the pod is one of those that are wanted, its node stays what it is.
    let (code, line, _) = ended(api.pre_stop(&cluster, 2, "60s")).await;
    assert_eq!((code, &line["stop"]), (Some(0), &json!("restart")), "{line}");
    assert_eq!(cluster.stop(2).await.expect("it runs"), Some(0));
    load.flows(10).await;
    cluster.start_node(2).await.expect("the node starts");
    cluster.until_ready(2).await;
    assert_eq!(state_of(&cluster, 1, 2).await, Some(NodeState::Active));

    // Both pods go at once: one waits for the end of it, one is killed before.
    api.scale_to(3);
    let whole = api.pre_stop(&cluster, 4, "300s");
    let (code, line, errors) = ended(api.pre_stop(&cluster, 5, "1ms")).await;
    assert_eq!((code, &line["left"]), (Some(3), &json!(false)), "{line} {errors}");
    cluster.kill(5);
    let (code, line, errors) = ended(whole).await;
    assert_eq!(
        (code, &line["left"], &line["node"]),
        (Some(0), &json!(true), &json!(fourth)),
        "{errors}"
    );
    assert_eq!(cluster.stop(4).await.expect("it runs"), Some(0));
    for node in [4, 5] {
        wait::until_for(OUTCOME, "the node to be a member no more", async || {
            (state_of(&cluster, 1, node).await == Some(NodeState::Removed)).then_some(())
        })
        .await;
    }
    load.flows(10).await;

    // Two nodes could not hold three voters.
    api.scale_to(2);
    let (code, _, errors) = ended(api.pre_stop(&cluster, 3, "60s")).await;
    assert_eq!(code, Some(4), "{errors}");
    assert!(errors.contains("2 active nodes would remain"), "{errors}");
    assert_eq!(state_of(&cluster, 1, 3).await, Some(NodeState::Active));

    // Put to sleep, or nobody to ask: taken for a restart.
    api.scale_to(0);
    let (code, line, _) = ended(api.pre_stop(&cluster, 3, "60s")).await;
    assert_eq!((code, &line["stop"]), (Some(0), &json!("restart")), "{line}");
    std::fs::write(api.credentials.path().join("token"), "of-another").expect("a token");
    let (code, line, errors) = ended(api.pre_stop(&cluster, 3, "60s")).await;
    assert_eq!((code, &line["stop"]), (Some(0), &json!("restart")), "{line}");
    assert!(errors.contains("403"), "{errors}");

    // The pod comes back on the disk that it left: as another node.
    cluster.start_node(4).await.expect("the node starts");
    cluster.until_ready(4).await;
    assert_eq!(view(&cluster, 4).await.node, 6);
    load.flows(10).await;
    load.finish(&mut cluster).await;
}
