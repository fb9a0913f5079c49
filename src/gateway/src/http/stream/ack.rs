//! Acknowledgements by request: any node takes them, and answers once they are committed.
//!
//! The token is the credential: it proves that its delivery was made, and to whom. So the body is
//! read before its sender is known, and bounded the more.

use ackord_machine::site::{Advance, Principal, Site, SiteName};
use ackord_wire::frame::Ack;
use ackord_wire::stream::{ACK_TOKENS_MAX, AckAnswer, AckBody, AckResult, AckResults};
use ackord_wire::{Code, Problem};
use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::answer::Answer;
use super::super::attempt;
use super::super::authority::{self, Bearer, Caller};
use super::super::exchange::{Exchange, refused, slow_down};
use super::super::query::Query;
use super::super::{RETRY_AFTER_S, body};
use super::proof::{AckToken, Claimed};
use crate::context::Context;
use crate::identity::now_ms;
use crate::route::Route;

/// Bytes of a body: as many tokens as it may have, with room.
const BODY_BYTES_MAX: usize = 64 << 10;

/// `POST /v1/sites/{site}/ack`: of tokens, or of the event that has one.
pub async fn acknowledge(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let (context, request) = (exchange.context, exchange.request());
    let caller = match authority::bearer(request.headers())? {
        Some(_) => Some(Bearer::of(context, request.headers(), site).await?.caller),
        None => None,
    };
    Query::parse(request.query_string(), &[])?;
    let bytes = exchange.bytes(BODY_BYTES_MAX).await?;
    let (body, name) = match handed(&bytes) {
        Some((token, name)) => (AckBody { token: Some(token), tokens: None }, name),
        None => (body::decode(&bytes)?, "token"),
    };
    let (tokens, alone) = match (body.token, body.tokens) {
        (Some(token), None) => (vec![token], Some(name)),
        (None, Some(tokens)) if tokens.len() <= ACK_TOKENS_MAX => (tokens, None),
        (None, Some(tokens)) => {
            let detail = format!("at most {ACK_TOKENS_MAX}, were {}", tokens.len());
            return Err(Problem::new(Code::Invalid, detail).field("tokens"));
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Problem::new(Code::Invalid, "either `token` or `tokens`").field("token"));
        }
    };
    let site_name = SiteName::from(site);
    let judging = tokens.iter().enumerate().map(|(index, token)| {
        let field = alone.map_or_else(|| format!("tokens[{index}]"), str::to_owned);
        let (site, caller) = (&site_name, caller.as_ref());
        async move { genuine(context, site, caller, token, &field).await }
    });
    let judged = join_all(judging).await;
    // The first that is genuine says who asks: whoever has none takes nothing of what the site may
    // ask, and learns nothing of it.
    if let Some(Ok(advance)) = judged.iter().find(|judged| judged.is_ok()) {
        slow_down(context, site, &Some(Principal::Client(advance.client.clone())))?;
    }
    let committing = judged.into_iter().map(|judged| async move {
        match judged {
            Ok(advance) => commit(context, advance).await,
            Err(problem) => Err(problem),
        }
    });
    let mut results = join_all(committing).await;
    if alone.is_some() {
        let committed = results.swap_remove(0)?;
        let result = AckResult { committed: Some(committed), problem: None };
        return Ok(Answer::ok(&AckAnswer::One(result)));
    }
    // An answer that is none to the whole request has refusals all the same.
    let mut problems = results.iter().filter_map(|result| result.as_ref().err());
    if let Some(problem) = problems.find(|problem| attempt::is_one(problem)) {
        let route = Route::Ack { site: site.to_owned() };
        attempt::note(context, request.head(), Some(&route), problem).await;
    }
    let result = |result: Result<Ack, Problem>| match result {
        Ok(committed) => AckResult { committed: Some(committed), problem: None },
        Err(problem) => AckResult { committed: None, problem: Some(problem) },
    };
    let results = AckResults { results: results.into_iter().map(result).collect() };
    Ok(Answer::ok(&AckAnswer::Several(results)))
}

/// The token of a body that is an event as it was handed out, in either format, and the name of the
/// field that it was in.
fn handed(body: &[u8]) -> Option<(String, &'static str)> {
    #[derive(Deserialize)]
    struct Handed {
        ack: Option<String>,
        ackordack: Option<String>,
        token: Option<IgnoredAny>,
        tokens: Option<IgnoredAny>,
    }
    match serde_json::from_slice(body).ok()? {
        Handed { ack: Some(ack), ackordack: None, token: None, tokens: None } => Some((ack, "ack")),
        Handed { ack: None, ackordack: Some(ack), token: None, tokens: None } => {
            Some((ack, "ackordack"))
        }
        Handed { .. } => None,
    }
}

/// Judges a token: the acknowledgement that it stands for.
async fn genuine(
    context: &Context,
    site: &SiteName,
    caller: Option<&Caller>,
    text: &str,
    field: &str,
) -> Result<Advance, Problem> {
    let claimed = AckToken::read(text).ok_or_else(|| no_token(field))?;
    match caller {
        None => {}
        Some(Caller::Site(Principal::Client(client))) if *client == claimed.token.client => {}
        Some(_) => {
            let detail = "acknowledges for another client than the one of the ack token";
            return Err(Problem::new(Code::AccessDenied, detail).field("Authorization"));
        }
    }
    let mut judged = judge(context, site, &claimed);
    if judged == Judged::Unknown {
        // A node that lags does not know of the session yet.
        context.broker.confirm(site.as_str()).await.map_err(super::open::unconfirmed)?;
        judged = judge(context, site, &claimed);
    }
    match judged {
        Judged::Good => {}
        Judged::Unknown => return Err(no_token(field)),
        Judged::Over => {
            let detail = "the token that the delivering session was opened with has expired";
            return Err(Problem::new(Code::CredentialsExpired, detail).field(field));
        }
        Judged::Revoked => {
            let detail = "the token that the delivering session was opened with was revoked";
            return Err(Problem::new(Code::BadCredentials, detail).field(field));
        }
    }
    let AckToken {
        client,
        credential: _,
        expires_ms: _,
        epoch,
        incarnation,
        event,
        generation,
        instance,
    } = claimed.token;
    let site = site.clone();
    Ok(Advance { site, client, event, epoch, incarnation, generation, instance })
}

/// Acknowledges, and waits until that is committed.
async fn commit(context: &Context, advance: Advance) -> Result<Ack, Problem> {
    let (event, generation) = (advance.event, advance.generation);
    let cursor = context.broker.acknowledge(advance).await.map_err(|(code, detail)| {
        let problem = refused((code, detail));
        // Whoever repeats an acknowledgement moves nothing back.
        let again = problem.code == Code::UnknownOutcome;
        if again { problem.retryable(true).retry_after(RETRY_AFTER_S) } else { problem }
    })?;
    Ok(Ack { subscription: event.0, instance_id: cursor.0, generation: Some(generation.0) })
}

/// What is known here of the session that a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// It made the token; whether it is still the newest is the log's to say.
    Good,
    /// No session that is remembered here made it.
    Unknown,
    /// It did, but its own credential is gone.
    Revoked,
    /// It did, but its own credential, which is not kept here, is over.
    Over,
}

fn judge(context: &Context, site: &SiteName, claimed: &Claimed) -> Judged {
    let look = |site: &Site, now| {
        let Some(client) = site.client(claimed.token.client.as_str()) else {
            return Judged::Unknown;
        };
        let credential = claimed.token.credential.as_ref();
        let holds = credential.is_none_or(|id| site.valid_token(id.as_str(), now).is_some());
        let over = claimed.token.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms());
        match (claimed.is_genuine(site.name(), client), holds, over) {
            (true, true, false) => Judged::Good,
            (true, false, _) => Judged::Revoked,
            (true, true, true) => Judged::Over,
            (false, _, _) => Judged::Unknown,
        }
    };
    context.broker.read_site(site.as_str(), look).unwrap_or(Judged::Unknown)
}

fn no_token(field: &str) -> Problem {
    let detail = "not the ack token of a delivery that is remembered here";
    Problem::new(Code::Invalid, detail).field(field)
}
