//! Documents cannot rot unseen: the paths and links they name must exist.

use crate::Finding;
use crate::tree::{self, File};

/// Roots of the paths that documents name in backticks.
const ROOTS: &[&str] = &["src/", "docs/", "cluster-tests/", "helm/", "grafana/", ".ci/"];

/// Paths in backticks and relative links of every Markdown file that lead nowhere.
pub fn dead_paths(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for path in quoted_paths(&file.text) {
            if !tree::root().join(&path).exists() {
                findings.push(format!("{}: `{path}` does not exist", file.path));
            }
        }
        let folder = tree::root().join(&file.path).parent().map(std::path::Path::to_path_buf);
        for link in links(&file.text) {
            if folder.as_ref().is_some_and(|folder| !folder.join(&link).exists()) {
                findings.push(format!("{}: link to {link} leads nowhere", file.path));
            }
        }
    }
    findings
}

fn quoted_paths(text: &str) -> Vec<String> {
    let outside_fences = text.split("```").step_by(2);
    outside_fences
        .flat_map(|part| part.split('`').skip(1).step_by(2))
        .filter(|quoted| ROOTS.iter().any(|root| quoted.starts_with(root)))
        .filter(|quoted| quoted.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)))
        .map(str::to_owned)
        .collect()
}

fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| {
            !link.contains("://") && !link.starts_with('#') && !link.starts_with("mailto:")
        })
        .filter_map(|link| link.split('#').next())
        .filter(|link| !link.is_empty() && !link.contains(char::is_whitespace))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_gone_is_found() {
        let text = "see `src/gone/away.rs` and [here](nowhere.md), not `cargo test`".to_owned();
        let files = [File { path: "README.md".to_owned(), text }];
        assert_eq!(dead_paths(&files).len(), 2);
    }
}
