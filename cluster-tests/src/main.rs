//! Runs the proof by hand: the matrix of faults, the catch table, and the page that is made of both.
//!
//! `cargo run --release -p cluster-tests -- matrix`

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use cluster_tests::matrix::{self, Line, ROWS, Row};

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
    /// One JSON object per row
    #[arg(long)]
    json: bool,
    /// Only says which rows there are
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let What::Matrix(given) = Command::parse().what;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let all_well = match runtime {
        Ok(runtime) => runtime.block_on(run(&given)),
        Err(error) => Err(error.into()),
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

/// Whether every row passed.
async fn run(given: &Matrix) -> anyhow::Result<bool> {
    let known = |number: &u32| ROWS.iter().any(|row| row.number == *number);
    if let Some(number) = given.rows.iter().find(|number| !known(number)) {
        anyhow::bail!("--row {number}: there are 1 to {}", ROWS.len());
    }
    let chosen = |row: &&Row| given.rows.is_empty() || given.rows.contains(&row.number);
    let mut out = std::io::stdout();
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
