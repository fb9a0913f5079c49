//! What every row ends with: all nodes are killed at once and read their logs again, without their
//! checkpoints, and must come to the states that they had.

use crate::cluster::Cluster;
use crate::history::{Entry, History};

/// Memory that the process of a node may have had at most.
const MEMORY: u64 = 1 << 30;

/// Notes the hashes that all nodes have taken, and their memory; says how many there are.
async fn note(cluster: &Cluster, how: &str, history: &History) -> usize {
    let mut count = 0;
    for node in cluster.running() {
        let hashes = cluster.hashes(node).await.expect("a node that serves shows its groups");
        for (group, index, hash) in hashes {
            count += 1;
            history.record(Entry::Hashed {
                replica: format!("node {node}, {how}"),
                group,
                index,
                hash,
            });
        }
        let found = cluster.peak_memory(node).expect("the node runs");
        let what = format!("memory of node {node}, {how}");
        history.record(Entry::Measured { what, found, bound: MEMORY });
    }
    count
}

/// See the module. All nodes must run and have just been compared.
///
/// # Panics
/// When nothing was read again.
pub async fn replay(cluster: &mut Cluster, history: &History) {
    let live = note(cluster, "live", history).await;
    let running = cluster.running();
    for node in &running {
        cluster.kill(*node);
    }
    for node in &running {
        cluster.forget_checkpoint(*node).expect("a node has a checkpoint");
    }
    for node in &running {
        cluster.start_node(*node).await.expect("the node starts again");
    }
    cluster.ready().await;
    let replayed = note(cluster, "replayed", history).await;
    assert!(live > 0 && replayed > 0, "{live} states, of which {replayed} were read again");
    eprintln!("of {live} states {replayed} were read again");
}
