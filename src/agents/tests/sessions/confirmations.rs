//! When a committed cursor is confirmed: at once, or with the next event of a steady stream.

use std::time::Duration;

use ackord_agents::{Broker, BrokerOptions};
use ackord_wire::Codec;
use ackord_wire::frame::{ClientFrame, ClientMessage, Mode, Subscription};

use crate::support::{Client, Service, item, scenario};

/// Longer than any scenario lasts.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn delayed(confirmation_delay: Duration) -> BrokerOptions {
    // No other timer is to wake a session.
    BrokerOptions { confirmation_delay, hello_timeout: FOR_EVER, ..BrokerOptions::default() }
}

/// Waits until the broker has committed so many cursors, whoever was told of them.
async fn have_committed(broker: &Broker, cursors: u64) {
    let line = format!("ackord_commits_total {cursors}");
    while !broker.metrics_text(false).lines().any(|have| have == line) {
        tokio::task::yield_now().await;
    }
}

/// Delivers one event that is raised now, and acknowledges it.
async fn handle_one(service: &mut Service, client: &mut Client, seq: u64) -> u64 {
    let id = service.store(seq, "reading", "1").await;
    let event = client.event().await;
    assert_eq!(event.instance_id, id);
    client.ack(&event).await;
    id
}

#[test]
fn given_a_steady_stream_then_a_confirmation_goes_with_the_next_event() {
    scenario(delayed(FOR_EVER), async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let first = handle_one(&mut service, &mut client, 1).await;
        assert_eq!(client.committed().await, first, "nothing says yet that another one follows");

        let second = handle_one(&mut service, &mut client, 2).await;
        have_committed(&broker, 2).await;
        assert!(client.0.from.try_next().is_none(), "it was told alone");
        let third = service.store(3, "reading", "3").await;
        let ClientMessage::Committed(ack) = client.message().await else { panic!("not before") };
        assert_eq!(ack.instance_id, second);
        let ClientMessage::Event(event) = client.message().await else { panic!("not behind it") };
        assert_eq!(event.instance_id, third);

        client.ack(&event).await;
        have_committed(&broker, 3).await;
        client.0.say(&ClientFrame::Goodbye {}).await;
        assert_eq!(client.committed().await, third, "what is kept is told before the close");
    });
}

#[test]
fn given_a_steady_stream_that_ends_then_its_last_confirmation_is_told_after_the_delay() {
    scenario(delayed(Duration::from_millis(500)), async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        for seq in 1..=3 {
            let id = handle_one(&mut service, &mut client, seq).await;
            if seq == 3 {
                assert_eq!(client.committed().await, id);
            } else {
                have_committed(&broker, seq).await;
            }
        }
    });
}

#[test]
fn given_a_backlog_then_its_last_confirmation_is_told_at_once() {
    for mode in [Mode::Ordered, Mode::Twoway] {
        scenario(delayed(FOR_EVER), async |broker| {
            let mut service = Service::open(&broker, Codec::Json, None).await;
            for seq in 1..=10 {
                service.store(seq, "reading", "1").await;
            }
            let subscription = Subscription { mode, ..item("reading") };
            let mut client = Client::subscribed(&broker, "c", vec![subscription]).await;
            let mut last = 0;
            for _ in 1..=10 {
                let event = client.event().await;
                client.ack(&event).await;
                last = event.instance_id;
            }
            while client.committed().await < last {}
        });
    }
}
