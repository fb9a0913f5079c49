//! `ackord dev --nodes`, `ackord cluster`: nodes that come and go, backups.

use std::io::{BufRead as _, BufReader};
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

    // A file that is not whole restores nothing.
    let whole = std::fs::read(file).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for bytes in [&damaged[..], &whole[..whole.len() - 1], b"ACKORDB2"] {
        std::fs::write(file, bytes).unwrap();
        run(&["cluster", "restore", "--file", file, "--url", &new.ready.urls[0], "--token", "x"])
            .expect(74);
    }
}
