//! `ackord site apply`: makes a site what one declarative file says.
//!
//! The difference between the file and the site is computed first, as data; then it is printed or
//! carried out, in an order in which each step finds what it needs: settings, structure, users,
//! clients, services. Applying the same file twice changes nothing the second time.

use std::collections::BTreeMap;

use ackord_wire::resource::{Client, Service, SiteBody, SiteSettings, SiteStructure, User};
use ackord_wire::structure::{Access, Structure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::site::{admin, read, site_path, value, with_rebuild};
use crate::admin::{Admin, segment};
use crate::args::Apply;
use crate::exit::{Exit, Failure, say};
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};

/// The file. What it does not mention is left alone; services, clients and users that it does not
/// name are deleted only with `--prune`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    site: Option<String>,
    settings: Option<SiteBody>,
    structure: Option<Structure>,
    #[serde(default)]
    services: BTreeMap<String, Nothing>,
    #[serde(default)]
    clients: BTreeMap<String, ClientEntry>,
    #[serde(default)]
    users: BTreeMap<String, UserEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientEntry {
    user: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    #[serde(default)]
    roles: Vec<String>,
}

/// What happens to one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Create,
    Update,
    Delete,
}

/// One step from what is there to what the file says.
#[derive(Debug, Serialize)]
struct Change {
    action: Action,
    kind: &'static str,
    id: String,
    applied: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Difference>,
    #[serde(skip)]
    path: String,
    #[serde(skip)]
    body: Value,
}

/// A field before and after.
#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    path: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    before: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    after: Value,
}

/// Runs the command.
pub async fn run(arguments: Apply, format: Format) -> Result<(), Failure> {
    let declaration: Declaration = read(&arguments.file)?;
    let site = match (&declaration.site, &arguments.connect.site) {
        (Some(site), _) => site.clone(),
        (None, _) => arguments.connect.site()?,
    };
    let admin = admin(&arguments.connect)?;
    let plan = plan(&admin, &site, &declaration, &arguments).await?;
    check(&admin, &declaration, &plan, &arguments).await?;
    let mut changes = plan.changes;
    let carry_out = !arguments.dry_run && !arguments.diff;
    let steps = Some(changes.len() as u64);
    let applying = Progress::beside_lines("applying", steps, Unit::Of("changes"));
    for change in &mut changes {
        if carry_out {
            match change.action {
                Action::Create | Action::Update => admin.put(&change.path, &change.body).await?,
                Action::Delete => admin.delete(&change.path).await?,
            };
            change.applied = true;
        }
        if !arguments.diff {
            change.changes.clear();
        }
        print(change, format)?;
        if let Some(applying) = &applying {
            applying.add(1);
        }
    }
    drop(applying);
    if changes.is_empty() && format == Format::Text {
        say(format_args!("site {site} is as {} says", arguments.file.display()));
    }
    Ok(())
}

/// Finds what would be refused before anything is changed.
async fn check(
    admin: &Admin,
    declaration: &Declaration,
    plan: &Plan,
    arguments: &Apply,
) -> Result<(), Failure> {
    let users_left = |user: &String| {
        declaration.users.contains_key(user)
            || (!arguments.prune && plan.users.iter().any(|known| known == user))
    };
    for (id, client) in &declaration.clients {
        if let Some(user) = client.user.as_ref().filter(|user| !users_left(user)) {
            let why = format!("clients.{id}.user: no such user: {user:?}");
            return Err(Failure::new(Exit::Refused, why)
                .hint("the file must declare the user, or the site must have it"));
        }
    }
    for change in plan.changes.iter().filter(|change| change.kind == "structure") {
        let mark = if change.path.contains('?') { '&' } else { '?' };
        admin.put(&format!("{}{mark}dry_run=true", change.path), &change.body).await?;
    }
    Ok(())
}

fn print(change: &Change, format: Format) -> Result<(), Failure> {
    let mut lines = match format {
        Format::Json => vec![value(change)?.to_string()],
        Format::Text => {
            let sign = match change.action {
                Action::Create => '+',
                Action::Update => '~',
                Action::Delete => '-',
            };
            vec![format!("{sign} {} {}", change.kind, change.id)]
        }
    };
    if format == Format::Text {
        let show = |value: &Value| if value.is_null() { "-".into() } else { value.to_string() };
        lines.extend(change.changes.iter().map(|difference| {
            let Difference { path, before, after } = difference;
            format!("    {path}: {} -> {}", show(before), show(after))
        }));
    }
    let write = match format {
        Format::Json => output::raw,
        Format::Text => output::line,
    };
    lines.iter().try_for_each(|line| write(line)).map_err(|error| output::closed(&error))
}

/// What is to be done, and what it was found from.
struct Plan {
    /// Everything that has to change, in the order of doing.
    changes: Vec<Change>,
    /// The users that the site has now.
    users: Vec<String>,
}

async fn plan(
    admin: &Admin,
    site: &str,
    declaration: &Declaration,
    arguments: &Apply,
) -> Result<Plan, Failure> {
    let path = site_path(site);
    let current = admin.find(&path).await?;
    let exists = current.is_some();
    let mut changes = Vec::new();
    let settings_now = current.and_then(|mut site| site.get_mut("settings").map(Value::take));
    let settings = declaration.settings.clone().unwrap_or_default();
    let base = match &settings_now {
        Some(now) => parse::<SiteSettings>(now.clone())?,
        None => SiteSettings::default(),
    };
    changes.extend(change(
        "settings",
        site,
        path.clone(),
        settings_now.as_ref(),
        &value(&settings.apply_to(&base))?,
        value(&settings)?,
    ));
    if let Some(structure) = &declaration.structure {
        let structure_path = format!("{path}/structure");
        let now = if exists { admin.find(&structure_path).await? } else { None };
        let now = now.map(parse::<SiteStructure>).transpose()?;
        let before = now.map(|now| comparable(&now.structure)).transpose()?;
        changes.extend(change(
            "structure",
            site,
            with_rebuild(structure_path, arguments.rebuild),
            before.as_ref(),
            &comparable(structure)?,
            value(structure)?,
        ));
    }
    let list = async |kind: &str| -> Result<Vec<Value>, Failure> {
        Ok(if exists { admin.list(&format!("{path}/{kind}")).await? } else { Vec::new() })
    };
    let users: Vec<User> = parse_all(list("users").await?)?;
    let clients: Vec<Client> = parse_all(list("clients").await?)?;
    let services: Vec<Service> = parse_all(list("services").await?)?;
    let known_users = users.iter().map(|user| user.id.clone()).collect();
    let users_now = users.into_iter().map(|user| (user.id, json!({"roles": sorted(user.roles)})));
    let clients_now = clients.into_iter().map(|client| (client.id, json!({"user": client.user})));
    let services_now = services.into_iter().map(|service| (service.id, json!({})));
    let users = declaration.users.iter();
    let users = users.map(|(id, user)| (id, json!({"roles": sorted(user.roles.clone())})));
    let clients = declaration.clients.iter();
    let clients = clients.map(|(id, client)| (id, json!({"user": client.user})));
    let services = declaration.services.keys().map(|id| (id, json!({})));
    let mut deletions = Vec::new();
    let mut accounts = |kind, now: BTreeMap<String, Value>, wanted: BTreeMap<&String, Value>| {
        let at = |id: &str| format!("{path}/{kind}s/{}", segment(id));
        for (id, wanted) in &wanted {
            changes.extend(change(kind, id, at(id), now.get(*id), wanted, wanted.clone()));
        }
        for id in now.keys().filter(|id| arguments.prune && !wanted.contains_key(id)) {
            deletions.push(Change {
                action: Action::Delete,
                kind,
                id: id.clone(),
                applied: false,
                changes: Vec::new(),
                path: at(id),
                body: Value::Null,
            });
        }
    };
    accounts("user", users_now.collect(), users.collect());
    accounts("client", clients_now.collect(), clients.collect());
    accounts("service", services_now.collect(), services.collect());
    // A single-service site takes a new service only once the old one is gone.
    let at = changes.iter().position(|change| change.kind == "service").unwrap_or(changes.len());
    let first = deletions.extract_if(.., |change| change.kind == "service").collect::<Vec<_>>();
    changes.splice(at..at, first);
    changes.extend(deletions);
    Ok(Plan { changes, users: known_users })
}

fn change(
    kind: &'static str,
    id: &str,
    path: String,
    before: Option<&Value>,
    after: &Value,
    body: Value,
) -> Option<Change> {
    let mut changes = Vec::new();
    differences("", before.unwrap_or(&Value::Null), after, &mut changes);
    let action = if before.is_some() { Action::Update } else { Action::Create };
    (before.is_none() || !changes.is_empty()).then(|| Change {
        action,
        kind,
        id: id.to_owned(),
        applied: false,
        changes,
        path,
        body,
    })
}

fn differences(path: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    let empty = Map::new();
    let (old, new) = match (before, after) {
        (Value::Object(old), Value::Object(new)) => (old, new),
        (Value::Null, Value::Object(new)) if !new.is_empty() => (&empty, new),
        (Value::Object(old), Value::Null) if !old.is_empty() => (old, &empty),
        (before, after) if before == after => return,
        (before, after) => {
            let (before, after) = (before.clone(), after.clone());
            found.push(Difference { path: path.to_owned(), before, after });
            return;
        }
    };
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let of = |side: &Map<String, Value>| side.get(name).cloned().unwrap_or(Value::Null);
        differences(&below, &of(old), &of(new), found);
    }
}

/// A structure as a value in which the order of roles and events does not count, and events are
/// found by name.
fn comparable(structure: &Structure) -> Result<Value, Failure> {
    let mut events = Map::new();
    for event in &structure.events {
        let mut event = event.clone();
        event.access = event.access.filter(|access| *access != Access::Everyone);
        if let Some(Access::Roles(roles)) = &mut event.access {
            roles.sort();
        }
        let mut fields = value(&event)?;
        if let Some(fields) = fields.as_object_mut() {
            fields.remove("name");
        }
        events.insert(event.name, fields);
    }
    let mut whole = value(structure)?;
    whole["events"] = Value::Object(events);
    whole["roles"] = json!(sorted(structure.roles.clone()));
    Ok(whole)
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(Exit::Unreachable, format!("the broker's answer is not understood: {error}"))
    })
}

fn parse_all<T: serde::de::DeserializeOwned>(values: Vec<Value>) -> Result<Vec<T>, Failure> {
    values.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(size: u32, roles: &[&str]) -> Structure {
        serde_json::from_value(json!({
            "service_type": "t", "contract_author": "a", "roles": roles,
            "events": [{"name": "q", "category": "queueing", "lifetime_s": 60, "size": size}],
        }))
        .unwrap()
    }

    #[test]
    fn only_what_differs_is_named_and_order_does_not_count() {
        let check = |from: &Structure, to: &Structure, expected: &[&str]| {
            let mut found = Vec::new();
            differences("", &comparable(from).unwrap(), &comparable(to).unwrap(), &mut found);
            let paths: Vec<&str> =
                found.iter().map(|difference| difference.path.as_str()).collect();
            assert_eq!(paths, expected);
        };
        check(&structure(5, &["A", "B"]), &structure(5, &["B", "A"]), &[]);
        check(&structure(5, &[]), &structure(6, &[]), &["events.q.size"]);
    }

    #[test]
    fn the_file_takes_tables_and_refuses_unknown_keys() {
        let text = "site = 's'\n[services.a]\n[clients.c]\nuser = 'u'\n[users.u]\nroles = ['R']\n";
        let declaration: Declaration = toml::from_str(text).unwrap();
        assert_eq!(declaration.clients["c"].user.as_deref(), Some("u"));
        assert!(toml::from_str::<Declaration>("sites = 's'").is_err());
        assert!(toml::from_str::<Declaration>("[clients.c]\nrole = 'u'").is_err());
    }
}
