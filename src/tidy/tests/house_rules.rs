//! The gate's house rules: structure, formatting, lints, licences.

use ackord_tidy::tree::{files, run};
use ackord_tidy::{Finding, docs, edges, files as rules};

fn check(findings: Vec<Finding>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn source_files_open_with_their_purpose() {
    check(rules::head_comments(&files().expect("git lists the files")));
}

#[test]
fn source_files_stay_short() {
    check(rules::lengths(&files().expect("git lists the files")));
}

#[test]
fn nothing_unfinished_or_unbounded_is_left() {
    check(rules::phrases(&files().expect("git lists the files")));
}

#[test]
fn documents_name_what_exists() {
    check(docs::dead_paths(&files().expect("git lists the files")));
}

#[test]
fn dependencies_are_the_architecture() {
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let text = run(env!("CARGO"), &arguments).expect("cargo describes the workspace");
    check(edges::forbidden(&serde_json::from_str(&text).expect("metadata is JSON")));
}

#[test]
fn the_code_is_formatted() {
    let result = run(env!("CARGO"), &["fmt", "--all", "--check"]);
    assert!(result.is_ok(), "mend with `cargo fmt --all`:\n{}", result.unwrap_err());
}

#[test]
fn the_lints_are_silent() {
    let arguments =
        ["clippy", "--workspace", "--all-targets", "--quiet", "--offline", "--", "-D", "warnings"];
    let result = run(env!("CARGO"), &arguments);
    assert!(result.is_ok(), "{}", result.unwrap_err());
}

/// Needs `cargo install cargo-deny`; on a machine without it only the gate (CI=true) insists.
#[test]
fn dependencies_are_allowed() {
    let present = run(env!("CARGO"), &["deny", "--version"]).is_ok();
    if !present && std::env::var("CI").is_err() {
        eprintln!("cargo-deny is not installed: bans, licences and sources were not checked");
        return;
    }
    let arguments =
        ["deny", "--offline", "--config", ".ci/deny.toml", "check", "bans", "licenses", "sources"];
    let result = run(env!("CARGO"), &arguments);
    assert!(result.is_ok(), "{}", result.unwrap_err());
}
