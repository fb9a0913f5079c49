//! `ackord audit list`: the record of administrative acts and refused attempts, the oldest first.
//!
//! The broker tells the newest first; what is asked for is turned around. To follow, the newest page
//! is asked for again and again, and what was not there before is printed.

use std::time::Duration;

use serde_json::{Value, json};

use super::site::{admin, site_path};
use crate::admin::{Admin, Pages};
use crate::args::{AuditCommand, AuditList};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::interrupt::Interrupt;
use crate::moment::rfc3339;
use crate::output::{self, Format};

/// How often the record is looked at while it is followed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that may have come between two looks.
const FOLLOW_MAX: usize = 10_000;

/// Where an entry stands: its moment and its number. Numbers of the cluster's record count for each
/// partition on its own.
type Place = (u64, u64);

/// Runs the command.
pub async fn run(command: AuditCommand, format: Format) -> Outcome {
    let AuditCommand::List(arguments) = command;
    let mut interrupt = Interrupt::catch()?;
    let admin = admin(&arguments.connect)?;
    let path = if arguments.cluster {
        "/v1/audit".to_owned()
    } else {
        format!("{}/audit", site_path(&arguments.connect.site()?))
    };
    let look = async |upto: &dyn Fn(&Value) -> bool, most: usize| {
        newest(&admin, &path, &arguments, upto, most).await
    };
    let since = arguments.since.unwrap_or(0);
    let recent = |entry: &Value| place(entry).0 >= since;
    let first = tokio::select! {
        first = look(&recent, arguments.limit as usize) => first?,
        () = interrupt.wait() => return Ok(Exit::Interrupted),
    };
    print(format, &first, true)?;
    if !arguments.follow {
        return Ok(Exit::Done);
    }
    // Entries of one moment may come in any order: those of the newest are remembered.
    let mut told = first;
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = interrupt.wait() => return Ok(Exit::Interrupted),
        }
        let from = told.iter().map(|entry| place(entry).0).max().unwrap_or(since);
        let newer = |entry: &Value| place(entry).0 >= from;
        let fresh = tokio::select! {
            fresh = look(&newer, FOLLOW_MAX) => fresh,
            () = interrupt.wait() => return Ok(Exit::Interrupted),
        };
        let fresh = match fresh {
            Ok(fresh) => fresh,
            // It may come back; what was written meanwhile is in the record.
            Err(failure) if failure.exit == Exit::Unreachable => {
                say(&failure.message);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let fresh: Vec<Value> = fresh.into_iter().filter(|entry| !told.contains(entry)).collect();
        print(format, &fresh, false)?;
        told.extend(fresh);
        told.retain(|entry| place(entry).0 >= from);
    }
}

/// The newest entries as far as `wanted` goes, the oldest of them first.
async fn newest(
    admin: &Admin,
    path: &str,
    arguments: &AuditList,
    wanted: &dyn Fn(&Value) -> bool,
    most: usize,
) -> Result<Vec<Value>, Failure> {
    let filters = [
        ("who", arguments.who.as_deref()),
        ("act", arguments.act.as_deref()),
        ("result", arguments.result.as_deref()),
    ];
    let filters: Vec<(&str, &str)> =
        filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let mut pages = Pages::of(path, &filters, most);
    let mut found = Vec::new();
    while found.len() < most
        && let Some(page) = pages.next(admin).await?
    {
        let fits = page.items.iter().take_while(|entry| wanted(entry)).count();
        let last = fits < page.items.len();
        found.extend(page.items.into_iter().take(fits));
        if last {
            break;
        }
    }
    found.truncate(most);
    found.reverse();
    Ok(found)
}

fn place(entry: &Value) -> Place {
    (entry["at_ms"].as_u64().unwrap_or(0), entry["number"].as_u64().unwrap_or(0))
}

fn print(format: Format, entries: &[Value], header: bool) -> Result<(), Failure> {
    if format == Format::Json {
        return output::list(format, entries, &[]);
    }
    let rows: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "at": rfc3339(place(entry).0), "who": entry["who"], "address": entry["address"],
                "act": entry["act"], "target": entry["target"], "result": entry["result"],
                "count": entry["count"],
            })
        })
        .collect();
    let columns = ["at", "who", "address", "act", "target", "result", "count"];
    if header { output::list(format, &rows, &columns) } else { output::rows(&rows, &columns) }
}
