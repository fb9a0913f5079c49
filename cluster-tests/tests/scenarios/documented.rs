//! `docs/semantics.md` and the scenarios name each other: no id without a test, no test without
//! an id.

use std::collections::BTreeSet;
use std::path::Path;

/// The ids of the document's tables with the test they name: `| Q2 | … | `q2_…` |`.
fn documented(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let mut tests = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(id), Some(test)) = (cells.first(), cells.last()) else { continue };
        if !is_id(id) {
            continue;
        }
        let test = test.trim_matches('`').to_owned();
        assert!(
            test.starts_with(&format!("{}_", id.to_lowercase())),
            "scenario {id} names the test {test}"
        );
        assert!(tests.insert(test), "scenario {id} is there twice");
    }
    tests
}

fn is_id(text: &str) -> bool {
    let Some(letter) = text.chars().next() else { return false };
    "SQAPDM".contains(letter) && text.len() > 1 && text[1..].bytes().all(|b| b.is_ascii_digit())
}

/// The test functions of the scenario files that are named after an id.
fn tested(folder: &Path) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for file in std::fs::read_dir(folder).expect("the scenarios").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a source file");
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(next) = lines.peek().filter(|_| line.starts_with("#[tokio::test")) else {
                continue;
            };
            let name = next.trim_start_matches("async fn ").split('(').next().unwrap_or_default();
            tests.insert(name.to_owned());
        }
    }
    tests
}

#[test]
fn every_documented_scenario_has_its_test_and_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("../docs/semantics.md")).expect("the document");
    let (documented, tested) = (documented(&text), tested(&root.join("tests/scenarios")));
    let without_test: Vec<_> = documented.difference(&tested).collect();
    let without_id: Vec<_> = tested.difference(&documented).collect();
    assert!(without_test.is_empty(), "documented and not tested: {without_test:?}");
    assert!(without_id.is_empty(), "tested and not documented: {without_id:?}");
    assert!(documented.len() >= 40, "the tables of the document were not found");
}
