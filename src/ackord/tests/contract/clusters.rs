//! `ackord dev --nodes`, `ackord cluster`: nodes that come and go, backups.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Broker, Ready, ackord, run, send};

fn status(broker: &Ready) -> Value {
    broker.admin(&["cluster", "status"]).expect(0).lines().remove(0)
}

#[test]
fn a_cluster_serves_everywhere_and_goes_on_without_a_killed_node() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--nodes", "3"]);
    assert_eq!((broker.ready.urls.len(), broker.ready.pids.len()), (3, 3));
    let (first, others) = broker.ready.urls.split_first().unwrap();
    let line = broker
        .at(&broker.urls[..1])
        .raise(&["reading", "--args", "1"], "")
        .expect(0)
        .lines()
        .remove(0);
    let got = broker.at(&others[1..]).subscribe(&["reading", "--count", "1"]).expect(0).lines();
    assert_eq!(got[0]["instance_id"], line["instance_id"]);

    send(broker.ready.pids[0], "KILL");
    let line = broker.at(others).raise(&["reading", "--args", "2"], "").expect(0).lines().remove(0);
    let got = broker.at(&others[1..]).subscribe(&["reading", "--count", "1"]).expect(0).lines();
    assert_eq!((&got[0]["instance_id"], &got[0]["args"]), (&line["instance_id"], &json!(2)));
    let nodes = status(&broker.at(others));
    assert_eq!(nodes["nodes"][0]["up"], false);

    let data = dir.path().to_str().unwrap();
    let mut again = ackord(&["dev", "--data", data, "--only", "1", "--json", "--while-stdin"]);
    let mut again = again.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(again.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((&ready["node"], &ready["urls"][0]), (&json!(1), &json!(first)));
    broker.admin(&["cluster", "rebalance"]).expect(0);
    for row in broker.admin(&["cluster", "verify"]).expect(0).lines() {
        assert_eq!((&row["equal"], &row["replicas"]), (&json!(true), &json!(3)), "{row}");
    }

    broker.admin(&["check", "cluster", "--members", "3"]).expect(0);
    broker.admin(&["check", "cluster", "--members", "4"]).expect(2);

    let drained = broker.admin(&["cluster", "drain", "2"]).expect(0).lines().remove(0);
    assert_eq!(drained["done"], true);
    broker.admin(&["cluster", "remove", "1", "--no-wait"]).expect(4);
    broker.admin(&["cluster", "drain", "9"]).expect(4);
    broker.admin(&["cluster", "undrain", "2"]).expect(0);
    assert_eq!(status(&broker)["settled"], true);
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn a_backup_is_restored_into_another_broker_with_events_cursors_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let old = Broker::start(&dir.path().join("old"), &[]);
    old.raise(&["reading"], "1\n2\n3\n").expect(0);
    old.subscribe(&["reading", "--count", "1"]).expect(0);
    let file = dir.path().join("backup");
    let file = file.to_str().unwrap();
    let report = old.admin(&["cluster", "backup", "--out", file]).expect(0).lines().remove(0);
    assert_eq!((&report["sites"], &report["partitions"]), (&json!(1), &json!(16)));
    // Acknowledged after the backup: not in it.
    old.raise(&["reading"], "4\n").expect(0);

    let new = Broker::start(&dir.path().join("new"), &["--limit", "partitions=3"]);
    let refused = new.admin(&["cluster", "restore", "--file", file]).expect(4);
    assert!(refused.err.contains("demo"), "{}", refused.err);
    new.admin(&["site", "delete", "demo"]).expect(0);
    let report = new.admin(&["cluster", "restore", "--file", file]).expect(0).lines().remove(0);
    assert_eq!(report["restored"], json!(["demo"]));
    let restored = new.with_accounts_of(&old);
    let got = restored.subscribe(&["reading", "--timeout", "1s"]).expect(3).lines();
    let args: Vec<&Value> = got.iter().map(|line| &line["args"]).collect();
    assert_eq!(args, [&json!(2), &json!(3)], "from the cursor that was in the backup on");
    restored.raise(&["reading"], "5\n").expect(0);
}

/// Where each partition of a backup ends.
fn ends(backup: &[u8]) -> Vec<usize> {
    let number = |at: usize| u32::from_le_bytes(backup[at..at + 4].try_into().unwrap());
    let (mut at, mut ends) = (8, Vec::new());
    while number(at) != u32::MAX - 1 {
        match number(at) {
            u32::MAX => {
                at += 4 + 8 + 32;
                ends.push(at);
            }
            bytes => at += 4 + bytes as usize,
        }
    }
    assert_eq!(at + 4 + 4 + 32, backup.len());
    ends
}

#[test]
fn a_backup_that_is_not_whole_restores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &["--limit", "partitions=3"]);
    broker.raise(&["reading"], "1\n").expect(0);
    let file = dir.path().join("backup");
    let name = file.to_str().unwrap();
    broker.admin(&["cluster", "backup", "--out", name]).expect(0);
    broker.admin(&["site", "delete", "demo"]).expect(0);
    let restore = || broker.admin(&["cluster", "restore", "--file", name]);

    let whole = std::fs::read(&file).unwrap();
    let ends = ends(&whole);
    assert_eq!(ends.len(), 3);
    // Also where a partition ends, and where the last one does.
    for cut in [0, 4, 8, ends[0], ends[1], ends[2], ends[2] + 4, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let refused = restore().expect(74);
        assert!(refused.err.contains("is cut short"), "{cut}: {}", refused.err);
        assert!(refused.err.contains(name), "{cut}: {}", refused.err);
    }
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let junk = [&whole[..], b"x"].concat();
    let without_first = [&whole[..8], &whole[ends[0]..]].concat();
    let trailer = ends[2] + 4;
    for bytes in [flipped(7), flipped(100), flipped(trailer), junk, without_first] {
        std::fs::write(&file, bytes).unwrap();
        let refused = restore().expect(74);
        assert!(refused.err.contains(name), "{}", refused.err);
    }
    assert_eq!(broker.admin(&["site", "list"]).expect(0).lines(), [] as [Value; 0]);
    std::fs::write(&file, &whole).unwrap();
    restore().expect(0);
}

#[test]
fn a_backup_that_fails_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &["--limit", "partitions=3"]);
    // The name of a directory that is not empty cannot be taken.
    let taken = dir.path().join("taken");
    std::fs::create_dir_all(taken.join("inside")).unwrap();
    let name = taken.to_str().unwrap();
    let failed = broker.admin(&["cluster", "backup", "--out", name]).expect(74);
    assert!(failed.err.contains(name), "{}", failed.err);
    assert!(!dir.path().join("taken.part").exists());
}

#[test]
fn a_restore_that_fails_between_two_sites_says_which_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &["--limit", "partitions=1"]);
    broker.admin(&["site", "create", "another"]).expect(0);
    let file = dir.path().join("backup");
    let file = file.to_str().unwrap();
    broker.admin(&["cluster", "backup", "--out", file]).expect(0);

    // A node that takes one site and is gone before the next one.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = String::new();
        let mut request = BufReader::new(stream.try_clone().unwrap());
        request.read_line(&mut head).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        // What is not read would reset the connection, and the answer with it.
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = request.read_to_end(&mut Vec::new());
        head
    });
    let words = ["cluster", "restore", "--file", file, "--url", &url, "--token", "x", "--json"];
    let failed = run(&words).expect(5);
    let head = asked.join().unwrap();
    assert!(head.starts_with("POST /v1/cluster/restore/another?attempt="), "{head}");
    assert!(head.contains("&part=0 "), "{head}");
    assert!(failed.err.contains("site demo"), "{}", failed.err);
    assert!(failed.err.contains("restored before it: another"), "{}", failed.err);
    let report = &failed.lines()[0];
    assert_eq!((&report["restored"], &report["failed"]), (&json!(["another"]), &json!("demo")));
}

#[test]
fn a_node_that_hangs_is_told_and_does_not_defeat_those_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &["--nodes", "3"]);
    broker.raise(&["reading"], "1\n").expect(0);
    // Continued before it is killed: the broker ends with its test.
    let hung = broker.ready.pids[0];
    send(hung, "STOP");
    let nodes = status(&broker);
    assert_eq!((&nodes["nodes"][0]["up"], &nodes["nodes"][1]["up"]), (&json!(false), &json!(true)));

    let verified = broker.admin(&["cluster", "verify"]).expect(3);
    assert!(verified.err.contains("of node 1"), "{}", verified.err);
    for row in verified.lines() {
        assert_eq!((&row["equal"], &row["waiting"]), (&Value::Null, &json!([1])), "{row}");
    }
    let file = dir.path().join("backup");
    let file = file.to_str().unwrap();
    broker.admin(&["cluster", "backup", "--out", file]).expect(0);
    broker.at(&broker.urls[1..]).admin(&["site", "delete", "demo"]).expect(0);
    broker.admin(&["cluster", "restore", "--file", file]).expect(0);
    send(hung, "CONT");
    broker.admin(&["cluster", "rebalance"]).expect(0);
    broker.admin(&["cluster", "verify"]).expect(0);
}
