//! `ackord raise --store`: what it says it keeps is there, and what is not its own stays.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Broker, Ended, ackord, run_with, send};

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

fn raise(url: &str, token: &str, more: &[&str], input: &str) -> Ended {
    let account = ["raise", "reading", "--json", "--url", url, "--site", "demo", "--token", token];
    let words: Vec<&str> = account.iter().chain(more).copied().collect();
    run_with(&words, input)
}

fn kept(lines: &[Value]) -> usize {
    lines.iter().filter(|line| line["error"]["kept"] == true).count()
}

fn handled(broker: &Broker) -> Vec<Value> {
    let got = broker.subscribe(&["reading", "--timeout", "1s"]).expect(3).lines();
    got.into_iter().map(|line| line["args"].clone()).collect()
}

#[test]
fn of_a_full_store_it_says_which_events_are_kept_and_delivers_just_those() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let token = broker.ready.service_token.as_str();
    let store = dir.path().join("store");
    let small = ["--store", store.to_str().unwrap(), "--store-bytes", "8192"];
    let mut promised = Vec::new();
    for run in 0..3 {
        let events: Vec<String> =
            (0..8).map(|n| format!("{run}{n}{}", "7".repeat(1_800))).collect();
        let input: String = events.iter().map(|event| format!("\"{event}\"\n")).collect();
        let more = [&small[..], &["--timeout", "300ms"]].concat();
        let lines = raise(NOWHERE, token, &more, &input).expect(5).lines();
        let pairs = lines.iter().zip(events);
        promised.extend(
            pairs.filter(|(line, _)| line["error"]["kept"] == true).map(|(_, event)| event),
        );
    }
    assert!(!promised.is_empty());

    raise(&broker.ready.urls[0], token, &small, "").expect(0);

    assert_eq!(handled(&broker), promised);
}

#[test]
fn refused_at_the_door_it_keeps_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let url = broker.ready.urls[0].as_str();
    let store = dir.path().join("store");
    let store = ["--store", store.to_str().unwrap()];
    let input: String = (0..500).map(|n| format!("{n}\n")).collect();

    let lines = raise(url, "ak_demo-service_wrong", &store, &input).expect(4).lines();
    raise(url, &broker.ready.service_token, &store, "").expect(0);

    assert_eq!(handled(&broker).len(), kept(&lines), "{lines:?}");
}

#[test]
fn a_bad_line_is_reported_in_its_place_although_the_one_before_it_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let more = ["--store", store.to_str().unwrap(), "--timeout", "300ms"];
    let lines = raise(NOWHERE, "ak_x_y", &more, "1\nbad\n3\n").expect(5).lines();
    let codes: Vec<&Value> = lines.iter().map(|line| &line["error"]["code"]).collect();
    assert_eq!(codes, ["timeout", "invalid", "timeout"]);
    assert_eq!(kept(&lines), 2);
}

#[test]
fn damage_inside_the_file_costs_one_batch_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let path = dir.path().join("store");
    let store = path.to_str().unwrap();
    let token = broker.ready.service_token.as_str();
    for n in 0..10 {
        let more = ["--store", store, "--timeout", "100ms"];
        raise(NOWHERE, token, &more, &format!("{n}\n")).expect(5);
    }
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let ended = raise(&broker.ready.urls[0], token, &["--store", store], "").expect(0);

    assert!(ended.err.contains("damaged"), "{}", ended.err);
    assert_eq!(std::fs::read(dir.path().join("store.damaged")).unwrap(), bytes);
    assert_eq!(handled(&broker).len(), 9);
}

#[test]
fn a_file_that_is_not_its_own_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    std::fs::write(&path, "{\"my\": \"notes\"}\n").unwrap();
    let store = |path: &Path| {
        raise(NOWHERE, "ak_x_y", &["--store", path.to_str().unwrap()], "1\n").expect(74)
    };

    let refused = store(&path);

    assert!(refused.err.contains("left as it is"), "{}", refused.err);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"my\": \"notes\"}\n");
    store(dir.path());
    store(&dir.path().join("missing").join("store"));
}

#[test]
fn an_input_that_cannot_be_read_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut command = ackord(&["raise", "reading", "--json", "--site", "demo"]);
    command.args(["--url", &broker.ready.urls[0], "--token", &broker.ready.service_token]);
    let folder = std::fs::File::open(dir.path()).unwrap();
    let ended = command.stdin(folder).stderr(Stdio::null()).status().unwrap();
    assert_eq!(ended.code(), Some(74));
}

#[test]
fn a_signal_ends_it_although_nobody_reads_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut child = ackord(&["raise", "reading", "--json", "--site", "demo"])
        .args(["--url", &broker.ready.urls[0], "--token", &broker.ready.service_token])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::with_capacity(1, child.stdout.take().unwrap());
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        // Far more lines than the pipe of the output holds.
        for n in 0..50_000 {
            if input.write_all(format!("{n}\n").as_bytes()).is_err() {
                return;
            }
        }
    });
    let mut line = String::new();
    out.read_line(&mut line).unwrap();

    send(child.id(), "INT");

    assert_eq!(child.wait().unwrap().code(), Some(130));
    feeder.join().unwrap();
}
