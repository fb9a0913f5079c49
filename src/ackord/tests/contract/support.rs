//! The binary as a script sees it: arguments and standard input in, exit code and lines out.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ended {
    /// Standard output as JSON lines; anything else there breaks the contract.
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("standard output is not JSON lines: {line:?}: {error}"),
        };
        self.out.lines().map(parse).collect()
    }

    /// Fails unless it ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "out: {}\nerr: {}", self.out, self.err);
        self
    }
}

/// The binary with these arguments, free of the tester's environment.
pub fn ackord(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ackord"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ACKORD_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, "")
}

/// Runs the binary to its end with this standard input.
pub fn run_with(arguments: &[&str], input: &str) -> Ended {
    end(ackord(arguments), input)
}

/// Runs a command to its end with this standard input.
pub fn end(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that does not read its input closes it.
            let _ = stdin.write_all(input.as_bytes());
        });
        child.wait_with_output().unwrap()
    });
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The line of `ackord dev --json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    pub urls: Vec<String>,
    pub admin_token: String,
    pub site: String,
    pub service_token: String,
    pub client_token: String,
    pub client_id: String,
    pub pids: Vec<u32>,
}

/// A running `ackord dev`. Killed when dropped, and when the test process ends.
pub struct Broker {
    child: Child,
    out: BufReader<ChildStdout>,
    pub ready: Ready,
}

impl Broker {
    /// Starts one on this directory and waits for its line.
    pub fn start(data: &Path, more: &[&str]) -> Self {
        let mut command = ackord(&["dev", "--json", "--while-stdin", "--listen", "127.0.0.1:0"]);
        command.arg("--data").arg(data).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        Self { child, out, ready }
    }

    /// Kills it as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name and waits; the exit code and what else it printed.
    pub fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        send(self.child.id(), signal);
        let code = self.child.wait().unwrap().code();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (code, rest)
    }
}

impl std::ops::Deref for Broker {
    type Target = Ready;

    fn deref(&self) -> &Ready {
        &self.ready
    }
}

impl Ready {
    /// The same broker, at these addresses.
    pub fn at(&self, urls: &[String]) -> Self {
        Self { urls: urls.to_vec(), ..self.clone() }
    }

    /// This broker, with the accounts of another one.
    pub fn with_accounts_of(&self, other: &Self) -> Self {
        let (service_token, client_token) =
            (other.service_token.clone(), other.client_token.clone());
        Self { service_token, client_token, ..self.clone() }
    }

    /// Arguments for the demo site with this token.
    fn with(&self, token: &str, words: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let site = &self.site;
        all.extend(
            ["--url", &self.urls.join(","), "--site", site, "--token", token].map(str::to_owned),
        );
        all.push("--json".to_owned());
        all
    }

    /// `ackord raise …` as the demo service, not yet started.
    pub fn raiser(&self, words: &[&str]) -> Command {
        let words: Vec<&str> = ["raise"].iter().chain(words).copied().collect();
        let arguments = self.with(&self.service_token, &words);
        ackord(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `ackord raise …` as the demo service.
    pub fn raise(&self, words: &[&str], input: &str) -> Ended {
        end(self.raiser(words), input)
    }

    /// `ackord subscribe …` as the demo client, not yet started.
    pub fn subscriber(&self, words: &[&str]) -> Command {
        let words: Vec<&str> =
            ["subscribe", "--max-time", "60s"].iter().chain(words).copied().collect();
        let arguments = self.with(&self.client_token, &words);
        ackord(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `ackord subscribe …` as the demo client.
    pub fn subscribe(&self, words: &[&str]) -> Ended {
        end(self.subscriber(words), "")
    }

    /// An administrative command.
    pub fn admin(&self, words: &[&str]) -> Ended {
        let arguments = self.with(&self.admin_token, words);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub fn send(pid: u32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success());
}
