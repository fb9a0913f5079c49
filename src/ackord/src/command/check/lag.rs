//! `ackord check lag`: how far subscriptions are behind, in instances and in time.

use std::time::Duration;

use ackord_wire::resource::Subscription;
use serde_json::Value;

use super::report::{Bad, Measure, Report, whole};
use super::unanswered;
use crate::admin::{Admin, AdminError, segment};
use crate::args::CheckLag;
use crate::command::account::filters;
use crate::command::site::{admin, site_path};
use crate::exit::{Failure, Health};
use crate::moment::{now_ms, span};

/// Subscriptions that are asked for one by one at most, because a list counts not as far as a
/// threshold goes.
const COUNTED_MAX: usize = 100;

/// How far a subscription is behind.
struct Behind {
    site: String,
    client: String,
    event: String,
    /// At least so many.
    lag: u64,
    age: Duration,
}

/// Looks at the subscriptions that are asked for: one that is named and not there is not known to be well.
pub async fn look(arguments: &CheckLag) -> Result<Report, Failure> {
    let admin = admin(&arguments.connect)?;
    let mut report = Report::of("lag");
    let sites = match arguments.connect.site_maybe() {
        Some(site) => Ok(vec![site]),
        None => sites(&admin).await,
    };
    let found = match sites {
        Ok(sites) => all(&admin, &sites, arguments, &mut report).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(found) => judge(found, arguments, &mut report),
        Err(error) => {
            let (health, why) = unanswered(&error);
            report.find(health, why);
        }
    }
    Ok(report)
}

async fn sites(admin: &Admin) -> Result<Vec<String>, AdminError> {
    let sites = admin.list("/v1/sites").await?;
    let name = |site: &Value| {
        let unreadable = || AdminError::Unreadable("a site without a name is listed".to_owned());
        site["name"].as_str().map(str::to_owned).ok_or_else(unreadable)
    };
    sites.iter().map(name).collect()
}

async fn all(
    admin: &Admin,
    sites: &[String],
    arguments: &CheckLag,
    report: &mut Report,
) -> Result<Vec<Behind>, AdminError> {
    let narrowed =
        filters(&[("client", arguments.client.as_deref()), ("event", arguments.event.as_deref())]);
    let (now, mut found, mut counted) = (now_ms(), Vec::new(), 0);
    for site in sites {
        let path = site_path(site);
        let rows =
            admin.list_where(&format!("{path}/subscriptions"), &narrowed, usize::MAX).await?;
        for row in rows {
            let Some(mut row) = parse(row, site, report) else { continue };
            let short = row.lag_at_least.is_some_and(|least| least < arguments.crit);
            if short && counted < COUNTED_MAX {
                counted += 1;
                let (client, event) = (segment(&row.client), segment(&row.event));
                let one =
                    format!("{path}/clients/{client}/subscriptions/{event}?consistency=local");
                // One that has gone meanwhile is behind nothing.
                let Some(one) = admin.find(&one).await? else { continue };
                let Some(one) = parse(one, site, report) else { continue };
                row = one;
            }
            let age = row.oldest_unacknowledged_ms.map_or(0, |at| now.saturating_sub(at));
            found.push(Behind {
                site: site.clone(),
                client: row.client,
                event: row.event,
                lag: row.lag.or(row.lag_at_least).unwrap_or(0),
                age: Duration::from_millis(age),
            });
        }
    }
    Ok(found)
}

/// A subscription; about one that cannot be read nothing is known, which is told.
fn parse(row: Value, site: &str, report: &mut Report) -> Option<Subscription> {
    let of = |name: &str| row[name].as_str().unwrap_or("?").to_owned();
    let (client, event) = (of("client"), of("event"));
    match serde_json::from_value(row) {
        Ok(row) => Some(row),
        Err(error) => {
            let what = format!("{site}: {client} of {event} cannot be read: {error}");
            report.find(Health::Unknown, what);
            None
        }
    }
}

fn judge(mut found: Vec<Behind>, arguments: &CheckLag, report: &mut Report) {
    let named = [("--client", &arguments.client), ("--event", &arguments.event)];
    let named: Vec<String> = named
        .into_iter()
        .filter_map(|(option, name)| Some(format!("{option} {}", name.as_ref()?)))
        .collect();
    if found.is_empty() && report.health() == Health::Ok && !named.is_empty() {
        let what = format!("no subscription is found by {}", named.join(" "));
        report.find(Health::Unknown, what);
    }
    found.sort_by_key(|one| std::cmp::Reverse((one.lag, one.age)));
    let late = found.iter().filter(|one| one.lag > 0).count();
    for one in &found {
        let health = if one.lag == 0 {
            Health::Ok
        } else if one.lag >= arguments.crit || one.age >= arguments.crit_age {
            Health::Critical
        } else if one.lag >= arguments.warn || one.age >= arguments.warn_age {
            Health::Warning
        } else {
            Health::Ok
        };
        let Behind { site, client, event, lag, age } = one;
        let age = span(*age);
        report.find(health, format!("{site}: {client} is {lag} of {event} behind, for {age}"));
        let mut measure = |name, about, value, unit, warn: u64, crit: u64| {
            report.measure(Measure {
                name,
                about,
                labels: vec![
                    ("site", site.clone()),
                    ("client", client.clone()),
                    ("event", event.clone()),
                ],
                value,
                unit,
                warn: Some(whole(warn)),
                crit: Some(whole(crit)),
                bad: Bad::Above,
            });
        };
        let about = "Retained instances that the client has not acknowledged.";
        measure("lag_instances", about, whole(*lag), "", arguments.warn, arguments.crit);
        let (warn, crit) = (arguments.warn_age.as_secs(), arguments.crit_age.as_secs());
        let about = "Age of the oldest instance that the client has not acknowledged.";
        measure("oldest_unacknowledged_seconds", about, whole(one.age.as_secs()), "s", warn, crit);
    }
    report.summary = match found.first() {
        Some(worst) if late > 0 => format!(
            "{late} of {} subscriptions are behind, at most {} instances",
            found.len(),
            worst.lag
        ),
        Some(_) => format!("none of {} subscriptions is behind", found.len()),
        // With names, or with what cannot be read, this is told already.
        None if report.health() > Health::Ok => String::new(),
        None => "there are no subscriptions".to_owned(),
    };
}
