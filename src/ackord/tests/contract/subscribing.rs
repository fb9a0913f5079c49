//! `ackord subscribe`: once, in order, exactly so many, and honest ends.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Broker, ackord, end, run, send};

fn args(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["args"].as_u64().unwrap()).collect()
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> String {
    range.map(|n| format!("{n}\n")).collect()
}

#[test]
fn a_line_says_everything_about_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading", "--args", "{\"a\": [1, 2]}"], "").expect(0);

    let ended = broker.subscribe(&["reading", "--count", "1"]).expect(0);

    let line = &ended.lines()[0];
    let mut names: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["age", "args", "attempt", "created", "event", "instance_id", "null", "service"]
    );
    assert_eq!(line["event"], "reading");
    assert_eq!(line["service"], "demo-service");
    assert_eq!(line["attempt"], 1);
    assert_eq!(line["null"], false);
    assert_eq!(line["args"], json!({"a": [1, 2]}));
    let created = line["created"].as_str().unwrap();
    assert_eq!((created.len(), &created[10..11], &created[19..20]), (24, "T", "."), "{created}");
}

#[test]
fn count_takes_exactly_so_many_and_the_next_run_goes_on_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading"], &numbers(1..=10)).expect(0);

    let first = broker.subscribe(&["reading", "--count", "4"]).expect(0).lines();
    let second = broker.subscribe(&["reading", "--count", "6"]).expect(0).lines();

    assert_eq!(args(&first), [1, 2, 3, 4]);
    assert_eq!(args(&second), [5, 6, 7, 8, 9, 10]);
    broker.subscribe(&["reading", "--count", "1", "--timeout", "300ms"]).expect(3);
}

#[test]
fn count_is_over_all_events_and_zero_only_subscribes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.subscribe(&["reading", "state", "notice", "--count", "0"]).expect(0);
    let subscriptions = broker.admin(&["client", "subscriptions", "demo-client"]).expect(0).lines();
    assert_eq!(subscriptions.len(), 3);
    broker.raise(&["reading"], &numbers(1..=2)).expect(0);
    broker.raise(&["state", "--args", "7"], "").expect(0);
    broker.raise(&["notice", "--client", "demo-client", "--args", "8"], "").expect(0);

    let lines = broker.subscribe(&["reading", "state", "notice", "--count", "4"]).expect(0).lines();

    let mut all = args(&lines);
    all.sort_unstable();
    assert_eq!(all, [1, 2, 7, 8]);
}

#[test]
fn exact_makes_the_set_equal_to_the_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let names = || {
        let lines = broker.admin(&["client", "subscriptions", "demo-client"]).expect(0).lines();
        lines.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    broker.subscribe(&["reading", "--count", "0"]).expect(0);
    broker.subscribe(&["state", "--count", "0"]).expect(0);
    assert_eq!(names(), ["reading", "state"]);
    broker.subscribe(&["state", "notice", "--exact", "--count", "0"]).expect(0);

    let mut left = names();
    left.sort_unstable();
    assert_eq!(left, ["notice", "state"]);
}

#[test]
fn a_line_is_flushed_before_its_event_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading"], &numbers(1..=3)).expect(0);

    // Killed after the first line: whatever was acknowledged had its line before.
    let mut child = broker.subscriber(&["reading"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut seen = vec![serde_json::from_str::<Value>(&line).unwrap()];
    seen.extend(out.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()));
    let before = args(&seen);
    seen.extend(broker.subscribe(&["reading", "--timeout", "500ms"]).expect(3).lines());

    let mut all = args(&seen);
    let repeated = all.len() - 3;
    assert!(repeated <= 1, "{all:?} after {before:?}");
    all.dedup();
    assert_eq!(all, [1, 2, 3]);
}

#[test]
fn a_guest_without_account_starts_anew_and_with_a_state_file_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let state = dir.path().join("state");
    broker.raise(&["reading"], &numbers(1..=3)).expect(0);
    let guest = |more: &[&str]| {
        let mut command = ackord(&["subscribe", "reading", "--stateless", "--json"]);
        command.args(["--url", &broker.ready.urls[0], "--site", "demo", "--max-time", "60s"]);
        command.args(more);
        end(command, "")
    };

    assert_eq!(args(&guest(&["--count", "3"]).expect(0).lines()), [1, 2, 3]);
    assert_eq!(args(&guest(&["--count", "2"]).expect(0).lines()), [1, 2]);
    let state = state.to_str().unwrap();
    assert_eq!(args(&guest(&["--count", "2", "--state", state]).expect(0).lines()), [1, 2]);
    assert_eq!(args(&guest(&["--count", "1", "--state", state]).expect(0).lines()), [3]);
}

#[test]
fn refusals_replacements_and_absent_brokers_have_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let url = broker.ready.urls[0].as_str();

    let refused = broker.subscribe(&["no such event", "--count", "1"]).expect(4);
    assert!(refused.err.contains("no such event"), "{}", refused.err);
    let account = ["--url", url, "--site", "demo", "--json"];
    let subscribe = |more: &[&str]| {
        let words: Vec<&str> =
            ["subscribe", "reading"].iter().chain(&account).chain(more).copied().collect();
        run(&words)
    };
    subscribe(&["--token", "ak_x_wrong"]).expect(4);
    subscribe(&[]).expect(2);
    subscribe(&["--stateless", "--exact"]).expect(2);
    let nobody = ["--url", "http://127.0.0.1:1", "--site", "demo", "--timeout", "300ms"];
    let words: Vec<&str> =
        ["subscribe", "reading", "--stateless"].iter().chain(&nobody).copied().collect();
    run(&words).expect(5);

    // A line that is out proves that the session is open.
    broker.raise(&["reading", "--args", "1"], "").expect(0);
    let mut older = broker.subscriber(&["reading"]);
    let mut older = older.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(older.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    broker.subscribe(&["reading", "--count", "0"]).expect(0);
    assert_eq!(older.wait().unwrap().code(), Some(4));
}

#[test]
fn an_interrupted_subscriber_ends_with_130() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading", "--args", "1"], "").expect(0);
    let mut child = broker.subscriber(&["reading"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();

    send(child.id(), "TERM");

    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_subscriber_lives_through_a_restart_of_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading"], &numbers(1..=2)).expect(0);
    let mut child = broker.subscriber(&["reading", "--count", "4"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();

    broker.kill();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading"], &numbers(3..=4)).expect(0);

    let mut lines = vec![serde_json::from_str::<Value>(&line).unwrap()];
    lines.extend(out.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()));
    assert_eq!(args(&lines), [1, 2, 3, 4]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
