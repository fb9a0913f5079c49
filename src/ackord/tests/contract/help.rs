//! Help for people and programs, usage errors, completion; and that `docs/cli.md` keeps up.

use serde_json::Value;

use crate::support::run;

fn commands(description: &Value, found: &mut Vec<Value>) {
    found.push(description.clone());
    for below in description["commands"].as_array().unwrap() {
        commands(below, found);
    }
}

fn all() -> Vec<Value> {
    let root = run(&["--help", "--json"]).expect(0).lines().remove(0);
    let mut found = Vec::new();
    commands(&root, &mut found);
    found
}

#[test]
fn every_command_describes_itself_in_text_and_in_json() {
    let all = all();
    assert!(all.len() > 30, "{}", all.len());
    for description in &all {
        let name = description["command"].as_str().unwrap();
        let words: Vec<&str> = name.split(' ').skip(1).collect();
        assert!(description["about"].is_string(), "{name}");
        let of = |more: &[&str]| {
            let words: Vec<&str> = words.iter().chain(more).copied().collect();
            run(&words).expect(0)
        };
        assert_eq!(of(&["--help", "--json"]).lines(), std::slice::from_ref(description), "{name}");
        let text = of(&["--help"]).out;
        assert!(text.contains("Usage: ackord"), "{name}: {text}");
        for argument in description["arguments"].as_array().unwrap() {
            assert!(argument["help"].is_string(), "{name}: {argument}");
        }
    }
    run(&["--version"]).expect(0);
}

#[test]
fn every_command_and_option_is_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let text = std::fs::read_to_string(path).unwrap();
    for description in all() {
        let name = description["command"].as_str().unwrap();
        let last = name.rsplit(' ').next().unwrap();
        assert!(text.contains(last), "docs/cli.md does not name {name}");
        for argument in description["arguments"].as_array().unwrap() {
            if let Some(long) =
                argument["long"].as_str().filter(|long| !["help", "version"].contains(long))
            {
                assert!(
                    text.contains(&format!("--{long}")),
                    "docs/cli.md lacks --{long} of {name}"
                );
            }
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_leaves_standard_output_alone() {
    let check = |words: &[&str]| {
        let ended = run(words).expect(2);
        assert_eq!(ended.out, "", "{words:?}");
        assert!(!ended.err.is_empty(), "{words:?}");
    };
    check(&[]);
    check(&["no-such-command"]);
    check(&["raise"]);
    check(&["raise", "reading", "--no-such-option"]);
    check(&["raise", "reading", "--args", "1", "--site", "s", "--token", "t", "--url", "nowhere"]);
    check(&["subscribe", "--json"]);
    check(&["subscribe", "reading", "--timeout", "10 parsecs"]);
    check(&["site", "apply"]);
    check(&["dev", "--listen", "somewhere"]);
    check(&["serve", "--check", "--example"]);
}

#[test]
fn everything_that_is_asked_for_in_json_is_json() {
    for words in [
        &["completion", "bash", "--json"][..],
        &["--version", "--json"],
        &["--json", "help", "raise"],
        &["serve", "--example", "--json"],
    ] {
        assert_eq!(run(words).expect(0).lines().len(), 1, "{words:?}");
    }
}

#[test]
fn completion_is_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completion", shell]).expect(0).out.contains("ackord"), "{shell}");
    }
}
