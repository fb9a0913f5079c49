//! The rows of the matrix that the gate can afford, with few rounds of each and another seed each time.
//!
//! All rows with all rounds: `cargo run --release -p cluster-tests -- matrix`.

use std::collections::BTreeSet;

use cluster_tests::matrix::{self, Line, ROWS};
use cluster_tests::seed::Seed;

#[test]
fn rows_are_numbered_one_after_the_other_and_each_is_another_fault() {
    let numbers: Vec<u32> = ROWS.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=27).collect::<Vec<_>>());
    let faults: BTreeSet<&str> = ROWS.iter().map(|row| row.fault).collect();
    assert_eq!(faults.len(), ROWS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_the_load_when_faults_happen_then_every_property_holds() {
    let seed = Seed::of_test("matrix", "given_the_load").bits();
    let mut failed: Vec<Line> = Vec::new();
    for row in ROWS.iter().filter(|row| row.gate) {
        let line = matrix::run(row, seed, row.rounds[0]).await;
        let why = line.why.clone().unwrap_or_default();
        println!(
            "row {} ({}): {} in {} s; {} times, {} operations; {why}\n  {}",
            line.row, line.fault, line.verdict, line.seconds, line.injected, line.ops, line.replay
        );
        if line.verdict != "pass" {
            failed.push(line);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
