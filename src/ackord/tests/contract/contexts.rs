//! Named places to talk to: what wins over what, who may read the file, and where tokens never go.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Broker, Ended, ackord, end};

/// A home for contexts.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ackord/contexts.toml")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = ackord(words);
        command.arg("--json").env("XDG_CONFIG_HOME", self.dir.path());
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        end(self.command(words), "")
    }
}

fn mode(file: &Path) -> u32 {
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_context_is_used_where_nothing_else_is_said() {
    let home = Home::new();
    let broker = Broker::start(&home.dir.path().join("data"), &[]);
    let (url, token) = (broker.urls[0].as_str(), broker.admin_token.as_str());
    home.run(&["client", "list", "--url", url]).expect(2);
    let set = home.run(&["context", "set", "here", "--url", url, "--token", token]).expect(0);
    assert_eq!(set.lines()[0]["token"], "set");
    assert!(!set.out.contains(token), "a token is shown");
    assert_eq!(mode(&home.file()), 0o600);
    // What is given later is added, what was given stays.
    home.run(&["context", "set", "here", "--site", "demo"]).expect(0);
    home.run(&["client", "list"]).expect(2);
    home.run(&["client", "list", "--context", "here"]).expect(0);
    home.run(&["context", "use", "here"]).expect(0);
    assert_eq!(home.run(&["client", "list"]).expect(0).lines()[0]["id"], "demo-client");
    let shown = home.run(&["context", "show"]).expect(0);
    assert_eq!((&shown.lines()[0]["name"], shown.out.contains(token)), (&json!("here"), false));

    // Options go before the environment, that before the context.
    home.run(&["client", "list", "--site", "nowhere"]).expect(4);
    let mut command = home.command(&["client", "list"]);
    command.env("ACKORD_SITE", "nowhere");
    end(command, "").expect(4);
    let mut command = home.command(&["client", "list", "--site", "demo"]);
    command.env("ACKORD_SITE", "nowhere");
    end(command, "").expect(0);
    let mut command = home.command(&["client", "list"]);
    command.env("ACKORD_TOKEN", "ak_wrong_wrong");
    end(command, "").expect(4);
    // None of it: the address that is asked by default, and no token.
    home.run(&["client", "list", "--context", ""]).expect(2);

    home.run(&["client", "list", "--context", "hree"]).expect(2);
    home.run(&["context", "delete", "here"]).expect(0);
    assert_eq!(home.run(&["context", "list"]).expect(0).out, "");
    home.run(&["client", "list"]).expect(2);
}

#[test]
fn a_file_with_tokens_is_for_its_owner_only() {
    let home = Home::new();
    home.run(&["context", "set", "a", "--url", "http://127.0.0.1:9", "--token", "t"]).expect(0);
    std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = home.run(&["site", "list", "--context", "a"]).expect(78);
    assert!(refused.err.contains("chmod 600"), "{}", refused.err);
    home.run(&["context", "list"]).expect(78);
    // What needs no broker needs no context.
    home.run(&["explain", "busy"]).expect(0);
    std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    home.run(&["site", "list", "--context", "a"]).expect(5);
    // Without a token in it there is nothing to hide.
    home.run(&["context", "set", "a", "--token-file", "token"]).expect(0);
    std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    home.run(&["context", "list"]).expect(0);
}

#[test]
fn a_token_of_a_context_goes_nowhere_else() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Answers everybody, and keeps what was asked.
    let asked = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            asked.push(String::from_utf8_lossy(&request[..read]).to_lowercase());
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    let context = ["context", "set", "a", "--url", "http://127.0.0.1:9", "--token", "secret"];
    home.run(&context).expect(0);
    home.run(&["context", "use", "a"]).expect(0);
    home.run(&["site", "list", "--url", &url]).expect(2);
    home.run(&["check", "node", "--url", &url]).expect(0);
    // Its own address is the same also when it is given.
    home.run(&["context", "set", "a", "--url", &url]).expect(0);
    let same = format!("{url}/");
    home.run(&["site", "show", "x", "--url", &same]).expect(0);
    let asked = asked.join().unwrap();
    let with: Vec<bool> = asked.iter().map(|request| request.contains("secret")).collect();
    assert_eq!(with, [false, false, true], "{asked:?}");
}

#[test]
fn a_file_that_is_a_link_stays_one_and_what_it_leads_to_is_changed() {
    let home = Home::new();
    let (folder, kept) = (home.dir.path().join("ackord"), home.dir.path().join("kept"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::create_dir(&kept).unwrap();
    // The first write is through a link to nothing yet.
    std::os::unix::fs::symlink("../kept/contexts.toml", home.file()).unwrap();
    for name in ["a", "b"] {
        home.run(&["context", "set", name, "--url", "http://127.0.0.1:9"]).expect(0);
        assert!(std::fs::symlink_metadata(home.file()).unwrap().is_symlink());
        let text = std::fs::read_to_string(kept.join("contexts.toml")).unwrap();
        assert!(text.contains(&format!("contexts.{name}")), "{text}");
        assert_eq!(mode(&kept.join("contexts.toml")), 0o600);
        for folder in [&folder, &kept] {
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "something is left over");
        }
    }
    assert_eq!(home.run(&["context", "list"]).expect(0).lines().len(), 2);
}

#[test]
fn an_address_with_a_password_is_refused_and_not_repeated() {
    let home = Home::new();
    for url in ["http://me:hunter2@127.0.0.1:9", "wss://hunter2@a", "me:hunter2@a:1"] {
        for words in [&["context", "set", "a"][..], &["site", "list", "--token", "t"]] {
            let ended = home.run(&[words, &["--url", url]].concat()).expect(2);
            assert!(ended.err.contains("--url") && !ended.err.contains("hunter2"), "{}", ended.err);
        }
    }
    assert!(!home.file().exists());
}
