//! Real nodes and real sessions on a simulated network, in simulated time, over many seeds.

mod chance;
mod client;
mod disk;
mod endpoint;
mod faults;
mod frames;
mod host;
mod net;
mod service;
mod world;

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use faults::{Happened, Kind};
use serde::{Deserialize, Serialize};
use world::{Plan, Report, run};

/// Asks for one seed, and for what happens in it.
const SEED: &str = "ACKORD_TEST_SEED";
/// Seeds that the gate runs; `ACKORD_TEST_SEEDS` asks for more, `ACKORD_TEST_SEED` for one. Each has a
/// process of its own, for what a process counts would be different in the second run.
const SEEDS: u64 = 6;

/// Asks a process that runs one seed for a [`Summary`].
const SUMMARY: &str = "ACKORD_TEST_SUMMARY";
/// What such a line begins with.
const MARK: &str = "summary ";
/// Runs at the same time.
const PROCESSES: usize = 2;
/// Faults that must really have happened in a run.
const HAPPENED_MIN: u64 = 2;
/// With so many seeds, faults of every kind must have.
const MANY: u64 = 24;

const THREE: Plan = Plan { nodes: 3, raises: 150 };
const FIVE: Plan = Plan { nodes: 5, raises: 60 };

/// One run at a time: a panic is of the run that goes on.
static ONE: Mutex<()> = Mutex::new(());
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What has panicked since this was asked last, on whatever thread.
fn panics() -> Vec<String> {
    std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Steps of all runs.
static STEPS: AtomicU64 = AtomicU64::new(0);
/// No step takes so long, but one in which tasks wake each other without end: simulated time does not
/// get on then.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// Ends the process when a step does not end: nothing else can be done about it.
fn watch_steps(test: &'static str, seed: u64) -> mpsc::Sender<()> {
    let (over, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let mut before = u64::MAX;
        while ended.recv_timeout(STEP_LIMIT) == Err(RecvTimeoutError::Timeout) {
            let now = STEPS.load(Ordering::Relaxed);
            if now == before {
                eprintln!(
                    "\na step does not end: something is busy without end{}",
                    replay(test, seed)
                );
                std::process::abort();
            }
            before = now;
        }
    });
    over
}

fn replay(test: &str, seed: u64) -> String {
    format!(
        "\nACKORD_TEST_SEED={seed}\nreplay: ACKORD_TEST_SEED={seed} cargo test -p cluster-tests \
         --test simulated -- --exact --nocapture {test}\n"
    )
}

/// A task of a node that panics ends alone, and quietly: its runtime takes the panic.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(filter) = std::env::var("ACKORD_TEST_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
        }
        std::panic::set_hook(Box::new(|info| {
            let text = format!("panic: {info}");
            PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }));
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// What a process tells of its run.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Summary {
    acknowledged: u64,
    hash: u64,
    happened: Happened,
    /// What was drawn, in order.
    faults: Vec<String>,
}

/// Runs a seed in this process.
fn play_here(test: &'static str, plan: Plan, seed: u64) {
    watch_panics();
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = std::time::Instant::now();
    let over = watch_steps(test, seed);
    let report = run(seed, plan);
    drop(over);
    let Report { acknowledged, handled, again, terms, hash, simulated_ms, .. } = report;
    println!(
        "seed {seed}: {acknowledged} acknowledged, {handled} handled, {again} came again, \
         terms {terms}, {} unwritten, {} held, apart {}, {:?}, {simulated_ms} ms in {:.1} s, \
         history {hash:016x}",
        report.unwritten,
        report.held,
        report.apart,
        report.happened,
        begun.elapsed().as_secs_f32(),
    );
    let mut violations = report.violations;
    if violations.is_empty() && report.happened.values().sum::<u64>() < HAPPENED_MIN {
        violations.push(format!("too few faults really happened: {:?}", report.happened));
    }
    if std::env::var_os(SUMMARY).is_some() {
        let summary =
            Summary { acknowledged, hash, happened: report.happened, faults: report.drawn };
        println!("{MARK}{}", serde_json::to_string(&summary).expect("it is plain"));
    }
    if !violations.is_empty() {
        println!("\n{}{}", violations.join("\n"), replay(test, seed));
        std::process::exit(1);
    }
}

/// Runs a seed in a process of its own; `None` when it failed.
fn play_apart(test: &str, seed: u64) -> Option<Summary> {
    let this = std::env::current_exe().expect("a test is a file");
    let mut command = Command::new(this);
    command.args(["--exact", "--nocapture", test]);
    command.env(SEED, seed.to_string()).env(SUMMARY, "1");
    let output = command.output().expect("it can be started");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let summary = said.lines().find_map(|line| line.strip_prefix(MARK));
    let summary = summary.and_then(|summary| serde_json::from_str(summary).ok());
    if output.status.success() && summary.is_some() {
        let line = said.lines().find(|line| line.starts_with("seed "));
        println!("{}", line.unwrap_or_default());
        return summary;
    }
    println!("{said}{errors}{}", replay(test, seed));
    None
}

fn play(test: &'static str, plan: Plan, few: u64) {
    if let Some(seed) = number(SEED) {
        return play_here(test, plan, seed);
    }
    let seeds: Vec<u64> = (0..number("ACKORD_TEST_SEEDS").unwrap_or(few)).collect();
    let mut all = Summary::default();
    let mut failed = Vec::new();
    for some in seeds.chunks(PROCESSES) {
        let summaries: Vec<Option<Summary>> = std::thread::scope(|scope| {
            let start = |seed: &u64| {
                let seed = *seed;
                scope.spawn(move || play_apart(test, seed))
            };
            let running: Vec<_> = some.iter().map(start).collect();
            running.into_iter().map(|run| run.join().expect("it only waits")).collect()
        });
        for (seed, summary) in some.iter().zip(summaries) {
            let Some(summary) = summary else {
                failed.push(*seed);
                continue;
            };
            all.acknowledged += summary.acknowledged;
            for (kind, times) in summary.happened {
                *all.happened.entry(kind).or_default() += times;
            }
        }
    }
    println!("{} acknowledged in all, {:?}", all.acknowledged, all.happened);
    assert!(failed.is_empty(), "seeds {failed:?} failed, see above");
    let missing: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| !all.happened.contains_key(kind)).collect();
    assert!(missing.is_empty() || (seeds.len() as u64) < MANY, "in no run there was {missing:?}");
}

#[test]
fn three_nodes_keep_every_promise_on_a_bad_network() {
    play("three_nodes_keep_every_promise_on_a_bad_network", THREE, SEEDS);
}

#[test]
fn five_nodes_keep_every_promise_on_a_bad_network() {
    play("five_nodes_keep_every_promise_on_a_bad_network", FIVE, 2);
}

#[test]
fn a_seed_gives_the_same_faults_again() {
    const TEST: &str = "three_nodes_keep_every_promise_on_a_bad_network";
    if number(SEED).is_some() {
        return;
    }
    let runs: Vec<Summary> = (0..2).filter_map(|_| play_apart(TEST, 0)).collect();
    assert_eq!(runs.len(), 2, "a run failed, see above");
    println!("the histories are the same: {}", runs[0].hash == runs[1].hash);
    assert_eq!(runs[0].faults, runs[1].faults, "two runs of one seed differ");
}
