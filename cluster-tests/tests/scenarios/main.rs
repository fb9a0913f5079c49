//! Every scenario of `docs/semantics.md` that one node can show, as a black-box test named after
//! its id.
//!
//! All scenarios share one broker, each has a site of its own; those that do something to the
//! broker itself start their own. Times are short because the shared broker's limits allow it;
//! [`defaults`] is a broker without any.

mod access;
mod client;
mod client_levels;
mod documented;
mod flow;
mod mixed;
mod queues;
mod registering;
mod service;
mod service_levels;
mod stopping;
mod structure;

use cluster_tests::node::Node;
use tokio::sync::OnceCell;

/// What lets scenarios of a minute take seconds.
const LIMITS: &[&str] = &["lifetime_ms_min=1000", "ack_timeout_ms_min=100"];

/// The broker that the scenarios share.
pub(crate) async fn broker() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(async || Node::start(LIMITS).await.expect("the broker starts")).await
}

/// A broker with the limits of the documentation.
pub(crate) async fn defaults() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(async || Node::start(&[]).await.expect("the broker starts")).await
}

/// A broker of the scenario's own.
pub(crate) async fn own_broker() -> Node {
    Node::start(LIMITS).await.expect("the broker starts")
}
