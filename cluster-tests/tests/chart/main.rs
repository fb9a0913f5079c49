//! The chart, as Helm renders it: `helm/tests/run.py` with the schema of the configuration as the
//! binary prints it.
//!
//! It needs Python with the packages of `helm/tests/requirements.txt`: `ACKORD_TEST_PYTHON` names the
//! interpreter that has them. `ACKORD_WRITE_DOCS=1` puts the schema of the values together anew.

use std::path::Path;
use std::process::Command;

use cluster_tests::node;

#[test]
fn the_chart_renders_what_kubernetes_takes_and_refuses_what_would_lose_data() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let schema = tempfile::NamedTempFile::new().expect("a file");
    let binary = node::binary().expect("the binary is built");
    let printed = Command::new(binary).args(["config", "schema"]).output().expect("it runs");
    assert!(printed.status.success());
    std::fs::write(schema.path(), printed.stdout).expect("the schema is written");

    let python = std::env::var_os("ACKORD_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let run = |script: &str, more: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(root.join("helm/tests").join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg("--config-schema").arg(schema.path()).args(more);
        command.output().expect("ACKORD_TEST_PYTHON, or python3, is there")
    };
    if std::env::var_os("ACKORD_WRITE_DOCS").is_some() {
        assert!(run("schema.py", &["--write"]).status.success());
    }
    let tested = run("run.py", &[]);
    assert!(
        tested.status.success(),
        "{}{}\nneeds: pip install --ignore-requires-python -r helm/tests/requirements.txt",
        String::from_utf8_lossy(&tested.stdout),
        String::from_utf8_lossy(&tested.stderr)
    );
}
