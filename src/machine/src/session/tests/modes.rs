//! Modes of delivery: what may be under way, what counts as delivered, where the cursor stands.

use super::*;

fn quality(mode: Mode) -> Quality {
    Quality { mode, ..Quality::default() }
}

fn window(window: u32) -> Quality {
    Quality { window: Some(window), ..quality(Mode::Twoway) }
}

fn with(name: &str, quality: Quality) -> SubscribeItem {
    SubscribeItem { quality, ..item(name) }
}

/// The client `c`, connected, with one subscription of this quality.
fn subscribed(world: &mut World, name: &str, quality: Quality) -> Client {
    let mut client = Client::new(Receiver::Client("c".into()), world);
    client.hello(world, Some(Digest([0; 32])));
    ask(&mut client, world, vec![with(name, quality)]);
    client
}

fn ask(client: &mut Client, world: &mut World, items: Vec<SubscribeItem>) {
    client.tell(world, |session, view, out| {
        session.on_subscribe(ListMode::Exact, items, view, out);
    });
    client.settle(world);
}

fn raise(world: &mut World, count: usize) -> Vec<u64> {
    (0..count).map(|_| world.raise("reading")).collect()
}

/// Ids of what was delivered, batch by batch; what comes alone is a batch of one.
fn batches(client: &mut Client) -> Vec<Vec<u64>> {
    let said = std::mem::take(&mut client.said);
    let id = |delivery: &Delivery| delivery.instance.id.0;
    let batch = |message: &ToClient| match message {
        ToClient::Event(delivery) => Some(vec![id(delivery)]),
        ToClient::Events(deliveries) => Some(deliveries.iter().map(id).collect()),
        _ => None,
    };
    said.iter().filter_map(batch).collect()
}

fn written(client: &mut Client, world: &mut World, name: &str, id: u64) {
    let named = Named::from((world.event(name), InstanceId(id)));
    client.tell(world, |session, view, out| session.on_written(&named, view, out));
    client.settle(world);
}

fn first(ids: &[u64], count: usize) -> Vec<(u64, u32)> {
    ids.iter().take(count).map(|id| (*id, 1)).collect()
}

#[test]
fn i21_given_a_window_then_so_many_are_under_way_in_order_and_never_more() {
    for size in [1, 5, 63, 200] {
        let mut world = World::new();
        let ids = raise(&mut world, 300);
        let mut client = subscribed(&mut world, "reading", window(size as u32));
        let mut sent = Vec::new();
        while sent.len() < size {
            sent.extend(client.delivered());
            if sent.len() < size {
                // The rest of much at once comes a moment later.
                client.time_out(&mut world);
            }
        }
        assert_eq!(sent, first(&ids, size));
        // Each acknowledgement, of whichever, makes room for one.
        client.ack(&mut world, "reading", ids[size - 1]);
        assert_eq!(client.delivered(), [(ids[size], 1)]);
        assert_eq!(client.session.lanes()[0].in_flight_count(), size);
    }
}

#[test]
fn given_acknowledgements_in_any_order_then_the_cursor_stands_before_the_first_gap() {
    let mut world = World::new();
    let ids = raise(&mut world, 5);
    let mut client = subscribed(&mut world, "reading", quality(Mode::Twoway));
    assert_eq!(client.delivered(), first(&ids, 5));
    for (at, cursor) in [(2, 0), (1, 0), (4, 0), (0, ids[2]), (3, ids[4])] {
        client.ack(&mut world, "reading", ids[at]);
        assert_eq!(world.cursor("c", "reading"), cursor, "after {at}");
    }
    assert_eq!(client.committed(), [ids[2], ids[4]]);
    assert_eq!(client.session.next_deadline(), None);
}

#[test]
fn given_a_commit_under_way_then_the_next_is_of_the_newest_and_waits_for_it() {
    let mut world = World::new();
    let ids = raise(&mut world, 5);
    let mut client = subscribed(&mut world, "reading", quality(Mode::Twoway));
    let event = world.event("reading");
    for id in &ids[..4] {
        let named = (event, InstanceId(*id));
        client.tell(&world, |session, view, out| session.on_ack(named, view, out));
    }
    assert_eq!(client.asked.len(), 1);
    let (token, _) = client.asked.pop_front().expect("a commit");
    client.answer(&world, token, Err(Failed::Busy));
    assert_eq!(client.asked.len(), 0);
    client.time_out(&mut world);
    assert_eq!(world.cursor("c", "reading"), ids[3]);
    assert_eq!(client.committed(), [ids[3]]);
}

#[test]
fn given_each_its_own_timeout_nack_and_attempts_then_one_does_not_hold_up_another() {
    let mut world = World::new();
    let ids = raise(&mut world, 3);
    let mut item = with("reading", quality(Mode::Twoway));
    item.request.max_attempts = Some(2);
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.hello(&mut world, Some(Digest([0; 32])));
    ask(&mut client, &mut world, vec![item]);
    assert_eq!(client.delivered(), first(&ids, 3));

    client.nack(&mut world, "reading", ids[0], 1000);
    client.ack(&mut world, "reading", ids[2]);
    client.time_out(&mut world);
    assert_eq!((world.now_ms, client.delivered()), (1000, vec![(ids[0], 2)]));
    let event = world.event("reading");
    let at_work = (event, InstanceId(ids[1]));
    client.tell(&world, |session, view, out| session.on_working(at_work, view, out));
    // The second nack of the first is its end.
    client.nack(&mut world, "reading", ids[0], 0);
    assert_eq!(world.cursor("c", "reading"), ids[0]);
    while client.delivered().is_empty() {
        client.time_out(&mut world);
    }
    assert_eq!(world.now_ms, 1000 + ACK_TIMEOUT_MS);
    client.ack(&mut world, "reading", ids[1]);
    assert_eq!(world.cursor("c", "reading"), ids[2]);
}

#[test]
fn given_an_instance_that_is_gone_when_it_is_due_then_it_is_passed() {
    let mut world = World::new();
    let first = world.raise("short");
    let mut client = subscribed(&mut world, "short", window(1));
    assert_eq!(client.delivered(), [(first, 1)]);
    let later = [world.raise("short"), world.raise("short"), world.raise("short")];
    client.settle(&mut world);
    assert_eq!(client.delivered(), []);
    client.time_out(&mut world);
    assert_eq!(client.delivered(), [(later[0], 1)]);
    assert_eq!(world.cursor("c", "short"), first);
}

#[test]
fn given_a_new_session_then_what_was_not_committed_comes_again() {
    let mut world = World::new();
    let ids = raise(&mut world, 5);
    let mut client = subscribed(&mut world, "reading", quality(Mode::Twoway));
    client.ack(&mut world, "reading", ids[0]);
    client.ack(&mut world, "reading", ids[3]);
    let mut again = Client::new(Receiver::Client("c".into()), &world);
    again.hello(&mut world, None);
    assert_eq!(again.delivered(), first(&ids[1..], 4));
}

#[test]
fn given_another_quality_then_the_subscription_keeps_its_cursor() {
    let mut world = World::new();
    let ids = raise(&mut world, 8);
    let mut client = subscribed(&mut world, "reading", Quality::default());
    client.ack(&mut world, "reading", ids[0]);
    client.delivered();
    ask(&mut client, &mut world, vec![with("reading", window(3))]);
    assert_eq!(world.site().quality(&"c".into(), world.event("reading")), window(3));
    assert_eq!(client.delivered(), first(&ids[1..], 3));
    ask(&mut client, &mut world, vec![with("reading", window(4))]);
    assert_eq!(client.delivered(), [(ids[4], 1)]);
    client.ack(&mut world, "reading", ids[1]);
    client.delivered();
    ask(&mut client, &mut world, vec![item("reading")]);
    assert_eq!(client.delivered(), [(ids[2], 1)]);
    assert_eq!(world.site().quality(&"c".into(), world.event("reading")), Quality::default());
}

#[test]
fn given_another_mode_while_a_commit_is_under_way_then_what_was_acknowledged_does_not_come_again() {
    let modes = [Mode::Ordered, Mode::Twoway, Mode::Oneway];
    let of = |modes: [Mode; 3]| modes.into_iter().flat_map(move |a| modes.map(|b| (a, b)));
    for (from, to) in of(modes).filter(|(from, to)| from != to) {
        let mut world = World::new();
        let ids = raise(&mut world, 4);
        let mut client = subscribed(&mut world, "reading", quality(from));
        client.delivered();
        let named = Named::from((world.event("reading"), InstanceId(ids[0])));
        client.tell(&world, |session, view, out| match from {
            Mode::Oneway => session.on_written(&named, view, out),
            _ => session.on_ack((named.event, named.instance), view, out),
        });
        let (_, lost) = client.asked.pop_front().expect("a commit");
        assert!(matches!(lost, Ask::Propose(Command::Advance(_))), "{lost:?}");
        ask(&mut client, &mut world, vec![with("reading", quality(to))]);
        let again = client.delivered().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert!(again.starts_with(&ids[1..2]), "{from:?} to {to:?}: {again:?}");
        if world.cursor("c", "reading") == 0 {
            client.time_out(&mut world);
        }
        assert_eq!(world.cursor("c", "reading"), ids[0], "{from:?} to {to:?}: it is committed");
    }
}

#[test]
fn given_an_ordered_one_then_it_counts_what_came_of_its_deliveries() {
    let mut world = World::new();
    let ids = raise(&mut world, 4);
    let mut item = with("reading", Quality::default());
    item.request.max_attempts = Some(2);
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.hello(&mut world, Some(Digest([0; 32])));
    ask(&mut client, &mut world, vec![item]);
    client.ack(&mut world, "reading", ids[0]);
    client.nack(&mut world, "reading", ids[1], 10);
    client.time_out(&mut world);
    client.ack(&mut world, "reading", ids[1]);
    // Given up after its second attempt.
    client.nack(&mut world, "reading", ids[2], 10);
    client.time_out(&mut world);
    client.nack(&mut world, "reading", ids[2], 10);
    client.settle(&mut world);
    assert_eq!(world.cursor("c", "reading"), ids[2]);
    let counts = client.session.lanes()[0].counts();
    assert_eq!((counts.delivered, counts.failed, counts.dropped), (2, 3, 0));
}

/// Somebody else gives the subscription of `c` this quality.
fn administer(world: &mut World, quality: Quality) {
    let item = item("reading").request;
    world.admin(AdminAction::PutSubscriptionAs { client: "c".into(), item, quality });
}

#[test]
fn given_another_mode_by_somebody_else_then_an_open_session_keeps_its_own() {
    let mut world = World::new();
    let ids = raise(&mut world, 8);
    let mut client = subscribed(&mut world, "reading", Quality::default());
    assert_eq!(client.delivered(), first(&ids, 1));
    administer(&mut world, window(3));
    client.settle(&mut world);
    assert_eq!(client.delivered(), [], "it was not told of a window");
    client.ack(&mut world, "reading", ids[0]);
    assert_eq!(client.delivered(), first(&ids[1..], 1));
    // With a list of its own it is; settings within the mode it has follow at once.
    client.tell(&world, |session, view, out| {
        session.on_subscribe(ListMode::Add, vec![with("reading", window(2))], view, out);
    });
    client.settle(&mut world);
    assert_eq!(client.delivered(), first(&ids[1..], 2));
    administer(&mut world, window(4));
    client.settle(&mut world);
    assert_eq!(client.delivered(), first(&ids[3..], 2));
    // Another session is told of it as it opens.
    administer(&mut world, Quality::default());
    let mut again = Client::new(Receiver::Client("c".into()), &world);
    again.hello(&mut world, None);
    assert_eq!(again.delivered(), first(&ids[1..], 1));
}

#[test]
fn i6_given_a_bad_quality_then_it_is_refused_alone_and_leaves_nothing() {
    let mut world = World::new();
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.hello(&mut world, Some(Digest([0; 32])));
    let bad = Quality { flush_ms: Some(5), ..quality(Mode::Twoway) };
    let rows = world.state.rows().count();
    ask(&mut client, &mut world, vec![with("reading", bad)]);
    let refused = client.said.iter().any(|message| match message {
        ToClient::Subscribed { accepted, refused, .. } => {
            accepted.is_empty()
                && matches!(&refused[..], [RefusedSubscription {
                    refusal: Refusal::BadQuality(Invalid { field, .. }), ..
                }] if field == "items[0].flush_ms")
        }
        _ => false,
    });
    assert!(refused, "{:?}", client.said);
    assert_eq!((world.state.rows().count(), client.session.lanes().len()), (rows, 0));

    // One that is there stays as it is.
    let mut again = subscribed(&mut world, "reading", window(3));
    ask(&mut again, &mut world, vec![with("reading", window(0))]);
    assert_eq!(world.site().quality(&"c".into(), world.event("reading")), window(3));

    ask(&mut again, &mut world, Vec::new());
    assert_eq!(world.state.rows().count(), rows);
}

#[test]
fn oneway_given_a_slow_transport_then_five_are_unwritten_and_the_cursor_follows_what_is() {
    let mut world = World::new();
    let ids = raise(&mut world, 20);
    let mut client = subscribed(&mut world, "reading", quality(Mode::Oneway));
    assert_eq!(client.delivered(), first(&ids, 5));
    assert_eq!(world.cursor("c", "reading"), 0);
    written(&mut client, &mut world, "reading", ids[1]);
    assert_eq!(world.cursor("c", "reading"), ids[1]);
    assert_eq!(client.delivered(), first(&ids[5..], 2));
    // The next commit waits a while, and is of the newest.
    written(&mut client, &mut world, "reading", ids[3]);
    written(&mut client, &mut world, "reading", ids[6]);
    assert_eq!(world.cursor("c", "reading"), ids[1]);
    client.time_out(&mut world);
    assert_eq!((world.cursor("c", "reading"), world.now_ms), (ids[6], 100));
    // What is acknowledged all the same says nothing.
    client.delivered();
    client.ack(&mut world, "reading", ids[8]);
    assert_eq!((client.delivered(), world.cursor("c", "reading")), (vec![], ids[6]));
    assert_eq!(client.session.lanes()[0].counts().delivered, 7);
}

#[test]
fn i27_given_events_at_0_50_100_and_250_then_two_batches_each_200_ms_after_its_first() {
    let mut world = World::new();
    let flush = Quality { flush_ms: Some(200), ..quality(Mode::Batch) };
    let mut client = subscribed(&mut world, "reading", flush);
    let mut ids = Vec::new();
    for wait_ms in [0, 50, 50] {
        world.pass_ms(wait_ms);
        ids.push(world.raise("reading"));
        client.settle(&mut world);
    }
    assert_eq!(batches(&mut client), Vec::<Vec<u64>>::new());
    client.time_out(&mut world);
    assert_eq!((world.now_ms, batches(&mut client)), (200, vec![ids.clone()]));
    written(&mut client, &mut world, "reading", ids[2]);
    assert_eq!(world.cursor("c", "reading"), ids[2]);
    world.pass_ms(50);
    let late = world.raise("reading");
    client.settle(&mut world);
    client.time_out(&mut world);
    assert_eq!((world.now_ms, batches(&mut client)), (450, vec![vec![late]]));
}

#[test]
fn given_more_than_a_batch_holds_then_the_rest_follows_at_once_and_two_are_unwritten_at_most() {
    let mut world = World::new();
    let ids = raise(&mut world, 1000);
    let mut client = subscribed(&mut world, "reading", quality(Mode::Batch));
    client.time_out(&mut world);
    assert_eq!(batches(&mut client), std::slice::from_ref(&ids));
    let limits = Limits { args_bytes_max: 65_536, ..Limits::default() };
    world.apply(Command::SetLimits(limits));
    let big = "x".repeat(60_000);
    let ids: Vec<u64> = (0..30).map(|_| world.raise_event("reading", Some(&big), None)).collect();
    client.settle(&mut world);
    client.time_out(&mut world);
    // One frame is not written yet, so one more follows; base64 makes two of three.
    let sent = batches(&mut client);
    assert_eq!(sent.len(), 1);
    assert!(!sent[0].is_empty() && sent[0].len() < 14, "{sent:?}");
    let mut got = sent.concat();
    while got.len() < ids.len() {
        let last = *got.last().expect("something came");
        written(&mut client, &mut world, "reading", last);
        got.extend(batches(&mut client).concat());
    }
    assert_eq!(got, ids);
}

#[test]
fn datagram_given_a_transport_that_takes_nothing_then_what_waits_is_dropped_and_counted() {
    let mut world = World::new();
    let ids = raise(&mut world, 12);
    let mut client = subscribed(&mut world, "reading", quality(Mode::Datagram));
    assert_eq!(client.delivered(), first(&ids, 5));
    client.time_out(&mut world);
    let counts = client.session.lanes()[0].counts();
    assert_eq!((counts.dropped, client.delivered()), (7, vec![]));
    let next = world.raise("reading");
    client.settle(&mut world);
    written(&mut client, &mut world, "reading", ids[4]);
    assert_eq!(client.delivered(), [(next, 1)]);
    written(&mut client, &mut world, "reading", next);
    client.time_out(&mut world);
    assert_eq!(world.cursor("c", "reading"), next);
}

#[test]
fn i2_i9_given_subscriptions_of_every_mode_then_none_waits_for_another() {
    let mut world = World::new();
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.hello(&mut world, Some(Digest([0; 32])));
    ask(
        &mut client,
        &mut world,
        vec![
            item("reading"),
            with("short", quality(Mode::Batch)),
            with("state", quality(Mode::Oneway)),
        ],
    );
    let ids = [world.raise("reading"), world.raise("short"), world.raise("state")];
    client.settle(&mut world);
    assert_eq!(batches(&mut client), [vec![ids[0]], vec![ids[2]]]);
    written(&mut client, &mut world, "state", ids[2]);
    let next = world.raise("state");
    client.settle(&mut world);
    assert_eq!(batches(&mut client), [vec![next]]);
    client.time_out(&mut world);
    assert_eq!(batches(&mut client), [vec![ids[1]]]);
}

#[test]
fn given_a_stateless_client_then_it_has_every_mode_and_keeps_its_own_positions() {
    for mode in Mode::ALL {
        let mut world = World::new();
        let ids = raise(&mut world, 3);
        let mut client = Client::stateless(&mut world, vec![with("reading", quality(mode))]);
        if mode == Mode::Batch {
            client.time_out(&mut world);
        }
        for id in &ids {
            client.ack(&mut world, "reading", *id);
            written(&mut client, &mut world, "reading", *id);
        }
        assert_eq!(client.committed().first().copied().map(|id| id >= ids[0]), Some(true));
        assert_eq!(batches(&mut client).concat(), ids, "{mode:?}");
    }
}

#[test]
fn given_no_authority_then_nothing_is_sent_and_what_is_under_way_counts() {
    for mode in [Mode::Twoway, Mode::Oneway, Mode::Batch, Mode::Datagram] {
        let mut world = World::new();
        let mut client = subscribed(&mut world, "staff", quality(mode));
        let id = world.raise("staff");
        client.settle(&mut world);
        assert_eq!(client.session.next_deadline(), None, "{mode:?}");
        let roles = vec!["operator".into()];
        world.admin(AdminAction::UpdateUser { id: "u".into(), roles });
        client.settle(&mut world);
        if mode == Mode::Batch {
            client.time_out(&mut world);
        }
        assert_eq!(batches(&mut client), [vec![id]], "{mode:?}");
        world.admin(AdminAction::UpdateUser { id: "u".into(), roles: Vec::new() });
        let later = world.raise("staff");
        client.settle(&mut world);
        client.ack(&mut world, "staff", id);
        written(&mut client, &mut world, "staff", id);
        assert_eq!((batches(&mut client), world.cursor("c", "staff")), (vec![], id), "{mode:?}");
        assert!(later > id);
    }
}

mod properties {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Raise,
        /// Acknowledges one of those that are under way.
        Ack(usize),
        Nack(usize),
        /// The first so many that were sent are written.
        Written(usize),
        Pass(u64),
        Reconnect,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => Just(Act::Raise),
            4 => (0usize..8).prop_map(Act::Ack),
            1 => (0usize..8).prop_map(Act::Nack),
            4 => (1usize..8).prop_map(Act::Written),
            2 => (1u64..40_000).prop_map(Act::Pass),
            1 => Just(Act::Reconnect),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// The window holds, first transmissions are in order, the cursor never passes what is not
        /// delivered, and in the end everything is.
        #[test]
        fn of_every_mode(
            mode in prop_oneof![Just(Mode::Twoway), Just(Mode::Oneway), Just(Mode::Batch)],
            acts in proptest::collection::vec(act(), 1..120),
        ) {
            let mut world = World::new();
            let quality = if mode == Mode::Twoway { window(4) } else { quality(mode) };
            let mut client = subscribed(&mut world, "reading", quality);
            let (mut raised, mut delivered) = (Vec::new(), BTreeSet::new());
            let mut under_way: Vec<u64> = Vec::new();
            let mut highest = 0;
            let rest = std::iter::repeat_n([Act::Pass(40_000), Act::Ack(0), Act::Written(9)], 600);
            for act in acts.into_iter().chain(rest.flatten()) {
                match act {
                    Act::Raise if raised.len() < 100 => {
                        raised.push(world.raise("reading"));
                        client.settle(&mut world);
                    }
                    Act::Raise => {}
                    Act::Ack(at) if mode == Mode::Twoway && !under_way.is_empty() => {
                        let id = under_way.remove(at % under_way.len());
                        delivered.insert(id);
                        client.ack(&mut world, "reading", id);
                    }
                    Act::Nack(at) if mode == Mode::Twoway && !under_way.is_empty() => {
                        let id = under_way[at % under_way.len()];
                        client.nack(&mut world, "reading", id, 50);
                    }
                    Act::Ack(_) | Act::Nack(_) => {}
                    Act::Written(count) if mode != Mode::Twoway && !under_way.is_empty() => {
                        let count = count.min(under_way.len());
                        let taken: Vec<u64> = under_way.drain(..count).collect();
                        delivered.extend(&taken);
                        written(&mut client, &mut world, "reading", taken[count - 1]);
                    }
                    Act::Written(_) => {}
                    Act::Pass(ms) => {
                        world.pass_ms(ms.min(1_000));
                        client.tell(&world, |session, view, out| session.on_time(view, out));
                        client.settle(&mut world);
                    }
                    Act::Reconnect => {
                        client = Client::new(Receiver::Client("c".into()), &world);
                        client.hello(&mut world, None);
                        under_way.clear();
                        highest = world.cursor("c", "reading");
                    }
                }
                for id in batches(&mut client).concat() {
                    if id > highest {
                        prop_assert!(!under_way.contains(&id));
                        highest = id;
                        under_way.push(id);
                    } else {
                        prop_assert!(mode == Mode::Twoway, "sent again: {id}");
                    }
                }
                if mode == Mode::Twoway {
                    prop_assert!(under_way.len() <= 4);
                }
                let cursor = world.cursor("c", "reading");
                let passed = raised.iter().filter(|id| **id <= cursor);
                prop_assert!(passed.clone().all(|id| delivered.contains(id)), "{cursor}");
            }
            prop_assert_eq!(raised.last().copied().unwrap_or(0), world.cursor("c", "reading"));
        }
    }
}
