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

/// What every report has, measured or not.
const FIGURES: [&str; 16] = [
    "events_per_s",
    "latency_us",
    "server_cpu_us_per_event",
    "client_cpu_us_per_event",
    "verified",
    "acked",
    "received",
    "lost",
    "duplicated",
    "out_of_order",
    "nodes",
    "sites",
    "seconds",
    "durability",
    "checks",
    "timeline",
];

fn bench(words: &[&str]) -> serde_json::Value {
    let words: Vec<&str> = ["bench"].iter().chain(words).copied().collect();
    let report = run(&words).expect(0).lines().remove(0);
    for figure in FIGURES {
        assert!(report.get(figure).is_some(), "{figure} is missing: {report}");
    }
    assert_eq!(report["failures"].as_array().unwrap().len(), 0, "{report}");
    assert!(report["events"].as_u64().unwrap() > 0, "{report}");
    report
}

/// Nothing lost, nothing twice, in order, and all of it checked.
fn verified(words: &[&str]) -> serde_json::Value {
    let report = bench(words);
    assert_eq!(report["verified"], true, "{report}");
    assert!(!report["checks"].as_array().unwrap().is_empty(), "{report}");
    report
}

#[test]
fn each_benchmark_verifies_its_own_result() {
    let counted = |report: &serde_json::Value| {
        for count in ["lost", "duplicated", "out_of_order"] {
            assert_eq!(report[count], 0, "{count}: {report}");
        }
        assert!(report["acked"].as_u64().unwrap() > 0, "{report}");
    };
    let words = ["publish", "--publishers", "2", "--window", "8", "--seconds", "1", "--json"];
    let report = verified(&words);
    counted(&report);
    assert_eq!(report["durability"], "majority+fdatasync", "{report}");
    assert_eq!(report["received"], serde_json::Value::Null, "nobody received: {report}");
    assert!(report["latency_us"]["p99"].as_u64() >= report["latency_us"]["p50"].as_u64());
    let words = ["deliver", "--subscriptions", "6", "--subscribers", "3", "--backlog", "20"];
    let report = verified(&[&words[..], &["--json"]].concat());
    counted(&report);
    assert_eq!(report["received"], 120, "{report}");
    assert_eq!(report["durability"], "majority+fdatasync", "{report}");
    let words = ["idle", "--subscribers", "20", "--seconds", "1", "--json"];
    assert!(verified(&words)["kib_per_subscriber"].is_number());
    let report = verified(&[
        "idle",
        "--agents",
        "50",
        "--set",
        "sessions.sessions_max=10",
        "--seconds",
        "1",
        "--json",
    ]);
    assert_eq!(report["received"], 50, "{report}");
    assert!(report["kib_per_subscriber"].is_number(), "{report}");
    verified(&["revocation", "--nodes", "3", "--rounds", "1", "--json"]);
    let words = ["publish", "--nodes", "3", "--publishers", "2", "--seconds", "1", "--json"];
    let report = verified(&words);
    counted(&report);
    assert_eq!((&report["nodes"], &report["sites"]), (&3.into(), &1.into()), "{report}");
    assert_eq!(report["durability"], "majority+fdatasync", "{report}");
}

#[test]
fn fan_out_hands_each_subscriber_every_event_once_in_order() {
    // So few that a debug build beside other tests keeps up: what is late is not counted as delivered.
    let words = ["fanout", "--nodes", "3", "--subscribers", "12", "--rate", "5"];
    let report = verified(&[&words[..], &["--seconds", "2", "--json"]].concat());
    let acked = report["acked"].as_u64().unwrap();
    assert_eq!(report["received"].as_u64(), Some(acked * 12), "{report}");
    assert_eq!(report["confirmed"].as_u64(), Some(acked * 12), "{report}");
    assert!(report["deliveries_per_s"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_paced_benchmark_that_checks_nothing_says_so_and_draws_its_charts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let words = ["publish", "--publishers", "2", "--rate", "50", "--seconds", "2", "--no-verify"];
    let report = bench(&[&words[..], &["--json", "--html", file.to_str().unwrap()]].concat());
    assert_eq!(report["verified"], serde_json::Value::Null, "{report}");
    assert_eq!(report["lost"], serde_json::Value::Null, "{report}");
    assert!(report["acked"].as_u64().unwrap() > 0, "{report}");
    assert!(report["events_per_s"].as_f64().unwrap() < 150.0, "paced: {report}");
    let page = std::fs::read_to_string(file).unwrap();
    assert!(page.contains("<svg") && page.contains("Nothing was checked."), "{page}");
    // Self-contained: it asks nobody for anything.
    assert!(!page.contains("src=") && !page.contains("href="), "{page}");
}

#[test]
fn a_load_that_lasts_compares_its_beginning_with_its_end() {
    let words = ["mixed", "--load", "50", "--publishers", "2", "--seconds", "3", "--json"];
    let report = verified(&words);
    let steady = &report["steady"];
    for figure in
        ["most_after_per_s", "rss_bytes_first", "rss_bytes_last", "p99_us_first", "p99_us_last"]
    {
        assert!(steady[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    assert!(steady["paced_per_s"].as_f64() < steady["most_per_s"].as_f64(), "{report}");
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
