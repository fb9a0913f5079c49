//! From a raise to a committed cursor.

use ackord_agents::{BrokerOptions, Principal};
use ackord_wire::Codec;
use ackord_wire::codec::set_hash;
use ackord_wire::frame::{ClientMessage, Nack, Subscription, Sync};

use crate::support::{Client, Service, item, scenario};

fn raise_deliver_acknowledge(codec: Codec) {
    scenario(BrokerOptions::default(), async move |broker| {
        let mut service = Service::open(&broker, codec, None).await;
        let first = service.store(1, "reading", r#"{"t":20.5}"#).await;
        let mut client = Client::open(&broker, Some(Principal::Client("c".into())), codec);
        client.hello(Some("-")).await;
        let subscribed = client.list(vec![item("reading")]).await;
        assert_eq!(subscribed.accepted.len(), 1);

        // What was raised before is delivered; what is raised while it is in flight waits.
        let event = client.event().await;
        assert_eq!((event.instance_id, event.attempt), (first, 1));
        let payload = ackord_wire::Payload::from_fields(
            event.content_type.clone(),
            event.args.clone(),
            event.data.clone(),
        );
        assert_eq!(payload.expect("it has arguments").data, r#"{"t":20.5}"#);
        let second = service.store(2, "reading", "2").await;
        client.ack(&event).await;
        assert_eq!(client.committed().await, first);
        let event = client.event().await;
        assert_eq!(event.instance_id, second);
        client.ack(&event).await;
        assert_eq!(client.committed().await, second);

        // A raise wakes an idle subscription.
        let third = service.store(3, "reading", "3").await;
        assert_eq!(client.event().await.instance_id, third);
    });
}

#[test]
fn given_json_when_an_event_is_raised_then_it_is_delivered_acknowledged_and_committed() {
    raise_deliver_acknowledge(Codec::Json);
}

#[test]
fn given_cbor_when_an_event_is_raised_then_it_is_delivered_acknowledged_and_committed() {
    raise_deliver_acknowledge(Codec::Cbor);
}

#[test]
fn d1_given_the_hash_of_the_same_set_then_the_client_sends_no_list() {
    scenario(BrokerOptions::default(), async |broker| {
        let items = vec![
            item("state"),
            Subscription { ack_timeout_ms: Some(5000), max_attempts: Some(3), ..item("reading") },
        ];
        let hash = set_hash(&items);
        drop(Client::subscribed(&broker, "c", items).await);
        let mut again = Client::open(&broker, Some(Principal::Client("c".into())), Codec::Json);
        let welcome = again.hello(Some(&hash)).await;
        assert_eq!(welcome.sync, Sync::Equal);
        let ClientMessage::Subscribed(set) = again.message().await else { panic!("no set") };
        assert_eq!(set.accepted.len(), 2);
    });
}

#[test]
fn d7_given_no_acknowledgement_then_the_timer_sends_it_again_and_a_late_one_counts() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let id = service.store(1, "reading", "1").await;
        let hasty = Subscription { ack_timeout_ms: Some(30), ..item("reading") };
        let mut client = Client::subscribed(&broker, "c", vec![hasty]).await;
        let first = client.event().await;
        let second = client.event().await;
        assert_eq!((first.attempt, second.attempt), (1, 2));
        client.ack(&first).await;
        assert_eq!(client.committed().await, id);
        assert!(broker.metrics_text(false).contains("ackord_redeliveries_total"));
    });
}

#[test]
fn given_a_nack_then_the_instance_comes_again() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        service.store(1, "reading", "1").await;
        let mut client = Client::subscribed(&broker, "c", vec![item("reading")]).await;
        let event = client.event().await;
        let (subscription, instance_id) = (event.subscription, event.instance_id);
        let nack = Nack { subscription, instance_id, retry_after_ms: 20, generation: None };
        client.0.say(&ackord_wire::ClientFrame::Nack(nack)).await;
        assert_eq!(client.event().await.attempt, 2);
    });
}

#[test]
fn given_a_stateless_client_then_it_goes_on_from_its_own_position() {
    scenario(BrokerOptions::default(), async |broker| {
        let mut service = Service::open(&broker, Codec::Json, None).await;
        let ids = [service.store(1, "reading", "1").await, service.store(2, "reading", "2").await];
        let mut guest = Client::open(&broker, None, Codec::Json);
        guest.hello(None).await;
        guest.list(vec![item("reading")]).await;
        let event = guest.event().await;
        assert_eq!(event.instance_id, ids[0]);
        drop(guest);

        let position = ackord_wire::frame::Position {
            incarnation: event.incarnation,
            generation: event.generation,
            instance_id: event.instance_id,
        };
        let mut again = Client::open(&broker, None, Codec::Json);
        again.hello(None).await;
        let resumed =
            again.list(vec![Subscription { resume: Some(position), ..item("reading") }]).await;
        assert_eq!(resumed.accepted[0].resumed, Some(true));
        assert_eq!(again.event().await.instance_id, ids[1]);
    });
}

#[test]
fn given_many_subscribers_then_each_gets_every_event_in_order() {
    const CLIENTS: usize = 50;
    const EVENTS: u64 = 20;
    scenario(BrokerOptions::default(), async |broker| {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = Client::open(&broker, None, Codec::Cbor);
            client.hello(None).await;
            client.list(vec![item("reading")]).await;
            clients.push(client);
        }
        let mut service = Service::open(&broker, Codec::Cbor, None).await;
        for seq in 1..=EVENTS {
            service.raise(seq, "reading", "1").await;
        }
        let _first_of_all = service.message().await;
        for client in &mut clients {
            let mut last = 0;
            for _ in 0..EVENTS {
                let event = client.event().await;
                assert!(event.instance_id > last, "{} after {last}", event.instance_id);
                last = event.instance_id;
                client.ack(&event).await;
            }
        }
    });
}
