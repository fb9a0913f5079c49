//! What administrators see of sessions, of lag, and of long lists, through a real socket.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Running, Socket};

const SERVICE: &str = "/v1/sites/demo/service";
const CLIENT: &str = "/v1/sites/demo/client";
const JSON: &str = "ackord.v1.json";
const CBOR: &str = "ackord.v1.cbor";
const SUBSCRIPTION: &str = "/v1/sites/demo/clients/c/subscriptions/reading";

/// The client `c` with a subscription to `reading`.
async fn subscribed(node: &Running, token: &str) -> Socket {
    let mut client = node.socket(CLIENT, Some(token), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    client.hear_of("welcome").await;
    client.say(json!({"subscribe": {"items": [{"event": "reading"}]}})).await;
    while client.hear_of("subscribed").await["accepted"] == json!([]) {}
    client
}

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_shows_what_waits_what_is_in_flight_and_where() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let mut client = subscribed(&node, &demo.client).await;
    let idle = node.admin("GET", SUBSCRIPTION, None).await.is(200);
    assert_eq!((&idle["lag"], idle.get("in_flight")), (&json!(0), None), "{idle}");
    assert!(idle.get("oldest_unacknowledged_ms").is_none() && idle.get("not_reached").is_none());
    assert_eq!(idle["session"]["transport"], "websocket");
    assert_eq!(idle["session"]["state"], "idle");
    assert_eq!(idle["session"]["node"], node.broker.node().id());

    let mut service = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
    service.hello_service().await;
    for seq in 1..=3 {
        service.say(json!({"raise": {"seq": seq, "event": "reading", "args": seq}})).await;
        service.hear_of("accepted").await;
    }
    let event = client.hear_of("event").await;
    for path in [SUBSCRIPTION, &format!("{SUBSCRIPTION}?consistency=local")] {
        let busy = node.admin("GET", path, None).await.is(200);
        assert_eq!(busy["lag"], 3, "{busy}");
        assert_eq!(busy["oldest_unacknowledged_ms"], event["created_ms"]);
        assert_eq!(busy["in_flight"]["instance_id"], event["instance_id"]);
        assert_eq!(busy["in_flight"]["attempt"], 1);
        assert_eq!(busy["session"]["state"], "in-flight");
    }
    let own = "/v1/sites/demo/clients/c/subscriptions";
    let page = node.call(Some(&demo.client), "GET", own, None).await.is(200);
    assert_eq!(page["items"][0]["in_flight"]["instance_id"], event["instance_id"]);
    let all = node.admin("GET", "/v1/sites/demo/subscriptions", None).await.is(200);
    assert_eq!((&all["items"][0]["lag"], all["items"][0].get("session")), (&json!(3), None));

    client.send(tokio_tungstenite::tungstenite::Message::Close(None)).await;
    while client.next().await.is_some() {}
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(5));
    while node.admin("GET", SUBSCRIPTION, None).await.is(200).get("session").is_some() {
        looks.tick().await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_sessions_are_listed_by_kind_and_id_page_by_page() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let path = "/v1/sites/demo/sessions";
    assert_eq!(node.admin("GET", path, None).await.is(200), json!({"items": []}));
    let mut service = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
    service.hello_service().await;
    let _client = subscribed(&node, &demo.client).await;
    let mut guests = Vec::new();
    for _ in 0..3 {
        guests.push(node.socket(CLIENT, None, CBOR).await.unwrap());
    }
    let all = node.call(Some(&demo.observer), "GET", path, None).await.is(200);
    let all = all["items"].as_array().unwrap().clone();
    let kinds: Vec<&str> = all.iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["client", "service", "stateless", "stateless", "stateless"]);
    assert_eq!((&all[0]["id"], &all[0]["state"]), (&json!("c"), &json!("open")));
    assert_eq!((&all[0]["subscriptions"], &all[0]["codec"]), (&json!(1), &json!("json")));
    assert_eq!((all[2].get("id"), &all[2]["codec"]), (None, &json!("cbor")));
    assert!(all[1]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", all[1]);

    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.admin("GET", &format!("{path}?limit=2{after}"), None).await.is(200);
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page.get("next") else { break };
        after = format!("&after={}", next.as_str().unwrap());
    }
    assert_eq!(paged, all);
    let services = node.admin("GET", &format!("{path}?kind=service"), None).await.is(200);
    assert_eq!(services["items"], json!([all[1]]));
    let named = node.admin("GET", &format!("{path}?id=c&consistency=local"), None).await.is(200);
    assert_eq!(named["items"], json!([all[0]]));
    let check = async |query: &str, field: &str| {
        let reply = node.admin("GET", &format!("{path}?{query}"), None).await;
        reply.is_problem(422, "invalid", Some(field));
    };
    check("kind=clients", "?kind").await;
    check("after=x", "?after").await;
    check("limit=0", "?limit").await;
    let client = node.call(Some(&demo.client), "GET", path, None).await;
    client.is_problem(403, "access-denied", Some("Authorization"));
    let nowhere = node.admin("GET", "/v1/sites/nowhere/sessions", None).await;
    nowhere.is_problem(404, "not-found", None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_narrowed_by_their_filters() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let mut service = node.socket(SERVICE, Some(&demo.service), JSON).await.unwrap();
    service.hello_service().await;
    let _client = subscribed(&node, &demo.client).await;
    for id in ["a", "ab", "b"] {
        for kind in ["clients", "users"] {
            let path = format!("/v1/sites/demo/{kind}/{id}");
            node.admin("PUT", &path, Some(json!({}))).await.is(201);
        }
    }
    let roles = Some(json!({"roles": ["operator"]}));
    node.admin("PUT", "/v1/sites/demo/users/ab", roles).await.is(200);
    for site in ["deep", "demon"] {
        node.admin("PUT", &format!("/v1/sites/{site}"), None).await.is(201);
    }

    let check = async |list: &str, expected: &[&str]| {
        let page = node.admin("GET", &format!("/v1/sites/demo/{list}"), None).await.is(200);
        assert_eq!(ids(&page), expected, "{list}");
        assert!(page.get("next").is_none(), "{list}");
    };
    check("clients?prefix=a", &["a", "ab"]).await;
    check("clients?prefix=a&after=a", &["ab"]).await;
    check("clients?prefix=c", &["c"]).await;
    check("services?prefix=a", &[]).await;
    check("services?prefix=s&online=true", &["s"]).await;
    check("services?online=false", &[]).await;
    check("users?role=operator", &["ab"]).await;
    check("users?role=nobody", &[]).await;
    let tokens = node.admin("GET", "/v1/sites/demo/tokens?principal=client:c", None).await.is(200);
    assert_eq!(tokens["items"][0]["principal"], json!({"client": "c"}));
    assert_eq!(tokens["items"].as_array().unwrap().len(), 1);
    let tokens = node.admin("GET", "/v1/sites/demo/tokens?principal=admin", None).await.is(200);
    assert_eq!(tokens["items"].as_array().unwrap().len(), 1);
    let wrong = node.admin("GET", "/v1/sites/demo/tokens?principal=root", None).await;
    wrong.is_problem(422, "invalid", Some("?principal"));

    let subscriptions = async |query: &str| {
        let path = format!("/v1/sites/demo/subscriptions?{query}");
        node.admin("GET", &path, None).await.is(200)["items"].as_array().unwrap().len()
    };
    assert_eq!(subscriptions("client=c").await, 1);
    assert_eq!(subscriptions("client=a").await, 0);
    assert_eq!(subscriptions("event=reading").await, 1);
    assert_eq!(subscriptions("event=state").await, 0);
    assert_eq!(subscriptions("prefix=c&event=reading").await, 1);
    assert_eq!(subscriptions("prefix=a").await, 0);

    let queues = node.admin("GET", "/v1/sites/demo/queues?prefix=re", None).await.is(200);
    assert_eq!(queues["items"].as_array().unwrap().len(), 1);
    let sites = node.admin("GET", "/v1/sites?prefix=dem", None).await.is(200);
    let names: Vec<&str> =
        sites["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["demo", "demon"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself_to_everyone() {
    let node = Running::start().await;
    let document = node.call(None, "GET", "/openapi.json", None).await;
    assert_eq!(document.headers["content-type"], "application/json");
    let document = document.is(200);
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document, ackord_gateway::openapi::document());
    node.stop().await;
}
