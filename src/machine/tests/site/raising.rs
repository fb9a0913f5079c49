//! What becomes of a raised event: categories, nulls, eviction, rejections, keys, capacity.

use ackord_machine::site::*;
use bytes::Bytes;

use crate::world::*;

#[test]
fn a_replacing_event_keeps_the_newest() {
    // Given a site, when a Replacing event is raised five times, then the fifth is retained.
    let mut world = World::with(usual());
    for value in ["v1", "v2", "v3", "v4", "v5"] {
        world.store(event("r", value));
    }
    assert_eq!(world.values("r"), ["v5"]);
    assert_eq!(world.retained("r"), [5]);
}

#[test]
fn a_replacing_event_never_expires() {
    let mut world = World::with(usual());
    world.store(event("r", "old"));
    world.now += 10 * 365 * 86_400_000;
    assert_eq!(world.next("c", "r", 0), Some(1));
    world.tick(1000);
    assert_eq!(world.values("r"), ["old"]);
}

#[test]
fn a_full_queue_evicts_its_oldest() {
    let mut world = World::with(usual());
    for value in ["1", "2", "3", "4", "5"] {
        world.store(event("q", value));
    }
    assert_eq!(world.values("q"), ["3", "4", "5"]);
    assert!(world.site().instance(InstanceId(2)).is_none());
    assert_eq!(world.site().retained_len(world.key("q")), 3);
}

#[test]
fn ids_rise_over_all_queues() {
    let mut world = World::with(usual());
    assert_eq!(world.store(event("r", "a")), 1);
    assert_eq!(world.store(event("q", "b")), 2);
    assert_eq!(world.store(to_client("p", "c", "d")), 3);
    assert_eq!(world.store(event("r", "e")), 4);
    assert_eq!(world.site().head(), InstanceId(4));
}

#[test]
fn services_of_one_site_have_queues_of_their_own() {
    // Given two services and queues of two.
    let mut world = World::multi(structure(vec![queueing("q", 2, 60), replacing("r")]));
    // When they raise in turns.
    for round in 1..=3 {
        world.raise_next("v", event("q", &format!("A{round}")));
        world.raise_next("w", event("q", &format!("B{round}")));
    }
    // Then each has kept its last two, and the event shows them in commit order.
    assert_eq!(world.values("q"), ["A2", "B2", "A3", "B3"]);
    let queue = world.site().queue(world.key("q"), &"w".into());
    assert_eq!(queue.map(|it| it.id.0).collect::<Vec<_>>(), [4, 6]);
    // And a Replacing event has one instance per service.
    for (service, value) in [("v", "a"), ("w", "b"), ("v", "c")] {
        world.raise_next(service, event("r", value));
    }
    assert_eq!(world.values("r"), ["b", "c"]);
}

#[test]
fn a_null_replaces_and_a_null_after_it_is_ignored() {
    let mut world = World::with(usual());
    // A null as the first instance is stored.
    assert_eq!(world.raise(null("r")), Decision::Stored(InstanceId(1)));
    // Another one is acknowledged and nobody is told; its number is used up.
    assert_eq!(world.raise(null("r")), Decision::Ignored(InstanceId(1)));
    assert_eq!(world.effects, []);
    assert_eq!(world.site().head(), InstanceId(1));
    assert_eq!(world.site().store("v", uid(1)).unwrap().last, Sequence(2));
    // A value, then a null: both are stored in turn.
    assert_eq!(world.raise(event("r", "x")), Decision::Stored(InstanceId(2)));
    assert_eq!(world.raise(null("r")), Decision::Stored(InstanceId(3)));
    assert_eq!(world.values("r"), ["null"]);
    // A repeat of the ignored one gets its original outcome.
    let again = world.raise_as("v", 1, 2, null("r"));
    assert_eq!(again, duplicate(Decision::Ignored(InstanceId(1))));
}

#[test]
fn a_null_is_compared_within_its_own_queue() {
    let mut world = World::multi(structure(vec![replacing("r")]));
    assert_eq!(world.raise_next("v", null("r")), Decision::Stored(InstanceId(1)));
    assert_eq!(world.raise_next("w", null("r")), Decision::Stored(InstanceId(2)));
    assert_eq!(world.raise_next("v", null("r")), Decision::Ignored(InstanceId(1)));
}

#[test]
fn what_is_wrong_with_an_event_is_rejected_for_good_and_the_next_flows_on() {
    let sized = |bytes: usize| event("q", &"x".repeat(bytes));
    let typed = |bytes: usize| {
        let mut it = event("q", "x");
        it.arguments.as_mut().unwrap().content_type = "t".repeat(bytes);
        it
    };
    let lifetime = |name: &str, lifetime_s| NewEvent { lifetime_s, ..event(name, "x") };
    let category = |name: &str, category| NewEvent { category: Some(category), ..event(name, "x") };
    let cases = [
        (event("unknown", "x"), Err(Rejection::UnknownEvent)),
        (category("r", Category::Replacing), Ok(())),
        (category("q", Category::Queueing), Ok(())),
        (category("q", Category::Replacing), Err(Rejection::WrongCategory)),
        (category("r", Category::Private), Err(Rejection::WrongCategory)),
        (sized(0), Ok(())),
        (sized(2048), Ok(())),
        (sized(2049), Err(Rejection::ArgumentsTooLarge { given: 2049, most: 2048 })),
        (typed(128), Ok(())),
        (typed(129), Err(Rejection::ContentTypeTooLong { given: 129 })),
        (null("q"), Err(Rejection::NullNotAllowed)),
        (NewEvent { arguments: None, ..to_client("p", "c", "") }, Err(Rejection::NullNotAllowed)),
        (event("p", "x"), Err(Rejection::ClientRequired)),
        (to_client("p", "c", "x"), Ok(())),
        (to_client("p", "nobody", "x"), Err(Rejection::UnknownClient)),
        (to_client("q", "c", "x"), Err(Rejection::ClientNotAllowed)),
        (to_client("r", "c", "x"), Err(Rejection::ClientNotAllowed)),
        (lifetime("q", Some(0)), Err(Rejection::LifetimeOutOfRange { given: 0, most: 60 })),
        (lifetime("q", Some(1)), Ok(())),
        (lifetime("q", Some(60)), Ok(())),
        (lifetime("q", Some(61)), Err(Rejection::LifetimeOutOfRange { given: 61, most: 60 })),
        (lifetime("r", Some(1)), Err(Rejection::LifetimeOutOfRange { given: 1, most: 0 })),
    ];
    for (event, expected) in cases {
        let mut world = World::with(usual());
        let decision = world.raise(event.clone());
        match expected {
            Ok(()) => assert_eq!(decision, Decision::Stored(InstanceId(1)), "{event:?}"),
            Err(rejection) => {
                assert_eq!(decision, Decision::Rejected(rejection), "{event:?}");
                // The rejection is the outcome of its number.
                let again = world.raise_as("v", 1, 1, event.clone());
                assert_eq!(again, duplicate(Decision::Rejected(rejection)), "{event:?}");
                assert_eq!(world.site().head(), InstanceId(0));
                assert_eq!(world.effects, []);
            }
        }
        assert_eq!(world.raise_as("v", 1, 2, super::world::event("r", "next")), {
            stored(world.site().head().0)
        });
    }
}

#[test]
fn an_event_may_carry_a_shorter_lifetime() {
    let mut world = World::with(usual());
    world.store(NewEvent { lifetime_s: Some(5), ..event("q", "short") });
    world.store(event("q", "long"));
    let expires = |world: &World, id| world.site().instance(InstanceId(id)).unwrap().expires;
    assert_eq!(expires(&world, 1), Some(Stamp(world.now + 5_000)));
    assert_eq!(expires(&world, 2), Some(Stamp(world.now + 60_000)));
    assert_eq!(world.site().instance(InstanceId(1)).unwrap().created, Stamp(world.now));
}

#[test]
fn of_1001_private_events_to_an_offline_client_the_last_1000_stay() {
    let mut world = World::with(structure(vec![private("p", 60)]));
    let epoch = world.site().service("v").unwrap().epoch;
    let raise = |number| {
        let (site, service) = (SITE.into(), "v".into());
        let (uid, sequence, event) = (uid(1), Sequence(number), to_client("p", "c", "x"));
        Command::Raise(Raise { site, service, epoch, uid, sequence, event })
    };
    let commands = (1..=1001).map(raise).collect();
    let batch = Batch { stamp: Stamp(world.now), commands };
    let applied = apply(&mut world.state, &batch);
    assert_eq!(applied.outcomes.last(), Some(&stored(1001)));
    assert_eq!(world.retained("p"), (2..=1001).collect::<Vec<_>>());
    assert_eq!(applied.effects, [for_client("c")], "sorted, each once");
}

#[test]
fn a_private_event_shows_only_to_its_addressee() {
    let mut world = World::with(usual());
    world.create_client("d", None);
    world.store(to_client("p", "c", "1"));
    assert_eq!(world.effects, [for_client("c")]);
    world.store(to_client("p", "d", "2"));
    world.store(to_client("p", "c", "3"));
    assert_eq!((world.next("c", "p", 0), world.next("c", "p", 1)), (Some(1), Some(3)));
    assert_eq!((world.next("d", "p", 0), world.next("d", "p", 2)), (Some(2), None));
    let stateless = Receiver::Stateless;
    let key = world.key("p");
    assert!(world.site().next_instance(key, InstanceId(0), &stateless, Stamp(0)).is_none());
}

#[test]
fn evicting_a_private_event_wakes_its_addressee() {
    // Given a queue full of events to `d`.
    let mut world = World::with(structure(vec![private("p", 60)]));
    world.create_client("d", None);
    for _ in 0..1000 {
        let row = world.site().service("v").unwrap().clone();
        let sequence = world.site().store("v", uid(1)).unwrap().last.next();
        let (site, service, epoch) = (SITE.into(), row.id, row.epoch);
        let event = to_client("p", "d", "x");
        let raise = Raise { site, service, epoch, uid: uid(1), sequence, event };
        let commands = vec![Command::Raise(raise)];
        apply(&mut world.state, &Batch { stamp: Stamp(world.now), commands });
    }
    // When one to `c` comes, then both are told.
    world.store(to_client("p", "c", "y"));
    assert_eq!(world.effects, [for_client("c"), for_client("d")]);
    assert_eq!(world.next("d", "p", 0), Some(2));
}

#[test]
fn raising_wakes_those_who_watch_the_event() {
    let mut world = World::with(usual());
    world.store(event("r", "x"));
    assert_eq!(world.effects, [for_event(&world, "r")]);
    world.store(event("q", "x"));
    assert_eq!(world.effects, [for_event(&world, "q")]);
}

#[test]
fn a_key_is_decided_once() {
    let mut world = World::with(usual());
    assert_eq!(world.raise_keyed("k", event("q", "x")), stored(1));
    assert_eq!(world.raise_keyed("k", event("q", "x")), duplicate(Decision::Stored(InstanceId(1))));
    assert_eq!(refusal(world.raise_keyed("k", event("q", "y"))), Refusal::KeyReused);
    assert_eq!(world.raise_keyed("l", event("q", "y")), stored(2));
    // A rejection is a decision too.
    let rejected = Decision::Rejected(Rejection::UnknownEvent);
    let first = Outcome::Raised(Raised { duplicate: false, decision: rejected.clone() });
    assert_eq!(world.raise_keyed("m", event("none", "x")), first);
    assert_eq!(world.raise_keyed("m", event("none", "x")), duplicate(rejected));
    // No session is touched by any of it.
    assert_eq!(world.site().service("v").unwrap().epoch, Epoch(1));
    assert_eq!(world.site().store("v", uid(1)).unwrap().last, Sequence(0));
}

#[test]
fn what_names_the_key_before_its_own_is_decided_after_it_or_not_at_all() {
    let mut world = World::with(usual());
    // Given that the first of three is not decided, then neither are the others.
    assert_eq!(refusal(world.raise_after("a", "b", event("q", "2"))), Refusal::NotYet);
    assert_eq!(refusal(world.raise_after("b", "c", event("q", "3"))), Refusal::NotYet);
    assert_eq!(world.site().head(), InstanceId(0));
    // Once it is, they follow in their order,
    assert_eq!(world.raise_keyed("a", event("q", "1")), stored(1));
    assert_eq!(refusal(world.raise_after("b", "c", event("q", "3"))), Refusal::NotYet);
    assert_eq!(world.raise_after("a", "b", event("q", "2")), stored(2));
    assert_eq!(world.raise_after("b", "c", event("q", "3")), stored(3));
    // each once, and a repeat is known whatever it names.
    let known = duplicate(Decision::Stored(InstanceId(2)));
    assert_eq!(world.raise_after("never", "b", event("q", "2")), known);
    // A rejection is a decision too: what follows goes on.
    let rejected = Decision::Rejected(Rejection::UnknownEvent);
    let first = Outcome::Raised(Raised { duplicate: false, decision: rejected });
    assert_eq!(world.raise_after("c", "d", event("none", "x")), first);
    assert_eq!(world.raise_after("d", "e", event("q", "5")), stored(4));
    // The key of another service is not the one that is meant.
    let mut multi = World::multi(usual());
    multi.raise_keyed("a", event("q", "1"));
    let (site, service) = (SITE.into(), "w".into());
    let raise = RaiseKeyed { site, service, key: "b".into(), event: event("q", "2") };
    let other = Command::RaiseAfter(RaiseAfter { raise, after: "a".into() });
    assert_eq!(refusal(multi.run(other)), Refusal::NotYet);
}

#[test]
fn a_key_is_kept_for_24_hours_and_then_forgotten() {
    let mut world = World::with(usual());
    world.raise_keyed("k", event("r", "x"));
    world.now += 86_400_000 - 1;
    world.tick(1000);
    let known = duplicate(Decision::Stored(InstanceId(1)));
    assert_eq!(world.raise_keyed("k", event("r", "x")), known);
    world.now += 1;
    assert_eq!(world.tick(1000), 1);
    assert_eq!(world.raise_keyed("k", event("r", "y")), stored(2));
}

#[test]
fn at_the_bound_new_keys_are_refused_and_old_ones_stay() {
    let mut world = World::with(usual());
    let limits = Limits { keys_max: 2, ..Limits::default() };
    assert_eq!(world.run(Command::SetLimits(limits)), Outcome::Done);
    assert_eq!(world.raise_keyed("a", event("r", "x")), stored(1));
    assert_eq!(world.raise_keyed("b", event("r", "x")), stored(2));
    assert_eq!(refusal(world.raise_keyed("c", event("r", "x"))), Refusal::TooManyKeys);
    let known = duplicate(Decision::Stored(InstanceId(1)));
    assert_eq!(world.raise_keyed("a", event("r", "x")), known);
}

#[test]
fn one_service_leaves_the_others_room_for_keys_and_is_told_when_it_has_room_again() {
    const MOST: u32 = 1000;
    let mut world = World::multi(usual());
    world.run(Command::SetLimits(Limits { keys_max: MOST, ..Limits::default() }));
    world.done(AdminAction::CreateService { id: "x".into() });
    // Given a service that takes all it gets, one key each millisecond, and then another one,
    let begun = world.now;
    let greedy = |world: &mut World, service: &str| {
        let mut taken = 0;
        loop {
            let key = format!("k{taken}");
            match world.raise_keyed_as(service, &key, event("r", "x")) {
                Outcome::Raised(_) => taken += 1,
                other => break refusal(other),
            }
            world.now += 1;
        }
    };
    let keys = |world: &World, service: &str| {
        let of = |row: &Row| matches!(row, Row::Key(row) if row.service.as_str() == service);
        world.state.rows().filter(of).count()
    };
    for (service, share) in [("v", 900), ("w", 90)] {
        assert_eq!(greedy(&mut world, service), Refusal::TooManyKeys);
        assert_eq!(keys(&world, service), share);
    }
    // then a third one finds room,
    assert_eq!(world.site().may_remember_at("x", MOST), None);
    assert!(matches!(world.raise_keyed_as("x", "k", event("r", "x")), Outcome::Raised(_)));
    // and the first is told exactly when it has.
    for service in ["v", "w"] {
        let at = world.site().may_remember_at(service, MOST).unwrap();
        assert!(at.0 > begun + 86_400_000);
        let mut then = world.state.clone();
        let mut raise_at = |stamp: u64| {
            let raise = RaiseKeyed {
                site: SITE.into(),
                service: service.into(),
                key: "another".to_owned(),
                event: event("r", "x"),
            };
            let commands = vec![Command::Tick { limit: 10_000 }, Command::RaiseKeyed(raise)];
            apply(&mut then, &Batch { stamp: Stamp(stamp), commands }).outcomes.remove(1)
        };
        assert_eq!(refusal(raise_at(at.0 - 1)), Refusal::TooManyKeys, "{service}");
        assert!(matches!(raise_at(at.0), Outcome::Raised(_)), "{service}");
    }
    assert_eq!(rebuilt(&world.state), world.state);
}

#[test]
fn a_key_that_the_broker_made_serves_its_retries_for_ten_minutes_and_takes_no_place() {
    let mut world = World::with(usual());
    let limits = Limits { keys_max: 1, ..Limits::default() };
    assert_eq!(world.run(Command::SetLimits(limits)), Outcome::Done);
    assert_eq!(world.raise_keyed("\0one", event("r", "x")), stored(1));
    assert_eq!(world.raise_keyed("\0two", event("r", "x")), stored(2));
    assert_eq!(world.raise_keyed("theirs", event("r", "x")), stored(3));
    assert_eq!(refusal(world.raise_keyed("more", event("r", "x"))), Refusal::TooManyKeys);
    let known = duplicate(Decision::Stored(InstanceId(1)));
    assert_eq!(world.raise_keyed("\0one", event("r", "x")), known);
    world.now += 600_000;
    assert!(world.tick(1000) >= 2);
    assert_eq!(world.raise_keyed("\0one", event("r", "x")), stored(4));
    assert_eq!(refusal(world.raise_keyed("more", event("r", "x"))), Refusal::TooManyKeys);
}

#[test]
fn a_key_has_1_to_255_bytes_and_a_keyed_raise_needs_a_structure_and_a_service() {
    let mut world = World::with(usual());
    for bad in [String::new(), "k".repeat(256)] {
        match refusal(world.raise_keyed(&bad, event("r", "x"))) {
            Refusal::Invalid(invalid) => assert_eq!(invalid.field, "key"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.raise_keyed(&"k".repeat(255), event("r", "x")), stored(1));
    let mut blank = World::blank(settings());
    assert_eq!(refusal(blank.raise_keyed("k", event("r", "x"))), Refusal::SiteBlank);
    blank.done(AdminAction::DeleteService { id: "v".into() });
    assert_eq!(refusal(blank.raise_keyed("k", event("r", "x"))), Refusal::UnknownService);
}

#[test]
fn over_capacity_raises_are_refused_and_the_rest_goes_on() {
    // Given a state that is as large as it may be.
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    world.store(event("q", "x"));
    let limits = Limits { partition_bytes_max: world.state.bytes(), ..Limits::default() };
    world.run(Command::SetLimits(limits));
    // Then raises are refused and use up no number,
    assert_eq!(refusal(world.raise_as("v", 1, 2, event("q", "y"))), Refusal::OverCapacity);
    assert_eq!(refusal(world.raise_keyed("k", event("q", "y"))), Refusal::OverCapacity);
    // what was decided is answered, acknowledgements count,
    let known = duplicate(Decision::Stored(InstanceId(1)));
    assert_eq!(world.raise_as("v", 1, 1, event("q", "x")), known);
    assert_eq!(world.advance("c", "q", 1), Outcome::Advanced { cursor: InstanceId(1) });
    // and one byte more lets the raise in.
    let limits = Limits { partition_bytes_max: world.state.bytes() + 1, ..Limits::default() };
    world.run(Command::SetLimits(limits));
    assert_eq!(world.raise_as("v", 1, 2, event("q", "y")), stored(2));
}

#[test]
fn bytes_follow_what_is_stored() {
    let mut world = World::with(usual());
    world.store(event("r", "x"));
    let before = world.state.bytes();
    let large = NewEvent {
        arguments: Some(Arguments {
            content_type: String::new(),
            data: Bytes::from(vec![0; 1500]),
        }),
        ..event("r", "")
    };
    world.store(large);
    let grown = world.state.bytes() - before;
    assert!((1400..1700).contains(&grown), "{grown}");
    world.done(AdminAction::DeleteSite);
    world.now += 700_000;
    world.tick(1000);
    assert_eq!(world.state.bytes(), 0);
}
