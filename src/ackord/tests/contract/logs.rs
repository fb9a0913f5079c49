//! `log_format = "json"`: every line of a broker's standard error is one object, whatever happens to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::{ackord, end, run, send};

/// A broker whose standard error is kept; killed when dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    fn start(mut command: Command) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line)
    }

    /// Stops it; what it wrote on standard error.
    fn stop(mut self, signal: &str) -> String {
        send(self.0.id(), signal);
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0), "{said}");
        said
    }
}

/// The lines, each as documented.
fn objects(said: &str) -> Vec<Value> {
    let object = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("a line of standard error is not JSON: {line:?}: {error}");
        });
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        assert!(OffsetDateTime::parse(&text("timestamp"), &Rfc3339).is_ok(), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&&*text("level")), "{line}");
        assert!(!text("target").is_empty() && value["message"].is_string(), "{line}");
        value
    };
    said.lines().map(object).collect()
}

#[track_caller]
fn find<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["message"] == message);
    found.unwrap_or_else(|| panic!("no line says {message:?}: {lines:#?}"))
}

fn configure(dir: &Path, more: &str) -> String {
    let (file, data) = (dir.join("ackord.toml"), dir.join("data"));
    std::fs::write(&file, format!("data = {data:?}\nlisten = '127.0.0.1:0'\n{more}")).unwrap();
    file.to_str().unwrap().to_owned()
}

const SITE: &str = r#"
site = "plant"
[structure]
service_type = "t"
contract_author = "a"
guests = "none"
[[structure.events]]
name = "e"
category = "queueing"
lifetime_s = 3600
size = 100
[services.s]
[users.u]
[clients.c]
user = "u"
"#;

#[test]
fn every_line_from_start_to_stop_is_an_object_and_none_has_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let config = configure(
        dir.path(),
        "log_format = 'json'\nlog = 'ackord=info,ackord_agents=debug,\
                                        ackord_gateway=debug,ackord_replica=info'\n",
    );
    let (node, ready) = Node::start(ackord(&["serve", "--config", &config, "--json"]));
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let (url, token) = (ready["urls"][0].as_str().unwrap(), ready["admin_token"].as_str().unwrap());

    // A session, another one, and an error.
    let site = dir.path().join("site.toml");
    std::fs::write(&site, SITE).unwrap();
    let by = ["--url", url, "--token", token, "--site", "plant"];
    let admin = |arguments: &[&str]| run(&[arguments, &by, &["--json"]].concat());
    admin(&["site", "apply", "--file", site.to_str().unwrap()]).expect(0);
    let made = |principal: &[&str]| {
        let line = admin(principal).expect(0).lines().remove(0);
        line["token"].as_str().unwrap().to_owned()
    };
    let (service, client) = (made(&["service", "token", "s"]), made(&["client", "token", "c"]));
    let to = ["--url", url, "--site", "plant"];
    run(&[
        &["raise", "e", "--args", "{\"n\":1}", "--token", &service, "--timeout", "20s"],
        &to[..],
    ]
    .concat())
    .expect(0);
    run(&[&["subscribe", "e", "--count", "1", "--token", &client, "--timeout", "20s"], &to[..]]
        .concat())
    .expect(0);
    run(&[&["raise", "e", "--args", "1", "--token", "ak_nobody_x", "--timeout", "20s"], &to[..]]
        .concat())
    .expect(4);
    let mut raw = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    raw.write_all(b"GET /\"quoted\\ HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    drop(raw);
    // A reload that changes nothing because it is wrong, and a good one.
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{good}colour = 'red'\n")).unwrap();
    run(&["reload", "--url", url, "--token", token]).expect(4);
    std::fs::write(&config, good).unwrap();
    run(&["reload", "--url", url, "--token", token]).expect(0);

    let said = node.stop("TERM");
    let lines = objects(&said);
    for message in ["ready", "stopping", "stopped"] {
        let line = find(&lines, message);
        assert!((line["level"] == "INFO") && line["node_id"].is_u64(), "{line}");
    }
    assert_eq!(find(&lines, "ready")["urls"], json!([url]));
    let opened: Vec<&Value> =
        lines.iter().filter(|line| line["message"] == "session opens").collect();
    let of = |name: &str, who: &str| {
        let found = opened.iter().find(|line| line[name] == who);
        let line = found.unwrap_or_else(|| panic!("no session of {name} {who}: {said}"));
        assert_eq!(line["site"], "plant");
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        assert!(line["node_id"].is_u64(), "{line}");
    };
    of("service", "s");
    of("client", "c");
    for secret in [token, &service, &client, "nobody_x"] {
        assert!(!said.contains(secret), "a token is in the log");
    }
}

#[test]
fn a_start_that_fails_says_so_in_the_format_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let check = |more: &str, arguments: &[&str], variable: &str, wanted: &str| {
        let config = configure(dir.path(), more);
        let mut command = ackord(&[&["serve", "--config", &config], arguments].concat());
        if !variable.is_empty() {
            command.env("ACKORD_LOG_FORMAT", variable);
        }
        let ended = end(command, "").expect(78);
        let lines = objects(&ended.err);
        let last = lines.last().unwrap();
        assert_eq!((&last["level"], &last["exit"]), (&json!("ERROR"), &json!(78)), "{last}");
        assert!(last["message"].as_str().unwrap().contains(wanted), "{last}");
        assert!(last["hint"].is_string(), "{last}");
    };
    // Wherever the format is said, and whatever else is wrong with the configuration.
    check("log_format = 'json'\ncolour = 'red'\n", &[], "", "colour");
    check("colour = 'red'\n", &["--log-format", "json"], "", "colour");
    check("colour = 'red'\n", &["--set", "log_format=json"], "", "colour");
    check("listen_plain = 3\n", &[], "json", "listen_plain");

    // A flag wins over all; text is what it was.
    let config = configure(dir.path(), "log_format = 'json'\ncolour = 'red'\n");
    let ended = run(&["serve", "--config", &config, "--log-format", "text"]).expect(78);
    assert!(ended.err.starts_with("error: "), "{}", ended.err);
    let config = configure(dir.path(), "log_format = 'yaml'\n");
    let ended = run(&["serve", "--config", &config]).expect(78);
    assert!(ended.err.contains("log_format: not one of `text`, `json`"), "{}", ended.err);
}

#[test]
fn a_token_that_is_made_goes_to_standard_output_instead_of_a_log_of_objects() {
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path(), "");
    let (node, line) = Node::start(ackord(&["serve", "--config", &config, "--log-format", "json"]));
    let token = line.trim().strip_prefix("administrator's token, shown only this once: ").unwrap();
    assert!(token.len() >= 32);
    let said = node.stop("INT");
    assert!(!said.contains(token));
    find(&objects(&said), "ready");
}
