//! From a proposal to its outcome: group commit, coalescing, bounds, watches, the node's own
//! commands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::{
    AdminAction, Claim, ClientId, Command, Decision, Effect, Epoch, InstanceId, Limits, Outcome,
    Raised, SessionId, SiteName, Start, Subscribe, SubscribeMode, SubscriptionRequest,
};
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::fixture::{Publisher, admin, advance, create_site, options, propose, until};
use crate::node::Hooks;
use crate::{Node, NodeOptions, ProposeError};

type Report = Box<dyn FnOnce() + Send>;

/// Syncs are held back while closed.
#[derive(Clone, Default)]
pub(super) struct Gate {
    held: Arc<Mutex<Option<Vec<Report>>>>,
}

impl Gate {
    pub(super) fn hooks(&self) -> Hooks {
        let gate = self.clone();
        Hooks {
            identity: None,
            on_sync: Some(Arc::new(move |done| {
                let gate = gate.clone();
                Box::new(move |result| {
                    let report: Report = Box::new(move || done(result));
                    let mut held = gate.held.lock();
                    match held.as_mut() {
                        Some(reports) => reports.push(report),
                        None => {
                            drop(held);
                            report();
                        }
                    }
                })
            })),
        }
    }

    pub(super) fn close(&self) {
        *self.held.lock() = Some(Vec::new());
    }

    pub(super) fn waiting(&self) -> usize {
        self.held.lock().as_ref().map_or(0, Vec::len)
    }

    pub(super) fn open(&self) {
        let reports = self.held.lock().take();
        reports.into_iter().flatten().for_each(|report| report());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_when_an_event_is_raised_then_its_outcome_comes_and_the_state_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(options(dir.path())).unwrap();
    assert!(node.ready());
    let mut publisher = Publisher::create(&node, "plant", 10).await;
    let outcome = publisher.send(8).unwrap().await;
    let stored = Raised { duplicate: false, decision: Decision::Stored(InstanceId(1)) };
    assert_eq!(outcome, Ok(Outcome::Raised(stored)));
    assert_eq!(publisher.retained(), (1, InstanceId(1)));
    publisher.at.linearize().await.unwrap();
    let clock = publisher.at.read(|state| state.clock());
    assert!(publisher.at.now() >= clock);
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_sync_that_is_not_done_when_proposing_then_there_is_no_outcome_before() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let node = Node::start_with(options(dir.path()), gate.hooks()).unwrap();
    let site = SiteName::from("plant");
    let at = node.partition_of(&site);
    gate.close();
    let mut pending = at.try_propose(create_site(&site)).unwrap();
    until(|| gate.waiting() > 0).await;
    // It is written, and even so nobody may know: one whole turn of every task changes nothing.
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut pending).await.is_err());
    assert!(at.read(|state| state.site("plant").is_none()));
    gate.open();
    assert_eq!(pending.await, Ok(Outcome::Done));
    assert!(at.read(|state| state.site("plant").is_some()));
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_commands_that_wait_for_more_when_they_may_go_then_they_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(options(dir.path())).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    let before = node.counters();
    let later = |_| {
        let command = publisher.raise(8);
        publisher.at.try_propose_later(command).unwrap()
    };
    let pending: Vec<_> = (0..200).map(later).collect();
    publisher.at.go();
    assert!(join_all(pending).await.iter().all(Result::is_ok));
    assert_eq!(publisher.at.queued(), 0);
    // The first may have met a proposer that was about to rest.
    let entries = node.counters().entries_applied - before.entries_applied;
    assert!(entries <= 2, "{entries} entries");
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_many_proposers_when_raising_then_entries_and_syncs_are_far_fewer_than_commands() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(options(dir.path())).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    let before = node.counters();
    let pending: Vec<_> = (0..2000).map(|_| publisher.send(8).unwrap()).collect();
    for (index, outcome) in join_all(pending).await.into_iter().enumerate() {
        let stored = Decision::Stored(InstanceId(index as u64 + 1));
        assert_eq!(outcome, Ok(Outcome::Raised(Raised { duplicate: false, decision: stored })));
    }
    let after = node.counters();
    assert_eq!(after.commands_proposed - before.commands_proposed, 2000);
    let entries = after.entries_applied - before.entries_applied;
    assert!(entries < 500, "{entries} entries for 2000 commands");
    assert!(after.log_syncs - before.log_syncs <= entries + 2, "more syncs than entries");
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_advances_of_one_cursor_when_batched_then_each_gets_the_highest_ones_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let node = Node::start_with(options(dir.path()), gate.hooks()).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 100).await;
    for _ in 0..5 {
        publisher.send(8).unwrap().await.unwrap();
    }
    let client = ClientId::from("client");
    let create = AdminAction::CreateClient { id: client.clone(), user: None };
    propose(&publisher.at, admin(&publisher.site, 3, create)).await.unwrap();
    let claim = Claim { session: SessionId(1), above: Epoch(0) };
    let attach =
        Command::AttachClient { site: publisher.site.clone(), client: client.clone(), claim };
    let Ok(Outcome::ClientAttached { epoch, .. }) = propose(&publisher.at, attach).await else {
        panic!("a registered client attaches");
    };
    let subscribe = Command::Subscribe(Subscribe {
        site: publisher.site.clone(),
        client,
        epoch,
        number: 1,
        mode: SubscribeMode::Exact,
        items: vec![SubscriptionRequest {
            event: "Alarm".into(),
            category: None,
            start: Start::Earliest,
            ack_timeout_ms: None,
            max_attempts: None,
        }],
    });
    assert!(matches!(propose(&publisher.at, subscribe).await, Ok(Outcome::Subscribed(_))));

    // While two entries are held at the sync, everything else queues up for the third.
    gate.close();
    let first = publisher.at.try_propose(advance(&publisher, epoch, InstanceId(1))).unwrap();
    until(|| gate.waiting() == 1).await;
    let second = publisher.at.try_propose(advance(&publisher, epoch, InstanceId(2))).unwrap();
    until(|| gate.waiting() == 2).await;
    let rest: Vec<_> = [3, 5, 4]
        .map(|id| publisher.at.try_propose(advance(&publisher, epoch, InstanceId(id))).unwrap())
        .into_iter()
        .collect();
    let stale = publisher.at.try_propose(advance(&publisher, Epoch(0), InstanceId(5))).unwrap();
    gate.open();

    let advanced = |id| Ok(Outcome::Advanced { cursor: InstanceId(id) });
    assert_eq!(first.await, advanced(1));
    assert_eq!(second.await, advanced(2));
    assert_eq!(join_all(rest).await, vec![advanced(5), advanced(5), advanced(5)]);
    assert!(matches!(stale.await, Ok(Outcome::Refused(_))));
    assert_eq!(node.counters().commands_coalesced, 2);
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_full_queue_when_proposing_then_busy_and_what_was_taken_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let options = NodeOptions { queue_commands_max: 4, ..options(dir.path()) };
    let node = Node::start_with(options, gate.hooks()).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 100).await;
    gate.close();
    let mut taken = Vec::new();
    for held in 1..=2 {
        taken.push(publisher.send(8).unwrap());
        until(|| gate.waiting() == held).await;
    }
    for _ in 0..4 {
        taken.push(publisher.send(8).unwrap());
    }
    let refused = publisher.send(8).map(drop);
    assert_eq!(refused, Err(ProposeError::Busy));
    assert!(ProposeError::Busy.retryable());
    gate.open();
    assert!(join_all(taken).await.iter().all(Result::is_ok));
    assert_eq!(publisher.retained(), (6, InstanceId(6)));
    assert_eq!(node.counters().refused_busy, 1);
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_dropped_pending_when_the_entry_commits_then_the_command_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(options(dir.path())).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 100).await;
    drop(publisher.send(8).unwrap());
    // The same sequence again: it was decided.
    let last = publisher.next.0 - 1;
    let again = publisher.raise_as(ackord_machine::site::Sequence(last), 8);
    let stored = Raised { duplicate: true, decision: Decision::Stored(InstanceId(1)) };
    assert_eq!(propose(&publisher.at, again).await, Ok(Outcome::Raised(stored)));
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_watch_when_events_are_raised_then_it_sees_that_once_and_can_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(options(dir.path())).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 100).await;
    let mut watch = publisher.at.watch();
    for _ in 0..10 {
        publisher.send(8).unwrap().await.unwrap();
    }
    let effects = watch.changed().await;
    let events: BTreeSet<_> =
        effects.iter().filter(|effect| matches!(effect, Effect::Event { .. })).collect();
    assert_eq!(events.len(), 1, "{effects:?}");
    assert_eq!(publisher.retained(), (10, InstanceId(10)));
    publisher.send(8).unwrap().await.unwrap();
    assert!(watch.changed().await.iter().any(|effect| effect.site() == &publisher.site));
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_other_limits_than_the_partition_has_when_started_then_the_leader_proposes_them() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { sites_max: 3, ..Limits::default() };
    let node = Node::start(NodeOptions { limits: limits.clone(), ..options(dir.path()) }).unwrap();
    for partition in node.partitions() {
        until(|| partition.read(|state| state.limits() == &limits)).await;
    }
    node.shutdown();
}

/// Raises until that is refused for the state's size; anything else still goes.
async fn raise_up_to_capacity(options: NodeOptions) {
    let limits = options.limits.clone();
    let node = Node::start(options).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    until(|| publisher.at.read(|state| state.limits() == &limits)).await;
    let refused = loop {
        match publisher.send(1000) {
            Ok(pending) => drop(pending.await.unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ProposeError::OverCapacity);
    let delete = admin(&publisher.site, 9, AdminAction::DeleteSite);
    assert_eq!(propose(&publisher.at, delete).await, Ok(Outcome::Done));
    assert!(publisher.send(8).is_ok(), "there is room again");
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_state_at_its_capacity_when_raising_then_over_capacity_and_other_commands_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { partition_bytes_max: 20_000, ..Limits::default() };
    raise_up_to_capacity(NodeOptions { limits, ..options(dir.path()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_at_its_capacity_when_raising_then_over_capacity_and_other_commands_go_on() {
    let dir = tempfile::tempdir().unwrap();
    raise_up_to_capacity(NodeOptions { state_bytes_max: 20_000, ..options(dir.path()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_disk_below_its_reserve_when_raising_then_disk_full_and_other_commands_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions { disk_reserve_bytes: 1 << 60, ..options(dir.path()) };
    let node = Node::start(options).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    assert_eq!(publisher.send(8).map(drop), Err(ProposeError::DiskFull));
    assert_eq!(node.counters().refused_disk_full, 1);
    let delete = admin(&publisher.site, 9, AdminAction::DeleteSite);
    assert_eq!(propose(&publisher.at, delete).await, Ok(Outcome::Done));
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_something_that_expires_when_it_is_due_then_the_replica_removes_it_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { lifetime_ms_min: 1, ..Limits::default() };
    let node = Node::start(NodeOptions { limits: limits.clone(), ..options(dir.path()) }).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    let mut raise = publisher.raise(8);
    if let Command::Raise(raise) = &mut raise {
        raise.event.lifetime_s = Some(1);
    }
    assert!(matches!(propose(&publisher.at, raise).await, Ok(Outcome::Raised(_))));
    assert_eq!(publisher.retained().0, 1);
    until(|| publisher.retained().0 == 0).await;
    node.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_node_that_stops_when_proposing_then_unavailable_and_what_was_taken_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(options(dir.path())).unwrap();
    let mut publisher = Publisher::create(&node, "plant", 1000).await;
    let taken: Vec<_> = (0..100).map(|_| publisher.send(8).unwrap()).collect();
    node.shutdown();
    assert!(join_all(taken).await.iter().all(Result::is_ok));
    let refused = publisher.send(8).map(drop);
    assert_eq!(refused, Err(ProposeError::Unavailable));
    node.shutdown();
}
