//! One request on its way to an answer: the steps that every resource takes, in their order.
//!
//! Invariant: [`Exchange::authorize`] comes before the query and the body are looked at; the
//! type of the steps makes the order hard to get wrong.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::audit::{COMMON, DONE};
use ackord_machine::site::limits::KEY_BYTES_MAX;
use ackord_machine::site::{
    AdminAction, Administer, By, Incarnation, Note, Outcome, Precondition, Principal, RequestId,
    Site, SiteName, Stamp,
};
use ackord_wire::resource::SiteSettings;
use ackord_wire::{Code, Problem};
use actix_web::http::{Method, header};
use actix_web::{HttpRequest, web};
use sha2::{Digest as _, Sha256};

use super::RETRY_AFTER_S;
use super::attempt;
use super::authority::{Bearer, Caller, Need};
use super::body::{self, BodyLimits};
use super::query::{Consistency, Query};
use crate::context::Context;
use crate::convert;

/// Until an unconfirmed read is tried again.
const CONFIRM_RETRY: Duration = Duration::from_millis(20);

/// A request whose sender is not known yet.
pub struct Exchange<'a> {
    pub context: &'a Arc<Context>,
    request: &'a HttpRequest,
    payload: &'a mut web::Payload,
    acted: &'a Cell<bool>,
}

/// A request whose sender may do what it asks for.
pub struct Allowed<'a> {
    pub context: &'a Arc<Context>,
    pub bearer: Bearer,
    pub query: Query,
    request: &'a HttpRequest,
    payload: &'a mut web::Payload,
    acted: &'a Cell<bool>,
}

impl<'a> Exchange<'a> {
    /// `acted` becomes true with the first act that is done.
    pub fn new(
        context: &'a Arc<Context>,
        request: &'a HttpRequest,
        payload: &'a mut web::Payload,
        acted: &'a Cell<bool>,
    ) -> Self {
        Self { context, request, payload, acted }
    }

    /// Whether the request only reads.
    pub fn reads(&self) -> bool {
        matches!(*self.request.method(), Method::GET | Method::HEAD)
    }

    /// The method, of those that the route has.
    pub fn method(&self) -> &'a Method {
        self.request.method()
    }

    /// The request itself.
    pub fn request(&self) -> &'a HttpRequest {
        self.request
    }

    /// The body of a request whose sender shows by it who they are, at most so many bytes.
    pub async fn bytes(self, bytes_max: usize) -> Result<web::Bytes, Problem> {
        let limits = BodyLimits { bytes_max, deadline: self.context.limits().body_deadline };
        let announced = self.request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
        body::read(self.payload, announced, limits).await
    }

    /// A request about this site by somebody who may; `known` are the query's parameters.
    pub async fn authorize(
        self,
        site: &str,
        need: Need<'_>,
        known: &[&str],
    ) -> Result<Allowed<'a>, Problem> {
        let bearer = Bearer::of(self.context, self.request.headers(), site).await?;
        if let Caller::Site(principal) = &bearer.caller {
            slow_down(self.context, site, &Some(principal.clone()))?;
        }
        if bearer.token.is_none() {
            // A JWT may name an account that is not there; a token of the site cannot.
            registered(self.context, site, &bearer.caller)?;
        }
        bearer.caller.may(need)?;
        self.allow(bearer, known)
    }

    /// A request about the node.
    pub fn authorize_node(self, known: &[&str]) -> Result<Allowed<'a>, Problem> {
        let bearer = Bearer::of_node(self.context, self.request.headers())?;
        self.allow(bearer, known)
    }

    fn allow(self, bearer: Bearer, known: &[&str]) -> Result<Allowed<'a>, Problem> {
        let reads = self.reads();
        let allowed = Allowed {
            context: self.context,
            bearer,
            query: Query::parse(self.request.query_string(), known)?,
            request: self.request,
            payload: self.payload,
            acted: self.acted,
        };
        if !reads {
            // Also where nothing turns out to be left to do: a wrong key is never passed over.
            allowed.key()?;
        }
        Ok(allowed)
    }
}

impl Allowed<'_> {
    /// The headers of the request.
    pub fn headers(&self) -> &header::HeaderMap {
        self.request.headers()
    }

    /// The value of a header, if it is given, once and as visible text.
    pub fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        let wrong = |detail: &str| Problem::new(Code::Invalid, detail).field(name);
        let mut values = self.request.headers().get_all(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(wrong("may be given once"));
        }
        value.to_str().map(Some).map_err(|_| wrong("not visible ASCII text"))
    }

    /// The body, as far as the limits of the front allow.
    pub async fn bytes(&mut self) -> Result<web::Bytes, Problem> {
        // Nothing is unpacked: what it grows to would have to be bounded too.
        let coding = self.header("Content-Encoding")?;
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let problem = Problem::new(Code::Invalid, "bodies are taken as they are: identity");
            return Err(problem.field("Content-Encoding"));
        }
        let limits = self.context.limits();
        let limits =
            BodyLimits { bytes_max: limits.body_bytes_max, deadline: limits.body_deadline };
        let announced =
            self.header(header::CONTENT_LENGTH.as_str())?.and_then(|length| length.parse().ok());
        body::read(self.payload, announced, limits).await
    }

    /// The idempotency key of the request, from `Idempotency-Key` or `Request-Id`.
    pub fn key(&self) -> Result<Option<&str>, Problem> {
        let (name, key) = match self.header("Idempotency-Key")? {
            Some(key) => ("Idempotency-Key", Some(key)),
            None => ("Request-Id", self.header("Request-Id")?),
        };
        if key.is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            let detail = format!("1..={KEY_BYTES_MAX} characters");
            return Err(Problem::new(Code::Invalid, detail).field(name));
        }
        Ok(key)
    }

    /// The retry identity of a step of this request. The same key of the same caller with the same
    /// method, address and body is the same act; anything else is another one: who happens to choose
    /// the key of somebody else gets no answer of theirs. Without a key it is random.
    pub fn request_id(&self, step: &str, body: &[u8]) -> Result<RequestId, Problem> {
        let Some(key) = self.key()? else { return Ok(RequestId(random())) };
        let mut hash = Sha256::new();
        let uri = self.request.uri().to_string();
        for part in [
            self.bearer.who.as_bytes(),
            step.as_bytes(),
            self.request.method().as_str().as_bytes(),
            uri.as_bytes(),
            key.as_bytes(),
            body,
        ] {
            // The length keeps two parts from being read as other two.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Ok(RequestId(id))
    }

    /// Does an act of administration.
    pub async fn act(
        &self,
        site: &str,
        request: RequestId,
        action: AdminAction,
    ) -> Result<Outcome, Problem> {
        let (site, by, expected) = (SiteName::from(site), self.by(), self.precondition()?);
        let asked = Administer { request, site, action, by, expected };
        let done = self.context.broker.administer(asked).await.map_err(refused)?;
        self.acted.set(true);
        Ok(done)
    }

    /// On whose behalf the request acts.
    pub fn by(&self) -> By {
        By { who: self.bearer.who.clone(), address: attempt::address(self.request.head()) }
    }

    /// Has an act recorded that is none of a site's own.
    pub fn record(&self, act: &str, target: String) {
        let (by, act, result) = (self.by(), act.to_owned(), DONE.to_owned());
        let note = Note { by, act, target, result, count: 1 };
        self.context.broker.note(SiteName::from(COMMON), note);
    }

    /// How the object of the request must be: `If-Match` with a revision or `*`, or
    /// `If-None-Match: *`.
    fn precondition(&self) -> Result<Option<Precondition>, Problem> {
        let wrong = |field: &str, detail: &str| Problem::new(Code::Invalid, detail).field(field);
        match (self.header("If-Match")?, self.header("If-None-Match")?) {
            (None, None) => Ok(None),
            (Some("*"), None) => Ok(Some(Precondition::Present)),
            (Some(tag), None) => revision_of(tag)
                .map(|it| Some(Precondition::Revision(it)))
                .ok_or_else(|| wrong("If-Match", "`*`, or one `ETag` as it was answered")),
            (None, Some("*")) => Ok(Some(Precondition::Absent)),
            (None, Some(_)) => {
                Err(wrong("If-None-Match", "only `*` in a request that changes something"))
            }
            (Some(_), Some(_)) => Err(wrong("If-None-Match", "not together with `If-Match`")),
        }
    }

    /// Asks whether the site would take an act, and does not do it.
    pub fn consider(&self, site: &str, action: AdminAction) -> Result<(), Problem> {
        let settings = convert::settings_in(&SiteSettings::default());
        self.context.broker.consider(&SiteName::from(site), action, settings).map_err(refused)
    }

    /// Looks at the site, as fresh as the query asks for; after an act, which this node has applied when
    /// it is known to be done, as it is here.
    pub async fn look<R>(
        &self,
        site: &str,
        look: impl FnOnce(&Site, Stamp) -> R,
    ) -> Result<R, Problem> {
        if self.query.consistency()? == Consistency::Linearizable && !self.acted.get() {
            self.confirm(site).await?;
        }
        self.context.broker.read_site(site, look).ok_or_else(|| not_found("site", site))
    }

    /// Waits until reads of the site reflect everything acknowledged before now.
    pub async fn confirm(&self, site: &str) -> Result<(), Problem> {
        let broker = &self.context.broker;
        confirm(self.context, || broker.read_site_linearizable(site, |_, _| ())).await.map(drop)
    }

    /// As [`Allowed::confirm`], for all sites.
    pub async fn confirm_all(&self) -> Result<(), Problem> {
        let broker = &self.context.broker;
        confirm(self.context, || broker.read_all_linearizable(|_| ())).await
    }
}

/// Whether an account that was named by somebody else is one of the site.
fn registered(context: &Context, site: &str, caller: &Caller) -> Result<(), Problem> {
    let known = |known: &Site| match caller {
        Caller::Site(Principal::Client(id)) => known.client(id.as_str()).is_some(),
        Caller::Site(Principal::Service(id)) => known.service(id.as_str()).is_some(),
        Caller::Site(Principal::Admin | Principal::Operator | Principal::Observer)
        | Caller::Node => true,
    };
    if context.broker.read_site(site, |site, _| known(site)) == Some(false) {
        let detail = "the account that the token names is not registered on the site";
        return Err(Problem::new(Code::AccessDenied, detail).field("Authorization"));
    }
    Ok(())
}

/// Judges a request by the site's quotas; `None` is a guest. The node's administrator is bounded by
/// none.
pub fn slow_down(
    context: &Context,
    site: &str,
    account: &Option<Principal>,
) -> Result<(), Problem> {
    let quotas = context.broker.quotas(site);
    context.rates.take(site, account, &quotas).map_err(|too_fast| {
        let detail = format!("quota {}: at most {}", too_fast.quota, too_fast.most);
        let wait_s = too_fast.wait.as_secs_f64().ceil().clamp(1.0, 60.0);
        Problem::new(Code::RateLimited, detail).retry_after(wait_s as u32)
    })
}

/// A revision as an entity tag.
pub fn tag_of(revision: u64) -> String {
    format!("\"{revision:016x}\"")
}

/// The revision of an entity tag that [`tag_of`] made.
fn revision_of(tag: &str) -> Option<u64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let hex = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Repeats a linearizing read until it is confirmed: a change of leader takes a moment.
pub async fn confirm<R, F>(context: &Context, read: impl Fn() -> F) -> Result<R, Problem>
where
    F: Future<Output = Result<R, Code>>,
{
    let trying = async {
        loop {
            match read().await {
                Ok(done) => return done,
                Err(_) => tokio::time::sleep(CONFIRM_RETRY).await,
            }
        }
    };
    let deadline = context.limits().read_deadline;
    tokio::time::timeout(deadline, trying).await.map_err(|_| {
        let detail = "the state cannot be confirmed now; `?consistency=local` reads it unconfirmed";
        Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER_S)
    })
}

/// A refusal of the broker.
pub fn refused(refused: ackord_agents::Refused) -> Problem {
    let (code, detail) = refused;
    // An invalid field is named in front of what is wrong with it.
    let names_field = matches!(code, Code::Invalid | Code::BadQos);
    let problem = match detail.split_once(": ").filter(|_| names_field) {
        Some((field, rule)) => Problem::new(code, rule).field(field),
        None => Problem::new(code, detail),
    };
    if problem.retryable { problem.retry_after(RETRY_AFTER_S) } else { problem }
}

/// No such object.
pub fn not_found(kind: &str, name: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no {kind} {name:?}"))
}

/// Random bytes of the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without the system's random source no identity is safe: better to stop than to go on.
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}

/// A random incarnation: below 2^53, so that every JSON reader keeps it, and never 0.
pub fn incarnation() -> Incarnation {
    Incarnation((u64::from_le_bytes(random()) >> 11).max(1))
}
