//! The StatefulSet that the chart renders, played: `helm/tests/play.py` with the binary.
//!
//! A target of its own, so that nothing else runs beside it: it looks at every probe at every moment.
//! It needs root, for addresses and roots of pods, and Python with the packages of
//! `helm/tests/requirements.txt`: `ACKORD_TEST_PYTHON` names the interpreter that has them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use cluster_tests::node;
use serde_json::Value;

#[test]
fn given_load_when_pods_are_scaled_and_restarted_then_nothing_is_lost_and_every_probe_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let binary = node::binary().expect("the binary is built");
    let python = std::env::var_os("ACKORD_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let is_root = std::fs::metadata("/proc/self").expect("who runs this").uid() == 0;
    let mut command = if is_root {
        Command::new(&python)
    } else {
        let mut command = Command::new("sudo");
        command.arg("--non-interactive").arg(&python);
        command
    };
    command.arg(root.join("helm/tests/play.py")).arg("--json").arg("--binary").arg(binary);
    let played = command.env("PYTHONDONTWRITEBYTECODE", "1").output();
    let played =
        played.expect("ACKORD_TEST_PYTHON, or python3, is there; who is not root needs sudo");
    let why = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{why}");
    let told: Value = serde_json::from_slice(&played.stdout).expect("its figures");
    let steps = told["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 5, "{told}");
    let under_load = steps.iter().skip(1).all(|step| step["acknowledged"].as_u64() > Some(0));
    assert!(under_load, "in some step nothing was acknowledged: {told}");
}
