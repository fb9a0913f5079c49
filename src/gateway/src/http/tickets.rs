//! Tickets: what a page puts into the address of a WebSocket or an event stream, once.

use ackord_machine::site::{Principal, SiteName};
use ackord_wire::govern::{NewTicket, TicketBody};
use ackord_wire::{Code, Problem};

use super::answer::Answer;
use super::authority::{Caller, Need};
use super::exchange::{Exchange, refused};
use crate::convert;

/// Seconds that a ticket is good for, unless somebody asks for other ones.
const EXPIRES_S_DEFAULT: u32 = 60;
/// The most that may be asked for.
const EXPIRES_S_MAX: u32 = 300;

/// `POST /v1/sites/{site}/tickets`.
pub async fn issue(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let mut allowed = exchange.authorize(site, Need::Member, &[]).await?;
    let body: TicketBody = super::body::decode(&allowed.bytes().await?)?;
    let expires_in_s = body.expires_in_s.unwrap_or(EXPIRES_S_DEFAULT);
    if !(1..=EXPIRES_S_MAX).contains(&expires_in_s) {
        let detail = format!("1..={EXPIRES_S_MAX}, was {expires_in_s}");
        return Err(Problem::new(Code::Invalid, detail).field("expires_in_s"));
    }
    let client = match (&allowed.bearer.caller, &body.client) {
        (Caller::Site(Principal::Client(own)), None) => own.clone(),
        (Caller::Site(Principal::Client(own)), Some(asked)) if own.as_str() == asked => own.clone(),
        (Caller::Node | Caller::Site(Principal::Admin), Some(asked)) => asked.as_str().into(),
        (Caller::Node | Caller::Site(Principal::Admin), None) => {
            return Err(Problem::new(Code::Invalid, "for which client?").field("client"));
        }
        (Caller::Site(_), _) => {
            let detail = "takes the client's own token, or one that administers the site";
            return Err(Problem::new(Code::AccessDenied, detail).field("Authorization"));
        }
    };
    let (name, principal) = (SiteName::from(site), Principal::Client(client));
    let (token, until_ms) = (allowed.bearer.token.clone(), allowed.bearer.expires_ms);
    let lifetime_ms = u64::from(expires_in_s) * 1000;
    let broker = &allowed.context.broker;
    let ticket = broker.issue_ticket(&name, principal.clone(), token, until_ms, lifetime_ms).await;
    let ticket = ticket.map_err(|(code, detail)| match code {
        Code::UnknownClient => Problem::new(Code::NotFound, "no such client").field("client"),
        code => refused((code, detail)),
    })?;
    let principal = convert::principal_out(&principal);
    Ok(Answer::created(&NewTicket { ticket, principal, expires_in_s }))
}
