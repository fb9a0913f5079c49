//! A broker process: the built `ackord` binary, its data directory, and what can be done to it.
//!
//! Invariants: the binary is built once per test process; a node is killed when dropped and never
//! outlives the test run; its address stays the same over restarts on the same directory.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::disk::Disk;
use crate::process::{self, Signal};
use crate::wait;

/// How long a node may take until it says that it is ready.
pub const READY: Duration = Duration::from_secs(20);

/// The environment variable that names a binary to test instead of building one.
pub const BINARY_VARIABLE: &str = "ACKORD_TEST_BINARY";

/// The line that `ackord dev --json` prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Where the broker listens.
    pub urls: Vec<String>,
    /// The token that may do everything.
    pub admin_token: String,
    /// The demo site.
    pub site: String,
    /// The demo site's service.
    pub service_token: String,
    /// The demo site's client.
    pub client_token: String,
    /// That client's id.
    pub client_id: String,
    /// The broker's processes.
    pub pids: Vec<u32>,
}

/// The path of the binary; built on first use, in the profile of the running test.
pub fn binary() -> anyhow::Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => Ok(path.into()),
        None => Ok(crate::artifact::build(&["--bin", "ackord"])?.join("ackord")),
    }
}

/// How a node is started, each time.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Its data directory.
    pub dir: PathBuf,
    /// Limits as `name=value`.
    pub limits: Vec<String>,
    /// Other settings as `table.key=value`.
    pub sets: Vec<String>,
    /// Environment variables, for instance of a disk that fails.
    pub environment: Vec<(OsString, OsString)>,
}

/// A broker process and its directory.
pub struct Node {
    launch: Launch,
    process: Option<Child>,
    ready: Ready,
    // Removed after the process is gone: fields are dropped in order.
    _owned_dir: Option<tempfile::TempDir>,
}

impl Node {
    /// Starts a node in a temporary directory. `limits` are `name=value` pairs.
    pub async fn start(limits: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(limits, &[]).await
    }

    /// As [`Node::start`], with other settings as `table.key=value`.
    pub async fn start_with(limits: &[&str], sets: &[&str]) -> anyhow::Result<Self> {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let owned_dir = tempfile::Builder::new().prefix("ackord-node").tempdir()?;
        let (dir, limits, sets) = (owned_dir.path().join("data"), owned(limits), owned(sets));
        let mut node = Self::launch(Launch { dir, limits, sets, ..Launch::default() }).await?;
        node._owned_dir = Some(owned_dir);
        Ok(node)
    }

    /// Starts a node in a directory that outlives it.
    pub async fn start_in(dir: &Path, limits: &[&str]) -> anyhow::Result<Self> {
        let limits = limits.iter().map(|limit| (*limit).to_owned()).collect();
        Self::launch(Launch { dir: dir.to_owned(), limits, ..Launch::default() }).await
    }

    /// Starts a node on a disk that can be made to fail.
    pub async fn start_on(disk: &Disk, limits: &[&str]) -> anyhow::Result<Self> {
        let limits = limits.iter().map(|limit| (*limit).to_owned()).collect();
        let (dir, environment) = (disk.root().to_owned(), disk.environment()?);
        Self::launch(Launch { dir, limits, environment, ..Launch::default() }).await
    }

    /// Starts a node in a directory that outlives it.
    pub async fn launch(launch: Launch) -> anyhow::Result<Self> {
        let (process, ready) = start(&launch).await?;
        Ok(Self { launch, process: Some(process), ready, _owned_dir: None })
    }

    /// What the node said when it became ready.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The URL of the node.
    pub fn url(&self) -> &str {
        &self.ready.urls[0]
    }

    /// The host and port of the node.
    pub fn address(&self) -> &str {
        let url = self.url();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.launch.dir
    }

    /// What the process wrote to its standard error, over all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.launch.dir)).unwrap_or_default()
    }

    /// Ends the process at once, as a crash does, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("the node does not run")?;
        Ok(process::signal(process.id(), signal)?)
    }

    /// Suspends the process until it is resumed or the guard is dropped.
    pub fn suspend(&self) -> anyhow::Result<Suspended<'_>> {
        self.signal(Signal::Stop)?;
        Ok(Suspended(self))
    }

    /// The exit code, once the process has ended by itself; `None` is a signal.
    pub async fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        let mut process = self.process.take().context("the node does not run")?;
        let status = wait::until("the node to end", async || process.try_wait().ok().flatten());
        Ok(status.await.code())
    }

    /// Asks the process to end and waits for it; the exit code is the answer.
    pub async fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        self.signal(Signal::Terminate)?;
        self.ended().await
    }

    /// Starts the process again on its directory.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let (process, ready) = start(&self.launch).await?;
        self.process = Some(process);
        if ready.urls != self.ready.urls || ready.admin_token != self.ready.admin_token {
            bail!("the node came back as another one: {ready:?}, before {:?}", self.ready);
        }
        self.ready = ready;
        Ok(())
    }

    /// Kills the process and starts it again.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.restart().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A suspended node; resumed when dropped.
pub struct Suspended<'a>(&'a Node);

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        let _ = self.0.signal(Signal::Continue);
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.with_extension("stderr")
}

async fn start(launch: &Launch) -> anyhow::Result<(Child, Ready)> {
    let launch = launch.clone();
    // Building, forking and reading the first line block: not on the test's runtime.
    tokio::task::spawn_blocking(move || start_blocking(&launch)).await?
}

fn start_blocking(launch: &Launch) -> anyhow::Result<(Child, Ready)> {
    let dir = &launch.dir;
    let log = log_path(dir);
    let mut command = Command::new(binary()?);
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--json", "--data"])
        .arg(dir)
        .args(launch.limits.iter().flat_map(|limit| ["--limit", limit]))
        .args(launch.sets.iter().flat_map(|set| ["--set", set]))
        .envs(launch.environment.iter().cloned());
    let (process, first) = spawn(command, &log)?;
    let ready = match first.recv_timeout(READY) {
        Ok(Some(Ok(line))) => serde_json::from_str(&line).with_context(|| line.clone()),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Err(anyhow::anyhow!("it ended")),
        Err(_) => Err(anyhow::anyhow!("not ready after {READY:?}")),
    };
    ready
        .map(|ready| (process, ready))
        .with_context(|| format!("the node in {} did not start; {}", dir.display(), tail(&log)))
}

/// The first line of standard output, once there is one.
pub(crate) type FirstLine = mpsc::Receiver<Option<std::io::Result<String>>>;

/// Starts a broker's process, whose standard error goes to the end of a file.
pub(crate) fn spawn(mut command: Command, log: &Path) -> anyhow::Result<(Child, FirstLine)> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::options().append(true).create(true).open(log)?);
    let mut process = process::spawn(command)?;
    let stdout = process.stdout.take().context("no standard output")?;
    let (line, first) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        let _ = line.send(lines.next());
        // Read on, so that the node never blocks on a full pipe.
        for _ in lines {}
    });
    Ok((process, first))
}

/// The last lines that a broker wrote to its standard error.
pub(crate) fn tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(30).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    format!("it said:\n{}", tail.join("\n"))
}
