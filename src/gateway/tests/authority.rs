//! Who may do what: every kind of token against every kind of act, denied by default.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{ADMIN, Running, structure};

/// What one bearer gets for an act: it happens, it is forbidden, or the token is not known here.
const DONE: &str = "done";
const FORBIDDEN: &str = "access-denied";
const UNKNOWN: &str = "bad-credentials";

#[tokio::test(flavor = "multi_thread")]
async fn each_token_may_do_what_it_is_for_and_nothing_else() {
    let node = Running::start().await;
    let demo = node.demo().await;
    node.admin("PUT", "/v1/sites/other", None).await.is(201);
    let other = node.token("other", json!("admin")).await;
    let bearers: [(&str, Option<&str>); 8] = [
        ("node", Some(ADMIN)),
        ("admin", Some(&demo.admin)),
        ("observer", Some(&demo.observer)),
        ("service", Some(&demo.service)),
        ("client", Some(&demo.client)),
        ("other site", Some(&other)),
        ("nonsense", Some("ak_x_nonsense")),
        ("nobody", None),
    ];
    let check = async |method: &str, path: &str, body: Option<Value>, expected: [&str; 8]| {
        for ((name, token), expected) in bearers.iter().zip(expected) {
            let answer = node.call(*token, method, path, body.clone()).await;
            let got = match answer.status {
                200..=299 => DONE.to_owned(),
                _ => answer.json()["code"].as_str().unwrap().to_owned(),
            };
            assert_eq!(got, expected, "{name}: {method} {path}: {answer:?}");
        }
    };
    const NODE: [&str; 8] = [DONE, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN];
    const ADMINS: [&str; 8] =
        [DONE, DONE, FORBIDDEN, FORBIDDEN, FORBIDDEN, UNKNOWN, UNKNOWN, UNKNOWN];
    const READERS: [&str; 8] = [DONE, DONE, DONE, FORBIDDEN, FORBIDDEN, UNKNOWN, UNKNOWN, UNKNOWN];
    const MEMBERS: [&str; 8] = [DONE, DONE, DONE, DONE, DONE, UNKNOWN, UNKNOWN, UNKNOWN];
    const SERVICE: [&str; 8] = [DONE, DONE, DONE, DONE, FORBIDDEN, UNKNOWN, UNKNOWN, UNKNOWN];
    const CLIENT: [&str; 8] = [DONE, DONE, DONE, FORBIDDEN, DONE, UNKNOWN, UNKNOWN, UNKNOWN];
    const RAISE: [&str; 8] =
        [FORBIDDEN, FORBIDDEN, FORBIDDEN, DONE, FORBIDDEN, UNKNOWN, UNKNOWN, UNKNOWN];
    let site = "/v1/sites/demo";
    check("GET", "/v1/sites", None, NODE).await;
    check("GET", site, None, READERS).await;
    check("PUT", site, Some(json!({})), ADMINS).await;
    check("GET", &format!("{site}/structure"), None, MEMBERS).await;
    check("PUT", &format!("{site}/structure"), Some(structure()), ADMINS).await;
    for list in ["services", "clients", "users", "tokens", "queues", "subscriptions"] {
        check("GET", &format!("{site}/{list}"), None, READERS).await;
    }
    check("GET", &format!("{site}/services/s"), None, SERVICE).await;
    check("PUT", &format!("{site}/services/s"), None, ADMINS).await;
    check("GET", &format!("{site}/clients/c"), None, CLIENT).await;
    check("GET", &format!("{site}/clients/c/subscriptions"), None, CLIENT).await;
    check("PUT", &format!("{site}/clients/c"), Some(json!({"user": "u"})), ADMINS).await;
    check("GET", &format!("{site}/users/u"), None, READERS).await;
    check("PUT", &format!("{site}/users/u"), Some(json!({})), ADMINS).await;
    check("GET", &format!("{site}/queues/reading"), None, READERS).await;
    let token = Some(json!({"principal": "observer"}));
    check("POST", &format!("{site}/tokens"), token, ADMINS).await;
    check("POST", &format!("{site}/events/reading"), Some(json!(1)), RAISE).await;
    // A service and a client see themselves, not each other's like.
    node.admin("PUT", "/v1/sites/demo/clients/d", None).await.is(201);
    const READERS_OF_D: [&str; 8] = READERS;
    check("GET", &format!("{site}/clients/d"), None, READERS_OF_D).await;
    let delete = [FORBIDDEN; 4];
    for (token, expected) in
        [&demo.admin, &demo.observer, &demo.service, &demo.client].into_iter().zip(delete)
    {
        let answer = node.call(Some(token), "DELETE", site, None).await;
        answer.is_problem(403, expected, Some("Authorization"));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_does_not_exist_answers_like_one_that_is_closed() {
    let node = Running::start().await;
    let demo = node.demo().await;
    node.admin("PUT", "/v1/sites/closed", None).await.is(201);
    for path in ["", "/structure", "/clients", "/clients/c"] {
        let ask = async |site: &str| {
            let path = format!("/v1/sites/{site}{path}");
            node.call(Some(&demo.admin), "GET", &path, None).await
        };
        let (closed, missing) = (ask("closed").await, ask("missing").await);
        assert_eq!((closed.status, &closed.text), (missing.status, &missing.text));
        closed.is_problem(401, "bad-credentials", Some("Authorization"));
    }
    node.admin("GET", "/v1/sites/missing", None).await.is_problem(404, "not-found", None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_parsed_for_somebody_who_may_not() {
    let node = Running::start().await;
    let demo = node.demo().await;
    let nonsense = Some(json!({"nonsense": true}));
    let path = "/v1/sites/demo?nonsense=1";
    let answer = node.call(Some(&demo.client), "PUT", path, nonsense).await;
    answer.is_problem(403, "access-denied", Some("Authorization"));
    node.stop().await;
}
