//! Dead letters: keeping them, mending them, raising them again.
//!
//! A letter is written in the verdict that gives its instance up, or not at all: where the queue
//! has let go of the instance meanwhile, nobody would have got it any more.

use super::super::command::{Advance, Arguments, NewEvent};
use super::super::dead::{
    DEAD_LETTERS_MAX, DeadLetterRow, GiveUp, GivenUp, LETTER_NOTE_BYTES_MAX, LetterState,
    Subscriber,
};
use super::super::ids::{ClientId, InstanceId, SiteName, Stamp};
use super::super::limits::{CONTENT_TYPE_BYTES_MAX, Limits};
use super::super::outcome::{Decision, Outcome, Raised, Refusal};
use super::super::row::{HeadRow, Instance, Row, RowKey};
use super::super::site::Site;
use super::super::state::State;
use super::super::structure::Kind;
use super::super::validate::invalid;
use super::admin::conflict;
use super::{Verdict, client, find, head, raise};

/// A client's session gives an instance up.
pub(super) fn give_up(state: &State, now: Stamp, asked: &GiveUp) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &asked.site)?;
    let advance = Advance {
        site: asked.site.clone(),
        client: asked.client.clone(),
        event: asked.event,
        epoch: asked.epoch,
        incarnation: asked.incarnation,
        generation: asked.generation,
        instance: asked.cursor,
    };
    let mut verdict = client::advance(state, &advance)?;
    let subscriber = Subscriber::Client(asked.client.clone(), asked.event);
    if site.quality(&asked.client, asked.event).dead_letter {
        keep(state, site, now, &subscriber, asked.instance, asked.given_up, &mut verdict)?;
    }
    Ok(verdict)
}

/// Keeps an instance as a letter; whether it is one then.
pub(super) fn keep(
    state: &State,
    site: &Site,
    now: Stamp,
    subscriber: &Subscriber,
    instance: InstanceId,
    given_up: GivenUp,
    verdict: &mut Verdict,
) -> Result<bool, Refusal> {
    if site.is_given_up(subscriber, instance) {
        return Ok(true);
    }
    let Some((instance, event)) =
        site.instance(instance).and_then(|found| Some((found, site.event(found.event)?)))
    else {
        return Ok(false);
    };
    if state.over_capacity() {
        return Err(Refusal::OverCapacity);
    }
    if let Some(oldest) = surplus(site, subscriber) {
        verdict.delete(key(site.name(), oldest));
    }
    let id = site.head().next();
    verdict.put(Row::Head(HeadRow { last_instance: id, ..head(site) }));
    let Instance { id: given, event: key, service, client, created, arguments, original, .. } =
        Instance::clone(instance);
    verdict.put(Row::DeadLetter(Box::new(DeadLetterRow {
        site: site.name().clone(),
        id,
        subscriber: subscriber.clone(),
        event: key,
        name: event.definition.name.clone(),
        instance: given,
        original: original.unwrap_or(given),
        service,
        client,
        created,
        arguments,
        at: now,
        given_up,
        note: String::new(),
        edited: None,
        state: LetterState::Waiting,
    })));
    Ok(true)
}

/// The letter that has to go for one more of a subscriber.
fn surplus(site: &Site, subscriber: &Subscriber) -> Option<InstanceId> {
    let letters = || site.letters_of(subscriber);
    if letters().count() < DEAD_LETTERS_MAX {
        return None;
    }
    let settled = letters().find(|letter| letter.state != LetterState::Waiting);
    settled.or_else(|| letters().next()).map(|letter| letter.id)
}

fn find_letter(site: &Site, id: InstanceId) -> Result<&DeadLetterRow, Refusal> {
    site.dead_letter(id).ok_or(Refusal::UnknownDeadLetter)
}

/// One that was raised again stays as it was then.
fn find_waiting(site: &Site, id: InstanceId) -> Result<&DeadLetterRow, Refusal> {
    let letter = find_letter(site, id)?;
    match letter.state {
        LetterState::Waiting => Ok(letter),
        LetterState::Deleted => Err(Refusal::UnknownDeadLetter),
        LetterState::Replayed { instance, .. } => {
            Err(conflict(format!("it was raised again, as instance {instance}")))
        }
    }
}

/// Changes the arguments or the note of a letter; what is not given stays.
pub(super) fn edit(
    limits: &Limits,
    site: &Site,
    now: Stamp,
    id: InstanceId,
    arguments: Option<&Arguments>,
    note: Option<&String>,
) -> Result<Verdict, Refusal> {
    let mut letter = find_waiting(site, id)?.clone();
    if let Some(arguments) = arguments {
        let most = limits.args_bytes_max as usize;
        if arguments.data.len() > most {
            let detail = format!("at most {most} bytes, was {}", arguments.data.len());
            return Err(Refusal::Invalid(invalid("args", detail)));
        }
        if arguments.content_type.len() > CONTENT_TYPE_BYTES_MAX {
            let given = arguments.content_type.len();
            let detail = format!("at most {CONTENT_TYPE_BYTES_MAX} bytes, was {given}");
            return Err(Refusal::Invalid(invalid("content_type", detail)));
        }
        if letter.arguments.as_ref() != Some(arguments) {
            letter.arguments = Some(arguments.clone());
            letter.edited = Some(now);
        }
    }
    if let Some(note) = note {
        let is_control = |c: char| c.is_control() && c != '\n';
        if note.len() > LETTER_NOTE_BYTES_MAX || note.chars().any(is_control) {
            let detail =
                format!("at most {LETTER_NOTE_BYTES_MAX} bytes without control characters");
            return Err(Refusal::Invalid(invalid("note", detail)));
        }
        letter.note.clone_from(note);
    }
    let mut verdict = Verdict::new(Outcome::Done);
    verdict.put(Row::DeadLetter(Box::new(letter)));
    Ok(verdict)
}

/// Raises a letter again, as a new instance of its event that names the original one.
pub(super) fn replay(
    state: &State,
    site: &Site,
    now: Stamp,
    id: InstanceId,
) -> Result<Verdict, Refusal> {
    let letter = find_waiting(site, id)?;
    let event = site.event(letter.event).ok_or(Refusal::UnknownEvent)?;
    site.service(letter.service.as_str()).ok_or(Refusal::UnknownService)?;
    if state.over_capacity() {
        return Err(Refusal::OverCapacity);
    }
    // What was true before must not take the place of what is true now.
    let queue = site.queue_rows(letter.event, &letter.service);
    let newest = queue.and_then(|queue| queue.last()).map(|(newest, _)| *newest);
    if let (Kind::Replacing { .. }, Some(newest)) = (&event.definition.kind, newest)
        && newest > letter.instance
    {
        return Err(conflict(format!("instance {newest} has replaced it")));
    }
    let raised = NewEvent {
        name: event.definition.name.clone(),
        category: None,
        client: letter.client.clone(),
        arguments: letter.arguments.clone(),
        lifetime_s: None,
        trace: None,
    };
    let mut verdict = Verdict::new(Outcome::Done);
    raise::admit(state, site, now, &letter.service, &raised, &mut verdict)?;
    let original = Some(letter.original);
    let by = raise::By { service: &letter.service, original, trace: None };
    let decision = raise::store_event(state, site, now, by, &raised, &mut verdict);
    let instance = match &decision {
        Decision::Stored(instance) => *instance,
        Decision::Rejected(rejection) => {
            return Err(conflict(format!("the event does not take it any more: {rejection:?}")));
        }
        Decision::Ignored(_) | Decision::Forgotten => {
            return Err(conflict("the event is null already"));
        }
    };
    let state = LetterState::Replayed { at: now, instance };
    verdict.put(Row::DeadLetter(Box::new(DeadLetterRow { state, ..letter.clone() })));
    verdict.outcome = Outcome::Raised(Raised { duplicate: false, decision });
    Ok(verdict)
}

/// Removes a letter. Where the subscription could be sent the instance again, that it was given up
/// stays known.
pub(super) fn delete(site: &Site, id: InstanceId) -> Result<Verdict, Refusal> {
    let letter = find_letter(site, id)?;
    if letter.state == LetterState::Deleted {
        return Err(Refusal::UnknownDeadLetter);
    }
    let cursor = match &letter.subscriber {
        Subscriber::Client(client, event) => {
            site.subscription(client, *event).map(|row| row.cursor)
        }
        Subscriber::Push(push) => site.push(push.as_str()).map(|row| row.cursor),
    };
    let mut verdict = Verdict::new(Outcome::Done);
    if cursor.is_some_and(|cursor| cursor < letter.instance) {
        let (state, arguments) = (LetterState::Deleted, None);
        verdict.put(Row::DeadLetter(Box::new(DeadLetterRow {
            state,
            arguments,
            ..letter.clone()
        })));
    } else {
        verdict.delete(key(site.name(), id));
    }
    Ok(verdict)
}

/// Removes the letters that are about something that goes.
pub(super) fn remove(site: &Site, gone: impl Fn(&DeadLetterRow) -> bool, verdict: &mut Verdict) {
    for letter in site.dead_letters().filter(|letter| gone(letter)) {
        verdict.delete(key(site.name(), letter.id));
    }
}

fn key(site: &SiteName, id: InstanceId) -> RowKey {
    RowKey::DeadLetter(site.clone(), id)
}

/// Whether a letter is a client's own, or was addressed to it.
pub(super) fn is_of(letter: &DeadLetterRow, of: &ClientId) -> bool {
    letter.client.as_ref() == Some(of)
        || matches!(&letter.subscriber, Subscriber::Client(client, _) if client == of)
}
