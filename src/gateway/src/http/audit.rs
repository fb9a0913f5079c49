//! The record of administrative acts and refused attempts, the newest first.

use ackord_machine::site::{AuditRow, Site};
use ackord_wire::Problem;
use ackord_wire::govern::AuditEntry;
use ackord_wire::resource::Page;

use super::answer::Answer;
use super::authority::Need;
use super::exchange::Exchange;
use super::query::{self, Consistency};

/// `GET /v1/sites/{site}/audit`; `next` is the number below which the next page begins.
pub async fn of_site(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "who", "act", "result", "consistency"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let window = allowed.query.window()?;
    let before = match &window.after {
        None => u64::MAX,
        Some(text) => text
            .parse()
            .map_err(|_| query::invalid("after", &format!("the `next` of a page, was {text:?}")))?,
    };
    let filter = Filter::of(&allowed.query);
    let look = |site: &Site, _| {
        let mut rows = site.audit_before(before).filter(|row| filter.takes(row));
        let items: Vec<_> = rows.by_ref().take(window.limit).map(entry).collect();
        let next = items.last().filter(|_| rows.next().is_some()).map(|it| it.number.to_string());
        Page { items, next }
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `GET /v1/audit`: what belongs to no site; `next` is time, partition and number, with dots.
pub async fn of_cluster(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    let known = &["limit", "after", "who", "act", "result", "consistency"];
    let allowed = exchange.authorize_node(known)?;
    let window = allowed.query.window()?;
    let before = match &window.after {
        None => (u64::MAX, u32::MAX, u64::MAX),
        Some(text) => place(text).ok_or_else(|| {
            query::invalid("after", &format!("the `next` of a page, was {text:?}"))
        })?,
    };
    if allowed.query.consistency()? == Consistency::Linearizable {
        allowed.confirm_all().await?;
    }
    let filter = Filter::of(&allowed.query);
    let mut found: Vec<((u64, u32, u64), AuditEntry)> = Vec::new();
    let mut last = u32::MAX;
    let mut taken = 0;
    allowed.context.broker.read_common_record(|partition, row| {
        if partition != last {
            (last, taken) = (partition, 0);
        }
        let place = (row.at.0, partition, row.number);
        if place < before && filter.takes(row) {
            found.push((place, entry(row)));
            taken += 1;
        }
        taken <= window.limit
    });
    found.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
    let more = found.len() > window.limit;
    found.truncate(window.limit);
    let next = found
        .last()
        .filter(|_| more)
        .map(|((at, partition, number), _)| format!("{at}.{partition}.{number}"));
    let items = found.into_iter().map(|(_, entry)| entry).collect();
    Ok(Answer::ok(&Page { items, next }))
}

fn place(text: &str) -> Option<(u64, u32, u64)> {
    let mut parts = text.split('.');
    let place =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(place)
}

/// Which entries are wanted.
struct Filter {
    who: Option<String>,
    act: Option<String>,
    result: Option<String>,
}

impl Filter {
    fn of(query: &query::Query) -> Self {
        let get = |name: &str| query.get(name).map(str::to_owned);
        Self { who: get("who"), act: get("act"), result: get("result") }
    }

    fn takes(&self, row: &AuditRow) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|it| it == text);
        is(&self.who, &row.note.by.who)
            && is(&self.act, &row.note.act)
            && is(&self.result, &row.note.result)
    }
}

fn entry(row: &AuditRow) -> AuditEntry {
    let note = &row.note;
    AuditEntry {
        number: row.number,
        at_ms: row.at.0,
        who: note.by.who.clone(),
        address: note.by.address.clone(),
        act: note.act.clone(),
        target: note.target.clone(),
        result: note.result.clone(),
        count: note.count,
    }
}
