//! `ackord dev`, `ackord serve`, `ackord recover`: starting, stopping, staying the same.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Broker, ackord, run, send};

#[test]
fn the_same_directory_is_the_same_broker_with_the_same_tokens_and_address() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");

    let broker = Broker::start(&data, &[]);
    let first = broker.ready.clone();
    assert_eq!(first.site, "demo");
    assert_eq!(first.client_id, "demo-client");
    assert_eq!(first.pids.len(), 1);
    let line = broker.raise(&["reading", "--args", "1"], "").expect(0).lines()[0].clone();
    let (code, rest) = broker.stop("TERM");
    assert_eq!((code, rest.as_str()), (Some(0), ""));

    let mode = std::fs::metadata(data.join("dev.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let broker = Broker::start(&data, &[]);
    let again = broker.ready.clone();
    assert_eq!((&again.urls, &again.admin_token), (&first.urls, &first.admin_token));
    assert_eq!(
        (&again.service_token, &again.client_token),
        (&first.service_token, &first.client_token)
    );
    let got = broker.subscribe(&["reading", "--count", "1"]).expect(0).lines();
    assert_eq!(got[0]["instance_id"], line["instance_id"]);
    broker.kill();

    let broker = Broker::start(&data, &[]);
    assert_eq!(broker.ready.urls, first.urls);
    let (code, _) = broker.stop("INT");
    assert_eq!(code, Some(0));
}

#[test]
fn a_service_whose_broker_was_killed_is_offline_when_the_broker_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut raising = broker.raiser(&["reading"]);
    let mut raising = Killed(raising.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    writeln!(raising.0.stdin.as_mut().unwrap(), "1").unwrap();
    let mut line = String::new();
    BufReader::new(raising.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let online = |broker: &Broker| {
        let shown = broker.admin(&["service", "show", "demo-service"]).expect(0);
        shown.lines()[0]["online"].as_bool().unwrap()
    };
    assert!(online(&broker));
    broker.kill();
    drop(raising);

    let broker = Broker::start(dir.path(), &[]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while online(&broker) {
        assert!(Instant::now() < deadline, "it is still shown as online");
    }
}

#[test]
fn a_second_process_on_one_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);

    let data = dir.path().to_str().unwrap();
    let second = run(&["dev", "--json", "--data", data]).expect(4);

    assert_eq!(second.out, "");
    assert!(second.err.contains(&broker.ready.pids[0].to_string()), "{}", second.err);
}

#[test]
fn limits_are_the_deployments_and_misspelt_ones_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--limit", "args_bytes_max=10"]);

    let refused = broker.raise(&["reading", "--args", "\"12345678901\""], "").expect(1).lines();
    assert_eq!(refused[0]["error"]["code"], "arguments-too-large");
    broker.raise(&["reading", "--args", "\"1234567\""], "").expect(0);

    run(&["dev", "--limit", "args_bytes=10"]).expect(2);
    run(&["dev", "--limit", "args_bytes_max"]).expect(2);
}

#[test]
fn serve_runs_what_its_configuration_says_and_shows_a_made_token_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ackord.toml");
    let example = run(&["serve", "--example"]).expect(0).out;
    let config = example
        .replace("/var/lib/ackord", dir.path().join("data").to_str().unwrap())
        .replace("127.0.0.1:4655", "127.0.0.1:0");
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    run(&["serve", "--config", file, "--check", "--json"]).expect(0);

    let serve = || {
        let mut command = ackord(&["serve", "--config", file, "--json"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut child = Killed(child);
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, serde_json::from_str::<Value>(&line).unwrap())
    };
    let (mut child, ready) = serve();
    let token = ready["admin_token"].as_str().unwrap().to_owned();
    let url = ready["urls"][0].as_str().unwrap();
    run(&["site", "create", "s", "--url", url, "--token", &token]).expect(0);
    send(child.0.id(), "TERM");
    assert_eq!(child.0.wait().unwrap().code(), Some(0));

    let (_child, ready) = serve();
    assert_eq!(ready["admin_token"], Value::Null);
    let url = ready["urls"][0].as_str().unwrap();
    let sites = run(&["site", "list", "--url", url, "--token", &token, "--json"]).expect(0).lines();
    assert_eq!(sites[0]["name"], "s");
}

/// A process that does not outlive its scenario.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ackord.toml");
    let check = |text: &str, named: &str| {
        std::fs::write(&file, text).unwrap();
        let ended = run(&["serve", "--config", file.to_str().unwrap(), "--json"]).expect(78);
        assert_eq!(ended.out, "");
        assert!(ended.err.contains(named), "{}", ended.err);
    };
    check("data = 'd'\nlisten = '127.0.0.1:0'\ncolour = 'red'\n", "colour");
    check("data = 'd'\nlisten = 'somewhere'\n", "listen");
    check("data = 'd'\nlisten = '127.0.0.1:0'\n[limits]\nargs_bytes_max = 0\n", "args_bytes_max");
    run(&["serve", "--config", "/nowhere/ackord.toml"]).expect(78);
}

#[test]
fn recover_finds_nothing_on_a_sound_directory_and_refuses_one_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    run(&["recover", "--data", data, "--json"]).expect(4);
    broker.stop("TERM");

    let report = run(&["recover", "--data", data, "--json"]).expect(0).lines();

    assert_eq!((&report[0]["damaged"], &report[0]["changed"]), (&false.into(), &false.into()));
    run(&["recover", "--data", "/nowhere"]).expect(78);
}
