//! What a push subscription makes of receivers that misbehave, and of changes while something waits.

#![allow(clippy::unwrap_used)]

mod callbacks;
mod support;

use std::sync::Arc;

use ackord_agents::PushOptions;
use ackord_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ackord_tls::rustls::{ServerConfig, crypto};
use ackord_tls::tokio_rustls::TlsAcceptor;
use callbacks::{Received, Receiver, Then, World};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

fn loopback(options: PushOptions) -> PushOptions {
    PushOptions { hosts: vec!["127.0.0.0/8".to_owned()], ..options }
}

fn numbers(received: &[Received]) -> Vec<u64> {
    received.iter().map(Received::number).collect()
}

#[tokio::test]
async fn a_kept_connection_that_the_receiver_closes_is_no_failure() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    world.push("p", &receiver, json!({"retry_count": 0})).await;
    receiver.always(Some(Then::AbortKept));
    for count in 1..=4 {
        world.raise(1).await;
        world.until("p", |shown| shown["delivered"] == count).await;
    }
    let received = receiver.received();
    assert!(received.iter().any(|request| request.before > 0), "a connection was used again");
    let shown = world.show("p").await;
    assert_eq!((&shown["state"], &shown["failed"]), (&json!("active"), &json!(0)));
    // On a connection of its own it is one.
    receiver.always(Some(Then::Abort));
    world.raise(1).await;
    let shown = world.until("p", |shown| shown["state"] == "cancelled").await;
    assert_eq!((&shown["because"], &shown["failed"]), (&json!("broken"), &json!(1)));
    world.running.stop().await;
}

#[tokio::test]
async fn oneway_to_a_receiver_that_always_fails_is_cancelled() {
    let (mut world, receiver) = (World::start().await, Receiver::start().await);
    let more = json!({"mode": "oneway", "retry_count": 2});
    world.push("p", &receiver, more).await;
    receiver.always(Some(Then::Answer(503)));
    for failed in 1..=3 {
        world.raise(1).await;
        world.until("p", |shown| shown["failed"] == failed).await;
    }
    let shown = world.show("p").await;
    assert_eq!((&shown["state"], &shown["failures"]), (&json!("cancelled"), &json!(3)));
    assert_eq!(shown["position"]["instance_id"], 3, "what was written is not sent again");
    assert_eq!(numbers(&receiver.received()), [1, 2, 3]);
    world.running.stop().await;
}

#[tokio::test]
async fn what_waits_for_room_is_not_sent_where_it_is_not_wanted_any_more() {
    let options = PushOptions { host_requests_max: 1, ..PushOptions::default() };
    let (mut world, receiver) = (World::with(loopback(options)).await, Receiver::start().await);
    let elsewhere = Receiver::start().await;
    let ids = ["held_back", "moved", "kept"];
    world.push("first", &receiver, json!({"send_timeout_ms": 600_000})).await;
    for id in ids {
        world.push(id, &receiver, json!({"paused": true})).await;
    }
    receiver.will([Then::Until]);
    world.raise(1).await;
    receiver.wait_for(1).await;
    let to = |receiver: &Receiver, paused: bool| json!({"event": "reading", "url": receiver.url(), "retry_count": -1, "paused": paused});
    for id in ids {
        world.put(id, to(&receiver, false)).await.is(200);
        world.until(id, |shown| shown["in_flight"] == 1).await;
    }
    world.put("held_back", to(&receiver, true)).await.is(200);
    world.put("moved", to(&elsewhere, false)).await.is(200);
    receiver.go_on();
    assert_eq!(elsewhere.wait_for(1).await[0].header("Ackord-Push"), "moved");
    for id in ["first", "kept", "moved"] {
        world.until(id, |shown| shown["delivered"] == 1).await;
    }
    world.until("held_back", |shown| shown["in_flight"] == 0).await;
    let received = receiver.received();
    let pushes: Vec<&str> = received.iter().map(|it| it.header("Ackord-Push")).collect();
    assert_eq!(pushes, ["first", "kept"]);
    world.running.stop().await;
}

/// An authority of one's own.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Shows a certificate of the authority for this name.
fn shows(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn a_callback_is_believed_by_an_authority_of_the_deployment_and_by_its_name() {
    let (ours, other) = (authority(), authority());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authorities.pem");
    std::fs::write(&file, ours.pem()).unwrap();
    let options = PushOptions { ca_file: Some(file), ..PushOptions::default() };
    let mut world = World::with(loopback(options)).await;
    let receiver = Receiver::secured(shows(&ours, "127.0.0.1")).await;
    world.push("p", &receiver, json!({})).await;
    world.raise(2).await;
    assert_eq!(numbers(&receiver.wait_for(2).await), [1, 2]);
    world.until("p", |shown| shown["delivered"] == 2).await;
    let wrong = [shows(&other, "127.0.0.1"), shows(&ours, "elsewhere.example")];
    for acceptor in wrong {
        let receiver = Receiver::secured(acceptor).await;
        let body = json!({"event": "reading", "url": receiver.url()});
        let refused = world.put("q", body).await;
        let problem = refused.is_problem(422, "callback-unverified", Some("url"));
        assert!(problem["detail"].as_str().unwrap().ends_with(": tls"), "{problem}");
    }
    world.running.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_any_more_is_a_soft_failure() {
    let ours = authority();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authorities.pem");
    std::fs::write(&file, ours.pem()).unwrap();
    let options = PushOptions { ca_file: Some(file), ..PushOptions::default() };
    let mut world = World::with(loopback(options)).await;
    let good = shows(&ours, "127.0.0.1");
    let shown: Arc<parking_lot::Mutex<TlsAcceptor>> = Arc::new(parking_lot::Mutex::new(good));
    let receiver = Receiver::secured_by(shown.clone()).await;
    world.push("p", &receiver, json!({})).await;
    *shown.lock() = shows(&ours, "elsewhere.example");
    receiver.always(Some(Then::Answer(500)));
    world.raise(1).await;
    let state = world.until("p", |shown| shown["because"] == "tls").await;
    assert_eq!(state["state"], "offline", "{state}");
    *shown.lock() = shows(&ours, "127.0.0.1");
    receiver.always(None);
    world.until("p", |shown| shown["delivered"] == 1).await;
    world.running.stop().await;
}
