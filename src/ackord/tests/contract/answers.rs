//! What is made of answers: texts that others wrote cannot move a terminal, and what no broker says is
//! told as what it is.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Broker, Ended, run};

/// Clears the screen, begins a line of its own, and turns the direction of reading.
const HOSTILE: &str = "x\u{1b}[2J\r\nerror: forged\u{9b}2J\u{202e}";
/// The same as a person sees it.
const ESCAPED: &str = r"x\u{1b}[2J\r\nerror: forged\u{9b}2J\u{202e}";

/// Answers everybody with this; its address.
fn answering(status: u16, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}", body.len());
    let answer = format!("{head}\r\nconnection: close\r\n\r\n{body}");
    // Ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

fn ask(url: &str, words: &[&str]) -> Ended {
    run(&[words, &["--url", url, "--site", "demo", "--token", "t"]].concat())
}

/// Fails when a text would do something to a terminal beside beginning lines.
#[track_caller]
fn harmless(text: &str) {
    let wrong = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(wrong) && !text.contains("\nerror: forged"), "{text:?}");
}

#[test]
fn texts_of_others_are_escaped_for_people_and_left_alone_for_programs() {
    let service = json!({"id": "boiler", "online": true, "version": HOSTILE, "hostname": HOSTILE});
    let entry = json!({"at_ms": 1, "number": 1, "who": HOSTILE, "act": "a", "target": HOSTILE});
    let list = |item: &Value| answering(200, &json!({"items": [item]}).to_string());
    let told = json!({
        "instance_id": 1, "event": "reading", "client": HOSTILE, "verdict": "next",
        "because": HOSTILE, "instance": {"fate": "retained", "service": HOSTILE, "accepted_ms": 1},
    });
    let can_i = json!({"act": "read", "allowed": true, "because": HOSTILE});
    let check = |url: &str, words: &[&str], lines: usize| {
        let ended = ask(url, words).expect(0);
        harmless(&ended.out);
        assert!(ended.out.contains(ESCAPED), "{:?}", ended.out);
        assert_eq!(ended.out.lines().count(), lines, "{:?}", ended.out);
    };
    let services = list(&service);
    check(&services, &["service", "list"], 2);
    check(&answering(200, &service.to_string()), &["service", "show", "boiler"], 4);
    check(&list(&entry), &["audit", "list"], 2);
    check(&answering(200, &told.to_string()), &["why", "reading", "1", "--client", "c"], 3);
    check(&answering(200, &can_i.to_string()), &["can-i", "read"], 1);

    let listed = ask(&services, &["service", "list", "--json"]).expect(0).lines();
    assert_eq!(listed, [service]);

    let problem = json!({"code": "not-found", "detail": HOSTILE}).to_string();
    let refused = ask(&answering(404, &problem), &["service", "show", "boiler"]).expect(4);
    harmless(&refused.err);
    assert!(refused.err.contains(ESCAPED), "{:?}", refused.err);
}

#[test]
fn what_was_raised_moves_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let args = "\"\u{9b}2J\u{202e}\u{7f}\"";
    broker.raise(&["reading", "--args", args], "").expect(0);
    let own = |token: &str, words: &[&str]| {
        let more = ["--url", &broker.urls[0], "--site", "demo", "--token", token];
        run(&[words, &more].concat()).expect(0).out
    };
    let seen = own(&broker.admin_token, &["peek", "reading"]);
    let subscribe = ["subscribe", "reading", "--count", "1", "--max-time", "60s"];
    let got = own(&broker.client_token, &subscribe);
    for out in [seen, got] {
        harmless(&out);
        assert!(out.contains(r#""\u{9b}2J\u{202e}\u{7f}""#), "{out:?}");
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_told_as_what_it_is() {
    for (body, what) in [("<html>", "not JSON"), ("{}", "no list"), ("7", "no list")] {
        let url = answering(200, body);
        let ended = ask(&url, &["site", "list"]).expect(5);
        assert!(ended.err.contains("the answer to /v1/sites cannot be read"), "{}", ended.err);
        assert!(ended.err.contains(what), "{}", ended.err);
        assert!(!ended.err.contains("cannot be reached"), "{}", ended.err);
        let line = ask(&url, &["check", "lag"]).expect(3).out;
        assert!(line.starts_with("LAG UNKNOWN - ") && line.contains("cannot be read"), "{line}");
    }
    // One row of several.
    let url = answering(200, r#"{"items":[{"client":"phone","event":"reading"}]}"#);
    let line = ask(&url, &["check", "lag"]).expect(3).out;
    assert!(line.contains("demo: phone of reading cannot be read"), "{line}");
}
