//! Rules about single files: head comment, length, words that have no place.

use crate::Finding;
use crate::tree::File;

/// Longest source file, lines.
pub const LINES_MAX: usize = 700;

/// Every source file says in line 1 what it is for.
pub fn head_comments(files: &[File]) -> Vec<Finding> {
    let headless = |file: &&File| is_rust(file) && !file.text.starts_with("//! ");
    let finding = |file: &File| format!("{}: line 1 is not a `//!` comment", file.path);
    files.iter().filter(headless).map(finding).collect()
}

/// No source file outgrows one head.
pub fn lengths(files: &[File]) -> Vec<Finding> {
    let finding = |file: &File| {
        let lines = file.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines, at most {LINES_MAX}", file.path))
    };
    files.iter().filter(|file| is_rust(file)).filter_map(finding).collect()
}

/// A phrase that may not appear, where, and why.
struct Banned {
    phrase: String,
    applies: fn(&str) -> bool,
    reason: &'static str,
}

fn banned() -> Vec<Banned> {
    let rust = |path: &str| path.ends_with(".rs") && !path.starts_with("src/tidy/");
    let tests = |path: &str| {
        path.ends_with(".rs") && (path.contains("/tests/") || path.ends_with("/tests.rs"))
    };
    let all = |path: &str| !path.starts_with("src/tidy/") && path != "Cargo.lock";
    let entry = |phrase: &str, applies: fn(&str) -> bool, reason: &'static str| Banned {
        phrase: phrase.to_owned(),
        applies,
        reason,
    };
    vec![
        entry("todo!(", rust, "unfinished work"),
        entry("unimplemented!(", rust, "unfinished work"),
        entry("FIXME", all, "unfinished work"),
        entry("#[ignore", rust, "a test that does not run proves nothing"),
        entry("do_send(", rust, "an actor's mailbox is bounded only for try_send"),
        entry("unbounded_channel", rust, "every queue is bounded"),
        entry("mpsc::unbounded", rust, "every queue is bounded"),
        entry("thread::sleep(", tests, "a test waits for a condition, not for time"),
        entry("time::sleep(", tests, "a test waits for a condition, not for time"),
        entry("/root/", all, "a path of one machine"),
    ]
}

/// No file holds a phrase that has no place in it.
pub fn phrases(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in banned() {
        for file in files.iter().filter(|file| (rule.applies)(&file.path)) {
            for (index, line) in file.text.lines().enumerate() {
                if line.contains(&rule.phrase) {
                    let (path, phrase, reason) = (&file.path, &rule.phrase, rule.reason);
                    findings.push(format!("{path}:{}: `{phrase}`: {reason}", index + 1));
                }
            }
        }
    }
    findings
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn each_rule_finds_what_breaks_it() {
        let long = "//! long\n".repeat(LINES_MAX + 1);
        let bad = [
            file("src/a/src/a.rs", "fn a() { todo!() }\n"),
            file("src/a/tests/b.rs", "//! b\nstd::thread::sleep(x);\n"),
            file("src/a/src/c.rs", &long),
        ];
        assert_eq!(head_comments(&bad).len(), 1);
        assert_eq!(lengths(&bad).len(), 1);
        assert_eq!(phrases(&bad).len(), 2);
    }
}
