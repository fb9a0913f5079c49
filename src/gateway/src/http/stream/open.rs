//! How a stream opens: the session that is spoken for, up to the answer's head, which says where
//! delivery goes on.
//!
//! `who ─▶ linearize ─▶ hello ─▶ welcome ─▶ (guest) subscriptions | (client) subscribe ─▶ subscribed ─▶ head`
//!
//! A session that does not come about is a problem document, like any other refusal.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ackord_agents::{Broker, Connection, Inbound, Outbound, Said, Transport, outbox};
use ackord_machine::site::limits::EVENTS_MAX;
use ackord_machine::site::{
    Epoch, EventKey, Generation, Incarnation, InstanceId, Principal, Receiver, SessionId, Site,
    SiteName, TokenId,
};
use ackord_wire::code::CLOSE_CODES;
use ackord_wire::frame::{
    ClientFrame, ClientHello, ClientWelcome, Closing, Subscribed, Subscription, SubscriptionList,
};
use ackord_wire::stream::Resume;
use ackord_wire::{ClientMessage, Code, Codec, Problem};
use actix_web::body::BoxBody;
use actix_web::http::Version;
use futures_channel::mpsc;
use tokio::time::timeout;

use super::super::RETRY_AFTER_S;
use super::super::answer::Answer;
use super::super::exchange::{Exchange, slow_down};
use super::super::query::Query;
use super::ask::{COMMON, Given, REPEATED, Wanted, refused_event};
use super::body::{Events, Opening, Stateful, Teller, closing_of};
use super::frame::{RESUME, SUBSCRIBED, write_control, write_retry};
use super::position::Positions;
use super::resume::{self, resume};
use crate::context::Context;
use crate::identity::Bearer;
use crate::meter::Meter;
use crate::route::Endpoint;
use crate::ws::admit::enter;

/// How long a session may take to open: longer than it is patient itself.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);
/// What a session is told and has not taken: an acknowledgement for each subscription, lists, pongs.
const INLET_MAX: usize = 2 * EVENTS_MAX;
/// What a session may say while it opens, with an event of each subscription.
const WAITING_MAX: usize = 4 * EVENTS_MAX;
/// How long a browser waits before it connects again, milliseconds.
const RETRY_MS: u64 = 1000;

/// `GET /v1/sites/{site}/events`.
pub async fn stream(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let (context, request) = (exchange.context, exchange.request());
    if context.stopping.is_cancelled() {
        let problem = Problem::new(Code::ShuttingDown, "the node is shutting down");
        return Err(problem.retry_after(RETRY_AFTER_S));
    }
    if request.version() < Version::HTTP_11 {
        // Its end could not be told from a connection that broke.
        let detail = "an event stream takes HTTP/1.1; a question to `next` does without";
        return Err(Problem::new(Code::Invalid, detail));
    }
    let known: Vec<&str> = COMMON.into_iter().chain(["last_event_id", "ticket"]).collect();
    let query = Query::parse_repeated(request.query_string(), &known, REPEATED)?;
    let ticket = query.get("ticket");
    let bearer = enter(context, request.head(), site, Endpoint::Client, ticket).await?;
    let principal = bearer.as_ref().map(|bearer| bearer.principal.clone());
    slow_down(context, site, &principal)?;
    let given = Given::of_stream(request.headers(), &query);
    let wanted = Wanted::of(&query, given, principal.as_ref())?;
    // The names are looked up, and the session's claim made, in a state that knows of everything
    // that this client has seen, at whatever node.
    context.broker.confirm(site).await.map_err(unconfirmed)?;
    let peer = request.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    let meter = request.conn_data::<Rc<Meter>>().cloned().unwrap_or_default();
    let mut session = Session::open(context, site, bearer, peer);
    let opened = tokio::select! {
        opened = timeout(OPEN_DEADLINE, session.until_subscribed(&wanted)) => opened,
        () = meter.gone() => return Err(Problem::new(Code::IdleTimeout, "the peer is gone")),
    };
    let late = || Problem::new(Code::Unavailable, "the session did not open in time");
    let (welcome, subscribed) = opened.map_err(|_elapsed| late().retry_after(RETRY_AFTER_S))??;
    Ok(session.into_answer(context, meter, wanted, welcome, subscribed))
}

/// That everything acknowledged is known here cannot be confirmed now.
pub fn unconfirmed(code: Code) -> Problem {
    let detail = "the state cannot be confirmed now: try another node";
    Problem::new(code, detail).retry_after(RETRY_AFTER_S)
}

/// A session that is spoken for.
struct Session {
    broker: Broker,
    site: SiteName,
    principal: Option<Principal>,
    token: Option<TokenId>,
    expires_ms: Option<u64>,
    id: SessionId,
    inlet: mpsc::Sender<Inbound>,
    said: Said,
    /// Said and not for the opening.
    waiting: VecDeque<Outbound>,
}

impl Session {
    fn open(context: &Arc<Context>, site: &str, bearer: Option<Bearer>, peer: String) -> Self {
        let expires_ms = bearer.as_ref().and_then(|bearer| bearer.expires_ms);
        let (principal, token) = bearer.map(|bearer| (bearer.principal, bearer.token)).unzip();
        let token = token.flatten();
        let (inlet, frames) = mpsc::channel(INLET_MAX);
        let (outbox, said) = outbox(context.limits().outbox_messages);
        let (broker, site) = (context.broker.clone(), SiteName::from(site));
        let id = broker.open_client(
            Connection {
                site: site.clone(),
                principal: principal.clone(),
                token: token.clone(),
                expires_ms,
                codec: Codec::Json,
                outbox,
                peer: peer.into_boxed_str(),
                transport: Transport::EventStream,
            },
            frames,
        );
        let waiting = VecDeque::new();
        let mut session =
            Self { broker, site, principal, token, expires_ms, id, inlet, said, waiting };
        let keepalive_s = Some(context.limits().heartbeat_s);
        let hello = ClientHello { keepalive_s, ..ClientHello::default() };
        session.say(&ClientFrame::Hello(hello));
        session
    }

    fn say(&mut self, frame: &ClientFrame) {
        // There is room while it opens; a session that has ended says so itself.
        let _ended = self.inlet.try_send(Inbound::Frame(Codec::Json.encode(frame).into()));
    }

    fn list(&self, wanted: &Wanted) -> Vec<Subscription> {
        let items = |site: &Site, _| wanted.subscriptions(site);
        // Of a site that is gone by now the session knows too.
        self.broker.read_site(self.site.as_str(), items).unwrap_or_default()
    }

    /// Speaks until it is known what is subscribed; what else is said meanwhile waits.
    async fn until_subscribed(
        &mut self,
        wanted: &Wanted,
    ) -> Result<(ClientWelcome, Subscribed), Problem> {
        let guest = self.principal.is_none();
        let mut welcomed = None;
        let mut kept: Option<Subscribed> = None;
        loop {
            let bytes = match poll_fn(|task| self.said.poll_next(task)).await {
                Some(Outbound::Frame(bytes) | Outbound::Receipted(bytes, _)) => bytes,
                Some(Outbound::Ping) if welcomed.is_none() => return Err(overtaken()),
                Some(Outbound::Ping) => {
                    self.wait(Outbound::Ping)?;
                    continue;
                }
                Some(Outbound::Close { number, .. }) => {
                    let close = CLOSE_CODES.iter().find(|close| close.number == number);
                    let code = close.map_or(Code::Internal, |close| close.code);
                    return Err(closed(&closing_of(code)));
                }
                None => return Err(closed(&closing_of(Code::Internal))),
            };
            let message = Codec::Json.decode(&bytes).map_err(|error| {
                Problem::new(Code::Internal, format!("the session said nonsense: {error}"))
            })?;
            match (message, &kept) {
                (ClientMessage::Welcome(welcome), _) => {
                    welcomed = Some(welcome);
                    if guest {
                        let items = self.list(wanted);
                        self.say(&ClientFrame::Subscriptions(SubscriptionList { items }));
                    }
                }
                // To a registered client the set that it has is told first.
                (ClientMessage::Subscribed(set), None) if !guest && !wanted.events.is_empty() => {
                    kept = Some(set);
                    let items = self.list(wanted);
                    self.say(&ClientFrame::Subscribe(SubscriptionList { items }));
                }
                (ClientMessage::Subscribed(added), Some(_))
                    if added.accepted.is_empty() && added.refused.is_empty() =>
                {
                    self.wait(Outbound::Frame(bytes))?;
                }
                (ClientMessage::Subscribed(mut subscribed), _) => {
                    if let Some(before) = kept {
                        let known = |item: &_| subscribed.accepted.iter().any(|it| same(it, item));
                        let others: Vec<_> =
                            before.accepted.into_iter().filter(|item| !known(item)).collect();
                        subscribed.accepted.extend(others);
                    }
                    if let (true, Some(refused)) =
                        (subscribed.accepted.is_empty(), subscribed.refused.first())
                    {
                        let detail = format!("{}: {}", refused.event, refused.detail);
                        return Err(refused_event(refused.code, detail));
                    }
                    let welcome = welcomed.ok_or_else(|| {
                        Problem::new(Code::Internal, "subscribed before the welcome")
                    })?;
                    return Ok((welcome, subscribed));
                }
                (ClientMessage::Closing(closing), _) => return Err(closed(&closing)),
                (
                    ClientMessage::Event(_)
                    | ClientMessage::Events(_)
                    | ClientMessage::Committed(_)
                    | ClientMessage::Authority { .. }
                    | ClientMessage::Presence(_),
                    _,
                ) => self.wait(Outbound::Frame(bytes))?,
            }
        }
    }

    fn wait(&mut self, outbound: Outbound) -> Result<(), Problem> {
        if self.waiting.len() >= WAITING_MAX {
            let detail = "too much happens while the session opens: try again";
            return Err(Problem::new(Code::Busy, detail).retry_after(RETRY_AFTER_S));
        }
        self.waiting.push_back(outbound);
        Ok(())
    }

    /// The answer: its head, and the body that goes on with the session.
    fn into_answer(
        self,
        context: &Arc<Context>,
        meter: Rc<Meter>,
        wanted: Wanted,
        welcome: ClientWelcome,
        subscribed: Subscribed,
    ) -> Answer {
        let (who, stateful) = match self.principal {
            Some(Principal::Client(client)) => {
                let (session, epoch) = (self.id, Epoch(welcome.epoch));
                let (credential, expires_ms) = (self.token, self.expires_ms);
                let stateful =
                    Stateful { client: client.clone(), credential, expires_ms, session, epoch };
                (Receiver::Client(client), Some(stateful))
            }
            _ => (Receiver::Stateless, None),
        };
        let mut positions = Positions::new(Incarnation(welcome.incarnation));
        for item in &subscribed.accepted {
            let (event, position) = (EventKey(item.subscription), item.position);
            let generation = Generation(position.generation);
            positions.set(event, generation, InstanceId(position.instance_id));
        }
        let say =
            |site: &Site, _| resume(site, &who, &wanted.given, &subscribed.accepted, &positions);
        // A site that is gone by now has nothing to say; its session says so next.
        let resume = self
            .broker
            .read_site(self.site.as_str(), say)
            .unwrap_or_else(|| Resume { resumed_from: positions.text(), ..Resume::default() });
        let mut head = Vec::with_capacity(512);
        write_retry(&mut head, RETRY_MS);
        write_control(&mut head, Some(&resume.resumed_from), RESUME, &resume);
        write_control(&mut head, None, SUBSCRIBED, &subscribed);
        let (site, format) = (self.site, wanted.format);
        let teller = Teller { site, format, stateful, positions, closing: false };
        let (inlet, said, waiting) = (self.inlet, self.said, self.waiting);
        let opening = Opening { meter, teller, inlet, said, waiting, head };
        let body = BoxBody::new(Events::new(context.clone(), opening));
        Answer::stream("text/event-stream", body)
            .header("x-accel-buffering", "no")
            .header(resume::HEADER, &resume::header(&resume))
    }
}

fn same(a: &ackord_wire::frame::SubscribedItem, b: &ackord_wire::frame::SubscribedItem) -> bool {
    a.subscription == b.subscription
}

/// Another session of the client attached while this one opened. A browser cannot be asked whether
/// it is still there: it comes again, and is the newer one then.
fn overtaken() -> Problem {
    let detail = "another session of this client attached at the same time: connect again";
    Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER_S)
}

/// The session closed before the stream began.
fn closed(closing: &Closing) -> Problem {
    let problem = Problem::new(closing.code, closing.detail.clone()).retryable(closing.reconnect);
    let after_s = closing.retry_after_ms.map(|ms| ms.div_ceil(1000) as u32);
    if closing.reconnect { problem.retry_after(after_s.unwrap_or(RETRY_AFTER_S)) } else { problem }
}
