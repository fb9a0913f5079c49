//! The description of a command as JSON: `ackord [COMMAND…] --help --json`.
//!
//! Taken from the same definitions as the text help, so the two cannot differ.

use clap::{Arg, ArgAction, Command};
use serde_json::{Value, json};

/// The description asked for, when the arguments ask for one: both `--help` (or `-h`, or the
/// command `help`) and `--json` before any `--`.
pub fn requested(root: &Command, arguments: &[String]) -> Option<Value> {
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).take_while(|argument| *argument != "--").collect();
    let has = |names: &[&str]| arguments.iter().any(|argument| names.contains(argument));
    let first = arguments.iter().find(|argument| !argument.starts_with('-'));
    if !has(&["--json"]) {
        return None;
    }
    if first.is_none() && has(&["--version", "-V"]) {
        return Some(json!({"name": root.get_name(), "version": root.get_version()}));
    }
    if !(has(&["--help", "-h"]) || first == Some(&"help")) {
        return None;
    }
    let mut root = root.clone();
    root.build();
    let mut command = &root;
    let mut path = vec![root.get_name().to_owned()];
    for argument in arguments.iter().filter(|argument| **argument != "help") {
        if let Some(next) = command.find_subcommand(argument) {
            path.push(next.get_name().to_owned());
            command = next;
        }
    }
    Some(describe(command, &path))
}

fn describe(command: &Command, path: &[String]) -> Value {
    let named = |next: &&Command| next.get_name() != "help";
    let below = |next: &Command| {
        let mut path = path.to_vec();
        path.push(next.get_name().to_owned());
        describe(next, &path)
    };
    json!({
        "command": path.join(" "),
        "about": command.get_about().map(ToString::to_string),
        "usage": command.clone().render_usage().to_string().trim_start_matches("Usage: "),
        "arguments": command.get_arguments().filter(|a| !a.is_hide_set()).map(argument).collect::<Vec<_>>(),
        "commands": command.get_subcommands().filter(named).map(below).collect::<Vec<_>>(),
    })
}

fn argument(argument: &Arg) -> Value {
    let takes_value = argument.get_action().takes_values();
    let values = argument.get_possible_values();
    let repeated = matches!(argument.get_action(), ArgAction::Append)
        || argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
    json!({
        "name": argument.get_id().as_str(),
        "long": argument.get_long(),
        "short": argument.get_short(),
        "value": takes_value.then(|| argument.get_value_names()
            .and_then(|names| names.first()).map(ToString::to_string)).flatten(),
        "positional": argument.is_positional(),
        "required": argument.is_required_set(),
        "repeated": repeated,
        "default": argument.get_default_values().first().filter(|_| takes_value).map(|v| text(v)),
        "env": argument.get_env().map(text),
        "values": values.iter().map(|value| value.get_name()).collect::<Vec<_>>(),
        "help": argument.get_help().map(ToString::to_string),
    })
}
