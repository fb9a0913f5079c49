//! D: what a client remembers, over crashes of either side.

use std::path::Path;
use std::sync::Arc;

use ackord_wire::ClientFrame;
use cluster_tests::listener::{Listener, ListenerBuilder};
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::proxy::Proxy;
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::{wait, wiretap};

use crate::{broker, own_broker};

/// Breaks the link to the broker in the handler of `args`: it is handled, its acknowledgement
/// never arrives.
fn deaf_at(listener: ListenerBuilder, args: &'static str, proxy: &Arc<Proxy>) -> ListenerBuilder {
    let proxy = proxy.clone();
    listener.via(&proxy.url()).handles(move |handled| {
        if handled.args.as_deref() == Some(args) {
            proxy.hold_requests();
        }
        async { Ok(()) }
    })
}

/// Waits until the client has sent the acknowledgement of an instance, arrived or not.
async fn until_acknowledged(proxy: &Proxy, instance_id: u64) {
    wait::until_true("the acknowledgement to be sent", async || {
        let sent = proxy.sent();
        let frames = sent.iter().flat_map(|sent| wiretap::client_frames(sent));
        frames
            .into_iter()
            .any(|frame| matches!(frame, ClientFrame::Ack(ack) if ack.instance_id == instance_id))
    })
    .await;
}

async fn ten_retained(name: &str) -> (Site, Vec<u64>) {
    let site = Site::new(broker().await, name, &structure(&[queueing("reading", 100)])).await;
    let raiser = site.raises("boiler").await;
    let ids = raiser.raise_many("reading", 10).await;
    raiser.close().await;
    (site, ids)
}

/// A client that is killed when it has handled 4 of 10 and its acknowledgement of 4 was lost, and
/// is started again; what it handled in both lives.
async fn killed_before_the_acknowledgement(name: &str, state: Option<&Path>) -> Vec<String> {
    let (site, ids) = ten_retained(name).await;
    let reader = site.guest("reader").await;
    let proxy = Arc::new(site.proxy().await);
    let kept = |listener: ListenerBuilder| match state {
        Some(path) => listener.state(path),
        None => listener,
    };
    let first = kept(deaf_at(site.listener(&reader), "4", &proxy)).to("reading").start().await;
    until_acknowledged(&proxy, ids[3]).await;
    first.kill().await;
    assert_eq!(site.cursor("reader", "reading").await, ids[2]);

    proxy.heal();
    let second = kept(site.listener(&reader)).to("reading").start().await;
    second.until_committed("reading", ids[9]).await;
    oracle::require(&site.history, &Expectations::default());
    second.args()
}

#[tokio::test]
async fn d8_in_memory_a_kill_before_the_acknowledgement_repeats_one() {
    let args = killed_before_the_acknowledgement("d8", None).await;
    assert_eq!(args.join(" "), "1 2 3 4 4 5 6 7 8 9 10");
}

#[tokio::test]
async fn d10_in_a_file_a_kill_before_the_acknowledgement_repeats_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = killed_before_the_acknowledgement("d10", Some(&dir.path().join("state"))).await;
    assert_eq!(args.join(" "), "1 2 3 4 5 6 7 8 9 10");
}

/// A stateless client that is disconnected once and then killed, and is started again.
async fn stateless_twice(site: &Site, state: Option<&Path>, proxy: &Proxy) -> Listener {
    let kept = |listener: ListenerBuilder| match state {
        Some(path) => listener.state(path),
        None => listener,
    };
    let raiser = site.raises("boiler").await;
    raiser.raise_many("reading", 3).await;
    let first = kept(site.stateless("guest")).via(&proxy.url()).to("reading").start().await;
    first.until_handled(3).await;
    proxy.reset();
    first.until_subscribed(2).await;
    raiser.raise("reading", 4).await;
    first.until_handled(4).await;
    assert_eq!(first.args().join(" "), "1 2 3 4", "a new connection repeats nothing");
    first.close().await;
    raiser.raise("reading", 5).await;
    kept(site.stateless("guest")).via(&proxy.url()).to("reading").start().await
}

#[tokio::test]
async fn d12_stateless_in_memory_repeats_all_after_a_restart_only() {
    let site = Site::new(broker().await, "d12", &structure(&[queueing("reading", 100)])).await;
    let proxy = site.proxy().await;
    let second = stateless_twice(&site, None, &proxy).await;
    second.until_handled(9).await;
    assert_eq!(second.args().join(" "), "1 2 3 4 1 2 3 4 5");
}

#[tokio::test]
async fn d13_stateless_in_a_file_repeats_nothing() {
    let site = Site::new(broker().await, "d13", &structure(&[queueing("reading", 100)])).await;
    let (proxy, dir) = (site.proxy().await, tempfile::tempdir().expect("a directory"));
    let second = stateless_twice(&site, Some(&dir.path().join("state")), &proxy).await;
    second.until_handled(5).await;
    assert_eq!(second.args().join(" "), "1 2 3 4 5");
    oracle::require(&site.history, &Expectations::default());
}

#[tokio::test]
async fn d25_a_broker_that_dies_before_the_cursor_is_committed_delivers_again_handled_once() {
    let mut node = own_broker().await;
    let site = Site::new(&node, "d25", &structure(&[queueing("reading", 100)])).await;
    let (raiser, reader) = (site.raises("boiler").await, site.guest("reader").await);
    let ids = raiser.raise_many("reading", 3).await;
    let proxy = Arc::new(site.proxy().await);
    let listener = deaf_at(site.listener(&reader), "2", &proxy).to("reading").start().await;
    until_acknowledged(&proxy, ids[1]).await;
    assert_eq!(site.cursor("reader", "reading").await, ids[0]);
    node.crash().await.expect("the broker comes back");

    proxy.heal();
    listener.until_committed("reading", ids[2]).await;
    assert_eq!(listener.args().join(" "), "1 2 3");
    site.until_cursor("reader", "reading", ids[2]).await;
    let complete = vec![("reading".to_owned(), "reader".to_owned())];
    oracle::require(&site.history, &Expectations { complete, ..Expectations::default() });
}
