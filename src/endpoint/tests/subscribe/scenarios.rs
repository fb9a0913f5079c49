//! The scenarios of handling, named after the rules.

use std::time::Duration;

use ackord_endpoint::publish::Then;
use ackord_endpoint::subscribe::SubscribeOptions;
use ackord_endpoint::{ClientNotice, Flow, HandlerError, ResetReason};
use ackord_wire::Code;
use ackord_wire::frame::{ClientFrame, ClientMessage, Closing, RefusedItem, Subscribed};

use crate::world::{World, options};

fn started(mut world: World, instances: u64) -> World {
    for _ in 0..instances {
        world.broker.raise("a");
    }
    world.connect();
    world.exchange();
    world
}

fn acks(world: &World) -> Vec<u64> {
    let named = |frame: &ClientFrame| match frame {
        ClientFrame::Ack(ack) => Some(ack.instance_id),
        ClientFrame::Hello(_)
        | ClientFrame::Subscriptions(_)
        | ClientFrame::Subscribe(_)
        | ClientFrame::Unsubscribe { .. }
        | ClientFrame::Nack(_)
        | ClientFrame::Working(_)
        | ClientFrame::Goodbye {} => None,
    };
    world.up.iter().filter_map(named).collect()
}

#[test]
fn instances_are_handled_in_order_and_their_commits_are_told() {
    let mut world = started(World::cpl1(&["a"]), 3);
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3]);
    for instance_id in 1..=3 {
        assert!(world.has(&ClientNotice::Committed { event: "a".to_owned(), instance_id }));
    }
}

#[test]
fn d1_an_unchanged_set_puts_no_list_on_the_wire() {
    let mut world = started(World::cpl1(&["a", "b"]), 0);
    assert_eq!(world.broker.heard, ["hello", "subscriptions"]);
    world.disconnect();
    world.settle();
    assert_eq!(world.broker.heard, ["hello", "subscriptions", "hello"]);
}

#[test]
fn d2_a_changed_set_drops_what_is_not_in_it() {
    let mut world = started(World::cpl2(&["a", "b"]), 2);
    world.settle();
    assert!(world.positions.contains_key("a"));
    world.options = options(&["b", "c"]);
    world.restart();
    world.settle();
    assert!(world.has(&ClientNotice::Removed { event: "a".to_owned() }));
    assert!(!world.positions.contains_key("a"), "a new subscription of that name starts anew");
}

#[test]
fn added_subscriptions_leave_the_others_alone() {
    let mut world = World::adding(&["a"]);
    world.connect();
    world.exchange();
    assert_eq!(world.broker.heard, ["hello", "subscribe"]);
}

#[test]
fn an_event_without_a_handler_is_left_to_others_and_told_once() {
    let mut world = started(World::cpl1(&["a", "b"]), 0);
    world.options = options(&["b"]);
    world.options.account = ackord_endpoint::subscribe::Account::Stateful {
        set: ackord_endpoint::subscribe::SetRule::Add,
    };
    world.restart();
    world.broker.raise("a");
    world.connect();
    world.exchange();
    world.deliver();
    world.deliver_again();
    assert_eq!(world.handled, []);
    let told = ClientNotice::Unhandled { event: "a".to_owned() };
    assert_eq!(world.notices.iter().filter(|notice| **notice == told).count(), 1);
    assert_eq!(world.broker.queues["a"].cursor, 0);
}

#[test]
fn d7_a_redelivery_while_the_handler_runs_is_answered_once_by_its_return() {
    let mut world = started(World::cpl1(&["a"]), 1);
    world.deliver();
    world.deliver_again();
    world.deliver_again();
    assert_eq!(world.ids(), [1]);
    world.returns(0, Ok(Flow::Continue));
    assert_eq!(acks(&world), [1]);
    world.settle();
    assert_eq!(world.broker.queues["a"].cursor, 1);
}

#[test]
fn d8_cpl1_handles_the_unacknowledged_one_again_after_a_restart() {
    let mut world = started(World::cpl1(&["a"]), 4);
    for _ in 0..3 {
        world.deliver();
        world.step_handler();
        world.exchange();
    }
    world.deliver();
    world.returns(0, Ok(Flow::Continue));
    // Killed before the acknowledgement of the fourth left.
    world.restart();
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3, 4, 4]);
}

#[test]
fn d10_cpl2_acknowledges_it_without_a_call() {
    let mut world = started(World::cpl2(&["a"]), 4);
    for _ in 0..3 {
        world.deliver();
        world.step_handler();
        world.step_store();
        world.exchange();
    }
    world.deliver();
    world.returns(0, Ok(Flow::Continue));
    world.step_store();
    world.restart();
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3, 4]);
    assert_eq!(world.broker.queues["a"].cursor, 4);
}

#[test]
fn cpl2_acknowledges_only_what_the_store_has() {
    let mut world = started(World::cpl2(&["a"]), 1);
    world.deliver();
    world.returns(0, Ok(Flow::Continue));
    assert_eq!(acks(&world), [] as [u64; 0]);
    world.deliver_again();
    assert_eq!(world.ids(), [1], "a redelivery while the position is written is no new call");
    world.step_store();
    assert_eq!(acks(&world), [1]);
}

#[test]
fn d12_a_stateless_client_goes_on_after_a_reconnect_and_starts_anew_after_a_restart() {
    let mut world = started(World::stateless(&["a"], false), 2);
    world.settle();
    world.disconnect();
    world.settle();
    assert_eq!(world.ids(), [1, 2]);
    world.restart();
    world.settle();
    assert_eq!(world.ids(), [1, 2, 1, 2]);
}

#[test]
fn d13_a_stateless_client_with_a_store_handles_each_once() {
    let mut world = started(World::stateless(&["a"], true), 2);
    world.settle();
    world.restart();
    world.broker.raise("a");
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3]);
}

#[test]
fn d20_a_slow_handler_is_never_called_concurrently_and_says_that_it_works() {
    let mut world = started(World::cpl1(&["a"]), 2);
    world.deliver();
    for _ in 0..10 {
        world.advance(15_000);
        world.deliver_again();
    }
    assert_eq!(world.ids(), [1]);
    assert_eq!(world.broker.working, 10);
    world.settle();
    assert_eq!(world.ids(), [1, 2]);
    assert_eq!(world.machine.next_wake_ms(), None, "nothing runs, nothing is due");
}

#[test]
fn a_handler_that_outlives_its_connection_is_not_called_again() {
    let mut world = started(World::cpl1(&["a"]), 2);
    world.deliver();
    world.disconnect();
    world.connect();
    world.exchange();
    world.deliver();
    assert_eq!(world.ids(), [1]);
    world.settle();
    assert_eq!(world.ids(), [1, 2]);
}

#[test]
fn subscriptions_run_at_once_and_no_more_than_allowed() {
    let events = ["a", "b", "c"];
    let mut world = World::new(SubscribeOptions { concurrency: 2, ..options(&events) }, false);
    events.iter().for_each(|event| {
        world.broker.raise(event);
    });
    world.connect();
    world.exchange();
    world.deliver();
    assert_eq!(world.running.len(), 2);
    world.step_handler();
    assert_eq!(world.running.len(), 2);
}

#[test]
fn stop_lets_nothing_be_handled_beyond_it() {
    let events = ["a", "b"];
    let mut world = World::new(SubscribeOptions { concurrency: 1, ..options(&events) }, false);
    for event in ["a", "b", "a", "b"] {
        world.broker.raise(event);
    }
    world.connect();
    world.exchange();
    world.deliver();
    let lane = *world.running.keys().next().unwrap();
    world.returns(lane, Ok(Flow::Stop));
    world.settle();
    world.deliver_again();
    world.settle();
    assert_eq!(world.handled.len(), 1);
    assert!(world.has(&ClientNotice::Stopped));
    let committed = ClientNotice::Committed { event: "a".to_owned(), instance_id: 1 };
    assert!(world.has(&committed), "what was handled is still acknowledged");
    world.machine.resume(world.now_ms);
    world.take_outputs();
    world.settle();
    assert_eq!(world.handled.len(), 4);
}

#[test]
fn a_failing_handler_gives_the_instance_back_with_a_growing_delay() {
    let mut world = started(World::cpl1(&["a"]), 1);
    let mut delays = Vec::new();
    for _ in 0..4 {
        world.deliver();
        world.returns(0, Err(HandlerError::new("no")));
        match world.up.back() {
            Some(ClientFrame::Nack(nack)) => delays.push(nack.retry_after_ms),
            other => panic!("{other:?}"),
        }
        world.exchange();
    }
    for (delay, most) in delays.iter().zip([1_000, 2_000, 4_000, 8_000]) {
        assert!((most / 2..=most).contains(delay), "{delays:?}");
    }
    world.deliver();
    let asked = HandlerError::new("later").retry_after(Duration::from_millis(77));
    world.returns(0, Err(asked));
    assert!(matches!(world.up.back(), Some(ClientFrame::Nack(nack)) if nack.retry_after_ms == 77));
    world.settle();
    assert_eq!(world.ids(), [1; 6]);
}

#[test]
fn a_rebuilt_site_drops_the_last_id_and_tells() {
    let mut world = started(World::cpl2(&["a"]), 3);
    world.settle();
    world.disconnect();
    world.broker.incarnation += 1;
    let queue = world.broker.queues.get_mut("a").unwrap();
    (queue.ids, queue.cursor) = (vec![1, 2], 0);
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3, 1, 2]);
    let (event, reason) = ("a".to_owned(), ResetReason::Incarnation);
    assert!(world.has(&ClientNotice::Reset { event, reason }));
}

#[test]
fn a_seek_while_connected_delivers_again_under_a_higher_generation() {
    let mut world = started(World::cpl2(&["a"]), 3);
    world.settle();
    let queue = world.broker.queues.get_mut("a").unwrap();
    (queue.generation, queue.cursor) = (1, 1);
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3, 2, 3]);
    let (event, reason) = ("a".to_owned(), ResetReason::Generation);
    assert!(world.has(&ClientNotice::Reset { event, reason }));
}

#[test]
fn a_seek_while_the_handler_runs_waits_for_it() {
    let mut world = started(World::cpl1(&["a"]), 3);
    world.settle();
    world.broker.raise("a");
    world.deliver();
    let queue = world.broker.queues.get_mut("a").unwrap();
    (queue.generation, queue.cursor, queue.in_flight) = (1, 0, None);
    world.deliver();
    assert_eq!(world.ids(), [1, 2, 3, 4]);
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3, 4, 1, 2, 3, 4]);
}

#[test]
fn a_store_that_fails_turns_cpl2_into_cpl1_and_nothing_stops() {
    let mut world = started(World::cpl2(&["a"]), 3);
    world.deliver();
    world.returns(0, Ok(Flow::Continue));
    world.break_store();
    world.durable = false;
    assert_eq!(acks(&world), [1]);
    assert!(world.has(&ClientNotice::FellBack { reason: "disk full".to_owned() }));
    world.settle();
    assert_eq!(world.ids(), [1, 2, 3]);
}

#[test]
fn a_refused_subscription_leaves_the_others_alone() {
    let mut world = started(World::cpl1(&["a", "b"]), 1);
    let (event, code, detail) = ("b".to_owned(), Code::UnknownEvent, "no".to_owned());
    let item = RefusedItem { event: event.clone(), code, detail: detail.clone() };
    let subscribed = Subscribed { refused: vec![item], ..Subscribed::default() };
    world.receive(ClientMessage::Subscribed(subscribed));
    assert!(world.has(&ClientNotice::Refused { event, code, detail }));
    world.settle();
    assert_eq!(world.ids(), [1]);
}

#[test]
fn d23_a_replaced_client_stops_and_calls_nobody_any_more() {
    let options = SubscribeOptions { concurrency: 1, ..options(&["a", "b"]) };
    let mut world = World::new(options, false);
    world.broker.raise("a");
    world.broker.raise("b");
    world.connect();
    world.exchange();
    world.deliver();
    let (code, detail) = (Code::Replaced, "newer".to_owned());
    let (reconnect, retry_after_ms) = (false, None);
    let closing = Closing { code, detail: detail.clone(), reconnect, retry_after_ms };
    world.receive(ClientMessage::Closing(closing));
    assert_eq!(world.closes, [Then::Stop { code, detail: detail.clone() }]);
    assert!(world.has(&ClientNotice::Terminal { code, detail }));
    world.step_handler();
    assert_eq!(world.handled.len(), 1, "the waiting one is the newer session's");
}

#[test]
fn closing_waits_for_the_running_handler_and_its_id() {
    let mut world = started(World::cpl2(&["a"]), 2);
    world.deliver();
    world.machine.begin_close();
    assert!(!world.machine.is_quiet());
    world.returns(0, Ok(Flow::Continue));
    assert!(!world.machine.is_quiet());
    world.step_store();
    assert!(world.machine.is_quiet());
    assert_eq!(acks(&world), [1]);
    world.exchange();
    world.deliver();
    assert_eq!(world.ids(), [1], "no handler is called any more");
    world.machine.goodbye();
    world.take_outputs();
    assert!(matches!(world.up.back(), Some(ClientFrame::Goodbye {})));
}
