//! Who is connected where, asked of any node; and a node that cannot be asked is named.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::raw::{RawClient, to};
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait::{until, within};
use reqwest::Method;
use serde_json::{Value, json};

use cluster_tests::load::EVENT;

/// A node that does not answer costs no more than this: the deadline of a question is a second.
const ANSWER: Duration = Duration::from_secs(10);

async fn get(cluster: &Cluster, node: usize, path: &str) -> Value {
    until("an answer", async || try_get(cluster, node, path).await).await
}

/// As [`get`]; nothing while the site has no leader.
async fn try_get(cluster: &Cluster, node: usize, path: &str) -> Option<Value> {
    let admin = cluster.admin(node);
    let asked = tokio::time::timeout(ANSWER, admin.ask(Method::GET, path, None)).await;
    match asked.expect("an answer in time").expect("an answer") {
        Ok(answer) => Some(answer),
        Err(problem) if problem.status == 503 => None,
        Err(problem) => panic!("{problem:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_tells_the_sessions_of_all_and_says_whom_it_could_not_ask() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let structure = structure(&[queueing(EVENT, 1000)]);
    let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &structure).await;
    let raiser = site.raises("service").await;
    let account = site.guest("reader").await;
    let (mut client, _) =
        RawClient::subscribed(cluster.url(2), "one", Some(&account.token), vec![to(EVENT)])
            .await
            .expect("a session");
    let event = ackord_endpoint::Event::new(EVENT, Some(cluster_tests::raiser::json(json!(1))));
    raiser.send(event).await.expect("the event is accepted");
    let event = within("the event", client.event()).await.expect("an event");

    for node in cluster.nodes() {
        let sessions = get(&cluster, node, "/v1/sites/one/sessions").await;
        let items = sessions["items"].as_array().expect("items");
        assert_eq!(items.len(), 2, "asked of node {node}: {sessions}");
        assert_eq!((&items[0]["id"], &items[0]["node"]), (&json!("reader"), &json!(2)));
        assert_eq!((&items[1]["id"], &items[1]["kind"]), (&json!("service"), &json!("service")));
        assert!(sessions.get("not_reached").is_none(), "{sessions}");
        let path = format!("/v1/sites/one/clients/reader/subscriptions/{EVENT}");
        let subscription = get(&cluster, node, &path).await;
        assert_eq!(subscription["in_flight"]["instance_id"], event.instance_id, "{subscription}");
        assert_eq!(subscription["in_flight"]["node"], 2);
        let local = get(&cluster, node, &format!("{path}?consistency=local")).await;
        assert_eq!(local.get("session").is_some(), node == 2, "{local}");
    }

    // Suspended, its connections stand for a while: it is late first, then not reached.
    cluster.pause(2).expect("it runs");
    let told = async |node: usize| {
        until("the node that does not answer is named", async || {
            let sessions = try_get(&cluster, node, "/v1/sites/one/sessions").await?;
            let named = sessions["not_reached"].as_array()?.first()?.clone();
            assert_eq!(named["node"], 2, "{sessions}");
            (named["why"] == "unreachable").then_some(sessions)
        })
        .await
    };
    let sessions = told(1).await;
    assert_eq!(sessions["items"].as_array().expect("items").len(), 1, "{sessions}");
    told(3).await;
    cluster.resume(2).expect("it is suspended");
    until("node 2 is asked again", async || {
        let sessions = try_get(&cluster, 3, "/v1/sites/one/sessions").await?;
        sessions.get("not_reached").is_none().then_some(())
    })
    .await;
    raiser.close().await;
}
