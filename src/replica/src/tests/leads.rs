//! The lead of a partition goes to the node whose load draws it.

use futures_util::future::join_all;

use super::cluster::within;
use super::fixture::Publisher;
use super::founding::{Place, found, settled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_load_through_a_follower_then_it_comes_to_lead_and_all_take_that_as_settled() {
    let places = [Place::new(), Place::new(), Place::new()];
    let (_, nodes) = found(&places).await;
    settled(&nodes).await;
    let leads = |node: usize| nodes[node].partition_of(&"plant".into()).raft().is_leader();
    let through = (0..nodes.len()).find(|node| !leads(*node)).unwrap();
    let mut publisher = Publisher::create(&nodes[through], "plant", 1000).await;
    let mut brought = 0;
    let load = async {
        while !leads(through) {
            // Whatever becomes of them: while the lead moves some are refused, and with them all behind.
            let pending: Vec<_> = (0..200).filter_map(|_| publisher.send(64).ok()).collect();
            brought += join_all(pending).await.len();
        }
    };
    within("the lead to come to the load", load).await;
    assert!(brought > 500, "{brought} commands drew the lead");
    settled(&nodes).await;
    assert!(leads(through), "it stays there");
}
