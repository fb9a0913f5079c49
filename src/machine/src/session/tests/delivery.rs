//! Ordered delivery: what is sent, when it is sent again, what an acknowledgement does.

use super::*;

#[test]
fn d5_given_a_backlog_then_one_instance_is_in_flight_and_the_next_follows_its_commit() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading"), world.raise("reading")];
    let mut client = Client::with(&mut world, &["reading"]);
    assert_eq!(client.delivered(), [(ids[0], 1)]);

    // The acknowledgement alone does not free the lane: the commit does.
    let event = world.event("reading");
    client
        .tell(&world, |session, view, out| session.on_ack((event, InstanceId(ids[0])), view, out));
    assert_eq!(client.delivered(), []);
    assert_eq!(client.session.lanes()[0].state(), LaneState::Committing(InstanceId(ids[0])));
    client.settle(&mut world);
    assert_eq!(client.committed(), [ids[0]]);
    assert_eq!(client.delivered(), [(ids[1], 1)]);
    assert_eq!(world.cursor("c", "reading"), ids[0]);
}

#[test]
fn given_two_subscriptions_then_they_proceed_independently() {
    let mut world = World::new();
    let (reading, short) = (world.raise("reading"), world.raise("short"));
    let mut client = Client::with(&mut world, &["reading", "short"]);
    assert_eq!(client.delivered(), [(reading, 1), (short, 1)]);
    let next = world.raise("short");
    client.ack(&mut world, "short", short);
    assert_eq!(client.delivered(), [(next, 1)]);
}

#[test]
fn d7_given_a_resend_when_the_first_transmission_is_acknowledged_late_then_it_counts() {
    let mut world = World::new();
    let id = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    client.time_out(&mut world);
    assert_eq!(world.now_ms, ACK_TIMEOUT_MS);
    assert_eq!(client.delivered(), [(id, 1), (id, 2)]);
    client.ack(&mut world, "reading", id);
    assert_eq!(client.committed(), [id]);
    assert_eq!(client.session.next_deadline(), None);

    // The second acknowledgement names nothing that is in flight.
    client.ack(&mut world, "reading", id);
    assert_eq!((client.committed(), client.closed), (vec![id], None));
}

#[test]
fn given_acknowledgements_that_name_nothing_in_flight_then_they_are_ignored() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading")];
    let mut client = Client::with(&mut world, &["reading"]);
    for wrong in [0, ids[1], ids[1] + 100] {
        client.ack(&mut world, "reading", wrong);
    }
    let unknown = EventKey(999);
    client.tell(&world, |session, view, out| {
        session.on_ack((unknown, InstanceId(ids[0])), view, out);
    });
    assert_eq!((client.closed, world.cursor("c", "reading")), (None, 0));
    assert_eq!(client.delivered(), [(ids[0], 1)]);
}

#[test]
fn given_a_client_that_is_working_then_the_timeout_starts_anew() {
    let mut world = World::new();
    let id = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    let event = world.event("reading");
    world.pass_ms(20_000);
    client.tell(&world, |session, view, out| {
        session.on_working((event, InstanceId(id)), view, out);
    });
    assert_eq!(client.session.next_deadline(), Some(20_000 + ACK_TIMEOUT_MS));
    client.tell(&world, |session, view, out| {
        session.on_working((event, InstanceId(id + 1)), view, out);
    });
    assert_eq!(client.session.next_deadline(), Some(20_000 + ACK_TIMEOUT_MS));
}

#[test]
fn given_a_nack_then_the_instance_comes_again_after_the_asked_time_with_its_attempts_counted() {
    let mut world = World::new();
    let id = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    client.nack(&mut world, "reading", id, 5000);
    assert_eq!(client.session.next_deadline(), Some(5000));
    assert_eq!(client.session.lanes()[0].state(), LaneState::BackingOff(InstanceId(id)));
    client.time_out(&mut world);
    assert_eq!(client.delivered(), [(id, 1), (id, 2)]);

    // A nack without a time does not make a busy loop.
    client.nack(&mut world, "reading", id, 0);
    assert!(client.session.next_deadline() > Some(world.now_ms));

    // An acknowledgement of what was returned counts.
    client.ack(&mut world, "reading", id);
    assert_eq!(client.committed(), [id]);
}

#[test]
fn given_a_limit_of_attempts_then_the_instance_is_skipped_by_a_commit() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading")];
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.hello(&mut world, None);
    let mut limited = item("reading");
    limited.request.max_attempts = Some(2);
    client.tell(&world, |session, view, out| {
        session.on_subscribe(ListMode::Add, vec![limited], view, out);
    });
    client.settle(&mut world);
    client.time_out(&mut world);
    assert_eq!(client.delivered(), [(ids[0], 1), (ids[0], 2)]);
    client.time_out(&mut world);
    assert_eq!(world.cursor("c", "reading"), ids[0]);
    assert_eq!(client.delivered(), [(ids[1], 1)]);

    // A nack of the last attempt skips at once.
    client.time_out(&mut world);
    assert_eq!(client.delivered(), [(ids[1], 2)]);
    client.nack(&mut world, "reading", ids[1], 60_000);
    assert_eq!(client.committed(), ids);
}

#[test]
fn d15_given_an_instance_replaced_in_flight_then_the_old_one_finishes_and_the_newest_follows() {
    let mut world = World::new();
    let old = world.raise("state");
    let mut client = Client::with(&mut world, &["state"]);
    assert_eq!(client.delivered(), [(old, 1)]);
    let (_middle, newest) = (world.raise("state"), world.raise("state"));
    client.settle(&mut world);
    assert_eq!(client.delivered(), []);
    client.ack(&mut world, "state", old);
    assert_eq!(world.cursor("c", "state"), old);
    assert_eq!(client.delivered(), [(newest, 1)]);
}

#[test]
fn given_a_replaced_instance_in_flight_when_it_times_out_then_the_newest_is_sent_instead() {
    let mut world = World::new();
    let old = world.raise("state");
    let mut client = Client::with(&mut world, &["state"]);
    let newest = world.raise("state");
    client.time_out(&mut world);
    assert_eq!(client.delivered(), [(old, 1), (newest, 1)]);
}

#[test]
fn given_a_replaced_instance_when_the_client_reconnects_unacknowledged_then_only_the_newest_comes()
{
    let mut world = World::new();
    world.raise("state");
    let mut first = Client::with(&mut world, &["state"]);
    assert_eq!(first.delivered().len(), 1);
    let newest = world.raise("state");
    let mut second = Client::new(Receiver::Client("c".into()), &world);
    second.hello(&mut world, None);
    assert_eq!(second.delivered(), [(newest, 1)]);
}

#[test]
fn q8_given_null_value_null_then_one_that_keeps_up_gets_all_three() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["state"]);
    for null in [true, false, true] {
        let id = if null { world.raise_null("state") } else { world.raise("state") };
        client.settle(&mut world);
        assert_eq!(client.delivered(), [(id, 1)]);
        client.ack(&mut world, "state", id);
    }
}

#[test]
fn d16_given_an_instance_that_expires_in_flight_then_its_ack_counts_but_it_is_never_sent_again() {
    let mut world = World::new();
    let old = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    assert_eq!(client.delivered(), [(old, 1)]);
    world.pass_ms(3_600_000);
    client.tell(&world, |session, view, out| session.on_time(view, out));
    assert_eq!(client.delivered(), []);
    assert_eq!(client.session.next_deadline(), None);

    // And in time: expired, not yet timed out, acknowledged.
    let next = world.raise("reading");
    client.settle(&mut world);
    assert_eq!(client.delivered(), [(next, 1)]);
    world.stamp += 3_600_000;
    world.apply(Command::Tick { limit: 100 });
    assert!(world.site().instance(InstanceId(next)).is_none());
    client.ack(&mut world, "reading", next);
    assert_eq!(world.cursor("c", "reading"), next);
}

#[test]
fn d17_given_an_instance_evicted_in_flight_then_its_ack_counts_and_the_oldest_retained_follows() {
    let mut world = World::new();
    let first = world.raise("short");
    let mut client = Client::with(&mut world, &["short"]);
    let rest: Vec<u64> = (0..5).map(|_| world.raise("short")).collect();
    client.settle(&mut world);
    assert_eq!(client.delivered(), [(first, 1)]);
    client.ack(&mut world, "short", first);
    assert_eq!(world.cursor("c", "short"), first);
    assert_eq!(client.drain(&mut world, "short"), rest[2..]);
}

#[test]
fn s7_given_a_cursor_inside_a_trimmed_queue_then_what_is_left_above_it_is_delivered() {
    let mut world = World::new();
    let ids: Vec<u64> = (0..10).map(|_| world.raise("reading")).collect();
    let mut client = Client::with(&mut world, &["reading"]);
    for id in &ids[..4] {
        client.ack(&mut world, "reading", *id);
    }
    let mut smaller = structure();
    smaller.events[0].kind = Kind::Queueing { lifetime_s: 3600, size: 3, access: Access::Everyone };
    drop(client);
    world.admin(AdminAction::ApplyStructure {
        structure: smaller,
        rebuild: false,
        incarnation: Incarnation(9),
    });
    let mut again = Client::new(Receiver::Client("c".into()), &world);
    again.hello(&mut world, None);
    assert_eq!(again.drain(&mut world, "reading"), ids[7..]);
}

#[test]
fn given_a_delivery_after_a_while_then_its_age_is_the_time_since_it_was_raised() {
    let mut world = World::new();
    world.raise("reading");
    world.pass_ms(30_999);
    let client = Client::with(&mut world, &["reading"]);
    let age = client.said.iter().find_map(|message| match message {
        ToClient::Event(delivery) => Some(delivery.age_ms / 1000),
        ToClient::Welcome { .. }
        | ToClient::Subscribed { .. }
        | ToClient::Committed { .. }
        | ToClient::Authority { .. }
        | ToClient::Events(_)
        | ToClient::Presence { .. } => None,
    });
    assert_eq!(age, Some(30));
}

#[test]
fn given_a_commit_of_unknown_fate_then_it_is_proposed_again_until_it_is_known() {
    let mut world = World::new();
    let id = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    let event = world.event("reading");
    client.tell(&world, |session, view, out| session.on_ack((event, InstanceId(id)), view, out));
    for failed in [Failed::Busy, Failed::Unknown, Failed::Unavailable] {
        let (token, _) = client.asked.pop_front().expect("the commit was proposed");
        client.answer(&world, token, Err(failed));
        assert_eq!(client.session.next_deadline(), Some(world.now_ms + PROPOSE_RETRY_MS));
        world.pass_ms(PROPOSE_RETRY_MS);
        client.tell(&world, |session, view, out| session.on_time(view, out));
        assert_eq!(client.asked.len(), 1);
    }
    client.settle(&mut world);
    assert_eq!((client.committed(), world.cursor("c", "reading")), (vec![id], id));
}

#[test]
fn d25_given_a_commit_that_was_lost_with_its_leader_then_the_next_session_gets_it_again() {
    let mut world = World::new();
    let id = world.raise("reading");
    let mut first = Client::with(&mut world, &["reading"]);
    let event = world.event("reading");
    first.tell(&world, |session, view, out| session.on_ack((event, InstanceId(id)), view, out));
    let mut second = Client::new(Receiver::Client("c".into()), &world);
    second.hello(&mut world, None);
    assert_eq!(second.delivered(), [(id, 1)]);

    // The lost commit arrives after all: of an older epoch, so it changes nothing.
    first.settle(&mut world);
    assert_eq!((first.closed, world.cursor("c", "reading")), (Some(CloseReason::Replaced), 0));
    second.ack(&mut world, "reading", id);
    assert_eq!(world.cursor("c", "reading"), id);
}

#[test]
fn given_a_seek_then_delivery_goes_on_there_in_a_higher_generation_and_old_commits_say_nothing() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading")];
    let mut client = Client::with(&mut world, &["reading"]);
    client.ack(&mut world, "reading", ids[0]);
    assert_eq!(client.delivered(), [(ids[0], 1), (ids[1], 1)]);
    let event = world.event("reading");
    client
        .tell(&world, |session, view, out| session.on_ack((event, InstanceId(ids[1])), view, out));
    world.admin(AdminAction::Seek {
        client: "c".into(),
        event: "reading".into(),
        after: InstanceId(0),
    });
    client.settle(&mut world);
    assert_eq!(client.closed, None);
    assert_eq!(client.drain(&mut world, "reading"), ids);
    assert_eq!(client.session.lanes()[0].generation(), Generation(1));
}

#[test]
fn given_a_seek_then_an_answer_to_what_was_sent_before_it_does_not_count_after_it() {
    let mut world = World::new();
    let id = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    world.admin(AdminAction::Seek {
        client: "c".into(),
        event: "reading".into(),
        after: InstanceId(0),
    });
    client.tell(&world, |session, view, out| session.on_wake(&Wake::All, view, out));
    assert_eq!(client.delivered(), [(id, 1), (id, 1)]);
    let (event, instance) = (world.event("reading"), InstanceId(id));
    let sent_in = |generation| Named { event, instance, generation: Some(Generation(generation)) };
    client.tell(&world, |session, view, out| session.on_ack(sent_in(0), view, out));
    client.settle(&mut world);
    assert_eq!((client.committed(), world.cursor("c", "reading")), (vec![], 0));
    client.tell(&world, |session, view, out| session.on_ack(sent_in(1), view, out));
    client.settle(&mut world);
    assert_eq!((client.committed(), world.cursor("c", "reading")), (vec![id], id));
}

#[test]
fn given_a_node_that_no_leader_confirms_then_nothing_is_sent_until_one_does() {
    let mut world = World::new();
    let first = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    let second = world.raise("reading");
    assert_eq!(client.delivered(), [(first, 1)]);
    // The acknowledgement counts, the resend time passes, and still nothing goes out.
    let event = world.event("reading");
    client.tell(&world, |session, view, out| {
        session.on_ack((event, InstanceId(first)), view.confirmed_before(STALE_MS), out);
    });
    let Some((token, Ask::Propose(command))) = client.asked.pop_front() else {
        panic!("the commit is proposed");
    };
    let outcome = world.apply(command);
    client.tell(&world, |session, view, out| {
        session.on_outcome(token, Ok(outcome), view.confirmed_before(STALE_MS), out);
    });
    world.pass_ms(10 * ACK_TIMEOUT_MS);
    client.tell(&world, |session, view, out| {
        session.on_time(view.confirmed_before(CUT_OFF_MS - 1), out);
    });
    assert_eq!((client.delivered(), client.committed()), (vec![], vec![first]));
    assert!(client.session.next_deadline().is_none_or(|at| at > world.now_ms), "it would spin");
    client.tell(&world, |session, view, out| session.on_wake(&Wake::All, view, out));
    assert_eq!(client.delivered(), [(second, 1)]);
}

#[test]
fn given_a_node_that_is_cut_off_then_its_sessions_close_and_say_so() {
    let mut world = World::new();
    world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    client.tell(&world, |session, view, out| {
        session.on_wake(&Wake::All, view.confirmed_before(CUT_OFF_MS), out);
    });
    assert_eq!(client.closed, Some(CloseReason::Unavailable));
}

#[test]
fn given_a_cursor_moved_by_another_way_then_the_instance_in_flight_is_done() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading"), world.raise("reading")];
    let mut client = Client::with(&mut world, &["reading"]);
    world.apply(Command::Advance(Advance {
        site: SITE.into(),
        client: "c".into(),
        event: world.event("reading"),
        epoch: client.session.epoch(),
        incarnation: world.site().incarnation(),
        generation: Generation(0),
        instance: InstanceId(ids[1]),
    }));
    client.tell(&world, |session, view, out| session.on_wake(&Wake::All, view, out));
    assert_eq!(client.committed(), [ids[0]]);
    assert_eq!(client.delivered(), [(ids[0], 1), (ids[2], 1)]);
}

#[test]
fn q11_q13_q14_given_private_events_then_their_addressee_alone_gets_them_once() {
    let mut world = World::new();
    world.admin(AdminAction::CreateClient { id: "d".into(), user: Some("u".into()) });
    let ids = [world.raise_to("notice", "c"), world.raise_to("notice", "c")];
    let mut other = Client::new(Receiver::Client("d".into()), &world);
    other.hello(&mut world, None);
    other.subscribe(&mut world, ListMode::Add, &["notice"]);
    assert_eq!(other.delivered(), []);
    let mut client = Client::with(&mut world, &["notice"]);
    assert_eq!(client.drain(&mut world, "notice"), ids);
    assert!(world.site().instance(InstanceId(ids[1])).is_none());

    let late = world.raise_to("notice", "c");
    client.settle(&mut world);
    other.settle(&mut world);
    assert_eq!((client.delivered(), other.delivered()), (vec![(late, 1)], vec![]));
}

#[test]
fn given_needless_wakes_then_nothing_happens() {
    let mut world = World::new();
    world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    let said = client.said.clone();
    let event = world.event("reading");
    for wake in [Wake::Event(event), Wake::Event(EventKey(999)), Wake::Client, Wake::All] {
        client.tell(&world, |session, view, out| session.on_wake(&wake, view, out));
        client.tell(&world, |session, view, out| session.on_time(view, out));
    }
    assert_eq!(client.said, said);
}
