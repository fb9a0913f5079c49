//! Sessions of clients: attaching, subscribing, cursors, seeking.

use ackord_machine::site::*;

use crate::world::*;

fn subscribed(world: &World, client: &str) -> Vec<String> {
    let name = |row: &SubscriptionRow| {
        world.site().event(row.event).unwrap().definition.name.as_str().to_owned()
    };
    world.site().subscriptions(&client.into()).map(name).collect()
}

fn exact(world: &mut World, events: &[&str]) -> Vec<Result<Generation, Refusal>> {
    let items = events.iter().map(|name| item(name)).collect();
    world.subscribe_items("c", SubscribeMode::Exact, items)
}

#[test]
fn each_attach_takes_a_higher_epoch() {
    let mut world = World::with(usual());
    let outcome = world.try_attach_client("c");
    let (epoch, incarnation) = (Epoch(2), Incarnation(7));
    assert_eq!(outcome, Outcome::ClientAttached { epoch, incarnation });
    assert_eq!(world.effects, [for_client("c")]);
    assert_eq!(refusal(world.try_attach_client("nobody")), Refusal::UnknownClient);
}

fn attach(claim: Claim) -> Command {
    Command::AttachClient { site: SITE.into(), client: "c".into(), claim }
}

#[test]
fn an_attach_that_comes_again_takes_over_once() {
    let mut world = World::with(usual());
    let known = world.site().client("c").unwrap().epoch;
    let claim = world.claim(known);
    let first = world.run(attach(claim));
    let row = world.site().client("c").unwrap().clone();
    assert_eq!(world.run(attach(claim)), first);
    assert_eq!(world.site().client("c"), Some(&row));
    assert_eq!(world.effects, []);
    // Also when it meanwhile knows of itself.
    assert_eq!(world.run(attach(Claim { above: row.epoch, ..claim })), first);
}

#[test]
fn an_attach_that_was_replaced_stays_so_however_often_it_comes() {
    let mut world = World::with(usual());
    let claim = world.claim(world.site().client("c").unwrap().epoch);
    world.run(attach(claim));
    for _ in 0..3 {
        let newest = world.attach_client("c");
        assert_eq!(refusal(world.run(attach(claim))), Refusal::StaleEpoch { newest });
        let knowing = Claim { above: newest, ..claim };
        assert_eq!(refusal(world.run(attach(knowing))), Refusal::StaleEpoch { newest });
    }
}

#[test]
fn an_attach_does_not_take_over_from_a_session_that_it_does_not_know_of() {
    let mut world = World::with(usual());
    let late = world.claim(world.site().client("c").unwrap().epoch);
    let newest = world.attach_client("c");
    assert_eq!(refusal(world.run(attach(late))), Refusal::Overtaken { newest });
    // Told of it, it does.
    let knowing = Claim { above: newest, ..late };
    let epoch = newest.next();
    let incarnation = world.site().incarnation();
    assert_eq!(world.run(attach(knowing)), Outcome::ClientAttached { epoch, incarnation });
}

#[test]
fn a_list_that_comes_again_is_answered_and_undoes_nothing_that_came_after_it() {
    let mut world = World::with(usual());
    let epoch = world.site().client("c").unwrap().epoch;
    let list = |number, mode, event: &str| {
        let (site, client, items) = (SITE.into(), "c".into(), vec![item(event)]);
        Command::Subscribe(Subscribe { site, client, epoch, number, mode, items })
    };
    let outcome = world.run(list(1, SubscribeMode::Add, "q"));
    assert_eq!(world.run(list(1, SubscribeMode::Add, "q")), outcome);
    assert_eq!(world.effects, []);
    world.run(list(2, SubscribeMode::Remove, "q"));
    world.run(list(1, SubscribeMode::Add, "q"));
    assert_eq!(world.site().subscriptions(&"c".into()).count(), 0);
    // The next session counts anew.
    let epoch = world.attach_client("c");
    let (site, client, items) = (SITE.into(), "c".into(), vec![item("q")]);
    let (number, mode) = (1, SubscribeMode::Add);
    world.run(Command::Subscribe(Subscribe { site, client, epoch, number, mode, items }));
    assert_eq!(world.site().subscriptions(&"c".into()).count(), 1);
}

#[test]
fn an_exact_set_keeps_cursors_removes_and_adds() {
    // Given {r, q} with a cursor on q.
    let mut world = World::with(usual());
    exact(&mut world, &["r", "q"]);
    world.store(event("q", "x"));
    world.advance("c", "q", 1);
    // When the client comes with {q, p}.
    assert_eq!(exact(&mut world, &["q", "p"]), [Ok(Generation(0)), Ok(Generation(0))]);
    assert_eq!(world.effects, [for_client("c")]);
    // Then r is gone with its cursor, q has kept its own, p is new.
    assert_eq!(subscribed(&world, "c"), ["q", "p"]);
    assert_eq!((world.cursor("c", "q"), world.cursor("c", "p")), (Some(1), Some(0)));
    // The same set again wakes nobody.
    exact(&mut world, &["p", "q"]);
    assert_eq!(world.effects, []);
    exact(&mut world, &[]);
    assert_eq!(subscribed(&world, "c"), [""; 0]);
}

#[test]
fn a_bad_item_is_refused_alone() {
    let mut world = World::with(usual());
    exact(&mut world, &["r", "q"]);
    let wrong = SubscriptionRequest { category: Some(Category::Private), ..item("r") };
    let options = SubscriptionRequest { ack_timeout_ms: Some(1), ..item("q") };
    let right = SubscriptionRequest { category: Some(Category::Private), ..item("p") };
    let items = vec![item("unknown"), wrong, options, right];
    let results = world.subscribe_items("c", SubscribeMode::Exact, items);
    assert_eq!(results[0], Err(Refusal::UnknownEvent));
    assert_eq!(results[1], Err(Refusal::WrongCategory));
    assert!(
        matches!(&results[2], Err(Refusal::Invalid(it)) if it.field == "items[2].ack_timeout_ms")
    );
    assert_eq!(results[3], Ok(Generation(0)));
    // The listed one with bad options is still listed; the one of another category is not.
    assert_eq!(subscribed(&world, "c"), ["q", "p"]);
}

#[test]
fn adding_leaves_the_others_and_removing_takes_only_the_listed() {
    let mut world = World::with(usual());
    world.subscribe("c", &["r"]);
    world.subscribe("c", &["q", "p"]);
    assert_eq!(subscribed(&world, "c"), ["r", "q", "p"]);
    let items = vec![item("q"), item("unknown"), item("q")];
    let results = world.subscribe_items("c", SubscribeMode::Remove, items);
    assert_eq!(results[0], Ok(Generation(0)));
    assert_eq!(results[1], Err(Refusal::UnknownEvent));
    assert_eq!(results[2], Err(Refusal::UnknownSubscription));
    assert_eq!(subscribed(&world, "c"), ["r", "p"]);
}

#[test]
fn a_new_subscription_starts_at_the_earliest_or_after_the_newest() {
    let mut world = World::with(usual());
    world.store(event("q", "1"));
    world.store(event("r", "2"));
    let latest = SubscriptionRequest { start: Start::Latest, ..item("q") };
    world.subscribe_items("c", SubscribeMode::Add, vec![latest.clone(), item("r")]);
    assert_eq!((world.cursor("c", "q"), world.cursor("c", "r")), (Some(2), Some(0)));
    // A kept one keeps its cursor whatever it says.
    world.store(event("q", "3"));
    world.subscribe_items("c", SubscribeMode::Exact, vec![latest]);
    assert_eq!(world.cursor("c", "q"), Some(2));
}

#[test]
fn options_are_bounded_and_taken_over_by_a_kept_subscription() {
    let mut world = World::with(usual());
    let cases = [
        (Some(999), None, Some("items[0].ack_timeout_ms")),
        (Some(1000), None, None),
        (Some(3_600_000), None, None),
        (Some(3_600_001), None, Some("items[0].ack_timeout_ms")),
        (None, Some(0), Some("items[0].max_attempts")),
        (None, Some(1), None),
    ];
    for (ack_timeout_ms, max_attempts, expected) in cases {
        let asked = SubscriptionRequest { ack_timeout_ms, max_attempts, ..item("q") };
        let result = world.subscribe_items("c", SubscribeMode::Add, vec![asked]).remove(0);
        match (result, expected) {
            (Ok(_), None) => {
                let key = world.key("q");
                let row = world.site().subscription(&"c".into(), key).unwrap();
                assert_eq!((row.ack_timeout_ms, row.max_attempts), (ack_timeout_ms, max_attempts));
            }
            (Err(Refusal::Invalid(invalid)), Some(field)) => assert_eq!(invalid.field, field),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn only_the_newest_session_subscribes() {
    let mut world = World::with(usual());
    let old = world.site().client("c").unwrap().epoch;
    let newest = world.attach_client("c");
    let subscribe = |epoch, count: usize| {
        let items = vec![item("q"); count];
        let (site, client, mode) = (SITE.into(), "c".into(), SubscribeMode::Add);
        let number = 1;
        Command::Subscribe(Subscribe { site, client, epoch, number, mode, items })
    };
    for stale in [old, newest.next(), Epoch(0)] {
        assert_eq!(refusal(world.run(subscribe(stale, 1))), Refusal::StaleEpoch { newest });
    }
    assert!(matches!(world.run(subscribe(newest, 1000)), Outcome::Subscribed(_)));
    assert!(matches!(refusal(world.run(subscribe(newest, 1001))), Refusal::Invalid(_)));
}

#[test]
fn a_client_that_never_attached_subscribes_to_nothing() {
    let mut world = World::with(usual());
    world.create_client("d", None);
    let (site, client) = (SITE.into(), "d".into());
    let (epoch, number, mode, items) = (Epoch(0), 1, SubscribeMode::Add, vec![item("q")]);
    let command = Command::Subscribe(Subscribe { site, client, epoch, number, mode, items });
    assert_eq!(refusal(world.run(command)), Refusal::StaleEpoch { newest: Epoch(0) });
}

#[test]
fn on_a_blank_site_there_is_nothing_to_subscribe_to_yet() {
    let mut world = World::blank(settings());
    world.done(AdminAction::CreateUser { id: "u".into(), roles: vec![] });
    world.create_client("c", Some("u"));
    world.attach_client("c");
    assert_eq!(exact(&mut world, &["q"]), [Err(Refusal::SiteBlank)]);
}

#[test]
fn a_cursor_moves_forward_only() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    for value in ["1", "2", "3"] {
        world.store(event("q", value));
    }
    let at = |cursor| Outcome::Advanced { cursor: InstanceId(cursor) };
    assert_eq!(world.advance("c", "q", 2), at(2));
    assert_eq!(world.effects, [], "only the session that acknowledged is concerned");
    assert_eq!(world.advance("c", "q", 1), at(2));
    assert_eq!(world.advance("c", "q", 2), at(2));
    assert_eq!(world.cursor("c", "q"), Some(2));
    assert_eq!(world.advance("c", "q", 3), at(3));
    assert_eq!(world.retained("q"), [1, 2, 3], "a queue is not emptied by reading");
}

#[test]
fn a_cursor_never_passes_the_head() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    world.store(event("q", "1"));
    match refusal(world.advance("c", "q", 2)) {
        Refusal::Invalid(invalid) => assert_eq!(invalid.detail, "0..=1, was 2"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.cursor("c", "q"), Some(0));
}

#[test]
fn an_evicted_instance_can_be_acknowledged() {
    // Given 1 in flight while the queue of three goes on to 6.
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    for n in 1..=6 {
        world.store(event("q", &n.to_string()));
    }
    // When 1 is acknowledged, then 4 is next.
    assert_eq!(world.advance("c", "q", 1), Outcome::Advanced { cursor: InstanceId(1) });
    assert_eq!(world.next("c", "q", 1), Some(4));
}

#[test]
fn a_cursor_is_moved_only_from_where_it_stands() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    world.store(event("q", "1"));
    let good = world.advancing("c", "q", 1);
    let newest = good.epoch;
    let event = EventKey(77);
    let cases = [
        (Advance { epoch: Epoch(0), ..good.clone() }, Refusal::StaleEpoch { newest }),
        (Advance { epoch: newest.next(), ..good.clone() }, Refusal::StaleEpoch { newest }),
        (Advance { incarnation: Incarnation(8), ..good.clone() }, Refusal::StalePosition),
        (Advance { generation: Generation(1), ..good.clone() }, Refusal::StalePosition),
        (Advance { event, ..good.clone() }, Refusal::UnknownSubscription),
        (Advance { event: world.key("r"), ..good.clone() }, Refusal::UnknownSubscription),
        (Advance { client: "x".into(), ..good.clone() }, Refusal::UnknownClient),
        (Advance { site: "x".into(), ..good.clone() }, Refusal::UnknownSite),
    ];
    for (advance, expected) in cases {
        assert_eq!(refusal(world.run(Command::Advance(advance.clone()))), expected, "{advance:?}");
    }
    world.attach_client("c");
    let stale = refusal(world.run(Command::Advance(good)));
    assert_eq!(stale, Refusal::StaleEpoch { newest: newest.next() });
}

#[test]
fn an_acknowledged_private_instance_is_gone() {
    let mut world = World::with(usual());
    world.create_client("d", None);
    world.subscribe("c", &["p"]);
    for (client, value) in [("c", "1"), ("d", "2"), ("c", "3"), ("c", "4")] {
        world.store(to_client("p", client, value));
    }
    world.advance("c", "p", 1);
    assert_eq!(world.retained("p"), [2, 3, 4]);
    // Several acknowledged at once go at once; another client's stay.
    world.advance("c", "p", 4);
    assert_eq!(world.retained("p"), [2]);
    assert_eq!(world.advance("c", "p", 4), Outcome::Advanced { cursor: InstanceId(4) });
}

#[test]
fn seeking_sets_the_cursor_and_outdates_what_is_in_flight() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    for value in ["1", "2", "3"] {
        world.store(event("q", value));
    }
    world.advance("c", "q", 3);
    let in_flight = world.advancing("c", "q", 3);
    let seek = |client: &str, event: &str, after| AdminAction::Seek {
        client: client.into(),
        event: event.into(),
        after: InstanceId(after),
    };
    world.done(seek("c", "q", 1));
    assert_eq!(world.effects, [for_client("c")]);
    assert_eq!(world.cursor("c", "q"), Some(1));
    let key = world.key("q");
    let row = world.site().subscription(&"c".into(), key).unwrap();
    assert_eq!(row.generation, Generation(1));
    assert_eq!(refusal(world.run(Command::Advance(in_flight))), Refusal::StalePosition);
    assert_eq!(world.advance("c", "q", 2), Outcome::Advanced { cursor: InstanceId(2) });
    // Up to the head and no further; and only where there is a subscription.
    world.done(seek("c", "q", 3));
    assert!(matches!(world.refused(seek("c", "q", 4)), Refusal::Invalid(_)));
    assert_eq!(world.refused(seek("c", "r", 1)), Refusal::UnknownSubscription);
    assert_eq!(world.refused(seek("c", "x", 1)), Refusal::UnknownEvent);
    assert_eq!(world.refused(seek("x", "q", 1)), Refusal::UnknownClient);
}

#[test]
fn private_instances_skipped_by_a_seek_stay_until_they_expire() {
    let mut world = World::with(usual());
    world.subscribe("c", &["p"]);
    for value in ["1", "2", "3"] {
        world.store(to_client("p", "c", value));
    }
    let (client, event) = ("c".into(), "p".into());
    world.done(AdminAction::Seek { client, event, after: InstanceId(2) });
    world.advance("c", "p", 3);
    assert_eq!(world.retained("p"), [1, 2]);
}

#[test]
fn the_generation_of_an_event_never_falls() {
    // Given a subscription that was sought and removed.
    let mut world = World::with(usual());
    world.subscribe("c", &["q", "r"]);
    world.done(AdminAction::Seek { client: "c".into(), event: "q".into(), after: InstanceId(0) });
    exact(&mut world, &["r"]);
    // When it is made again, then it does not fall back below what the endpoint has seen.
    assert_eq!(exact(&mut world, &["q", "r"]), [Ok(Generation(1)), Ok(Generation(0))]);
    // Nor when its event was removed meanwhile.
    world.done(AdminAction::Seek { client: "c".into(), event: "q".into(), after: InstanceId(0) });
    world.apply_structure(structure(vec![replacing("r")]));
    world.apply_structure(usual());
    assert_eq!(exact(&mut world, &["q"]), [Ok(Generation(2))]);
}
