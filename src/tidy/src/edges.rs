//! The architecture as dependency edges: which crate may depend directly on which.
//!
//! The list is an allow-list for our own crates and a deny-list for the libraries that one crate
//! owns. A new edge is a decision: it changes this file and `docs/architecture.md` together.

use serde_json::Value;

use crate::Finding;

/// Our crates and the ones of ours that each may use, tests included.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ackord-machine", &[]),
    ("ackord-wire", &[]),
    ("ackord-store", &[]),
    ("ackord-tls", &[]),
    ("ackord-tidy", &[]),
    ("disk-shim", &[]),
    ("ackord-replica", &["ackord-machine", "ackord-store", "ackord-tls"]),
    ("ackord-agents", &["ackord-machine", "ackord-replica", "ackord-wire"]),
    (
        "ackord-gateway",
        &["ackord-agents", "ackord-machine", "ackord-replica", "ackord-tls", "ackord-wire"],
    ),
    ("ackord-endpoint", &["ackord-wire"]),
    ("ackord-bench", &["ackord-agents", "ackord-endpoint", "ackord-wire"]),
    ("ackord-micro", &["ackord-machine", "ackord-store", "ackord-wire"]),
    (
        "ackord",
        &[
            "ackord-agents",
            "ackord-bench",
            "ackord-endpoint",
            "ackord-gateway",
            "ackord-machine",
            "ackord-replica",
            "ackord-store",
            "ackord-tls",
            "ackord-wire",
        ],
    ),
    (
        "ackord-fuzz",
        &[
            "ackord-endpoint",
            "ackord-gateway",
            "ackord-machine",
            "ackord-replica",
            "ackord-store",
            "ackord-wire",
        ],
    ),
    (
        "cluster-tests",
        &[
            "ackord-agents",
            "ackord-endpoint",
            "ackord-machine",
            "ackord-replica",
            "ackord-store",
            "ackord-wire",
        ],
    ),
];

/// A library and the only crates of ours that may use it directly.
const OWNED: &[(&str, &[&str])] = &[
    ("openraft", &["ackord-replica"]),
    ("tonic", &["ackord-replica"]),
    ("raft-engine", &["ackord-store"]),
    ("sled", &["ackord-store"]),
    ("actix", &["ackord-agents", "ackord-gateway"]),
    ("actix-rt", &["ackord-agents", "ackord-gateway", "ackord", "ackord-bench"]),
    ("actix-web", &["ackord-gateway"]),
    ("tokio-rustls", &["ackord-tls"]),
    // Metrics are made from one table.
    ("prometheus", &["ackord-agents"]),
    // What is exported of events is made where they are raised and delivered.
    ("opentelemetry", &["ackord-agents"]),
    ("opentelemetry_sdk", &["ackord-agents"]),
    ("opentelemetry-otlp", &["ackord-agents"]),
    ("clap", &["ackord", "cluster-tests"]),
    ("indicatif", &["ackord"]),
    ("tracing-subscriber", &["ackord"]),
    ("hdrhistogram", &["ackord-bench"]),
    // What simulates time and network is for tests; nodes take what they are given.
    ("turmoil", &[]),
];

/// Libraries that the pure machine must never see.
const IMPURE: &[&str] =
    &["tokio", "actix", "sled", "openraft", "rand", "getrandom", "futures-util"];

/// The edges of `cargo metadata --no-deps` that the architecture does not have.
pub fn forbidden(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(ours, _)| *ours == name) else {
            findings.push(format!("{name}: not named in src/tidy/src/edges.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let dev = dependency["kind"].as_str() == Some("dev");
            if let Some(reason) = reason_against(name, allowed, on, dev) {
                findings.push(format!("{name} → {on}: {reason}"));
            }
        }
    }
    findings
}

fn reason_against(name: &str, allowed: &[&str], on: &str, dev: bool) -> Option<&'static str> {
    let ours = ALLOWED.iter().any(|(crate_name, _)| *crate_name == on);
    if ours && !allowed.contains(&on) && !(dev && name != "ackord-machine" && name != "ackord-wire")
    {
        return Some("the architecture has no such edge");
    }
    let owners = OWNED.iter().find(|(library, _)| *library == on).map(|(_, owners)| *owners);
    if !dev && owners.is_some_and(|owners| !owners.contains(&name)) {
        return Some("another crate owns this library");
    }
    if name == "ackord-machine" && !dev && IMPURE.contains(&on) {
        return Some("the machine is pure");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_sees_sled_is_found() {
        let metadata = serde_json::json!({"packages": [
            {"name": "ackord-machine", "dependencies": [{"name": "sled", "kind": null}]},
            {"name": "ackord-agents", "dependencies": [{"name": "ackord-gateway", "kind": null}]},
        ]});
        assert_eq!(forbidden(&metadata).len(), 2);
    }
}
