//! `ackord raise`: one line per event, in order; nothing dropped; honest ends.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Broker, ackord, run, run_with, send};

fn ids(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["instance_id"].as_u64().unwrap()).collect()
}

#[test]
fn ndjson_is_raised_in_order_one_line_out_per_line_in() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let input: String = (1..=500).map(|n| format!("{{\"n\": {n}}}\n")).collect();

    let raised = broker.raise(&["reading"], &input).expect(0).lines();

    assert_eq!(raised.len(), 500);
    assert_eq!(raised[0], json!({"event": "reading", "instance_id": 1, "duplicate": false}));
    assert!(ids(&raised).is_sorted_by(|a, b| a < b));
    let got = broker.subscribe(&["reading", "--count", "500"]).expect(0).lines();
    let numbers: Vec<u64> = got.iter().map(|line| line["args"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
    assert_eq!(ids(&got), ids(&raised));
}

#[test]
fn a_refused_event_is_an_error_line_in_its_place_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let long = "x".repeat(2049);
    let input = format!("1\n\"{long}\"\n\nnot json\n{{\"last\":true}}");

    let lines = broker.raise(&["reading"], &input).expect(1).lines();

    let code = |at: usize| lines[at]["error"]["code"].as_str();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0]["instance_id"].is_u64());
    assert_eq!(code(1), Some("arguments-too-large"));
    assert_eq!(code(2), Some("invalid"));
    assert!(lines[3]["instance_id"].is_u64());

    let lines = broker.raise(&["no such event", "--args", "1"], "").expect(1).lines();
    assert_eq!(lines[0]["event"], "no such event");
    assert_eq!(lines[0]["error"]["code"], "unknown-event");
    let lines = broker.raise(&["reading", "--null"], "").expect(1).lines();
    assert_eq!(lines[0]["error"]["code"], "null-not-allowed");
    let lines =
        broker.raise(&["notice", "--args", "1", "--client", "nobody"], "").expect(1).lines();
    assert_eq!(lines[0]["error"]["code"], "unknown-client");
}

#[test]
fn a_null_after_a_null_is_ignored_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["state", "--args", "1"], "").expect(0);

    let first = broker.raise(&["state", "--null"], "").expect(0).lines();
    let second = broker.raise(&["state", "--null"], "").expect(0).lines();

    assert_eq!(first[0].get("ignored"), None);
    assert_eq!(second[0]["ignored"], true);
    let got = broker.subscribe(&["state", "--count", "1"]).expect(0).lines();
    assert_eq!((&got[0]["null"], &got[0]["args"]), (&json!(true), &Value::Null));
}

#[test]
fn every_kind_of_arguments_comes_out_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let bytes = dir.path().join("bytes");
    std::fs::write(&bytes, [0, 1, 255]).unwrap();
    let file = dir.path().join("lines");
    std::fs::write(&file, "{ \"precise\": 12345678901234567890.123 }\nnull\n").unwrap();

    broker
        .raise(&["reading", "--bytes", bytes.to_str().unwrap(), "--content-type", "x/y"], "")
        .expect(0);
    broker.raise(&["reading", "--file", file.to_str().unwrap()], "").expect(0);
    broker.raise(&["notice", "--client", "demo-client", "--args", "[]"], "").expect(0);

    let got = broker.subscribe(&["reading", "--count", "3"]).expect(0);
    assert!(got.out.contains(r#""args":{"precise":12345678901234567890.123}"#), "{}", got.out);
    let lines = got.lines();
    assert_eq!(lines[0]["args"], json!({"base64": "AAH/", "content_type": "x/y"}));
    assert_eq!((&lines[2]["args"], &lines[2]["null"]), (&Value::Null, &json!(false)));
    let got = broker.subscribe(&["notice", "--count", "1"]).expect(0).lines();
    assert_eq!(got[0]["args"], json!([]));
}

#[test]
fn without_a_broker_it_waits_for_the_timeout_and_the_store_keeps_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = dir.path().join("store");
    let store = store.to_str().unwrap();
    let broker = Broker::start(&data, &[]);
    let ready = broker.ready.clone();
    broker.kill();
    let account = ["--url", &ready.urls[0], "--site", "demo", "--token", &ready.service_token];
    let raise = |more: &[&str], input: &str| {
        let words: Vec<&str> =
            ["raise", "reading", "--json"].iter().chain(&account).chain(more).copied().collect();
        run_with(&words, input)
    };

    let lost = raise(&["--args", "0", "--timeout", "300ms"], "").expect(5).lines();
    assert_eq!(lost[0]["error"]["code"], "timeout");
    assert_eq!(lost[0]["error"].get("kept"), None);
    let kept = raise(&["--store", store, "--timeout", "300ms"], "1\n2\n").expect(5).lines();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|line| line["error"]["kept"] == true), "{kept:?}");

    let broker = Broker::start(&data, &[]);
    let next = raise(&["--store", store], "3\n").expect(0);
    assert_eq!(next.lines().len(), 1, "only the events of this run have a line");
    assert!(next.err.contains("2 events of an earlier run"), "{}", next.err);
    raise(&["--store", store], "").expect(0);
    let got = broker.subscribe(&["reading", "--count", "3"]).expect(0).lines();
    let args: Vec<&Value> = got.iter().map(|line| &line["args"]).collect();
    assert_eq!(args, [&json!(1), &json!(2), &json!(3)]);
}

#[test]
fn it_raises_once_the_broker_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let ready = broker.ready.clone();
    broker.kill();
    let mut child = ackord(&["raise", "reading", "--args", "1", "--timeout", "60s", "--json"])
        .args(["--url", &ready.urls[0], "--site", "demo", "--token", &ready.service_token])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    let _broker = Broker::start(&data, &[]);

    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_tokens_wrong_words_and_signals_have_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let url = broker.ready.urls[0].as_str();
    let account = ["--url", url, "--site", "demo"];
    let raise = |more: &[&str]| {
        let words: Vec<&str> =
            ["raise", "reading", "--json"].iter().chain(&account).chain(more).copied().collect();
        run(&words)
    };

    raise(&["--args", "1", "--token", "ak_x_wrong"]).expect(4);
    raise(&["--args", "1", "--token", &broker.ready.client_token]).expect(4);
    raise(&["--args", "1"]).expect(2);
    raise(&["--args", "{", "--token", &broker.ready.service_token]).expect(2);
    raise(&["--args", "1", "--null", "--token", &broker.ready.service_token]).expect(2);

    // A reader of standard input that is interrupted while it waits for more.
    let mut child = ackord(&["raise", "reading", "--json"])
        .args(account)
        .args(["--token", &broker.ready.service_token])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open to the end: waiting for a child closes what it still has.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"1\n").unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.contains("instance_id"), "flushed while the input is still open: {line}");
    send(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
}

#[test]
fn a_newer_session_of_the_service_replaces_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut older = ackord(&["raise", "reading", "--json"])
        .args(["--url", &broker.ready.urls[0], "--site", "demo"])
        .args(["--token", &broker.ready.service_token])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = older.stdin.take().unwrap();
    input.write_all(b"1\n").unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(older.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();

    broker.raise(&["reading", "--args", "2"], "").expect(0);
    // The next event is what tells the older one, if it has not heard already.
    let _ = input.write_all(b"3\n");

    assert_eq!(older.wait().unwrap().code(), Some(4));
}

#[test]
fn the_environment_and_files_say_the_same_as_options() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{}\n", broker.ready.service_token)).unwrap();
    let raise = || {
        let mut command = ackord(&["raise", "reading", "--args", "1", "--json"]);
        command.env("ACKORD_URL", &broker.ready.urls[0]).env("ACKORD_SITE", "demo");
        command
    };

    let mut of_variable = raise();
    of_variable.env("ACKORD_TOKEN", &broker.ready.service_token);
    crate::support::end(of_variable, "").expect(0);
    let mut of_file = raise();
    of_file.env("ACKORD_TOKEN", "ak_x_wrong").arg("--token-file").arg(&file);
    crate::support::end(of_file, "").expect(0);
    let mut of_file = raise();
    of_file.env("ACKORD_TOKEN_FILE", &file);
    crate::support::end(of_file, "").expect(0);
}
