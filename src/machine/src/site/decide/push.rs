//! Push subscriptions: registering them, and what their agents report.
//!
//! An attach or a report that comes again is answered and changes nothing. A cancelled subscription
//! is recorded: it ended by itself, and nobody is connected who would be told.

use super::super::audit::{By, DONE, Note};
use super::super::command::Start;
use super::super::dead::{GivenUp, LetterCause, Subscriber};
use super::super::ids::{ClientId, Epoch, InstanceId, PushId, SiteName, Stamp};
use super::super::limits::{Limit, PUSHES_PER_SITE, SESSIONS_REMEMBERED};
use super::super::outcome::{Outcome, Refusal};
use super::super::push::{
    AttachPush, DISCARDED_COUNTED_MAX, Overflow, PushReport, PushRow, PushSpec, PushState,
    SettlePush, Trouble,
};
use super::super::row::{Row, RowKey};
use super::super::site::{Receiver, Site};
use super::super::state::State;
use super::super::validate::{check_account, invalid};
use super::accounts::wake_client;
use super::admin::conflict;
use super::dead::keep;
use super::govern::{check_limit, enter};
use super::{Verdict, check_epoch, check_incarnation_of, find, next_epoch, take_over};

/// On whose behalf the record says that a subscription was cancelled.
const BROKER: &str = "broker";

fn find_push<'a>(
    site: &'a Site,
    id: &PushId,
    owner: Option<&ClientId>,
) -> Result<&'a PushRow, Refusal> {
    let row = site.push(id.as_str()).ok_or(Refusal::UnknownSubscription)?;
    // What is another client's is not there for this one.
    if owner.is_some_and(|owner| *owner != row.spec.client) {
        return Err(Refusal::UnknownSubscription);
    }
    Ok(row)
}

/// Registers a push subscription, or changes one; a kept one keeps its cursor.
pub(super) fn put(
    site: &Site,
    now: Stamp,
    id: &PushId,
    spec: &PushSpec,
) -> Result<Verdict, Refusal> {
    check_account("id", id.as_str()).map_err(Refusal::Invalid)?;
    spec.quality.check("").map_err(Refusal::BadQuality)?;
    spec.quality.check_attempts("", spec.max_attempts).map_err(Refusal::BadQuality)?;
    spec.check().map_err(Refusal::Invalid)?;
    site.client(spec.client.as_str()).ok_or(Refusal::UnknownClient)?;
    if site.structure().is_none() {
        return Err(Refusal::SiteBlank);
    }
    let event = site.event_named(spec.event.as_str()).ok_or(Refusal::UnknownEvent)?.key;
    let mut verdict = Verdict::new(Outcome::Done);
    let row = match site.push(id.as_str()) {
        None => {
            let own = site.subscriptions(&spec.client).count();
            super::client::check_room(site, &spec.client, site.subscribed(), own)?;
            check_limit(Limit::Pushes, Some(PUSHES_PER_SITE as u64), site.pushes.len())?;
            let state = if spec.paused { PushState::Paused } else { PushState::Active };
            let cursor = match spec.start {
                Start::Earliest => InstanceId::default(),
                Start::Latest => site.head(),
            };
            PushRow {
                site: site.name().clone(),
                id: id.clone(),
                spec: spec.clone(),
                event,
                created: now,
                changed: now,
                cursor,
                generation: Default::default(),
                epoch: Epoch::default(),
                sessions: Vec::new(),
                reported: 0,
                failures: 0,
                attempts: None,
                state,
                delivered: 0,
                failed: 0,
                dropped: 0,
            }
        }
        Some(known) if known.spec.client != spec.client => return Err(Refusal::AlreadyExists),
        Some(known) if known.event != event => {
            return Err(conflict("a push subscription keeps its event: delete it first"));
        }
        Some(known) if known.spec == *spec => return Ok(verdict),
        Some(known) => {
            let state = match (known.state, spec.paused) {
                (state @ PushState::Cancelled { .. }, _) => state,
                (_, true) => PushState::Paused,
                (PushState::Paused, false) => PushState::Active,
                (state, false) => state,
            };
            PushRow { spec: spec.clone(), changed: now, state, ..known.clone() }
        }
    };
    verdict.put(Row::Push(row));
    wake_client(site, &spec.client, &mut verdict);
    Ok(verdict)
}

pub(super) fn delete(
    site: &Site,
    id: &PushId,
    owner: Option<&ClientId>,
) -> Result<Verdict, Refusal> {
    let row = find_push(site, id, owner)?;
    let mut verdict = Verdict::new(Outcome::Done);
    remove(site, row, &mut verdict);
    Ok(verdict)
}

/// Removes a push subscription; one that is registered again under its id starts above its epoch.
pub(super) fn remove(site: &Site, row: &PushRow, verdict: &mut Verdict) {
    verdict.delete(RowKey::Push(site.name().clone(), row.id.clone()));
    let own = Subscriber::Push(row.id.clone());
    super::dead::remove(site, |letter| letter.subscriber == own, verdict);
    wake_client(site, &row.spec.client, verdict);
}

/// Starts a cancelled or offline one again. What is not durable begins with what comes.
pub(super) fn resume(
    site: &Site,
    id: &PushId,
    owner: Option<&ClientId>,
) -> Result<Verdict, Refusal> {
    let known = find_push(site, id, owner)?;
    let mut verdict = Verdict::new(Outcome::Done);
    if !matches!(known.state, PushState::Cancelled { .. } | PushState::Offline { .. }) {
        return Ok(verdict);
    }
    let state = if known.spec.paused { PushState::Paused } else { PushState::Active };
    let cursor = if known.spec.durable { known.cursor } else { site.head() };
    let row = PushRow { state, cursor, failures: 0, attempts: None, ..known.clone() };
    verdict.put(Row::Push(row));
    wake_client(site, &known.spec.client, &mut verdict);
    Ok(verdict)
}

pub(super) fn attach(state: &State, attach: &AttachPush) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &attach.site)?;
    let known = find_push(site, &attach.id, None)?;
    let mut verdict = Verdict::new(Outcome::Done);
    let Some(mut sessions) = take_over(attach.claim, known.epoch, &known.sessions)? else {
        return Ok(verdict);
    };
    sessions.truncate(SESSIONS_REMEMBERED);
    let epoch = next_epoch(site, known.epoch);
    verdict.put(Row::Push(PushRow { epoch, sessions, reported: 0, ..known.clone() }));
    wake_client(site, &known.spec.client, &mut verdict);
    Ok(verdict)
}

/// What an agent reports: moves the cursor, counts, and changes the state by the rules of failures.
pub(super) fn settle(state: &State, now: Stamp, settle: &SettlePush) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &settle.site)?;
    let known = find_push(site, &settle.id, None)?;
    check_epoch(settle.epoch, known.epoch, &known.sessions)?;
    check_incarnation_of(site, settle.incarnation)?;
    if settle.generation != known.generation {
        return Err(Refusal::StalePosition);
    }
    let mut verdict = Verdict::new(Outcome::Done);
    if settle.number <= known.reported {
        return Ok(verdict);
    }
    let mut row = PushRow { reported: settle.number, ..known.clone() };
    let advance = |row: &mut PushRow, cursor: InstanceId| {
        if cursor > site.head() {
            let detail = format!("0..={}, was {cursor}", site.head());
            return Err(Refusal::Invalid(invalid("cursor", detail)));
        }
        row.cursor = row.cursor.max(cursor);
        Ok(())
    };
    match &settle.report {
        PushReport::Delivered { cursor, count, dropped } => {
            advance(&mut row, *cursor)?;
            row.delivered = row.delivered.saturating_add(u64::from(*count));
            row.dropped = row.dropped.saturating_add(u64::from(*dropped));
            if *count > 0 {
                row.succeed();
            }
        }
        PushReport::Failed { trouble, attempt, cursor, dropped } => {
            advance(&mut row, *cursor)?;
            row.dropped = row.dropped.saturating_add(u64::from(*dropped));
            row.fail(*trouble, now);
            row.attempts = attempt.filter(|(instance, _)| *instance > row.cursor);
        }
        PushReport::GivenUp { trouble, instance, attempts, cursor } => {
            advance(&mut row, *cursor)?;
            row.fail(*trouble, now);
            let subscriber = Subscriber::Push(settle.id.clone());
            let cause = LetterCause::Failed(*trouble);
            let given_up = GivenUp { attempts: *attempts, cause };
            let is_kept = row.spec.quality.dead_letter
                && keep(state, site, now, &subscriber, *instance, given_up, &mut verdict)?;
            row.dropped = row.dropped.saturating_add(u64::from(!is_kept));
            row.attempts = None;
        }
        PushReport::Probe => match row.state {
            PushState::Offline { until, .. } if until > now => return Err(Refusal::NotYet),
            PushState::Offline { .. } => probe(site, now, &mut row),
            PushState::Active
            | PushState::Probing
            | PushState::Cancelled { .. }
            | PushState::Paused => {}
        },
        PushReport::Overflow { cursor, count } => match row.spec.on_overflow {
            Overflow::DropOldest => {
                advance(&mut row, *cursor)?;
                row.dropped = row.dropped.saturating_add(u64::from(*count));
            }
            Overflow::Remove if matches!(row.state, PushState::Cancelled { .. }) => {}
            Overflow::Remove => {
                row.state = PushState::Cancelled { at: now, because: Trouble::Overflow };
            }
        },
    }
    // What was discarded was not acknowledged, and stays for whoever else receives for the client.
    if let PushReport::Delivered { .. } | PushReport::Failed { .. } | PushReport::GivenUp { .. } =
        settle.report
    {
        acknowledge_private(site, known, row.cursor, &mut verdict);
    }
    let cancelled = match (known.state, row.state) {
        (PushState::Cancelled { .. }, _) => None,
        (_, PushState::Cancelled { because, .. }) => Some(because),
        (_, _) => None,
    };
    if known.state != row.state {
        wake_client(site, &row.spec.client, &mut verdict);
    }
    // The row goes first: what is removed is then known to have been acknowledged.
    verdict.writes.insert(0, super::super::row::Write::Put(Row::Push(row)));
    if let Some(because) = cancelled {
        record(state, now, &settle.site, &settle.id, because, &mut verdict);
    }
    Ok(verdict)
}

/// The interval is over. What is not durable was for those who were there.
fn probe(site: &Site, now: Stamp, row: &mut PushRow) {
    row.state = PushState::Probing;
    if row.spec.durable {
        return;
    }
    let receiver = Receiver::Client(row.spec.client.clone());
    let lag = site.lag(row.event, row.cursor, &receiver, now, DISCARDED_COUNTED_MAX);
    row.dropped = row.dropped.saturating_add(lag.count);
    row.cursor = row.cursor.max(site.head());
    row.attempts = None;
}

/// A private instance goes when its addressee has acknowledged it, through whatever it received by.
fn acknowledge_private(site: &Site, known: &PushRow, cursor: InstanceId, verdict: &mut Verdict) {
    let Some(addressed) = site.addressed(known.event, &known.spec.client) else { return };
    if cursor <= known.cursor {
        return;
    }
    for (id, _) in addressed.above(known.cursor).take_while(|(id, _)| *id <= cursor) {
        verdict.delete(RowKey::Instance(site.name().clone(), *id));
    }
}

fn record(
    state: &State,
    now: Stamp,
    site: &SiteName,
    id: &PushId,
    because: Trouble,
    verdict: &mut Verdict,
) {
    let note = Note {
        by: By { who: BROKER.to_owned(), address: String::new() },
        act: "push.cancelled".to_owned(),
        target: format!("pushes/{id}: {because}"),
        result: DONE.to_owned(),
        count: 1,
    };
    enter(state, now, site, &[note], verdict);
}
