//! Subscriptions in other modes, over connections that break: each instance is handled once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ackord_endpoint::{
    ClientBuilder, ClientEndpoint, ClientLevel, Delivery, HandlerError, Mode, Subscription,
};
use ackord_wire::frame::{self, Ack, ClientFrame, ClientMessage};
use tokio::sync::Semaphore;

use crate::broker::{Broker, Peer, client_welcome, delivery};
use crate::told::Told;

fn builder(broker: &Broker) -> ClientBuilder {
    ClientEndpoint::builder()
        .url(&broker.url)
        .site("site")
        .token(Some("secret".to_owned()))
        .reconnect_scale(0.0)
}

fn committed(instance_id: u64) -> ClientMessage {
    ClientMessage::Committed(Ack { subscription: 1, instance_id, generation: None })
}

/// Sends instances and takes their acknowledgements, in whatever order.
async fn exchange(peer: &mut Peer, ids: &[u64]) {
    for id in ids {
        peer.send(&delivery(1, "a", *id)).await;
    }
    let mut acked = Vec::new();
    for _ in ids {
        acked.push(peer.ack().await.instance_id);
    }
    acked.sort_unstable();
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    assert_eq!(acked, ids);
}

fn recorder(
    told: &Told<u64>,
) -> impl Fn(Delivery) -> std::future::Ready<Result<(), HandlerError>> + Send + Sync + 'static {
    let told = told.clone();
    move |delivery| {
        told.add(delivery.instance_id);
        std::future::ready(Ok(()))
    }
}

#[tokio::test]
async fn twoway_over_a_killed_connection_handles_each_once() {
    let broker = Broker::start().await;
    let handled = Told::default();
    let _client = builder(&broker)
        .subscribe(Subscription::new("a").twoway(5), recorder(&handled))
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    let list = peer.welcome_client().await;
    assert_eq!((list[0].mode, list[0].window), (Mode::Twoway, Some(5)));
    // The acknowledgement of 2 is under way, that of 1 comes after it.
    exchange(&mut peer, &[2, 4, 5]).await;
    exchange(&mut peer, &[1]).await;
    peer.send(&committed(2)).await;
    drop(peer);
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    // What was not committed comes again, with what had never arrived.
    exchange(&mut peer, &[3, 4, 5, 6]).await;
    peer.send(&committed(6)).await;
    exchange(&mut peer, &[5, 7]).await;
    assert_eq!(handled.all(), [2, 4, 5, 1, 3, 6, 7]);
}

#[tokio::test]
async fn twoway_what_a_handler_gave_back_is_handled_after_later_ones() {
    let broker = Broker::start().await;
    let (handled, failed) = (Told::default(), Arc::new(AtomicBool::new(false)));
    let (record, fail) = (handled.clone(), failed.clone());
    let _client = builder(&broker)
        .subscribe(Subscription::new("a").twoway(5), move |delivery: Delivery| {
            let first = delivery.instance_id == 1 && !fail.swap(true, Ordering::SeqCst);
            if !first {
                record.add(delivery.instance_id);
            }
            let again = HandlerError::new("not yet").retry_after(Duration::from_millis(5));
            async move { if first { Err(again) } else { Ok(()) } }
        })
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    peer.send(&delivery(1, "a", 1)).await;
    assert!(matches!(peer.next().await, Some(ClientFrame::Nack(nack)) if nack.instance_id == 1));
    exchange(&mut peer, &[2, 3]).await;
    exchange(&mut peer, &[1]).await;
    assert_eq!(handled.all(), [2, 3, 1]);
}

#[tokio::test]
async fn what_somebody_else_made_twoway_is_handled_once_each_like_what_is_asked_for() {
    let broker = Broker::start().await;
    let (handled, failed) = (Told::default(), Arc::new(AtomicBool::new(false)));
    let (record, fail, gate) = (handled.clone(), failed.clone(), Arc::new(Semaphore::new(0)));
    let wait = gate.clone();
    let _client = builder(&broker)
        .subscribe(Subscription::new("a"), move |delivery: Delivery| {
            let (record, wait) = (record.clone(), wait.clone());
            let first = delivery.instance_id == 2 && !fail.swap(true, Ordering::SeqCst);
            async move {
                wait.acquire().await.map_err(HandlerError::new)?.forget();
                if first {
                    return Err(HandlerError::new("not yet").retry_after(Duration::ZERO));
                }
                record.add(delivery.instance_id);
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    let list = peer.welcome_client_as(Some(Mode::Twoway)).await;
    assert_eq!(list[0].mode, Mode::Ordered);
    for id in 1..=5 {
        peer.send(&delivery(1, "a", id)).await;
    }
    gate.add_permits(10);
    let mut answered = Vec::new();
    while answered.len() < 5 {
        match peer.next().await {
            Some(ClientFrame::Ack(ack)) => answered.push(ack.instance_id),
            Some(ClientFrame::Nack(nack)) => assert_eq!(nack.instance_id, 2),
            other => panic!("{other:?}"),
        }
        if answered.len() == 4 && !answered.contains(&2) {
            peer.send(&delivery(1, "a", 2)).await;
        }
    }
    assert_eq!(answered, [1, 3, 4, 5, 2]);
    assert_eq!(handled.all(), [1, 3, 4, 5, 2]);
    // In order again: what was handled is known one by one.
    let mut peer = {
        drop(peer);
        broker.accept().await
    };
    peer.welcome_client().await;
    for id in [2, 5, 6] {
        peer.send(&delivery(1, "a", id)).await;
        assert_eq!(peer.ack().await.instance_id, id);
    }
    assert_eq!(handled.all(), [1, 3, 4, 5, 2, 6]);
}

#[tokio::test]
async fn twoway_runs_as_many_handlers_at_once_as_it_asks_for() {
    let broker = Broker::start().await;
    let (begun, gate) = (Told::default(), Arc::new(Semaphore::new(0)));
    let (record, wait) = (begun.clone(), gate.clone());
    let subscription = Subscription::new("a").twoway(5).handlers(3);
    let _client = builder(&broker)
        .subscribe(subscription, move |delivery: Delivery| {
            let (record, wait) = (record.clone(), wait.clone());
            async move {
                record.add(delivery.instance_id);
                wait.acquire().await.map_err(HandlerError::new)?.forget();
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    for id in [1, 2, 3, 4, 5, 1, 3] {
        peer.send(&delivery(1, "a", id)).await;
    }
    begun.until("three", |all| all.len() == 3).await;
    gate.add_permits(1);
    let first = peer.ack().await.instance_id;
    begun.until("four", |all| all.len() == 4).await;
    gate.add_permits(4);
    let mut acked = vec![first];
    while acked.len() < 5 {
        acked.push(peer.ack().await.instance_id);
    }
    acked.sort_unstable();
    assert_eq!(acked, [1, 2, 3, 4, 5]);
    let mut all = begun.all();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn twoway_at_cpl2_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("positions");
    let broker = Broker::start().await;
    let handled = Told::default();
    let with_store = || {
        builder(&broker)
            .persistence(ClientLevel::file(&path))
            .subscribe(Subscription::new("a").twoway(5), recorder(&handled))
    };
    let first = with_store().start().await.unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    exchange(&mut peer, &[1, 2]).await;
    peer.send(&committed(2)).await;
    exchange(&mut peer, &[4, 5]).await;
    let closing = tokio::spawn(first.close());
    assert!(matches!(peer.next().await, Some(ClientFrame::Goodbye {})));
    drop(peer);
    closing.await.unwrap();

    let _second = with_store().start().await.unwrap();
    let mut peer = broker.accept().await;
    assert!(matches!(peer.next().await, Some(ClientFrame::Hello(_))));
    peer.send(&ClientMessage::Welcome(client_welcome(frame::Sync::Equal))).await;
    exchange(&mut peer, &[2, 3, 4, 5, 6]).await;
    assert_eq!(handled.all(), [1, 2, 4, 5, 3, 6]);
}

#[tokio::test]
async fn without_acknowledgement_nothing_is_answered_and_what_came_outlives_the_connection() {
    for mode in [Mode::Oneway, Mode::Batch, Mode::Datagram] {
        let broker = Broker::start().await;
        let (handled, gate) = (Told::default(), Arc::new(Semaphore::new(0)));
        let (record, slow) = (handled.clone(), gate.clone());
        let client = builder(&broker)
            .subscribe(Subscription::new("a").mode(mode), move |delivery: Delivery| {
                let (record, slow) = (record.clone(), slow.clone());
                async move {
                    slow.acquire().await.map_err(HandlerError::new)?.forget();
                    record.add(delivery.instance_id);
                    Ok(())
                }
            })
            .start()
            .await
            .unwrap();
        let mut peer = broker.accept().await;
        assert_eq!(peer.welcome_client().await[0].mode, mode);
        let several = |ids: &[u64]| {
            let event = |id: &u64| match delivery(1, "a", *id) {
                ClientMessage::Event(event) => *event,
                other => panic!("no event: {other:?}"),
            };
            ClientMessage::Events(ids.iter().map(event).collect())
        };
        peer.send(&several(&[1, 2, 3])).await;
        peer.send(&delivery(1, "a", 4)).await;
        gate.add_permits(1);
        handled.one("the first", |id| *id == 1).await;
        drop(peer);
        let mut peer = broker.accept().await;
        peer.welcome_client().await;
        peer.send(&several(&[3, 4, 5])).await;
        gate.add_permits(10);
        handled.one("the last", |id| *id == 5).await;
        assert_eq!(handled.all(), [1, 2, 3, 4, 5], "{mode:?}");
        let closing = tokio::spawn(client.close());
        assert!(matches!(peer.next().await, Some(ClientFrame::Goodbye {})), "{mode:?}");
        drop(peer);
        closing.await.unwrap();
    }
}
