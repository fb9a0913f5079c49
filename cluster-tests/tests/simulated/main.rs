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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use faults::Kind;
use world::{Plan, Report, run};

/// Asks for one seed, and for what happens in it.
const SEED: &str = "ACKORD_TEST_SEED";
/// Seeds that the gate runs; `ACKORD_TEST_SEEDS` asks for more, `ACKORD_TEST_SEED` for one.
const SEEDS: u64 = 6;

const THREE: Plan = Plan { nodes: 3, raises: 60 };
const FIVE: Plan = Plan { nodes: 5, raises: 40 };

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
         --test simulated -- --nocapture {test}\n"
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

fn seeds(few: u64) -> std::ops::Range<u64> {
    match number(SEED) {
        Some(seed) => seed..seed + 1,
        None => 0..number("ACKORD_TEST_SEEDS").unwrap_or(few),
    }
}

fn play(test: &'static str, plan: Plan, few: u64) {
    watch_panics();
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = Report::default();
    let mut failed = Vec::new();
    for seed in seeds(few) {
        let begun = std::time::Instant::now();
        let over = watch_steps(test, seed);
        let report = run(seed, plan);
        drop(over);
        let Report { acknowledged, handled, again, terms, hash, simulated_ms, .. } = &report;
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
        if violations.is_empty() && report.happened.values().sum::<u64>() < 3 {
            violations.push(format!("too few faults really happened: {:?}", report.happened));
        }
        if !violations.is_empty() {
            eprintln!("\n{}{}", violations.join("\n"), replay(test, seed));
            failed.push(seed);
        }
        all.acknowledged += report.acknowledged;
        for (kind, times) in report.happened {
            *all.happened.entry(kind).or_default() += times;
        }
    }
    println!("{} acknowledged in all, {:?}", all.acknowledged, all.happened);
    assert!(failed.is_empty(), "seeds {failed:?} failed, see above");
    let missing: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| !all.happened.contains_key(kind)).collect();
    let enough = seeds(few).end - seeds(few).start >= SEEDS;
    assert!(missing.is_empty() || !enough, "in no run there was {missing:?}");
}

#[test]
fn three_nodes_keep_every_promise_on_a_bad_network() {
    play("three_nodes_keep_every_promise_on_a_bad_network", THREE, SEEDS);
}

#[test]
fn five_nodes_keep_every_promise_on_a_bad_network() {
    play("five_nodes_keep_every_promise_on_a_bad_network", FIVE, 2);
}
