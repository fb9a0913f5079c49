//! Every target over its corpus, and over mutations of it that are the same in every run.
//!
//! `ACKORD_FUZZ_ROUNDS=N` tries N mutations of each, `ACKORD_FUZZ_SEED=S` others. After a change of
//! what is written, `ACKORD_FUZZ_WRITE=1` adds what the corpora are to begin with; nothing is ever
//! removed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ackord_fuzz::mutate::{Numbers, mutated};
use ackord_fuzz::{TARGETS, Target, seeds};

/// Mutations of each target in the gate.
const ROUNDS: u64 = 2_000;
/// Bytes of all corpora together, at most.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The corpus of a target, in the order of the names.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = seeds::corpus().join(target.name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("an input can be read")).collect()
}

/// Runs an input; one that breaks the target is shown so that it can be kept.
fn run(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{} is broken by {hex}", target.name);
    }
}

fn every_target(mut check: impl FnMut(&Target, &[Vec<u8>])) {
    for target in TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        check(target, &corpus);
    }
}

#[test]
fn no_input_of_the_corpus_breaks_its_target() {
    every_target(|target, corpus| {
        corpus.iter().for_each(|input| run(target, input));
        run(target, b"");
    });
}

#[test]
fn no_mutation_of_the_corpus_breaks_its_target() {
    let rounds = number("ACKORD_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("ACKORD_FUZZ_SEED").unwrap_or(1);
    println!("ACKORD_FUZZ_SEED={seed} ACKORD_FUZZ_ROUNDS={rounds}");
    every_target(|target, corpus| {
        let mut numbers = Numbers::new(seed);
        for _ in 0..rounds {
            run(target, &mutated(corpus, &mut numbers));
        }
    });
}

#[test]
fn the_corpora_are_complete_and_small() {
    let dir = seeds::corpus();
    let write = number("ACKORD_FUZZ_WRITE").is_some();
    for (target, name, bytes) in seeds::all() {
        assert!(TARGETS.iter().any(|known| known.name == target), "no target {target}");
        let path = dir.join(target).join(name);
        if write && std::fs::read(&path).ok().as_ref() != Some(&bytes) {
            std::fs::create_dir_all(dir.join(target)).expect("a directory");
            std::fs::write(&path, bytes).expect("an input is written");
        }
        assert!(path.exists(), "{path:?} is missing: ACKORD_FUZZ_WRITE=1 writes it");
    }
    let mut total = 0;
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(&dir).expect("the corpora").map(|entry| entry.expect("one")) {
        found.insert(entry.file_name().to_string_lossy().into_owned());
        let files = std::fs::read_dir(entry.path()).expect("a corpus");
        total +=
            files.map(|file| file.expect("one").metadata().expect("its size").len()).sum::<u64>();
    }
    let named: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(found, named, "each target has a corpus, each corpus a target");
    assert!(total <= CORPUS_BYTES_MAX, "{total} bytes");
}

#[test]
fn each_target_has_a_binary() {
    let dir = seeds::corpus().with_file_name("cargo-fuzz");
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).expect("the manifest");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        let path = dir.join("fuzz_targets").join(format!("{}.rs", target.name));
        assert!(path.exists(), "{path:?}");
    }
}
