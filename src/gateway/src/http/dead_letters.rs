//! Dead letters: looked at by who may read the site, mended and raised again by who operates it.

use ackord_machine::site::{
    self as machine, AdminAction, InstanceId, LetterState, Object, Site, Subscriber,
};
use ackord_wire::letter::{self, DeadLetter, DeadLetterChange};
use ackord_wire::payload::Payload;
use ackord_wire::resource::Page;
use ackord_wire::{Code, Problem};
use actix_web::http::Method;

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange, not_found};
use super::list::LOOKED_AT_MAX;
use super::query::{self, Query, Window};
use crate::convert;

/// Bytes of arguments after which a page ends early.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Dead letters of a subscription that wait.
pub fn waiting(site: &Site, subscriber: &Subscriber) -> u64 {
    let waits = |letter: &&machine::DeadLetterRow| letter.state == LetterState::Waiting;
    site.letters_of(subscriber).filter(waits).count() as u64
}

/// Which letters are wanted.
struct Filter {
    client: Option<String>,
    event: Option<String>,
    push: Option<String>,
    state: Option<&'static str>,
}

impl Filter {
    fn of(query: &Query) -> Result<Self, Problem> {
        let text = |name: &str| query.get(name).map(str::to_owned);
        let state = match query.get("state") {
            None => None,
            Some("waiting") => Some("waiting"),
            Some("replayed") => Some("replayed"),
            Some(other) => {
                let detail = format!("`waiting` or `replayed`, was {other:?}");
                return Err(query::invalid("state", &detail));
            }
        };
        Ok(Self { client: text("client"), event: text("event"), push: text("push"), state })
    }

    fn keeps(&self, letter: &machine::DeadLetterRow) -> bool {
        let (client, push) = match &letter.subscriber {
            Subscriber::Client(client, _) => (Some(client.as_str()), None),
            Subscriber::Push(push) => (None, Some(push.as_str())),
        };
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        letter.state != LetterState::Deleted
            && is(&self.client, client)
            && is(&self.push, push)
            && is(&self.event, Some(letter.name.as_str()))
            && self.state.is_none_or(|wanted| wanted == letter.state.as_str())
    }
}

/// `GET /v1/sites/{site}/dead-letters`, the oldest first.
pub async fn list(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "client", "event", "push", "state"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let (window, filter) = (allowed.query.window()?, Filter::of(&allowed.query)?);
    let after = match &window.after {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| query::invalid("after", &format!("a dead letter's id, was {text:?}")))?,
    };
    let look = |site: &Site, _| page(site, &window, &filter, InstanceId(after));
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// A page looks at a bounded number of letters, and holds a bounded number of bytes.
fn page(site: &Site, window: &Window, filter: &Filter, after: InstanceId) -> Page<DeadLetter> {
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, after);
    for (looked_at, letter) in site.dead_letters_after(after).enumerate() {
        let full = items.len() == window.limit || bytes > PAGE_BYTES_MAX;
        if full || looked_at == LOOKED_AT_MAX {
            return Page { items, next: Some(last.to_string()) };
        }
        last = letter.id;
        if filter.keeps(letter) {
            bytes += letter.arguments.as_ref().map_or(0, |arguments| arguments.data.len());
            items.push(letter_out(letter));
        }
    }
    Page { items, next: None }
}

/// `/v1/sites/{site}/dead-letters/{id}`.
pub async fn one(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    match *exchange.method() {
        Method::PATCH => change(exchange, site, id).await,
        Method::DELETE => {
            let allowed = exchange.authorize(site, Need::Operate, &[]).await?;
            let action = AdminAction::DeleteDeadLetter { id: number(id)? };
            allowed.act(site, allowed.request_id("delete", b"")?, action).await?;
            Ok(Answer::no_content())
        }
        _ => {
            let allowed = exchange.authorize(site, Need::Read, &["consistency"]).await?;
            answer_one(&allowed, site, number(id)?).await
        }
    }
}

async fn change(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    let mut allowed = exchange.authorize(site, Need::Operate, &[]).await?;
    let id = number(id)?;
    let bytes = allowed.bytes().await?;
    let change: DeadLetterChange = super::body::decode(&bytes)?;
    let arguments = match (change.args, change.data, change.content_type) {
        (Some(_), Some(_), _) => {
            return Err(Problem::new(Code::Invalid, "not beside `args`").field("data"));
        }
        (args, None, Some(_)) => {
            let detail = if args.is_some() { "of `data`; `args` are JSON" } else { "needs `data`" };
            return Err(Problem::new(Code::Invalid, detail).field("content_type"));
        }
        (args, data, content_type) => Payload::from_fields(content_type, args, data),
    };
    let arguments = arguments.map(|payload| machine::Arguments {
        content_type: payload.content_type,
        data: payload.data,
    });
    let action = AdminAction::EditDeadLetter { id, arguments, note: change.note };
    allowed.act(site, allowed.request_id("edit", &bytes)?, action).await?;
    answer_one(&allowed, site, id).await
}

/// `POST /v1/sites/{site}/dead-letters/{id}/replay`.
pub async fn replay(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Operate, &[]).await?;
    let id = number(id)?;
    let action = AdminAction::ReplayDeadLetter { id };
    allowed.act(site, allowed.request_id("replay", b"")?, action).await?;
    answer_one(&allowed, site, id).await
}

/// What is no number names no letter.
fn number(id: &str) -> Result<InstanceId, Problem> {
    id.parse().map(InstanceId).map_err(|_| not_found("dead letter", id))
}

async fn answer_one(allowed: &Allowed<'_>, site: &str, id: InstanceId) -> Result<Answer, Problem> {
    let look = |site: &Site, _| {
        let letter = site.dead_letter(id)?;
        let there = letter.state != LetterState::Deleted;
        there.then(|| (letter_out(letter), site.revision(&Object::DeadLetter(id))))
    };
    let found = allowed.look(site, look).await?;
    let missing = || not_found("dead letter", &id.to_string());
    let (letter, revision) = found.ok_or_else(missing)?;
    Ok(Answer::ok(&letter).tagged(revision))
}

fn letter_out(letter: &machine::DeadLetterRow) -> DeadLetter {
    let (content_type, args, data) = convert::arguments_out(letter.arguments.as_ref());
    let (client, push) = match &letter.subscriber {
        Subscriber::Client(client, _) => (Some(client.to_string()), None),
        Subscriber::Push(push) => (None, Some(push.to_string())),
    };
    let (state, replayed) = match letter.state {
        LetterState::Replayed { at, instance } => {
            (letter::LetterState::Replayed, Some((at, instance)))
        }
        LetterState::Waiting | LetterState::Deleted => (letter::LetterState::Waiting, None),
    };
    DeadLetter {
        id: letter.id.0,
        state,
        event: letter.name.to_string(),
        client,
        push,
        instance_id: letter.instance.0,
        original_id: letter.original.0,
        service: letter.service.to_string(),
        created_ms: letter.created.0,
        given_up_ms: letter.at.0,
        attempts: letter.given_up.attempts,
        because: letter.given_up.cause.to_string(),
        replayed_id: replayed.map(|(_, instance)| instance.0),
        replayed_ms: replayed.map(|(at, _)| at.0),
        note: letter.note.clone(),
        edited_ms: letter.edited.map(|at| at.0),
        null: letter.arguments.is_none(),
        content_type,
        args,
        data,
    }
}
