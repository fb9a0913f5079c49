//! Runs the proof by hand: the matrix of faults, the catch table, and the page that is made of both.
//!
//! `cargo run --release -p cluster-tests -- matrix`

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use cluster_tests::catch::{self, Bug, Tree};
use cluster_tests::matrix::{self, FOUND, Line, ROWS, Row};
use cluster_tests::report;

#[derive(Parser)]
#[command(about = "Attacks Ackord with every known fault, and judges what it did")]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs the rows of faults under load, one after the other
    Matrix(Matrix),
    /// Plants known mistakes into a copy of the committed tree, and sees whether they are found
    Catch(Catch),
    /// Puts what both wrote with --json into a page
    Report(Report),
}

#[derive(Args)]
struct Report {
    /// What `matrix --json` wrote; several times for several runs
    #[arg(long, value_name = "FILE")]
    matrix: Vec<PathBuf>,
    /// What `catch --json` wrote; the last line of a mistake counts
    #[arg(long, value_name = "FILE")]
    catch: Vec<PathBuf>,
    /// The page, with marks around its tables
    #[arg(long, value_name = "FILE", default_value = "docs/reliability.md")]
    page: PathBuf,
}

#[derive(Args)]
struct Catch {
    /// These alone; several times for several
    #[arg(long = "bug", value_name = "NAME")]
    bugs: Vec<String>,
    /// One JSON object per mistake
    #[arg(long)]
    json: bool,
    /// Only says which there are
    #[arg(long)]
    list: bool,
}

#[derive(Args)]
struct Matrix {
    /// Fewer rounds of each row
    #[arg(long)]
    short: bool,
    /// These rows alone; several times for several
    #[arg(long = "row", value_name = "N")]
    rows: Vec<u32>,
    /// Rounds of each row, instead of what the row has
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// What decides who is hit and when; a new one by default
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Starts again with another seed until so many minutes are over
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// The seeds that found something once, instead of the rows
    #[arg(long, conflicts_with_all = ["rows", "rounds", "seed", "soak", "short"])]
    found: bool,
    /// One JSON object per row
    #[arg(long)]
    json: bool,
    /// Only says which rows there are
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let all_well = match Command::parse().what {
        What::Matrix(given) => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            match runtime.worker_threads(2).enable_all().build() {
                Ok(runtime) => runtime.block_on(run(&given)),
                Err(error) => Err(error.into()),
            }
        }
        What::Catch(given) => catch(&given),
        What::Report(given) => report(&given),
    };
    match all_well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::from(2)
        }
    }
}

fn report(given: &Report) -> anyhow::Result<bool> {
    let mut page = std::fs::read_to_string(&given.page)?;
    if !given.matrix.is_empty() {
        let mut lines = Vec::new();
        for file in &given.matrix {
            lines.extend(report::read(&std::fs::read_to_string(file)?)?);
        }
        page = report::put(&page, "matrix", &report::matrix(&lines)?)?;
    }
    if !given.catch.is_empty() {
        let mut lines = Vec::new();
        for file in &given.catch {
            lines.extend(report::read(&std::fs::read_to_string(file)?)?);
        }
        page = report::put(&page, "catch", &report::catch(&lines)?)?;
    }
    std::fs::write(&given.page, page)?;
    Ok(true)
}

/// Whether every mistake was found.
fn catch(given: &Catch) -> anyhow::Result<bool> {
    let bugs = catch::bugs()?;
    if let Some(name) = given.bugs.iter().find(|name| bugs.iter().all(|bug| bug.name != **name)) {
        anyhow::bail!("--bug {name}: there is none; --list says which there are");
    }
    let chosen = |bug: &&Bug| given.bugs.is_empty() || given.bugs.contains(&bug.name);
    let mut out = std::io::stdout();
    if given.list {
        for bug in bugs.iter().filter(chosen) {
            writeln!(out, "{:<34}{}", bug.name, bug.title)?;
        }
        return Ok(true);
    }
    let tree = Tree::new()?;
    let mut all_caught = true;
    for bug in bugs.iter().filter(chosen) {
        writeln!(std::io::stderr(), "{}: {} …", bug.name, bug.title)?;
        let caught = tree.catch(bug);
        all_caught &= caught.caught;
        if given.json {
            writeln!(out, "{}", serde_json::to_string(&caught)?)?;
        } else {
            let verdict = if caught.caught { "caught" } else { "MISSED" };
            let said = if caught.said.is_empty() { "" } else { ": " };
            writeln!(
                out,
                "{verdict}  {} after {} s by {}{said}{}",
                caught.bug, caught.seconds, caught.by, caught.said
            )?;
        }
        out.flush()?;
    }
    Ok(all_caught)
}

/// Whether every row passed.
async fn run(given: &Matrix) -> anyhow::Result<bool> {
    let known = |number: &u32| ROWS.iter().any(|row| row.number == *number);
    if let Some(number) = given.rows.iter().find(|number| !known(number)) {
        anyhow::bail!("--row {number}: there are 1 to {}", ROWS.len());
    }
    let chosen = |row: &&Row| given.rows.is_empty() || given.rows.contains(&row.number);
    let mut out = std::io::stdout();
    if given.found {
        let mut all_well = true;
        for found in FOUND {
            let row = ROWS.iter().find(|row| row.number == found.row).context("a row")?;
            writeln!(std::io::stderr(), "row {}: {} …", row.number, found.what)?;
            let line = matrix::run(row, found.seed, found.rounds).await;
            all_well &= line.verdict == "pass";
            tell(&mut out, &line, given.json)?;
        }
        return Ok(all_well);
    }
    if given.list {
        for row in ROWS.iter().filter(chosen) {
            let gate = if row.gate { "  (gate)" } else { "" };
            writeln!(out, "{:>2}  {}{gate}", row.number, row.fault)?;
        }
        return Ok(true);
    }
    let mut seed = given.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20)
    });
    let until = Instant::now() + Duration::from_secs(60 * given.soak.unwrap_or(0));
    let mut all_well = true;
    loop {
        for row in ROWS.iter().filter(chosen) {
            let rounds = given.rounds.unwrap_or(row.rounds[usize::from(!given.short)]);
            writeln!(std::io::stderr(), "row {}: {} …", row.number, row.fault)?;
            let line = matrix::run(row, seed, rounds).await;
            all_well &= line.verdict == "pass";
            tell(&mut out, &line, given.json)?;
        }
        if Instant::now() >= until {
            return Ok(all_well);
        }
        seed = seed.wrapping_add(1);
    }
}

fn tell(out: &mut impl std::io::Write, line: &Line, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(line)?)?;
        return Ok(out.flush()?);
    }
    writeln!(
        out,
        "{:>2}  {:<4}  {:>4} times  {:>6} ops  {} lost  {} twice  {:>6} ms  {:>4} s  {}",
        line.row,
        line.verdict,
        line.injected,
        line.ops,
        line.lost,
        line.twice,
        line.longest_wait_ms,
        line.seconds,
        line.fault
    )?;
    if let Some(why) = &line.why {
        writeln!(out, "    {why}\n    {}", line.replay)?;
    }
    Ok(())
}
