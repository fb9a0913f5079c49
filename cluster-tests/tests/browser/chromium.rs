//! A headless Chromium that shows one page: what it needs lies in a directory of its own, and all of its processes end with
//! it.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use cluster_tests::process;

/// The environment variable that names a browser.
const VARIABLE: &str = "ACKORD_TEST_CHROMIUM";
/// What it is called in the distributions.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// One window, no network but the page's, no more than it needs of the machine. The sandbox wants rights that test machines
/// do not always give, and the page is the test's own.
const OPTIONS: [&str; 13] = [
    "--headless=new",
    "--enable-logging=stderr",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--renderer-process-limit=2",
];

/// A running browser. Killed when dropped, and when the test process ends.
pub struct Chromium {
    process: Child,
    // Removed after the processes are gone: see `drop`.
    dir: tempfile::TempDir,
}

impl Chromium {
    /// Opens a page.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let program = find()?;
        let dir = tempfile::Builder::new().prefix("ackord-chromium").tempdir()?;
        let mut command = Command::new(&program);
        command
            .args(OPTIONS)
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .arg(url)
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log(dir.path()))?)
            .process_group(0);
        let process = process::spawn(command);
        let process = process.with_context(|| format!("{} does not start", program.display()))?;
        Ok(Self { process, dir })
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        process::kill_group(&mut self.process);
        if std::thread::panicking() {
            let log = std::fs::read_to_string(log(self.dir.path())).unwrap_or_default();
            println!("the browser said:\n{log}");
        }
    }
}

fn log(dir: &Path) -> PathBuf {
    dir.join("stderr")
}

/// The browser of this machine.
fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("no browser: install chromium, or set {VARIABLE} to one"))
}
