//! How many instructions one path executes, as callgrind counts them.
//!
//! `this program, once more, under valgrind ─▶ counted_rounds ─▶ callgrind's file ─▶ its totals`
//!
//! Only what [`counted_rounds`] calls is counted, so neither the start of the process nor what a
//! path prepares is. Valgrind shows a program the same processor on every machine that has at
//! least its features, and lays out its memory in the same way each time.

use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::{HotPath, paths};

/// The argument with which this program counts for a parent: the path's name follows.
pub const COUNTED: &str = "--counted";

/// The rounds that callgrind counts; found by its name.
#[inline(never)]
fn counted_rounds(work: &mut dyn HotPath, rounds: usize) {
    for _ in 0..rounds {
        work.round();
    }
}

/// The child's side: warms a path up, then runs the rounds that are counted. Prints how many.
///
/// # Errors
/// When there is no such path.
pub fn run_counted(name: &str) -> anyhow::Result<()> {
    let path = paths().into_iter().find(|path| path.name == name);
    let path = path.with_context(|| format!("no path is named {name}"))?;
    let mut work = (path.prepare)();
    // What is made at the first use only is no part of a round.
    (0..work.ready()).for_each(|_| work.round());
    let rounds = work.ready();
    counted_rounds(&mut *work, rounds);
    println!("{rounds} {}", processor());
    Ok(())
}

/// What one count says.
pub struct Counted {
    /// Instructions of one round.
    pub instructions: u64,
    /// The processor that the program saw.
    pub processor: String,
}

/// Counts one path. Callgrind's file stays beside this program, for `callgrind_annotate`.
///
/// # Errors
/// When valgrind does not run, or does not say what is expected.
pub fn count(name: &str) -> anyhow::Result<Counted> {
    let program = std::env::current_exe()?;
    let file = program.with_file_name(format!("callgrind.{name}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_rounds*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&program)
        .args([COUNTED, name])
        // An environment of another length moves the stack.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .context("valgrind does not start: is it installed?")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let (rounds, processor) = said.trim().split_once(' ').context("the path did not answer")?;
    let rounds: u64 = rounds.parse()?;
    let total = total(&std::fs::read_to_string(&file)?)?;
    ensure!(total > 0 && rounds > 0, "{name}: nothing was counted");
    let instructions = (total + rounds / 2) / rounds;
    Ok(Counted { instructions, processor: processor.to_owned() })
}

/// The instructions that callgrind's file counts in all.
fn total(file: &str) -> anyhow::Result<u64> {
    let line = |head: &str| file.lines().find_map(|line| line.strip_prefix(head));
    ensure!(line("events: ").map(str::trim) == Some("Ir"), "callgrind counted something else");
    let totals = line("totals: ").context("callgrind's file has no totals")?;
    Ok(totals.trim().parse()?)
}

/// The architecture, and which of the features that libraries look for at run time there are.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("bmi2", std::is_x86_feature_detected!("bmi2")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("sha", std::is_x86_feature_detected!("sha")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let features: [(&str, bool); 0] = [];
    let there = features.into_iter().filter(|(_, there)| *there).map(|(name, _)| name);
    std::iter::once(std::env::consts::ARCH).chain(there).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_is_found_in_callgrinds_words() {
        let file = "version: 1\nevents: Ir\nsummary: 0\n\nfn=(1) x\n3 4\n\ntotals: 51200\n";
        assert_eq!(total(file).ok(), Some(51_200));
        assert!(total("events: Ir Dr\ntotals: 1 2\n").is_err());
        assert!(total("events: Ir\n").is_err());
    }
}
