//! Why a client got an instance or did not, and why somebody may do something or may not.
//!
//! Why is answered from two places: the replicated state says what became of the instance and where
//! the cursor stands, the nodes say what they sent and what is in flight, as far as they remember.

use ackord_agents::live::{Live, LiveKind, LiveQuery, Reach};
use ackord_agents::trace::{Sent, Trace, TraceQuery};
use ackord_machine::site::{
    self as machine, ClientId, Denial, Departed, EventKey, Fate, Gone, Incarnation, InstanceId,
    Principal, Receiver, Ruling, Site, SiteName, Stamp, WhyNot,
};
use ackord_wire::govern::{
    CanI, InstanceFate, TRANSMISSIONS_MAX, Transmission, Why, WhySent, WhySubscription,
};
use ackord_wire::{Code, Problem};

use super::answer::Answer;
use super::authority::{Caller, Need};
use super::exchange::Exchange;
use super::{live, query};
use crate::context::Context;
use crate::convert;

fn required<'q>(query: &'q query::Query, name: &str) -> Result<&'q str, Problem> {
    query.get(name).ok_or_else(|| query::invalid(name, "is needed here"))
}

/// `GET /v1/sites/{site}/why?client=&event=&instance_id=`.
pub async fn why(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["client", "event", "instance_id", "consistency"];
    let allowed = exchange.authorize(site, Need::Member, known).await?;
    let (client, event) = (required(&allowed.query, "client")?, required(&allowed.query, "event")?);
    allowed.bearer.caller.may(Need::ReadClient(client))?;
    let id = allowed.query.number("instance_id")?;
    let id = id.ok_or_else(|| query::invalid("instance_id", "is needed here"))?;
    let replicas = allowed.context.broker.replicas(site);
    let reach = live::reach(&allowed)?;
    let (id, client) = (InstanceId(id), ClientId::from(client));
    // Whoever reads the site is told all; a client of what is not for it only that.
    let all = allowed.bearer.caller.may(Need::Read).is_ok();
    let look = |site: &Site, now| {
        let known = site.event_named(event).filter(|_| site.client(client.as_str()).is_some());
        let mut why = explain(site, now, &client, event, id, &replicas);
        if !all && !is_for(site, &client, event, &why) {
            why.instance = InstanceFate { fate: "withheld".to_owned(), ..InstanceFate::default() };
        }
        (why, known.map(|row| row.key), site.incarnation())
    };
    let (mut why, known, incarnation) = allowed.look(site, look).await?;
    if let Some(event) = known {
        let asked = Asked { site: SiteName::from(site), client, event, id, incarnation };
        asked.complete(allowed.context, reach, &mut why).await;
    }
    Ok(Answer::ok(&why))
}

/// Whether an instance is one that the client may know about.
fn is_for(site: &Site, client: &ClientId, event: &str, why: &Why) -> bool {
    let receiver = Receiver::Client(client.clone());
    let granted = site.event_named(event).is_some_and(|row| site.may_receive(row.key, &receiver));
    granted && !matches!(why.verdict.as_str(), "other-event" | "not-addressed")
}

/// What the nodes are asked about.
struct Asked {
    site: SiteName,
    client: ClientId,
    event: EventKey,
    id: InstanceId,
    incarnation: Incarnation,
}

impl Asked {
    /// Adds what the nodes remember.
    async fn complete(&self, context: &Context, reach: Reach, why: &mut Why) {
        let sessions = LiveQuery::of(LiveKind::Client, self.client.as_str());
        let traced = TraceQuery {
            site: self.site.clone(),
            client: self.client.clone(),
            event: self.event,
            instance: Some(self.id),
        };
        let broker = &context.broker;
        let asked = (broker.live(&self.site, sessions, reach), broker.trace(traced, reach));
        let (found, trace) = futures_util::join!(asked.0, asked.1);
        why.sent = Some(self.sent(&trace));
        let mut silent = found.not_reached.clone();
        silent.extend(trace.not_reached.iter());
        why.not_reached = live::not_reached(&silent);
        if let Some(subscription) = &mut why.subscription {
            let (session, in_flight) = live::served(&found, self.event);
            (subscription.session, subscription.in_flight) = (session, in_flight);
        }
        match why.verdict.as_str() {
            NEXT => self.settle(&found, why),
            PASSED => remember(why),
            _ => {}
        }
    }

    /// The next one: whether it is on its way, or waits for the client to connect.
    fn settle(&self, found: &Live, why: &mut Why) {
        let subscription = why.subscription.as_ref();
        let in_flight = subscription.and_then(|it| it.in_flight.as_ref());
        match in_flight.filter(|it| it.instance_id == self.id.0) {
            Some(it) => {
                let (node, attempt) = (it.node, it.attempt);
                why.verdict = "in-flight".to_owned();
                why.because =
                    format!("node {node} has sent it, attempt {attempt}; it is not acknowledged");
            }
            None if found.newest().is_none() && found.not_reached.is_empty() => {
                why.because =
                    "it is the next one: sent when the client is connected, which it is not"
                        .to_owned();
            }
            None => {}
        }
    }

    fn sent(&self, trace: &Trace) -> WhySent {
        // Ids of another life of the site name other instances.
        let of_this_life = |sent: &&Sent| sent.incarnation == self.incarnation.0;
        let mut transmissions = Vec::new();
        let mut times = 0;
        for (node, part) in &trace.nodes {
            let here = part.sent.iter().filter(of_this_life);
            let told = here.clone().count() as u64;
            // What a node does not tell one by one was sent in this life as well, or long ago.
            times += told + part.total.saturating_sub(part.sent.len() as u64);
            transmissions.extend(here.map(|sent| transmission(*node, sent)));
        }
        transmissions.sort_by_key(|it| (it.sent_ms, it.node, it.attempt));
        transmissions.drain(..transmissions.len().saturating_sub(TRANSMISSIONS_MAX));
        let known_since_ms = trace.nodes.values().map(|part| part.since_ms).max().unwrap_or(0);
        WhySent { times, transmissions, known_since_ms }
    }
}

/// One that the cursor has passed: whether somebody remembers that it was acknowledged.
fn remember(why: &mut Why) {
    let sent = why.sent.iter().flat_map(|sent| &sent.transmissions);
    let handled = |it: &&Transmission| it.acknowledged_ms.is_some() && it.committed_ms.is_some();
    if let Some(node) = sent.filter(handled).map(|it| it.node).next_back() {
        why.verdict = ACKNOWLEDGED.to_owned();
        why.because = format!("the client acknowledged it to node {node}");
    }
}

fn transmission(node: u64, sent: &Sent) -> Transmission {
    Transmission {
        node,
        session: sent.session,
        attempt: sent.attempt,
        sent_ms: sent.sent_ms,
        acknowledged_ms: sent.acknowledged_ms,
        committed_ms: sent.committed_ms,
    }
}

/// The verdict on one that the client said it handled.
const ACKNOWLEDGED: &str = "acknowledged";
/// The verdict on one below the cursor of which the state does not know more.
const PASSED: &str = "passed";
/// The verdict on the first instance that is not acknowledged.
const NEXT: &str = "next";

fn explain(
    site: &Site,
    now: Stamp,
    client: &ClientId,
    event: &str,
    id: InstanceId,
    replicas: &[u64],
) -> Why {
    let why = site.why(now, client, event, id);
    let (verdict, because) = words(&why, id);
    let subscription = why.subscription.as_ref().map(|row| WhySubscription {
        position: convert::position_out(site.incarnation(), row),
        granted: site.may_receive(row.event, &Receiver::Client(client.clone())),
        paused_ms: row.paused.map(|stamp| stamp.0),
        in_flight: None,
        session: None,
    });
    Why {
        instance_id: id.0,
        event: event.to_owned(),
        client: client.to_string(),
        verdict: verdict.to_owned(),
        because,
        instance: fate(&why.fate, replicas),
        subscription,
        sent: None,
        not_reached: Vec::new(),
    }
}

fn words(why: &machine::Why, id: InstanceId) -> (&'static str, String) {
    match &why.verdict {
        WhyNot::UnknownClient => ("unknown-client", "no such client is registered".to_owned()),
        WhyNot::UnknownEvent => ("unknown-event", "the site has no event of this name".to_owned()),
        WhyNot::NotRaised => ("not-raised", "no instance of this id was raised yet".to_owned()),
        WhyNot::OtherEvent => ("other-event", "the instance is one of another event".to_owned()),
        WhyNot::NotSubscribed => {
            ("not-subscribed", "the client has no subscription to the event".to_owned())
        }
        WhyNot::NotAddressed => {
            ("not-addressed", "the private event is for another client".to_owned())
        }
        WhyNot::Passed { cursor } => passed(&why.fate, *cursor, id),
        WhyNot::Departed => match &why.fate {
            Fate::Departed(departed) => gone(departed),
            Fate::NotRaised { .. } | Fate::Retained { .. } | Fate::Forgotten { .. } => {
                ("removed", "it is retained no more".to_owned())
            }
        },
        WhyNot::Forgotten => {
            let because = "it was raised and is retained no more: superseded, evicted, expired or \
                           removed; which of them is not remembered";
            ("forgotten", because.to_owned())
        }
        WhyNot::Expired => ("expired", "its lifetime is over".to_owned()),
        WhyNot::Unauthorised(Denial::Paused) => {
            ("paused", "an administrator holds the subscription's deliveries back".to_owned())
        }
        WhyNot::Unauthorised(denial) => ("unauthorised", denied(denial).1),
        WhyNot::Waits { next } => {
            ("waiting", format!("instance {next} comes first: it is not acknowledged yet"))
        }
        WhyNot::Next => {
            (NEXT, "it is the next one: in flight, or sent when the client is connected".to_owned())
        }
    }
}

fn passed(fate: &Fate, cursor: InstanceId, id: InstanceId) -> (&'static str, String) {
    match fate {
        Fate::Departed(Departed { gone: Gone::Acknowledged, .. }) => {
            (ACKNOWLEDGED, "the client acknowledged it".to_owned())
        }
        _ => {
            let place =
                if cursor == id { "at it".to_owned() } else { format!("at {cursor}, above it") };
            let because = format!(
                "the cursor stands {place}: it was acknowledged, or skipped by a seek, by where \
                 the subscription started, or after its last attempt"
            );
            (PASSED, because)
        }
    }
}

fn gone(departed: &Departed) -> (&'static str, String) {
    match departed.gone {
        Gone::Superseded { by } => ("superseded", format!("instance {by} took its place")),
        Gone::Evicted { by } => {
            ("evicted", format!("its queue was full, and it was the oldest; {by} was the newest"))
        }
        Gone::Expired => ("expired", "its lifetime was over".to_owned()),
        Gone::Acknowledged => ("acknowledged", "its addressee acknowledged it".to_owned()),
        Gone::Removed => {
            ("removed", "its service, addressee, event or queue was removed".to_owned())
        }
    }
}

fn fate(fate: &Fate, replicas: &[u64]) -> InstanceFate {
    match fate {
        Fate::NotRaised { .. } => {
            InstanceFate { fate: "not-raised".to_owned(), ..InstanceFate::default() }
        }
        Fate::Retained { service, created, expires, .. } => InstanceFate {
            fate: "retained".to_owned(),
            service: Some(service.to_string()),
            accepted_ms: Some(created.0),
            replicas: replicas.to_vec(),
            expires_ms: expires.map(|stamp| stamp.0),
            ..InstanceFate::default()
        },
        Fate::Departed(departed) => InstanceFate {
            fate: gone(departed).0.to_owned(),
            service: Some(departed.service.to_string()),
            accepted_ms: Some(departed.created.0),
            gone_ms: Some(departed.at.0),
            by: match departed.gone {
                Gone::Superseded { by } | Gone::Evicted { by } => Some(by.0),
                Gone::Expired | Gone::Acknowledged | Gone::Removed => None,
            },
            ..InstanceFate::default()
        },
        Fate::Forgotten { remembered_above } => InstanceFate {
            fate: "forgotten".to_owned(),
            remembered_above: Some(remembered_above.0),
            ..InstanceFate::default()
        },
    }
}

/// `GET /v1/sites/{site}/can-i?act=&event=&client=&service=`: what the bearer may, or for those who
/// may read the site, what others may.
pub async fn can_i(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["act", "event", "client", "service", "consistency"];
    let allowed = exchange.authorize(site, Need::Member, known).await?;
    let query = &allowed.query;
    let act = required(query, "act")?.to_owned();
    let caller = &allowed.bearer.caller;
    let receiver = match (query.get("client"), caller) {
        (Some("guest"), _) => Some(Receiver::Stateless),
        (Some(client), caller) => {
            if act != "raise" {
                caller.may(Need::ReadClient(client))?;
            }
            Some(Receiver::Client(client.into()))
        }
        (None, Caller::Site(Principal::Client(own))) => Some(Receiver::Client(own.clone())),
        (None, _) => None,
    };
    let service = match (query.get("service"), caller) {
        (Some(service), caller) => {
            caller.may(Need::ReadService(service))?;
            Some(service.to_owned())
        }
        (None, Caller::Site(Principal::Service(own))) => Some(own.to_string()),
        (None, _) => None,
    };
    let ruling = match act.as_str() {
        "administer" => role(caller, Need::Admin),
        "operate" => role(caller, Need::Operate),
        "read" => role(caller, Need::Read),
        "connect" | "receive" => {
            let receiver = receiver.ok_or_else(|| {
                query::invalid("client", "a client, or `guest` for one without account")
            })?;
            if act == "connect" {
                allowed.look(site, |site, _| ruled(site.ruling_enter(&receiver))).await?
            } else {
                let event = required(query, "event")?;
                allowed.look(site, |site, _| ruled(site.ruling_receive(event, &receiver))).await?
            }
        }
        "raise" => {
            let service = service.ok_or_else(|| query::invalid("service", "is needed here"))?;
            let event = required(query, "event")?;
            let client = query.get("client").map(ClientId::from);
            let look = |site: &Site, _| ruled(site.ruling_raise(&service, event, client.as_ref()));
            allowed.look(site, look).await?
        }
        other => {
            let rule = format!(
                "`administer`, `operate`, `read`, `connect`, `receive` or `raise`, was {other:?}"
            );
            return Err(query::invalid("act", &rule));
        }
    };
    let (allowed, because, reason) = ruling;
    Ok(Answer::ok(&CanI { act, allowed, because, reason }))
}

type Ruled = (bool, String, Option<String>);

fn role(caller: &Caller, need: Need<'_>) -> Ruled {
    let who = match caller {
        Caller::Node => "the node's administrator".to_owned(),
        Caller::Site(Principal::Admin) => "an administrator of the site".to_owned(),
        Caller::Site(Principal::Operator) => "an operator of the site".to_owned(),
        Caller::Site(Principal::Observer) => "an observer of the site".to_owned(),
        Caller::Site(Principal::Service(id)) => format!("service {id}"),
        Caller::Site(Principal::Client(id)) => format!("client {id}"),
    };
    match caller.may(need) {
        Ok(()) => (true, format!("the bearer is {who}"), None),
        Err(problem) => {
            let because = format!("the bearer is {who}; it {}", problem.detail);
            (false, because, Some(Code::AccessDenied.to_string()))
        }
    }
}

fn ruled(ruling: Ruling) -> Ruled {
    match ruling {
        Ruling::Allowed(because) => (true, because, None),
        Ruling::Denied(denial) => {
            let (reason, because) = denied(&denial);
            (false, because, Some(reason.to_owned()))
        }
    }
}

fn denied(denial: &Denial) -> (&'static str, String) {
    let (reason, because) = match denial {
        Denial::SiteBlank => ("site-blank", "the site has no structure yet"),
        Denial::UnknownEvent => ("unknown-event", "the site has no event of this name"),
        Denial::UnknownClient => ("unknown-client", "no such client is registered"),
        Denial::UnknownService => ("unknown-service", "no such service is registered"),
        Denial::GuestsShutOut => ("guests-shut-out", "the site's setting guests_allowed is off"),
        Denial::StatelessShutOut => {
            ("stateless-shut-out", "the site's setting stateless_guests_allowed is off")
        }
        Denial::GuestsUnsupported => {
            ("guests-unsupported", "the structure supports no clients without a user")
        }
        Denial::StatelessUnsupported => {
            ("stateless-unsupported", "the structure supports no clients without an account")
        }
        Denial::EventDeniesGuests => {
            ("event-denies-guests", "the event is not for clients without a user")
        }
        Denial::EventDeniesStateless => {
            ("event-denies-stateless", "the event is not for clients without an account")
        }
        Denial::RoleMissing { needed } => {
            let needed: Vec<&str> = needed.iter().map(machine::RoleName::as_str).collect();
            let because = format!("the client's user holds none of: {}", needed.join(", "));
            return ("role-missing", because);
        }
        Denial::Paused => ("paused", "an administrator holds the deliveries back"),
        Denial::Parked(_) => ("parked", "the service is parked: its structure is not the site's"),
        Denial::ClientRequired => ("client-required", "a private event needs an addressee"),
        Denial::ClientNotAllowed => ("client-not-allowed", "only a private event has an addressee"),
    };
    (reason, because.to_owned())
}
