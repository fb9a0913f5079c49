//! Queues and the instances that they retain.

use ackord_agents::translate;
use ackord_machine::site::{self as machine, InstanceId, Site};
use ackord_wire::resource::{self, Page};
use ackord_wire::{Problem, TraceContext};

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Exchange, not_found};
use super::list::Wanted;
use super::query::{self, Window};
use crate::convert;

/// Bytes of arguments after which a page ends early.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// `GET /v1/sites/{site}/queues`, by the name of the event.
pub async fn list(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "prefix"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let wanted = Wanted::of(&allowed.query)?;
    let look = |site: &Site, _| {
        let wants = |row: &&machine::EventRow| {
            let name = row.definition.name.as_str();
            name > wanted.window.after() && wanted.begins(name)
        };
        let mut events: Vec<&machine::EventRow> = site.events().filter(wants).collect();
        events.sort_unstable_by(|a, b| a.definition.name.cmp(&b.definition.name));
        let rows = events.into_iter();
        wanted.page(rows, |row| row.definition.name.as_str(), |_| true, |row| queue_out(site, row))
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `GET /v1/sites/{site}/queues/{event}`, by instance id.
pub async fn one(exchange: Exchange<'_>, site: &str, event: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Read, &["limit", "after", "consistency"]).await?;
    let window = allowed.query.window()?;
    let after = match &window.after {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| query::invalid("after", &format!("an instance id, was {text:?}")))?,
    };
    let look = |site: &Site, _| {
        let row = site.event_named(event)?;
        Some(instances(site, row, &window, InstanceId(after)))
    };
    let found = allowed.look(site, look).await?;
    found.map(|page| Answer::ok(&page)).ok_or_else(|| not_found("event", event))
}

fn instances(
    site: &Site,
    event: &machine::EventRow,
    window: &Window,
    after: InstanceId,
) -> Page<resource::Instance> {
    let mut items = Vec::new();
    let mut bytes = 0;
    for instance in site.retained_after(event.key, after) {
        if items.len() == window.limit || bytes > PAGE_BYTES_MAX {
            let next = items.last().map(|last: &resource::Instance| last.instance_id.to_string());
            return Page { items, next };
        }
        bytes += instance.arguments.as_ref().map_or(0, |arguments| arguments.data.len());
        items.push(instance_out(instance));
    }
    Page { items, next: None }
}

fn queue_out(site: &Site, event: &machine::EventRow) -> resource::Queue {
    resource::Queue {
        event: event.definition.name.to_string(),
        subscription: event.key.0,
        category: translate::category_to_wire(event.definition.kind.category()),
        retained: site.retained_len(event.key) as u64,
        first_instance_id: site.retained(event.key).next().map(|instance| instance.id.0),
        last_instance_id: site.retained(event.key).last().map(|instance| instance.id.0),
    }
}

fn instance_out(instance: &machine::Instance) -> resource::Instance {
    let (content_type, args, data) = convert::arguments_out(instance.arguments.as_ref());
    let trace = instance.trace.as_deref().and_then(translate::trace_to_wire);
    resource::Instance {
        instance_id: instance.id.0,
        service: instance.service.to_string(),
        client: instance.client.as_ref().map(ToString::to_string),
        created_ms: instance.created.0,
        expires_ms: instance.expires.map(|stamp| stamp.0),
        null: instance.arguments.is_none(),
        content_type,
        args,
        data,
        original_id: instance.original.map(|id| id.0),
        traceparent: trace.as_ref().map(TraceContext::traceparent),
        tracestate: trace.map(|trace| trace.state).filter(|state| !state.is_empty()),
    }
}
