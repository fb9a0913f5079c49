//! The client endpoint over sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ackord_endpoint::{
    ClientBuilder, ClientEndpoint, ClientLevel, ClientNotice, Delivery, Error, Flow, HandlerError,
    Subscription,
};
use ackord_wire::frame::{self, Ack, ClientFrame, ClientMessage};
use tokio::sync::Semaphore;

use crate::broker::{Broker, client_welcome, delivery};
use crate::told::Told;

/// An acknowledgement in the generation that this file's broker delivers in.
fn acked(subscription: u32, instance_id: u64) -> Ack {
    Ack { subscription, instance_id, generation: Some(0) }
}

fn builder(broker: &Broker) -> ClientBuilder {
    ClientEndpoint::builder()
        .url(&broker.url)
        .site("site")
        .token(Some("secret".to_owned()))
        .reconnect_scale(0.0)
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
async fn an_instance_is_handled_and_acknowledged() {
    let broker = Broker::start().await;
    let (told, handled) = (Told::default(), Told::default());
    let notices = told.clone();
    let client = builder(&broker)
        .subscribe(Subscription::new("a"), recorder(&handled))
        .on_notice(move |notice| notices.add(notice))
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    assert_eq!(peer.path, "/v1/sites/site/client");
    assert_eq!(peer.welcome_client().await.len(), 1);
    peer.send(&delivery(1, "a", 5)).await;
    let ack = peer.ack().await;
    assert_eq!(ack, acked(1, 5));
    peer.send(&ClientMessage::Committed(ack)).await;
    let committed = ClientNotice::Committed { event: "a".to_owned(), instance_id: 5 };
    told.one("committed", |notice| *notice == committed).await;
    peer.send(&delivery(1, "a", 5)).await;
    assert_eq!(peer.ack().await.instance_id, 5);
    assert_eq!(handled.all(), [5], "a duplicate is acknowledged without a call");
    let closing = tokio::spawn(client.close());
    assert!(matches!(peer.next().await, Some(ClientFrame::Goodbye {})));
    drop(peer);
    closing.await.unwrap();
}

#[tokio::test]
async fn cpl2_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("positions");
    let broker = Broker::start().await;
    let handled = Told::default();
    let with_store = || {
        builder(&broker)
            .persistence(ClientLevel::file(&path))
            .subscribe(Subscription::new("a"), recorder(&handled))
    };
    let first = with_store().start().await.unwrap();
    assert!(matches!(with_store().start().await, Err(Error::Locked(_))));
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    peer.send(&delivery(1, "a", 5)).await;
    peer.ack().await;
    let closing = tokio::spawn(first.close());
    assert!(matches!(peer.next().await, Some(ClientFrame::Goodbye {})));
    drop(peer);
    closing.await.unwrap();

    let _second = with_store().start().await.unwrap();
    let mut peer = broker.accept().await;
    assert!(matches!(peer.next().await, Some(ClientFrame::Hello(_))));
    peer.send(&ClientMessage::Welcome(client_welcome(frame::Sync::Equal))).await;
    peer.send(&delivery(1, "a", 5)).await;
    assert_eq!(peer.ack().await.instance_id, 5);
    peer.send(&delivery(1, "a", 6)).await;
    assert_eq!(peer.ack().await.instance_id, 6);
    assert_eq!(handled.all(), [5, 6]);
}

#[tokio::test]
async fn a_stateless_client_has_no_token_and_presents_its_positions() {
    let broker = Broker::start().await;
    let handled = Told::default();
    let _client = builder(&broker)
        .token(None)
        .subscribe(Subscription::new("a"), recorder(&handled))
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    assert_eq!(peer.token, None);
    assert_eq!(peer.welcome_client().await[0].resume, None);
    peer.send(&delivery(1, "a", 5)).await;
    peer.ack().await;
    drop(peer);
    let mut peer = broker.accept().await;
    let resume = peer.welcome_client().await[0].resume.unwrap();
    assert_eq!(resume.instance_id, 5);
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_gives_the_instance_back() {
    let broker = Broker::start().await;
    let _client = builder(&broker)
        .subscribe(Subscription::new("a"), |delivery: Delivery| async move {
            match delivery.instance_id {
                1 => Err(HandlerError::new("no").retry_after(Duration::from_millis(7))),
                2 => panic!("a handler's mistake"),
                _ => Ok(()),
            }
        })
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    for instance_id in [1, 2] {
        peer.send(&delivery(1, "a", instance_id)).await;
        let Some(ClientFrame::Nack(nack)) = peer.next().await else { panic!("no nack") };
        assert_eq!(nack.instance_id, instance_id);
        assert!(nack.retry_after_ms == 7 || instance_id == 2);
    }
    peer.send(&delivery(1, "a", 3)).await;
    assert_eq!(peer.ack().await.instance_id, 3);
}

#[tokio::test]
async fn subscriptions_do_not_wait_for_each_other_and_close_waits_for_handlers() {
    let broker = Broker::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let slow = Arc::clone(&gate);
    let (running, handled) = (Arc::new(AtomicUsize::new(0)), Told::default());
    let count = Arc::clone(&running);
    let client = builder(&broker)
        .subscribe(Subscription::new("a"), move |_| {
            let (slow, count) = (Arc::clone(&slow), Arc::clone(&count));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                slow.acquire().await.map_err(HandlerError::new)?.forget();
                Ok(())
            }
        })
        .subscribe(Subscription::new("b"), recorder(&handled))
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    peer.send(&delivery(1, "a", 1)).await;
    peer.send(&delivery(1, "a", 1)).await;
    for instance_id in 2..10 {
        peer.send(&delivery(2, "b", instance_id)).await;
        assert_eq!(peer.ack().await, acked(2, instance_id));
    }
    assert_eq!(running.load(Ordering::SeqCst), 1);
    let closing = tokio::spawn(client.close());
    gate.add_permits(1);
    assert_eq!(peer.ack().await, acked(1, 1));
    assert!(matches!(peer.next().await, Some(ClientFrame::Goodbye {})));
    drop(peer);
    closing.await.unwrap();
}

#[tokio::test]
async fn stop_after_n_handles_exactly_n() {
    let broker = Broker::start().await;
    let (told, handled) = (Told::default(), Told::default());
    let (notices, record) = (told.clone(), handled.clone());
    let client = builder(&broker)
        .concurrency(1)
        .subscribe(Subscription::new("a"), move |delivery: Delivery| {
            record.add(delivery.instance_id);
            async move { Ok(if delivery.instance_id == 2 { Flow::Stop } else { Flow::Continue }) }
        })
        .on_notice(move |notice| notices.add(notice))
        .start()
        .await
        .unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    for instance_id in 1..=3 {
        peer.send(&delivery(1, "a", instance_id)).await;
        if instance_id < 3 {
            let ack = peer.ack().await;
            peer.send(&ClientMessage::Committed(ack)).await;
        }
    }
    let committed = ClientNotice::Committed { event: "a".to_owned(), instance_id: 2 };
    told.one("committed", |notice| *notice == committed).await;
    let closing = tokio::spawn(client.close());
    assert!(matches!(peer.next().await, Some(ClientFrame::Goodbye {})), "the third is not acked");
    drop(peer);
    closing.await.unwrap();
    assert_eq!(handled.all(), [1, 2]);
}

/// A figure rather than a rule: `cargo test --release -p ackord-endpoint --test shell -- figures
/// --nocapture` prints it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_handling() {
    const EVENTS: u64 = if cfg!(debug_assertions) { 5_000 } else { 200_000 };
    const SUBSCRIPTIONS: u32 = 100;
    let broker = Broker::start().await;
    let mut builder = builder(&broker);
    let handled = Arc::new(AtomicUsize::new(0));
    for n in 1..=SUBSCRIPTIONS {
        let handled = Arc::clone(&handled);
        builder = builder.subscribe(Subscription::new(format!("e{n}")), move |_| {
            handled.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(()))
        });
    }
    let client = builder.start().await.unwrap();
    let mut peer = broker.accept().await;
    peer.welcome_client().await;
    let began = std::time::Instant::now();
    let mut next = u64::from(SUBSCRIPTIONS);
    for n in 1..=SUBSCRIPTIONS {
        peer.feed(&delivery(n, &format!("e{n}"), u64::from(n))).await;
    }
    peer.flush().await;
    let mut acknowledged = 0;
    while acknowledged < EVENTS {
        let mut frame = peer.next::<ClientFrame>().await;
        while let Some(ClientFrame::Ack(ack)) = frame {
            acknowledged += 1;
            next += 1;
            let event = format!("e{}", ack.subscription);
            peer.feed(&delivery(ack.subscription, &event, next)).await;
            frame = peer.ready();
        }
        peer.flush().await;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{:.0} deliveries a second", EVENTS as f64 / seconds);
    drop(client);
}
