//! Tokens: made here, shown once, known to the state only by their hash.

use ackord_machine::site::{self as machine, AdminAction, Digest, Object, Site, TokenId};
use ackord_wire::resource::{self, NewToken, TokenBody};
use ackord_wire::{Code, Problem};
use actix_web::http::Method;

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange, not_found};
use super::list::Wanted;
use super::query;
use crate::convert;

/// `/v1/sites/{site}/tokens`.
pub async fn all(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    if exchange.reads() {
        let known = &["limit", "after", "consistency", "prefix", "principal"];
        let allowed = exchange.authorize(site, Need::Read, known).await?;
        let wanted = Wanted::of(&allowed.query)?;
        let principal = allowed.query.get("principal").map(principal).transpose()?;
        let look = |site: &Site, _| {
            let rows = wanted.rows(|id| site.token(id), |after| site.tokens_after(after));
            let keep = |row: &machine::TokenRow| {
                principal.as_ref().is_none_or(|principal| row.principal == *principal)
            };
            wanted.page(rows, |row| row.id.as_str(), keep, token_out)
        };
        return Ok(Answer::ok(&allowed.look(site, look).await?));
    }
    create(exchange.authorize(site, Need::Admin, &[]).await?, site).await
}

async fn create(mut allowed: Allowed<'_>, site: &str) -> Result<Answer, Problem> {
    let bytes = allowed.bytes().await?;
    let body: TokenBody = super::body::decode(&bytes)?;
    // The id follows from the request, so that a repeat under the same key finds what it made.
    let request = allowed.request_id("create", &bytes)?;
    let id = TokenId::from(format!("t{}", convert::hex(&request.0[..8])));
    let minted = ackord_agents::token::mint(&id);
    let lifetime_ms = body.expires_in_s.map(|seconds| seconds.saturating_mul(1000));
    let action = AdminAction::IssueToken {
        id: id.clone(),
        hash: minted.hash,
        principal: convert::principal_in(&body.principal),
        lifetime_ms,
        note: body.note,
    };
    allowed.act(site, request, action).await.map_err(|problem| match problem.field.as_deref() {
        Some("lifetime") => problem.field("expires_in_s"),
        Some(_) | None => problem,
    })?;
    let kept = |site: &Site, _| site.token(id.as_str()).map(|row| (row.hash, row.expires));
    let kept = match allowed.look(site, kept).await {
        // With its site it is gone, too.
        Err(problem) if problem.code == Code::NotFound => None,
        kept => kept?,
    };
    match kept {
        Some((hash, expires)) if same(&hash, &minted.hash) => Ok(Answer::created(&NewToken {
            id: id.to_string(),
            token: minted.text,
            principal: body.principal,
            expires_ms: expires.map(|stamp| stamp.0),
        })),
        // A repeat under one key: the secret of the first answer is known to nobody here.
        Some(_) => {
            let detail = format!(
                "this key has already made the token {id}, whose secret was shown once; revoke it \
                 and ask again under another key"
            );
            Err(Problem::new(Code::Conflict, detail).field("Idempotency-Key"))
        }
        None => Err(Problem::new(Code::Conflict, format!("the token {id} was revoked meanwhile"))),
    }
}

/// `/v1/sites/{site}/tokens/{id}`.
pub async fn one(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    if *exchange.method() == Method::DELETE {
        let allowed = exchange.authorize(site, Need::Admin, &[]).await?;
        let request = allowed.request_id("delete", b"")?;
        allowed.act(site, request, AdminAction::RevokeToken { id: id.into() }).await?;
        return Ok(Answer::no_content());
    }
    let allowed = exchange.authorize(site, Need::Read, &["consistency"]).await?;
    let look = |site: &Site, _| {
        let token = token_out(site.token(id)?);
        Some((token, site.revision(&Object::Token(id.into()))))
    };
    let found = allowed.look(site, look).await?;
    let found = found.map(|(token, revision)| Answer::ok(&token).tagged(revision));
    found.ok_or_else(|| not_found("token", id))
}

/// A principal as a query writes it.
fn principal(text: &str) -> Result<machine::Principal, Problem> {
    let named = match text.split_once(':') {
        Some(("service", id)) => Some(machine::Principal::Service(id.into())),
        Some(("client", id)) => Some(machine::Principal::Client(id.into())),
        Some(_) => None,
        None => match text {
            "admin" => Some(machine::Principal::Admin),
            "operator" => Some(machine::Principal::Operator),
            "observer" => Some(machine::Principal::Observer),
            _ => None,
        },
    };
    named.ok_or_else(|| {
        let detail = format!("admin, operator, observer, service:ID or client:ID, was {text:?}");
        query::invalid("principal", &detail)
    })
}

fn token_out(row: &machine::TokenRow) -> resource::Token {
    resource::Token {
        id: row.id.to_string(),
        principal: convert::principal_out(&row.principal),
        created_ms: row.created.0,
        expires_ms: row.expires.map(|stamp| stamp.0),
        note: row.note.clone(),
    }
}

fn same(a: &Digest, b: &Digest) -> bool {
    ackord_agents::token::same(a, b)
}
