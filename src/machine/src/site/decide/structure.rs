//! Applying a structure: constructing a blank site, changing one, rebuilding one.
//!
//! Events are matched by (name, category). A kept event keeps its number, queues, subscriptions
//! and cursors; its limits change at once: oversize queues lose their oldest, and a shorter
//! lifetime also shortens what is retained (a longer one holds for what is raised from then on).
//! A rebuild keeps accounts, roles that are still declared, store marks and keys; it drops all
//! instances and starts the kept subscriptions over. Ids go on rising.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::ids::{Digest, EventKey, EventName, Incarnation, InstanceId, Stamp};
use super::super::limits::PRIVATE_SIZE;
use super::super::outcome::Refusal;
use super::super::push::PushRow;
use super::super::row::{EventRow, Instance, Row, RowKey, SiteRow, SubscriptionRow, UserRow};
use super::super::site::{EventRows, Queue, Site};
use super::super::structure::{Category, EventDefinition, Kind, Structure};
use super::Verdict;
use super::client::remove;

/// How a structure comes to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The site was blank; it has this incarnation from now on.
    Construct(Incarnation),
    /// Same type and author: what matches stays.
    Change,
    /// Another type or author: a new life under this incarnation.
    Rebuild(Incarnation),
}

/// Writes everything that the site's new structure changes. The structure has been judged.
pub(super) fn install(
    site: &Site,
    site_row: &SiteRow,
    structure: &Arc<Structure>,
    hash: Digest,
    how: How,
    verdict: &mut Verdict,
) -> Result<(), Refusal> {
    let mut wanted: BTreeMap<_, _> =
        structure.events.iter().map(|event| (identity(event), event)).collect();
    let mut removed = BTreeSet::new();
    for (rows, row) in site.events.values().filter_map(|rows| Some((rows, rows.row.as_ref()?))) {
        match (wanted.remove(&identity(&row.definition)), how) {
            (None, _) => {
                removed.insert(row.key);
                // The event goes first: what was in its queues is then known to have gone with it.
                verdict.delete(RowKey::Event(site.name().clone(), row.key));
                drop_all(&rows.retained, verdict);
            }
            (Some(definition), How::Construct(_) | How::Change) => {
                change(rows, row, definition, verdict);
            }
            (Some(definition), How::Rebuild(_)) => {
                drop_all(&rows.retained, verdict);
                redefine(row, definition, verdict);
            }
        }
    }
    let mut next_event = site_row.next_event;
    let added = structure.events.iter().filter(|event| wanted.contains_key(&identity(event)));
    for definition in added {
        if next_event == EventKey(u32::MAX) {
            let detail = "the site has used up its event numbers".to_owned();
            return Err(Refusal::Conflict { detail });
        }
        verdict.put(Row::Event(EventRow {
            site: site.name().clone(),
            key: next_event,
            definition: definition.clone(),
        }));
        next_event = next_event.next();
    }
    adjust_subscriptions(site, &removed, how, verdict);
    drop_undeclared_roles(site, structure, verdict);
    for service in site.services() {
        let matches = service.declared == Some(hash);
        if matches && site.declared(service.id.as_str()).is_some() {
            verdict.delete(RowKey::Declared(site.name().clone(), service.id.clone()));
        }
    }
    let incarnation = match how {
        How::Construct(incarnation) | How::Rebuild(incarnation) => incarnation,
        How::Change => site_row.incarnation,
    };
    verdict.put(Row::Site(SiteRow {
        incarnation,
        structure: Some((Arc::clone(structure), hash)),
        next_event,
        ..site_row.clone()
    }));
    verdict.wake_site(site);
    Ok(())
}

fn identity(event: &EventDefinition) -> (&EventName, Category) {
    (&event.name, event.kind.category())
}

fn drop_all(queue: &Queue, verdict: &mut Verdict) {
    for instance in queue.values() {
        verdict.delete(RowKey::Instance(instance.site.clone(), instance.id));
    }
}

fn redefine(row: &EventRow, definition: &EventDefinition, verdict: &mut Verdict) {
    if row.definition != *definition {
        verdict.put(Row::Event(EventRow { definition: definition.clone(), ..row.clone() }));
    }
}

/// The bounds of a definition: seconds kept, instances per queue.
fn bounds(kind: &Kind) -> (Option<u32>, usize) {
    let (lifetime_s, size) = match kind {
        Kind::Replacing { .. } => (None, 1),
        Kind::Queueing { lifetime_s, size, .. } => (Some(*lifetime_s), *size),
        Kind::Private { lifetime_s } => (Some(*lifetime_s), PRIVATE_SIZE),
    };
    (lifetime_s, usize::try_from(size).unwrap_or(usize::MAX))
}

/// Gives a kept event its new limits.
fn change(rows: &EventRows, row: &EventRow, definition: &EventDefinition, verdict: &mut Verdict) {
    redefine(row, definition, verdict);
    let (old_lifetime, _) = bounds(&row.definition.kind);
    let (new_lifetime, size) = bounds(&definition.kind);
    let shorter = match (old_lifetime, new_lifetime) {
        (Some(old), Some(new)) if new < old => Some(u64::from(new) * 1000),
        (Some(_) | None, Some(_) | None) => None,
    };
    for queue in rows.queues.values() {
        let surplus = queue.len().saturating_sub(size);
        for (id, _) in queue.iter().take(surplus) {
            verdict.delete(RowKey::Instance(row.site.clone(), *id));
        }
        let Some(lifetime_ms) = shorter else { continue };
        for instance in queue.values().skip(surplus) {
            let latest = Stamp(instance.created.0.saturating_add(lifetime_ms));
            if instance.expires.is_some_and(|expires| expires > latest) {
                let shortened = Instance { expires: Some(latest), ..Instance::clone(instance) };
                verdict.put(Row::from(Arc::new(shortened)));
            }
        }
    }
}

/// Removes subscriptions to removed events; after a rebuild the others start over.
fn adjust_subscriptions(
    site: &Site,
    removed: &BTreeSet<EventKey>,
    how: How,
    verdict: &mut Verdict,
) {
    let rebuilt = match how {
        How::Rebuild(_) => true,
        How::Construct(_) | How::Change => false,
    };
    if removed.is_empty() && !rebuilt {
        return;
    }
    super::dead::remove(site, |letter| rebuilt || removed.contains(&letter.event), verdict);
    for push in site.pushes() {
        if removed.contains(&push.event) {
            super::push::remove(site, push, verdict);
        } else if rebuilt {
            let (cursor, attempts) = (InstanceId::default(), None);
            verdict.put(Row::Push(PushRow { cursor, attempts, ..push.clone() }));
        }
    }
    for client in site.clients() {
        let (gone, kept): (Vec<_>, Vec<_>) =
            site.subscriptions(&client.id).partition(|row| removed.contains(&row.event));
        remove(site, client, &gone, verdict);
        for row in kept.into_iter().filter(|row| rebuilt && row.cursor > InstanceId::default()) {
            let cursor = InstanceId::default();
            verdict.put(Row::Subscription(SubscriptionRow { cursor, ..row.clone() }));
        }
    }
}

/// Takes roles from users that are declared no more: were one declared again later, it would be
/// another role, and nobody should hold it by accident.
fn drop_undeclared_roles(site: &Site, structure: &Structure, verdict: &mut Verdict) {
    for user in site.users() {
        if user.roles.iter().all(|role| structure.roles.contains(role)) {
            continue;
        }
        let mut roles = user.roles.clone();
        roles.retain(|role| structure.roles.contains(role));
        verdict.put(Row::User(UserRow { roles, ..user.clone() }));
    }
}
