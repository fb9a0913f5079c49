//! Sessions of services: attaching, and the marks of the stores they raise from.
//!
//! Each session takes a higher epoch; the newest wins. An attach that comes again is answered from
//! the state and changes nothing. The first structure on a blank site that
//! allows it constructs the site. A store that continues another takes over its mark and its
//! remembered decisions in the same verdict that retires the other.

use std::sync::Arc;

use super::super::command::AttachService;
use super::super::ids::{
    Digest, Epoch, Incarnation, Sequence, ServiceId, SessionId, SiteName, StorageUid,
};
use super::super::limits::{HOSTNAME_BYTES_MAX, STORES_PER_SERVICE, VERSION_BYTES_MAX};
use super::super::outcome::{Effect, Outcome, Refusal};
use super::super::row::{DeclaredRow, OutcomeRow, Row, RowKey, ServiceRow, StoreRow};
use super::super::site::{Site, parked};
use super::super::state::State;
use super::super::structure::Structure;
use super::structure::{How, install};
use super::{Verdict, check_incarnation, find, next_epoch, take_over};

pub(super) fn attach(state: &State, attach: &AttachService) -> Result<Verdict, Refusal> {
    let (site, site_row) = find(state, &attach.site)?;
    let service = site.service(attach.service.as_str()).ok_or(Refusal::UnknownService)?;
    check_incarnation(attach.incarnation)?;
    let Some(sessions) = take_over(attach.claim, service.epoch, &service.sessions)? else {
        return Ok(Verdict::new(attached(site, service, attach.uid)));
    };
    let declared = match &attach.structure {
        None => None,
        Some(structure) => Some((structure, judge(state, site, structure)?)),
    };
    let mut verdict = Verdict::new(Outcome::Done);

    let constructed = declared
        .filter(|_| site_row.structure.is_none() && site_row.settings.constructible)
        .map(|(structure, hash)| (Arc::new(structure.clone()), hash));
    let mut incarnation = site_row.incarnation;
    if let Some((structure, hash)) = &constructed {
        if incarnation == Incarnation::default() {
            incarnation = attach.incarnation;
        }
        install(site, site_row, structure, *hash, How::Construct(incarnation), &mut verdict)?;
    }
    let current = constructed.as_ref().or(site_row.structure.as_ref());
    let current = current.map(|(structure, hash)| (structure.as_ref(), hash));

    let declared_type = declared
        .map(|(structure, _)| (structure.service_type.clone(), structure.contract_author.clone()));
    let parked = parked(current, declared.as_ref().map(|(_, hash)| hash), declared_type.as_ref());
    keep_declared(state, site, service, declared.filter(|_| parked.is_some()), &mut verdict);

    let epoch = next_epoch(site, service.epoch);
    let mark = adopt(site, &service.id, attach.uid, attach.continues, epoch, &mut verdict);
    verdict.put(Row::Service(ServiceRow {
        site: site.name().clone(),
        id: service.id.clone(),
        epoch,
        sessions,
        at: Some(attach.place),
        uid: Some(attach.uid),
        declared: declared.map(|(_, hash)| hash),
        declared_type,
        version: cut(&attach.version, VERSION_BYTES_MAX),
        hostname: cut(&attach.hostname, HOSTNAME_BYTES_MAX),
    }));
    verdict
        .effects
        .push(Effect::Service { site: site.name().clone(), service: service.id.clone() });
    verdict.outcome = Outcome::ServiceAttached {
        epoch,
        incarnation: current.map_or(Incarnation::default(), |_| incarnation),
        last: mark.last,
        superseded: mark.retired,
        parked,
    };
    Ok(verdict)
}

/// The answer to the newest session, once more.
fn attached(site: &Site, service: &ServiceRow, uid: StorageUid) -> Outcome {
    let mark = site.store(service.id.as_str(), uid);
    let blank = site.structure().is_none();
    Outcome::ServiceAttached {
        epoch: service.epoch,
        incarnation: if blank { Incarnation::default() } else { site.incarnation() },
        last: mark.map_or(Sequence::default(), |mark| mark.last),
        superseded: mark.is_some_and(|mark| mark.retired),
        parked: site.parked(service),
    }
}

/// The hash of a declared structure. The one that the site has is taken as it is: it was judged
/// when it was applied, and limits that were tightened since do not lock its services out.
fn judge(state: &State, site: &Site, structure: &Structure) -> Result<Digest, Refusal> {
    let hash = structure.canonical_hash();
    if site.structure_hash() != Some(&hash) {
        structure.validate(state.limits()).map_err(Refusal::Invalid)?;
    }
    Ok(hash)
}

/// Keeps what a parked service declared for an administrator to apply, and nothing else. Above
/// capacity it is not kept: the service is parked all the same.
fn keep_declared(
    state: &State,
    site: &Site,
    service: &ServiceRow,
    declared: Option<(&Structure, Digest)>,
    verdict: &mut Verdict,
) {
    let known = site.declared(service.id.as_str());
    let (name, id) = (site.name().clone(), service.id.clone());
    match declared.filter(|_| !state.over_capacity()) {
        Some((structure, _)) => {
            if known.is_none_or(|known| **known != *structure) {
                let structure = Arc::new(structure.clone());
                verdict.put(Row::Declared(DeclaredRow { site: name, service: id, structure }));
            }
        }
        None => {
            if known.is_some() {
                verdict.delete(RowKey::Declared(name, id));
            }
        }
    }
}

/// The mark that a session raises under from now on.
///
/// - A known store keeps its mark. If it says that it continues another one, that one is retired.
/// - A new store that continues a known one takes over its mark and decisions. One that was never
///   attached has nothing to take over, but is retired all the same: its events are now raised
///   from the new store. One that is retired already was continued by yet another store; what the
///   new one holds may have been stored under that, so the new one is retired at once.
/// - At the bound the store that was attached the longest ago is forgotten.
fn adopt(
    site: &Site,
    service: &ServiceId,
    uid: StorageUid,
    continues: Option<StorageUid>,
    epoch: Epoch,
    verdict: &mut Verdict,
) -> StoreRow {
    let new = |uid| StoreRow {
        site: site.name().clone(),
        service: service.clone(),
        uid,
        last: Sequence::default(),
        retired: false,
        used: epoch,
    };
    let known = site.store(service.as_str(), uid);
    let mut mark = known.cloned().unwrap_or_else(|| new(uid));
    mark.used = epoch;
    let mut kept = vec![uid];
    if let Some(old_uid) = continues.filter(|old| *old != uid) {
        let old = site.store(service.as_str(), old_uid);
        let retired_before = old.is_some_and(|old| old.retired);
        if known.is_none() {
            mark.retired = retired_before;
            mark.last = old.map_or(Sequence::default(), |old| old.last);
        }
        if !retired_before {
            move_outcomes(site, service, old_uid, known.is_none().then_some(uid), verdict);
            let old = old.cloned().unwrap_or_else(|| new(old_uid));
            verdict.put(Row::Store(StoreRow { retired: true, used: epoch, ..old }));
            kept.push(old_uid);
        }
    }
    let mut others: Vec<_> =
        site.stores(service.as_str()).filter(|store| !kept.contains(&store.uid)).collect();
    others.sort_by_key(|store| (store.used, store.uid));
    let surplus = (others.len() + kept.len()).saturating_sub(STORES_PER_SERVICE);
    for store in others.into_iter().take(surplus) {
        move_outcomes(site, service, store.uid, None, verdict);
        verdict.delete(RowKey::Store(site.name().clone(), service.clone(), store.uid));
    }
    verdict.put(Row::Store(mark.clone()));
    mark
}

/// Moves the remembered decisions of one store to another, or forgets them.
fn move_outcomes(
    site: &Site,
    service: &ServiceId,
    from: StorageUid,
    to: Option<StorageUid>,
    verdict: &mut Verdict,
) {
    let stores = site.services.get(service).map(|rows| &rows.stores);
    let Some(store) = stores.and_then(|stores| stores.get(&from)) else { return };
    for (sequence, (content, decision)) in store.outcomes.iter() {
        let (name, id) = (site.name().clone(), service.clone());
        verdict.delete(RowKey::Outcome(name, id, from, *sequence));
        if let Some(to) = to {
            verdict.put(Row::Outcome(OutcomeRow {
                site: site.name().clone(),
                service: service.clone(),
                uid: to,
                sequence: *sequence,
                content: *content,
                decision: decision.clone(),
            }));
        }
    }
}

/// At most `bytes` bytes of a text, cut at a character.
fn cut(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

pub(super) fn detach(
    state: &State,
    site: &SiteName,
    service: &ServiceId,
    session: SessionId,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, site)?;
    let service = site.service(service.as_str()).ok_or(Refusal::UnknownService)?;
    let mut verdict = Verdict::new(Outcome::Done);
    if service.online() && service.sessions.last() == Some(&session) {
        verdict.put(Row::Service(ServiceRow { at: None, ..service.clone() }));
        let (site, service) = (site.name().clone(), service.id.clone());
        verdict.effects.push(Effect::Service { site, service });
    }
    Ok(verdict)
}
