//! This program as a child process: the demonstrations and the benchmark use its own commands,
//! so that what they show is what a user gets.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use serde::de::DeserializeOwned;

use crate::command::dev::Ready;
use crate::command::dev_cluster::NodeReady;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::logging::{self, Lines};

/// How long a child may take to end when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(15);
/// How often it is looked at meanwhile.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

/// What children log.
static LOG: OnceLock<String> = OnceLock::new();

/// Lets children log this, unless something was said before.
pub fn log_as(filter: &str) {
    LOG.get_or_init(|| filter.to_owned());
}

/// Lets the lines of children be written as this process writes its own.
fn log_format(command: &mut Command) {
    if logging::is_json() {
        command.env("ACKORD_LOG_FORMAT", Lines::Json.name());
    }
}

/// A child that does not outlive its parent.
#[derive(Debug)]
pub struct Process(Child);

/// A command line of this program, without the environment that would change its meaning.
pub fn command(arguments: &[&str]) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Disk, format!("this program's own file is not found: {error}"))
    })?;
    let mut command = Command::new(program);
    command.args(arguments);
    for name in [
        "ACKORD_URL",
        "ACKORD_SITE",
        "ACKORD_TOKEN",
        "ACKORD_TOKEN_FILE",
        "ACKORD_CA",
        "ACKORD_CONFIG",
    ] {
        command.env_remove(name);
    }
    // Not even the one that is in use.
    command.env("ACKORD_CONTEXT", "");
    if let Some(file) = connect::roots_file() {
        command.env("ACKORD_CA", file);
    }
    if let Some(filter) = LOG.get() {
        command.env("ACKORD_LOG", filter);
    }
    log_format(&mut command);
    Ok(command)
}

/// Waits until standard input ends, if `wanted`; else for ever.
pub async fn stdin_closed(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (sender, closed) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(sender);
    });
    let _ = closed.await;
}

/// Signals a process; one that is gone needs no signal.
pub fn signal(process: u32, signal: Signal) {
    let id = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(id) = id {
        let _ = rustix::process::kill_process(id, signal);
    }
}

impl Process {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> Result<Self, Failure> {
        command
            .spawn()
            .map(Self)
            .map_err(|error| Failure::new(Exit::Disk, format!("no child process: {error}")))
    }

    /// Starts `ackord dev` and waits until it is ready. Blocks.
    pub fn broker(data: &std::path::Path, more: &[&str]) -> Result<(Self, Ready), Failure> {
        let more: Vec<&str> = [&["--listen", "127.0.0.1:0"], more].concat();
        Self::ready(data, &more)
    }

    /// Starts one node of a cluster whose directory there is, and waits until it serves. Blocks.
    pub fn one_of(data: &std::path::Path, node: u64) -> Result<(Self, NodeReady), Failure> {
        Self::ready(data, &["--only", &node.to_string()])
    }

    fn ready<R: DeserializeOwned>(
        data: &std::path::Path,
        more: &[&str],
    ) -> Result<(Self, R), Failure> {
        let mut command = command(&["dev", "--json"])?;
        command.args(["--while-stdin", "--data"]).arg(data).args(more);
        // The child ends when this pipe is closed, so also when this process is killed.
        let mut process = Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut line = String::new();
        if let Some(out) = process.0.stdout.take() {
            let mut out = BufReader::new(out);
            // A broken pipe reads as an empty line, which is no readiness either.
            let _ = out.read_line(&mut line);
        }
        match serde_json::from_str(&line) {
            Ok(ready) => Ok((process, ready)),
            Err(_) => {
                let status = process.stop();
                Err(Failure::new(Exit::Disk, format!("the own broker did not start ({status})")))
            }
        }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Ends it at once, as a crash does.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Asks it to end and waits; what it said of itself.
    pub fn stop(&mut self) -> String {
        self.interrupt();
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until {
            match self.0.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => std::thread::sleep(STOP_INTERVAL),
                Err(error) => return error.to_string(),
            }
        }
        let _ = self.0.kill();
        match self.0.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Sends SIGTERM.
    pub fn interrupt(&self) {
        signal(self.0.id(), Signal::TERM);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
