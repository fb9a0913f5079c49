//! Raising: an event is stored, ignored or rejected for good, once per (store, number) or key.
//!
//! Order of judging a session's raise: epoch, store, then the number. A number up to the mark is
//! answered as it was; only the next one is decided, and its outcome, a rejection too, moves the
//! mark in the same verdict as the instance. A refusal changes nothing: the number may come again.
//! What is raised under a key has no number; its order is that of the keys it names before its own.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::super::command::{NewEvent, Raise, RaiseKeyed};
use super::super::ids::{InstanceId, Sequence, ServiceId, Stamp};
use super::super::limits::{
    CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, KEY_MEMORY_MS, Limits, OUTCOMES_PER_STORE,
    OWN_KEY_START, PRIVATE_SIZE, REQUEST_MEMORY_MS,
};
use super::super::outcome::{Decision, Effect, Outcome, Raised, Refusal, Rejection};
use super::super::quota::{Quota, Rates, TooMuch, Wait, charge};
use super::super::row::{EventRow, HeadRow, Instance, KeyRow, OutcomeRow, Row, RowKey};
use super::super::site::Site;
use super::super::state::State;
use super::super::structure::Kind;
use super::super::trace::TraceContext;
use super::super::validate::invalid;
use super::tick::removed;
use super::{Verdict, check_epoch, find, head};

/// The first 8 bytes of the SHA-256 of the encoded event.
fn content(event: &NewEvent) -> u64 {
    struct Hashing(Sha256);
    impl postcard::ser_flavors::Flavor for Hashing {
        type Output = u64;
        fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
            self.0.update(data);
            Ok(())
        }
        fn try_push(&mut self, data: u8) -> postcard::Result<()> {
            self.try_extend(&[data])
        }
        fn finalize(self) -> postcard::Result<u64> {
            let digest: [u8; 32] = self.0.finalize().into();
            Ok(digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
        }
    }
    // Cannot fail: hashing takes any bytes, and an event has no sequences of unknown length.
    postcard::serialize_with_flavor(event, Hashing(Sha256::new())).unwrap_or_default()
}

fn answer(duplicate: bool, decision: Decision) -> Outcome {
    Outcome::Raised(Raised { duplicate, decision })
}

pub(super) fn raise(
    state: &State,
    now: Stamp,
    raise: &Raise,
    trace: Option<&TraceContext>,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &raise.site)?;
    let service = site.service(raise.service.as_str()).ok_or(Refusal::UnknownService)?;
    check_epoch(raise.epoch, service.epoch, &service.sessions)?;
    let store = site.store(service.id.as_str(), raise.uid);
    if store.is_some_and(|store| store.retired) {
        return Err(Refusal::StoreSuperseded);
    }
    let store = store.filter(|_| service.uid == Some(raise.uid)).ok_or(Refusal::WrongStore)?;
    if raise.sequence == Sequence::default() {
        return Err(Refusal::Invalid(invalid("sequence", "at least 1, was 0")));
    }
    let content = content(&raise.event);
    if raise.sequence <= store.last {
        let decision = match site.outcome(service.id.as_str(), store.uid, raise.sequence) {
            None => Decision::Forgotten,
            Some((original, _)) if *original != content => return Err(Refusal::SequenceReused),
            Some((_, decision)) => decision.clone(),
        };
        return Ok(Verdict::new(answer(true, decision)));
    }
    if let Some(parked) = site.parked(service) {
        return Err(Refusal::Parked(parked));
    }
    if raise.sequence != store.last.next() {
        return Err(Refusal::OutOfSequence { expected: store.last.next() });
    }
    if state.over_capacity() {
        return Err(Refusal::OverCapacity);
    }
    let mut verdict = Verdict::new(Outcome::Done);
    admit(state, site, now, &service.id, &raise.event, &mut verdict)?;
    let by = By { service: &service.id, original: None, trace };
    let decision = store_event(state, site, now, by, &raise.event, &mut verdict);
    let mut mark = store.clone();
    mark.last = raise.sequence;
    verdict.put(Row::Store(mark));
    verdict.put(Row::Outcome(OutcomeRow {
        site: site.name().clone(),
        service: service.id.clone(),
        uid: store.uid,
        sequence: raise.sequence,
        content,
        decision: decision.clone(),
    }));
    if let Some(old) = raise.sequence.0.checked_sub(OUTCOMES_PER_STORE).filter(|old| *old > 0) {
        let (site, id) = (site.name().clone(), service.id.clone());
        verdict.delete(RowKey::Outcome(site, id, store.uid, Sequence(old)));
    }
    verdict.outcome = answer(false, decision);
    Ok(verdict)
}

/// Judges a raise under a key; one that names the key before its own waits for that.
pub(super) fn raise_keyed(
    state: &State,
    now: Stamp,
    raise: &RaiseKeyed,
    after: Option<&str>,
    trace: Option<&TraceContext>,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &raise.site)?;
    let service = site.service(raise.service.as_str()).ok_or(Refusal::UnknownService)?;
    if raise.key.is_empty() || raise.key.len() > KEY_BYTES_MAX {
        let detail = format!("1..={KEY_BYTES_MAX} bytes, was {}", raise.key.len());
        return Err(Refusal::Invalid(invalid("key", detail)));
    }
    let content = content(&raise.event);
    if let Some(known) = site.key(service.id.as_str(), &raise.key) {
        if known.content != content {
            return Err(Refusal::KeyReused);
        }
        return Ok(Verdict::new(answer(true, known.decision.clone())));
    }
    if after.is_some_and(|before| site.key(service.id.as_str(), before).is_none()) {
        return Err(Refusal::NotYet);
    }
    if site.structure().is_none() {
        return Err(Refusal::SiteBlank);
    }
    if state.over_capacity() {
        return Err(Refusal::OverCapacity);
    }
    let own = raise.key.starts_with(OWN_KEY_START);
    if !own && !site.may_remember(service.id.as_str(), state.limits().keys_max) {
        return Err(Refusal::TooManyKeys);
    }
    let memory_ms = if own { REQUEST_MEMORY_MS } else { KEY_MEMORY_MS };
    let mut verdict = Verdict::new(Outcome::Done);
    admit(state, site, now, &service.id, &raise.event, &mut verdict)?;
    let by = By { service: &service.id, original: None, trace };
    let decision = store_event(state, site, now, by, &raise.event, &mut verdict);
    verdict.put(Row::Key(KeyRow {
        site: site.name().clone(),
        service: service.id.clone(),
        key: raise.key.clone(),
        content,
        decision: decision.clone(),
        expires: Stamp(now.0.saturating_add(memory_ms)),
    }));
    verdict.outcome = answer(false, decision);
    Ok(verdict)
}

/// Judges an event by the site's quotas, and takes it from what is left of its rates.
pub(super) fn admit(
    state: &State,
    site: &Site,
    now: Stamp,
    service: &ServiceId,
    event: &NewEvent,
    verdict: &mut Verdict,
) -> Result<(), Refusal> {
    let quotas = site.quotas();
    let bytes = event.argument_bytes();
    if let Some(most) = quotas.queue_bytes
        && let Ok(definition) = judge(state.limits(), site, event)
    {
        let freed: u64 = surplus(site, definition, service).map(|old| old.argument_bytes()).sum();
        if bytes > freed && (site.queued_bytes() + bytes).saturating_sub(freed) > most {
            return Err(Refusal::QuotaExceeded { quota: Quota::QueueBytes, most });
        }
    }
    let site_rates = Rates { events: quotas.events_per_s, bytes: quotas.bytes_per_s };
    let service_rates =
        Rates { events: quotas.service_events_per_s, bytes: quotas.service_bytes_per_s };
    let buckets = [
        (None, site_rates, Quota::EventsPerSecond, Quota::BytesPerSecond),
        (Some(service), service_rates, Quota::ServiceEventsPerSecond, Quota::ServiceBytesPerSecond),
    ];
    for (of, rates, events_quota, bytes_quota) in buckets {
        if rates.events.is_none() && rates.bytes.is_none() {
            continue;
        }
        let known = site.rates.get(&of.cloned());
        let limited =
            |quota, most, wait: Wait| Refusal::RateLimited { quota, most, retry_ms: wait.ms };
        let row = charge(site.name(), of, known, rates, now, bytes).map_err(|much| match much {
            TooMuch::Events(most, wait) => limited(events_quota, most, wait),
            TooMuch::Bytes(most, wait) => limited(bytes_quota, most, wait),
        })?;
        verdict.put(Row::Rate(row));
    }
    Ok(())
}

/// How an event comes to be raised.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    /// Who raises it.
    pub service: &'a ServiceId,
    /// What it was raised as first, if it is raised again.
    pub original: Option<InstanceId>,
    /// The trace that it is raised in.
    pub trace: Option<&'a TraceContext>,
}

/// Decides about an event of a service, and stores it if it is to be.
pub(super) fn store_event(
    state: &State,
    site: &Site,
    now: Stamp,
    By { service, original, trace }: By<'_>,
    event: &NewEvent,
    verdict: &mut Verdict,
) -> Decision {
    let definition = match judge(state.limits(), site, event) {
        Ok(definition) => definition,
        Err(rejection) => return Decision::Rejected(rejection),
    };
    if event.arguments.is_none()
        && let Some(queue) = site.queue_rows(definition.key, service)
        && let Some((_, null)) = queue.last().filter(|(_, newest)| newest.is_null())
    {
        return Decision::Ignored(null.id);
    }
    let lifetime_s = match definition.definition.kind {
        Kind::Replacing { .. } => None,
        Kind::Queueing { lifetime_s, .. } | Kind::Private { lifetime_s } => Some(lifetime_s),
    };
    let lifetime_s = lifetime_s.map(|longest| event.lifetime_s.unwrap_or(longest));
    let id = site.head().next();
    verdict.put(Row::from(Arc::new(Instance {
        site: site.name().clone(),
        id,
        event: definition.key,
        service: service.clone(),
        client: event.client.clone(),
        created: now,
        expires: lifetime_s.map(|s| Stamp(now.0.saturating_add(u64::from(s) * 1000))),
        arguments: event.arguments.clone(),
        original,
        trace: trace.cloned().map(Box::new),
    })));
    verdict.put(Row::Head(HeadRow { last_instance: id, ..head(site) }));
    evict(site, definition, service, verdict);
    let site = site.name().clone();
    verdict.effects.push(match &event.client {
        Some(client) => Effect::Client { site, client: client.clone() },
        None => Effect::Event { site, event: definition.key },
    });
    Decision::Stored(id)
}

/// Makes room for one more: removes the oldest of a queue until it fits its size again.
fn evict(site: &Site, event: &EventRow, service: &ServiceId, verdict: &mut Verdict) {
    for instance in surplus(site, event, service) {
        verdict.delete(RowKey::Instance(site.name().clone(), instance.id));
        verdict.effects.extend(removed(site, instance.id));
    }
}

/// What has to go of a queue, the oldest first, for one more to fit its size.
fn surplus<'a>(
    site: &'a Site,
    event: &EventRow,
    service: &ServiceId,
) -> impl Iterator<Item = &'a Arc<Instance>> + use<'a> {
    let queue = site.queue_rows(event.key, service);
    let size = match event.definition.kind {
        Kind::Replacing { .. } => 1,
        Kind::Queueing { size, .. } => size,
        Kind::Private { .. } => PRIVATE_SIZE,
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
    let surplus = queue.map_or(0, |queue| (queue.len() + 1).saturating_sub(size));
    queue.into_iter().flat_map(|queue| queue.values()).take(surplus)
}

/// Judges an event by its definition: what is wrong with it is wrong for good.
fn judge<'a>(limits: &Limits, site: &'a Site, event: &NewEvent) -> Result<&'a EventRow, Rejection> {
    let row = site.event_named(event.name.as_str()).ok_or(Rejection::UnknownEvent)?;
    let kind = &row.definition.kind;
    if event.category.is_some_and(|category| category != kind.category()) {
        return Err(Rejection::WrongCategory);
    }
    let (private, nullable, lifetime_max) = match kind {
        Kind::Replacing { .. } => (false, true, 0),
        Kind::Queueing { lifetime_s, .. } => (false, false, *lifetime_s),
        Kind::Private { lifetime_s } => (true, false, *lifetime_s),
    };
    match &event.client {
        None if private => return Err(Rejection::ClientRequired),
        Some(_) if !private => return Err(Rejection::ClientNotAllowed),
        Some(client) if site.client(client.as_str()).is_none() => {
            return Err(Rejection::UnknownClient);
        }
        None | Some(_) => {}
    }
    match &event.arguments {
        None if !nullable => return Err(Rejection::NullNotAllowed),
        None => {}
        Some(arguments) => {
            let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
            let (given, most) = (count(arguments.data.len()), limits.args_bytes_max);
            if given > most {
                return Err(Rejection::ArgumentsTooLarge { given, most });
            }
            if arguments.content_type.len() > CONTENT_TYPE_BYTES_MAX {
                let given = count(arguments.content_type.len());
                return Err(Rejection::ContentTypeTooLong { given });
            }
        }
    }
    if let Some(given) = event.lifetime_s.filter(|given| !(1..=lifetime_max).contains(given)) {
        return Err(Rejection::LifetimeOutOfRange { given, most: lifetime_max });
    }
    Ok(row)
}
