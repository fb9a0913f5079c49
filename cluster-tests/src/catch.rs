//! The catch table: known mistakes, each planted into a copy of the committed tree, and whether what
//! is to find it does.
//!
//! A patch beside the tests (`mistakes/*.patch`) begins with two lines: `Bug:` says what is wrong, and
//! `Caught-by:` what finds it: `simulation`, `matrix` with its options, or `test` with those of `cargo
//! test`. Invariants: the tree of the caller is never touched; a mistake that does not compile, or a
//! test that did not run, is not caught.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

/// Worlds that may pass before a mistake counts as missed.
const WORLDS: &str = "6000";

/// A known mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// Its name: that of its file.
    pub name: String,
    /// What is wrong.
    pub title: String,
    /// What finds it.
    pub caught_by: String,
    patch: PathBuf,
}

/// What became of a mistake: a line of the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Caught {
    /// Its name.
    pub bug: String,
    /// What is wrong.
    pub title: String,
    /// Its file, below the root of the repository.
    pub patch: String,
    /// Whether it was found.
    pub caught: bool,
    /// How long that took, with building.
    pub seconds: u64,
    /// What was to find it.
    pub by: String,
    /// What it said.
    pub said: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All mistakes, by name.
///
/// # Errors
/// When a patch cannot be read, or has no head.
pub fn bugs() -> anyhow::Result<Vec<Bug>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("cluster-tests/mistakes"))? {
        let patch = entry?.path();
        if patch.extension().is_none_or(|kind| kind != "patch") {
            continue;
        }
        let text = std::fs::read_to_string(&patch)?;
        let head = |field: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.map(|line| line.trim().to_owned())
                .with_context(|| format!("{} has no line {field:?}", patch.display()))
        };
        let name = patch.file_stem().and_then(|stem| stem.to_str()).context("a name")?.to_owned();
        found.push(Bug { name, title: head("Bug:")?, caught_by: head("Caught-by:")?, patch });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// A copy of the committed tree, gone when dropped.
pub struct Tree {
    dir: tempfile::TempDir,
    /// Where it is built: the same place each time, so that what is the same is built once.
    target: PathBuf,
}

impl Tree {
    /// Makes the copy.
    ///
    /// # Errors
    /// When git refuses.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("ackord-mistakes").tempdir()?;
        let tree = Self { dir, target: target()? };
        let mut git = Command::new("git");
        git.arg("-C").arg(root()).args(["worktree", "add", "--quiet", "--detach"]);
        run(git.arg(tree.path()).arg("HEAD"))?;
        Ok(tree)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn git(&self, arguments: &[&str]) -> anyhow::Result<()> {
        run(Command::new("git").arg("-C").arg(self.path()).args(arguments)).map(drop)
    }

    /// Plants a mistake, lets what finds it look for it, and takes it out again. One that cannot be
    /// planted, or that nobody looked for, is not caught.
    pub fn catch(&self, bug: &Bug) -> Caught {
        let since = Instant::now();
        let found = self.planted(bug).and_then(|output| judge(&bug.caught_by, &output));
        let (caught, said) = found.unwrap_or_else(|error| (false, format!("{error:#}")));
        Caught {
            bug: bug.name.clone(),
            title: bug.title.clone(),
            patch: format!("cluster-tests/mistakes/{}.patch", bug.name),
            caught,
            seconds: since.elapsed().as_secs(),
            by: bug.caught_by.clone(),
            said,
        }
    }

    fn planted(&self, bug: &Bug) -> anyhow::Result<Output> {
        let patch = bug.patch.to_str().context("a path of text")?;
        self.git(&["apply", patch])?;
        let output = self.look(bug);
        self.git(&["checkout", "--quiet", "--", "."])?;
        output
    }

    fn look(&self, bug: &Bug) -> anyhow::Result<Output> {
        let mut words = bug.caught_by.split_whitespace();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        match words.next() {
            Some("simulation") => {
                cargo.args([
                    "test",
                    "-p",
                    "cluster-tests",
                    "--test",
                    "simulation",
                    "--",
                    "no_promise",
                ]);
                cargo.env("ACKORD_TEST_SEEDS", WORLDS);
            }
            Some("test") => {
                cargo.arg("test").args(words);
            }
            Some("matrix") => {
                let matrix = ["run", "-p", "cluster-tests", "--", "matrix", "--json"];
                cargo.args(matrix).args(words);
            }
            Some(other) => bail!("{}: nobody is called {other:?}", bug.name),
            None => bail!("{}: nobody is named to catch it", bug.name),
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_") {
                cargo.env_remove(name);
            }
        }
        cargo.env("CARGO_TARGET_DIR", &self.target).env("CARGO_INCREMENTAL", "0");
        Ok(cargo.current_dir(self.path()).output()?)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let mut git = Command::new("git");
        git.arg("-C").arg(root()).args(["worktree", "remove", "--force"]).arg(self.path());
        let _ = git.output();
    }
}

/// Beside what is built here.
fn target() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(found.unwrap_or(&root().join("target")).join("mistakes"))
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(output)
}

/// Whether it was found, and what was said of it.
fn judge(caught_by: &str, output: &Output) -> anyhow::Result<(bool, String)> {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    let last = |text: &str, is_so: &dyn Fn(&str) -> bool| {
        text.lines().rev().find(|line| is_so(line)).map(|line| line.trim().to_owned())
    };
    if caught_by.starts_with("matrix") {
        let line = last(&out, &|line| line.starts_with('{'));
        let line = line.with_context(|| format!("no row ran: {}", tail(&err)))?;
        let line: crate::matrix::Line = serde_json::from_str(&line)?;
        return Ok((line.verdict == "fail", line.why.unwrap_or_default()));
    }
    // A name that fits no test runs none.
    let ran = |line: &str| line.starts_with("test ") && line.contains(" ... ");
    ensure!(out.lines().any(ran), "no test ran: {}", tail(&err));
    let failed = last(&out, &|line| line.starts_with("test result: FAILED"));
    let why = |line: &str| line.contains("panicked at") || line.contains("ACKORD_TEST_SEED=");
    let first = out.lines().find(|line| why(line)).unwrap_or_default();
    Ok((failed.is_some(), first.trim().to_owned()))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_says_what_is_wrong_and_applies() {
        let bugs = bugs().expect("the patches can be read");
        assert!(bugs.len() >= 15, "{} mistakes", bugs.len());
        for bug in bugs {
            let mut git = Command::new("git");
            git.arg("-C").arg(root()).args(["apply", "--check"]).arg(&bug.patch);
            run(&mut git).unwrap_or_else(|error| panic!("{}: {error:#}", bug.name));
        }
    }
}
