//! The simulation over many seeds, and proof that its oracle sees what it is there to see.

use cluster_tests::sim::{Mistakes, Report, run};

/// Seeds that the gate runs; `ACKORD_TEST_SEEDS` asks for more, `ACKORD_TEST_SEED` for one.
const SEEDS: u64 = 4_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn seeds() -> std::ops::Range<u64> {
    match number("ACKORD_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ACKORD_TEST_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn no_promise_is_broken_in_any_world() {
    let mut total = Report::default();
    for seed in seeds() {
        let report = run(seed, Mistakes::default());
        assert!(
            report.violations.is_empty(),
            "\n{}\nreplay: ACKORD_TEST_SEED={seed} cargo test -p cluster-tests --test simulation \
             -- no_promise_is_broken_in_any_world\n",
            report.violations.join("\n")
        );
        total.raised += report.raised;
        total.acknowledged += report.acknowledged;
        total.handled += report.handled;
        for (sum, faults) in total.faults.iter_mut().zip(report.faults) {
            *sum += faults;
        }
    }
    println!("{total:?}");
    // A world in which nothing went wrong proves nothing.
    if number("ACKORD_TEST_SEED").is_none() {
        assert!(total.acknowledged > seeds().end * 10, "{total:?}");
        assert!(total.handled > total.acknowledged, "{total:?}");
        assert!(total.faults.iter().all(|faults| *faults > seeds().end / 4), "{total:?}");
    }
}

#[test]
fn an_acknowledgement_before_the_log_is_durable_is_caught() {
    let early = Mistakes { acknowledge_early: true };
    let caught = (0..200).find(|seed| !run(*seed, early).violations.is_empty());
    assert!(caught.is_some(), "200 worlds saw nothing wrong with a broker that acknowledges early");
}
