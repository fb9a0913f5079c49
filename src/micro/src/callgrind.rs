//! How many instructions one path executes, as callgrind counts them.
//!
//! `this program, once more, under valgrind ─▶ counted_rounds ─▶ callgrind's file ─▶ its totals`
//!
//! Only what [`counted_rounds`] calls is counted, so neither the start of the process nor what a
//! path prepares is. What the allocator does inside is not counted either: it depends on everything
//! that was allocated before, and moved the counts of unchanged code by up to a tenth. Each request
//! for memory counts [`ALLOCATION`] instead. Valgrind shows a program the same processor on every machine that has at
//! least its features, and lays out its memory in the same way each time.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::{HotPath, paths};

/// The argument with which this program counts for a parent: the path's name follows.
pub const COUNTED: &str = "--counted";

/// Instructions that a request for memory and its return count.
pub const ALLOCATION: u64 = 150;
/// The function of the allocator that takes memory back.
const FREE: &str = "free";
/// The functions of the allocator that are called from outside.
const ALLOCATOR: [&str; 6] =
    ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", FREE];

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
        .args(["--dump-instr=yes", "--compress-pos=no"])
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
    ensure!(rounds > 0, "{name}: no rounds");
    let profile = Profile::read(&std::fs::read_to_string(&file)?)?;
    let instructions = (profile.instructions() + rounds / 2) / rounds;
    Ok(Counted { instructions, processor: processor.to_owned() })
}

/// What callgrind's file says.
#[derive(Debug, Default, PartialEq)]
struct Profile {
    /// Instructions in all.
    total: u64,
    /// Those inside of the allocator, and of what it calls.
    allocating: u64,
    /// Calls that ask the allocator for memory.
    allocations: u64,
}

impl Profile {
    /// Reads callgrind's file, as it is with the address of every instruction.
    fn read(file: &str) -> anyhow::Result<Self> {
        let mut profile = Self::default();
        let mut names: HashMap<&str, &str> = HashMap::new();
        let (mut function, mut called) = ("", None);
        // The first instruction of each function of the allocator: where it is, how often it ran.
        let mut entries: HashMap<&str, (u64, u64)> = HashMap::new();
        let (mut counts, mut calls) = (false, false);
        for line in file.lines() {
            if let Some((kind @ ("fn" | "cfn"), name)) = line.split_once('=') {
                // `(number) name` at first, `(number)` from then on.
                let (number, name) = name.split_once(' ').unwrap_or((name, ""));
                if !name.is_empty() {
                    names.insert(number, name);
                }
                let name = names.get(number).copied().unwrap_or_default();
                if kind == "fn" { function = name } else { called = Some(name) }
            } else if line.starts_with("calls=") {
                calls = true;
            } else if let Some(cost) = line.strip_prefix("0x") {
                let (at, _) = cost.split_once(' ').context("an address without a cost")?;
                let at = u64::from_str_radix(at, 16)?;
                let cost: u64 = cost.rsplit(' ').next().unwrap_or_default().parse()?;
                let inside = ALLOCATOR.contains(&function);
                // After `calls=`, the cost is that of everything that was called.
                if std::mem::take(&mut calls) {
                    let into = called.is_some_and(|called| ALLOCATOR.contains(&called));
                    profile.allocating += if into && !inside { cost } else { 0 };
                } else if inside {
                    let entry = entries.entry(function).or_insert((at, cost));
                    *entry = (*entry).min((at, cost));
                }
            } else if let Some(total) = line.strip_prefix("totals: ") {
                profile.total = total.trim().parse()?;
            } else {
                counts |= line == "events: Ir";
            }
        }
        ensure!(counts, "callgrind counted something else than instructions");
        ensure!(profile.total > 0, "callgrind counted nothing");
        entries.remove(FREE);
        profile.allocations = entries.values().map(|(_, runs)| runs).sum();
        Ok(profile)
    }

    /// Instructions, the allocator's at their usual price.
    fn instructions(&self) -> u64 {
        self.total - self.allocating + ALLOCATION * self.allocations
    }
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
    use super::{ALLOCATION, Profile};

    const FILE: &str = "\
positions: instr line
events: Ir
fn=(1) work
0x100 1 700
cfn=(2) malloc
calls=5 0x200
0x104 2 250
fn=(2)
0x204 0 145
0x200 0 5
cfn=(3) free
calls=1 0x300
0x208 0 100
fn=(3)
0x300 0 1
0x301 0 99
totals: 950
";

    #[test]
    fn given_callgrinds_words_then_the_allocator_is_told_apart() {
        let profile = Profile::read(FILE).expect("it is callgrind's");
        assert_eq!(profile, Profile { total: 950, allocating: 250, allocations: 5 });
        assert_eq!(profile.instructions(), 700 + 5 * ALLOCATION);
    }

    #[test]
    fn given_anything_else_then_nothing_is_counted() {
        assert!(Profile::read("events: Ir Dr\ntotals: 1 2\n").is_err());
        assert!(Profile::read("events: Ir\n").is_err());
    }
}
