//! A node whose store fails stops, and says nothing that is not so.

use std::sync::Arc;

use ackord_machine::site::SiteName;
use ackord_store::StoreError;

use super::fixture::{create_site, options, record_fatal, until};
use crate::node::Hooks;
use crate::{Node, NodeOptions, ProposeError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_sync_that_fails_when_proposing_then_the_node_ends_and_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (on_fatal, reasons) = record_fatal();
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fails = failing.clone();
    let hooks = Hooks {
        identity: None,
        on_sync: Some(Arc::new(move |done| {
            let fails = fails.clone();
            Box::new(move |result| {
                let failed = fails.load(std::sync::atomic::Ordering::SeqCst);
                done(if failed { Err(StoreError::Fatal("sync".into())) } else { result });
            })
        })),
    };
    let node = Node::start_with(NodeOptions { on_fatal, ..options(dir.path()) }, hooks).unwrap();
    let site = SiteName::from("plant");
    let at = node.partition_of(&site);
    failing.store(true, std::sync::atomic::Ordering::SeqCst);
    let outcome = at.try_propose(create_site(&site)).unwrap().await;
    assert_eq!(outcome, Err(ProposeError::Unknown));
    until(|| !node.ready()).await;
    assert_eq!(at.try_propose(create_site(&site)).map(drop), Err(ProposeError::Unavailable));
    assert!(at.read(|state| state.site("plant").is_none()));
    assert!(reasons.lock()[0].contains("sync"), "{:?}", reasons.lock());
}
