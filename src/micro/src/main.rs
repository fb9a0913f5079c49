//! Counts the instructions of the hot paths and compares them with `instructions.toml`.
//!
//! ```text
//! cargo run --release -p ackord-micro [-- PART_OF_A_NAME…]   compare
//! cargo run --release -p ackord-micro -- --write             write the baseline anew
//! ```
//!
//! Exit code 0: nothing is 3 % dearer; 1: something is, or the baseline is of other paths; 2: it
//! cannot be told, for want of valgrind or because the baseline was made with other tools.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use ackord_micro::baseline::{Baseline, Change, REGRESSION_PERCENT};
use ackord_micro::{callgrind, paths};
use anyhow::{Context, bail, ensure};

/// The baseline.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Does what the arguments ask for: whether nothing has become dearer.
fn run() -> anyhow::Result<bool> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [callgrind::COUNTED, name] => callgrind::run_counted(name).map(|()| true),
        ["--write"] => count(&[])?.write(Path::new(FILE)).map(|()| true),
        ref parts if parts.iter().all(|part| !part.starts_with('-')) => compare(parts),
        _ => bail!("give --write, or parts of names, or nothing"),
    }
}

/// Counts the paths whose names have one of these parts; all without any.
fn count(parts: &[&str]) -> anyhow::Result<Baseline> {
    let mut measured_with = tools()?;
    let mut instructions = BTreeMap::new();
    for path in paths() {
        if parts.is_empty() || parts.iter().any(|part| path.name.contains(part)) {
            let counted = callgrind::count(path.name)?;
            eprintln!("{:<22}{:>12} instructions", path.name, counted.instructions);
            instructions.insert(path.name.to_owned(), counted.instructions);
            measured_with.insert("processor".to_owned(), counted.processor);
        }
    }
    ensure!(!instructions.is_empty(), "no path has such a name");
    Ok(Baseline { measured_with, instructions })
}

/// What the counts depend on besides the code and the processor.
fn tools() -> anyhow::Result<BTreeMap<String, String>> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let asked = [
        ("rustc", rustc.as_str(), "--version"),
        ("valgrind", "valgrind", "--version"),
        ("libc", "getconf", "GNU_LIBC_VERSION"),
    ];
    let answer = |(name, program, argument): (&str, &str, &str)| {
        let output = Command::new(program).arg(argument).output();
        let output = output.with_context(|| format!("{program} does not start: is it there?"))?;
        let said = String::from_utf8(output.stdout)?;
        anyhow::Ok((name.to_owned(), said.trim().to_owned()))
    };
    asked.into_iter().map(answer).collect()
}

/// Compares with the baseline: whether nothing has become dearer.
fn compare(parts: &[&str]) -> anyhow::Result<bool> {
    let before = Baseline::read(Path::new(FILE))?;
    let now = count(parts)?;
    let differences = before.differences(&now.measured_with);
    for [name, was, is] in &differences {
        eprintln!("{name}: the baseline was measured with `{was}`, this is `{is}`");
    }
    ensure!(differences.is_empty(), "these counts do not compare: write the baseline anew");
    println!("{:<22}{:>12}{:>12}{:>10}", "path", "baseline", "now", "change");
    let mut sound = true;
    for (name, count) in &now.instructions {
        let was = before.instructions.get(name).map_or("-".to_owned(), u64::to_string);
        let (percent, remark) = match before.change(name, *count) {
            Change::Same(percent) => (percent, ""),
            Change::Better(percent) => (percent, "  better: write the baseline anew"),
            Change::Worse(percent) => (percent, "  REGRESSION"),
            Change::New => (0.0, "  NOT IN THE BASELINE"),
        };
        sound &= !matches!(before.change(name, *count), Change::Worse(_) | Change::New);
        println!("{name:<22}{was:>12}{count:>12}{percent:>+9.2}%{remark}");
    }
    for name in before.instructions.keys() {
        if parts.is_empty() && !now.instructions.contains_key(name) {
            sound = false;
            println!("{name:<22} NO LONGER A PATH");
        }
    }
    if !sound {
        println!("instructions.toml: {REGRESSION_PERCENT} % or more dearer, or of other paths");
    }
    Ok(sound)
}
