//! What keeps a site in order, through real sockets: revisions, quotas, pauses, kicks, tokens that
//! end, tickets, the record, and the answers to why and may I.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use ackord_agents::BrokerOptions;
use ackord_gateway::GatewayLimits;
use serde_json::{Value, json};
use support::{Demo, Reply, Running, Socket, reply};

const SITE: &str = "/v1/sites/demo";
const READING: &str = "/v1/sites/demo/clients/c/subscriptions/reading";
const JSON: &str = "ackord.v1.json";

async fn subscribed(node: &Running, demo: &Demo) -> Socket {
    let mut client = node.socket("/v1/sites/demo/client", Some(&demo.client), JSON).await.unwrap();
    client.say(json!({"hello": {}})).await;
    client.hear_of("welcome").await;
    client.say(json!({"subscribe": {"items": [{"event": "reading"}]}})).await;
    while client.hear_of("subscribed").await["accepted"].as_array().unwrap().is_empty() {}
    client
}

async fn raise(node: &Running, demo: &Demo, number: u64) -> Reply {
    let body = Some(json!({"n": number}));
    node.call(Some(&demo.service), "POST", "/v1/sites/demo/events/reading", body).await
}

async fn raised(node: &Running, demo: &Demo, number: u64) -> u64 {
    raise(node, demo, number).await.is(200)["instance_id"].as_u64().unwrap()
}

/// Acknowledges what it hears until it has heard this instance.
async fn handle_until(client: &mut Socket, id: u64) {
    loop {
        let event = client.hear_of("event").await;
        let named =
            json!({"subscription": event["subscription"], "instance_id": event["instance_id"]});
        client.say(json!({"ack": named})).await;
        if event["instance_id"] == id {
            client.hear_of("committed").await;
            return;
        }
    }
}

/// Asks until the answer is as wanted.
async fn until(node: &Running, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let started = Instant::now();
    loop {
        ticks.tick().await;
        let answer = node.admin("GET", path, None).await.is(200);
        if wanted(&answer) {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_only_the_revision_that_it_was_read_at() {
    let node = Running::start().await;
    node.demo().await;
    let path = "/v1/sites/demo/users/u";
    let tag = |reply: &Reply| reply.headers["etag"].to_str().unwrap().to_owned();
    let put = async |header: &str, value: &str, roles: Value| {
        let request = node.request(reqwest::Method::PUT, path).bearer_auth(support::ADMIN);
        reply(request.header(header, value).json(&json!({"roles": roles}))).await
    };
    let first = tag(&node.admin("GET", path, None).await);
    let changed = put("If-Match", &first, json!(["operator"])).await;
    changed.is(200);
    assert_ne!(tag(&changed), first);
    put("If-Match", &first, json!([])).await.is_problem(412, "precondition-failed", None);
    put("If-None-Match", "*", json!([])).await.is_problem(412, "precondition-failed", None);
    put("If-Match", "\"x\"", json!([])).await.is_problem(422, "invalid", Some("If-Match"));
    put("If-None-Match", "\"x\"", json!([])).await.is_problem(
        422,
        "invalid",
        Some("If-None-Match"),
    );
    put("If-Match", "*", json!([])).await.is(200);
    assert_eq!(node.admin("GET", path, None).await.is(200)["roles"], json!([]));
    let delete = node.request(reqwest::Method::DELETE, path).bearer_auth(support::ADMIN);
    let refused = reply(delete.header("If-Match", "\"0123456789abcdef\"")).await;
    refused.is_problem(412, "precondition-failed", None);
    for path in
        [SITE, "/v1/sites/demo/structure", "/v1/sites/demo/quotas", "/v1/sites/demo/clients/c"]
    {
        assert_eq!(tag(&node.admin("GET", path, None).await).len(), 18, "{path}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_set_by_the_node_and_shown_with_what_is_used() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let path = "/v1/sites/demo/quotas";
    let quotas = json!({"clients": 1, "requests_per_s": 40});
    node.call(Some(&demo.admin), "PUT", path, Some(quotas.clone())).await.is_problem(
        403,
        "access-denied",
        Some("Authorization"),
    );
    let set = node.admin("PUT", path, Some(quotas.clone())).await.is(200);
    assert_eq!(set["quotas"], quotas);
    assert_eq!(set["used"]["clients"], 1);
    let one_more = node.call(Some(&demo.admin), "PUT", "/v1/sites/demo/clients/d", None).await;
    let problem = one_more.is_problem(429, "quota-exceeded", None);
    assert_eq!(problem["detail"], "quota clients: at most 1");
    // Ten at once, then one every 25 ms.
    let mut refused = None;
    for _ in 0..200 {
        let answer = node.call(Some(&demo.observer), "GET", SITE, None).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    let problem = refused.is_problem(429, "rate-limited", None);
    assert_eq!(problem["detail"], "quota requests_per_s: at most 40");
    assert_eq!(refused.headers["retry-after"], "1");
    // Opening a socket is a request as well.
    let mut refused = None;
    for _ in 0..200 {
        if let Err(answer) = node.socket("/v1/sites/demo/client", Some(&demo.client), JSON).await {
            refused = Some(answer);
            break;
        }
    }
    refused.unwrap().is_problem(429, "rate-limited", None);
    let unknown = Some(json!({"client": 3}));
    node.admin("PUT", path, unknown).await.is_problem(422, "invalid", Some("client"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscription_waits_and_a_kicked_client_comes_again() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let operator = node.token("demo", json!("operator")).await;
    let mut client = subscribed(&node, &demo).await;
    let act = async |path: &str| node.call(Some(&operator), "POST", path, None).await;
    let paused = act(&format!("{READING}/pause")).await.is(200);
    assert!(paused["paused_ms"].is_u64() && paused["granted"] == false, "{paused}");
    assert_eq!(client.hear_of("authority").await["granted"], false);
    let id = raised(&node, &demo, 1).await;
    let why = format!("{SITE}/why?client=c&event=reading&instance_id={id}");
    assert_eq!(node.admin("GET", &why, None).await.is(200)["verdict"], "paused");
    assert!(act(&format!("{READING}/resume")).await.is(200).get("paused_ms").is_none());
    handle_until(&mut client, id).await;

    act("/v1/sites/demo/clients/c/kick").await.is(200);
    let (closing, number) = client.end().await;
    assert_eq!((&closing["code"], number), (&json!("kicked"), Some(4410)));
    assert_eq!(closing["reconnect"], true);
    let mut client = subscribed(&node, &demo).await;
    let id = raised(&node, &demo, 2).await;
    handle_until(&mut client, id).await;

    let mut service =
        node.socket("/v1/sites/demo/service", Some(&demo.service), JSON).await.unwrap();
    service.hello_service().await;
    act("/v1/sites/demo/services/s/kick").await.is(200);
    assert_eq!(service.end().await.1, Some(4410));
    // An operator keeps things running, and no more.
    let denied = node.call(Some(&operator), "DELETE", "/v1/sites/demo/clients/c", None).await;
    denied.is_problem(403, "access-denied", Some("Authorization"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_subscribes_for_a_client() {
    let node = Running::start().await;
    let demo = node.demo().await;
    raised(&node, &demo, 1).await;
    let body = Some(json!({"start": "latest", "ack_timeout_ms": 5000}));
    let made = node.admin("PUT", READING, body).await.is(200);
    assert_eq!(made["position"]["instance_id"], 1);
    let body = Some(json!({"ack_timeout_ms": 1}));
    node.admin("PUT", READING, body).await.is_problem(422, "invalid", Some("ack_timeout_ms"));
    let body = Some(json!({"max_attempts": 3}));
    let changed = node.admin("PUT", READING, body).await.is(200);
    assert_eq!((&changed["max_attempts"], &changed["position"]), (&json!(3), &made["position"]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_takes_its_sessions_along() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let body = json!({"principal": {"client": "c"}, "expires_in_s": 2, "note": "the hall"});
    let made = node.admin("POST", "/v1/sites/demo/tokens", Some(body)).await.is(201);
    assert!(made["expires_ms"].is_u64());
    let demo = Demo { client: made["token"].as_str().unwrap().to_owned(), ..demo };
    let mut client = subscribed(&node, &demo).await;
    let started = Instant::now();
    let (closing, number) = client.end().await;
    assert_eq!((&closing["code"], number), (&json!("credentials-expired"), Some(4413)));
    assert_eq!(closing["reconnect"], true, "with another token: {closing}");
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    let refused = node.socket("/v1/sites/demo/client", Some(&demo.client), JSON).await;
    refused.err().unwrap().is_problem(401, "bad-credentials", Some("Authorization"));
    let body = json!({"principal": "admin", "expires_in_s": 0});
    let refused = node.admin("POST", "/v1/sites/demo/tokens", Some(body)).await;
    refused.is_problem(422, "invalid", Some("expires_in_s"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_socket() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let tickets = "/v1/sites/demo/tickets";
    let draw =
        async |token: &str, body: Value| node.call(Some(token), "POST", tickets, Some(body)).await;
    let drawn = draw(&demo.client, json!({})).await.is(201);
    assert_eq!(drawn["expires_in_s"], 60);
    let path = format!("/v1/sites/demo/client?ticket={}", drawn["ticket"].as_str().unwrap());
    let mut socket = node.socket(&path, None, JSON).await.unwrap();
    socket.say(json!({"hello": {}})).await;
    assert_eq!(socket.hear_of("welcome").await["client"], "c");
    let again = node.socket(&path, None, JSON).await.err().unwrap();
    again.is_problem(401, "bad-credentials", Some("?ticket"));
    // What it opened ends with the token that it was drawn with.
    let id = demo.client.split('_').nth(1).unwrap();
    node.admin("DELETE", &format!("/v1/sites/demo/tokens/{id}"), None).await.is(204);
    assert_eq!(socket.end().await.1, Some(4501));

    draw(&demo.admin, json!({"client": "c", "expires_in_s": 1})).await.is(201);
    draw(&demo.admin, json!({})).await.is_problem(422, "invalid", Some("client"));
    draw(&demo.admin, json!({"client": "x"})).await.is_problem(404, "not-found", Some("client"));
    draw(&demo.service, json!({"client": "c"})).await.is_problem(
        403,
        "access-denied",
        Some("Authorization"),
    );
    let long = draw(&demo.admin, json!({"client": "c", "expires_in_s": 301})).await;
    long.is_problem(422, "invalid", Some("expires_in_s"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_of_a_client_that_are_not_used_are_bounded() {
    let sessions = BrokerOptions { principal_tickets_max: 2, ..BrokerOptions::default() };
    let node = Running::start_with(GatewayLimits::default(), sessions).await;
    let demo = node.demo().await;
    let draw = async || {
        let path = "/v1/sites/demo/tickets";
        node.call(Some(&demo.client), "POST", path, Some(json!({}))).await
    };
    let first = draw().await.is(201);
    draw().await.is(201);
    let problem = draw().await.is_problem(429, "limit-reached", None);
    assert_eq!(problem["detail"], "limit principal_tickets_max: at most 2");
    // One that is used makes room at once, and opens nothing a second time.
    let path = format!("/v1/sites/demo/client?ticket={}", first["ticket"].as_str().unwrap());
    let _socket = node.socket(&path, None, JSON).await.unwrap();
    draw().await.is(201);
    let again = node.socket(&path, None, JSON).await.err().unwrap();
    again.is_problem(401, "bad-credentials", Some("?ticket"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_and_refused_attempts_are_recorded() {
    let node = Running::start().await;
    let recording = node.broker.clone();
    let recorder = tokio::spawn(async move { recording.keep_record().await });
    let demo = node.demo().await;
    for _ in 0..5 {
        node.call(Some(&demo.observer), "DELETE", "/v1/sites/demo/clients/c", None).await;
    }
    // Whatever a stranger calls itself: a token that is there, one that is not, many of them.
    let own = demo.admin.rsplit_once('_').unwrap().0;
    let names = [own, "ak_t1", "ak_t2", "ak_the-administrator-himself"];
    for name in names {
        let token = format!("{name}_{}", "A".repeat(43));
        node.call(Some(&token), "GET", SITE, None).await.is(401);
    }
    node.call(Some(&demo.admin), "DELETE", "/v1/sites/demo/clients/c", None).await.is(204);
    let audit = "/v1/sites/demo/audit";
    let denied = format!("{audit}?result=access-denied");
    let total = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|entry| entry["count"].as_u64().unwrap()).sum::<u64>()
    };
    let page = until(&node, &denied, |page| total(page) == 5).await;
    let entry = &page["items"][0];
    assert_eq!(entry["act"], "DELETE client");
    let id = |token: &str| format!("token:{}", token.split('_').nth(1).unwrap());
    assert_eq!(entry["who"], id(&demo.observer));
    assert_eq!(entry["address"], "127.0.0.1");
    let strangers = format!("{audit}?result=bad-credentials");
    let page = until(&node, &strangers, |page| total(page) == names.len() as u64).await;
    for entry in page["items"].as_array().unwrap() {
        assert_eq!(entry["who"], "unknown", "not a name of its choosing");
    }

    let done = format!("{audit}?act=client.delete");
    let page = node.call(Some(&demo.observer), "GET", &done, None).await.is(200);
    assert_eq!(page["items"][0]["who"], id(&demo.admin));
    assert_eq!(page["items"][0]["target"], "clients/c");
    assert_eq!(page["items"][0]["result"], "done");
    // Pages go back in time.
    let mut numbers = Vec::new();
    let mut after = String::new();
    loop {
        let page = node.admin("GET", &format!("{audit}?limit=3{after}"), None).await.is(200);
        let items = page["items"].as_array().unwrap().clone();
        numbers.extend(items.iter().map(|entry| entry["number"].as_u64().unwrap()));
        let Some(next) = page.get("next") else { break };
        after = format!("&after={}", next.as_str().unwrap());
    }
    assert!(numbers.len() > 8 && numbers.is_sorted_by(|a, b| a > b), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&1));

    node.admin("DELETE", SITE, None).await.is(204);
    let page = node.admin("GET", "/v1/audit?limit=1", None).await.is(200);
    assert_eq!(page["items"][0]["act"], "site.delete");
    assert_eq!(page["items"][0]["target"], "sites/demo");
    let next = page["next"].as_str().unwrap();
    let page = node.admin("GET", &format!("/v1/audit?after={next}"), None).await.is(200);
    assert_eq!(page["items"][0]["act"], "site.create");
    recorder.abort();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_recorded_and_nobody_is_named_who_did_not_prove_it() {
    let node = Running::start().await;
    let recording = node.broker.clone();
    let recorder = tokio::spawn(async move { recording.keep_record().await });
    let demo = node.demo().await;
    let who = |token: &str| format!("token:{}", token.split('_').nth(1).unwrap());
    // The id of another one's token, and a secret that is none.
    let forged = format!("ak_{}_{}", demo.admin.split('_').nth(1).unwrap(), "A".repeat(43));
    let body = || Some(json!({"n": 1}));
    let raise = format!("{SITE}/events/reading");
    let why = format!("{SITE}/why?client=d&event=reading&instance_id=1");
    let can_i = format!("{SITE}/can-i?act=receive&client=d&event=reading");
    let refused = [
        (Some(&demo.observer), "POST", raise.clone(), body()),
        (Some(&demo.observer), "POST", format!("{SITE}/tickets"), Some(json!({}))),
        (Some(&demo.client), "GET", why, None),
        (Some(&demo.client), "GET", can_i, None),
        (Some(&demo.client), "POST", raise, body()),
        (Some(&forged), "POST", format!("{SITE}/ack"), Some(json!({"token": "x"}))),
        (Some(&forged), "GET", format!("{SITE}/next"), None),
        (Some(&forged), "GET", SITE.to_owned(), None),
        (None, "GET", format!("{SITE}/tokens"), None),
    ];
    let mut expected = Vec::new();
    for (token, method, path, body) in refused {
        let answer = node.call(token.map(String::as_str), method, &path, body).await;
        assert!([401, 403].contains(&answer.status), "{method} {path}: {}", answer.text);
        expected.push(match token {
            Some(token) if *token == forged => "unknown".to_owned(),
            Some(token) => who(token),
            None => "anonymous".to_owned(),
        });
    }
    let shut_out = node.socket("/v1/sites/demo/service", Some(&demo.client), JSON).await;
    shut_out.err().unwrap().is_problem(403, "access-denied", Some("Authorization"));
    expected.push(who(&demo.client));
    let elsewhere = node.request("POST".parse().unwrap(), &format!("{SITE}/tickets"));
    let elsewhere = elsewhere.bearer_auth(&demo.client).header("Origin", "https://evil.example");
    reply(elsewhere).await.is_problem(403, "access-denied", Some("Origin"));
    expected.push("unknown".to_owned());
    expected.sort();

    let recorded = |page: &Value| {
        let entries = page["items"].as_array().unwrap().iter();
        let refused = entries.filter(|entry| entry["result"] != "done");
        let mut names: Vec<_> = refused
            .flat_map(|entry| {
                let count = entry["count"].as_u64().unwrap() as usize;
                std::iter::repeat_n(entry["who"].as_str().unwrap().to_owned(), count)
            })
            .collect();
        names.sort();
        names
    };
    let audit = format!("{SITE}/audit?limit=1000");
    let page = until(&node, &audit, |page| recorded(page).len() >= expected.len()).await;
    assert_eq!(recorded(&page), expected, "{page}");

    // Above the sites, and what was done there.
    node.call(Some(&demo.admin), "GET", "/v1/sites", None).await;
    node.admin("POST", "/v1/cluster/compare", None).await.is(200);
    let audit = "/v1/audit?limit=1000";
    let has = |page: &Value, act: &str, who: &str| {
        let mut entries = page["items"].as_array().unwrap().iter();
        entries.any(|entry| entry["act"] == act && entry["who"] == who)
    };
    until(&node, audit, |page| has(page, "GET sites", "unknown")).await;
    until(&node, audit, |page| has(page, "cluster.compare", "node-admin")).await;
    recorder.abort();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_and_may_i_are_answered() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let mut client = subscribed(&node, &demo).await;
    let first = raised(&node, &demo, 1).await;
    let second = raised(&node, &demo, 2).await;
    handle_until(&mut client, first).await;
    let why = async |event: &str, id: u64| {
        let path = format!("{SITE}/why?client=c&event={event}&instance_id={id}");
        node.call(Some(&demo.client), "GET", &path, None).await.is(200)
    };
    let answer = why("reading", first).await;
    assert_eq!(answer["verdict"], "acknowledged");
    assert_eq!(answer["instance"]["fate"], "retained");
    assert_eq!(answer["instance"]["replicas"], json!([1]));
    assert!(answer["instance"]["accepted_ms"].is_u64());
    let sent = &answer["sent"];
    assert_eq!((&sent["times"], &sent["transmissions"][0]["node"]), (&json!(1), &json!(1)));
    assert!(sent["transmissions"][0]["committed_ms"].is_u64(), "{answer}");
    assert_eq!(client.hear_of("event").await["instance_id"], second);
    let answer = why("reading", second).await;
    assert_eq!(answer["verdict"], "in-flight", "{answer}");
    assert_eq!(answer["subscription"]["in_flight"]["instance_id"], second);
    assert_eq!(answer["subscription"]["session"]["state"], "in-flight");
    assert_eq!(answer["sent"]["transmissions"][0]["attempt"], 1);
    assert!(answer["sent"]["transmissions"][0].get("acknowledged_ms").is_none(), "{answer}");
    // What is not for the client is told to those who read the site only.
    node.admin("PUT", &format!("{SITE}/clients/d"), None).await.is(201);
    let path = format!("{SITE}/events/notice?client=d");
    let private = node.call(Some(&demo.service), "POST", &path, Some(json!(1))).await.is(200);
    let id = private["instance_id"].as_u64().unwrap();
    assert_eq!(why("notice", id).await["instance"], json!({"fate": "withheld"}));
    assert_eq!(why("state", second).await["instance"], json!({"fate": "withheld"}));
    let path = format!("{SITE}/why?client=c&event=notice&instance_id={id}");
    assert_eq!(node.admin("GET", &path, None).await.is(200)["instance"]["fate"], "retained");
    drop(client);
    let path = format!("{SITE}/why?client=c&event=reading&instance_id={second}");
    let answer = until(&node, &path, |answer| answer["verdict"] == "next").await;
    assert!(answer["because"].as_str().unwrap().contains("not"), "{answer}");
    assert_eq!(answer["sent"]["times"], 1, "what was sent is remembered: {answer}");
    assert!(answer["subscription"].get("session").is_none(), "{answer}");
    assert_eq!(why("reading", 99).await["verdict"], "not-raised");
    assert_eq!(why("state", 1).await["verdict"], "other-event");
    let others = format!("{SITE}/why?client=d&event=reading&instance_id=1");
    let refused = node.call(Some(&demo.client), "GET", &others, None).await;
    refused.is_problem(403, "access-denied", Some("Authorization"));
    let incomplete = node.admin("GET", &format!("{SITE}/why?client=c&event=reading"), None).await;
    incomplete.is_problem(422, "invalid", Some("?instance_id"));

    let can_i = async |token: &str, query: &str| {
        node.call(Some(token), "GET", &format!("{SITE}/can-i?{query}"), None).await.is(200)
    };
    let answer = can_i(&demo.client, "act=receive&event=reading").await;
    assert_eq!(answer["allowed"], true, "{answer}");
    let answer = can_i(&demo.client, "act=receive&event=nothing").await;
    assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(false), &json!("unknown-event")));
    assert_eq!(can_i(&demo.service, "act=raise&event=reading").await["allowed"], true);
    assert_eq!(can_i(&demo.observer, "act=administer").await["allowed"], false);
    assert_eq!(can_i(&demo.admin, "act=receive&event=state&client=guest").await["allowed"], true);
    node.admin("PUT", SITE, Some(json!({"guests_allowed": false}))).await.is(200);
    let answer = can_i(&demo.admin, "act=connect&client=guest").await;
    assert_eq!(answer["reason"], "guests-shut-out");
    let wrong = node.admin("GET", &format!("{SITE}/can-i?act=fly"), None).await;
    wrong.is_problem(422, "invalid", Some("?act"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_how_it_is() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let answer = node.admin("GET", "/v1/node", None).await.is(200);
    assert_eq!((&answer["ready"], &answer["state"]), (&json!(true), &json!("active")), "{answer}");
    let disk = &answer["disk"];
    for field in ["free_bytes", "reserve_bytes", "log_bytes"] {
        assert!(disk[field].as_u64().unwrap() > 0, "{field}: {answer}");
    }
    assert!(answer["state_bytes"].as_u64() < answer["state_bytes_max"].as_u64(), "{answer}");
    let refused = node.call(Some(&demo.admin), "GET", "/v1/node", None).await;
    refused.is_problem(401, "bad-credentials", Some("Authorization"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_per_site_and_account() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let quotas = json!({"connections": 3, "principal_connections": 2});
    node.admin("PUT", "/v1/sites/demo/quotas", Some(quotas)).await.is(200);
    let open = async |token: Option<&str>| {
        let mut socket = node.socket("/v1/sites/demo/client", token, JSON).await?;
        socket.say(json!({"hello": {}})).await;
        socket.hear_of("welcome").await;
        Ok::<_, Reply>(socket)
    };
    let first = open(None).await.unwrap();
    let _second = open(None).await.unwrap();
    let problem = open(None).await.err().unwrap().is_problem(429, "quota-exceeded", None);
    assert_eq!(problem["detail"], "quota principal_connections: at most 2");
    let _third = open(Some(&demo.client)).await.unwrap();
    let service = node.socket("/v1/sites/demo/service", Some(&demo.service), JSON).await;
    let problem = service.err().unwrap().is_problem(429, "quota-exceeded", None);
    assert_eq!(problem["detail"], "quota connections: at most 3");
    let quotas = "/v1/sites/demo/quotas";
    assert_eq!(node.admin("GET", quotas, None).await.is(200)["used"]["connections"], 3);
    drop(first);
    until(&node, quotas, |answer| answer["used"]["connections"] == 2).await;
    open(None).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_held() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let quotas = json!({"events_per_s": 200});
    node.admin("PUT", "/v1/sites/demo/quotas", Some(quotas)).await.is(200);
    let mut service =
        node.socket("/v1/sites/demo/service", Some(&demo.service), JSON).await.unwrap();
    service.hello_service().await;
    // As fast as the window allows, for as long as makes the burst a small part of it.
    let (mut sent, mut accepted) = (0u64, 0u64);
    let started = Instant::now();
    let mut stamps = Vec::new();
    while accepted < 1200 {
        while sent < accepted + 64 {
            sent += 1;
            service.say(json!({"raise": {"seq": sent, "event": "reading", "args": sent}})).await;
        }
        let frame = service.hear().await;
        if frame.get("accepted").is_some() {
            accepted += 1;
            stamps.push(started.elapsed());
        } else if let Some(refused) = frame.get("refused") {
            panic!("held back, not refused: {refused}");
        }
    }
    // Without the burst at the start: 1150 events at 200 a second.
    let took = (stamps[1199] - stamps[49]).as_secs_f64();
    let rate = 1150.0 / took;
    println!("{rate:.1}/s of 200/s");
    assert!((100.0..=300.0).contains(&rate), "{rate}/s");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_and_removed_again_at_once_was_made_and_is_not_refused() {
    let node = Running::start().await;
    node.demo().await;
    let (mut made, mut removed) = (0, 0);
    let make = async {
        while made < 200 {
            let patience = json!({"ack_timeout_ms": 10_000 + made});
            let answer = node.admin("PUT", READING, Some(patience)).await;
            assert!([200, 204].contains(&answer.status), "{} {}", answer.status, answer.text);
            made += 1;
        }
    };
    let remove = async {
        while removed < 200 {
            let answer = node.admin("DELETE", READING, None).await;
            assert!([204, 404].contains(&answer.status), "{} {}", answer.status, answer.text);
            removed += 1;
        }
    };
    tokio::join!(make, remove);
    node.stop().await;
}
