//! A tenant cannot be guessed: whatever is wrong with a token, and whether or not the site is
//! there, the answer is the same, byte for byte.

use futures_util::future::join_all;
use serde_json::json;

use crate::ask::Scope;
use crate::chance::Chance;
use crate::document::{Document, Operation};
use crate::raw::{self, Reply, Request};
use crate::world::World;

/// Byte for byte, but for the date and the order of headers, which is random.
fn bytes(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let headers = reply.headers.iter().filter(|(name, _)| name != "date").cloned();
    let mut headers: Vec<_> = headers.collect();
    headers.sort_unstable();
    (reply.status, headers, String::from_utf8_lossy(&reply.body).into_owned())
}

/// A token with the public half of one and the secret half of another.
fn crossed(id_of: &str, secret_of: &str) -> String {
    let (public, _) = id_of.split_at(id_of.len() - 43);
    format!("{public}{}", &secret_of[secret_of.len() - 43..])
}

/// The same operation at an address of this site.
fn target(world: &World, operation: &Operation, site: &str) -> String {
    let path = world.fill(operation);
    let own = operation.template.split("{site}").next().unwrap();
    let rest = operation.template.strip_prefix("/v1/sites/{site}");
    match rest {
        Some(_) => {
            let tail = &path[own.len()..];
            let end = tail.find('/').unwrap_or(tail.len());
            format!("{own}{site}{}", &tail[end..])
        }
        None => path,
    }
}

fn upgraded(mut request: Request, operation: &Operation) -> Request {
    if operation.answers.contains_key("101") {
        for (name, value) in [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", "ackord.v1.json"),
        ] {
            request = request.header(name, value);
        }
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_a_token_the_answer_is_the_same() {
    let mut world = World::start().await;
    let document = Document::of(&world.node).await;
    let body = json!({"principal": "admin", "expires_in_s": 1});
    let made = world.node.admin("POST", "/v1/sites/demo/tokens", Some(body)).await.is(201);
    let expired = made["token"].as_str().unwrap().to_owned();
    let revoked = world.node.token("demo", json!("admin")).await;
    let id = revoked[3..revoked.len() - 44].to_owned();
    world.node.admin("DELETE", &format!("/v1/sites/demo/tokens/{id}"), None).await.is(204);
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        looks.tick().await;
        if world.node.call(Some(&expired), "GET", "/v1/sites/demo", None).await.status == 401 {
            break;
        }
    }
    let demo = &world.demo;
    let unknown =
        crossed("ak_t0000000000000000_0123456789012345678901234567890123456789012", &revoked);
    let wrong = [
        ("an unknown id", unknown),
        ("a wrong secret", crossed(&demo.admin, &demo.observer)),
        ("a client's with a wrong secret", crossed(&demo.client, &demo.admin)),
        ("the other site's", world.foreign.clone()),
        ("an own id with the other's secret", crossed(&demo.admin, &world.foreign)),
        ("a revoked one", revoked),
        ("an expired one", expired),
    ];
    let mut compared = 0;
    for operation in &document.operations {
        match Scope::of(operation) {
            Scope::Site | Scope::Node => {}
            Scope::Open | Scope::Totals | Scope::Figures => continue,
        }
        world.prepare(operation).await;
        let world = &world;
        let asking = ["demo", "missing"].into_iter().flat_map(|site| {
            wrong.iter().map(move |(what, token)| async move {
                let request = Request::new(&operation.method, &target(world, operation, site));
                let request = upgraded(request.bearer(token), operation);
                (site, what, raw::ask(&world.node.base, &request).await)
            })
        });
        let answers = join_all(asking).await;
        let (_, _, first) = &answers[0];
        assert_eq!(first.status, 401, "{}: {first:?}", operation.id);
        for (site, what, reply) in &answers {
            let about = format!("{} of {site} with {what}", operation.id);
            assert_eq!(bytes(reply), bytes(first), "{about}");
            compared += 1;
        }
    }
    println!("{compared} answers");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_a_ticket_the_answer_is_the_same() {
    let world = World::start().await;
    let draw = async || {
        let body = Some(json!({"client": "c"}));
        let drawn = world.node.admin("POST", "/v1/sites/demo/tickets", body).await.is(201);
        drawn["ticket"].as_str().unwrap().to_owned()
    };
    let (used, good, other) = (draw().await, draw().await, draw().await);
    let stream = async |site: &str, ticket: &str| {
        let target = format!("/v1/sites/{site}/events?ticket={ticket}");
        raw::ask(&world.node.base, &Request::new("GET", &target)).await
    };
    assert_eq!(stream("demo", &used).await.status, 200);
    let unknown =
        crossed("ak_k0000000000000000_0123456789012345678901234567890123456789012", &good);
    let first = stream("demo", &unknown).await;
    assert_eq!(first.status, 401);
    let wrong = [
        stream("demo", &used).await,
        stream("demo", &crossed(&good, &other)).await,
        stream("demo", &world.foreign).await,
        stream("demo", &world.demo.client).await,
        stream("other", &good).await,
        stream("missing", &good).await,
    ];
    for (number, reply) in wrong.iter().enumerate() {
        assert_eq!(bytes(reply), bytes(&first), "{number}");
    }
    // Nobody who guesses uses it up.
    assert_eq!(stream("demo", &good).await.status, 200);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_another_site_or_client_are_no_acknowledgements() {
    let world = World::start().await;
    let query = "/v1/sites/demo/next?event=reading";
    let polled = world.node.call(Some(&world.demo.client), "GET", query, None).await.is(200);
    let good = polled["ack"].as_str().unwrap().to_owned();
    let ack = async |site: &str, token: &str| {
        let body = json!({ "token": token }).to_string().into_bytes();
        let mut request = Request::new("POST", &format!("/v1/sites/{site}/ack"));
        request.body = body;
        raw::ask(&world.node.base, &request).await
    };
    let mut chance = Chance::new(1);
    let first = ack("missing", &good).await;
    assert_eq!(first.status, 422, "{first:?}");
    for site in ["other", "demo", "missing"] {
        for _ in 0..20 {
            let mut changed = good.clone().into_bytes();
            let at = chance.below(changed.len());
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let reply = ack(site, &String::from_utf8(changed).unwrap()).await;
            assert_eq!(bytes(&reply), bytes(&first), "{site}");
        }
    }
    assert_eq!(bytes(&ack("other", &good).await), bytes(&first));
    assert_eq!(ack("demo", &good).await.status, 200);
    world.node.stop().await;
}
