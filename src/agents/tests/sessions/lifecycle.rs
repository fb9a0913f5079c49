//! How sessions begin and end: parked, replaced, refused, slow, silent, shut down.

use std::time::Duration;

use ackord_agents::{Broker, BrokerOptions, Inbound, Principal};
use ackord_machine::site::{AdminAction, Incarnation, Quotas};
use ackord_wire::frame::{ClientMessage, ServiceMessage};
use ackord_wire::{CloseCode, Code, Codec};

use crate::support::{Client, Read, SITE, Service, admin, item, mint, scenario, structure};

fn number(code: Code) -> u16 {
    CloseCode::of(code).number
}

fn metric(broker: &Broker, line: &str) -> u64 {
    let text = broker.metrics_text(false);
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in\n{text}"))
}

/// Lets the other tasks run until the condition holds.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn d23_given_a_second_session_of_a_client_then_the_first_is_closed_at_once() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut first = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let _second = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        assert_eq!(first.closed().await, number(Code::Replaced));
        until(|| broker.sessions() == 1).await;
        assert_eq!(metric(&broker, r#"ackord_session_closes_total{reason="replaced"}"#), 1);
    });
}

#[test]
fn given_two_sessions_that_attach_at_once_then_the_one_that_is_overtaken_takes_over_if_it_is_there()
{
    scenario(BrokerOptions::default(), async |broker| {
        let principal = || Some(Principal::Client("c".into()));
        let mut first = Client::open(&broker, principal(), Codec::Json);
        let mut second = Client::open(&broker, principal(), Codec::Json);
        first.say_hello(None).await;
        second.say_hello(None).await;
        // Neither knew of the other. Asked for a sign of life, the second gives it.
        let welcome = loop {
            match second.0.read::<ClientMessage>().await.expect("it goes on") {
                Read::Ping => second.0.to.send(Inbound::Pong).await.expect("the session listens"),
                Read::Message(ClientMessage::Welcome(welcome)) => break welcome,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(welcome.epoch, 2);
        assert_eq!(first.closed().await, number(Code::Replaced));
    });
}

#[test]
fn given_a_node_that_cannot_ask_the_others_then_who_is_not_known_may_come_again() {
    let confirm_deadline = Duration::from_millis(50);
    scenario(BrokerOptions { confirm_deadline, ..BrokerOptions::default() }, async |broker| {
        let principal = Principal::Client("c".into());
        let token = mint(&broker, "t", principal.clone()).await;
        let unknown = mint(&broker, "u", principal.clone()).await;
        admin(&broker, AdminAction::RevokeToken { id: "u".into() }).await;
        assert_eq!(broker.authenticate("plant", &unknown).await, Err(Code::BadCredentials));
        broker.node().shutdown();
        assert_eq!(broker.authenticate("plant", &token).await, Ok(principal));
        assert_eq!(broker.authenticate("plant", &unknown).await, Err(Code::Unavailable));
    });
}

#[test]
fn s3_given_a_parked_service_then_it_is_told_when_it_comes_online_and_loses_nothing() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut other = structure();
        other.events.pop();
        let mut service = Service::open(&broker, Codec::Json, Some(other)).await;
        assert_eq!(service.1.state.reason, Some(Code::SiteStructureMismatch));
        service.raise(1, "reading", "1").await;
        let ServiceMessage::Refused(refused) = service.message().await else { panic!() };
        assert_eq!((refused.seq, refused.code), (1, Code::SiteStructureMismatch));
        let apply = AdminAction::ApplyDeclared {
            service: "s".into(),
            rebuild: false,
            incarnation: Incarnation(8),
        };
        admin(&broker, apply).await;
        let ServiceMessage::State(state) = service.message().await else { panic!() };
        assert!(state.online);
        service.store(1, "reading", "1").await;
    });
}

#[test]
fn given_a_window_of_raises_then_all_are_answered_in_order() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut service = Service::open(&broker, Codec::Cbor, None).await;
        let window = u64::from(service.1.window);
        for round in 0..5 {
            for seq in 1..=window {
                service.raise(round * window + seq, "reading", "1").await;
            }
            for seq in 1..=window {
                let ServiceMessage::Accepted(accepted) = service.message().await else { panic!() };
                assert_eq!(accepted.seq, round * window + seq);
            }
        }
        assert_eq!(metric(&broker, r#"ackord_raises_total{outcome="accepted"}"#), 5 * window);
    });
}

#[test]
fn given_a_service_that_leaves_then_clients_see_it_go() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let service = Service::open(&broker, Codec::Json, None).await;
        let mut seen = Vec::new();
        let mut service = Some(service);
        while seen.len() < 2 {
            if let ClientMessage::Presence(presence) = client.message().await {
                seen.push(presence.online);
                service = None;
            }
        }
        assert!(service.is_none());
        assert_eq!(seen, [true, false]);
    });
}

#[test]
fn given_a_client_that_does_not_read_then_it_is_closed_as_a_slow_consumer() {
    let write_deadline = Duration::from_millis(50);
    scenario(BrokerOptions { write_deadline, ..BrokerOptions::default() }, async |broker| {
        // Room for the welcome, the set, and the last word.
        let mut slow = Client::open_with(&broker, None, Codec::Json, 3);
        slow.hello(None).await;
        slow.list(vec![item("reading"), item("log")]).await;
        let mut service = Service::open(&broker, Codec::Json, None).await;
        for seq in 1..=4 {
            service.store(seq, if seq % 2 == 0 { "reading" } else { "log" }, "1").await;
        }
        until(|| broker.sessions() == 1).await;
        assert_eq!(slow.closed().await, number(Code::SlowConsumer));
        assert_eq!(metric(&broker, r#"ackord_session_closes_total{reason="slow-consumer"}"#), 1);
    });
}

#[test]
fn given_a_client_that_reads_late_then_nothing_is_lost() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut late = Client::open_with(&broker, None, Codec::Json, 3);
        late.hello(None).await;
        late.list(vec![item("reading"), item("log"), item("state")]).await;
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let mut raised = Vec::new();
        for (seq, name) in (1..).zip(["reading", "log", "state"]) {
            raised.push(service.store(seq, name, "1").await);
        }
        let mut seen = Vec::new();
        for _ in &raised {
            seen.push(late.event().await.instance_id);
        }
        assert_eq!(seen, raised);
    });
}

#[test]
fn given_a_peer_that_says_nothing_then_it_is_closed_after_the_hello_timeout() {
    let hello_timeout = Duration::from_millis(30);
    scenario(BrokerOptions { hello_timeout, ..BrokerOptions::default() }, async |broker| {
        let mut silent = Client::open(&broker, None, Codec::Json);
        assert_eq!(silent.closed().await, number(Code::IdleTimeout));
    });
}

#[test]
fn given_a_silent_client_then_it_is_pinged_and_then_closed() {
    let options =
        BrokerOptions { keepalive_s_min: 1, keepalive_s_default: 1, ..BrokerOptions::default() };
    scenario(options, async |broker| {
        let mut silent = Client::open(&broker, None, Codec::Json);
        silent.hello(None).await;
        let mut pinged = false;
        loop {
            match silent.0.read::<ClientMessage>().await {
                Some(Read::Ping) => pinged = true,
                Some(Read::Message(_)) => {}
                Some(Read::Close(closed)) => {
                    assert_eq!((pinged, closed), (true, number(Code::IdleTimeout)));
                    return;
                }
                None => panic!("no close"),
            }
        }
    });
}

#[test]
fn given_garbage_or_the_wrong_token_then_the_session_is_refused() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut client = Client::open(&broker, None, Codec::Json);
        client.0.say(&"not a frame").await;
        assert_eq!(client.closed().await, number(Code::ProtocolViolation));
        let mut admin = Client::open(&broker, Some(Principal::Admin), Codec::Json);
        assert_eq!(admin.closed().await, number(Code::AccessDenied));
        let mut stranger =
            Client::open(&broker, Some(Principal::Client("nobody".into())), Codec::Json);
        stranger.say_hello(None).await;
        assert_eq!(stranger.closed().await, number(Code::NotRegistered));
    });
}

#[test]
fn given_all_places_taken_then_one_more_is_refused_until_one_is_free() {
    scenario(BrokerOptions { sessions_max: 1, ..BrokerOptions::default() }, async |broker| {
        let first = Client::open(&broker, None, Codec::Json);
        assert_eq!(broker.accepts(), Err(Code::LimitReached));
        let mut second = Client::open(&broker, None, Codec::Json);
        assert_eq!(second.closed().await, number(Code::LimitReached));
        drop(first);
        until(|| broker.accepts().is_ok()).await;
    });
}

#[test]
fn given_a_quota_that_is_used_up_then_one_more_is_told_of_the_quota() {
    scenario(BrokerOptions::default(), async |broker| {
        let quotas = Quotas { connections: Some(1), ..Quotas::default() };
        broker.admin(&SITE.into(), AdminAction::SetQuotas { quotas }).await.unwrap();
        let _first = Client::open(&broker, None, Codec::Json);
        // Whoever has room when it is let in may find none when it opens: another one was faster.
        let mut second = Client::open(&broker, None, Codec::Json);
        assert_eq!(second.closed().await, number(Code::QuotaExceeded));
    });
}

#[test]
fn given_a_shutdown_then_every_session_is_told_and_none_is_taken_any_more() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let mut service = Service::open(&broker, Codec::Json, None).await;
        broker.shutdown().await;
        assert_eq!(broker.sessions(), 0);
        assert_eq!(client.closed().await, number(Code::ShuttingDown));
        let ServiceMessage::Closing(closing) = service.message().await else { panic!() };
        assert_eq!((closing.code, closing.reconnect), (Code::ShuttingDown, true));
        assert_eq!(broker.accepts(), Err(Code::ShuttingDown));
    });
}

#[test]
fn given_tokens_then_their_bearers_are_known_until_they_are_revoked() {
    scenario(BrokerOptions::default(), async |broker| {
        let principal = Principal::Client("c".into());
        let token = mint(&broker, "t", principal.clone()).await;
        assert_eq!(broker.authenticate("plant", &token).await, Ok(principal));
        let other = mint(&broker, "o", Principal::Observer).await;
        let crossed = format!("ak_t_{}", &other["ak_o_".len()..]);
        for wrong in
            [crossed.as_str(), "ak_t_", "", "ak_x_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert_eq!(broker.authenticate("plant", wrong).await, Err(Code::BadCredentials));
        }
        assert_eq!(broker.authenticate("other", &token).await, Err(Code::BadCredentials));
        admin(&broker, AdminAction::RevokeToken { id: "t".into() }).await;
        assert_eq!(broker.authenticate("plant", &token).await, Err(Code::BadCredentials));
    });
}
