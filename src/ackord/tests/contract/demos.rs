//! The demonstrations end as they should: they verify themselves.

use crate::support::{ackord, end, run, run_with};

#[test]
fn the_first_demonstration_brings_standard_input_to_a_subscriber_that_was_away() {
    let input: String = (1..=50).map(|n| format!("{{\"n\": {n}}}\n")).collect();

    let ended = run_with(&["demo", "--exit", "--json"], &input).expect(0);

    let numbers: Vec<u64> =
        ended.lines().iter().map(|line| line["args"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    assert!(ended.err.contains("all of them, in order, each once"), "{}", ended.err);
    run_with(&["demo", "--exit"], "").expect(2);
}

#[test]
fn the_boiler_and_its_followers_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let boiler = || {
        let mut command = ackord(&["demo", "boiler", "--json", "--every", "10ms"]);
        command.args(["--readings", "10", "--data"]).arg(dir.path());
        end(command, "").expect(0).lines()
    };
    let handled = |lines: &[serde_json::Value], role: &str, event: &str| -> Vec<u64> {
        let mine = lines.iter().filter(|line| line["role"] == role);
        let events = mine.map(|line| &line["handled"]).filter(|handled| handled["event"] == event);
        events.map(|handled| handled["args"]["n"].as_u64().unwrap()).collect()
    };

    let first = boiler();
    assert_eq!(handled(&first, "panel", "reading"), (1..=10).collect::<Vec<_>>());
    assert_eq!(handled(&first, "phone", "notice"), [5, 10]);
    let second = boiler();
    assert_eq!(handled(&second, "panel", "reading"), (11..=20).collect::<Vec<_>>());
    assert_eq!(handled(&second, "phone", "notice"), [15, 20]);
}

#[test]
fn each_benchmark_verifies_its_own_result() {
    let check = |words: &[&str]| {
        let words: Vec<&str> = ["bench"].iter().chain(words).copied().collect();
        let report = run(&words).expect(0).lines().remove(0);
        assert!(!report["verified"].as_array().unwrap().is_empty(), "{report}");
        assert_eq!(report["failures"].as_array().unwrap().len(), 0, "{report}");
        assert!(report["events"].as_u64().unwrap() > 0, "{report}");
    };
    check(&["publish", "--publishers", "2", "--window", "8", "--seconds", "1", "--json"]);
    check(&["deliver", "--subscriptions", "6", "--subscribers", "3", "--backlog", "20", "--json"]);
    check(&["idle", "--subscribers", "20", "--seconds", "1", "--json"]);
    check(&["revocation", "--nodes", "3", "--rounds", "1", "--json"]);
    let cluster = ["publish", "--nodes", "3", "--publishers", "2", "--seconds", "1", "--json"];
    check(&cluster);
}

#[test]
fn a_site_is_held_to_its_rates_over_all_nodes_and_another_one_is_not() {
    let words = ["bench", "quota", "--nodes", "3", "--rate", "100", "--seconds", "5", "--json"];
    // Whether it is within 5 % is the report's to say: machines that test are busy.
    let report = run(&words).lines().remove(0);
    let quotas = report["quotas"].as_array().unwrap();
    assert_eq!(quotas.len(), 2, "{report}");
    for quota in quotas {
        let ratio = quota["ratio"].as_f64().unwrap();
        assert!((0.5..1.2).contains(&ratio), "{quota}");
        assert!(quota["beside_ratio"].as_f64().unwrap() > 0.5, "{quota}");
    }
}
