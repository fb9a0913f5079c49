//! A real kill: another process raises and tells what was acknowledged until it is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ackord_machine::site::{Decision, Outcome, Raised};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use super::fixture::{Publisher, hashes, options};
use crate::Node;

/// Tells the test below that it is the process to be killed.
const DIR_VARIABLE: &str = "ACKORD_TEST_VICTIM_DIR";
/// How many acknowledged events the victim is killed after.
const ACKNOWLEDGED: usize = 3000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_process_killed_while_raising_when_started_again_then_all_acknowledged_are_there() {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        return raise_until_killed(std::path::Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "tests::durability::given_a_process_killed_while_raising_when_started_again_then_all_acknowledged_are_there";
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR_VARIABLE, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let told: Vec<u64> = lines
        .map_while(Result::ok)
        .filter_map(|line| line.rsplit_once("acknowledged ")?.1.parse().ok())
        .take(ACKNOWLEDGED)
        .collect();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(told.len(), ACKNOWLEDGED, "the victim raised until it was killed");

    let node = Node::start(options(dir.path())).unwrap();
    let newest = told.iter().max().copied().unwrap();
    let publisher = Publisher::attach(&node, "plant", 1000).await;
    let (_, head) = publisher.retained();
    assert!(head.0 >= newest, "{newest} was acknowledged, the newest is {head}");
    assert!(publisher.next.0 > newest, "the deduplication mark is as new as the event");
    let before = hashes(&node);
    node.shutdown();
    let node = Node::start(options(dir.path())).unwrap();
    assert_eq!(before, hashes(&node));
    node.shutdown();
}

async fn raise_until_killed(dir: &std::path::Path) {
    let node = Node::start(options(dir)).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    let mut window = FuturesOrdered::new();
    loop {
        while window.len() < 64 {
            window.push_back(publisher.send(64).unwrap());
        }
        let Some(Ok(Outcome::Raised(Raised { decision: Decision::Stored(id), .. }))) =
            window.next().await
        else {
            panic!("every raise is stored");
        };
        println!("acknowledged {id}");
    }
}
