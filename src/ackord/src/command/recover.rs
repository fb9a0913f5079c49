//! `ackord recover`: says what is wrong with the data of a stopped node, and what mending it loses.
//!
//! Nothing is changed without `--accept-loss`.

use ackord_replica::recover;
use ackord_store::{Damage, GroupReport, Mark, OpenError, RecoverMode, RecoveryReport};
use serde_json::{Value, json};

use crate::args::Recover;
use crate::data::DataDir;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};

/// Runs the command.
pub fn run(arguments: &Recover, format: Format) -> Outcome {
    let given = &arguments.data;
    if !given.is_dir() {
        return Err(Failure::configuration(format!("{} is no directory", given.display())));
    }
    // The directory of `dev` and `serve` holds the node's; the node's own may be given as well.
    let whole = given.join("node").is_dir();
    let _lock = if whole { Some(DataDir::open(given)?) } else { None };
    let dir = if whole { given.join("node") } else { given.clone() };
    let mode = if arguments.accept_loss { RecoverMode::AcceptLoss } else { RecoverMode::Inspect };
    let working = Progress::of("reading the log", None, Unit::Time);
    let report = recover(&dir, mode).map_err(|error| failure(&error));
    drop(working);
    let report = report?;
    match format {
        Format::Json => output::json(&to_json(&report)),
        Format::Text => text(&report).iter().try_for_each(|line| output::line(line)),
    }
    .map_err(|error| output::closed(&error))?;
    if let Some(why) = &report.hopeless {
        say(format!("this cannot be mended: {why}"));
        return Ok(Exit::Configuration);
    }
    if report.findings.is_empty() || report.changed {
        return Ok(Exit::Done);
    }
    say("nothing was changed; --accept-loss mends what can be mended and gives up what cannot");
    Ok(Exit::Configuration)
}

/// Entries that were durable once and cannot be kept.
fn lost(group: &GroupReport) -> u64 {
    let index = |mark: Option<Mark>| mark.map_or(0, |mark| mark.index);
    index(group.durable).saturating_sub(index(group.kept))
}

fn to_json(report: &RecoveryReport) -> Value {
    let mark = |mark: &Option<Mark>| {
        mark.as_ref().map(|mark| json!({"term": mark.term, "node": mark.node, "index": mark.index}))
    };
    let finding = |damage: &Damage| {
        json!({
            "place": damage.place,
            "finding": damage.finding,
            "group": damage.group.map(|group| group.0),
            "expected": mark(&damage.expected),
            "found": mark(&damage.found),
        })
    };
    let group = |group: &GroupReport| {
        json!({
            "group": group.group.0,
            "durable": mark(&group.durable),
            "kept": mark(&group.kept),
            "purged": mark(&group.purged),
            "entries_lost": lost(group),
        })
    };
    json!({
        "damaged": !report.findings.is_empty(),
        "changed": report.changed,
        "hopeless": report.hopeless,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "groups": report.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

fn text(report: &RecoveryReport) -> Vec<String> {
    if report.findings.is_empty() {
        return vec!["nothing is damaged".to_owned()];
    }
    let mut lines: Vec<String> = report.findings.iter().map(Damage::to_string).collect();
    for group in report.groups.iter().filter(|group| lost(group) > 0) {
        let verb = if report.changed { "were given up" } else { "would be given up" };
        lines.push(format!("group {}: {} log entries {verb}", group.group, lost(group)));
    }
    if report.changed {
        lines.push(
            "the directory was mended; the node will start on it. Instance ids may come again, so \
             every site gets a new incarnation: clients start over from the cursors kept here"
                .to_owned(),
        );
    }
    lines
}

fn failure(error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::Locked(_) => Exit::Refused,
        OpenError::Damaged { .. }
        | OpenError::Version { .. }
        | OpenError::Foreign { .. }
        | OpenError::Options(_) => Exit::Configuration,
        OpenError::Io { .. } => Exit::Disk,
    };
    Failure::new(exit, error.to_string())
}
