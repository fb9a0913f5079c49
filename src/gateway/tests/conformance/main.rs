//! The API does what its description says: thousands of requests made from the OpenAPI document of a
//! running node, right and wrong ones, and each answer judged by that document.
//!
//! No answer is a mistake of the broker's (5xx) unless it is described; every answer has a described
//! status and the shape described for it; every refusal is a problem document with a known code;
//! what is wrong by the document is refused. `ACKORD_TEST_SEED=N` replays, `ACKORD_TEST_ROUNDS=N`
//! asks for more.

#![allow(clippy::unwrap_used)]

mod case;
mod chance;
mod document;
mod raw;
#[path = "../support/mod.rs"]
mod support;
mod world;

use chance::Chance;
use document::{Document, Operation};
use raw::Reply;
use serde_json::Value;
use world::World;

/// Rounds over all operations that the gate can afford.
const ROUNDS: u64 = 50;
/// What cannot succeed here: a node that is alone cannot leave.
const NEVER: [&str; 3] = ["post-drain", "post-remove", "post-leave"];
/// Any will do; it is printed with a failure.
const SEED: u64 = 20_251_121;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_as_described() {
    let seed = setting("ACKORD_TEST_SEED", SEED);
    let mut world = World::start().await;
    let document = Document::of(&world.node).await;
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    let mut asked = 0_u32;
    for round in 0..setting("ACKORD_TEST_ROUNDS", ROUNDS) {
        for (number, operation) in document.operations.iter().enumerate() {
            let mut chance = Chance::new(seed ^ (round << 20) ^ number as u64);
            world.prepare(operation).await;
            let case = case::make(&mut chance, operation, &document, &world);
            let reply = raw::ask(&world.node.base, &case.request).await;
            let told = |what: String| {
                format!("{what}\nACKORD_TEST_SEED={seed}, round {round}\n{case}\n{reply:?}")
            };
            if let Err(what) = judge(&document, operation, &case, &reply) {
                panic!("{}", told(what));
            }
            asked += 1;
            *seen.entry(format!("{} {}", operation.id, reply.status)).or_default() += 1;
            if reply.status < 300 {
                world.mend(operation).await;
            }
        }
    }
    println!("{asked} requests, {} answers of different kinds", seen.len());
    // The test is of use only while right requests are answered rightly.
    for operation in &document.operations {
        let good = |(answer, _): (&String, &u32)| {
            answer.strip_prefix(&operation.id).is_some_and(|rest| rest.starts_with(" 2"))
        };
        let never = operation.answers.contains_key("101") || NEVER.contains(&&*operation.id);
        assert!(never || seen.iter().any(good), "{} never succeeded: {seen:?}", operation.id);
    }
    world.node.stop().await;
}

/// What is wrong with an answer.
fn judge(
    document: &Document,
    operation: &Operation,
    case: &case::Case,
    reply: &Reply,
) -> Result<(), String> {
    if let Some(expected) = case.refused
        && expected != reply.status
        // Who may not act is told so before anything else is looked at; an address that names
        // nothing is no operation at all.
        && !(case.may_be.contains(&reply.status))
    {
        return Err(format!("{expected} was to be expected, because of {}", case.about));
    }
    if case.is_wrong && reply.status < 400 {
        return Err(format!("it was taken, in spite of {}", case.about));
    }
    let status = reply.status.to_string();
    // An address that names nothing is no operation: then only the code counts.
    let nowhere = case.leads_nowhere
        && reply.status == 404
        && serde_json::from_slice::<Value>(&reply.body).is_ok_and(|it| it["code"] == "not-found");
    let described = operation.answers.get(&status);
    let head = operation.method == "HEAD";
    if !nowhere && described.is_none() && !(head && case.leads_nowhere && reply.status == 404) {
        return Err(format!("{} does not describe {status}", operation.id));
    }
    if head {
        let empty = reply.body.is_empty();
        return if empty { Ok(()) } else { Err("an answer to HEAD has a body".to_owned()) };
    }
    let Some(described) = described.filter(|_| !nowhere) else {
        return document.judge_problem(reply, None);
    };
    if reply.status >= 400 {
        return document.judge_problem(reply, Some(described));
    }
    document.judge_answer(reply, described)
}

/// The methods that an address may have.
const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "BREW"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_method_is_refused_and_those_there_are_told() {
    let world = World::start().await;
    let document = Document::of(&world.node).await;
    for (template, methods) in &document.paths {
        let operation =
            document.operations.iter().find(|operation| operation.template == *template);
        let target = world.fill(operation.unwrap());
        for method in METHODS.iter().filter(|method| !methods.iter().any(|own| own == *method)) {
            let request = raw::Request::new(method, &target).bearer(support::ADMIN);
            let reply = raw::ask(&world.node.base, &request).await;
            assert_eq!(reply.status, 405, "{method} {target}: {reply:?}");
            let mut allowed: Vec<&str> = reply.header("allow").unwrap().split(", ").collect();
            allowed.sort_unstable();
            assert_eq!(allowed, *methods, "{template}");
            if *method != "HEAD" {
                let problem: Value = serde_json::from_slice(&reply.body).unwrap();
                assert_eq!(problem["code"], "method-not-allowed", "{template}");
            }
        }
    }
    world.node.stop().await;
}
