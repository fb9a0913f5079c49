//! The command-line tool as a process: `ackord raise`, `ackord subscribe` and the like.
//!
//! Invariant: what the tool wrote to its standard output before it was killed is recorded before
//! the kill is; a last line without an end is not a line.

use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;
use serde_json::Value;

use crate::node;
use crate::process::{self, Signal};
use crate::site::{Account, Site};
use crate::wait;

/// Called with every line of standard output.
pub type OnLine = Box<dyn FnMut(&Value) + Send>;

/// Where a tool's standard input comes from.
pub type Lines = Box<dyn Iterator<Item = String> + Send>;

/// A running tool.
pub struct Tool {
    process: Child,
    reader: Option<JoinHandle<()>>,
    lines: Arc<Mutex<Vec<Value>>>,
    errors: tempfile::NamedTempFile,
}

impl Tool {
    /// Runs a command; it gets `--json`.
    pub fn start(
        mut command: Command,
        input: Option<Lines>,
        on_line: OnLine,
    ) -> anyhow::Result<Self> {
        let errors = tempfile::NamedTempFile::new()?;
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(errors.reopen()?);
        let mut process = process::spawn(command)?;
        if let (Some(input), Some(mut stdin)) = (input, process.stdin.take()) {
            std::thread::spawn(move || {
                for line in input {
                    // A closed pipe means that the tool has ended.
                    if writeln!(stdin, "{line}").is_err() {
                        return;
                    }
                }
            });
        }
        let stdout = process.stdout.take().context("no standard output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        let reader = std::thread::spawn(move || read(BufReader::new(stdout), &kept, on_line));
        Ok(Self { process, reader: Some(reader), lines, errors })
    }

    /// The lines of standard output so far.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it wrote to its standard error.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.errors.path()).unwrap_or_default()
    }

    /// Waits until it has written so many lines.
    pub async fn until_lines(&self, count: usize) -> Vec<Value> {
        wait::until(&format!("{count} lines"), async || {
            let lines = self.lines();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(process::signal(self.process.id(), signal)?)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }

    /// Kills it and waits until everything it wrote is recorded.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a line of the tool is JSON");
        }
    }

    /// Waits until it ends by itself; the exit code is the answer.
    ///
    /// # Panics
    /// After [`wait::PATIENCE`], or when a line was no JSON.
    pub async fn ended(&mut self) -> Option<i32> {
        let what = "the tool to end";
        let status = wait::until(what, async || self.process.try_wait().ok().flatten()).await;
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a line of the tool is JSON");
        }
        status.code()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(mut stdout: impl std::io::BufRead, kept: &Mutex<Vec<Value>>, mut on_line: OnLine) {
    let mut line = String::new();
    while stdout.read_line(&mut line).is_ok_and(|length| length > 0) && line.ends_with('\n') {
        let value = serde_json::from_str(&line).expect("standard output is JSON lines");
        on_line(&value);
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(value);
        line.clear();
    }
}

/// A command of the tool that speaks to a site as an account.
pub fn command(site: &Site, url: &str, account: &Account, words: &[&str]) -> Command {
    let binary = node::binary().expect("the binary is built");
    let mut command = Command::new(binary);
    command.args(words).args(["--url", url, "--site", &site.name, "--token", &account.token]);
    command.arg("--json");
    command
}

/// `ackord raise EVENT` with one JSON value per line of standard input.
pub fn raise(
    site: &Site,
    url: &str,
    service: &Account,
    event: &str,
    store: Option<&Path>,
) -> Command {
    let mut command = command(site, url, service, &["raise", event]);
    if let Some(store) = store {
        command.arg("--store").arg(store);
    }
    command
}

/// `ackord subscribe EVENT…`.
pub fn subscribe(
    site: &Site,
    url: &str,
    client: &Account,
    events: &[&str],
    state: Option<&Path>,
) -> Command {
    let words: Vec<&str> = ["subscribe"].iter().chain(events).copied().collect();
    let mut command = command(site, url, client, &words);
    if let Some(state) = state {
        command.arg("--state").arg(state);
    }
    command
}
