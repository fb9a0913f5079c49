//! Refused attempts on their way into the record: at one place, whoever refused them.
//!
//! Invariant: no answer 401 or 403 leaves without a note of it; and what a note says of who asked
//! was verified, or it says nothing.

use ackord_machine::site::audit::COMMON;
use ackord_machine::site::{By, Note, SiteName};
use ackord_wire::{Code, Problem};
use actix_web::dev::RequestHead;

use super::authority::{self, Bearer};
use crate::context::Context;
use crate::route::Route;

/// Has it recorded that somebody was turned away, if that is what the problem says.
pub async fn note(context: &Context, head: &RequestHead, route: Option<&Route>, problem: &Problem) {
    if !is_one(problem) {
        return;
    }
    let site = route.and_then(Route::site);
    let note = Note {
        by: By { who: who(context, head, site, problem).await, address: address(head) },
        act: format!("{} {}", head.method, route.map_or("none", Route::label)),
        target: String::new(),
        result: problem.code.as_str().to_owned(),
        count: 1,
    };
    context.broker.note(SiteName::from(site.unwrap_or(COMMON)), note);
}

/// Whether the problem is that somebody was turned away.
pub fn is_one(problem: &Problem) -> bool {
    matches!(problem.status, 401 | 403)
}

/// Where a request comes from.
pub fn address(head: &RequestHead) -> String {
    head.peer_addr.map(|peer| peer.ip().to_string()).unwrap_or_default()
}

/// How the record calls whoever was refused. A name is theirs only when they have proved it: nobody
/// has the record speak ill of others.
async fn who(
    context: &Context,
    head: &RequestHead,
    site: Option<&str>,
    problem: &Problem,
) -> String {
    let token = match authority::bearer(&head.headers) {
        Ok(Some(token)) => token,
        Ok(None) => return "anonymous".to_owned(),
        Err(_) => return "unreadable".to_owned(),
    };
    // Whoever may not do what they ask for was known before that was found; a page's origin is
    // judged before anybody is looked up.
    let known = problem.code == Code::AccessDenied && problem.field.as_deref() != Some("Origin");
    let bearer = match site {
        _ if !known => None,
        Some(site) => Bearer::of(context, &head.headers, site).await.ok(),
        None => authority::is_node_admin(context, token).then(Bearer::node),
    };
    bearer.map_or_else(|| "unknown".to_owned(), |bearer| bearer.who)
}
