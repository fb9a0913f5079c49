//! Commands that look: the story of an event, checks that end in their own numbers, codes in errors, and
//! progress that stays out of standard output.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::support::{Broker, ackord, run, send};

#[test]
fn why_tells_the_story_of_an_event_and_peek_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading"], "1\n2\n3\n").expect(0);
    broker.subscribe(&["reading", "--count", "2"]).expect(0);

    let of = |id: &str| {
        let words = ["why", "reading", id, "--client", "demo-client"];
        broker.admin(&words).expect(0).lines().remove(0)
    };
    let first = of("1");
    assert_eq!(first["verdict"], "acknowledged", "{first}");
    assert_eq!(first["sent"]["transmissions"][0]["attempt"], 1, "{first}");
    assert_eq!(of("3")["verdict"], "next");
    assert_eq!(of("9")["verdict"], "not-raised");
    let all = broker.admin(&["why", "reading", "2"]).expect(0).lines();
    assert_eq!((all.len(), &all[0]["client"]), (1, &json!("demo-client")));
    let url = &broker.urls[0];
    let own = ["--url", url, "--site", "demo", "--token", &broker.client_token];
    let text = run(&[&["why", "reading", "1", "--client", "demo-client"], &own[..]].concat());
    let text = text.expect(0).out;
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(at("accepted from demo-service") < at("sent by node 1"), "{text}");
    assert!(at("sent by node 1") < at("its cursor was committed"), "{text}");

    let ids = |words: &[&str]| -> Vec<u64> {
        let lines = broker.admin(&[&["peek", "reading"], words].concat()).expect(0).lines();
        lines.iter().map(|line| line["instance_id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(&[]), [1, 2, 3]);
    assert_eq!(ids(&["--limit", "1", "--after", "1"]), [2]);
    assert_eq!(ids(&["--service", "nobody"]), [0_u64; 0]);
    let last = broker.subscribe(&["reading", "--count", "1"]).expect(0).lines();
    assert_eq!(last[0]["instance_id"], 3, "nothing was taken out");
}

#[test]
fn an_error_with_a_code_says_where_it_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let refused = broker.admin(&["client", "show", "nobody"]).expect(4);
    assert!(refused.err.contains("(ackord explain not-found)\n"), "{}", refused.err);
    let explained = run(&["explain", "not-found", "--json"]).expect(0).lines();
    assert_eq!((&explained[0]["status"], &explained[0]["retry"]), (&json!(404), &json!(false)));
    let near = run(&["explain", "not-fond"]).expect(2);
    assert!(near.err.contains("not-found"), "{}", near.err);
}

#[test]
fn a_certificate_is_judged_by_the_time_that_it_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("certificate.pem");
    let check = |year: i32, more: &[&str], code: i32, says: &str| {
        let mut params = CertificateParams::new(vec!["broker".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&file, certificate.pem()).unwrap();
        let words = ["check", "certificate", "--file", file.to_str().unwrap()];
        let ended = run(&[&words[..], more].concat()).expect(code);
        assert!(ended.out.starts_with(says), "{}", ended.out);
    };
    check(2500, &[], 0, "CERTIFICATE OK - ");
    check(2500, &["--warn", "1000000d"], 1, "CERTIFICATE WARNING - ");
    check(2500, &["--warn", "1000000d", "--crit", "1000000d"], 2, "CERTIFICATE CRITICAL - ");
    check(2001, &[], 2, "CERTIFICATE CRITICAL - ");
    std::fs::write(&file, "no certificate").unwrap();
    run(&["check", "certificate", "--file", file.to_str().unwrap()]).expect(3);
}

#[test]
fn a_check_of_who_is_not_there_is_critical_in_every_format() {
    let nowhere = ["--url", "http://127.0.0.1:1", "--token", "t"];
    for check in ["node", "cluster", "lag", "disk"] {
        let words = [&["check", check], &nowhere[..]].concat();
        let line = run(&words).expect(2).out;
        let head = format!("{} CRITICAL - ", check.to_uppercase());
        assert!(line.starts_with(&head) && line.lines().count() == 1, "{line}");
        let json = run(&[&words[..], &["--json"]].concat()).expect(2).lines();
        assert_eq!((&json[0]["health"], &json[0]["status"]), (&json!("critical"), &json!(2)));
        let metrics = run(&[&words[..], &["--format", "prometheus"]].concat()).expect(2).out;
        let status = format!("ackord_check_status{{check=\"{check}\"}} 2");
        assert!(metrics.lines().any(|line| line == status), "{metrics}");
    }
}

#[test]
fn what_is_not_there_is_neither_well_nor_told_nor_a_no() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading"], "1\n").expect(0);
    let lag = |more: &[&str]| broker.admin(&[&["check", "lag"], more].concat());
    // Nobody is subscribed yet: only who is named is missed.
    lag(&[]).expect(0);
    let missed = lag(&["--client", "nope", "--event", "reading"]).expect(3).lines().remove(0);
    assert_eq!(missed["health"], "unknown");
    assert!(missed["findings"][0]["text"].as_str().unwrap().contains("--client nope"), "{missed}");

    for more in [&["--client", "demo-client"][..], &[]] {
        let ended = broker.admin(&[&["why", "nosuch", "1"], more].concat()).expect(4);
        assert!(ended.err.contains("nosuch"), "{}", ended.err);
    }
    broker.admin(&["why", "reading", "1"]).expect(0);

    let can_i = |words: &[&str]| broker.admin(&[&["can-i"], words].concat());
    can_i(&["raise"]).expect(2);
    can_i(&["receive", "--client", "demo-client"]).expect(2);
    let ended = can_i(&["raise", "reading"]).expect(2);
    assert!(ended.err.contains("--service"), "{}", ended.err);
    can_i(&["receive", "reading"]).expect(2);
    can_i(&["connect"]).expect(2);
    can_i(&["raise", "reading", "--service", "demo-service"]).expect(0);
    can_i(&["raise", "nosuch", "--service", "demo-service"]).expect(4);

    let ended = broker.admin(&["site", "apply", "-f", "/nonexistent"]).expect(74);
    assert!(ended.err.contains("/nonexistent"), "{}", ended.err);
}

#[test]
fn thresholds_and_formats_that_contradict_each_other_are_a_wrong_command_line() {
    let check = |words: &[&str], names: [&str; 2]| {
        let nowhere = ["--url", "http://127.0.0.1:1", "--token", "t"];
        let ended = run(&[&["check"], words, &nowhere].concat()).expect(2);
        let told = names.iter().all(|name| ended.err.contains(name));
        assert!(ended.out.is_empty() && told, "{words:?}: {}{}", ended.out, ended.err);
    };
    check(&["lag", "--warn", "5", "--crit", "3"], ["--warn 5", "--crit 3"]);
    check(&["lag", "--warn-age", "2h"], ["--warn-age 2 h", "--crit-age 1 h"]);
    check(&["cluster", "--warn", "5", "--crit", "3"], ["--warn 5", "--crit 3"]);
    check(&["disk", "--warn", "10", "--crit", "99999"], ["--warn 10", "--crit 99999"]);
    check(&["certificate", "--warn", "1d"], ["--warn 1 d", "--crit 7 d"]);
    check(&["node", "--json", "--format", "prometheus"], ["--json", "--format prometheus"]);
}

#[test]
fn the_record_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.admin(&["client", "create", "first"]).expect(0);
    let url = &broker.urls[0];
    let mut follow = ackord(&["audit", "list", "--follow", "--json", "--act", "client.create"]);
    follow.args(["--url", url, "--site", "demo", "--token", &broker.admin_token]);
    let mut child = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut target = || {
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["target"].as_str().unwrap().to_owned()
    };
    assert_eq!(target(), "clients/first");
    broker.admin(&["client", "create", "second"]).expect(0);
    assert_eq!(target(), "clients/second");
    broker.admin(&["client", "create", "third"]).expect(0);
    assert_eq!(target(), "clients/third", "each is told once");
    send(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn progress_is_a_bar_on_a_terminal_and_never_on_standard_output() {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let run = |more: &[&str]| {
        let slave = File::options().read(true).write(true).open(&name).unwrap();
        let mut command = ackord(&["bench", "publish", "--seconds", "1", "--publishers", "1"]);
        command.args(more).env("TERM", "xterm").stderr(slave).stdout(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    // A terminal that nobody reads is full soon. It ends when all who may write to it have gone.
    let keep = File::options().read(true).write(true).open(&name).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut terminal, mut shown, mut piece) = (File::from(terminal), Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = terminal.read(&mut piece) {
            shown.extend_from_slice(&piece[..read]);
        }
        shown
    });
    let text = run(&[]);
    let json = run(&["--json"]);
    drop(keep);
    let shown = reader.join().unwrap();
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("measuring"), "{shown:?}");
    for out in [&text, &json] {
        assert!(!out.contains('\u{1b}') && !out.contains("measuring"), "{out:?}");
    }
    assert_eq!(json.lines().count(), 1);
}
