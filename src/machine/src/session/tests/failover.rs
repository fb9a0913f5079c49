//! A partition that is away for a while: what is tried again, by whom, and who wins.

use super::*;

/// The fates that an election brings.
const AWAY: [Failed; 3] = [Failed::Unavailable, Failed::Unknown, Failed::Busy];

fn hello(world: &World, above: Epoch) -> ServiceHello {
    ServiceHello {
        structure: Some(structure()),
        uid: StorageUid([1; 16]),
        continues: None,
        version: "1".into(),
        hostname: "host".into(),
        window: 4,
        incarnation: Incarnation(11),
        place: Place { node: 1, run: 1 },
        above: above.min(newest(world)),
    }
}

fn newest(world: &World) -> Epoch {
    world.site().service("s").expect("it is registered").epoch
}

/// A service that said hello, and what it asked for.
fn attaching(world: &World, above: Epoch) -> (Service, (Token, Command)) {
    let mut service = Service::new(world);
    let hello = hello(world, above);
    service.tell(world, |session, _, out| session.on_hello(hello, out));
    let asked = service.asked.pop_front().expect("the attach was proposed");
    (service, asked)
}

fn welcomed(service: &Service) -> bool {
    service.said.iter().any(|message| matches!(message, ToService::Welcome { .. }))
}

#[test]
fn given_an_attach_that_fails_then_the_session_tries_again_until_it_is_welcomed() {
    for failed in AWAY {
        let mut world = World::new();
        let (mut service, (token, _)) = attaching(&world, Epoch(0));
        service.answer(&world, token, Err(failed));
        service.fail(&mut world, failed, PATIENCE_MS / 2);
        assert_eq!((service.closed, service.said.len()), (None, 0));
        service.time_out(&mut world);
        service.settle(&mut world);
        assert!(welcomed(&service));

        let mut client = Client::new(Receiver::Client("c".into()), &world);
        client.tell(&world, |session, view, out| session.on_hello(None, view, out));
        let (token, _) = client.asked.pop_front().expect("the attach was proposed");
        client.answer(&world, token, Err(failed));
        client.time_out(&mut world);
        assert!(client.session.is_open());
    }
}

#[test]
fn given_a_partition_that_stays_away_then_what_opens_is_closed_as_retryable_in_the_end() {
    for (failed, reason) in [
        (Failed::Busy, CloseReason::Busy),
        (Failed::Unavailable, CloseReason::Unavailable),
        (Failed::Unknown, CloseReason::Unavailable),
    ] {
        let mut world = World::new();
        let (mut service, (token, _)) = attaching(&world, Epoch(0));
        service.answer(&world, token, Err(failed));
        service.fail(&mut world, failed, 2 * PATIENCE_MS);
        assert_eq!(service.closed, Some(reason));
        assert!(world.now_ms <= PATIENCE_MS + PROPOSE_RETRY_MS);
        for receiver in [Receiver::Client("c".into()), Receiver::Stateless] {
            let mut client = Client::new(receiver, &world);
            client.tell(&world, |session, view, out| session.on_hello(None, view, out));
            client.fail(&mut world, failed);
            assert_eq!(client.closed, Some(reason));
        }
    }
}

#[test]
fn given_an_attach_of_unknown_fate_that_was_applied_then_its_repeat_takes_over_from_nobody() {
    let mut world = World::new();
    let (mut service, (token, command)) = attaching(&world, Epoch(0));
    world.apply(command);
    let epoch = newest(&world);
    service.answer(&world, token, Err(Failed::Unknown));
    service.time_out(&mut world);
    service.settle(&mut world);
    assert!(welcomed(&service));
    assert_eq!((service.session.epoch(), newest(&world)), (epoch, epoch));
}

#[test]
fn given_an_attach_that_comes_late_then_the_newer_session_stays_and_the_older_ends() {
    // Given an attach that was on its way for so long that its endpoint has gone elsewhere.
    let mut world = World::new();
    let (mut first, (token, command)) = attaching(&world, Epoch(0));
    first.answer(&world, token, Err(Failed::Unknown));
    let mut second = Service::connected(&mut world);
    let epoch = newest(&world);
    // When it arrives after all, and is repeated, nothing of the newer session changes.
    let refused = Outcome::Refused(Refusal::Overtaken { newest: epoch });
    assert_eq!(world.apply(command), refused);
    first.time_out(&mut world);
    first.settle(&mut world);
    assert_eq!((first.probed, first.closed), (1, None));
    // Nobody answers the probe.
    first.time_out(&mut world);
    assert_eq!(first.closed, Some(CloseReason::Unavailable));
    world.apply(first.session.on_ended().expect("an attach was under way"));
    second.settle(&mut world);
    assert_eq!((second.closed, newest(&world)), (None, epoch));
    assert!(world.site().service("s").expect("it is registered").online());
}

#[test]
fn given_an_attach_that_was_applied_and_replaced_then_its_repeat_is_told_so() {
    let mut world = World::new();
    let (mut first, (token, command)) = attaching(&world, Epoch(0));
    world.apply(command);
    let second = Service::connected(&mut world);
    first.answer(&world, token, Err(Failed::Unknown));
    first.time_out(&mut world);
    first.settle(&mut world);
    assert_eq!(first.closed, Some(CloseReason::Replaced));
    assert_eq!(second.session.epoch(), newest(&world));
}

#[test]
fn given_a_replica_that_lags_behind_the_last_session_then_a_peer_that_is_there_takes_over() {
    let mut world = World::new();
    let mut first = Service::connected(&mut world);
    let (mut second, (token, command)) = attaching(&world, Epoch(0));
    let outcome = world.apply(command);
    second.answer(&world, token, Ok(outcome));
    assert_eq!(second.probed, 1);
    second.tell(&world, |session, _, out| session.on_alive(out));
    second.settle(&mut world);
    first.settle(&mut world);
    assert!(welcomed(&second));
    assert_eq!((first.closed, second.closed), (Some(CloseReason::Replaced), None));
    // A sign of life that nobody asked for means nothing.
    second.tell(&world, |session, _, out| session.on_alive(out));
    assert!(second.asked.is_empty());
}

#[test]
fn given_a_client_overtaken_while_it_attached_then_it_takes_over_only_with_a_sign_of_life() {
    for alive in [true, false] {
        let mut world = World::new();
        let mut first = Client::new(Receiver::Client("c".into()), &world);
        first.tell(&world, |session, view, out| session.on_hello(None, view, out));
        let (token, _) = first.asked.pop_front().expect("the attach was proposed");
        first.answer(&world, token, Err(Failed::Unavailable));
        let mut second = Client::with(&mut world, &["reading"]);
        first.time_out(&mut world);
        assert_eq!(first.probed, 1);
        if alive {
            first.tell(&world, |session, _, out| session.on_alive(out));
        } else {
            first.time_out(&mut world);
        }
        first.settle(&mut world);
        second.settle(&mut world);
        let (gone, replaced) = (CloseReason::Unavailable, CloseReason::Replaced);
        let ends = if alive { (None, Some(replaced)) } else { (Some(gone), None) };
        assert_eq!((first.closed, second.closed), ends);
    }
}

#[test]
fn given_a_hello_that_arrives_after_a_newer_session_attached_then_it_takes_over_from_nobody() {
    let mut world = World::new();
    let mut late = Client::new(Receiver::Client("c".into()), &world);
    late.session.on_opened(world.site());
    let mut newer = Client::with(&mut world, &["reading"]);
    late.tell(&world, |session, view, out| session.on_hello(None, view, out));
    late.settle(&mut world);
    newer.settle(&mut world);
    assert_eq!((late.probed, newer.closed), (1, None), "the client may have given it up");
    late.time_out(&mut world);
    assert_eq!((late.closed, newer.closed), (Some(CloseReason::Unavailable), None));

    let mut late = Service::new(&world);
    late.session.on_opened(world.site());
    let mut newer = Service::connected(&mut world);
    let hello = hello(&world, newest(&world));
    late.tell(&world, |session, _, out| session.on_hello(hello, out));
    late.settle(&mut world);
    newer.settle(&mut world);
    assert_eq!((late.probed, newer.closed), (1, None), "the service may have given it up");
}

#[test]
fn given_a_session_that_ends_while_it_attaches_then_its_service_is_not_left_online() {
    let mut world = World::new();
    let (service, (_, command)) = attaching(&world, Epoch(0));
    let last = service.session.on_ended().expect("an attach was under way");
    world.apply(command);
    world.apply(last);
    assert!(!world.site().service("s").expect("it is registered").online());
    assert_eq!(Service::new(&world).session.on_ended(), None);
}

#[test]
fn given_raises_that_fail_then_all_are_stored_once_in_order_and_the_peer_hears_nothing_else() {
    for failed in [Failed::Unavailable, Failed::Unknown] {
        let mut world = World::new();
        let mut service = Service::connected(&mut world);
        for sequence in 1..=3 {
            service.raise(&world, sequence);
        }
        service.fail(&mut world, failed, PATIENCE_MS / 2);
        service.raise(&world, 4);
        assert_eq!(service.answers(), []);
        // One asks for all, so that an election costs few proposals.
        service.time_out(&mut world);
        assert_eq!(service.asked.len(), 1);
        service.settle(&mut world);
        let accepted = [(1, "accepted"), (2, "accepted"), (3, "accepted"), (4, "accepted")];
        assert_eq!(service.answers(), accepted);
        assert_eq!(world.site().retained(world.event("reading")).count(), 4);
        assert_eq!((service.closed, service.session.next_deadline()), (None, None));
    }
}

#[test]
fn given_a_raise_of_unknown_fate_that_was_stored_then_it_is_accepted_once_and_is_no_duplicate() {
    let mut world = World::new();
    let mut service = Service::connected(&mut world);
    for sequence in 1..=2 {
        service.raise(&world, sequence);
    }
    while let Some((token, command)) = service.asked.pop_front() {
        world.apply(command);
        service.answer(&world, token, Err(Failed::Unknown));
    }
    service.time_out(&mut world);
    service.settle(&mut world);
    assert_eq!(service.answers(), [(1, "accepted"), (2, "accepted")]);
    assert_eq!(world.site().retained(world.event("reading")).count(), 2);
    // What the peer itself sends again is one.
    service.raise(&world, 2);
    service.settle(&mut world);
    assert_eq!(service.answers(), [(2, "duplicate")]);
}

#[test]
fn given_a_raise_that_failed_alone_then_those_behind_it_wait_for_it() {
    for failed in AWAY {
        let mut world = World::new();
        let mut service = Service::connected(&mut world);
        for sequence in 1..=3 {
            service.raise(&world, sequence);
        }
        let (token, _) = service.asked.pop_front().expect("1 was proposed");
        service.answer(&world, token, Err(failed));
        // 2 and 3 come back out of sequence.
        service.settle(&mut world);
        assert_eq!(service.answers(), []);
        service.time_out(&mut world);
        service.settle(&mut world);
        assert_eq!(service.answers(), [(1, "accepted"), (2, "accepted"), (3, "accepted")]);
    }
}

#[test]
fn given_a_late_copy_of_a_raise_behind_its_repeat_then_nothing_is_stored_twice() {
    let mut world = World::new();
    let mut service = Service::connected(&mut world);
    service.raise(&world, 1);
    let (token, late) = service.asked.pop_front().expect("it was proposed");
    service.answer(&world, token, Err(Failed::Unknown));
    service.time_out(&mut world);
    service.settle(&mut world);
    world.apply(late);
    service.raise(&world, 2);
    service.settle(&mut world);
    assert_eq!(service.answers(), [(1, "accepted"), (2, "accepted")]);
    assert_eq!(world.site().retained(world.event("reading")).count(), 2);
}

#[test]
fn given_a_failure_that_lasts_then_the_peer_is_told_to_come_again_and_the_session_goes_on() {
    for (failed, patience_ms) in [
        (Failed::Busy, PATIENCE_BUSY_MS),
        (Failed::Unavailable, PATIENCE_MS),
        (Failed::Unknown, PATIENCE_MS),
    ] {
        let mut world = World::new();
        let mut service = Service::connected(&mut world);
        for sequence in 1..=2 {
            service.raise(&world, sequence);
        }
        service.fail(&mut world, failed, patience_ms - PROPOSE_RETRY_MS);
        assert_eq!(service.answers(), []);
        service.fail(&mut world, failed, PROPOSE_RETRY_MS);
        let told = service.said.first().cloned();
        assert_eq!(service.answers(), [(1, "failed"), (2, "out-of-sequence")]);
        let cause = RefusedRaise::Failed(match failed {
            Failed::Unknown => Failed::Unavailable,
            other => other,
        });
        assert_eq!(told, Some(ToService::Refused { sequence: Sequence(1), cause }));
        for sequence in 1..=2 {
            service.raise(&world, sequence);
        }
        service.settle(&mut world);
        assert_eq!(service.answers(), [(1, "accepted"), (2, "accepted")]);
        assert_eq!(service.closed, None);
    }
}

#[test]
fn given_no_room_behind_an_election_then_the_peer_is_told_of_the_want_of_room() {
    for failed in [Failed::OverCapacity, Failed::DiskFull] {
        let mut world = World::new();
        let mut service = Service::connected(&mut world);
        for sequence in 1..=3 {
            service.raise(&world, sequence);
        }
        service.fail(&mut world, Failed::Unavailable, PROPOSE_RETRY_MS);
        service.time_out(&mut world);
        let (token, _) = service.asked.pop_front().expect("1 was proposed again");
        service.answer(&world, token, Err(failed));
        let answers = [(1, "failed"), (2, "out-of-sequence"), (3, "out-of-sequence")];
        assert_eq!(service.answers(), answers);
        assert_eq!(service.session.next_deadline(), None);
    }
}

#[test]
fn given_a_goodbye_while_raises_wait_then_they_are_decided_before_the_close() {
    let mut world = World::new();
    let mut service = Service::connected(&mut world);
    for sequence in 1..=2 {
        service.raise(&world, sequence);
    }
    service.fail(&mut world, Failed::Unknown, 0);
    service.tell(&world, |session, _, out| session.on_goodbye(out));
    service.time_out(&mut world);
    service.settle(&mut world);
    assert_eq!(service.answers(), [(1, "accepted"), (2, "accepted")]);
    assert_eq!(service.closed, Some(CloseReason::Goodbye));
}

#[test]
fn given_a_list_of_unknown_fate_then_it_comes_again_and_its_late_copy_undoes_nothing() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading"]);
    client.tell(&world, |session, view, out| {
        session.on_subscribe(ListMode::Add, vec![item("short")], view, out);
    });
    let (token, ask) = client.asked.pop_front().expect("it was proposed");
    let Ask::Propose(late) = ask else { panic!("{ask:?}") };
    client.answer(&world, token, Err(Failed::Unknown));
    client.time_out(&mut world);
    assert_eq!((client.session.lanes().len(), client.closed), (2, None));
    client.tell(&world, |session, view, out| {
        session.on_unsubscribe(vec!["short".into()], view, out);
    });
    client.settle(&mut world);
    world.apply(late);
    client.settle(&mut world);
    assert_eq!((client.session.lanes().len(), client.closed), (1, None));
}

#[test]
fn given_a_commit_of_unknown_fate_then_its_repeat_and_its_late_copy_deliver_nothing_twice() {
    for applied in [true, false] {
        let mut world = World::new();
        let mut client = Client::with(&mut world, &["reading"]);
        let ids = [world.raise("reading"), world.raise("reading"), world.raise("reading")];
        client.settle(&mut world);
        let event = world.event("reading");
        let ack = (event, InstanceId(ids[0]));
        client.tell(&world, |session, view, out| session.on_ack(ack, view, out));
        let (token, ask) = client.asked.pop_front().expect("the commit was proposed");
        let Ask::Propose(late) = ask else { panic!("{ask:?}") };
        if applied {
            world.apply(late.clone());
        }
        client.answer(&world, token, Err(Failed::Unknown));
        client.time_out(&mut world);
        client.ack(&mut world, "reading", ids[1]);
        world.apply(late);
        client.settle(&mut world);
        assert_eq!(client.delivered(), ids.map(|id| (id, 1)));
        assert_eq!(client.committed(), ids[..2]);
        assert_eq!(world.cursor("c", "reading"), ids[1]);
    }
}

#[test]
fn given_raises_sent_again_while_they_wait_then_no_answer_asks_for_a_number_that_was_decided() {
    // An endpoint takes that for a broker that has forgotten, and starts over.
    let mut world = World::new();
    let mut service = Service::connected(&mut world);
    for sequence in [1, 2, 3, 4, 1, 2, 3, 4] {
        service.raise(&world, sequence);
    }
    service.fail(&mut world, Failed::Unknown, PROPOSE_RETRY_MS);
    for sequence in [1, 2, 3, 4, 6] {
        service.raise(&world, sequence);
    }
    service.time_out(&mut world);
    service.settle(&mut world);
    let mut decided = 0;
    let mut accepted = Vec::new();
    for message in std::mem::take(&mut service.said) {
        match message {
            ToService::Accepted { sequence, .. } => {
                decided = sequence.0;
                accepted.push(decided);
            }
            ToService::Refused {
                cause: RefusedRaise::Refusal(Refusal::OutOfSequence { expected }),
                ..
            } => assert!(expected.0 > decided, "{expected} after {decided}"),
            _ => {}
        }
    }
    assert_eq!(accepted, [1, 2, 3, 4]);
}

#[test]
fn given_a_refusal_behind_a_raise_under_way_then_it_asks_for_the_number_after_that_one() {
    let mut world = World::new();
    let mut service = Service::connected(&mut world);
    service.raise(&world, 1);
    let (token, command) = service.asked.pop_front().expect("it was proposed");
    let outcome = world.apply(command);
    let incarnation = Incarnation(12);
    let mut other = structure();
    other.events.pop();
    let apply = |structure| AdminAction::ApplyStructure { structure, rebuild: false, incarnation };
    world.admin(apply(other));
    service.settle(&mut world);
    service.raise(&world, 1);
    world.admin(apply(structure()));
    service.settle(&mut world);
    service.raise(&world, 2);
    service.answer(&world, token, Ok(outcome));
    let expected = Refusal::OutOfSequence { expected: Sequence(2) };
    let cause = RefusedRaise::Refusal(expected);
    assert_eq!(service.said.last(), Some(&ToService::Refused { sequence: Sequence(2), cause }));
    let answers = [(1, "accepted"), (1, "parked"), (2, "out-of-sequence")];
    assert_eq!(service.answers(), answers);
}
