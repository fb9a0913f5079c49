//! Data directories that releases left behind open, and answer what they answered then.
//!
//! `cluster-tests/golden` has them, with the script that made them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use cluster_tests::disk;
use cluster_tests::node::{Launch, Node};
use reqwest::Client;
use serde_json::{Value, json};

/// After the directory was made: lifetimes are not over.
const LATER_MS: i64 = 60_000;
/// What the script raised last of a queue, under its key.
const RAISED: (&str, u64) = ("r29", 30);

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Where an answer lacks what an earlier release answered, or says something else. What is new is
/// allowed everywhere.
fn differences(path: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(_)) => {
            for (name, value) in before {
                differences(&format!("{path}.{name}"), value, &now[name], found);
            }
        }
        (Value::Array(before), Value::Array(items)) if before.len() == items.len() => {
            for (at, (before, now)) in before.iter().zip(items).enumerate() {
                differences(&format!("{path}[{at}]"), before, now, found);
            }
        }
        _ if before == now => {}
        _ => found.push(format!("{path}: was {before}, is {now}")),
    }
}

/// A broker of today on the directory, at a time soon after it was made.
async fn open(golden: &Path, place: &Path, told: &Value) -> Node {
    let data = place.join("data");
    std::fs::create_dir_all(&data).expect("a directory");
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(golden.join("data.tar.gz")).arg("-C").arg(&data);
    assert!(unpack.status().expect("tar is there").success());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as i64;
    let made = told["made_ms"].as_i64().expect("when it was made");
    let clock = place.join("clock");
    std::fs::write(&clock, (made + LATER_MS - now).to_string()).expect("a clock");
    let library = tokio::task::spawn_blocking(disk::library).await.expect("it ran").expect("built");
    let environment =
        vec![("LD_PRELOAD".into(), library.into()), ("CLOCK_SHIM_FILE".into(), clock.into())];
    let sets = vec!["push.hosts=127.0.0.1".to_owned()];
    let launch = Launch { dir: data, sets, environment, ..Launch::default() };
    Node::launch(launch).await.expect("the directory opens")
}

async fn opens(name: &str) {
    let golden = golden().join(name);
    let told = std::fs::read_to_string(golden.join("answers.json")).expect("the answers");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let place = tempfile::tempdir().expect("a directory");
    let node = open(&golden, place.path(), &told).await;
    let http = Client::new();
    let token = |name: &str| told["tokens"][name].as_str().expect("a token").to_owned();
    let url = |path: &str| format!("{}{path}", node.url());
    let mut found = Vec::new();
    for (path, before) in told["answers"].as_object().expect("answers") {
        let admin = told["admin_token"].as_str().expect("a token");
        let answer = http.get(url(path)).bearer_auth(admin).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{name}: {path}: {}", answer.status());
        let now = answer.json().await.expect("JSON");
        differences(path, before, &now, &mut found);
    }
    assert!(found.is_empty(), "{name}: {found:#?}");

    // What was raised under a key is known, and the ids go on.
    let raise = async |key: &'static str, line: &'static str| -> Value {
        let request = http.post(url("/v1/sites/golden/events")).bearer_auth(token("boiler"));
        let request = request.header("Idempotency-Key", key);
        let request = request.header("Content-Type", "application/x-ndjson").body(line);
        request.send().await.expect("an answer").json().await.expect("JSON")
    };
    let (key, id) = RAISED;
    let again = raise(key, r#"{"event": "reading", "args": {"celsius": 14.5}}"#).await;
    assert_eq!((&again["instance_id"], &again["duplicate"]), (&json!(id), &json!(true)), "{again}");
    let fresh = raise("new", r#"{"event": "reading", "args": {"celsius": 15}}"#).await;
    let head = told["head"].as_u64().expect("the last id");
    assert_eq!(fresh["instance_id"], json!(head + 1), "{fresh}");
    // The cursor stands where it stood: twenty are retained, and three of the first are handled.
    let next = http.get(url("/v1/sites/golden/next?event=reading")).bearer_auth(token("phone"));
    let next: Value = next.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(next["instance_id"], json!(14), "{next}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_golden_directory_opens_and_answers_what_it_answered() {
    let mut names: Vec<String> = std::fs::read_dir(golden())
        .expect("the directories")
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('_'))
        .collect();
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    for name in names {
        opens(&name).await;
    }
}
