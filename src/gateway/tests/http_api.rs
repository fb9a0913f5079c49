//! The HTTP administration API through a real socket: resources, lists, problem documents.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{ADMIN, Running, reply, structure};

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_made_changed_listed_and_deleted() {
    let node = Running::start().await;
    let made = node.admin("PUT", "/v1/sites/demo", Some(json!({}))).await.is(201);
    assert_eq!(made["settings"]["constructible"], true);
    assert_eq!(made["last_instance_id"], 0);
    assert!(made.get("structure_hash").is_none());

    let change = Some(json!({"constructible": false}));
    let changed = node.admin("PUT", "/v1/sites/demo", change).await.is(200);
    assert_eq!(changed["settings"]["constructible"], false);
    assert_eq!(changed["settings"]["guests_allowed"], true, "what is left out keeps its value");
    assert_eq!(node.admin("GET", "/v1/sites/demo", None).await.is(200), changed);

    for name in ["b", "a", "c"] {
        node.admin("PUT", &format!("/v1/sites/{name}"), None).await.is(201);
    }
    let first = node.admin("GET", "/v1/sites?limit=3", None).await.is(200);
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first), ["a", "b", "c"]);
    let after = format!("/v1/sites?limit=3&after={}", first["next"].as_str().unwrap());
    let last = node.admin("GET", &after, None).await.is(200);
    assert_eq!(names(&last), ["demo"]);
    assert!(last.get("next").is_none());

    assert_eq!(node.admin("DELETE", "/v1/sites/demo", None).await.is(204), Value::Null);
    node.admin("GET", "/v1/sites/demo", None).await.is_problem(404, "not-found", None);
    node.admin("DELETE", "/v1/sites/demo", None).await.is_problem(404, "not-found", None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structure_is_applied_and_read_back() {
    let node = Running::start().await;
    node.admin("PUT", "/v1/sites/demo", None).await.is(201);
    let path = "/v1/sites/demo/structure";
    node.admin("GET", path, None).await.is_problem(404, "not-found", None);
    let applied = node.admin("PUT", path, Some(structure())).await.is(200);
    assert_eq!(applied["structure"], structure());
    assert_eq!(node.admin("GET", path, None).await.is(200), applied);
    let site = node.admin("GET", "/v1/sites/demo?consistency=local", None).await.is(200);
    assert_eq!(site["structure_hash"], applied["hash"]);
    assert_eq!(site["service_type"], "test");

    let mut other = structure();
    other["service_type"] = json!("another");
    node.admin("PUT", path, Some(other.clone())).await.is_problem(409, "conflict", None);
    let rebuilt = node.admin("PUT", &format!("{path}?rebuild=true"), Some(other)).await.is(200);
    assert_ne!(rebuilt["incarnation"], applied["incarnation"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_made_changed_listed_and_deleted() {
    let node = Running::start().await;
    node.admin("PUT", "/v1/sites/demo", None).await.is(201);
    node.admin("PUT", "/v1/sites/demo/structure", Some(structure())).await.is(200);

    let service = node.admin("PUT", "/v1/sites/demo/services/s", None).await.is(201);
    assert_eq!((&service["id"], &service["online"]), (&json!("s"), &json!(false)));
    node.admin("PUT", "/v1/sites/demo/services/s", None).await.is(200);
    node.admin("GET", "/v1/sites/demo/services/s", None).await.is(200);

    let user = Some(json!({"roles": ["operator"]}));
    node.admin("PUT", "/v1/sites/demo/users/u", user).await.is(201);
    let user = node.admin("PUT", "/v1/sites/demo/users/u", Some(json!({}))).await.is(200);
    assert_eq!(user, json!({"id": "u", "roles": []}));
    assert_eq!(node.admin("GET", "/v1/sites/demo/users/u", None).await.is(200), user);

    let client = Some(json!({"user": "u"}));
    let client = node.admin("PUT", "/v1/sites/demo/clients/c", client).await.is(201);
    assert_eq!(client, json!({"id": "c", "user": "u", "epoch": 0}));
    let guest = node.admin("PUT", "/v1/sites/demo/clients/c", None).await.is(200);
    assert_eq!(guest, json!({"id": "c", "epoch": 0}));

    for kind in ["services", "users", "clients"] {
        let page = node.admin("GET", &format!("/v1/sites/demo/{kind}"), None).await.is(200);
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{kind}: {page}");
    }
    for path in ["services/s", "users/u", "clients/c"] {
        let path = format!("/v1/sites/demo/{path}");
        node.admin("DELETE", &path, None).await.is(204);
        node.admin("GET", &path, None).await.is_problem(404, "not-found", None);
        node.admin("DELETE", &path, None).await.is(404);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_in_a_stable_order() {
    let node = Running::start().await;
    node.admin("PUT", "/v1/sites/demo", None).await.is(201);
    let names: Vec<String> = (0..7).map(|number| format!("c{number}")).collect();
    for name in names.iter().rev() {
        node.admin("PUT", &format!("/v1/sites/demo/clients/{name}"), None).await.is(201);
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/sites/demo/clients?limit=3{after}");
        let page = node.admin("GET", &path, None).await.is(200);
        for item in page["items"].as_array().unwrap() {
            seen.push(item["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page.get("next") else { break };
        after = format!("&after={}", next.as_str().unwrap());
    }
    assert_eq!(seen, names);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_ends_with_its_revocation() {
    let node = Running::start().await;
    node.admin("PUT", "/v1/sites/demo", None).await.is(201);
    let body = Some(json!({"principal": "observer"}));
    let made = node.admin("POST", "/v1/sites/demo/tokens", body).await.is(201);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    node.call(Some(token), "GET", "/v1/sites/demo", None).await.is(200);

    let listed = node.admin("GET", "/v1/sites/demo/tokens", None).await;
    assert_eq!(listed.is(200)["items"][0]["id"], id);
    assert!(!listed.text.contains(token), "the secret is shown once");
    let one = node.admin("GET", &format!("/v1/sites/demo/tokens/{id}"), None).await.is(200);
    assert_eq!(one["principal"], "observer");

    node.admin("DELETE", &format!("/v1/sites/demo/tokens/{id}"), None).await.is(204);
    let refused = node.call(Some(token), "GET", "/v1/sites/demo", None).await;
    refused.is_problem(401, "bad-credentials", Some("Authorization"));

    let nobody = Some(json!({"principal": {"service": "nobody"}}));
    node.admin("POST", "/v1/sites/demo/tokens", nobody).await.is(404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_under_one_key_happens_once() {
    let node = Running::start().await;
    node.admin("PUT", "/v1/sites/demo", None).await.is(201);
    node.admin("PUT", "/v1/sites/demo/clients/c", None).await.is(201);
    let keyed = |method: &str, path: &str, key: &str, body: Value| {
        let request = node.request(method.parse().unwrap(), path).bearer_auth(ADMIN);
        reply(request.header("Idempotency-Key", key).json(&body))
    };
    let observer = json!({"principal": "observer"});
    keyed("POST", "/v1/sites/demo/tokens", "k1", observer.clone()).await.is(201);
    let again = keyed("POST", "/v1/sites/demo/tokens", "k1", observer.clone()).await;
    again.is_problem(409, "conflict", Some("Idempotency-Key"));
    keyed("POST", "/v1/sites/demo/tokens", "k2", observer).await.is(201);
    let tokens = node.admin("GET", "/v1/sites/demo/tokens", None).await.is(200);
    assert_eq!(tokens["items"].as_array().unwrap().len(), 2);

    keyed("DELETE", "/v1/sites/demo/clients/c", "k3", Value::Null).await.is(204);
    let answer = keyed("DELETE", "/v1/sites/demo/clients/c", "k3", Value::Null).await;
    assert_eq!(answer.status, 204, "a repeat gets the first answer: {answer:?}");
    keyed("DELETE", "/v1/sites/demo/clients/c", "k4", Value::Null).await.is(404);
    // Somebody else who happens to choose a key that was used gets nobody's answer but their own.
    let admin = Some(json!({"principal": "admin"}));
    let admin = node.admin("POST", "/v1/sites/demo/tokens", admin).await.is(201);
    let other = node.request("DELETE".parse().unwrap(), "/v1/sites/demo/clients/c");
    let other = other.bearer_auth(admin["token"].as_str().unwrap());
    reply(other.header("Idempotency-Key", "k3")).await.is(404);
    let long = "k".repeat(256);
    let refused = keyed("DELETE", "/v1/sites/demo/clients/c", &long, Value::Null).await;
    refused.is_problem(422, "invalid", Some("Idempotency-Key"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_that_names_the_field() {
    let node = Running::start().await;
    node.demo().await;
    node.admin("GET", "/nothing", None).await.is_problem(404, "not-found", None);
    let wrong = node.admin("POST", "/v1/sites/demo", None).await;
    wrong.is_problem(405, "method-not-allowed", None);
    assert_eq!(wrong.headers["allow"], "GET, HEAD, PUT, DELETE");
    let refused = node.call(None, "GET", "/v1/sites", None).await;
    refused.is_problem(401, "bad-credentials", Some("Authorization"));
    assert_eq!(refused.headers["www-authenticate"], "Bearer");

    let check = async |method: &str, path: &str, body: Value, field: &str, detail: &str| {
        let refused = node.admin(method, path, Some(body)).await;
        let problem = refused.is_problem(422, "invalid", Some(field));
        let text = problem["detail"].as_str().unwrap();
        assert!(text.contains(detail), "{method} {path}: {text}");
    };
    check("GET", "/v1/sites?limit=0", json!({}), "?limit", "1..=1000").await;
    check("GET", "/v1/sites?limt=1", json!({}), "?limt", "did you mean \"limit\"").await;
    check("GET", "/v1/sites/demo?consistency=maybe", json!({}), "?consistency", "local").await;
    let site = "/v1/sites/demo";
    check("PUT", site, json!({"constructable": true}), "constructable", "`constructible`?").await;
    check("PUT", site, json!({"constructible": 1}), "constructible", "boolean").await;
    check("PUT", "/v1/sites/sp%20ace", json!({}), "site", "A-Z").await;
    let tokens = "/v1/sites/demo/tokens";
    check("POST", tokens, json!({"principal": "root"}), "principal", "admin").await;
    let mut large = structure();
    large["events"][0]["size"] = json!(1001);
    let path = "/v1/sites/demo/structure";
    check("PUT", path, large.clone(), "events[0].size", "1..=1000, was 1001").await;
    large["events"][0]["size"] = json!(-1);
    check("PUT", path, large.clone(), "events[0].size", "u32").await;
    large["events"][0]["access"] = json!({"roles": ["nobody"]});
    large["events"][0]["size"] = json!(1);
    check("PUT", path, large, "events[0].access.roles[0]", "declared").await;
    let seek = "/v1/sites/demo/clients/c/subscriptions/reading/seek";
    check("POST", seek, json!({"after": "1"}), "after", "u64").await;

    let text = node.request("PUT".parse().unwrap(), site).bearer_auth(ADMIN).body("{");
    reply(text).await.is_problem(422, "invalid", Some("body"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_raised_over_http_once_per_key() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let raise = |path: &str, key: Option<&str>, content_type: &str, body: &str| {
        let path = format!("/v1/sites/demo/events/{path}");
        let mut request = node.request("POST".parse().unwrap(), &path).bearer_auth(&demo.service);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if !content_type.is_empty() {
            request = request.header("Content-Type", content_type);
        }
        reply(request.body(body.to_owned()))
    };
    let json = "application/json";
    let first = raise("reading", Some("k"), json, "{\"n\": 1}").await.is(200);
    assert_eq!(first["duplicate"], false);
    let again = raise("reading", Some("k"), json, "{\"n\": 1}").await.is(200);
    assert_eq!((&again["instance_id"], &again["duplicate"]), (&first["instance_id"], &json!(true)));
    let reused = raise("reading", Some("k"), json, "{\"n\": 2}").await;
    reused.is_problem(422, "idempotency-key-reused", Some("Idempotency-Key"));

    raise("reading", None, "application/octet-stream", "\u{1}raw").await.is(200);
    raise("state", None, json, "7").await.is(200);
    raise("state?null=true", None, "", "").await.is(200);
    let ignored = raise("state?null", None, "", "").await.is(200);
    assert_eq!(ignored["ignored"], true);
    raise("notice?client=c", None, json, "\"hello\"").await.is(200);

    raise("redaing", None, json, "1").await.is_problem(404, "unknown-event", Some("{event}"));
    raise("notice", None, json, "1").await.is_problem(422, "client-required", Some("?client"));
    raise("reading?null=true", None, "", "").await.is_problem(
        422,
        "null-not-allowed",
        Some("?null"),
    );
    let long = format!("\"{}\"", "x".repeat(2047));
    raise("reading", None, json, &long).await.is_problem(413, "arguments-too-large", Some("body"));
    raise("reading", None, json, "{").await.is_problem(422, "invalid", Some("body"));
    raise("reading", None, json, "").await.is_problem(422, "invalid", Some("body"));
    raise("state?null=true", None, json, "1").await.is_problem(422, "invalid", Some("?null"));
    let form = raise("reading", None, "application/x-www-form-urlencoded", "a=b").await;
    form.is_problem(422, "invalid", Some("Content-Type"));

    let queues = node.admin("GET", "/v1/sites/demo/queues", None).await.is(200);
    let names: Vec<&Value> =
        queues["items"].as_array().unwrap().iter().map(|queue| &queue["event"]).collect();
    assert_eq!(names, ["notice", "reading", "state"]);
    assert_eq!(queues["items"][1]["retained"], 2);
    let page = node.admin("GET", "/v1/sites/demo/queues/reading?limit=1", None).await.is(200);
    assert_eq!(page["items"][0]["args"], json!({"n": 1}));
    let path = format!("/v1/sites/demo/queues/reading?after={}", page["next"].as_str().unwrap());
    let rest = node.admin("GET", &path, None).await.is(200);
    assert_eq!(rest["items"][0]["content_type"], "application/octet-stream");
    assert_eq!(rest["items"][0]["data"], "AXJhdw==");
    let state = node.admin("GET", "/v1/sites/demo/queues/state", None).await.is(200);
    assert_eq!(state["items"][0]["null"], true);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_open() {
    let node = Running::start().await;
    node.call(None, "GET", "/healthz/live", None).await.is(200);
    node.call(None, "GET", "/healthz/ready", None).await.is(200);
    let metrics = node.call(None, "GET", "/metrics", None).await;
    assert_eq!(metrics.status, 200);
    let counted = "ackord_http_requests_total{route=\"ready\",status=\"200\"} 1";
    assert!(metrics.text.contains(counted), "{}", metrics.text);
    node.stop().await;
}
