//! What became of an instance, asked of any node: also what only other nodes know.

use cluster_tests::cluster::Cluster;
use cluster_tests::raiser::json;
use cluster_tests::raw::{RawClient, to};
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait::{until, within};
use reqwest::Method;
use serde_json::{Value, json};

use cluster_tests::load::EVENT;

/// What a node answers, as soon as it is as wanted.
async fn why(cluster: &Cluster, node: usize, query: &str, wanted: fn(&Value) -> bool) -> Value {
    let (admin, path) = (cluster.admin(node), format!("/v1/sites/one/why?{query}"));
    until("the answer that is wanted", async || {
        let answer = admin.ask(Method::GET, &path, None).await.expect("an answer").ok()?;
        wanted(&answer).then_some(answer)
    })
    .await
}

fn nodes(answer: &Value) -> Vec<u64> {
    let sent = answer["sent"]["transmissions"].as_array().expect("transmissions");
    sent.iter().filter_map(|it| it["node"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_which_nodes_have_sent_an_instance_and_who_was_not_asked() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let structure = structure(&[queueing(EVENT, 1000)]);
    let site = Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &structure).await;
    let raiser = site.raises("service").await;
    let account = site.guest("reader").await;
    let open = async |node: usize| {
        let subscriptions = vec![to(EVENT)];
        let token = Some(account.token.as_str());
        let opened = RawClient::subscribed(cluster.url(node), "one", token, subscriptions).await;
        opened.expect("a session").0
    };
    let mut client = open(2).await;
    raiser
        .send(ackord_endpoint::Event::new(EVENT, Some(json(json!(1)))))
        .await
        .expect("the event is accepted");
    let event = within("the event", client.event()).await.expect("an event");
    let query = format!("client=reader&event={EVENT}&instance_id={}", event.instance_id);

    for node in cluster.nodes() {
        let answer = why(&cluster, node, &query, |_| true).await;
        assert_eq!(answer["verdict"], "in-flight", "asked of node {node}: {answer}");
        assert_eq!(answer["subscription"]["session"]["node"], 2, "{answer}");
        assert_eq!(nodes(&answer), [2], "{answer}");
        let local = why(&cluster, node, &format!("{query}&consistency=local"), |_| true).await;
        assert_eq!(nodes(&local).len(), usize::from(node == 2), "{local}");
    }

    // Unacknowledged there, it comes again where the client goes.
    let mut client = {
        drop(client);
        open(3).await
    };
    let again = within("the event", client.event()).await.expect("an event");
    assert_eq!(again.instance_id, event.instance_id);
    client.handle(&again).await.expect("it is committed");
    let answer = why(&cluster, 1, &query, |answer| answer["verdict"] == "acknowledged").await;
    assert_eq!(answer["sent"]["times"], 2, "{answer}");
    assert_eq!(nodes(&answer), [2, 3], "{answer}");
    let sent = &answer["sent"]["transmissions"];
    assert!(sent[0].get("acknowledged_ms").is_none(), "{answer}");
    assert!(sent[1]["acknowledged_ms"].is_u64() && sent[1]["committed_ms"].is_u64(), "{answer}");
    assert!(answer.get("not_reached").is_none(), "{answer}");

    cluster.pause(2).expect("it runs");
    let answer = why(&cluster, 1, &query, |answer| answer.get("not_reached").is_some()).await;
    assert_eq!(answer["not_reached"][0]["node"], 2, "{answer}");
    assert_eq!(nodes(&answer), [3], "{answer}");
    cluster.resume(2).expect("it is suspended");
    raiser.close().await;
}
