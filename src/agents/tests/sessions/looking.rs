//! What those who look at a node see of its sessions and of what it sent.

use std::time::Duration;

use ackord_agents::live::{
    LIVE_SESSIONS_MAX, Live, LiveKind, LiveLaneState, LiveQuery, LiveSession, LiveState, Reach,
};
use ackord_agents::trace::{TracePart, TraceQuery};
use ackord_agents::{Broker, BrokerOptions, Principal, Transport};
use ackord_machine::site::{InstanceId, Structure};
use ackord_wire::Codec;
use ackord_wire::frame::{ClientFrame, Nack, Subscription};
use tokio::time::interval;

use crate::support::{Client, SITE, Service, item, scenario, structure};

fn everybody() -> LiveQuery {
    LiveQuery { kind: None, id: None, lanes: false, after: None, limit: LIVE_SESSIONS_MAX }
}

async fn live(broker: &Broker, query: LiveQuery) -> Live {
    let live = broker.live(&SITE.into(), query, Reach::Cluster).await;
    assert!(live.not_reached.is_empty(), "{live:?}");
    live
}

/// The session of the client `c` as soon as it is as wanted.
async fn client_when(broker: &Broker, holds: impl Fn(&LiveSession) -> bool) -> LiveSession {
    let mut looks = interval(Duration::from_millis(2));
    loop {
        looks.tick().await;
        let found = live(broker, LiveQuery::of(LiveKind::Client, "c")).await;
        match found.newest() {
            Some(session) if holds(session) => return session.clone(),
            Some(_) | None => {}
        }
    }
}

async fn trace(broker: &Broker, event: u32, instance: Option<u64>) -> TracePart {
    let (site, client) = (SITE.into(), "c".into());
    let event = ackord_machine::site::EventKey(event);
    let query = TraceQuery { site, client, event, instance: instance.map(InstanceId) };
    let mut trace = broker.trace(query, Reach::Cluster).await;
    assert!(trace.not_reached.is_empty());
    trace.nodes.remove(&broker.node().id()).expect("this node answers")
}

#[test]
fn given_an_event_in_flight_when_looked_at_then_the_session_shows_it_until_it_is_committed() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut service = Service::open(&broker, Codec::Cbor, None).await;
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let idle = client_when(&broker, |session| session.state == LiveState::Open).await;
        assert_eq!(idle.lanes[0].state, LiveLaneState::Idle);
        assert_eq!((idle.transport, idle.codec()), (Transport::WebSocket, Codec::Json));
        assert_eq!((&*idle.key.id, &*idle.peer, idle.epoch), ("c", "test", 1));
        assert_eq!(idle.key.node, broker.node().id());

        let id = service.store(1, "reading", "1").await;
        let event = client.event().await;
        let sent = client_when(&broker, |session| session.in_flight == 1).await;
        let lane = &sent.lanes[0];
        assert_eq!((lane.state, lane.instance), (LiveLaneState::InFlight, Some(id)));
        assert_eq!((lane.event.0, lane.attempt), (event.subscription, 1));
        let since = lane.since_ms.expect("it is in flight");
        assert!((event.created_ms.saturating_sub(50)..event.created_ms + 5000).contains(&since));

        let (subscription, instance_id) = (event.subscription, event.instance_id);
        let retry_after_ms = 60_000;
        let nack = Nack { subscription, instance_id, retry_after_ms, generation: None };
        client.0.say(&ClientFrame::Nack(nack)).await;
        let returned =
            client_when(&broker, |session| session.lanes[0].state == LiveLaneState::BackingOff);
        assert_eq!(returned.await.lanes[0].since_ms, Some(since));
        client.ack(&event).await;
        assert_eq!(client.committed().await, id);
        let done = client_when(&broker, |session| session.in_flight == 0).await;
        assert_eq!((done.lanes[0].instance, done.lanes[0].attempt), (None, 0));

        drop(client);
        let mut looks = interval(Duration::from_millis(2));
        while live(&broker, LiveQuery::of(LiveKind::Client, "c")).await.newest().is_some() {
            looks.tick().await;
        }
    });
}

#[test]
fn given_sessions_of_all_kinds_when_listed_then_pages_follow_their_order_and_filters_hold() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut guests = Vec::new();
        for _ in 0..3 {
            let mut guest = Client::open(&broker, None, Codec::Cbor);
            guest.hello(None).await;
            guests.push(guest);
        }
        let other = Structure { service_type: "other".into(), ..structure() };
        let _service = Service::open(&broker, Codec::Json, Some(other)).await;
        let _client = Client::subscribed(&broker, "c", vec![item("reading"), item("log")]).await;
        let all = live(&broker, everybody()).await;
        let kinds: Vec<LiveKind> = all.sessions.iter().map(|session| session.key.kind).collect();
        let guest = LiveKind::Stateless;
        assert_eq!(kinds, [LiveKind::Client, LiveKind::Service, guest, guest, guest]);
        assert_eq!(all.sessions[0].subscriptions, 2);
        assert!(all.sessions[0].lanes.is_empty(), "they were not asked for");
        assert_eq!(all.sessions[1].state, LiveState::Parked, "the structure is another");

        let mut paged = Vec::new();
        let mut query = LiveQuery { limit: 2, ..everybody() };
        loop {
            let page = live(&broker, query.clone()).await;
            query.after = page.sessions.last().map(|session| session.key.clone());
            paged.extend(page.sessions);
            if !page.more {
                break;
            }
        }
        assert_eq!(paged, all.sessions);
        let services = live(&broker, LiveQuery { kind: Some(LiveKind::Service), ..everybody() });
        assert_eq!(services.await.sessions, all.sessions[1..2]);
        let named = live(&broker, LiveQuery { id: Some("s".to_owned()), ..everybody() }).await;
        assert_eq!(named.sessions, all.sessions[1..2]);
        let elsewhere = broker.live(&"other".into(), everybody(), Reach::Node).await;
        assert!(elsewhere.sessions.is_empty() && !elsewhere.more);
    });
}

#[test]
fn given_a_client_that_does_not_read_when_looked_at_then_it_is_seen_to_be_stalled() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let mut client =
            Client::open_with(&broker, Some(Principal::Client("c".into())), Codec::Json, 3);
        client.hello(Some("-")).await;
        client.list(vec![item("reading"), item("log"), item("state")]).await;
        for (seq, event) in [(1, "reading"), (2, "log"), (3, "state")] {
            service.store(seq, event, "1").await;
        }
        let stalled = client_when(&broker, |session| session.stalled).await;
        assert_eq!((stalled.in_flight, stalled.state), (3, LiveState::Open));
        for _ in 0..3 {
            client.event().await;
        }
        client_when(&broker, |session| !session.stalled).await;
    });
}

#[test]
fn given_transmissions_when_asked_what_was_sent_then_each_attempt_is_told_with_its_times() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let first = service.store(1, "reading", "1").await;
        let second = service.store(2, "reading", "2").await;
        let hasty = Subscription { ack_timeout_ms: Some(20), ..item("reading") };
        let mut client = Client::subscribed(&broker, "c", vec![hasty]).await;
        let _unanswered = client.event().await;
        let again = client.event().await;
        assert_eq!((again.instance_id, again.attempt), (first, 2));
        client.ack(&again).await;
        assert_eq!(client.committed().await, first);
        while client.event().await.instance_id != second {}

        let told = trace(&broker, again.subscription, Some(first)).await;
        let attempts: Vec<u32> = told.sent.iter().map(|sent| sent.attempt).collect();
        assert_eq!(attempts.last(), Some(&1), "the newest first");
        let newest = &told.sent[0];
        assert!(newest.acknowledged_ms >= Some(newest.sent_ms), "{newest:?}");
        assert!(newest.committed_ms >= newest.acknowledged_ms, "{newest:?}");
        let oldest = told.sent.last().expect("it was sent");
        assert_eq!((oldest.acknowledged_ms, oldest.committed_ms), (None, None));
        assert!(oldest.sent_ms + 20 <= newest.sent_ms && told.since_ms <= oldest.sent_ms);
        let all = trace(&broker, again.subscription, None).await;
        assert!(all.total > told.total);
        assert!(trace(&broker, again.subscription + 1, None).await.sent.is_empty());
    });
}

#[test]
fn given_a_small_memory_when_more_was_sent_then_the_newest_are_known_and_since_when() {
    let options = BrokerOptions { trace_entries: 3, ..BrokerOptions::default() };
    scenario(options, async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let mut subscription = 0;
        for seq in 1..=7 {
            service.store(seq, "reading", "1").await;
            let event = client.event().await;
            client.ack(&event).await;
            assert_eq!(client.committed().await, seq);
            subscription = event.subscription;
        }
        let told = trace(&broker, subscription, None).await;
        let ids: Vec<u64> = told.sent.iter().map(|sent| sent.instance).collect();
        assert_eq!((ids, told.total), (vec![7, 6, 5], 3));
        assert!(told.sent.iter().all(|sent| sent.committed_ms.is_some()), "{told:?}");
        assert!(trace(&broker, subscription, Some(4)).await.sent.is_empty());
        assert!(told.since_ms >= told.sent[2].sent_ms.saturating_sub(1000));
    });
    let options = BrokerOptions { trace_entries: 0, ..BrokerOptions::default() };
    scenario(options, async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        service.store(1, "reading", "1").await;
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let event = client.event().await;
        client.ack(&event).await;
        client.committed().await;
        assert_eq!(trace(&broker, event.subscription, None).await.total, 0);
    });
}
