//! What the tests run and do not link: built by cargo, once per test process, in the profile of
//! the running test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Builds a target of the workspace (`--bin ackord`); gives the folder that it is in.
pub(crate) fn build(artifact: &[&str]) -> anyhow::Result<PathBuf> {
    // A test runs as <target>/<profile>/deps/<name>-<hash>, a program as <target>/<profile>/<name>.
    let own = std::env::current_exe()?;
    let folder = own.parent().context("no target directory")?;
    let is_test = folder.ends_with("deps");
    let profile_dir = if is_test { folder.parent() } else { Some(folder) };
    let profile_dir = profile_dir.context("no target directory")?;
    let target_dir = profile_dir.parent().context("no target directory")?;
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        // The whole workspace with a test in it: only then are the features of what both builds
        // share the same as in `cargo test --workspace`, and nothing is compiled twice.
        .args(["build", "--quiet", "--offline", "--workspace", "--profile", profile])
        .args(if is_test { &["--test", "contract"][..] } else { &[] })
        .args(artifact)
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stdin(Stdio::null());
    // What the outer cargo says about the test's own package would make build scripts that look
    // at it run again, and everything that depends on them be built again, here and outside.
    for (name, _) in std::env::vars_os() {
        let about = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
        if about.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let output = command.output()?;
    if !output.status.success() {
        bail!("cargo build {artifact:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(profile_dir.to_owned())
}
