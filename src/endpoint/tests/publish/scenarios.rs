//! The scenarios of raising, named after the rules.

use ackord_endpoint::publish::Then;
use ackord_endpoint::{Outcome, RaiseError, RenewReason, ServiceNotice};
use ackord_wire::Code;
use ackord_wire::frame::{Closing, Refused, Rejected, ServiceFrame, ServiceMessage, ServiceState};

use crate::world::{World, event, replacing};

fn sent(world: &World) -> Vec<u64> {
    let number = |frame: &ServiceFrame| match frame {
        ServiceFrame::Raise(raise) => Some(raise.seq),
        ServiceFrame::Hello(_) | ServiceFrame::Goodbye {} => None,
    };
    world.up.iter().filter_map(number).collect()
}

fn refused(seq: u64, code: Code, expected: Option<u64>) -> ServiceMessage {
    let (detail, retry_after_ms) = (String::new(), None);
    ServiceMessage::Refused(Refused { seq, code, detail, expected, retry_after_ms })
}

fn online(world: &mut World) {
    world.settle();
    world.notices.clear();
}

#[test]
fn p3_a_lost_acknowledgement_gives_the_original_outcome_and_one_instance() {
    let mut world = World::spl1();
    let ticket = world.raise(event("a")).unwrap();
    online(&mut world);
    let lost = world.raise(event("b")).unwrap();
    world.step_up();
    world.disconnect();
    world.settle();
    assert_eq!(world.stored(), ["a", "b"]);
    let outcome = Outcome { instance_id: Some(1), duplicate: false, ignored: false };
    assert_eq!(world.outcome(ticket), Ok(outcome));
    let outcome = Outcome { instance_id: Some(2), duplicate: true, ignored: false };
    assert_eq!(world.outcome(lost), Ok(outcome));
}

#[test]
fn p9_offline_a_newer_replacing_event_takes_the_place_of_the_older_one() {
    let mut world = World::spl1();
    let old = world.raise(replacing("r", "r1")).unwrap();
    world.raise(event("q1")).unwrap();
    world.raise(replacing("r", "r2")).unwrap();
    world.raise(event("q2")).unwrap();
    world.settle();
    assert_eq!(world.stored(), ["q1", "r2", "q2"]);
    assert_eq!(world.outcome(old), Err(RaiseError::Coalesced));
}

#[test]
fn the_replacing_event_in_flight_is_pinned() {
    let mut world = World::spl1();
    online(&mut world);
    world.raise(replacing("r", "r1")).unwrap();
    world.raise(replacing("r", "r2")).unwrap();
    assert_eq!(sent(&world), [1, 2], "both have a number: neither may change any more");
    world.settle();
    assert_eq!(world.stored(), ["r1", "r2"]);
}

#[test]
fn p10_what_was_raised_offline_survives_a_restart_at_spl2_and_not_at_spl1() {
    let check = |mut world: World, expected: &[&str]| {
        world.raise(event("a")).unwrap();
        world.raise(event("b")).unwrap();
        while world.step_store() {}
        world.restart();
        world.settle();
        assert_eq!(world.stored(), expected);
    };
    check(World::spl2(), &["a", "b"]);
    check(World::spl1(), &[]);
}

#[test]
fn p12_overflow_drops_the_oldest_unsent_and_tells() {
    let mut world = World::new(None, 4096, 1);
    let text = "x".repeat(500);
    let tickets: Vec<u64> =
        (0..9).map(|n| world.raise(event(&format!("{n}{text}"))).unwrap()).collect();
    world.settle();
    let first: Vec<String> = world.stored().iter().map(|text| text[..1].to_owned()).collect();
    assert_eq!(first, ["3", "4", "5", "6", "7", "8"]);
    for ticket in &tickets[..3] {
        assert_eq!(world.outcome(*ticket), Err(RaiseError::Dropped));
    }
}

#[test]
fn a_store_full_of_events_in_flight_refuses_the_new_one() {
    let mut world = World::new(None, 4096, 1);
    online(&mut world);
    let text = "x".repeat(900);
    for _ in 0..4 {
        world.raise(event(&text)).unwrap();
    }
    assert_eq!(world.raise(event(&text)), Err(RaiseError::StoreFull));
    let huge = event(&"x".repeat(2000).repeat(3));
    assert!(matches!(world.raise(huge), Err(RaiseError::TooLarge { bytes_max: 2048, .. })));
    world.settle();
    assert_eq!(world.stored().len(), 4);
}

#[test]
fn nothing_with_a_number_is_sent_before_the_store_has_it() {
    let mut world = World::spl2();
    online(&mut world);
    world.raise(event("a")).unwrap();
    world.raise(event("b")).unwrap();
    assert_eq!(sent(&world), [] as [u64; 0]);
    world.step_store();
    assert_eq!(sent(&world), [1], "the second was raised while the first batch was written");
    world.step_store();
    assert_eq!(sent(&world), [1, 2]);
}

#[test]
fn p13_a_disk_error_loses_nothing_and_the_new_uid_continues_the_old_one() {
    let mut world = World::spl2();
    online(&mut world);
    let old = world.machine.uid();
    let first = world.raise(event("a")).unwrap();
    world.step_store();
    world.raise(event("b")).unwrap();
    world.step_up();
    world.break_store();
    assert_eq!(world.closes, [Then::Reconnect]);
    assert!(world.notices.iter().any(|notice| matches!(notice, ServiceNotice::FellBack { .. })));
    world.connect();
    let hello = match world.up.front() {
        Some(ServiceFrame::Hello(hello)) => hello.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(hello.continues, Some(old.to_string()));
    assert_ne!(hello.store, old.to_string());
    world.settle();
    assert_eq!(world.stored(), ["a", "b"], "the first was decided under the old uid: not again");
    assert!(world.outcome(first).unwrap().duplicate);
    world.disconnect();
    world.connect();
    let Some(ServiceFrame::Hello(hello)) = world.up.front() else { panic!("no hello") };
    assert_eq!(hello.continues, None, "once agreed it is a store like any other");
}

#[test]
fn a_retired_file_is_discarded_and_its_events_never_come_late() {
    let mut world = World::spl2();
    online(&mut world);
    world.raise(event("a")).unwrap();
    world.step_store();
    world.break_store();
    world.settle();
    // The old file is still there when the process starts again.
    world.restart();
    let fresh = world.raise(event("fresh")).unwrap();
    world.settle();
    assert_eq!(world.stored(), ["a", "fresh"]);
    assert!(world.outcome(fresh).is_ok());
    assert!(world.notices.contains(&ServiceNotice::StoreSuperseded { dropped: 1 }));
}

#[test]
fn a_disk_error_before_the_first_session_retires_the_file_all_the_same() {
    let mut world = World::spl2();
    world.raise(event("a")).unwrap();
    world.step_store();
    world.raise(event("b")).unwrap();
    world.break_store();
    world.settle();
    world.restart();
    world.settle();
    assert_eq!(world.stored(), ["a", "b"], "the file held the first: it does not come again");
}

#[test]
fn p15_a_torn_tail_below_the_brokers_mark_takes_a_new_uid_and_swallows_nothing() {
    let mut world = World::spl2();
    online(&mut world);
    for text in ["a", "b", "c"] {
        world.raise(event(text)).unwrap();
        world.settle();
    }
    let old = world.machine.uid();
    // The last batches are gone: the store believes that 2 was the last number.
    while world.store.as_ref().unwrap().load().last_number > 2 {
        world.store.as_mut().unwrap().forget(1);
    }
    world.restart();
    let ticket = world.raise(event("d")).unwrap();
    world.settle();
    assert_ne!(world.machine.uid(), old);
    assert!(world.stored().ends_with(&["d".to_owned()]), "{:?}", world.stored());
    assert!(!world.outcome(ticket).unwrap().duplicate);
    let renewed = ServiceNotice::StoreRenewed { reason: RenewReason::NumbersLost };
    assert!(world.notices.contains(&renewed));
}

#[test]
fn p15_a_number_that_was_used_for_another_event_takes_a_new_uid_and_keeps_the_order() {
    let mut world = World::spl2();
    online(&mut world);
    world.raise(event("a")).unwrap();
    world.settle();
    // A copy of the store goes on from here; the original raises two more.
    let copy = world.store.clone();
    for text in ["b", "c"] {
        world.raise(event(text)).unwrap();
    }
    world.settle();
    // The copy numbers two others as 2 and 3, and loses its power before it sends them.
    world.store = copy;
    world.restart();
    world.connect();
    world.receive(ServiceMessage::Welcome(welcome(1)));
    for text in ["x", "y"] {
        world.raise(event(text)).unwrap();
    }
    while world.step_store() {}
    world.restart();
    world.settle();
    assert_eq!(world.stored(), ["a", "b", "c", "x", "y"]);
    let renewed = ServiceNotice::StoreRenewed { reason: RenewReason::SequenceReused };
    assert!(world.notices.contains(&renewed), "{:?}", world.notices);
}

fn welcome(last: u64) -> ackord_wire::frame::ServiceWelcome {
    ackord_wire::frame::ServiceWelcome {
        service: "s".to_owned(),
        epoch: 1,
        incarnation: 1,
        state: ServiceState { online: true, reason: None },
        last,
        superseded: false,
        window: 8,
        keepalive_s: 60,
        args_bytes_max: 2048,
        addresses: Vec::new(),
    }
}

#[test]
fn p21_a_busy_number_holds_up_those_behind_it_and_all_arrive_in_order() {
    let mut world = World::spl1();
    online(&mut world);
    world.broker.busy = vec![2];
    for text in ["a", "b", "c", "d"] {
        world.raise(event(text)).unwrap();
    }
    world.settle();
    assert_eq!(world.stored(), ["a"], "it pauses before it tries again");
    world.advance(100);
    world.settle();
    assert_eq!(world.stored(), ["a", "b", "c", "d"]);
    assert_eq!(world.broker.raises, 4 + 3, "each was sent again once");
}

#[test]
fn an_unanswered_event_is_sent_again_under_its_number() {
    let mut world = World::spl1();
    online(&mut world);
    world.raise(event("a")).unwrap();
    world.up.clear();
    world.advance(29_999);
    assert_eq!(sent(&world), [] as [u64; 0]);
    assert_eq!(world.machine.next_wake_ms(), Some(world.now_ms + 1));
    world.advance(1);
    assert_eq!(sent(&world), [1]);
    world.settle();
    assert_eq!(world.stored(), ["a"]);
}

#[test]
fn no_more_than_the_granted_window_is_in_flight() {
    let mut world = World::spl1();
    world.broker.window = 3;
    online(&mut world);
    for n in 0..10 {
        world.raise(event(&n.to_string())).unwrap();
    }
    assert_eq!(sent(&world), [1, 2, 3]);
    world.settle();
    assert_eq!(world.stored().len(), 10);
}

#[test]
fn a_parked_service_keeps_its_events_and_sends_them_when_it_comes_online() {
    let mut world = World::spl1();
    world.broker.parked = Some(Code::SiteStructureMismatch);
    for text in ["a", "b", "c"] {
        world.raise(event(text)).unwrap();
    }
    world.settle();
    assert_eq!(world.broker.raises, 0);
    let reason = Code::SiteStructureMismatch;
    assert!(world.notices.contains(&ServiceNotice::Parked { reason }));
    world.broker.parked = None;
    world.receive(ServiceMessage::State(ServiceState { online: true, reason: None }));
    world.settle();
    assert_eq!(world.stored(), ["a", "b", "c"]);
}

#[test]
fn parked_in_the_middle_loses_nothing() {
    let mut world = World::spl1();
    online(&mut world);
    world.raise(event("a")).unwrap();
    world.broker.parked = Some(Code::SiteStructureMismatch);
    world.step_up();
    let parked = ServiceState { online: false, reason: world.broker.parked };
    world.receive(ServiceMessage::State(parked));
    world.settle();
    world.broker.parked = None;
    world.receive(ServiceMessage::State(ServiceState { online: true, reason: None }));
    world.drain();
    assert_eq!(world.stored(), ["a"]);
}

#[test]
fn p7_a_rejection_uses_up_its_number_and_the_next_flow_on() {
    let mut world = World::spl1();
    online(&mut world);
    let bad = world.raise(event("bad")).unwrap();
    let good = world.raise(event("good")).unwrap();
    world.up.clear();
    let (code, detail) = (Code::UnknownEvent, "no such event".to_owned());
    let rejected = Rejected { seq: 1, code, detail: detail.clone(), duplicate: false };
    world.receive(ServiceMessage::Rejected(rejected));
    assert_eq!(world.outcome(bad), Err(RaiseError::Rejected { code, detail }));
    assert!(!world.decided.contains_key(&good));
    assert_eq!(world.machine.pending(), 1);
}

#[test]
fn a_broker_that_forgot_the_store_gets_everything_under_a_new_uid() {
    let mut world = World::spl2();
    online(&mut world);
    world.raise(event("a")).unwrap();
    world.settle();
    world.disconnect();
    world.broker.rebuild();
    world.raise(event("b")).unwrap();
    world.settle();
    assert_eq!(world.stored(), ["a", "b"]);
    let renewed = ServiceNotice::StoreRenewed { reason: RenewReason::MarksLost };
    assert!(world.notices.contains(&renewed));
}

#[test]
fn a_mark_lost_under_an_open_session_does_not_wedge_it() {
    let mut world = World::spl1();
    online(&mut world);
    world.raise(event("a")).unwrap();
    world.settle();
    world.raise(event("b")).unwrap();
    world.up.clear();
    world.receive(refused(2, Code::OutOfSequence, Some(1)));
    world.broker.rebuild();
    world.settle();
    assert_eq!(world.stored(), ["a", "b"]);
}

#[test]
fn closings_say_whether_to_connect_again() {
    let check = |code: Code, reconnect: bool, expected: Then| {
        let mut world = World::spl1();
        online(&mut world);
        let ticket = world.raise(event("a")).unwrap();
        let closing = Closing {
            code,
            detail: "why".to_owned(),
            reconnect,
            retry_after_ms: reconnect.then_some(70),
        };
        world.receive(ServiceMessage::Closing(closing));
        assert_eq!(world.closes, [expected]);
        if reconnect {
            world.settle();
            assert_eq!(world.stored(), ["a"]);
        } else {
            assert_eq!(world.outcome(ticket), Err(RaiseError::Stopped { code }));
            assert_eq!(world.raise(event("b")), Err(RaiseError::Stopped { code }));
            let (detail, left) = ("why".to_owned(), 1);
            assert!(world.notices.contains(&ServiceNotice::Terminal { code, detail, left }));
        }
    };
    let reason = "shutting-down: why".to_owned();
    check(Code::ShuttingDown, true, Then::Backoff { retry_after_ms: Some(70), reason });
    let detail = "why".to_owned();
    check(Code::Replaced, false, Then::Stop { code: Code::Replaced, detail });
}

#[test]
fn a_broker_that_closes_over_a_reused_number_without_naming_it_is_probed() {
    let mut world = World::spl1();
    online(&mut world);
    let old = world.machine.uid();
    for text in ["a", "b", "c"] {
        world.raise(event(text)).unwrap();
    }
    world.up.clear();
    let closing = || {
        ServiceMessage::Closing(Closing {
            code: Code::SequenceReused,
            detail: String::new(),
            reconnect: true,
            retry_after_ms: None,
        })
    };
    world.receive(closing());
    // The broker has decided 1 and 2; 2 was another event.
    world.connect();
    world.receive(ServiceMessage::Welcome(welcome(2)));
    let raises = |world: &World| sent(world);
    assert_eq!(raises(&world), [1], "one at a time");
    let accepted = ackord_wire::frame::Accepted {
        seq: 1,
        instance_id: Some(1),
        ignored: false,
        duplicate: true,
    };
    world.receive(ServiceMessage::Accepted(accepted));
    assert_eq!(raises(&world).last(), Some(&2));
    world.receive(closing());
    world.settle();
    assert_ne!(world.machine.uid(), old);
    assert_eq!(world.stored(), ["b", "c"]);
}

#[test]
fn no_welcome_is_waited_for_with_a_limit() {
    let mut world = World::spl1();
    world.connect();
    let due = world.machine.next_wake_ms().unwrap();
    world.advance(due);
    assert!(matches!(world.closes[..], [Then::Backoff { .. }]));
}

#[test]
fn an_empty_store_still_knows_its_numbers() {
    let mut world = World::spl2();
    world.raise(event("a")).unwrap();
    world.drain();
    world.restart();
    let ticket = world.raise(event("b")).unwrap();
    world.drain();
    assert_eq!(world.stored(), ["a", "b"]);
    assert!(!world.outcome(ticket).unwrap().duplicate);
    assert!(world.notices.iter().all(|n| !matches!(n, ServiceNotice::StoreRenewed { .. })));
}
