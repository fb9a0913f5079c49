//! Who is connected, and what is in flight: asked of the nodes, for it is in no log.

use std::collections::BTreeMap;

use ackord_agents::live::{
    Live, LiveKey, LiveKind, LiveLaneState, LiveQuery, LiveSession, LiveState, NotReached, Reach,
};
use ackord_agents::{Transport, live, translate};
use ackord_machine::site::{EventKey, InstanceId, Receiver, Site, SiteName, Stamp};
use ackord_wire::Problem;
use ackord_wire::resource::{self, InFlight, LaneState, SessionKind, SubscriptionSession};

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange};
use super::query::{self, Consistency};

/// Instances that are counted behind those that were sent.
const QUEUED_MAX: u64 = 1000;

/// `GET /v1/sites/{site}/sessions`, by kind, id, node and number.
pub async fn sessions(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "kind", "id"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let window = allowed.query.window()?;
    let kind = allowed.query.get("kind").map(kind_in).transpose()?;
    let after = window.after.as_deref().map(after).transpose()?;
    let reach = reach(&allowed)?;
    // So that one that does not exist is not taken for one without sessions.
    allowed.look(site, |_, _| ()).await?;
    let id = allowed.query.get("id").map(str::to_owned);
    let limit = window.limit.min(live::LIVE_SESSIONS_MAX);
    let query = LiveQuery { kind, id, lanes: false, after, limit };
    let found = allowed.context.broker.live(&SiteName::from(site), query, reach).await;
    let next = found.sessions.last().filter(|_| found.more).map(|session| next(&session.key));
    let items = found.sessions.iter().map(session_out).collect();
    Ok(Answer::ok(&resource::SessionPage {
        items,
        next,
        not_reached: not_reached(&found.not_reached),
    }))
}

/// Adds to the subscriptions of one client what its session says.
pub async fn complete(
    allowed: &Allowed<'_>,
    site: &str,
    client: &str,
    subscriptions: &mut [resource::Subscription],
) -> Result<(), Problem> {
    if subscriptions.is_empty() {
        return Ok(());
    }
    let query = LiveQuery::of(LiveKind::Client, client);
    let reach = reach(allowed)?;
    let found = allowed.context.broker.live(&SiteName::from(site), query, reach).await;
    let reached = not_reached(&found.not_reached);
    for subscription in subscriptions.iter_mut() {
        subscription.not_reached.clone_from(&reached);
        let (session, in_flight) = served(&found, EventKey(subscription.subscription));
        (subscription.session, subscription.in_flight) = (session, in_flight);
    }
    allowed.context.broker.read_site(site, |site, now| {
        count_queued(site, now, client, &found, subscriptions);
    });
    Ok(())
}

/// Adds how much waits behind what was sent.
fn count_queued(
    site: &Site,
    now: Stamp,
    client: &str,
    found: &Live,
    subscriptions: &mut [resource::Subscription],
) {
    let Some(session) = found.newest() else { return };
    let receiver = Receiver::Client(client.into());
    for subscription in subscriptions {
        let event = EventKey(subscription.subscription);
        let lane = session.lanes.iter().find(|lane| lane.event == event);
        let (Some(serving), Some(lane)) = (&mut subscription.session, lane) else { continue };
        let reached = InstanceId(lane.reached);
        serving.queued = Some(site.lag(event, reached, &receiver, now, QUEUED_MAX).count);
    }
}

/// What the newest session of a client does for one of its subscriptions.
pub fn served(found: &Live, event: EventKey) -> (Option<SubscriptionSession>, Option<InFlight>) {
    let Some(session) = found.newest() else { return (None, None) };
    let lane = session.lanes.iter().find(|lane| lane.event == event);
    let counts = lane.and_then(|lane| lane.counts);
    let serving = SubscriptionSession {
        node: session.key.node,
        session: session.key.session,
        transport: transport_out(session.transport),
        since_ms: session.since_ms,
        state: lane.map(|lane| lane_state_out(lane.state)),
        mode: lane.map(|lane| translate::mode_to_wire(lane.mode)),
        in_flight: lane.map(|lane| lane.in_flight),
        queued: None,
        delivered: counts.map(|counts| counts.delivered),
        failed: counts.map(|counts| counts.failed),
        dropped: counts.map(|counts| counts.dropped),
    };
    let in_flight = lane.and_then(|lane| {
        Some(InFlight {
            instance_id: lane.instance?,
            attempt: lane.attempt,
            since_ms: lane.since_ms?,
            node: session.key.node,
        })
    });
    (Some(serving), in_flight)
}

/// Whose sessions are asked for: a read that need not be confirmed asks nobody else.
pub fn reach(allowed: &Allowed<'_>) -> Result<Reach, Problem> {
    Ok(match allowed.query.consistency()? {
        Consistency::Linearizable => Reach::Cluster,
        Consistency::Local => Reach::Node,
    })
}

fn kind_in(text: &str) -> Result<LiveKind, Problem> {
    match text {
        "client" => Ok(LiveKind::Client),
        "service" => Ok(LiveKind::Service),
        "stateless" => Ok(LiveKind::Stateless),
        other => {
            let detail = format!("client, service or stateless, was {other:?}");
            Err(query::invalid("kind", &detail))
        }
    }
}

fn kind_text(kind: LiveKind) -> &'static str {
    match kind {
        LiveKind::Client => "client",
        LiveKind::Service => "service",
        LiveKind::Stateless => "stateless",
    }
}

/// `kind/id/node/session`; ids have no `/`.
fn next(key: &LiveKey) -> String {
    format!("{}/{}/{}/{}", kind_text(key.kind), key.id, key.node, key.session)
}

fn after(text: &str) -> Result<LiveKey, Problem> {
    let parse = || {
        let [kind, id, node, session] = text.split('/').collect::<Vec<_>>().try_into().ok()?;
        let (kind, id) = (kind_in(kind).ok()?, String::from(id));
        Some(LiveKey { kind, id, node: node.parse().ok()?, session: session.parse().ok()? })
    };
    let wrong = || query::invalid("after", &format!("the `next` of a page, was {text:?}"));
    parse().ok_or_else(wrong)
}

/// The nodes that did not answer, as resources.
pub fn not_reached(nodes: &BTreeMap<u64, NotReached>) -> Vec<resource::NotReached> {
    let out = |(node, why): (&u64, &NotReached)| resource::NotReached {
        node: *node,
        why: match why {
            NotReached::Unreachable => resource::Why::Unreachable,
            NotReached::Late => resource::Why::Late,
            NotReached::Unsupported => resource::Why::Unsupported,
            NotReached::Busy => resource::Why::Busy,
        },
    };
    nodes.iter().map(out).collect()
}

fn session_out(session: &LiveSession) -> resource::Session {
    let key = &session.key;
    resource::Session {
        kind: match key.kind {
            LiveKind::Client => SessionKind::Client,
            LiveKind::Service => SessionKind::Service,
            LiveKind::Stateless => SessionKind::Stateless,
        },
        id: (key.kind != LiveKind::Stateless).then(|| key.id.clone()),
        node: key.node,
        session: key.session,
        since_ms: session.since_ms,
        transport: transport_out(session.transport),
        codec: session.codec().into(),
        peer: session.peer.clone(),
        state: match session.state {
            LiveState::Opening => resource::SessionState::Opening,
            LiveState::Open => resource::SessionState::Open,
            LiveState::Parked => resource::SessionState::Parked,
            LiveState::Closing => resource::SessionState::Closing,
        },
        epoch: session.epoch,
        stalled: session.stalled,
        subscriptions: session.subscriptions,
        in_flight: session.in_flight,
    }
}

fn transport_out(transport: Transport) -> resource::Transport {
    match transport {
        Transport::WebSocket => resource::Transport::Websocket,
        Transport::EventStream => resource::Transport::EventStream,
        Transport::LongPoll => resource::Transport::LongPoll,
    }
}

fn lane_state_out(state: LiveLaneState) -> LaneState {
    match state {
        LiveLaneState::Idle => LaneState::Idle,
        LiveLaneState::Unauthorized => LaneState::Unauthorized,
        LiveLaneState::InFlight => LaneState::InFlight,
        LiveLaneState::BackingOff => LaneState::BackingOff,
        LiveLaneState::Committing => LaneState::Committing,
    }
}
