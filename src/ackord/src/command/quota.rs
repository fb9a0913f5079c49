//! `ackord quota show|set|clear`: what a site may use.
//!
//! A change is made at the revision that was read, so that of two at once none is lost.

use ackord_wire::govern::{Quotas, SiteQuotas};
use serde_json::{Map, Value, json};

use super::site::{admin, site_path, value};
use crate::admin::Admin;
use crate::args::{Connect, QuotaCommand};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};

/// Runs the command.
pub async fn run(command: QuotaCommand, format: Format) -> Outcome {
    match command {
        QuotaCommand::Show { connect } => {
            let (admin, path) = at(&connect)?;
            print(format, &admin.get(&path).await?)?;
        }
        QuotaCommand::Set { quotas, connect } => {
            let given = quotas.iter().map(|text| pair(text)).collect::<Result<Vec<_>, _>>()?;
            change(&connect, format, |quotas| {
                for (name, most) in &given {
                    quotas.insert(name.clone(), json!(most));
                }
            })
            .await?;
        }
        QuotaCommand::Clear { quotas, connect } => {
            quotas.iter().try_for_each(|name| known(name))?;
            change(&connect, format, |held| {
                held.retain(|name, _| !quotas.is_empty() && !quotas.contains(name));
            })
            .await?;
        }
    }
    Ok(Exit::Done)
}

fn at(connect: &Connect) -> Result<(Admin, String), Failure> {
    Ok((admin(connect)?, format!("{}/quotas", site_path(&connect.site()?))))
}

async fn change(
    connect: &Connect,
    format: Format,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), Failure> {
    let (admin, path) = at(connect)?;
    let (held, revision) = admin.get_tagged(&path).await?;
    let mut quotas = match held.get("quotas") {
        Some(Value::Object(quotas)) => quotas.clone(),
        Some(_) | None => Map::new(),
    };
    change(&mut quotas);
    let set = admin.put_at(&path, &Value::Object(quotas), revision.as_deref()).await?;
    print(format, &set)
}

/// The names of all quotas, as the resource has them.
fn names() -> Vec<String> {
    let one = || Some(1);
    let all = Quotas {
        connections: one(),
        principal_connections: one(),
        events_per_s: one(),
        bytes_per_s: one(),
        service_events_per_s: one(),
        service_bytes_per_s: one(),
        requests_per_s: one(),
        principal_requests_per_s: one(),
        services: one(),
        clients: one(),
        subscriptions: one(),
        client_subscriptions: one(),
        queue_bytes: one(),
    };
    match value(&all) {
        Ok(Value::Object(quotas)) => quotas.keys().cloned().collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn known(name: &str) -> Result<(), Failure> {
    let names = names();
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(Failure::usage(format!("`{name}` is no quota"))
        .hint(format!("there are {}", names.join(", "))))
}

fn pair(text: &str) -> Result<(String, u64), Failure> {
    let (name, most) = text.split_once('=').ok_or_else(|| {
        Failure::usage(format!("`{text}` is no quota")).hint("write it like events_per_s=500")
    })?;
    known(name)?;
    let most = most.parse().map_err(|_| {
        Failure::usage(format!("{name}: a whole number, was `{most}`"))
            .hint(format!("`ackord quota clear {name}` lifts it"))
    })?;
    Ok((name.to_owned(), most))
}

fn print(format: Format, answer: &Value) -> Result<(), Failure> {
    if format == Format::Json {
        return output::object(format, answer);
    }
    let site: SiteQuotas = serde_json::from_value(answer.clone())
        .map_err(|error| Failure::new(Exit::Unreachable, format!("no quotas: {error}")))?;
    let (held, used) = (value(&site.quotas)?, value(&site.used)?);
    let rows: Vec<Value> = names()
        .iter()
        .map(|name| json!({"quota": name, "most": held.get(name), "used": used.get(name)}))
        .collect();
    output::list(format, &rows, &["quota", "most", "used"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_pairs_of_a_known_name_and_a_number() {
        assert_eq!(pair("clients=5").unwrap(), ("clients".to_owned(), 5));
        for wrong in ["clients", "client=5", "clients=many", "clients=-1"] {
            assert!(pair(wrong).is_err(), "{wrong}");
        }
        assert_eq!(names().len(), 13);
    }
}
